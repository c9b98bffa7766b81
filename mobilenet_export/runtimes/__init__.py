"""One module per engine; each ends in `RUNTIME: Runtime`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import MissingError, unknown_name
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

    def prepare(self, batch: FloatArray) -> Any:
        """Return the images as the file takes them: its layout, its type, its batch."""
        ...

    def infer(self, feed: Any) -> Any:
        """Run what `prepare` returned, to the outputs as the file gives them: what latency is of."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a runtime does not work here, and how to get it."""

    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Provider:
    """Kernels that a runtime can be asked for: an execution provider or a delegate.

    Attributes:
        name: As users type it, in any case.
        engine_name: As the runtime spells it.
        get: How to get a build that has it, or why there is none any more.
        threads_option: Its own option for the number of threads, where it does not take the runtime's.
    """

    name: str
    engine_name: str = ""
    get: str = ""
    threads_option: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """How to load a file.

    Attributes:
        provider: Name of it; None for the runtime's own.
        threads: 0 for the runtime's own number.
        settings: Configuration entries of the runtime.
    """

    provider: str | None = None
    threads: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)


USUAL = Setup()


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an engine ran a node: its operator after optimization, and the provider by its name here."""

    node: str
    operator: str
    provider: str


class Runtime(Protocol):
    """An engine that reads files; a new one is a new module in this folder."""

    name: str
    formats: tuple[str, ...]
    """Names of the formats that it reads, as in `formats/`, its own first."""
    providers: tuple[Provider, ...]
    """That it can have, its own first; not every build has all."""

    def version(self) -> str:
        """Installed version."""
        ...

    def missing(self) -> Missing | None:
        """Why it cannot be used, or None; cheap, and true only of an engine that can make a session."""
        ...

    def provider_missing(self, provider: Provider) -> Missing | None:
        """Why the installed build cannot be asked for a provider, or None."""
        ...

    def open(self, artifact: Artifact, setup: Setup = USUAL) -> Session:
        """Load a file.

        Raises:
            UsageError: No such provider.
            MissingError: The installed build does not have it.
            DamagedInputError: The engine refuses the file.
        """
        ...

    def placements(self, artifact: Artifact, setup: Setup, batch: FloatArray) -> tuple[Placement, ...]:
        """Run once, and tell where each node ran; nothing where the engine does not tell."""
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


def find_provider(engine: Runtime, name: str | None) -> Provider:
    """Return a provider by its name, in any case; the runtime's own where None.

    Raises:
        UsageError: It knows none of that name; the hint names the nearest.
        MissingError: The installed build does not have it; the hint says how to get it.
    """
    known = {provider.name.lower(): provider for provider in engine.providers}
    if name is None:
        return engine.providers[0]
    if name.lower() not in known:
        raise unknown_name(f"provider of {engine.name}", name, known)
    provider = known[name.lower()]
    missing = engine.provider_missing(provider)
    if missing is not None:
        raise MissingError(f"{engine.name}:{provider.name}: {missing.reason}", missing.hint)
    return provider


def available_runtimes() -> tuple[Runtime, ...]:
    """Return the runtimes that work here, by name."""
    found: list[Runtime] = [load_plugin("runtimes", name) for name in plugin_names("runtimes")]
    return tuple(engine for engine in found if engine.missing() is None)
