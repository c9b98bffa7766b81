"""Latency of files in runtimes, on the machine that this runs on."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from mobilenet_export.agent.cold import ColdStart, measure_cold
from mobilenet_export.agent.request import Engine, pairs
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import DOCUMENT, EXPORT_AGAIN, SELF_CHECK, Bundle
from mobilenet_export.checks.latency import Contestant, Plan, race
from mobilenet_export.errors import DamagedInputError, UsageError
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
_THREADS_PER_CORE = 4
_LONGEST_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Photo:
    """An image that a file can be fed with."""

    path: Path
    how: Preprocess


@dataclass(frozen=True, slots=True)
class LatencyRequest:
    """What to measure.

    Attributes:
        artifacts: Model files.
        photos: File name → an image to feed it with. A file without one is fed with noise of `resolution_px`.
        engines: Runtimes that work here.
        threads: Numbers of them to try.
        batch: Images per inference.
        plan: How long.
        resolution_px: Height and width of the input of files that leave it open and have no photo.
    """

    artifacts: tuple[Artifact, ...]
    photos: Mapping[str, Photo]
    engines: tuple[Engine, ...]
    threads: tuple[int, ...] = (1,)
    batch: int = 1
    plan: Plan = field(default_factory=Plan)
    resolution_px: int | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A row to be: a file loaded in a runtime, and what it is fed with."""

    artifact: Artifact
    engine: Engine
    threads: int
    session: Session
    batch: FloatArray

    @property
    def setup(self) -> Setup:
        """How it was loaded."""
        return Setup(self.engine.provider, self.threads)


def bench(
    request: LatencyRequest,
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
    fed = [(entry.session, entry.batch) for entry in entries] + [(one, entries[0].batch) for one in extra]
    contestants = [Contestant(session, session.prepare(batch)) for session, batch in fed]
    minutes = race(contestants, request.plan, advance)
    rows = [_row(entry, one) for entry, one in zip(entries, contestants, strict=False)]
    rows += [_extra_row(one, request) for one in contestants[len(entries) :]]
    machine = this_machine()
    split = _split(request.photos.get(entries[0].artifact.file), entries[0].session)
    return LatencyReport(machine, tuple(rows), split, minutes, explain(rows, machine))


def _load(request: LatencyRequest) -> tuple[Entry, ...]:
    found = []
    for artifact, engine in pairs(request.artifacts, request.engines):
        for threads in request.threads:
            session = engine.runtime.open(artifact, Setup(engine.provider, threads))
            batch = _batch(artifact, session, request)
            _try(artifact, session, batch)
            found.append(Entry(artifact, engine, threads, session, batch))
    return tuple(found)


def _try(artifact: Artifact, session: Session, batch: FloatArray) -> None:
    """Refuse a file that takes something else than images before anything is measured."""
    try:
        session.infer(session.prepare(batch))
    except Exception as error:  # the engines' exception types are private and many
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f"{artifact.file} does not take images {batch.shape}: {reason}",
            "bench image classifiers with one RGB input",
        ) from None


def _batch(artifact: Artifact, session: Session, request: LatencyRequest) -> FloatArray:
    """A photo where there is one, else noise: latency depends on neither, but zeros would be a special case."""
    photo = request.photos.get(artifact.file)
    if session.resolution_px and request.resolution_px not in (None, session.resolution_px):
        raise UsageError(
            f"--resolution {request.resolution_px}: {artifact.file} takes {session.resolution_px} px, and no other",
            "leave --resolution out, or export the network with it",
        )
    if photo is not None:
        image = preprocess(open_image(photo.path, photo.path.name), photo.how)
        return np.repeat(image[np.newaxis], request.batch, axis=0)
    side = session.resolution_px or request.resolution_px
    if side is None:
        raise UsageError(f"{artifact.file} leaves its input size open", "give --resolution PX")
    return np.random.default_rng(0).uniform(-1, 1, (request.batch, 3, side, side)).astype(np.float32)


