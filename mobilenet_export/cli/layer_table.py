"""The table of layers, as `mnx analyze` prints it."""

import math
from collections.abc import Mapping, Sequence

from rich.console import Console

from mobilenet_export.checks.layers import LayerReport, LayerRow, Remedy
from mobilenet_export.cli.tables import CHEAP, Column, Table, print_table

_BARS = "▁▂▃▄▅▆▇█"


def print_layers(screen: Console, report: LayerReport, top: int, worst: int) -> None:
    """Print the worst layers, what the remedies mean, and the histograms of the `worst` few."""
    rows = report.worst(top)
    finals = ", ".join(f"{value:.1f} dB in {runtime}" for runtime, value in report.final_db().items())
    screen.print(f"\n{report.model} in int8: {finals}", markup=False, style="bold")
    print_table(screen, layer_table(report, rows))
    shown = sum(row.facts.share_percent for row in rows)
    lines = [
        f"{len(rows)} of {len(report.rows)} layers, {shown:.0f} % of the noise; "
        f"{report.images} images of {report.data}",
        "SQNR: of the layer's output, with all layers before it in int8 too",
        f"share: of the noise at the logits, each layer alone in int8 (sum: {report.summed_db:.1f} dB)",
        "       = by its weights + by rounding its output",
    ]
    if any("/255" in row.reason for row in rows):
        lines.append("median channel n/255: how many steps its values span")
    for line in lines:
        screen.print(line, markup=False, style="dim")
    for remedy in Remedy:
        if any(row.remedy is remedy for row in rows) and remedy is not Remedy.NONE:
            screen.print(f"{remedy.value}: {remedy.advice}", markup=False, style="dim")
    _print_histograms(screen, report, report.worst(worst))


def layer_table(report: LayerReport, rows: Sequence[LayerRow]) -> Table:
    """Return one row per layer; SQNR of every runtime side by side."""
    columns = [Column("layer"), Column("kind", spare=CHEAP)]
    columns += [Column(f"SQNR dB\n{runtime}", right=True) for runtime in report.files]
    columns += [Column(f"{name}\n%", right=True) for name in ("share", "weights", "output")]
    columns += [Column("remedy"), Column("reason", spare=CHEAP + 1)]
    return Table(tuple(columns), tuple(_cells(row, report.files) for row in rows))


def _cells(row: LayerRow, runtimes: Mapping[str, str]) -> tuple[str, ...]:
    facts = row.facts
    ratios = (
        "equal" if row.sqnr_db[runtime] == math.inf else f"{row.sqnr_db[runtime]:.1f}" for runtime in runtimes
    )
    shares = (facts.share_percent, facts.weights_percent, facts.activations_percent)
    figures = (*ratios, *(f"{share:.1f}" for share in shares))
    return (row.layer, row.kind.replace("depthwise", "dw"), *figures, row.remedy.value, row.reason)


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
