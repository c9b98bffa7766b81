"""What is drawn: the error along the network, its ranges, and latency; as SVG that takes the page's colours.

Matplotlib draws with colours that stand for others, and each is replaced by a variable of the page's style sheet,
so that one drawing serves light, dark and print. Words stay text, in the page's font. Each figure is drawn twice,
for desktops and for phones, and the style sheet shows one of them.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from mobilenet_export.deployment.commands import printable
from mobilenet_export.html_report.markup import Html, join, tag, text
from mobilenet_export.latency import LatencyRow
from mobilenet_export.report import LayerCurve

_INK, _SOFT, _LINE = "#010101", "#010102", "#010103"
_SERIES = ("#010104", "#010105", "#010106", "#010107")
_NAMES = ("ink", "soft", "line", "one", "two", "three", "four")
_VARIABLES = {f"#01010{index}": f"var(--{name})" for index, name in enumerate(_NAMES, 1)}
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
_INCH = 72
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_DRAWN = (5, 25, 50, 75, 95)
"""Percentiles that a box and its whiskers are."""
_PRECISIONS = {"fp32": _SERIES[1], "fp16": _SERIES[2], "int8": _SERIES[0]}


Points = tuple[tuple[float, float], ...]
_MARKS = _NAMES[3:]
_THIN: dict[str, Any] = {"linewidth": 1.2, "marker": "o", "markersize": 2.2}
_PALE: dict[str, Any] = {"linewidth": 6, "alpha": 0.35}
_NEAR_DB = 0.5
"""Lines that are less apart look like one."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of the two sizes that a figure is drawn in; lengths in points."""

    name: str
    width: float
    font: float


FORMS = (Form("wide", 760, 9.5), Form("narrow", 340, 10.5))


@dataclass(frozen=True, slots=True)
class Series:
    """A line of the error along a network: (depth of 1, dB) of each layer."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Box:
    """One row of a latency figure: what ran, in what, and what was measured."""

    kind: str
    where: str
    row: LatencyRow

    @property
    def median(self) -> str:
        """The median, with its unit."""
        return f"{self.row.percentile_ms(50):.2f} ms"

    @property
    def five_numbers(self) -> dict[str, float]:
        """What is drawn of it, by matplotlib's names."""
        names = ("whislo", "q1", "med", "q3", "whishi")
        return {name: self.row.percentile_ms(percent) for name, percent in zip(names, _DRAWN, strict=True)}


def _draw(name: str, alt: str, height: Callable[[Form], float], paint: Callable[[Any, Form], None]) -> Html:
    """Return a figure in both sizes; `paint` draws it on axes."""
    drawings = []
    for form in FORMS:
        settings = _SETTINGS | {"font.size": form.font, "svg.hashsalt": f"{name}-{form.name}"}
        with mpl.rc_context(settings), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser's fonts have it
            figure = Figure(figsize=(form.width / _INCH, height(form) / _INCH))
            paint(figure.add_axes((0, 0, 1, 1)), form)
            stream = io.BytesIO()
            figure.savefig(stream, format="svg", metadata=_NO_METADATA)
        drawings.append(_inline(stream.getvalue(), form, alt))
    return join(drawings)


def _inline(svg: bytes, form: Form, alt: str) -> Html:
    """Make an SVG file part of a page: without what only files need, its colours the page's."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(svg)
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.attrib |= {"class": form.name, "role": "img", "aria-label": printable(alt)}
    for element in root.iter(f"{{{_SVG}}}g"):
        element.attrib.pop("id", None)
    for definitions in root.findall(f"{{{_SVG}}}defs"):
        for style in definitions.findall(f"{{{_SVG}}}style"):  # it would reach beyond the figure
            definitions.remove(style)
    found = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        found = found.replace(colour, variable)
    return Html("".join(line.strip() + ("\n" if line.endswith('"') else "") for line in found.splitlines()))


def _place(axes: Any, form: Form, height: float, edges: tuple[float, float, float, float]) -> None:
    """Set the axes' edges: left, right, bottom, top, in points from the figure's own."""
    left, right, bottom, top = edges
    axes.set_position(
        (
            left / form.width,
            bottom / height,
            1 - (left + right) / form.width,
            1 - (bottom + top) / height,
        )
    )


def _plain(axes: Any, *, grid: str) -> None:
    axes.grid(visible=False, axis="x" if grid == "y" else "y")
    axes.tick_params(length=0)


def draw_error(series: Sequence[Series], alt: str, along: str) -> Html:
    """Draw lines of SQNR along networks; one that another lies on is wide and pale."""

    def height(form: Form) -> float:
        return 250 if form.name == "wide" else 240

    def paint(axes: Any, form: Form) -> None:
        _place(axes, form, height(form), (34, 8, 34, 18))
        _plain(axes, grid="y")
        for index, (one, hidden) in enumerate(zip(series, _hidden(series), strict=True)):
            places, heights = zip(*one.points, strict=True)
            colour, style = _SERIES[index % len(_SERIES)], _PALE if hidden else _THIN
            axes.plot(places, heights, color=colour, **style)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        axes.set_xlabel(along)
        axes.set_title("dB", fontsize=form.font, color=_SOFT, loc="left", x=-26 / form.width)

    return _draw("error", alt, height, paint)


def _hidden(series: Sequence[Series]) -> list[bool]:
    """Of each line, whether a later one lies on it."""
    return [
        any(_near(one.points, other.points) for other in series[index + 1 :])
        for index, one in enumerate(series)
    ]


def _near(first: Points, second: Points) -> bool:
    return len(first) == len(second) and bool(np.abs(np.subtract(first, second)).mean() < _NEAR_DB)


def legend(series: Sequence[Series]) -> Html:
    """Return the names of lines beside their colours, in the page's own words."""
    entries = []
    for index, (one, hidden) in enumerate(zip(series, _hidden(series), strict=True)):
        mark = f"mark {_MARKS[index % len(_MARKS)]}" + (" pale" if hidden else "")
        entries.append(tag("li", tag("span", class_=mark), text(one.name)))
    return tag("ul", *entries, class_="legend")


