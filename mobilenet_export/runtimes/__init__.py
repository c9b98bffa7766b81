"""One module per engine; each ends in `RUNTIME: Runtime`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import MissingError
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.quantized import QuantizedGraph


class Session(Protocol):
    """A loaded model that runs."""

    runtime: str
    provider: str
    resolution_px: int | None
    """Height and width that the file takes; None where it leaves them open."""

    def run(self, batch: FloatArray) -> FloatArray:
        """Run preprocessed images, float32 (N, 3, H, W), to float32 (N, classes)."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a runtime does not work here, and how to get it."""

    reason: str
    hint: str


class Runtime(Protocol):
    """An engine that reads one file format; a new one is a new module in this folder."""

    name: str
    format: str
    """Name of the format that it reads, as in `formats/`."""

    def version(self) -> str:
        """Installed version."""
        ...

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None; cheap, and true only of an engine that can make a session."""
        ...

    def open(self, artifact: Artifact) -> Session:
        """Load a file.

        Raises:
            DamagedInputError: The engine refuses it.
        """
        ...

    def watch_int8(self, quantized: QuantizedGraph, images: FloatArray) -> Iterator[dict[str, IntegerArray]]:
        """Run an int8 graph image by image in the engine's own kernels, and yield every activation inside.

        Args:
            quantized: The integers; they are spelled again with every tensor as an output.
            images: Preprocessed, float32 (N, 3, H, W).

        Yields:
            Tensor name → integers 0…255, uint8 (1, C, H, W) or (1, C), up to the logits.
        """
        ...


def runtime(name: str) -> Runtime:
    """Return a runtime that works here.

    Raises:
        UsageError: No such runtime; the hint names the nearest.
        MissingError: It is not installed, or is broken; the hint says how to get it.
    """
    found: Runtime = load_plugin("runtimes", name)
    missing = found.missing()
    if missing is not None:
        raise MissingError(f"{name}: {missing.reason}", missing.hint)
    return found


def available_runtimes() -> tuple[Runtime, ...]:
    """Return the runtimes that work here, by name."""
    found: list[Runtime] = [load_plugin("runtimes", name) for name in plugin_names("runtimes")]
    return tuple(engine for engine in found if engine.missing() is None)
