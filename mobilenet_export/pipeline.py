"""The way of the data, and the only module that joins steps.

spec ─▶ source (module, graph) ─┬─▶ fp32, fp16 files
images ─▶ activations ─▶ int8 ──┴─▶ int8 files ─▶ sessions ─▶ drift ─▶ bundle
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_export import __version__, images
from mobilenet_export.artifact import PRECISIONS, Artifact, InputOutput, Precision
from mobilenet_export.bundle import (
    LABELS,
    SCHEMA,
    SELF_CHECK,
    Bundle,
    check_place,
    new_bundle,
    read_bundle,
    write_document,
)
from mobilenet_export.checks.drift import Evidence, Subject, judge, measure_drift
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.formats import Format, artifact_name, format_of, io_types
from mobilenet_export.graph import FloatArray, Graph, Softmax
from mobilenet_export.images import Choice, ImageSet
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantize.half import input_means, round_to_half
from mobilenet_export.quantize.post_training import CalibrationData, pixel_range, post_training
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.report import DriftReport
from mobilenet_export.runtimes import Runtime, Session, available_runtimes, runtime
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import Limits, ModelSpec, spec_from_table, spec_to_table

BATCH = 8
SELF_CHECK_IMAGES = 4
_SELF_CHECK_CROPS = ((0, 0, 256, 211), (0, 0, 199, 256))

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with a stage's title and its number of steps; yields a function to advance by some."""


def silent(_title: str, _total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda _steps: None)


@dataclass(frozen=True, slots=True)
class Stages:
    """Times each stage while it shows its progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, title: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        """Run one stage."""
        start = time.perf_counter()
        with self.progress(title, total) as advance:
            yield advance
        self.seconds[title] = round(time.perf_counter() - start, 3)


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
        calibration: Images of the user; else the shipped ones.
        recipe: How to quantize.
        labels: File of class names; else the spec's.
        io: Type of input and output of int8 files, in formats that can have it.
        force: Replace a bundle that is there.
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
    calibration: Path | None = None
    labels: Path | None = None
    io: InputOutput = "float32"
    force: bool = False

    def files(self) -> tuple[tuple[str, Format, Precision, InputOutput], ...]:
        """Name, format, precision and input/output type of every file, in the order of the table."""
        found = []
        for precision in self.precisions:
            for name in self.formats:
                form: Format = load_plugin("formats", name)
                types: InputOutput = io_types(form, self.io) if precision == "int8" else "float32"
                found.append((artifact_name(self.spec.name, form, precision, types), form, precision, types))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Export:
    """What an export made.

    Attributes:
        bundle: The bundle on disk.
        artifacts: Its model files.
        drift: Of every file in every runtime that reads it.
        seconds: Of each stage.
        unreadable: Calibration images that were passed over.
    """

    bundle: Bundle
    artifacts: tuple[Artifact, ...]
    drift: DriftReport
    seconds: Mapping[str, float]
    unreadable: tuple[images.Unreadable, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """The network to export and the session that says what is true of it.

    Attributes:
        spec: With the padding and BatchNorm eps that the weights were trained with.
        graph: Fused float graph.
        reference: Runs the original.
        provenance: Kind, origin and hash of the weights, for the bundle.
    """

    spec: ModelSpec
    graph: Graph
    reference: Session
    provenance: Mapping[str, str]


def export(request: ExportRequest, progress: Progress = silent) -> Export:
    """Export a network to a bundle: files, drift and self-check.

    The bundle is written even where a limit is not met, so that it can be looked into; its verdict says so.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend; nothing is left behind.
    """
    check_place(request.out, force=request.force)
    labels = None if request.onnx else class_names(request.spec, request.labels)
    stages = Stages(progress)
    with stages("choose images"):
        choice = choose_images(request.calibration, request.recipe)
    with stages("load torch and the network"):
        reference = open_reference(request)
    with stages("capture"):
        source = capture(request, reference)
    labels = labels or class_names(source.spec, request.labels)
    quantized = None
    if "int8" in request.precisions:
        with stages("quantize", len(choice.calibrate)) as advance:
            quantized = quantize(source, choice.calibrate, request.recipe, advance)
    half = None
    if "fp16" in request.precisions:
        with stages("round to fp16"):
            half = halve(source, choice.calibrate)
    with stages("write"):
        artifacts = write_artifacts(request, Spellings(source.graph, half, quantized))
    with stages("check drift", len(choice.check)) as advance:
        drift = check_drift(source, artifacts, choice.check, advance)
    with stages("write the bundle"), new_bundle(request.out, force=request.force) as folder:
        fill_bundle(folder, Contents(request, source, choice, quantized, artifacts, labels, drift))
    return Export(read_bundle(request.out), artifacts, drift, stages.seconds, choice.unreadable)


def check_request(request: ExportRequest) -> None:
    """Find what would refuse an export, but for what only capture and quantization can tell.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    check_place(request.out, force=request.force)
    if request.onnx is None:
        class_names(request.spec, request.labels)
    choose_images(request.calibration, request.recipe)
    open_reference(request)


