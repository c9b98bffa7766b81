"""Top-1 of bundles' files on labelled images: chunk by chunk, here or spread over a Dask cluster.

Both run the same function on the same chunks with one thread each, so they count the same. A chunk that was
counted is kept, so that a run that was ended goes on from there.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mobilenet_export
from mobilenet_export import images
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import Bundle
from mobilenet_export.candidate import Point, Top1
from mobilenet_export.checks.interval import wilson
from mobilenet_export.errors import MissingError, UsageError
from mobilenet_export.images import ImageSet
from mobilenet_export.machine import this_machine
from mobilenet_export.pipeline.cache import makers
from mobilenet_export.pipeline.evidence import BATCH, printable
from mobilenet_export.pipeline.figures import FigureCache
from mobilenet_export.pipeline.stages import Stages
from mobilenet_export.runtimes import Setup, runtime
from mobilenet_export.spec import Preprocess, spec_from_table

CHUNK = 250
"""Images of one task: some seconds, and a lost one is soon made up for."""
_ANSWERS_S = 10


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled images.

    Attributes:
        data: Folder, zip or array.
        labels_csv: `file,label` rows; else folders name the classes.
        limit: Use this many at most, drawn from all.
        dask: Address of a Dask scheduler whose workers see `data` at the same path; else this computer counts.
    """

    data: Path
    labels_csv: Path | None = None
    limit: int | None = None
    dask: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the images, with their classes, and a hash of all that."""

    names: tuple[str, ...]
    labels: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """How to count on a chunk: in what, fed how, from where; everything but the file itself."""

    runtime: str
    provider: str
    how: Preprocess
    data: Path


def count_right(artifact: Artifact, job: Job, chunk: Chunk) -> int:
    """Return how many images of a chunk a file gives the right class."""
    session = runtime(job.runtime).open(artifact, Setup(job.provider, threads=1))
    labels, right = dict(zip(chunk.names, chunk.labels, strict=True)), 0
    for names, batch in images.batches(ImageSet.open(job.data).subset(chunk.names), job.how, BATCH):
        best = session.run(batch).argmax(axis=1)
        right += sum(int(index) == labels[name] for name, index in zip(names, best, strict=True))
    return right


def measure_top1(
    labelled: Labelled, places: Mapping[Point, Bundle], stages: Stages, kept: FigureCache
) -> Mapping[Point, Top1]:
    """Measure the top-1 of bundles' files in runtimes.

    Raises:
        UsageError, DamagedInputError: The images or labels are none, or do not fit a bundle.
        MissingError: The cluster cannot be used.
    """
    labels = {id(bundle): _labels(labelled, bundle) for bundle in places.values()}
    if any(found != labels[id(bundle)] for bundle in places.values() for found in labels.values()):
        raise UsageError("the bundles do not have the same classes", "pick from bundles of one data set")
    chunks = _chunks(labelled, next(iter(labels.values())))
    counts, made_by = dict.fromkeys(places, 0), makers()
    with (
        _executor(labelled, sorted({point.runtime for point in places})) as (executor, share),
        stages("measure top-1", len(chunks) * len(places)) as advance,
    ):
        tasks: dict[Future[int], tuple[Point, dict[str, Any]]] = {}
        try:
            for point, bundle in places.items():
                artifact = bundle.artifact(point.file)
                job = _job(labelled, bundle, point)
                there = share(artifact)
                for chunk in chunks:
                    facts = _facts(artifact, job, chunk) | {"makers": made_by}
                    if figures := kept.recall(facts):
                        counts[point] += int(figures["right"])
                        advance(1)
                    else:
                        tasks[executor.submit(count_right, there, job, chunk)] = (point, facts)
            for done in as_completed(tasks):
                point, facts = tasks[done]
                kept.keep(facts, {"right": done.result()})
                counts[point] += done.result()
                advance(1)
        finally:
            for task in tasks:
                task.cancel()
    total, origin = sum(len(chunk.names) for chunk in chunks), printable(str(labelled.data))
    return {point: _top1(right, total, origin) for point, right in counts.items()}


def _labels(labelled: Labelled, bundle: Bundle) -> Mapping[str, int]:
    spec = spec_from_table(dict(bundle.document["model"]))
    found = images.labelled(ImageSet.open(labelled.data), labelled.labels_csv, spec.classes, bundle.labels())
    if not found:
        raise UsageError(f"{labelled.data}: no labels", "give --labels CSV")
    return found


def _chunks(labelled: Labelled, labels: Mapping[str, int]) -> list[Chunk]:
    """Draw the images, and hash what they hold."""
    names = sorted(labels)
    random.Random(0).shuffle(names)
    names = sorted(names[: labelled.limit])
    whole = None if labelled.data.is_dir() else _sha256(labelled.data)
    found = []
    for start in range(0, len(names), CHUNK):
        part = tuple(names[start : start + CHUNK])
        hashes = [whole or _sha256(labelled.data / name) for name in part]
        classes = tuple(labels[name] for name in part)
        digest = hashlib.sha256(repr((part, classes, hashes)).encode()).hexdigest()
        found.append(Chunk(part, classes, digest))
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _job(labelled: Labelled, bundle: Bundle, point: Point) -> Job:
    how = spec_from_table(dict(bundle.document["model"])).preprocess
    return Job(point.runtime, point.provider, how, labelled.data.resolve())


def _facts(artifact: Artifact, job: Job, chunk: Chunk) -> dict[str, Any]:
    return {
        "file": artifact.sha256,
        "runtime": [job.runtime, job.provider, runtime(job.runtime).version()],
        "preprocess": asdict(job.how),
        "images": chunk.sha256,
    }


def _top1(right: int, total: int, origin: str) -> Top1:
    low, high = wilson(right, total)
    source = f"measured on {total:,} images of {origin}"
    return Top1(100 * right / total, source, False, total, 100 * low, 100 * high)


@contextmanager
def _executor(
    labelled: Labelled, runtimes: Sequence[str]
) -> Iterator[tuple[Executor, Callable[[Artifact], Any]]]:
    """Yield what runs tasks, and a function that brings a file to where they run."""
    if labelled.dask is None:
        with ThreadPoolExecutor(this_machine().cores) as pool:
            yield pool, lambda artifact: artifact
        return
    from distributed import Client  # noqa: PLC0415 (optional)

    try:
        client = Client(labelled.dask, timeout=_ANSWERS_S, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise MissingError(
            f"no Dask scheduler at {labelled.dask}: {reason}", "`dask scheduler` prints its address"
        ) from None
    with client:
        _check_workers(client, labelled, runtimes)
        yield client.get_executor(), client.scatter


def worker_facts(data: Path, runtimes: Sequence[str]) -> dict[str, str]:
    """Return what has to be alike on all that count; runs on each worker."""
    versions = {name: runtime(name).version() for name in runtimes}
    return {"mobilenet-export": mobilenet_export.__version__, **versions, "data": str(data.exists())}


def _check_workers(client: Any, labelled: Labelled, runtimes: Sequence[str]) -> None:
    """Refuse a cluster that would count otherwise, or not at all.

    Raises:
        MissingError: It has no workers, or one lacks this package, a runtime's version or the images.
    """
    data = labelled.data.resolve()
    ours = worker_facts(data, runtimes)
    found = client.run(worker_facts, data, runtimes, on_error="return")
    if not found:
        raise MissingError(f"{labelled.dask} has no workers", f"`dask worker {labelled.dask}` starts one")
    for worker, theirs in found.items():
        if isinstance(theirs, Exception):
            raise MissingError(
                f"worker {worker}: {theirs}", "pip install the same mobilenet-export[device,dask] there"
            )
        for name, value in theirs.items():
            if name == "data" and value != "True":
                raise MissingError(f"worker {worker} does not see {data}", "mount it there at the same path")
            if value != ours[name]:
                raise MissingError(
                    f"worker {worker} has {name} {value}, and this computer {ours[name]}",
                    "install the same versions",
                )
