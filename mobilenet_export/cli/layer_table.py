"""The table of layers, as `mnx analyze` prints it."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from mobilenet_export.checks.layers import LayerReport, LayerRow, Remedy

_BARS = "▁▂▃▄▅▆▇█"
_ROOM_FOR_KIND = 90
"""Columns from which on the kind of the layer fits."""
_ROOM_FOR_REASONS = 108
"""Columns from which on the reason fits beside the remedy."""


def print_layers(screen: Console, report: LayerReport, top: int, worst: int) -> None:
    """Print the worst layers, what the remedies mean, and the histograms of the `worst` few."""
    rows = report.worst(top)
    finals = ", ".join(f"{value:.1f} dB in {runtime}" for runtime, value in report.final_db().items())
    screen.print(f"\n{report.model} in int8: {finals}", markup=False, style="bold")
    screen.print(layer_table(report, rows, screen.width))
    reasons = screen.width >= _ROOM_FOR_REASONS
    shown = sum(row.facts.share_percent for row in rows)
    for line in (
        f"{len(rows)} of {len(report.rows)} layers, {shown:.0f} % of the noise; "
        f"{report.images} images of {report.data}",
        "SQNR: of the layer's output, with all layers before it in int8 too",
        f"share: of the noise at the logits, each layer alone in int8 (sum: {report.summed_db:.1f} dB)",
        "       = by its weights + by rounding its output",
        *(["median channel n/255: how many steps its values span"] if reasons else []),
    ):
        screen.print(line, markup=False, style="dim")
    for remedy in Remedy:
        if any(row.remedy is remedy for row in rows) and remedy is not Remedy.NONE:
            screen.print(f"{remedy.value}: {remedy.advice}", markup=False, style="dim")
    _print_histograms(screen, report, report.worst(worst))


def layer_table(report: LayerReport, rows: Sequence[LayerRow], width: int) -> Table:
    """Return one row per layer; SQNR of every runtime side by side, and what fits into the width beside it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold")
    if width >= _ROOM_FOR_KIND:
        table.add_column("kind", no_wrap=True)
    for runtime in report.files:
        table.add_column(f"SQNR dB\n{runtime}", justify="right", no_wrap=True)
    for name in ("share", "weights", "output"):
        table.add_column(f"{name}\n%", justify="right", no_wrap=True)
    table.add_column("remedy", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, report.files, width))
    return table


def _cells(row: LayerRow, runtimes: Mapping[str, str], width: int) -> list[str]:
    facts = row.facts
    remedy = row.remedy.value
    if width >= _ROOM_FOR_REASONS and row.reason:
        remedy = f"{remedy}: {row.reason}"
    shares = (facts.share_percent, facts.weights_percent, facts.activations_percent)
    return [
        row.layer,
        *([row.kind.replace("depthwise", "dw")] if width >= _ROOM_FOR_KIND else []),
        *(
            "equal" if row.sqnr_db[runtime] == math.inf else f"{row.sqnr_db[runtime]:.1f}"
            for runtime in runtimes
        ),
        *(f"{share:.1f}" for share in shares),
        remedy,
    ]


def _print_histograms(screen: Console, report: LayerReport, rows: Sequence[LayerRow]) -> None:
    screen.print()
    screen.print("values of the worst layers in int8 steps (log scale; fp32 above int8)", style="bold")
    for row in rows:
        for part, histograms in (("weights", report.weights), ("output", report.activations)):
            if row.layer in histograms:
                found = histograms[row.layer]
                low, high = math.ceil(found.edges[0]), math.floor(found.edges[-1])
                screen.print(f"{row.layer} {part}, {low} … {high}", markup=False)
                for counts in (found.fp32, found.int8):
                    screen.print(f"  {sparkline(counts)}", markup=False)


def sparkline(counts: Sequence[int]) -> str:
    """Draw counts as one character each, on a log scale; a bin that holds nothing is a space."""
    most = math.log1p(max(counts, default=0)) or 1.0
    last = len(_BARS) - 1
    return "".join(_BARS[round(math.log1p(count) / most * last)] if count else " " for count in counts)
