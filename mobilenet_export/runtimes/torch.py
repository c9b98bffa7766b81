"""torch in eager mode: the reference that every file is checked against."""

import importlib.util
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import USUAL, Missing, Placement, Provider, Setup

if TYPE_CHECKING:
    import torch


class TorchSession:
    """An `nn.Module` in eval mode."""

    runtime = "torch"
    provider = "CPU"
    resolution_px: int | None = None

    def __init__(self, module: "torch.nn.Module") -> None:
        self._module = module

    def run(self, batch: FloatArray) -> FloatArray:
        """Run float32 (N, 3, H, W) to float32 (N, classes)."""
        import torch  # noqa: PLC0415

        with torch.inference_mode():
            return np.asarray(self._module(torch.from_numpy(batch)).numpy())

    def prepare(self, batch: FloatArray) -> FloatArray:
        """Return the images as they are."""
        return batch

    def infer(self, feed: FloatArray) -> FloatArray:
        """Run float32 (N, 3, H, W) to float32 (N, classes)."""
        return self.run(feed)


def use_threads(count: int) -> None:
    """Have torch compute with so many threads from now on."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(count)


class TorchRuntime:
    """torch on the CPU; it reads no exported file."""

    name = "torch"
    formats: tuple[str, ...] = ()
    providers: tuple[Provider, ...] = (Provider("CPU"),)

    def version(self) -> str:
        """Installed version."""
        return version("torch")

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None."""
        if importlib.util.find_spec("torch") is None:
            return Missing("not installed", "pip install torch")
        return None

    def provider_missing(self, _provider: Provider) -> Missing | None:
        """None: there is one."""
        return None

    def placements(self, _artifact: Artifact, _setup: Setup, _batch: FloatArray) -> tuple[Placement, ...]:
        """Nothing: there is no file."""
        return ()

    def open(self, artifact: Artifact, _setup: Setup = USUAL) -> TorchSession:
        """Refuse: torch is the reference, not a runtime of exported files.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"torch does not read {artifact.file}", "it is the reference that files are checked against"
        )

    def watch_int8(self, quantized: QuantizedGraph, _images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Refuse: torch runs no exported file.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"torch does not run {quantized.graph.name} in int8", "it is the reference")


RUNTIME = TorchRuntime()
