"""`validate`: a bundle, or model files, against the original."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from mobilenet_export import images
from mobilenet_export.agent.cold import refuse_crashing
from mobilenet_export.artifact import PIXELS, Artifact, Normalization
from mobilenet_export.bundle import DOCUMENT, Bundle, read_bundle
from mobilenet_export.checks.drift import Subject, guessing, judge, measure_drift
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.findings import listing
from mobilenet_export.formats import format_of
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline.evidence import appoint_referees, evidence_of, load_subjects
from mobilenet_export.pipeline.reference import (
    Origin,
    Reference,
    capture,
    class_names,
    open_reference,
    read_file,
)
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.report import DriftReport
from mobilenet_export.runtimes import available_runtimes, runtime
from mobilenet_export.spec import Given, Limits, ModelSpec


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """What to validate.

    Attributes:
        targets: A bundle, or model files.
        spec: Of files that lie in no bundle.
        checkpoint: The user's own weights or ONNX file that the targets were exported from.
        data: Images; else the shipped ones for checking.
        labels_csv: `file,label` rows.
        limit: Use this many images at most; of those with labels, where there are any.
        runtimes: Names; else all that work here.
        limits: That replace those of the variant where not None.
        max_drop_points: Most top-1 drop against the reference.
    """

    targets: tuple[Path, ...]
    spec: ModelSpec | None = None
    checkpoint: Path | None = None
    data: Path | None = None
    labels_csv: Path | None = None
    limit: int | None = None
    runtimes: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    max_drop_points: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """What to validate, found: files, class names, and how to open the original."""

    artifacts: tuple[Artifact, ...]
    spec: ModelSpec
    labels: tuple[str, ...]
    provenance: Mapping[str, Any] | None


def validate(request: ValidateRequest, progress: Progress = silent) -> DriftReport:
    """Measure the drift of a bundle, or of model files, against the original.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    _check_limits(request)
    target = find_target(request)
    engines = [runtime(name) for name in request.runtimes] or list(available_runtimes())
    if target.provenance is None:
        for artifact, engine in ((a, e) for a in target.artifacts for e in engines if a.format in e.formats):
            refuse_crashing(artifact, engine)
    subjects = load_subjects(target.artifacts, engines, target.spec)
    if not subjects:
        raise UsageError(
            "none of the runtimes reads any of the files", "leave --runtime out to use all that do"
        )
    check, labels = find_images(request, target)
    if target.provenance is None and not target.spec.softmax:
        _refuse_probabilities(subjects, target.spec)
    stages = Stages(progress)
    with stages("load torch and the network"):
        origin, reference = reopen_reference(request, target)
    notes: tuple[str, ...] = ()
    if any(subject.artifact.precision == "int8" for subject in subjects):
        with stages("capture"):
            graph = capture(origin, reference).pixel_graph
        subjects, notes = appoint_referees(subjects, graph, ours=target.provenance is not None)
    with stages("check drift", len(check)) as advance:
        report = measure_drift(
            reference.session,
            subjects,
            evidence_of(check, target.spec, labels, advance),
            probabilities=target.spec.softmax,
        )
    limits = merge_limits(target.spec.limits, request.limits)
    report = judge(report, limits, request.max_drop_points)
    warnings = (*notes, *not_judged(report, limits), *_warnings(request, labels))
    if found := guessing(report, target.spec.classes):
        if request.max_drop_points is None:
            warnings = (*warnings, found)
        else:
            report = dataclasses.replace(report, doubts=(*report.doubts, found))
    return dataclasses.replace(report, warnings=warnings)


def _check_limits(request: ValidateRequest) -> None:
    for option, value in (
        ("--max-drop", request.max_drop_points),
        ("--min-agreement", request.limits.int8_agreement_percent),
        ("--min-sqnr", request.limits.int8_sqnr_db),
    ):
        if value is not None and not 0 <= value < math.inf:
            raise UsageError(f"{option} {value}: must be 0 or more", f"for example {option} 1")


def _refuse_probabilities(subjects: Sequence[Subject], spec: ModelSpec) -> None:
    """Refuse files that end in a softmax where the variant ends in logits: the two cannot be compared.

    Raises:
        UsageError: A file's outputs are not negative and add up to 1.
    """
    black = np.zeros((1, *spec.input_shape), np.float32)
    for subject in subjects:
        outputs = subject.session.run(black)
        if outputs.min() >= 0 and abs(float(outputs.sum()) - 1) < 1e-3:
            raise UsageError(
                f"{subject.artifact.file} gives probabilities, and {spec.name} logits",
                "validate it in its bundle, or give --arch a copy of the variant's TOML with softmax = true",
            )


def not_judged(report: DriftReport, limits: Limits) -> tuple[str, ...]:
    """Say that no limit was set for int8 files, so that their pass is known for what it is."""
    files = dict.fromkeys(row.file for row in report.rows if row.precision == "int8")
    if not files or limits.int8_sqnr_db is not None or limits.int8_agreement_percent is not None:
        return ()
    return (f"no limits are known for int8 of this network, so nothing judges {listing(files)}",)


