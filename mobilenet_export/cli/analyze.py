"""`mnx analyze`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import terminal

if TYPE_CHECKING:
    from mobilenet_export.checks.layers import LayerReport

WORST = 3
"""Layers whose histograms are shown."""


def analyze_command(
    bundle: Annotated[Path, typer.Argument(help="A bundle with int8 files.", metavar="BUNDLE")],
    data: Annotated[Path | None, typer.Option(help="Folder, .zip or array of images.", metavar="DIR")] = None,
    limit: Annotated[int, typer.Option(help="Use N images at most, drawn from all.", metavar="N", min=1)] = 8,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Your weights or .onnx that the bundle was exported from.", metavar="FILE"),
    ] = None,
    top: Annotated[int, typer.Option(help="Show the N worst layers.", metavar="N", min=1)] = 10,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw all layers: FILE.png or FILE.svg.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show which layers int8 loses accuracy in, why, and what would help.

    For each layer: SQNR of its output in every runtime's own kernels, and its share of the noise at the logits
    when it alone is int8, in the part of its weights and the part of rounding its output.

    \b
    Examples:
      mnx analyze mobilenet_v2_100_224
      mnx analyze mobilenet_v2_100_224 --data photos/ --top 20 --plot layers.png
      mnx analyze my_bundle --checkpoint my.pth --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    if plot is not None:
        from mobilenet_export.cli.layer_plot import check_plot  # noqa: PLC0415

        check_plot(plot)
    from mobilenet_export.pipeline import AnalyzeRequest, analyze  # noqa: PLC0415 (imports numpy and onnx)

    report = analyze(AnalyzeRequest(bundle, checkpoint, data, limit), terminal.progress)
    if plot is not None:
        from mobilenet_export.cli.layer_plot import draw_layers  # noqa: PLC0415

        draw_layers(report, plot, WORST)
        terminal.say(f"drew {plot}")
    if as_json:
        terminal.print_json(report.to_json(WORST))
    else:
        _print(report, top)
        terminal.say_next("mnx validate %s --data FOLDER_OF_YOUR_PHOTOS", bundle)


def _print(report: "LayerReport", top: int) -> None:
    from mobilenet_export.cli.layer_table import print_layers  # noqa: PLC0415 (imports rich)

    print_layers(terminal.console(), report, top, WORST)
