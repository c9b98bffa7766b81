"""ONNX Runtime and its execution providers."""

import importlib.util
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import DamagedInputError, MissingError
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import USUAL, Missing, Placement, Provider, Setup, find_provider

_REMOVED = "gone: removed from ONNX Runtime; its CPU provider has Arm's kernels (KleidiAI) now"

PROVIDERS: tuple[Provider, ...] = (
    Provider("CPU", "CPUExecutionProvider"),
    Provider(
        "XNNPACK",
        "XnnpackExecutionProvider",
        "not in the wheels of PyPI; Debian 13's python3-onnxruntime and the Android package have it",
        "intra_op_num_threads",
    ),
    Provider(
        "OpenVINO",
        "OpenVINOExecutionProvider",
        "pip install onnxruntime-openvino, instead of onnxruntime",
        "num_of_threads",
    ),
    Provider("QNN", "QNNExecutionProvider", "pip install onnxruntime-qnn, on a Snapdragon"),
    Provider("WebGPU", "WebGpuExecutionProvider", "in browsers: onnxruntime-web"),
    Provider("CoreML", "CoreMLExecutionProvider", "in the wheels for macOS alone"),
    Provider("NNAPI", "NnapiExecutionProvider", "on Android alone, and deprecated there since Android 15"),
    Provider("ACL", "ACLExecutionProvider", _REMOVED),
    Provider("ArmNN", "ArmNNExecutionProvider", _REMOVED),
)
"""Source: onnxruntime.ai/docs/execution-providers; pull request 27447 of microsoft/onnxruntime removed ArmNN."""

EXACT_ON_X64 = Setup(settings={"session.x64quantprecision": "1"})
"""Makes x86 without VNNI multiply integers without saturation; for our files it must change nothing."""

_QUIET = {"session.intra_op.allow_spinning": "0"}
"""Idle threads sleep: beside other runtimes, spinning ones take the cores away."""
_ERRORS_ONLY = 3


class OnnxSession:
    """One model in ONNX Runtime."""

    runtime = "onnxruntime"

    def __init__(
        self,
        artifact: Artifact,
        setup: Setup = USUAL,
        provider: Provider = PROVIDERS[0],
        profile: str | None = None,
    ) -> None:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = setup.threads
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        for key, value in {**_QUIET, **setup.settings}.items():
            options.add_session_config_entry(key, value)
        self.provider = provider.name
        own = (
            {provider.threads_option: str(setup.threads)} if provider.threads_option and setup.threads else {}
        )
        self._session: Any = onnxruntime.InferenceSession(
            artifact.data, options, providers=[(provider.engine_name, own)]
        )
        taken = self._session.get_inputs()[0]
        self._input: str = taken.name
        self._normalization = artifact.normalization if taken.type == "tensor(uint8)" else None
        shape = taken.shape
        self._channels_last = shape[-1] == 3
        self._fixed_batch = isinstance(shape[0], int)
        self.resolution_px: int | None = shape[-2] if isinstance(shape[-2], int) else None

    @property
    def has_provider(self) -> bool:
        """Whether the provider asked for was not silently replaced by the CPU's."""
        names = {provider.name: provider.engine_name for provider in PROVIDERS}
        return names[self.provider] in self._session.get_providers()

    def run(self, batch: FloatArray) -> FloatArray:
        """Run float32 (N, 3, H, W) to float32 (N, classes), image by image where the file fixes the batch."""
        return np.concatenate(self.infer(self.prepare(batch))).reshape(len(batch), -1)

    def prepare(self, batch: FloatArray) -> list[NDArray[Any]]:
        """Return float32 (N, 3, H, W) in the file's layout and type, as one input or as N."""
        values = batch if self._normalization is None else self._normalization.pixels(batch)
        feed = values.transpose(0, 2, 3, 1) if self._channels_last else values
        parts = np.split(feed, len(feed)) if self._fixed_batch else [feed]
        return [np.ascontiguousarray(part) for part in parts]

    def infer(self, feed: list[NDArray[Any]]) -> list[FloatArray]:
        """Run inputs one by one."""
        return [self._session.run(None, {self._input: part})[0] for part in feed]

    def run_all(self, batch: FloatArray) -> list[Any]:
        """Run and return every output of the file."""
        return self.run_feeds({self._input: batch})

    def run_feeds(self, feeds: Mapping[str, FloatArray]) -> list[Any]:
        """Run a file of several inputs, by name, and return every output."""
        outputs: list[Any] = self._session.run(None, dict(feeds))
        return outputs

    def end_profile(self) -> list[dict[str, Any]]:
        """Stop profiling, and return the events."""
        path = Path(self._session.end_profiling())
        events: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return events


