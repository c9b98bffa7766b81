"""`mnx export`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.cli.recognise import Size, Trained, recognise, three_numbers
from mobilenet_export.cli.settings import is_typed
from mobilenet_export.errors import ExitCode, UsageError, unknown_name

if TYPE_CHECKING:
    from mobilenet_export.artifact import InputOutput
    from mobilenet_export.pipeline import Export, ExportRequest
    from mobilenet_export.spec import ModelSpec, Preprocess

DEFAULT_RECIPE = "int8"


def export_command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Your own .onnx file; or a variant, as --arch.", autocompletion=completion.variants
        ),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="v1, v2, a variant of `mnx models`, or a path.toml.",
            metavar="ARCH",
            autocompletion=completion.variants,
        ),
    ] = None,
    width: Annotated[float | None, typer.Option(help="Width multiplier, 0.25 to 1.4.", metavar="W")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Input size, 96 to 320 in steps of 32.", metavar="PX")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.", metavar="N")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Your weights: .safetensors, .pth, .keras, .h5, .pb, .onnx.", metavar="FILE"),
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(help="Of a checkpoint's stride-2 layers: symmetric or tensorflow.", metavar="KIND"),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(help="Of a checkpoint's BatchNorms.", metavar="E", show_default="its layout's"),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Embedded weights, or none for random.", metavar="NAME")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also write int8 files.")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also write files with fp16 weights.")] = False,
    formats: Annotated[
        str, typer.Option(help="Comma-separated.", metavar="LIST", autocompletion=completion.formats)
    ] = "onnx,tflite",
    io: Annotated[
        str | None,
        typer.Option(
            help="What files take, comma-separated: float32, uint8 (a camera's pixels), int8; "
            "default float32, of int8 files uint8 too.",
            metavar="LIST",
        ),
    ] = None,
    softmax: Annotated[
        bool, typer.Option("--softmax", help="End in probabilities, float32, instead of logits.")
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="Folder, .zip, .npy or .npz of images.", metavar="PATH")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Name or path.toml.", metavar="RECIPE", autocompletion=completion.recipes)
    ] = DEFAULT_RECIPE,
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle.", metavar="DIR")] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line.", metavar="FILE")] = None,
    mean: Annotated[
        str | None, typer.Option(help="R,G,B of pixels in 0 to 1; needed for an .onnx.", metavar="LIST")
    ] = None,
    std: Annotated[
        str | None, typer.Option(help="R,G,B of pixels in 0 to 1; needed for an .onnx.", metavar="LIST")
    ] = None,
    thumbnails: Annotated[
        bool, typer.Option("--thumbnails", help="Show some of your --calibration images in report.html.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Neither use nor keep int8 results; MNX_CACHE=DIR moves them.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Export a network to ONNX and TFLite, check it against torch, and bundle it.

    \b
    Examples:
      mnx export --arch v2 --int8
      mnx export --checkpoint my.pth --int8
      mnx export model.onnx --int8 --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.recipe import find_recipe  # noqa: PLC0415 (imports numpy)

    chosen = find_recipe(recipe)
    if recipe != DEFAULT_RECIPE and not int8:
        raise UsageError(f"--recipe {recipe} is of int8 files, and none are written", "give --int8 too")
    if thumbnails and calibration is None:
        raise UsageError("--thumbnails is of your own images", "give --calibration too, or leave it out")
    if model and not model.endswith(".onnx") and not is_typed(context, "arch"):
        arch = None  # the command names another network than the one that is set elsewhere
    own = _own_onnx(model, arch)
    _refuse_with_onnx(
        own,
        width=width,
        classes=classes,
        checkpoint=checkpoint,
        padding=padding,
        eps=eps,
        weights=weights,
        softmax=softmax or None,
    )
    size = Size(width, resolution, classes)
    trained = Trained(padding, eps, mean, std)
    if own is not None:
        spec = _onnx_spec(own, arch if arch != str(own) else None, mean, std)
    elif checkpoint is not None and weights is None:
        spec = recognise(checkpoint, _named(model, arch), size, trained)
    else:
        spec = _spec(_named(model, arch), size, trained)
    spec = dataclasses.replace(spec, softmax=softmax or spec.softmax)
    from mobilenet_export.pipeline import ExportRequest, cache_folder  # noqa: PLC0415
    from mobilenet_export.spec import Given  # noqa: PLC0415

    request = ExportRequest(
        spec=spec,
        out=out or Path(spec.name),
        precisions=("fp32", *(("fp16",) if fp16 else ()), *(("int8",) if int8 else ())),
        formats=_formats(formats),
        recipe=chosen,
        onnx=own,
        resolution_px=resolution,
        checkpoint=checkpoint,
        weights=weights,
        given=Given.of(spec) if checkpoint else None,
        calibration=calibration,
        labels=labels,
        io=_io(io, _formats(formats), int8=int8),
        thumbnails=thumbnails,
        force=force,
        cache=None if no_cache else cache_folder(),
    )
    if dry_run:
        _show_plan(request, as_json=as_json)
        return
    _run(request, as_json=as_json)


def _own_onnx(model: str | None, arch: str | None) -> Path | None:
    """The user's own ONNX file, wherever it was named."""
    named = [Path(name) for name in (model, arch) if name and name.endswith(".onnx")]
    return named[0] if named else None