def _row(entry: Entry, contestant: Contestant) -> LatencyRow:
    artifact, engine, session = entry.artifact, entry.engine, entry.session
    name, shape = engine.runtime.name, entry.batch.shape
    start = ColdStart(artifact.file, artifact.format, name, engine.provider, entry.threads, shape)
    placed = engine.runtime.placements(artifact, entry.setup, entry.batch)
    return LatencyRow(
        file=artifact.file,
        precision=artifact.precision,
        runtime=session.runtime,
        provider=session.provider,
        threads=entry.threads,
        batch=len(entry.batch),
        rounds_ms=tuple(contestant.rounds_ms),
        cold=measure_cold(start, artifact.data),
        nodes=len(placed),
        elsewhere=tuple(_told(one) for one in placed if one.provider != session.provider),
        unfused=tuple(_told(one) for one in placed if artifact.precision == "int8" and _is_float(one)),
    )


def _told(placement: Placement) -> str:
    return f"{placement.operator} {placement.node}"


def _is_float(placement: Placement) -> bool:
    if placement.node.startswith("input/"):  # makes pixels of normalized values, which no int8 file can avoid
        return False
    return not any(word in placement.operator for word in _INTEGER)


def _extra_row(contestant: Contestant, request: LatencyRequest) -> LatencyRow:
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


def _split(photo: Photo | None, session: Session) -> Split | None:
    """Time the way from a photo's file to the answer, with the first row's session and one image at a time."""
    if photo is None:
        return None
    times = []
    for _ in range(_SPLIT_RUNS):
        start = time.perf_counter()
        picture = open_image(photo.path, photo.path.name)
        decoded = time.perf_counter()
        values = preprocess(picture, photo.how)[np.newaxis]
        ready = time.perf_counter()
        session.run(values)
        times.append((decoded - start, ready - decoded, time.perf_counter() - ready))
    return Split(*(1000 * median(column) for column in zip(*times, strict=True)))


def photo_of(bundle: Bundle) -> Photo:
    """Return the first image of a bundle's self-check.

    Raises:
        DamagedInputError: The bundle has none.
    """
    spec = bundle.spec()
    try:
        name = bundle.document["self_check"][0]["image"]
    except (KeyError, IndexError):
        raise DamagedInputError(f"{bundle.folder}: no self-check in {DOCUMENT}", EXPORT_AGAIN) from None
    return Photo(bundle.folder / SELF_CHECK / name, spec.preprocess)


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


def parse_threads(text: str) -> tuple[int, ...]:
    """Read numbers of threads, such as `1,2`.

    Raises:
        UsageError: They are not whole numbers above 0.
    """
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--threads {text}: not whole numbers", "for example --threads 1,2") from None
    return check_threads(found)


def check_threads(found: tuple[int, ...]) -> tuple[int, ...]:
    """Return numbers of threads, each once.

    Raises:
        UsageError: There are none, or one is below 1 or more than this machine makes sense of.
    """
    if min(found, default=0) < 1:
        text = ",".join(map(str, found))
        raise UsageError(f"--threads {text}: must be 1 or more", "for example --threads 1,2")
    most = _THREADS_PER_CORE * (os.cpu_count() or 1)
    if max(found) > most:
        raise UsageError(
            f"--threads {max(found)}: this machine has {os.cpu_count()} cores", f"at most {most}"
        )
    return tuple(dict.fromkeys(found))


def check_numbers(batch: int, plan: Plan) -> None:
    """Refuse numbers that measure nothing.

    Raises:
        UsageError: A number is not above 0.
    """
    if batch < 1 or plan.runs < 1 or (plan.minutes is not None and not 0 < plan.minutes <= _LONGEST_MINUTES):
        raise UsageError(
            "--batch, --runs and --minutes must be above 0, and minutes a day at most",
            "leave them out for 1 image and 100 runs",
        )
