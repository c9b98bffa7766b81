"""`mnx inspect`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobilenet_export.inspection import Inspection

_FILES = (".onnx", ".ort", ".tflite")


def inspect_command(
    target: Annotated[
        str,
        typer.Argument(
            help="v1, v2, a path.toml; a bundle; or an .onnx, .tflite or .ort file.",
            metavar="TARGET",
            autocompletion=completion.variants,
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
    sizes = {"--width": width, "--resolution": resolution, "--classes": classes}
    found = _inspect(target, sizes)
    if plot is not None:
        from mobilenet_export.cli.anatomy_plot import draw_anatomy  # noqa: PLC0415

        draw_anatomy(found, plot)
        terminal.say(f"drew {plot}")
    if as_json:
        terminal.print_json(found.to_json())
        return
    from mobilenet_export.cli.anatomy_table import print_inspection  # noqa: PLC0415 (imports rich)

    print_inspection(terminal.console(), found)
    terminal.say(f"\nnext: {_next(found, target, sizes)}")


def _inspect(target: str, sizes: "Mapping[str, Any]") -> "Inspection":
    """Look into what the target names; what is there comes before a variant of the same name."""
    path = Path(target)
    resolution = sizes["--resolution"]
    if path.suffix != ".toml" and path.exists():
        for option in ("--width", "--classes"):
            if sizes[option] is not None:
                raise UsageError(f"{option} does not go with {target}, which has its own", "leave it out")
        from mobilenet_export.pipeline.inspect import inspect  # noqa: PLC0415 (imports numpy)

        return inspect(path, resolution)
    if path.suffix in _FILES or (len(path.parts) > 1 and path.suffix != ".toml"):
        raise UsageError(f"no such file or folder: {path}", "give a variant, a bundle, or a model file")
    from mobilenet_export.architectures.dissect import inspect_variant  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.spec import find_spec, resize_spec  # noqa: PLC0415

    try:
        spec = find_spec(target)
    except UsageError as error:
        if path.suffix == ".toml":
            raise
        raise UsageError(f"no variant, bundle or file is called {target}", error.hint) from None
    return inspect_variant(resize_spec(spec, sizes["--width"], resolution, sizes["--classes"]))


def _next(found: "Inspection", target: str, sizes: "Mapping[str, Any]") -> str:
    command = {"bundle": "analyze", "file": "compat", "variant": "export --arch"}[found.kind]
    line = f"mnx {command} {shlex.quote(target)}"
    if found.kind != "variant":
        return line
    options = "".join(f" {option} {value:g}" for option, value in sizes.items() if value is not None)
    return f"{line}{options} --int8"