def _warnings(request: ValidateRequest, labels: Mapping[str, int]) -> tuple[str, ...]:
    """Say how many rows of the labels name no image, or that folders name no class.

    That some images have no row, the report's count says.
    """
    if request.data is None:
        return ()
    if request.labels_csv is None:
        folders = sorted({PurePosixPath(name).parent.name for name in ImageSet.open(request.data).names})
        if labels or len(folders) < 2:
            return ()
        return (
            f"{request.data}: no folder is named by a class, so there is no accuracy: {listing(folders)}",
        )
    rows = images.rows_without_image(ImageSet.open(request.data), request.labels_csv)
    files = listing(f"{row.file} (line {row.line})" for row in rows)
    return (f"{request.labels_csv}: rows that name no image, {len(rows):,}: {files}",) if rows else ()


def find_target(request: ValidateRequest) -> Target:
    """Read the bundle, or the files with the bundle that they lie in, or the files with the variant given."""
    first = request.targets[0]
    for path in request.targets:
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}", "give a bundle, or model files")
    if first.is_dir() and len(request.targets) > 1:
        raise UsageError("one bundle at a time", "give one bundle, or files of one")
    if first.is_dir() or (first.parent / DOCUMENT).is_file():
        bundle = read_bundle(first if first.is_dir() else first.parent)
        return _target_in(bundle, () if first.is_dir() else request.targets)
    if request.spec is None:
        raise UsageError(f"{first} lies in no bundle", "name its variant with --arch (and --checkpoint)")
    how = request.spec.preprocess
    artifacts = tuple(bare_artifact(path, Normalization(how.mean, how.std)) for path in request.targets)
    return Target(artifacts, request.spec, class_names(request.spec, None), None)


def _target_in(bundle: Bundle, files: Sequence[Path]) -> Target:
    spec = bundle.spec()
    artifacts = bundle.artifacts()
    known = {artifact.file for artifact in artifacts}
    for path in files:
        if path.parent != bundle.folder or path.name not in known:
            raise UsageError(
                f"{path} is not a file of the bundle {bundle.folder}",
                "its files: " + ", ".join(sorted(known)),
            )
    wanted = {path.name for path in files} or known
    chosen = tuple(artifact for artifact in artifacts if artifact.file in wanted)
    return Target(chosen, spec, bundle.labels(), bundle.document["source"])


def bare_artifact(path: Path, normalization: Normalization = PIXELS) -> Artifact:
    """Read a model file that lies in no bundle; `normalization` is its network's, where that matters.

    Raises:
        UsageError: It cannot be read, or its name ends like no format's.
        DamagedInputError: It is not of that format.
    """
    form = format_of(path)
    data = read_file(path)
    try:
        precision = form.read_precision(data)
        return Artifact(path.name, form.name, precision, data, normalization=normalization)
    except ValueError as error:
        raise DamagedInputError(f"{path}: {error}", "export the file again") from None


def find_images(request: ValidateRequest, target: Target) -> tuple[ImageSet, Mapping[str, int]]:
    """Return the images to check with, and the labels of those that have one."""
    if request.data is None:
        if request.max_drop_points is not None or request.labels_csv is not None:
            raise UsageError("labels and --max-drop need labelled images", "give them with --data DIR")
        _, check = images.default_set()
        return check.subset(check.names[: request.limit]), {}
    image_set = ImageSet.open(request.data)
    labels = images.labelled(image_set, request.labels_csv, target.spec.classes, target.labels)
    if request.max_drop_points is not None and not labels:
        raise UsageError(f"{request.data}: no labels, so --max-drop cannot be checked", "give --labels CSV")
    if labels and request.limit:  # a few of many images might have none
        image_set = image_set.subset(name for name in image_set.names if name in labels)
    count = request.limit or len(image_set)
    choice = images.choose(image_set, 0, count, seed=0)
    return choice.check, labels


def reopen_reference(request: ValidateRequest, target: Target) -> tuple[Origin, Reference]:
    """Return where the files were exported from, and the original loaded.

    Raises:
        UsageError: It was the user's own, and it is not given, or another one is.
    """
    provenance = target.provenance or {"kind": "checkpoint" if request.checkpoint else "embedded"}
    kind = provenance["kind"]
    own = kind in ("checkpoint", "onnx")
    if not own and request.checkpoint is not None:
        raise UsageError(
            f"the files were exported from {provenance['origin']}, not from a checkpoint of yours",
            "leave --checkpoint out",
        )
    if own and request.checkpoint is None:
        raise UsageError(
            f"the files were exported from {provenance['origin']}, which is the reference",
            "give it with --checkpoint",
        )
    origin = Origin(
        target.spec,
        onnx=request.checkpoint if kind == "onnx" else None,
        resolution_px=target.spec.resolution_px,
        checkpoint=request.checkpoint if kind == "checkpoint" else None,
        weights="none" if kind == "random" else None,
        given=Given.of(target.spec) if target.provenance else None,
    )
    reference = open_reference(origin)
    if target.provenance and reference.provenance["sha256"] != target.provenance["sha256"]:
        raise UsageError(
            f"{reference.provenance['origin']} is not what the files were exported from: its sha256 differs",
            f"give the original, {target.provenance['origin']}",
        )
    return origin, reference


def merge_limits(limits: Limits, replacing: Limits) -> Limits:
    """Return the variant's limits with those replaced that are given."""
    given = {
        name: value
        for name, value in dataclasses.asdict(replacing).items()
        if value is not None and name != "run"
    }
    return dataclasses.replace(limits, **given)
