"""`bench`: latency of bundles and model files in every runtime here, and of torch beside them."""

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mobilenet_export.agent.bench import (
    LatencyRequest,
    Photo,
    bench,
    check_numbers,
    photo_of,
)
from mobilenet_export.agent.cold import refuse_crashing
from mobilenet_export.agent.request import find_engines
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import DOCUMENT, Bundle, read_bundle
from mobilenet_export.checks.latency import Plan
from mobilenet_export.deployment.measure import read_latency
from mobilenet_export.errors import UsageError
from mobilenet_export.latency import LatencyReport
from mobilenet_export.pipeline.deploy import DeviceReport, write_results
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.pipeline.validate import ValidateRequest, bare_artifact, find_target, reopen_reference
from mobilenet_export.runtimes import Session, runtime

_TORCH = "torch"


@dataclass(frozen=True, slots=True)
class BenchRequest:
    """What to measure.

    Attributes:
        targets: Bundles and model files.
        runtimes: `NAME` or `NAME:PROVIDER`; else all that work here. `torch` adds the original in eager mode.
        threads: Numbers of them to try.
        batch: Images per inference.
        plan: How long.
        checkpoint: The user's own weights, for `torch`.
        resolution_px: Of files in no bundle that leave their input size open.
    """

    targets: tuple[Path, ...]
    runtimes: tuple[str, ...] = ()
    threads: tuple[int, ...] = (1,)
    batch: int = 1
    plan: Plan = field(default_factory=Plan)
    checkpoint: Path | None = None
    resolution_px: int | None = None


def measure_latency(request: BenchRequest, progress: Progress = silent) -> LatencyReport:
    """Measure every file in every runtime that reads it, side by side.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    check_numbers(request.batch, request.plan)
    wants_torch = _TORCH in request.runtimes
    named = tuple(name for name in request.runtimes if name != _TORCH)
    artifacts, photos = collect(request.targets)
    engines = find_engines(named)
    for artifact, engine in (
        (a, e.runtime) for a in artifacts for e in engines if a.format in e.runtime.formats
    ):
        if artifact.file not in photos:  # of no bundle
            refuse_crashing(artifact, engine)
    stages = Stages(progress)
    extra: tuple[Session, ...] = ()
    if wants_torch:
        with stages("load torch and the network"):
            extra = (open_torch(request),)
    plan = request.plan
    steps = plan.rounds if plan.minutes is None else max(int(plan.minutes), 1)
    with stages("take turns" if plan.minutes is None else "take turns, minutes", steps) as advance:
        wanted = LatencyRequest(
            artifacts, photos, engines, request.threads, request.batch, plan, request.resolution_px
        )
        return bench(wanted, extra, advance)


def collect(targets: tuple[Path, ...]) -> tuple[tuple[Artifact, ...], Mapping[str, Photo]]:
    """Read the files of bundles, and files, with the photos to feed them; each has a name of its own.

    Raises:
        UsageError: There is no such file.
        DamagedInputError: A file is not what it claims to be, or not the one that was exported.
    """
    found: list[tuple[Path, Artifact, Photo | None]] = []
    for path in dict.fromkeys(targets):
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}", "give bundles, or model files")
        folder = path if path.is_dir() else path.parent
        found += [(folder, artifact, photo) for artifact, photo in _read(path)]
    names = [artifact.file for _, artifact, _ in found]
    entries = [
        (dataclasses.replace(a, file=f"{folder.name}/{a.file}") if names.count(a.file) > 1 else a, photo)
        for folder, a, photo in found
    ]
    photos = {artifact.file: photo for artifact, photo in entries if photo}
    return tuple(artifact for artifact, _ in entries), photos


def _read(path: Path) -> list[tuple[Artifact, Photo | None]]:
    if path.is_dir():
        bundle = read_bundle(path)
        return [(artifact, photo_of(bundle)) for artifact in bundle.artifacts()]
    bundle_of_file = _bundle_with(path)
    if bundle_of_file is not None:
        return [(bundle_of_file.artifact(path.name), photo_of(bundle_of_file))]
    return [(bare_artifact(path), None)]


def _bundle_with(path: Path) -> Bundle | None:
    """The bundle that lists a file, if it lies in one."""
    if not (path.parent / DOCUMENT).is_file():
        return None
    bundle = read_bundle(path.parent)
    return bundle if path.name in [entry["path"] for entry in bundle.document["files"]] else None


def bundle_to_keep(targets: tuple[Path, ...]) -> Bundle:
    """Return the one bundle that samples are to be kept in.

    Raises:
        UsageError: The targets are something else.
        DamagedInputError: It cannot be read.
    """
    if len(targets) != 1 or not targets[0].is_dir():
        raise UsageError("--keep is of one bundle, and nothing beside it", "measure the others without it")
    return read_bundle(targets[0])


def keep_latency(bundle: Bundle, report: LatencyReport) -> Path:
    """Write what was measured here into the bundle, as if this computer were a device, and return where.

    Raises:
        MissingError: It cannot be written.
    """
    name = platform.node() or "this-computer"
    latency = read_latency(name, report.to_json())
    return write_results(bundle, DeviceReport(name, bundle.folder.name, latency=latency))


def open_torch(request: BenchRequest) -> Session:
    """Open the original of the first target in torch's eager mode, with as many threads as the first row.

    Raises:
        UsageError: The first target is of no bundle.
    """
    runtime(_TORCH)
    first = request.targets[0]
    if not first.is_dir() and _bundle_with(first) is None:
        raise UsageError(f"{first} lies in no bundle, so torch has no original", "give a bundle first")
    from mobilenet_export.runtimes.torch import use_threads  # noqa: PLC0415 (a plugin)

    use_threads(request.threads[0])
    validation = ValidateRequest((first,), checkpoint=request.checkpoint)
    _, reference = reopen_reference(validation, find_target(validation))
    return reference.session
