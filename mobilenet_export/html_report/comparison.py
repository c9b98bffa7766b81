"""The page that puts several bundles side by side."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mobilenet_export.html_report.figures import Box, Series, draw_error, legend, points_of
from mobilenet_export.html_report.holdings import Holdings
from mobilenet_export.html_report.latency import box, figure, nothing_measured
from mobilenet_export.html_report.markup import Html, breakable, notes, paragraph, section, table, tag, text
from mobilenet_export.html_report.page import document, navigation
from mobilenet_export.html_report.spelling import decibels, megabytes, millions, signed

_NONE = "–"
_ALONG = (
    "SQNR of each layer's output against fp32, with all layers before it in int8, too. "
    "The last point is the logits."
)
_PARTS = {
    "overview": "Overview",
    "drift": "Drift",
    "layers": "Error by layer",
    "latency": "Latency",
    "decisions": "Decisions of the quantizer",
}


@dataclass(frozen=True, slots=True)
class Named:
    """A bundle, and what it is called beside the others."""

    name: str
    held: Holdings


def comparison_page(bundles: Sequence[Named]) -> str:
    """Return one page of several bundles."""
    title = f"{len(bundles)} bundles side by side"
    parts = {
        "overview": [_overview(bundles)],
        "drift": [*_drift(bundles)],
        "layers": [*_layers(bundles)],
        "latency": [*_latency(bundles)],
        "decisions": [*_decisions(bundles)],
    }
    heading = tag("header", tag("h1", text(title)))
    found = (section(name, _PARTS[name], *children) for name, children in parts.items())
    return document(title, [heading, navigation(list(_PARTS.items())), *found])


def _matrix(
    caption: str, first: str, bundles: Sequence[Named], rows: Sequence[tuple[str, Sequence[str]]]
) -> Html:
    """Return a table with one column per bundle."""
    heads = [first, *(one.name for one in bundles)]
    cells = [[text(name), *map(breakable, values)] for name, values in rows]
    return tag("div", table(caption, heads, cells, ()), class_="matrix")


def _overview(bundles: Sequence[Named]) -> Html:
    rows = [(name, [value(one.held) for one in bundles]) for name, value in _FACTS.items()]
    return _matrix("Overview of the bundles", "Bundle", bundles, rows)


def _size(precision: str) -> Callable[[Holdings], str]:
    def smallest(held: Holdings) -> str:
        size = held.smallest(precision)
        return megabytes(size) if size else _NONE

    return smallest


def _calibrated(held: Holdings) -> str:
    found = held.calibration
    return f"{found.images} images of {found.origin}" if found else _NONE


_FACTS: dict[str, Callable[[Holdings], str]] = {
    "Network": lambda held: held.spec.name,
    "Input": lambda held: f"{held.spec.resolution_px} px",
    "Classes": lambda held: f"{held.spec.classes:,}",
    "Parameters": lambda held: millions(held.parameters) if held.parameters else _NONE,
    "Multiply-adds": lambda held: millions(held.macs) if held.macs else _NONE,
    **{f"Smallest {name} file": _size(name) for name in ("fp32", "fp16", "int8")},
    "Weights": lambda held: held.source["origin"],
    "Recipe": lambda held: str(held.recipe.get("name", _NONE)),
    "Calibrated with": _calibrated,
    "Drift check": lambda held: held.drift.verdict + ("" if held.judges_int8 else ", int8 not judged"),
}


def _drift(bundles: Sequence[Named]) -> Iterator[Html]:
    """Agreement and SQNR of files of a kind in a runtime, one column per bundle."""
    tables = [{(one.held.kind(row.file), row.runtime): row for row in one.held.drift.rows} for one in bundles]
    keys = list(dict.fromkeys(key for found in tables for key in found))
    rows = []
    for kind, runtime in keys:
        found = [table.get((kind, runtime)) for table in tables]
        values = [
            f"{row.agreement_percent:.1f} %, {decibels(row.sqnr_db)}" if row else _NONE for row in found
        ]
        rows.append((f"{kind} in {runtime}", values))
    reports = {one.name: one.held.drift for one in bundles}
    images = [
        f"{name}: against {d.reference} on {d.images} images of {d.data}" for name, d in reports.items()
    ]
    yield paragraph("Share of images whose best class is the original's, and SQNR of the outputs.")
    yield _matrix("Drift of the bundles", "File and runtime", bundles, rows)
    yield notes(images)


def _layers(bundles: Sequence[Named]) -> Iterator[Html]:
    curves = [(one.name, one.held.curve) for one in bundles if one.held.curve]
    series = [
        Series(f"{name} ({runtime})", points_of(curve, runtime, share=True))
        for name, curve in curves
        for runtime in list(curve.files)[:1]
    ]
    if not series:
        yield paragraph("No bundle holds figures of int8 layers.")
        return
    names = [one.name for one in series]
    along = "depth, % of the layers"
    alt = f"SQNR along the networks of {', '.join(names)}"
    yield tag("figure", legend(series), draw_error(series, alt, along), tag("figcaption", text(_ALONG)))


def _latency(bundles: Sequence[Named]) -> Iterator[Html]:
    """Draw the rows of all bundles, device by device."""
    devices: dict[str, list[Box]] = {}
    for one in bundles:
        for device in one.held.devices:
            rows = [box(row, one.held, f"{one.name}: ") for row in device.rows]
            devices.setdefault(device.name, []).extend(rows)
    if not any(devices.values()):
        yield nothing_measured()
        return
    yield paragraph(
        "Each bundle was measured in a run of its own, and a machine may be busier in one than in another."
    )
    for index, (name, boxes) in enumerate(devices.items()):
        if boxes:
            yield tag("h3", text(name))
            yield figure(f"{index}-{name}", name, boxes)


def _decisions(bundles: Sequence[Named]) -> Iterator[Html]:
    steps = list(dict.fromkeys(one.step for bundle in bundles for one in bundle.held.decisions))
    if not steps:
        yield paragraph("No bundle's quantizer had a step to decide on.")
        return
    tables = [{one.step: one for one in bundle.held.decisions} for bundle in bundles]
    rows = []
    for step in steps:
        found = [table.get(step) for table in tables]
        values = [
            f"{signed(one.after_db - one.before_db)} dB{'' if one.kept else ', left out'}" if one else _NONE
            for one in found
        ]
        rows.append((step.replace("_", " "), values))
    yield paragraph("Gain of each step in SQNR of the logits on held-out images; kept only where it rises.")
    yield _matrix("Decisions of the quantizer", "Step", bundles, rows)
