"""`export`: a network becomes a bundle."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobilenet_export import images
from mobilenet_export.artifact import INPUT_OUTPUTS, Artifact, InputOutput, Normalization, Precision
from mobilenet_export.bundle import Bundle, check_place, new_bundle, read_bundle
from mobilenet_export.checks.drift import judge, measure_drift
from mobilenet_export.checks.metrics import mean_sqnr_db
from mobilenet_export.findings import listing
from mobilenet_export.formats import Format, artifact_name, io_types
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.images import Choice, ImageSet
from mobilenet_export.model_card import ModelCard, card_of
from mobilenet_export.pipeline.cache import Inputs, recall_or_make
from mobilenet_export.pipeline.contents import Contents, fill_bundle
from mobilenet_export.pipeline.evidence import (
    BATCH,
    appoint_referees,
    evidence_of,
    load_subjects,
    values_of,
)
from mobilenet_export.pipeline.finite import finite, naming_images, refuse_not_finite_outputs
from mobilenet_export.pipeline.layer_curve import CURVE_IMAGES, measure_curve
from mobilenet_export.pipeline.reference import Origin, Source, capture, class_names, open_reference
from mobilenet_export.pipeline.report import check_plotting
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.pipeline.validate import not_judged
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantize.half import input_means, round_to_half
from mobilenet_export.quantize.post_training import CalibrationData, post_training, tensor_scale
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.report import DriftReport
from mobilenet_export.runtimes import available_runtimes, runtime
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import Given, ModelSpec

_USUAL_IO: Mapping[Precision, tuple[InputOutput, ...]] = {
    "fp32": ("float32",),
    "fp16": ("float32",),
    "int8": ("float32", "uint8"),
}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export, fully decided; nothing of it is guessed later.

    Attributes:
        spec: The variant, at the width, resolution and classes wanted.
        out: Folder of the bundle.
        precisions: Of the files.
        formats: Names of the formats.
        onnx: The user's own ONNX file, whose size and classes replace the spec's; else the network is built.
        resolution_px: Of an ONNX file that leaves it open.
        checkpoint: The user's own weights; else `weights`.
        weights: Name of embedded weights, `none` for random ones, None for the spec's own.
        given: What the checkpoint may not change of the spec; by default its width and number of classes.
        calibration: Images of the user; else the shipped ones.
        recipe: How to quantize.
        labels: File of class names; else the spec's.
        io: Types of input and output, each of the files that can have it; None for float32, and of int8 files
            uint8 as well.
        force: Replace a bundle that is there.
        cache: Folder that int8 results are kept in for the next run; None computes anew and keeps nothing.
        thumbnails: Put small copies of the user's own calibration images into the bundle; of shipped ones they are
            there anyway.
    """

    spec: ModelSpec
    out: Path
    precisions: tuple[Precision, ...]
    formats: tuple[str, ...]
    recipe: QuantRecipe
    onnx: Path | None = None
    resolution_px: int | None = None
    checkpoint: Path | None = None
    weights: str | None = None
    given: Given | None = None
    calibration: Path | None = None
    labels: Path | None = None
    io: tuple[InputOutput, ...] | None = None
    force: bool = False
    cache: Path | None = None
    thumbnails: bool = False

    @property
    def origin(self) -> Origin:
        """Where the network comes from."""
        return Origin(self.spec, self.onnx, self.resolution_px, self.checkpoint, self.weights, self.given)

    def files(self) -> tuple[tuple[str, Format, Precision, InputOutput], ...]:
        """Name, format, precision and input/output type of every file, in the order of the table."""
        forms: list[Format] = [load_plugin("formats", name) for name in self.formats]
        return tuple(
            (artifact_name(self.spec.name, form, precision, io), form, precision, io)
            for precision in self.precisions
            for io in INPUT_OUTPUTS
            for form in forms
            if io in io_types(form, precision, self.io or _USUAL_IO[precision])
        )


