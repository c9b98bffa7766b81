"""`mnx inspect`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import terminal

if TYPE_CHECKING:
    from mobilenet_export.pipeline.inspect import Inspection, InspectRequest


def inspect_command(
    target: Annotated[
        str,
        typer.Argument(
            help="v1, v2, a path.toml; a bundle; or an .onnx, .tflite or .ort file.", metavar="TARGET"
        ),
    ],
    width: Annotated[float | None, typer.Option(help="Of a variant, 0.25 to 1.4.", metavar="W")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Of a variant, or a file that leaves it open.", metavar="PX")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Of a variant.", metavar="N")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw it: FILE.png or FILE.svg.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show a network layer by layer: operators, shapes, parameters, MACs and activation memory.

    Beside it what depthwise-separable convolution saves: each pair and the standard convolution that it replaces,
    and V1's block beside V2's. Nothing is run. Of files and bundles, the precision of every layer.

    \b
    Examples:
      mnx inspect v2
      mnx inspect v1 --width 0.5 --resolution 160 --plot layers.png
      mnx inspect mobilenet_v2_100_224/mobilenet_v2_100_224_int8.tflite --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    if plot is not None:
        from mobilenet_export.cli.layer_plot import check_plot  # noqa: PLC0415

        check_plot(plot)
    from mobilenet_export.pipeline.inspect import InspectRequest, inspect  # noqa: PLC0415 (imports numpy)

    request = InspectRequest(target, width, resolution, classes)
    found = inspect(request)
    if plot is not None:
        from mobilenet_export.cli.anatomy_plot import draw_anatomy  # noqa: PLC0415

        draw_anatomy(found, plot)
        terminal.say(f"drew {plot}")
    if as_json:
        terminal.print_json(found.to_json())
        return
    from mobilenet_export.cli.anatomy_table import print_inspection  # noqa: PLC0415 (imports rich)

    print_inspection(terminal.console(), found)
    terminal.say(f"\nnext: {_next(found, request)}")


def _next(found: "Inspection", request: "InspectRequest") -> str:
    target = shlex.quote(request.target)
    if found.kind == "bundle":
        return f"mnx analyze {target}"
    if found.kind == "file":
        return f"mnx compat {target}"
    options = (
        ("--width", request.width),
        ("--resolution", request.resolution_px),
        ("--classes", request.classes),
    )
    sizes = "".join(f" {option} {value:g}" for option, value in options if value is not None)
    return f"mnx export --arch {target}{sizes} --int8"
