"""Latency of files in runtimes, on the machine that this runs on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from mobilenet_export.agent.cold import ColdStart, measure_cold
from mobilenet_export.agent.request import Engine, pairs
from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.latency import Contestant, Plan, race
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import open_image, preprocess
from mobilenet_export.latency import LatencyReport, LatencyRow, Split, explain
from mobilenet_export.machine import this_machine
from mobilenet_export.runtimes import Placement, Session, Setup
from mobilenet_export.spec import Preprocess

_INTEGER = (
    "QLinear",
    "QGemm",
    "Quantize",
    "Dequantize",
    "Integer",
    "Reshape",
    "Flatten",
    "Softmax",
    "Transpose",
)
"""In the names of operators that an int8 file may run as: integers, the way in and out, and a closing softmax."""
_SPLIT_RUNS = 20


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure.

    Attributes:
        artifacts: Model files.
        resolution_px: Height and width of the input.
        engines: Runtimes that work here.
        threads: Numbers of them to try.
        batch: Images per inference.
        plan: How long.
        photo: An image for the split from file to answer, and how it is preprocessed.
    """

    artifacts: tuple[Artifact, ...]
    resolution_px: int
    engines: tuple[Engine, ...]
    threads: tuple[int, ...] = (1,)
    batch: int = 1
    plan: Plan = field(default_factory=Plan)
    photo: tuple[Path, Preprocess] | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the input, channel-first."""
        return (self.batch, 3, self.resolution_px, self.resolution_px)


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be: a file loaded in a runtime."""

    artifact: Artifact
    engine: Engine
    threads: int
    session: Session

    @property
    def setup(self) -> Setup:
        """How it was loaded."""
        return Setup(self.engine.provider, self.threads)


def bench(
    request: BenchRequest,
    extra: Sequence[Session] = (),
    advance: Callable[[int], None] = lambda _rounds: None,
) -> LatencyReport:
    """Measure every file in every runtime that reads it, and with every number of threads, side by side.

    Args:
        request: What to measure.
        extra: Sessions that read no file, such as torch; they are rows of their own, last.
        advance: Told of each round, or minute.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    entries = _load(request)
    batch = _batch(request)
    sessions = [*(entry.session for entry in entries), *extra]
    contestants = [Contestant(session, session.prepare(batch)) for session in sessions]
    minutes = race(contestants, request.plan, advance)
    rows = [_row(entry, one, request) for entry, one in zip(entries, contestants, strict=False)]
    rows += [_extra_row(one, request) for one in contestants[len(entries) :]]
    machine = this_machine()
    return LatencyReport(
        machine, tuple(rows), _split(request, entries[0].session), minutes, explain(rows, machine)
    )


def _load(request: BenchRequest) -> tuple[Entry, ...]:
    found = []
    for artifact, engine in pairs(request.artifacts, request.engines):
        for threads in request.threads:
            session = engine.runtime.open(artifact, Setup(engine.provider, threads))
            if session.resolution_px not in (None, request.resolution_px):
                raise UsageError(
                    f"{artifact.file} takes {session.resolution_px} px, not {request.resolution_px} px",
                    "bench files of one input size at a time",
                )
            found.append(Entry(artifact, engine, threads, session))
    return tuple(found)


def _batch(request: BenchRequest) -> FloatArray:
    """A photo where there is one, else noise: latency depends on neither, but zeros would be a special case."""
    if request.photo is None:
        return np.random.default_rng(0).uniform(-1, 1, request.shape).astype(np.float32)
    path, how = request.photo
    return np.repeat(preprocess(open_image(path, path.name), how)[np.newaxis], request.batch, axis=0)


def _row(entry: Entry, contestant: Contestant, request: BenchRequest) -> LatencyRow:
    artifact, engine, session = entry.artifact, entry.engine, entry.session
    start = ColdStart(
        artifact.file, artifact.format, engine.runtime.name, engine.provider, entry.threads, request.shape
    )
    placed = engine.runtime.placements(artifact, entry.setup, np.zeros(request.shape, np.float32))
    return LatencyRow(
        file=artifact.file,
        precision=artifact.precision,
        runtime=session.runtime,
        provider=session.provider,
        threads=entry.threads,
        batch=request.batch,
        rounds_ms=tuple(contestant.rounds_ms),
        cold=measure_cold(start, artifact.data),
        elsewhere=tuple(_told(one) for one in placed if one.provider != session.provider),
        unfused=tuple(_told(one) for one in placed if artifact.precision == "int8" and _is_float(one)),
    )


def _told(placement: Placement) -> str:
    return f"{placement.operator} {placement.node}"


def _is_float(placement: Placement) -> bool:
    return not any(word in placement.operator for word in _INTEGER)


def _extra_row(contestant: Contestant, request: BenchRequest) -> LatencyRow:
    session = contestant.session
    return LatencyRow(
        file="(eager)",
        precision="fp32",
        runtime=session.runtime,
        provider=session.provider,
        threads=request.threads[0],
        batch=request.batch,
        rounds_ms=tuple(contestant.rounds_ms),
    )


def _split(request: BenchRequest, session: Session) -> Split | None:
    """Time the way from a photo's file to the answer, with the first row's session and one image at a time."""
    if request.photo is None:
        return None
    path, how = request.photo
    times = []
    for _ in range(_SPLIT_RUNS):
        start = time.perf_counter()
        picture = open_image(path, path.name)
        decoded = time.perf_counter()
        values = preprocess(picture, how)[np.newaxis]
        ready = time.perf_counter()
        session.run(values)
        times.append((decoded - start, ready - decoded, time.perf_counter() - ready))
    return Split(*(1000 * median(column) for column in zip(*times, strict=True)))


def select(artifacts: Sequence[Artifact], names: Sequence[str]) -> tuple[Artifact, ...]:
    """Return the files of these names; all without names.

    Raises:
        UsageError: There is none of that name.
    """
    known = {artifact.file: artifact for artifact in artifacts}
    for name in names:
        if name not in known:
            raise UsageError(f"{name} is not a file of this bundle", "its files: " + ", ".join(known))
    return tuple(known[name] for name in names) or tuple(artifacts)


def check_numbers(threads: Sequence[int], batch: int, plan: Plan) -> None:
    """Refuse numbers that measure nothing.

    Raises:
        UsageError: A number is not above 0.
    """
    if any(count < 1 for count in threads) or not threads:
        raise UsageError(
            f"--threads {','.join(map(str, threads))}: must be 1 or more", "for example --threads 1,2"
        )
    if batch < 1 or plan.runs < 1 or (plan.minutes is not None and not 0 < plan.minutes < 24 * 60):
        raise UsageError(
            "--batch, --runs and --minutes must be above 0", "leave them out for 1 image, 100 runs"
        )
