"""ONNX Runtime on the CPU."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.formats.onnx import write_int8_tapped, write_suffix, write_tapped
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import Missing

EXACT_ON_X64 = {"session.x64quantprecision": "1"}
"""Makes x86 without VNNI multiply integers without saturation; for our files it must change nothing."""

_QUIET = {"session.intra_op.allow_spinning": "0"}
"""Idle threads sleep: beside other runtimes, spinning ones take the cores away."""
_ERRORS_ONLY = 3


class OnnxSession:
    """One model in ONNX Runtime."""

    runtime = "onnxruntime"
    provider = "CPU"

    def __init__(self, data: bytes, settings: Mapping[str, str]) -> None:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        for key, value in {**_QUIET, **settings}.items():
            options.add_session_config_entry(key, value)
        self._session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._input: str = self._session.get_inputs()[0].name
        shape = self._session.get_inputs()[0].shape
        self._channels_last = shape[-1] == 3
        self.resolution_px: int | None = shape[-2] if isinstance(shape[-2], int) else None

    def run(self, batch: FloatArray) -> FloatArray:
        """Run float32 (N, 3, H, W) to float32 (N, classes), image by image where the file fixes the batch."""
        feed = batch.transpose(0, 2, 3, 1) if self._channels_last else batch
        fixed = isinstance(self._session.get_inputs()[0].shape[0], int)
        parts = np.split(feed, len(feed)) if fixed else [feed]
        results = [self._session.run(None, {self._input: np.ascontiguousarray(part)})[0] for part in parts]
        return np.concatenate(results).reshape(len(batch), -1)

    def run_all(self, batch: FloatArray) -> list[Any]:
        """Run and return every output of the file."""
        return self.run_feeds({self._input: batch})

    def run_feeds(self, feeds: Mapping[str, FloatArray]) -> list[Any]:
        """Run a file of several inputs, by name, and return every output."""
        outputs: list[Any] = self._session.run(None, dict(feeds))
        return outputs


class OnnxRuntime:
    """ONNX Runtime with its CPU execution provider."""

    name = "onnxruntime"
    format = "onnx"

    def version(self) -> str:
        """Installed version."""
        return version("onnxruntime")

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Missing("not installed", "pip install onnxruntime")
        return None

    def open(self, artifact: Artifact, settings: Mapping[str, str] | None = None) -> OnnxSession:
        """Load an .onnx file; `settings` are session configuration entries of ONNX Runtime.

        Raises:
            DamagedInputError: ONNX Runtime refuses the file.
        """
        try:
            return OnnxSession(artifact.data, settings or {})
        except Exception as error:  # its exception types are private and many
            reason = str(error).strip().splitlines()[0]
            raise DamagedInputError(
                f"{artifact.file}: onnxruntime refuses it: {reason}",
                "the file is damaged or not ours; export it again",
            ) from None

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image and yield every activation, channel-first, by tensor name."""
        data, taps = write_int8_tapped(quantized)
        session = OnnxSession(data, {})
        for image in np.split(images, len(images)):
            _, *values = session.run_all(image)
            yield dict(zip(taps, values, strict=True))


def watch(
    graph: Graph, images: Iterable[FloatArray], bounds: Mapping[str, tuple[float, float]] | None = None
) -> Iterator[dict[str, FloatArray]]:
    """Run a float graph image by image and yield every activation, channel-first, by tensor name.

    A clamped layer's value before its activation is there as `name + UNCLAMPED`.

    Args:
        graph: Fused float graph.
        images: Batches of float32 (N, C, H, W).
        bounds: Tensor name → (low, high) to clip it to.
    """
    data, taps = write_tapped(graph, bounds or {})
    session = OnnxSession(data, {})
    for batch in images:
        for image in np.split(batch, len(batch)):
            output, *values = session.run_all(image)
            yield {graph.input: image, graph.output: output, **dict(zip(taps, values, strict=True))}


def suffix(graph: Graph, start: int) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
    """Return a function that runs a float graph from `nodes[start]` to the logits.

    It takes the tensors that those layers read and do not make, channel-first by name (others are passed over),
    and returns the logits, float32 (N, K).
    """
    data, feeds = write_suffix(graph, start)
    session = OnnxSession(data, {})

    def run(tensors: Mapping[str, FloatArray]) -> FloatArray:
        (logits,) = session.run_feeds({name: tensors[name] for name in feeds})
        return np.asarray(logits)

    return run


RUNTIME = OnnxRuntime()