@dataclass(frozen=True, slots=True)
class Export:
    """What an export made.

    Attributes:
        bundle: The bundle on disk.
        artifacts: Its model files.
        drift: Of every file in every runtime that reads it.
        seconds: Of each stage.
        unreadable: Calibration images that were passed over.
        warnings: What makes the int8 files doubtful, though they were written.
        notes: What changes nothing of the files, such as where their integers come from.
    """

    bundle: Bundle
    artifacts: tuple[Artifact, ...]
    drift: DriftReport
    seconds: Mapping[str, float]
    unreadable: tuple[images.Unreadable, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export(request: ExportRequest, progress: Progress = silent) -> Export:
    """Export a network to a bundle: files, drift and self-check.

    The bundle is written even where a limit is not met, so that it can be looked into; its verdict says so.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend; nothing is left behind.
    """
    check_place(request.out, force=request.force)
    check_plotting()
    labels = None if request.onnx else class_names(request.spec, request.labels)
    stages = Stages(progress)
    with stages("choose images", request.recipe.calibration_images + request.recipe.check_images) as advance:
        choice = choose_images(request.calibration, request.recipe, advance)
    with stages("load torch and the network"):
        reference = open_reference(request.origin)
    with stages("capture"):
        source = _with_limits_of(request.recipe, capture(request.origin, reference))
    labels = labels or class_names(source.spec, request.labels)
    quantized, note = None, None
    if "int8" in request.precisions:
        with stages("quantize", len(choice.calibrate)) as advance:
            quantized, note = find_integers(request, source, choice.calibrate, advance)
    half = None
    if "fp16" in request.precisions:
        with stages("round to fp16"):
            half = halve(source, choice.calibrate)
    with stages("write"):
        spellings = Spellings(source.graph, half, quantized, card_of(source.spec, labels))
        artifacts = write_artifacts(request, spellings)
    with stages("check drift", len(choice.check)) as advance:
        drift = check_drift(source, artifacts, choice.check, advance)
    layers = None
    if quantized:
        with stages("look into the layers", CURVE_IMAGES) as advance:
            layers = measure_curve(source, quantized, artifacts, choice.check, advance)
    shows_images = quantized is not None and (request.calibration is None or request.thumbnails)
    contents = Contents(
        request.recipe, source, choice, quantized, artifacts, labels, drift, layers, shows_images
    )
    with stages("write the bundle"), new_bundle(request.out, force=request.force) as folder:
        fill_bundle(folder, contents)
    warnings = warnings_of(choice.calibrate, source.spec, quantized) if quantized else ()
    notes = (
        *([note] if note else []),
        *_fewer_images(request, choice),
        *not_judged(drift, source.spec.limits),
    )
    bundle = read_bundle(request.out)
    return Export(bundle, artifacts, drift, stages.seconds, choice.unreadable, warnings, notes)


def _with_limits_of(recipe: QuantRecipe, source: Source) -> Source:
    """Take the int8 limits away where one scale per weight tensor costs what they do not allow for."""
    if not recipe.per_tensor_weights:
        return source
    limits = dataclasses.replace(source.spec.limits, int8_sqnr_db=None, int8_agreement_percent=None)
    return dataclasses.replace(source, spec=dataclasses.replace(source.spec, limits=limits))


def check_request(request: ExportRequest) -> None:
    """Find what would refuse an export, but for what only capture and quantization can tell.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    check_place(request.out, force=request.force)
    check_plotting()
    if request.onnx is None:
        class_names(request.spec, request.labels)
    choose_images(request.calibration, request.recipe)
    open_reference(request.origin)


def _fewer_images(request: ExportRequest, choice: Choice) -> tuple[str, ...]:
    """Say where the set has fewer images than the recipe asks for."""
    wanted = (request.recipe.calibration_images, request.recipe.check_images)
    found = (len(choice.calibrate), len(choice.check))
    if found[0] >= wanted[0] and found[1] >= wanted[1]:
        return ()
    return (
        f"{choice.calibrate.origin} has fewer images than the recipe asks for: "
        f"{found[0]} of {wanted[0]} calibrate, {found[1]} of {wanted[1]} check",
    )


def choose_images(
    calibration: Path | None, recipe: QuantRecipe, advance: Callable[[int], None] = lambda _images: None
) -> Choice:
    """Choose the images to calibrate and to check with: the user's, or the shipped ones."""
    path = calibration or shipped_path("calibration", "default")
    return choose_from(ImageSet.open(path), recipe, advance)


def choose_from(image_set: ImageSet, recipe: QuantRecipe, advance: Callable[[int], None]) -> Choice:
    """Choose the images to calibrate and to check with.

    A set whose manifest has none to check with, as `mnx calibration synth` writes them, is checked with the
    shipped ones: the networks have to be sure of what they see, or the best class flips with any rounding.
    """
    has_check = not image_set.roles or "check" in image_set.roles.values()
    check = recipe.check_images if has_check else 0
    choice = images.choose(image_set, recipe.calibration_images, check, recipe.seed, advance)
    if has_check:
        return choice
    _, shipped = images.default_set()
    unseen = [name for name in shipped.names if name not in choice.calibrate.names]  # a name tells the seed
    return dataclasses.replace(choice, check=shipped.subset(unseen[: recipe.check_images]))


def find_integers(
    request: ExportRequest, source: Source, calibration: ImageSet, advance: Callable[[int], None]
) -> tuple[QuantizedGraph, str | None]:
    """Quantize the graph, or take what an earlier run on the same inputs has kept; a note says so."""

    def make() -> QuantizedGraph:
        return quantize(source, calibration, request.recipe, advance)

    if request.cache is None:
        return make(), None
    inputs = Inputs(source.pixel_graph, source.spec, calibration, request.recipe)
    return recall_or_make(request.cache, inputs, make)


def quantize(
    source: Source, calibration: ImageSet, recipe: QuantRecipe, advance: Callable[[int], None]
) -> QuantizedGraph:
    """Quantize the graph, reading pixels; the last images only judge."""
    preprocess, graph = source.spec.preprocess, source.pixel_graph
    assert graph.pixels is not None
    held_out = min(recipe.held_out_images, max(1, len(calibration) // 4))
    fit = calibration.subset(calibration.names[:-held_out])
    judges = calibration.subset(calibration.names[-held_out:])
    drawn = bool(calibration.roles)  # only sets that were drawn have a manifest
    few = max(recipe.bias_correction_images, recipe.range_search_images, recipe.rounding_images)

    def stream() -> Iterator[FloatArray]:
        for names, batch in images.batches(fit, preprocess, BATCH):
            yield batch
            advance(len(names))

    data = CalibrationData(
        activations=watch(graph, stream()),
        input_range=graph.pixels.bounds,
        images=values_of(fit.subset(fit.names[:few]), source.spec),
        clipped_activations=lambda quantized, batch: watch(
            quantized.graph, [batch], {name: scale.bounds for name, scale in quantized.tensors.items()}
        ),
        judge=_judge(source, judges),
        judge_images=held_out,
        reach=recipe.drawn_reach if drawn else recipe.reach,
        logits_reach=recipe.drawn_logits_reach if drawn else recipe.logits_reach,
    )
    with naming_images(fit.names):
        return post_training(graph, data, recipe)


def _judge(source: Source, judges: ImageSet) -> Callable[[QuantizedGraph], float]:
    """Return the mean SQNR of an int8 graph's outputs, computed by the kernels that users run."""
    form, engine = load_plugin("formats", "onnx"), runtime("onnxruntime")
    graph, held_out = source.graph, values_of(judges, source.spec)
    truth = engine.open(Artifact("fp32", "onnx", "fp32", form.write_float(graph, "fp32"))).run(held_out)
    refuse_not_finite_outputs(graph, judges.names, held_out, truth)

    def judge(quantized: QuantizedGraph) -> float:
        data = form.write_int8(quantized, "float32")
        return mean_sqnr_db(truth, engine.open(Artifact("int8", "onnx", "int8", data)).run(held_out))

    return judge


def warnings_of(calibration: ImageSet, spec: ModelSpec, quantized: QuantizedGraph) -> tuple[str, ...]:
    """Return what makes int8 files doubtful: images that show nothing, layers that give nothing."""
    found = []
    one_by_one = images.batches(
        calibration, spec.preprocess, 1
    )  # the first that shows something is the last read
    if all(np.ptp(image, axis=(2, 3)).max() == 0 for _, image in one_by_one):
        found.append(
            "every calibration image is of one colour, so the ranges fit nothing else and the drift tells little: "
            "give photos"
        )
    zero = tensor_scale(0.0, 0.0)
    dead = [name for name, scale in quantized.tensors.items() if scale == zero]
    if dead:
        found.append(f"layers that give only zeros, so check their weights: {listing(dead)}")
    return tuple(found)


def halve(source: Source, calibration: ImageSet) -> Graph:
    """Round the weights to float16; a few images tell the means that biases make up for."""
    few = calibration.subset(calibration.names[:BATCH])
    activations = finite(source.graph, watch(source.graph, [values_of(few, source.spec)]))
    with naming_images(few.names):
        return round_to_half(source.graph, input_means(source.graph, activations))


@dataclass(frozen=True, slots=True)
class Spellings:
    """What is written: one network in up to three precisions, and what its files say about it."""

    fp32: Graph
    fp16: Graph | None
    int8: QuantizedGraph | None
    card: ModelCard


def write_artifacts(request: ExportRequest, spellings: Spellings) -> tuple[Artifact, ...]:
    """Spell one graph, and one set of integers, in every format."""
    artifacts, how = [], request.spec.preprocess
    normalization = Normalization(how.mean, how.std)
    for name, form, precision, types in request.files():
        graph = spellings.fp16 if precision == "fp16" else spellings.fp32
        if precision == "int8":
            assert spellings.int8 is not None
            data = form.write_int8(spellings.int8, types, spellings.card)
        else:
            assert graph is not None
            pixels = normalization if types == "uint8" else None
            data = form.write_float(graph, precision, spellings.card, pixels)
        artifacts.append(Artifact(name, form.name, precision, data, types, normalization))
    return tuple(artifacts)


def check_drift(
    source: Source, artifacts: Sequence[Artifact], check: ImageSet, advance: Callable[[int], None]
) -> DriftReport:
    """Compare every file in every runtime that reads it with the original."""
    evidence = evidence_of(check, source.spec, {}, advance)
    subjects, _ = appoint_referees(
        load_subjects(artifacts, available_runtimes(), source.spec), source.pixel_graph, ours=True
    )
    report = measure_drift(
        source.reference,
        subjects,
        evidence,
        probabilities=source.spec.softmax,
    )
    return judge(report, source.spec.limits, None)
