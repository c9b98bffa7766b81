"""Which files run in which runtimes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import MissingError, UsageError
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.runtimes import Runtime, available_runtimes, find_provider, runtime

READS_FILES = ("onnxruntime", "litert", "tflite_runtime")


@dataclass(frozen=True, slots=True)
class Engine:
    """A runtime that works here, and the provider asked of it; None for its own."""

    runtime: Runtime
    provider: str | None = None


def find_engines(names: Sequence[str]) -> tuple[Engine, ...]:
    """Return the runtimes named as `NAME` or `NAME:PROVIDER`; without names all that work here.

    Raises:
        UsageError: No such runtime or provider; the hint names the nearest.
        MissingError: It does not work here; the hint says how to get it.
    """
    if not names:
        return tuple(Engine(found) for found in available_runtimes()) or _none_here()
    engines = []
    for text in names:
        name, _, provider = text.partition(":")
        found = Engine(runtime(name.replace("-", "_")), provider or None)
        find_provider(found.runtime, found.provider)
        engines.append(found)
    return tuple(engines)


def _none_here() -> tuple[Engine, ...]:
    found: list[Runtime] = [load_plugin("runtimes", name) for name in plugin_names("runtimes")]
    reasons = ((engine.name, engine.missing()) for engine in found if engine.name in READS_FILES)
    told = "; ".join(f"{name}: {missing.reason}" for name, missing in reasons if missing)
    raise MissingError(f"no runtime works here ({told})", "pip install onnxruntime, or ai-edge-litert")


def pairs(artifacts: Sequence[Artifact], engines: Sequence[Engine]) -> Iterator[tuple[Artifact, Engine]]:
    """Yield every file with every runtime that reads it.

    Raises:
        UsageError: No runtime reads any of the files.
    """
    found = [(a, e) for a in artifacts for e in engines if a.format in e.runtime.formats]
    if not found:
        formats = ", ".join(sorted({artifact.format for artifact in artifacts}))
        names = ", ".join(engine.runtime.name for engine in engines)
        raise UsageError(f"{names} reads none of the files, which are {formats}", "name another --runtime")
    yield from found
