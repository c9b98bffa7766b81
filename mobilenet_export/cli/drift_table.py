"""The table of drift, as `mnx export` and `mnx validate` print it."""

import math
from collections.abc import Mapping

from rich.console import Console

from mobilenet_export.cli.tables import Column, Table, print_table
from mobilenet_export.report import DriftReport, DriftRow

_WORDS = ("precision", "sha256", "runtime", "referee")
_SPARE = ("precision", "bytes", "sha256")
"""Left out on a narrow terminal from the last on: names say the precision, and mnx.json says all."""


def print_drift(screen: Console, report: DriftReport, sizes: Mapping[str, tuple[int, str]]) -> None:
    """Print the table and what its figures are of; `sizes` as for `drift_table`."""
    print_table(screen, drift_table(report, sizes))
    for line in (summary(report), referee_note(report)):
        if line:
            screen.print(line, markup=False, style="dim")


def drift_table(report: DriftReport, sizes: Mapping[str, tuple[int, str]]) -> Table:
    """Return one row per file and runtime.

    Args:
        report: To show.
        sizes: File name → (bytes, sha256); left to mnx.json where there are labels, whose figures need the room.
    """
    identity = () if report.labelled else ("bytes", "sha256")
    names = ("precision", *identity, *columns(report))
    titles = [
        Column(name, right=name not in _WORDS, spare=_SPARE.index(name) + 1 if name in _SPARE else 0)
        for name in names
    ]
    rows, shown = [], ""
    for row in report.rows:
        size, sha256 = sizes[row.file]
        cells = (row.precision, *(f"{size:,}", sha256[:8])[: len(identity)])
        cells, shown = (("",) * len(cells) if row.file == shown else cells), row.file
        rows.append((row.file, *cells, *measures(row, report)))
    return Table((Column("file"), *titles), tuple(rows), complete="mnx.json has all")


def columns(report: DriftReport) -> list[str]:
    """Return the headings from the runtime on; what no row of the report has is left out."""
    return [
        "runtime",
        "agree",
        "SQNR",
        *(["referee"] if _refereed(report) else []),
        *(["top-1", "drop", "95 % interval"] if report.labelled else []),
    ]


def measures(row: DriftRow, report: DriftReport) -> list[str]:
    """Return a row's cells for `columns`."""
    ratio = "equal" if row.sqnr_db == math.inf else f"{row.sqnr_db:.1f} dB"
    cells = [row.runtime, f"{row.agreement_percent:.1f} %", ratio]
    if _refereed(report):
        cells.append(referee(row))
    if report.labelled:
        low, high = row.top1_drop_interval_points or (math.nan, math.nan)
        cells += [f"{row.top1_percent:.2f} %", f"{row.top1_drop_points:+.2f}", f"{low:+.2f} … {high:+.2f}"]
    return cells


def referee(row: DriftRow) -> str:
    """Say how far a row's logits are from exact arithmetic, such as `≤ 2 LSB, 63 % =`."""
    return row.referee.words if row.referee else "–"


def referee_note(report: DriftReport) -> str:
    """Say on one line what the column `referee` is; nothing where there is none."""
    images = _refereed(report)
    return (
        f"referee: logits of the first {images} images against exact integer arithmetic, in steps of int8 (LSB)"
        if images
        else ""
    )


def _refereed(report: DriftReport) -> int:
    return max((row.referee.images for row in report.rows if row.referee), default=0)


def summary(report: DriftReport) -> str:
    """Say on one line what was compared, on how many images."""
    labelled = f", {report.labelled} labelled" if report.labelled else ", without labels"
    truth = f"; {report.reference} itself: {report.reference_top1_percent:.2f} %" if report.labelled else ""
    return f"drift against {report.reference} on {report.images} images of {report.data}{labelled}{truth}"
