"""`mnx export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.cli.numbers import listed, three_numbers
from mobilenet_export.cli.settings import is_typed
from mobilenet_export.errors import ExitCode

if TYPE_CHECKING:
    from mobilenet_export.pipeline import Export, ExportRequest
    from mobilenet_export.spec import ModelSpec


def export_command(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Your own .onnx file; or a variant, as --arch.",
            metavar="MODEL",
            autocompletion=completion.variants,
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
        typer.Option(
            help="Of a checkpoint's stride-2 layers: symmetric or tensorflow.",
            metavar="KIND",
            autocompletion=completion.paddings,
        ),
    ] = None,
    eps: Annotated[
        float | None,
        typer.Option(help="Of a checkpoint's BatchNorms.", metavar="E", show_default="its layout's"),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Embedded ones, none for random, or torchvision:… to download.", metavar="NAME"),
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
            autocompletion=completion.inputs,
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
    ] = "int8",
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
    from mobilenet_export.pipeline.options import (  # noqa: PLC0415 (imports numpy)
        ExportOptions,
        Size,
        Trained,
        export_request,
    )

    if model and not model.endswith(".onnx") and not is_typed(context, "arch"):
        arch = None  # the command names another network than the one that is set elsewhere
    options = ExportOptions(
        model=model,
        arch=arch,
        size=Size(width, resolution, classes),
        trained=Trained(padding, eps, three_numbers("--mean", mean), three_numbers("--std", std)),
        checkpoint=checkpoint,
        weights=weights,
        int8=int8,
        fp16=fp16,
        formats=listed(formats),
        io=None if io is None else listed(io),
        softmax=softmax,
        calibration=calibration,
        recipe=recipe,
        out=out,
        labels=labels,
        thumbnails=thumbnails,
        force=force,
        cache=not no_cache,
    )
    asked = export_request(options, terminal.progress)
    request = asked.request
    if asked.recognised:
        terminal.say(f"recognised: {asked.recognised}")
    if dry_run:
        _show_plan(request, as_json=as_json)
        return
    _run(request, as_json=as_json)


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
        _print(result)
    for failure in result.drift.failures:
        terminal.say(f"failed: {failure}")
    if not as_json:
        _say_next(result, request)
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


def _print(result: "Export") -> None:
    from mobilenet_export.cli.drift_table import print_drift  # noqa: PLC0415 (imports rich)

    sizes = {artifact.file: (len(artifact.data), artifact.sha256) for artifact in result.artifacts}
    screen = terminal.console()
    screen.print(f"\n{result.bundle.folder}/", markup=False, style="bold")
    print_drift(screen, result.drift, sizes)
    calibration = result.bundle.document["calibration"]
    if calibration:
        text = f"calibrated with {calibration['images']} images of {calibration['origin']}"
        screen.print(text, markup=False, style="dim")


def _say_next(result: "Export", request: "ExportRequest") -> None:
    own = request.checkpoint or request.onnx or _beside_toml(request.spec)
    folder = result.bundle.folder
    if result.drift.failures and request.calibration:
        arch = "" if own else f" --arch {request.spec.name}"
        terminal.say_next(f"mnx calibration lint %s{arch}", request.calibration)
    elif request.weights == "none":
        terminal.say_next("mnx bench %s", folder)
    elif own:
        terminal.say_next("mnx validate %s --checkpoint %s --data FOLDER_OF_YOUR_PHOTOS", folder, own)
    else:
        terminal.say_next("mnx validate %s --data FOLDER_OF_YOUR_PHOTOS", folder)
