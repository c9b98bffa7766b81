"""LiteRT (`ai-edge-litert`), the maintained TFLite interpreter, with XNNPACK as it is by default."""

import importlib.util
import os
from collections.abc import Iterator
from importlib.metadata import version

from mobilenet_export.artifact import Artifact
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import USUAL, Missing, Placement, Provider, Setup, find_provider
from mobilenet_export.runtimes._tflite_session import TfliteSession, open_session, watch_tapped


class LiteRuntime:
    """LiteRT on the CPU."""

    name = "litert"
    formats: tuple[str, ...] = ("tflite",)
    providers: tuple[Provider, ...] = (Provider("XNNPACK"), Provider("builtin"))

    def version(self) -> str:
        """Installed version."""
        return version("ai-edge-litert")

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None."""
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Missing("not installed", "pip install ai-edge-litert")
        return None

    def provider_missing(self, _provider: Provider) -> Missing | None:
        """None: every build has both."""
        return None

    def open(self, artifact: Artifact, setup: Setup = USUAL) -> TfliteSession:
        """Load a .tflite file; provider `builtin` leaves XNNPACK out, as tflite-runtime does for int8.

        Raises:
            UsageError: No such provider.
            DamagedInputError: LiteRT refuses the file.
        """
        from ai_edge_litert import interpreter  # noqa: PLC0415

        provider = find_provider(self, setup.provider).name
        kinds = interpreter.OpResolverType
        kind = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES if provider == "builtin" else kinds.AUTO
        return open_session(
            artifact,
            lambda: interpreter.Interpreter(
                model_content=artifact.data,
                num_threads=setup.threads or os.cpu_count(),
                experimental_op_resolver_type=kind,
            ),
            self.name,
            provider,
        )

    def placements(self, _artifact: Artifact, _setup: Setup, _batch: FloatArray) -> tuple[Placement, ...]:
        """Nothing: the interpreter does not tell."""
        return ()

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image and yield every activation, channel-first, by tensor name."""
        return watch_tapped(quantized, images, self.open)


RUNTIME = LiteRuntime()