def class_names(spec: ModelSpec, labels: Path | None) -> tuple[str, ...]:
    """Return the class names, in the order of the outputs; `class 0`, `class 1`, … where none are known.

    Raises:
        UsageError: There is no such file, or it names another number of classes.
        DamagedInputError: The file is not UTF-8 text.
    """
    path = labels or (shipped_path("models", spec.labels) if spec.labels else None)
    if path is None:
        return tuple(f"class {index}" for index in range(spec.classes))
    try:
        names = tuple(path.read_text(encoding="utf-8").rstrip().splitlines())
    except UnicodeDecodeError:
        raise DamagedInputError(
            f"{path}: not UTF-8 text", "give a text file with one class name a line"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give a text file with one class name a line") from None
    if len(names) != spec.classes:
        raise UsageError(
            f"{path}: {len(names)} class names, but the network has {spec.classes} classes",
            "give one name a line, in the order of the outputs, without a background class",
        )
    return names


@dataclass(frozen=True, slots=True)
class Reference:
    """The original network, loaded."""

    spec: ModelSpec
    session: Session
    module: Any
    provenance: Mapping[str, str]


def open_reference(request: ExportRequest) -> Reference:
    """Load the original: the user's ONNX file in ONNX Runtime, or the network with its weights in torch."""
    if request.onnx is not None:
        data = _read(request.onnx)
        artifact = Artifact(request.onnx.name, "onnx", "fp32", data)
        provenance = {"kind": "onnx", "origin": request.onnx.name, "sha256": artifact.sha256}
        return Reference(request.spec, runtime("onnxruntime").open(artifact), None, provenance)
    from mobilenet_export.architectures.checkpoint import build_with_weights  # noqa: PLC0415 (imports torch)
    from mobilenet_export.runtimes.torch import TorchSession  # noqa: PLC0415

    model = build_with_weights(request.spec, request.checkpoint, request.weights)
    kind = "checkpoint" if request.checkpoint else "random" if request.weights == "none" else "embedded"
    provenance = {"kind": kind, "origin": model.origin, "sha256": model.sha256}
    return Reference(model.spec, TorchSession(model.module), model.module, provenance)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a file that you may read") from None


def capture(request: ExportRequest, reference: Reference) -> Source:
    """Read the graph off the original."""
    from mobilenet_export.capture import capture_module, capture_onnx  # noqa: PLC0415 (imports onnx)

    spec = reference.spec
    if request.onnx is None:
        graph = capture_module(reference.module, spec.name, spec.input_shape)
    else:
        graph = capture_onnx(request.onnx, request.resolution_px)
        spec = adopt(spec, graph)
    return Source(spec, graph, reference.session, reference.provenance)


def adopt(spec: ModelSpec, graph: Graph) -> ModelSpec:
    """Return the spec with the size, the classes and the output of a user's own graph.

    Raises:
        UsageError: The image is not square.
    """
    _, height, width = graph.input_shape
    if height != width:
        raise UsageError(
            f"{graph.name}: images of {height}×{width} px; square ones are supported", "export it square"
        )
    (classes,) = graph.shapes[graph.output]
    crop = spec.preprocess
    return dataclasses.replace(
        spec,
        name=graph.name,
        resolution_px=height,
        classes=classes,
        labels=spec.labels if classes == spec.classes else None,
        softmax=isinstance(graph.nodes[-1], Softmax),
        preprocess=dataclasses.replace(
            crop, resize_px=round(height * crop.resize_px / crop.crop_px), crop_px=height
        ),
    )


def choose_images(calibration: Path | None, recipe: QuantRecipe) -> Choice:
    """Choose the images to calibrate and to check with: the user's, or the shipped ones."""
    path = calibration or shipped_path("calibration", "default")
    image_set = ImageSet.open(path)
    return images.choose(image_set, recipe.calibration_images, recipe.check_images, recipe.seed)


def quantize(
    source: Source, calibration: ImageSet, recipe: QuantRecipe, advance: Callable[[int], None]
) -> QuantizedGraph:
    """Quantize the graph; the last images only judge."""
    preprocess = source.spec.preprocess
    held_out = min(recipe.held_out_images, max(1, len(calibration) // 4))
    fit = calibration.subset(calibration.names[:-held_out])
    judged = _values(calibration.subset(calibration.names[-held_out:]), source.spec)
    corrected = _values(fit.subset(fit.names[: recipe.bias_correction_images]), source.spec)

    def stream() -> Iterator[FloatArray]:
        for names, batch in images.batches(fit, preprocess, BATCH):
            yield batch
            advance(len(names))

    data = CalibrationData(
        activations=watch(source.graph, stream()),
        input_range=pixel_range(preprocess.mean, preprocess.std),
        correction_images=corrected,
        clipped_activations=lambda quantized: watch(
            source.graph, [corrected], {name: scale.bounds for name, scale in quantized.tensors.items()}
        ),
        judge=_judge(source.graph, judged),
        judge_images=held_out,
    )
    return post_training(source.graph, data, recipe)


def _values(image_set: ImageSet, spec: ModelSpec) -> FloatArray:
    return np.concatenate([batch for _, batch in images.batches(image_set, spec.preprocess, BATCH)])


def _judge(graph: Graph, held_out: FloatArray) -> Callable[[QuantizedGraph], float]:
    """Return the SQNR of an int8 graph's outputs, computed by the kernels that users run."""
    form, engine = load_plugin("formats", "onnx"), runtime("onnxruntime")
    truth = engine.open(Artifact("fp32", "onnx", "fp32", form.write_float(graph, "fp32"))).run(held_out)

    def judge(quantized: QuantizedGraph) -> float:
        data = form.write_int8(quantized, "float32")
        return sqnr_db(truth, engine.open(Artifact("int8", "onnx", "int8", data)).run(held_out))

    return judge


def halve(source: Source, calibration: ImageSet) -> Graph:
    """Round the weights to float16; a few images tell the means that biases make up for."""
    few = _values(calibration.subset(calibration.names[:BATCH]), source.spec)
    return round_to_half(source.graph, input_means(source.graph, watch(source.graph, [few])))


@dataclass(frozen=True, slots=True)
class Spellings:
    """What is written: one network in up to three precisions."""

    fp32: Graph
    fp16: Graph | None
    int8: QuantizedGraph | None


def write_artifacts(request: ExportRequest, spellings: Spellings) -> tuple[Artifact, ...]:
    """Spell one graph, and one set of integers, in every format."""
    artifacts = []
    for name, form, precision, types in request.files():
        graph = spellings.fp16 if precision == "fp16" else spellings.fp32
        if precision == "int8":
            assert spellings.int8 is not None
            data = form.write_int8(spellings.int8, types)
        else:
            assert graph is not None
            data = form.write_float(graph, precision)
        artifacts.append(Artifact(name, form.name, precision, data, types))
    return tuple(artifacts)


def check_drift(
    source: Source, artifacts: Sequence[Artifact], check: ImageSet, advance: Callable[[int], None]
) -> DriftReport:
    """Compare every file in every runtime that reads it with the original."""
    evidence = _evidence(check, source.spec, {}, advance)
    report = measure_drift(
        source.reference,
        load_subjects(artifacts, available_runtimes(), source.spec),
        evidence,
        probabilities=source.spec.softmax,
    )
    return judge(report, source.spec.limits, None)


def _evidence(
    check: ImageSet, spec: ModelSpec, labels: Mapping[str, int], advance: Callable[[int], None]
) -> Evidence:
    def stream() -> Iterator[images.Batch]:
        for batch in images.batches(check, spec.preprocess, BATCH):
            yield batch
            advance(len(batch[0]))

    return Evidence(_printable(check.origin), stream(), labels)


def _printable(origin: str) -> str:
    """A path's last part, without what its encoding could not decode."""
    return Path(origin).name.encode("utf-8", "replace").decode()


def load_subjects(
    artifacts: Sequence[Artifact], engines: Sequence[Runtime], spec: ModelSpec
) -> tuple[Subject, ...]:
    """Load every file in every one of the runtimes that reads its format.

    Raises:
        UsageError: A file takes images of another size than the variant's.
    """
    subjects = tuple(
        Subject(artifact, engine.open(artifact))
        for artifact in artifacts
        for engine in engines
        if engine.format == artifact.format
    )
    for subject in subjects:
        if subject.session.resolution_px not in (None, spec.resolution_px):
            raise UsageError(
                f"{subject.artifact.file} takes {subject.session.resolution_px} px, not {spec.resolution_px} px",
                "give the variant that it was exported from with --arch",
            )
    return subjects


@dataclass(frozen=True, slots=True)
class Contents:
    """All that goes into a bundle."""

    request: ExportRequest
    source: Source
    choice: Choice
    quantized: QuantizedGraph | None
    artifacts: tuple[Artifact, ...]
    labels: tuple[str, ...]
    drift: DriftReport


def fill_bundle(folder: Path, contents: Contents) -> None:
    """Write the files, their table of contents, the class names, the notice and the self-check."""
    for artifact in contents.artifacts:
        (folder / artifact.file).write_bytes(artifact.data)
    (folder / LABELS).write_text("\n".join(contents.labels) + "\n", encoding="utf-8")
    weights = contents.source.spec.weights
    if weights is not None:
        notice = shipped_path("models", weights.card).read_text(encoding="utf-8")
        (folder / "WEIGHTS.md").write_text(notice, encoding="utf-8")
    self_check = write_self_check(folder / SELF_CHECK, contents)
    write_document(folder, describe(contents, self_check))


def write_self_check(folder: Path, contents: Contents) -> list[dict[str, str]]:
    """Write procedural images as PNG, and what every file makes of them in its default runtime.

    PNG decodes to the same pixels everywhere; the images are not square, so that a wrong resize or crop shows.

    Returns:
        Name and hash of each image.
    """
    folder.mkdir()
    _, check = images.default_set()
    for index, name in enumerate(check.names[:SELF_CHECK_IMAGES]):
        images.save_crop(check, name, _SELF_CHECK_CROPS[index % 2], folder / f"{Path(name).stem}.png")
    pictures = ImageSet.open(folder)
    batch = _values(pictures, contents.source.spec)
    expected = {
        artifact.file: dict(zip(pictures.names, _expected(artifact, batch, contents.labels), strict=True))
        for artifact in contents.artifacts
    }
    (folder / "expected.json").write_text(
        json.dumps(expected, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in pictures.names}
    return [{"image": name, "sha256": sha256} for name, sha256 in hashes.items()]


def _expected(artifact: Artifact, batch: FloatArray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """What a file makes of each image: the best five classes, and all outputs, dequantized to float."""
    (engine, *_) = [engine for engine in available_runtimes() if engine.format == artifact.format]
    outputs = engine.open(artifact).run(batch)
    return [
        {"top5": _top5(scores, labels), "output": [float(f"{x:.8g}") for x in scores]} for scores in outputs
    ]


def _top5(scores: FloatArray, labels: Sequence[str]) -> list[dict[str, Any]]:
    best = np.argsort(-scores, kind="stable")[:5]
    return [{"class": int(i), "label": labels[i], "score": float(f"{scores[i]:.6g}")} for i in best]


def describe(contents: Contents, self_check: list[dict[str, str]]) -> dict[str, Any]:
    """Return the bundle's table of contents."""
    request, quantized = contents.request, contents.quantized
    calibration = {
        "origin": _printable(contents.choice.calibrate.origin),
        "images": len(contents.choice.calibrate),
        "sha256": _hash_images(contents.choice.calibrate, contents.source.spec),
        "unreadable": [image.name for image in contents.choice.unreadable],
    }
    return {
        "schema": SCHEMA,
        "mobilenet_export": __version__,
        "model": spec_to_table(contents.source.spec),
        "preprocessing": list(images.STEPS),
        "source": dict(contents.source.provenance),
        "files": [describe_file(artifact, contents) for artifact in contents.artifacts],
        "calibration": calibration if request.precisions != ("fp32",) else None,
        "recipe": dataclasses.asdict(request.recipe) if quantized else None,
        "decisions": [_rounded(dataclasses.asdict(decision)) for decision in quantized.decisions]
        if quantized
        else [],
        "versions": {
            name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxsim", "ai-edge-litert")
        },
        "drift": contents.drift.to_json(),
        "self_check": self_check,
    }


def _rounded(table: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in table.items()}


def _hash_images(image_set: ImageSet, spec: ModelSpec) -> str:
    """Hash the preprocessed pixels, so that renamed copies of the same images count as the same."""
    digest = hashlib.sha256()
    for _, batch in images.batches(image_set, spec.preprocess, BATCH):
        digest.update(batch.tobytes())
    return digest.hexdigest()


def describe_file(artifact: Artifact, contents: Contents) -> dict[str, Any]:
    """Return a file's entry: what it is, and how to feed it."""
    graph, form = contents.source.graph, load_plugin("formats", artifact.format)
    channels, height, width = graph.input_shape
    shape = [channels, height, width] if form.layout == "NCHW" else [height, width, channels]
    batch = "batch" if form.dynamic_batch else 1
    return {
        "path": artifact.file,
        "format": artifact.format,
        "precision": artifact.precision,
        "io": artifact.io,
        "bytes": len(artifact.data),
        "sha256": artifact.sha256,
        "input": {"name": "input", "layout": form.layout, "shape": [batch, *shape]}
        | _encoding(artifact, contents.quantized, graph.input),
        "output": {"name": "output", "shape": [batch, *graph.shapes[graph.output]]}
        | _encoding(artifact, contents.quantized, graph.output),
    }


def _encoding(artifact: Artifact, quantized: QuantizedGraph | None, tensor: str) -> dict[str, Any]:
    """Type of a file's input or output; of integers also what they stand for: real = scale·(q − zero_point)."""
    if artifact.io == "float32" or quantized is None or tensor not in quantized.tensors:
        return {"type": "float32"}
    scale = quantized.tensors[tensor]
    offset = 128 if artifact.io == "int8" else 0
    return {"type": artifact.io, "scale": scale.scale, "zero_point": scale.zero_point - offset}


@dataclass(frozen=True, slots=True)
class ValidateRequest:
    """What to validate.

    Attributes:
        targets: A bundle, or model files.
        spec: Of files that lie in no bundle.
        checkpoint: The user's own weights or ONNX file that the targets were exported from.
        data: Images; else the shipped ones for checking.
        labels_csv: `file,label` rows.
        limit: Use this many images at most.
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
    provenance: Mapping[str, str] | None


def validate(request: ValidateRequest, progress: Progress = silent) -> DriftReport:
    """Measure the drift of a bundle, or of model files, against the original.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    target = find_target(request)
    engines = [runtime(name) for name in request.runtimes] or list(available_runtimes())
    subjects = load_subjects(target.artifacts, engines, target.spec)
    if not subjects:
        raise UsageError(
            "none of the runtimes reads any of the files", "leave --runtime out to use all that do"
        )
    check, labels = find_images(request, target)
    stages = Stages(progress)
    with stages("load torch and the network"):
        reference = reopen_reference(request, target)
    with stages("check drift", len(check)) as advance:
        report = measure_drift(
            reference.session,
            subjects,
            _evidence(check, target.spec, labels, advance),
            probabilities=target.spec.softmax,
        )
    limits = merge_limits(target.spec.limits, request.limits)
    return judge(report, limits, request.max_drop_points)


def find_target(request: ValidateRequest) -> Target:
    """Read the bundle, or the files with the bundle that they lie in, or the files with the variant given."""
    first = request.targets[0]
    for path in request.targets:
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}", "give a bundle, or model files")
    if first.is_dir() and len(request.targets) > 1:
        raise UsageError("one bundle at a time", "give one bundle, or files of one")
    if first.is_dir() or (first.parent / "mnx.json").is_file():
        bundle = read_bundle(first if first.is_dir() else first.parent)
        return _target_in(bundle, () if first.is_dir() else request.targets)
    if request.spec is None:
        raise UsageError(f"{first} lies in no bundle", "name its variant with --arch (and --checkpoint)")
    artifacts = tuple(_bare_artifact(path) for path in request.targets)
    return Target(artifacts, request.spec, class_names(request.spec, None), None)


def _target_in(bundle: Bundle, files: Sequence[Path]) -> Target:
    try:
        spec = spec_from_table(dict(bundle.document["model"]))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DamagedInputError(
            f"{bundle.folder}: its model cannot be read: {error}", "export it again"
        ) from None
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


def _bare_artifact(path: Path) -> Artifact:
    form = format_of(path)
    data = _read(path)
    try:
        return Artifact(path.name, form.name, form.read_precision(data), data)
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
    count = request.limit or len(image_set)
    choice = images.choose(image_set, 0, count, seed=0)
    return choice.check, labels


def reopen_reference(request: ValidateRequest, target: Target) -> Reference:
    """Load the original that the files were exported from.

    Raises:
        UsageError: It was the user's own, and it is not given, or another one is.
    """
    provenance = target.provenance or {"kind": "checkpoint" if request.checkpoint else "embedded"}
    kind = provenance["kind"]
    own = kind in ("checkpoint", "onnx")
    if own and request.checkpoint is None:
        raise UsageError(
            f"the files were exported from {provenance['origin']}, which is the reference",
            "give it with --checkpoint",
        )
    recipe = QuantRecipe("", "")
    again = ExportRequest(
        target.spec,
        Path(),
        PRECISIONS,
        (),
        recipe,
        onnx=request.checkpoint if kind == "onnx" else None,
        checkpoint=request.checkpoint if kind == "checkpoint" else None,
        weights="none" if kind == "random" else None,
    )
    reference = open_reference(again)
    if target.provenance and reference.provenance["sha256"] != target.provenance["sha256"]:
        raise UsageError(
            f"{reference.provenance['origin']} is not what the files were exported from: its sha256 differs",
            f"give the original, {target.provenance['origin']}",
        )
    return reference


def merge_limits(limits: Limits, replacing: Limits) -> Limits:
    """Return the variant's limits with those replaced that are given."""
    given = {
        name: value
        for name, value in dataclasses.asdict(replacing).items()
        if value is not None and name != "run"
    }
    return dataclasses.replace(limits, **given)
