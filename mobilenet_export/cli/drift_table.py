"""The table of drift, as `mnx export` and `mnx validate` print it."""

import math
from collections.abc import Mapping

from rich.table import Table

from mobilenet_export.report import DriftReport, DriftRow


def drift_table(report: DriftReport, sizes: Mapping[str, tuple[int, str]]) -> Table:
    """Return one row per file and runtime.

    Args:
        report: To show.
        sizes: File name → (bytes, sha256).
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("file", overflow="fold")
    for name in ("format", "precision"):
        table.add_column(name, no_wrap=True)
    for name in (
        "bytes",
        "sha256",
        "runtime",
        "agree",
        "SQNR",
        *(("top-1", "drop", "95 % interval") if report.labelled else ()),
    ):
        table.add_column(name, justify="left" if name in ("sha256", "runtime") else "right", no_wrap=True)
    shown: set[str] = set()
    for row in report.rows:
        size, sha256 = sizes[row.file]
        new = row.file not in shown
        cells = [row.file, row.format, row.precision, f"{size:,}", sha256[:8]] if new else [""] * 5
        table.add_row(*cells, *measures(row, labelled=bool(report.labelled)))
        shown.add(row.file)
    return table


def measures(row: DriftRow, *, labelled: bool) -> list[str]:
    """Return a row's cells from the runtime on; with labels also top-1, its drop and the drop's interval."""
    ratio = "equal" if row.sqnr_db == math.inf else f"{row.sqnr_db:.1f} dB"
    cells = [row.runtime, f"{row.agreement_percent:.1f} %", ratio]
    if labelled:
        low, high = row.top1_drop_interval_points or (math.nan, math.nan)
        cells += [f"{row.top1_percent:.2f} %", f"{row.top1_drop_points:+.2f}", f"{low:+.2f} … {high:+.2f}"]
    return cells


def summary(report: DriftReport) -> str:
    """Say on one line what was compared, on how many images."""
    labelled = f", {report.labelled} labelled" if report.labelled else ", without labels"
    truth = f"; {report.reference} itself: {report.reference_top1_percent:.2f} %" if report.labelled else ""
    return f"drift against {report.reference} on {report.images} images of {report.data}{labelled}{truth}"
