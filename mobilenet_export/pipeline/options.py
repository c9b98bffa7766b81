"""What a user asks of an export, in plain Python, and the decided request that it becomes.

The command line and the Python API both end here, so that they cannot differ in what they take and refuse.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from mobilenet_export.artifact import INPUT_OUTPUTS, InputOutput
from mobilenet_export.bundle import check_place
from mobilenet_export.errors import UsageError, unknown_name
from mobilenet_export.formats import Format
from mobilenet_export.pipeline.cache import cache_folder
from mobilenet_export.pipeline.download import fetch, find_download
from mobilenet_export.pipeline.export import ExportRequest
from mobilenet_export.pipeline.reference import open_checkpoint, unknown_preprocessing
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import (
    OTHER_LIMITS,
    OWN_ONNX,
    Given,
    ModelSpec,
    Padding,
    Preprocess,
    WeightsSpec,
    find_spec,
    resize_spec,
)

Channels = tuple[float, float, float]
"""A number per channel, R, G, B, of pixels in 0 to 1."""

DEFAULT_RECIPE = "int8"
DEFAULT_FORMATS = ("onnx", "tflite")


@dataclass(frozen=True, slots=True)
class Size:
    """Options of a network's size; None where they are not given."""

    width: float | None = None
    resolution: int | None = None
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """Options of what a network is trained with; None where they are not given."""

    padding: str | None = None
    eps: float | None = None
    mean: Channels | None = None
    std: Channels | None = None


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """The options of `mnx export`, read but not yet decided.

    Attributes:
        model: The user's own .onnx file; or a variant, as `arch`.
        arch: Name of a variant or path of a TOML; of an .onnx file, the variant that it is preprocessed as.
        size: Of the network.
        trained: With what.
        checkpoint: The user's own weights.
        weights: Name of embedded weights, or `none` for random ones.
        int8: Also write int8 files.
        fp16: Also write files with fp16 weights.
        formats: Names.
        io: Types of input and output; None for the usual ones.
        softmax: End in probabilities.
        calibration: Images.
        recipe: Name or path of a TOML.
        out: Folder of the bundle; None for the network's name.
        labels: File of class names.
        thumbnails: Of the user's own calibration images.
        force: Replace a bundle that is there.
        cache: Use and keep int8 results.
    """

    model: str | None = None
    arch: str | None = None
    size: Size = Size()
    trained: Trained = Trained()
    checkpoint: Path | None = None
    weights: str | None = None
    int8: bool = False
    fp16: bool = False
    formats: tuple[str, ...] = DEFAULT_FORMATS
    io: tuple[str, ...] | None = None
    softmax: bool = False
    calibration: Path | None = None
    recipe: str = DEFAULT_RECIPE
    out: Path | None = None
    labels: Path | None = None
    thumbnails: bool = False
    force: bool = False
    cache: bool = True


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be exported, and in one line what a checkpoint was recognised as, where there is one."""

    request: ExportRequest
    recognised: str = ""


def export_request(options: ExportOptions, progress: Progress = silent) -> Asked:
    """Decide what is to be exported; a checkpoint is opened for it.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    recipe = find_recipe(options.recipe)
    if options.recipe != DEFAULT_RECIPE and not options.int8:
        raise UsageError(
            f"--recipe {options.recipe} is of int8 files, and none are written", "give --int8 too"
        )
    if options.thumbnails and options.calibration is None:
        raise UsageError("--thumbnails is of your own images", "give --calibration too, or leave it out")
    formats = _formats(options.formats)
    io = _io(options.io, formats, int8=options.int8)
    own = _own_onnx(options)
    if options.out is not None:
        check_place(options.out, force=options.force)  # before anything is downloaded or opened
    options, published = _downloaded(options, progress)
    spec, recognised = _spec(options, own, published, progress)
    spec = dataclasses.replace(spec, softmax=options.softmax or spec.softmax)
    request = ExportRequest(
        spec=spec,
        out=options.out or Path(spec.name),
        precisions=("fp32", *(("fp16",) if options.fp16 else ()), *(("int8",) if options.int8 else ())),
        formats=formats,
        recipe=recipe,
        onnx=own,
        resolution_px=options.size.resolution,
        checkpoint=options.checkpoint,
        weights=options.weights,
        given=Given.of(spec) if options.checkpoint else None,
        calibration=options.calibration,
        labels=options.labels,
        io=io,
        thumbnails=options.thumbnails,
        force=options.force,
        cache=cache_folder() if options.cache else None,
    )
    return Asked(request, recognised)


def said_of_it(name: str | None, size: Size, trained: Trained) -> tuple[ModelSpec | None, Given]:
    """Return the variant that a checkpoint is said to be, if any, and what else the options say of it.

    Raises:
        UsageError: An option is out of range.
    """
    spec = find_spec(name) if name else None
    own = spec if name and name.endswith(".toml") else None  # its author means the size that it says
    return spec, _given(size, trained, own)


def check_channels(option: str, values: Channels) -> Channels:
    """Return a mean or std of pixels in 0 to 1.

    Raises:
        UsageError: It is not three numbers, or out of range.
    """
    text = ",".join(f"{value:g}" for value in values)
    if len(values) != 3:
        raise UsageError(f"{option} {text}: not three numbers", f"write {option} 0.485,0.456,0.406")
    least = 0.0 if option == "--mean" else 1e-6
    if not all(least <= value <= 1 for value in values):
        raise UsageError(f"{option} {text}: not within 0 to 1", "pixels count as 0 to 1 here: divide by 255")
    return values