def _refuse_with_onnx(own: Path | None, **options: object) -> None:
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if own is not None and given:
        raise UsageError(f"{given[0]} does not go with an .onnx file, which has its own", "leave it out")


def _named(model: str | None, arch: str | None) -> str | None:
    if model and arch and model != arch:
        raise UsageError(f"two networks named: {model} and {arch}", "give one of them")
    return arch or model


def _spec(name: str | None, size: "Size", trained: "Trained") -> "ModelSpec":
    from mobilenet_export.spec import find_spec, resize_spec  # noqa: PLC0415

    if name is None:
        raise UsageError(
            "no network named", "give --arch v2, or another of `mnx models`; or --checkpoint FILE"
        )
    for option, value in (("--padding", trained.padding), ("--eps", trained.eps)):
        if value is not None:
            raise UsageError(f"{option} is of a checkpoint, and none is given", "leave it out")
    spec = resize_spec(find_spec(name), size.width, size.resolution, size.classes)
    return dataclasses.replace(spec, preprocess=_preprocess(spec.preprocess, trained.mean, trained.std))


def _onnx_spec(own: Path, arch: str | None, mean: str | None, std: str | None) -> "ModelSpec":
    """A spec for a user's file: how images are preprocessed; size and classes come from the file."""
    from mobilenet_export.pipeline import unknown_preprocessing  # noqa: PLC0415
    from mobilenet_export.spec import OTHER_LIMITS, OWN_ONNX, find_spec  # noqa: PLC0415

    if arch is None and (mean is None or std is None):
        raise unknown_preprocessing(own)
    base = find_spec(arch or "v2")
    preprocess = _preprocess(base.preprocess, mean, std)
    summary = f"read from {own.name}"
    base = dataclasses.replace(
        base, architecture=OWN_ONNX, summary=summary, alias=None, weights=None, limits=OTHER_LIMITS
    )
    return dataclasses.replace(base, name=own.stem, preprocess=preprocess, parameters=None, macs=None)


def _preprocess(base: "Preprocess", mean: str | None, std: str | None) -> "Preprocess":
    return dataclasses.replace(
        base,
        mean=three_numbers("--mean", mean) if mean else base.mean,
        std=three_numbers("--std", std) if std else base.std,
    )


def _formats(text: str) -> tuple[str, ...]:
    from mobilenet_export.plugins import plugin_names  # noqa: PLC0415

    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in plugin_names("formats"):
            raise unknown_name("format", name, plugin_names("formats"))
    if not names:
        raise UsageError("--formats names none", "known: " + ", ".join(plugin_names("formats")))
    return names


