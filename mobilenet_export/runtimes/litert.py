"""LiteRT (`ai-edge-litert`), the maintained TFLite interpreter, with XNNPACK as it is by default."""

import importlib.util
import os
from collections.abc import Iterator
from importlib.metadata import version

from mobilenet_export.artifact import Artifact
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import Missing
from mobilenet_export.runtimes._tflite_session import TfliteSession, open_session, watch_tapped


class LiteRuntime:
    """LiteRT on the CPU."""

    name = "litert"
    format = "tflite"

    def version(self) -> str:
        """Installed version."""
        return version("ai-edge-litert")

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Missing("not installed", "pip install ai-edge-litert")
        return None

    def open(self, artifact: Artifact, *, reference_kernels: bool = False) -> TfliteSession:
        """Load a .tflite file; `reference_kernels` leaves XNNPACK out, as tflite-runtime does for int8.

        Raises:
            DamagedInputError: LiteRT refuses the file.
        """
        from ai_edge_litert import interpreter  # noqa: PLC0415

        kinds = interpreter.OpResolverType
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if reference_kernels else kinds.AUTO
        return open_session(
            artifact,
            lambda: interpreter.Interpreter(
                model_content=artifact.data, num_threads=os.cpu_count(), experimental_op_resolver_type=kind
            ),
            self.name,
            "builtin" if reference_kernels else "XNNPACK",
        )

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image and yield every activation, channel-first, by tensor name."""
        return watch_tapped(quantized, images, self.open)


RUNTIME = LiteRuntime()
