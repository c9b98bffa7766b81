"""What LiteRT and tflite-runtime have in common: the Interpreter."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.artifact import Artifact, Normalization
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph


class TfliteSession:
    """One model in a TFLite interpreter; integer inputs and outputs are quantized and dequantized here."""

    def __init__(self, interpreter: Any, normalization: Normalization, runtime: str, provider: str) -> None:
        self._normalization = normalization
        self.runtime = runtime
        self.provider = provider
        self._interpreter = interpreter
        self._input = interpreter.get_input_details()[0]
        self._output = interpreter.get_output_details()[0]
        self.resolution_px: int | None = int(self._input["shape"][1])

    def run(self, batch: FloatArray) -> FloatArray:
        """Run float32 (N, 3, H, W) to float32 (N, classes), one image at a time."""
        return np.concatenate([_dequantized(one, self._output) for one in self.infer(self.prepare(batch))])

    def prepare(self, batch: FloatArray) -> list[np.ndarray]:
        """Return float32 (N, 3, H, W) as N inputs (1, H, W, 3) of the file's type.

        Integers with a scale of 1 are pixels; those of other tools have the scale of normalized values.
        """
        if _takes_pixels(self._input):
            return [self._pixels(image) for image in self._normalization.pixels(batch)]
        images = batch.transpose(0, 2, 3, 1)
        return [_quantized(image[np.newaxis], self._input) for image in images]

    def _pixels(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """(3, H, W) → (1, H, W, 3) as uint8, or less 128 as int8."""
        last = np.ascontiguousarray(image.transpose(1, 2, 0))[np.newaxis]
        return last if self._input["dtype"] == np.uint8 else (last ^ np.uint8(128)).view(np.int8)

    def infer(self, feed: list[np.ndarray]) -> list[np.ndarray]:
        """Run inputs one by one; with their copies in and out, as ONNX Runtime's `run` has them too."""
        outputs = []
        for image in feed:
            self._interpreter.set_tensor(self._input["index"], image)
            self._interpreter.invoke()
            outputs.append(self._interpreter.get_tensor(self._output["index"]))
        return outputs

    def run_all(self, image: FloatArray) -> list[np.ndarray]:
        """Run float32 (1, 3, H, W) and return every output of the file as it is, channel-last."""
        self.infer(self.prepare(image))
        details = self._interpreter.get_output_details()
        return [self._interpreter.get_tensor(one["index"]) for one in details]


def open_session(
    artifact: Artifact, construct: Callable[[], Any], runtime: str, provider: str
) -> TfliteSession:
    """Construct an interpreter and allocate its tensors.

    Raises:
        DamagedInputError: The engine refuses the file.
    """
    with _captured_stderr() as talk:
        try:
            interpreter = construct()
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = (talk() or str(error)).strip().splitlines()[0]
            raise DamagedInputError(
                f"{artifact.file}: {runtime} refuses it: {reason}",
                "the file is damaged or not ours; export it again",
            ) from None
    return TfliteSession(interpreter, artifact.normalization, runtime, provider)


def watch_tapped(
    quantized: QuantizedGraph, images: FloatArray, construct: Callable[[Artifact], TfliteSession]
) -> Iterator[dict[str, IntegerArray]]:
    """Run an int8 graph image by image and yield every activation, channel-first 0…255, by tensor name.

    Every tensor is an output of the file, so that XNNPACK, where it is there, takes the whole network at once as
    it does for users; with `experimental_preserve_all_tensors` LiteRT 2.3 hands it one operator at a time.
    """
    from mobilenet_export.formats.tflite import write_int8_tapped  # noqa: PLC0415 (not on every device)

    data, taps = write_int8_tapped(quantized)
    session = construct(Artifact("watched.tflite", "tflite", "int8", data))
    for image in np.split(quantized.graph.feed(images), len(images)):
        _, *values = session.run_all(image)
        yield {name: _unsigned(value) for name, value in zip(taps, values, strict=True)}


def _unsigned(values: np.ndarray) -> IntegerArray:
    """Signed, channel-last → 0…255, channel-first."""
    shifted = (values.astype(np.int16) + 128).astype(np.uint8)
    return shifted.transpose(0, 3, 1, 2) if shifted.ndim == 4 else shifted


def _takes_pixels(details: Any) -> bool:
    return bool(details["dtype"] != np.float32 and details["quantization"][0] == 1.0)


def _quantized(values: FloatArray, details: Any) -> np.ndarray:
    kind = np.dtype(details["dtype"])
    if kind == np.float32:
        return np.ascontiguousarray(values, np.float32)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(kind)
    integers = np.clip(np.rint(values / np.float32(scale)) + zero_point, limits.min, limits.max)
    return np.asarray(integers, kind)


def _dequantized(values: np.ndarray, details: Any) -> FloatArray:
    if values.dtype == np.float32:
        return values
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


@contextmanager
def _captured_stderr() -> Iterator[Callable[[], str]]:
    """Keep what the C++ code writes to file descriptor 2 off the terminal; yields a reader of it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:
        original = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield lambda: _text(sink)
        finally:
            os.dup2(original, 2)
            os.close(original)


def _text(sink: IO[bytes]) -> str:
    sink.seek(0)
    return sink.read().decode(errors="replace")