class OnnxRuntime:
    """ONNX Runtime with its execution providers."""

    name = "onnxruntime"
    formats: tuple[str, ...] = ("onnx", "ort")
    providers = PROVIDERS

    def version(self) -> str:
        """Installed version, whichever package brought it."""
        import onnxruntime  # noqa: PLC0415

        return str(onnxruntime.__version__)

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Missing("not installed", "pip install onnxruntime")
        return None

    def provider_missing(self, provider: Provider) -> Missing | None:
        """Why the installed build cannot be asked for a provider, or None."""
        import onnxruntime  # noqa: PLC0415

        if provider.engine_name in onnxruntime.get_available_providers():
            return None
        return Missing(f"onnxruntime {self.version()} here is built without it", provider.get)

    def open(self, artifact: Artifact, setup: Setup = USUAL) -> OnnxSession:
        """Load an .onnx or .ort file.

        Raises:
            UsageError: No such provider.
            MissingError: The installed build does not have it, or it does not start here.
            DamagedInputError: ONNX Runtime refuses the file.
        """
        return self._open(artifact, setup, None)

    def _open(self, artifact: Artifact, setup: Setup, profile: str | None) -> OnnxSession:
        provider = find_provider(self, setup.provider)
        try:
            session = OnnxSession(artifact, setup, provider, profile)
        except Exception as error:  # its exception types are private and many
            reason = str(error).strip().splitlines()[0]
            raise DamagedInputError(
                f"{artifact.file}: onnxruntime refuses it: {reason}",
                "the file is damaged, not ours, or newer than this onnxruntime; export it again",
            ) from None
        if not session.has_provider:
            raise MissingError(f"onnxruntime:{provider.name} does not start here", provider.get)
        return session

    def placements(self, artifact: Artifact, setup: Setup, batch: FloatArray) -> tuple[Placement, ...]:
        """Run once with the profiler on, and tell where each node of the optimized graph ran."""
        names = {provider.engine_name: provider.name for provider in PROVIDERS}
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(artifact, setup, str(Path(folder) / "profile"))
            session.infer(session.prepare(batch))
            events = session.end_profile()
        found = {}
        for event in events:
            details = event.get("args", {})
            if event.get("cat") == "Node" and "provider" in details:
                node = event["name"].removesuffix("_kernel_time")
                engine_name = details["provider"]
                found[node] = Placement(node, details["op_name"], names.get(engine_name, engine_name))
        return tuple(found.values())

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image and yield every activation, channel-first, by tensor name."""
        from mobilenet_export.formats.onnx import write_int8_tapped  # noqa: PLC0415 (not on every device)

        data, taps = write_int8_tapped(quantized)
        session = OnnxSession(_watched(data))
        for image in np.split(quantized.graph.feed(images), len(images)):
            _, *values = session.run_all(image)
            yield dict(zip(taps, values, strict=True))


def watch(
    graph: Graph, images: Iterable[FloatArray], bounds: Mapping[str, tuple[float, float]] | None = None
) -> Iterator[dict[str, FloatArray]]:
    """Run a float graph image by image and yield every activation, channel-first, by tensor name.

    A clamped layer's value before its activation is there as `name + UNCLAMPED`.

    Args:
        graph: Fused float graph.
        images: Batches of normalized float32 (N, C, H, W).
        bounds: Tensor name → (low, high) to clip it to.
    """
    from mobilenet_export.formats.onnx import write_tapped  # noqa: PLC0415 (not on every device)

    data, taps = write_tapped(graph, bounds or {})
    session = OnnxSession(_watched(data))
    for batch in images:
        for image in np.split(graph.feed(batch), len(batch)):
            output, *values = session.run_all(image)
            yield {graph.input: image, graph.output: output, **dict(zip(taps, values, strict=True))}


def _watched(data: bytes) -> Artifact:
    return Artifact("watched.onnx", "onnx", "fp32", data)


def suffix(graph: Graph, start: int) -> Callable[[Mapping[str, FloatArray]], FloatArray]:
    """Return a function that runs a float graph from `nodes[start]` to the logits.

    It takes the tensors that those layers read and do not make, channel-first by name (others are passed over),
    and returns the logits, float32 (N, K).
    """
    from mobilenet_export.formats.onnx import write_suffix  # noqa: PLC0415 (not on every device)

    data, feeds = write_suffix(graph, start)
    session = OnnxSession(_watched(data))

    def run(tensors: Mapping[str, FloatArray]) -> FloatArray:
        (logits,) = session.run_feeds({name: tensors[name] for name in feeds})
        return np.asarray(logits)

    return run


RUNTIME = OnnxRuntime()