def _own_onnx(options: ExportOptions) -> Path | None:
    """The user's own ONNX file, wherever it was named.

    Raises:
        UsageError: Options do not go with it.
    """
    named = [Path(name) for name in (options.model, options.arch) if name and name.endswith(".onnx")]
    given = {
        "width": options.size.width,
        "classes": options.size.classes,
        "checkpoint": options.checkpoint,
        "padding": options.trained.padding,
        "eps": options.trained.eps,
        "weights": options.weights,
        "softmax": options.softmax or None,
    }
    for name, value in given.items():
        if named and value is not None:
            raise UsageError(f"--{name} does not go with an .onnx file, which has its own", "leave it out")
    return named[0] if named else None


def _downloaded(options: ExportOptions, progress: Progress) -> tuple[ExportOptions, WeightsSpec | None]:
    """The options with published weights as the checkpoint, where they name some, and what is known of those."""
    if options.weights is None or ":" not in options.weights or options.checkpoint is not None:
        return options, None
    found = find_download(options.weights)
    arch = options.arch or (None if options.model else found.arch)
    file = fetch(found, progress)
    return dataclasses.replace(options, arch=arch, weights=None, checkpoint=file), found.weights


def _spec(
    options: ExportOptions, own: Path | None, published: WeightsSpec | None, progress: Progress
) -> tuple[ModelSpec, str]:
    """The variant, and what a checkpoint was recognised as."""
    if own is not None:
        arch = options.arch if options.arch != str(own) else None
        return _onnx_spec(own, arch, options.trained), ""
    if options.model and options.arch and options.model != options.arch:
        raise UsageError(f"two networks named: {options.model} and {options.arch}", "give one of them")
    name = options.arch or options.model
    if options.checkpoint is None or options.weights is not None:
        return _named_spec(name, options.size, options.trained), ""
    spec, given = said_of_it(name, options.size, options.trained)
    if spec and published:
        spec = dataclasses.replace(spec, weights=published)
    with Stages(progress)("load torch and the checkpoint"):
        fitted = open_checkpoint(options.checkpoint, spec, given)
    return fitted.spec, fitted.description


def _named_spec(name: str | None, size: Size, trained: Trained) -> ModelSpec:
    if name is None:
        raise UsageError(
            "no network named", "give --arch v2, or another of `mnx models`; or --checkpoint FILE"
        )
    for option, value in (("--padding", trained.padding), ("--eps", trained.eps)):
        if value is not None:
            raise UsageError(f"{option} is of a checkpoint, and none is given", "leave it out")
    spec = resize_spec(find_spec(name), size.width, size.resolution, size.classes)
    return dataclasses.replace(spec, preprocess=_preprocess(spec.preprocess, trained))


def _onnx_spec(own: Path, arch: str | None, trained: Trained) -> ModelSpec:
    """A spec for a user's file: how images are preprocessed; size and classes come from the file."""
    if arch is None and (trained.mean is None or trained.std is None):
        raise unknown_preprocessing(own)
    base = find_spec(arch or "v2")
    preprocess = _preprocess(base.preprocess, trained)
    summary = f"read from {own.name}"
    base = dataclasses.replace(
        base, architecture=OWN_ONNX, summary=summary, alias=None, weights=None, limits=OTHER_LIMITS
    )
    return dataclasses.replace(base, name=own.stem, preprocess=preprocess, parameters=None, macs=None)


def _preprocess(base: Preprocess, trained: Trained) -> Preprocess:
    return dataclasses.replace(
        base,
        mean=check_channels("--mean", trained.mean) if trained.mean else base.mean,
        std=check_channels("--std", trained.std) if trained.std else base.std,
    )


def _given(size: Size, trained: Trained, own: ModelSpec | None) -> Given:
    if trained.padding not in (None, *get_args(Padding)):
        raise unknown_name("padding", str(trained.padding), get_args(Padding))
    if trained.eps is not None and not 0 < trained.eps < 1:
        raise UsageError(f"--eps {trained.eps:g}: not within 0 to 1", "torch uses 1e-5, TensorFlow 1e-3")
    return Given(
        width=own.width if own and size.width is None else size.width,
        resolution_px=own.resolution_px if own and size.resolution is None else size.resolution,
        classes=own.classes if own and size.classes is None else size.classes,
        padding=trained.padding,  # type: ignore[arg-type]  # one of them, as was just checked
        batch_norm_eps=trained.eps,
        mean=check_channels("--mean", trained.mean) if trained.mean else None,
        std=check_channels("--std", trained.std) if trained.std else None,
    )


def _formats(wanted: tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(wanted))
    for name in names:
        if name not in plugin_names("formats"):
            raise unknown_name("format", name, plugin_names("formats"))
    if not names:
        raise UsageError("--formats names none", "known: " + ", ".join(plugin_names("formats")))
    return names


def _io(
    names: tuple[str, ...] | None, formats: tuple[str, ...], *, int8: bool
) -> tuple[InputOutput, ...] | None:
    """Types of input and output of the files; each must be of one of them."""
    if names is None:
        return None
    forms: list[Format] = [load_plugin("formats", name) for name in formats]
    possible = {io for form in forms for io in form.io}
    if not names:
        raise UsageError("--io names none", "known: " + ", ".join(INPUT_OUTPUTS))
    for name in dict.fromkeys(names):
        if name not in INPUT_OUTPUTS:
            raise unknown_name("io", name, INPUT_OUTPUTS)
        if name == "int8" and not int8:
            raise UsageError("--io int8: no float file takes it", "give --int8 too, or --io uint8")
        if name not in possible:
            raise UsageError(f"--io {name}: no file in {', '.join(formats)} takes it", "add --formats tflite")
    return tuple(io for io in INPUT_OUTPUTS if io in names)
