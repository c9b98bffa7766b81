"""`mnx report`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from mobilenet_export.cli import terminal


def report_command(
    bundles: Annotated[list[Path], typer.Argument(help="Folders of bundles.", metavar="BUNDLE…")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Put several bundles side by side, on one page.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="The page.", metavar="FILE", show_default="BUNDLE/report.html"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an --out that is there.")] = False,
) -> None:
    """Write a bundle's report.html anew, with all that came back of devices since; or compare several bundles.

    The page needs no network and nothing beside it. Latency is what `mnx bench --keep`, `mnx deploy` and
    `mnx phone` left in BUNDLE/devices/. The paths of what was written go to stdout.

    \b
    Examples:
      mnx report mobilenet_v2_100_224
      mnx report mobilenet_v1_100_224 mobilenet_v2_100_224 --compare --out compare.html
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.pipeline.report import ReportRequest, report  # noqa: PLC0415 (numpy)

    written = report(ReportRequest(tuple(bundles), compare, out, force))
    for page in written:
        for line in page.left_out:
            terminal.say(f"left out: {line}")
        terminal.print_text(f"{page.path}\n")
    terminal.say(f"\nnext: open {shlex.quote(str(written[0].path))} in a browser")
