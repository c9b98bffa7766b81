"""`doctor`: what works on this machine, tried out rather than looked up."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import MnxError
from mobilenet_export.formats import Format
from mobilenet_export.graph import Conv2d, FullyConnected, GlobalAveragePool, Graph, Pads
from mobilenet_export.machine import Machine, this_machine
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.runtimes import Provider, Runtime, Setup

_SIDE_PX, _CHANNELS, _CLASSES = 32, 8, 4


@dataclass(frozen=True, slots=True)
class Finding:
    """A runtime with one of its providers.

    Attributes:
        runtime: Name of it.
        provider: Name of it.
        works: A network was loaded and run with it.
        version: Of the runtime; empty where it is not installed.
        hint: How to get it, where it does not work; else what is worth knowing.
    """

    runtime: str
    provider: str
    works: bool
    version: str
    hint: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What works on a machine."""

    machine: Machine
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON-able table."""
        return dataclasses.asdict(self) | {"int8": self.machine.int8}


def diagnose() -> Diagnosis:
    """Try every runtime with every provider."""
    runtimes: list[Runtime] = [load_plugin("runtimes", name) for name in plugin_names("runtimes")]
    return Diagnosis(this_machine(), tuple(f for engine in runtimes for f in _try_runtime(engine)))


def _try_runtime(engine: Runtime) -> Iterator[Finding]:
    missing = engine.missing()
    if missing is not None:
        hint = f"{missing.reason}: {missing.hint}"
        yield Finding(engine.name, engine.providers[0].name, works=False, version="", hint=hint)
        return
    for provider in engine.providers:
        yield _try_provider(engine, provider)


def _try_provider(engine: Runtime, provider: Provider) -> Finding:
    version, hint, works = engine.version(), "", True
    absent = engine.provider_missing(provider)
    if absent is not None:
        works, hint = False, absent.hint
    elif engine.formats:
        works, hint = _run_tiny_network(engine, provider)
    else:
        hint = "the reference; reads no exported file"
    return Finding(engine.name, provider.name, works, version, hint)


def _run_tiny_network(engine: Runtime, provider: Provider) -> tuple[bool, str]:
    """Load and run a network that every provider has kernels for; say which nodes it left to others."""
    graph, form = _tiny_network(), load_plugin("formats", engine.formats[0])
    artifact = _artifact(graph, form)
    batch = np.ones((1, *graph.input_shape), np.float32)
    setup = Setup(provider.name)
    try:
        finite = bool(np.isfinite(engine.open(artifact, setup).run(batch)).all())
        placed = engine.placements(artifact, setup, batch)
    except MnxError as error:
        return False, f"{error.message}: {error.hint}"
    elsewhere = [one.operator for one in placed if one.provider != provider.name]
    if placed and len(elsewhere) == len(placed):
        return False, "it takes none of the nodes; the CPU ran them all"
    left = f"leaves to the CPU: {', '.join(elsewhere)}" if elsewhere else ""
    return finite, left if finite else "gives NaN or infinity"


def _artifact(graph: Graph, form: Format) -> Artifact:
    return Artifact("tiny", form.name, "fp32", form.write_float(graph, "fp32"))


def _tiny_network() -> Graph:
    """A convolution, pool and linear layer."""
    stem = np.full((_CHANNELS, 3, 3, 3), 0.1, np.float32)
    head = np.full((_CLASSES, _CHANNELS), 0.1, np.float32)
    return Graph(
        "tiny",
        "input",
        (3, _SIDE_PX, _SIDE_PX),
        (
            Conv2d("stem", "input", stem, np.zeros(_CHANNELS, np.float32), (2, 2), Pads(0, 0, 1, 1)),
            GlobalAveragePool("pool", "stem"),
            FullyConnected("head", "pool", head, np.zeros(_CLASSES, np.float32)),
        ),
    )