def draw_ranges(curve: LayerCurve, alt: str) -> Html:
    """Draw the range that each layer's 256 integers stand for."""

    def height(form: Form) -> float:
        return 190 if form.name == "wide" else 180

    def paint(axes: Any, form: Form) -> None:
        _place(axes, form, height(form), (34, 8, 34, 8))
        _plain(axes, grid="y")
        lows, highs = (np.array([getattr(one, side) for one in curve.layers]) for side in ("low", "high"))
        places = np.arange(len(lows))
        axes.vlines(places, lows, highs, color=_SERIES[0], linewidth=0.5 * (form.width - 42) / len(lows))
        axes.axhline(0, color=_SOFT, linewidth=0.8)
        axes.set_yscale("symlog", linthresh=10)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", "−"))
        axes.margins(x=0.01)
        axes.set_xlabel("layer, in the order in which they run")

    return _draw("ranges", alt, height, paint)


def draw_latency(boxes: Sequence[Box], alt: str, name: str) -> Html:
    """Draw one box per row, its words above it: quartiles, median, whiskers from the 5th to the 95th percentile."""

    def pitch(form: Form) -> float:
        return 2.9 * form.font if form.name == "wide" else 4.6 * form.font

    def height(form: Form) -> float:
        return 36 + pitch(form) * len(boxes)

    def paint(axes: Any, form: Form) -> None:
        _place(axes, form, height(form), (4, 12, 34, 2))
        _plain(axes, grid="x")
        places = np.arange(len(boxes))
        drawn = axes.bxp(
            [box.five_numbers for box in boxes],
            positions=places,
            orientation="horizontal",
            widths=0.9 * FORMS[0].font / pitch(form),
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
        )
        _colour(drawn, [_PRECISIONS.get(box.row.precision, _SERIES[3]) for box in boxes])
        for place, box in zip(places, boxes, strict=True):
            _write(axes, form, place - 0.75 * form.font / pitch(form), box)
        axes.set_ylim(len(boxes) - 0.7, -0.8)
        axes.set_xlim(left=0)
        axes.set_yticks([])
        axes.xaxis.set_major_formatter("{x:g}")  # a wide "0.0" would stand out on the left
        axes.set_xlabel("ms per inference")

    return _draw(f"latency-{name}", alt, height, paint)


def _write(axes: Any, form: Form, place: float, box: Box) -> None:
    """Write the words of a box above it: on one line, or where there is no room on two."""
    kind, where = printable(box.kind), printable(box.where)
    words = f"{kind} · {where}" if form.name == "wide" else f"{kind}\n{where}"
    axes.text(0, place, words, va="bottom", ha="left", linespacing=1.25)
    right = axes.get_yaxis_transform()
    axes.text(1, place, box.median, va="bottom", ha="right", transform=right, weight="bold")


def _colour(drawn: dict[str, list[Any]], colours: list[str]) -> None:
    for index, colour in enumerate(colours):
        drawn["boxes"][index].set(facecolor=colour, edgecolor="none", alpha=0.55)
        drawn["medians"][index].set(color=_INK, linewidth=1.6)
        for line in (
            *drawn["whiskers"][2 * index : 2 * index + 2],
            *drawn["caps"][2 * index : 2 * index + 2],
        ):
            line.set(color=colour, linewidth=1.2)


def points_of(curve: LayerCurve, runtime: str, *, share: bool = False) -> Points:
    """Return the line of one runtime over the number of the layer, or its share of all; the input is left out.

    The input's rounding is far above all else, and would flatten the rest.
    """
    layers = curve.layers[1:]
    last = max(len(layers) - 1, 1)
    return tuple(
        (100 * index / last if share else index + 1, ratio)
        for index, layer in enumerate(layers)
        if (ratio := layer.sqnr_db[runtime]) is not None
    )
