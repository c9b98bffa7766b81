"""`calibration lint`: what is wrong with a set of images, before a network is calibrated with it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mobilenet_export import images
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.findings import Finding, LintReport, RangeStability, Severity
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import ImageSet, prefetch
from mobilenet_export.lint.class_checks import (
    check_predictions,
    check_skew,
    check_unlabelled,
    folder_classes,
)
from mobilenet_export.lint.image_checks import Looks, check_images
from mobilenet_export.lint.range_checks import check_dead, check_ranges, compare_ranges
from mobilenet_export.lint.traits import Refused, Traits, look
from mobilenet_export.pipeline.evidence import BATCH, printable
from mobilenet_export.pipeline.export import choose_from
from mobilenet_export.pipeline.finite import naming_images
from mobilenet_export.pipeline.reference import Origin, Source, capture, class_names, open_reference
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.quantize.calibrate import Activations, Ranges, calibrate
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.spec import ModelSpec

_INPUT_RANGE = (0.0, 255.0)
"""Is what it is, whatever the images."""


@dataclass(frozen=True, slots=True)
class LintRequest:
    """What to look at.

    Attributes:
        data: Folder, zip or array of images.
        spec: How images are preprocessed, and the network whose activations are watched.
        recipe: Says which images, and how many, would calibrate.
        checkpoint: The user's own weights; else the spec's.
        labels_csv: `file,label` rows.
        ranges: Run the network too; without it neither torch nor weights are needed.
        strict: Warnings fail.
    """

    data: Path
    spec: ModelSpec
    recipe: QuantRecipe
    checkpoint: Path | None = None
    labels_csv: Path | None = None
    ranges: bool = True
    strict: bool = False


@dataclass(slots=True)
class _Watched:
    """What the network makes of the images: the ranges of both halves, and the best class of each image."""

    halves: list[Ranges] = field(default_factory=list)
    predictions: dict[str, int] = field(default_factory=dict)


def lint(request: LintRequest, progress: Progress = silent) -> LintReport:
    """Look at every image of a set, and at what the network makes of those that would calibrate.

    Raises:
        UsageError, MissingError, DamagedInputError: The set, the labels or the network cannot be opened. What is
            wrong with an image is a finding.
    """
    image_set = ImageSet.open(request.data)
    names = class_names(request.spec, None)
    stages = Stages(progress)
    with stages("look at the images", len(image_set)) as advance:
        looks = Looks(*_look(image_set, request.spec, advance), request.spec.preprocess)
    labels, findings = _check_labels(image_set, request, names)
    findings += check_images(looks)
    usable = image_set.subset(image.name for image in looks.traits)
    stability = None
    if request.ranges and len(usable) >= images.MINIMUM_IMAGES:
        stability, found = _check_network(usable, request, labels, stages)
        findings += found
    findings.sort(key=lambda finding: finding.severity)  # "error" comes before "warning"
    return LintReport(
        printable(str(request.data)),
        len(image_set),
        len(usable),
        tuple(findings),
        stability,
        request.strict,
    )


def _look(
    image_set: ImageSet, spec: ModelSpec, advance: Callable[[int], None]
) -> tuple[list[Traits], list[Refused]]:
    traits: list[Traits] = []
    refused: list[Refused] = []
    read = partial(look, image_set, spec.preprocess)
    with closing(prefetch(read, image_set.names, ahead=images.WORKERS)) as seen:
        for image in seen:
            if isinstance(image, Refused):
                refused.append(image)
            else:
                traits.append(image)
            advance(1)
    return traits, refused


def _check_labels(
    image_set: ImageSet, request: LintRequest, names: Sequence[str]
) -> tuple[Mapping[str, int], list[Finding]]:
    """Return the labels as class indices, and what is wrong with them; folders may also be other classes."""
    csv, findings = request.labels_csv, []
    labels: Mapping[str, int] = {}
    try:
        labels = images.labelled(image_set, csv, request.spec.classes, names)
        absent = images.rows_without_image(image_set, csv) if csv else ()
    except DamagedInputError as error:
        severity: Severity = "error" if csv else "warning"
        return {}, [Finding(severity, "labels", error.message, error.hint)]
    if absent:
        problem = f"{csv}: {len(absent):,} {'row names' if len(absent) == 1 else 'rows name'} no image"
        hint = "write each file's path relative to the images' folder, or remove the rows"
        files = tuple(f"{row.file} (line {row.line})" for row in absent)
        findings.append(Finding("warning", "labels", problem, hint, files))
    shown = {name: names[label] for name, label in labels.items()} or folder_classes(image_set.names)
    findings += [*check_skew(shown), *check_unlabelled(labels, len(image_set))]
    return labels, findings


def _check_network(
    usable: ImageSet, request: LintRequest, labels: Mapping[str, int], stages: Stages
) -> tuple[RangeStability | None, list[Finding]]:
    """Watch the float network on the images that would calibrate, one half after the other."""
    recipe = request.recipe
    with stages("choose images", recipe.calibration_images + recipe.check_images) as advance:
        chosen = choose_from(usable, recipe, advance).calibrate
    origin = Origin(request.spec, checkpoint=request.checkpoint)
    with stages("load torch and the network"):
        reference = open_reference(origin)
    with stages("capture"):
        source = capture(origin, reference)
    watched = _Watched()
    try:
        with stages("compare two halves", len(chosen)) as advance:
            for half in (chosen.names[0::2], chosen.names[1::2]):
                _watch_half(source, chosen.subset(half), watched, advance)
    except DamagedInputError as error:
        return None, [Finding("error", "not-finite", error.message, error.hint)]
    first, second = watched.halves
    stability = compare_ranges(first, second, len(chosen))
    more_available = len(usable) > recipe.calibration_images + recipe.check_images
    classes = class_names(source.spec, None)
    return stability, [
        *check_ranges(stability, more_available),
        *check_dead(first, second),
        *check_predictions(watched.predictions, labels, classes),
    ]


def _watch_half(source: Source, half: ImageSet, watched: _Watched, advance: Callable[[int], None]) -> None:
    how = source.spec.preprocess

    def stream() -> Iterator[FloatArray]:
        for names, batch in images.batches(half, how, BATCH):
            yield batch
            advance(len(names))

    def noted() -> Iterator[Activations]:
        for name, image in zip(half.names, watch(source.graph, stream()), strict=True):
            watched.predictions[name] = int(image[source.graph.output].argmax())
            yield image

    with naming_images(half.names):
        watched.halves.append(calibrate(source.graph, noted(), _INPUT_RANGE))
