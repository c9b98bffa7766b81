"""tflite-runtime 2.14, unmaintained since 2023 but on many devices; Python ≤ 3.11 and numpy < 2 only."""

import importlib.util
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from mobilenet_export.artifact import Artifact
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import USUAL, Missing, Placement, Provider, Setup, find_provider
from mobilenet_export.runtimes._tflite_session import TfliteSession, open_session, watch_tapped


class TfliteRuntime:
    """tflite-runtime on the CPU."""

    name = "tflite_runtime"
    formats: tuple[str, ...] = ("tflite",)
    providers: tuple[Provider, ...] = (Provider("builtin"),)

    def version(self) -> str:
        """Installed version."""
        return version("tflite-runtime")

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None; with numpy 2 it imports and then crashes in its first session."""
        if importlib.util.find_spec("tflite_runtime") is None:
            return Missing("not installed", "pip install tflite-runtime 'numpy<2' (Python ≤ 3.11)")
        if int(np.__version__.split(".")[0]) >= 2:
            return Missing(f"crashes with numpy {np.__version__}", "pip install 'numpy<2'")
        return None

    def provider_missing(self, _provider: Provider) -> Missing | None:
        """None: there is one, and it has that."""
        return None

    def open(self, artifact: Artifact, setup: Setup = USUAL) -> TfliteSession:
        """Load a .tflite file.

        Raises:
            UsageError: No such provider.
            DamagedInputError: tflite-runtime refuses the file.
        """
        from tflite_runtime import interpreter  # noqa: PLC0415

        provider = find_provider(self, setup.provider).name
        return open_session(
            artifact,
            lambda: interpreter.Interpreter(model_content=artifact.data, num_threads=setup.threads or None),
            self.name,
            provider,
        )

    def placements(self, _artifact: Artifact, _setup: Setup, _batch: FloatArray) -> tuple[Placement, ...]:
        """Nothing: the interpreter does not tell."""
        return ()

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image and yield every activation, channel-first, by tensor name."""
        return watch_tapped(quantized, images, self.open)


RUNTIME = TfliteRuntime()