def _io(text: str | None, formats: tuple[str, ...], *, int8: bool) -> "tuple[InputOutput, ...] | None":
    """Types of input and output of the files; each must be of one of them."""
    from mobilenet_export.artifact import INPUT_OUTPUTS  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.formats import Format  # noqa: PLC0415
    from mobilenet_export.plugins import load_plugin  # noqa: PLC0415

    if text is None:
        return None
    forms: list[Format] = [load_plugin("formats", name) for name in formats]
    possible = {io for form in forms for io in form.io}
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in INPUT_OUTPUTS:
            raise unknown_name("io", name, INPUT_OUTPUTS)
        if name == "int8" and not int8:
            raise UsageError("--io int8: no float file takes it", "give --int8 too, or --io uint8")
        if name not in possible:
            raise UsageError(f"--io {name}: no file in {', '.join(formats)} takes it", "add --formats tflite")
    return tuple(io for io in INPUT_OUTPUTS if io in names)


def _show_plan(request: "ExportRequest", *, as_json: bool) -> None:
    from mobilenet_export.pipeline import check_request  # noqa: PLC0415

    check_request(request)
    files = [name for name, *_ in request.files()]
    source = request.onnx or request.checkpoint or request.weights or "embedded weights"
    if as_json:
        terminal.print_json({"bundle": str(request.out), "source": str(source), "files": files})
        return
    terminal.console().print(
        f"would export {request.spec.name} from {source} to {request.out}/", markup=False
    )
    for name in files:
        terminal.console().print(f"  {name}", markup=False)


def _run(request: "ExportRequest", *, as_json: bool) -> None:
    from mobilenet_export.pipeline import export  # noqa: PLC0415

    result = export(request, terminal.progress)
    for image in result.unreadable:
        terminal.say(f"passed over {image.name}: {image.reason}")
    for warning in result.warnings:
        terminal.say(f"warning: {warning}")
    for note in result.notes:
        terminal.say(note)
    if as_json:
        terminal.print_json(_json(result))
    else:
        _print(result, request)
    for failure in result.drift.failures:
        terminal.say(f"failed: {failure}")
    if result.drift.failures:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _beside_toml(spec: "ModelSpec") -> Path | None:
    """Weights that a variant of the user's own names."""
    return spec.weights.path if spec.weights and spec.weights.home else None


def _json(result: "Export") -> dict[str, Any]:
    folder = result.bundle.folder
    return {
        "bundle": str(folder),
        "files": [
            {
                "path": str(folder / artifact.file),
                "format": artifact.format,
                "precision": artifact.precision,
                "bytes": len(artifact.data),
                "sha256": artifact.sha256,
            }
            for artifact in result.artifacts
        ],
        "drift": result.drift.to_json(),
        "seconds": dict(result.seconds),
        "warnings": list(result.warnings),
    }


def _print(result: "Export", request: "ExportRequest") -> None:
    from mobilenet_export.cli.drift_table import print_drift  # noqa: PLC0415 (imports rich)

    sizes = {artifact.file: (len(artifact.data), artifact.sha256) for artifact in result.artifacts}
    screen = terminal.console()
    screen.print(f"\n{result.bundle.folder}/", markup=False, style="bold")
    print_drift(screen, result.drift, sizes)
    calibration = result.bundle.document["calibration"]
    if calibration:
        text = f"calibrated with {calibration['images']} images of {calibration['origin']}"
        screen.print(text, markup=False, style="dim")
    own = request.checkpoint or request.onnx or _beside_toml(request.spec)
    folder = result.bundle.folder
    if own:
        terminal.say_next("mnx validate %s --checkpoint %s --data FOLDER_OF_YOUR_PHOTOS", folder, own)
    else:
        terminal.say_next("mnx validate %s --data FOLDER_OF_YOUR_PHOTOS", folder)
