"""The part of the page that shows latency, device by device."""

from collections.abc import Iterator, Sequence

from mobilenet_export.html_report.figures import Box, draw_latency
from mobilenet_export.html_report.holdings import Device, Holdings
from mobilenet_export.html_report.markup import (
    Html,
    file_name,
    fold,
    join,
    notes,
    paragraph,
    section,
    table,
    tag,
    text,
)
from mobilenet_export.latency import LatencyRow

_NOTHING = (
    ("Nothing is measured yet. ", "mnx bench FOLDER --keep"),
    (" measures on this computer, ", "mnx deploy HOST FOLDER"),
    (" on a device, ", "mnx phone FOLDER"),
    (" in a phone's browser; then ", "mnx report FOLDER"),
    (" writes this page anew.", ""),
)
_DRAWN = "Box: the middle half, line: the median, whiskers: 5th to 95th percentile. Fastest first."


def latency(held: Holdings) -> Html:
    """Draw what every device measured; without any, say how to get some."""
    parts = [part for index, device in enumerate(held.devices) for part in _device(device, index, held)]
    parts += [paragraph(f"Left out: {line}", "bad") for line in held.left_out]
    if not held.devices:
        parts.append(nothing_measured())
    return section("latency", "Latency", *parts)


def nothing_measured() -> Html:
    """Say which commands measure."""
    pieces = [
        piece
        for words, code in _NOTHING
        for piece in (text(words), tag("code", text(code)) if code else text(""))
    ]
    return tag("p", *pieces)


def _device(device: Device, index: int, held: Holdings) -> Iterator[Html]:
    yield tag("h3", text(device.name))
    yield paragraph(device.machine, "note")
    if device.check:
        words = f"Self-check there: {device.check.verdict}, {len(device.check.rows)} files and runtimes."
        yield paragraph(words, "note" if device.check.verdict == "pass" else "bad")
        yield join(paragraph(line, "bad") for line in device.check.failures)
    if not device.rows:
        yield paragraph(f"No latency was measured; it ended in: {device.verdict}.", "note")
        return
    runs = " or ".join(map(str, sorted({len(row.samples_ms) for row in device.rows})))
    boxes = [box(row, held) for row in device.rows]
    yield figure(f"{index}-{device.name}", device.name, boxes, f"{_DRAWN} {runs} inferences of each.")
    yield fold("As a table", _table(device.rows))
    yield notes(device.notes)


def box(row: LatencyRow, held: Holdings, before: str = "") -> Box:
    """Return what a figure shows of a row; `before` comes first of its words."""
    threads = f"{row.threads} thread{'s'[: row.threads > 1]}"
    batch = f", batch {row.batch}" if row.batch > 1 else ""
    return Box(before + held.kind(row.file), f"{row.runtime} {row.provider}, {threads}{batch}", row)


def figure(salt: str, device: str, boxes: Sequence[Box], caption: str = _DRAWN) -> Html:
    """Return the box plots of a device, the fastest first."""
    ordered = sorted(boxes, key=lambda one: one.row.percentile_ms(50))
    words = "; ".join(f"{one.kind}, {one.where}: {one.median}" for one in ordered)
    drawn = draw_latency(ordered, f"Box plots of latency on {device}: {words}", salt)
    return tag("figure", drawn, tag("figcaption", text(caption)))


def _table(rows: Sequence[LatencyRow]) -> Html:
    """Return the numbers behind a figure."""
    heads = ["File", "Runtime", "Threads", "p50 ms", "p90 ms", "p99 ms", "min ms", "samples"]
    cells = [
        [
            file_name(row.file),
            text(f"{row.runtime} {row.provider}"),
            text(row.threads),
            *(text(f"{row.percentile_ms(percent):.2f}") for percent in (50, 90, 99, 0)),
            text(len(row.samples_ms)),
        ]
        for row in rows
    ]
    return table("Latency", heads, cells, range(2, len(heads)))
