"""The plot of layers, as `mnx analyze --plot` draws it."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_export.errors import MissingError, UsageError

if TYPE_CHECKING:
    from mobilenet_export.checks.layers import Histogram, LayerReport

_KINDS = (".png", ".svg")
_STYLES = (
    {"color": "#0b6e99", "linewidth": 2.2, "marker": "o", "markersize": 4},
    {"color": "#e8743b", "linewidth": 1.1, "linestyle": "--", "marker": "x", "markersize": 5},
    {"color": "#4a9d5b", "linewidth": 0.8, "linestyle": ":", "marker": "+", "markersize": 7},
)
"""One per runtime, thinner from one to the next: they often lie on each other."""
_WEIGHTS, _OUTPUT, _FP32 = "#7a5195", "#ffa600", "#444444"
_MOST_DB = 60
"""Where the axis ends at the latest: an input of whole pixels has 140 dB, which would flatten all the rest."""


def check_plot(path: Path) -> None:
    """Refuse a plot that cannot be drawn, before any work is done.

    Raises:
        UsageError: Its extension is neither .png nor .svg, or there is no such folder.
        MissingError: matplotlib is not installed.
    """
    if path.suffix.lower() not in _KINDS:
        names = " or ".join(str(path.with_suffix(kind)) for kind in _KINDS)
        raise UsageError(f"--plot {path}: neither .png nor .svg", f"name it {names}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--plot {path}: no such folder: {path.parent}", "give a folder that is there")
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError(
            "--plot needs matplotlib, which is not installed",
            "pip install 'mobilenet-export[plot]', or leave --plot out",
        )


def draw_layers(report: "LayerReport", path: Path, worst: int) -> None:
    """Draw SQNR and share of every layer on one axis, and below it the histograms of the worst layers."""
    import matplotlib  # noqa: PLC0415 (optional)
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings = {"svg.hashsalt": "mnx", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(15, 11), layout="constrained")
        grid = figure.add_gridspec(4, worst, height_ratios=(3, 1.7, 1.7, 1.7))
        top = figure.add_subplot(grid[0, :])
        _draw_sqnr(top, report)
        _draw_shares(figure.add_subplot(grid[1, :], sharex=top), report)
        for column, row in enumerate(report.worst(worst)):
            weights = report.weights.get(row.layer)
            if weights is not None:
                _draw_histogram(figure.add_subplot(grid[2, column]), weights, f"{row.layer}, weights")
            output = report.activations[row.layer]
            _draw_histogram(figure.add_subplot(grid[3, column]), output, f"{row.layer}, output")
        _put_title(figure, report)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=110, metadata=metadata)


def _put_title(figure: Any, report: "LayerReport") -> None:
    finals = ", ".join(f"{value:.1f} dB in {runtime}" for runtime, value in report.final_db().items())
    figure.suptitle(
        f"{report.model}: int8 against fp32, layer by layer\n"
        f"SQNR of the logits {finals}; {report.images} images of {report.data}",
        fontsize=12,
    )


def _draw_sqnr(axes: Any, report: "LayerReport") -> None:
    places = range(len(report.rows))
    for style, runtime in zip(_STYLES, report.files, strict=False):
        heights = [row.sqnr_db[runtime] for row in report.rows]
        axes.plot(places, heights, label=f"{runtime} ({report.files[runtime]})", **style)
    axes.set_ylabel("SQNR of the output (dB)")
    axes.set_ylim(0, min(axes.get_ylim()[1], _MOST_DB))
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right")
    axes.tick_params(axis="x", labelbottom=False)


def _draw_shares(axes: Any, report: "LayerReport") -> None:
    places = list(range(len(report.rows)))
    weights = [row.facts.weights_percent for row in report.rows]
    outputs = [row.facts.activations_percent for row in report.rows]
    axes.bar(places, weights, color=_WEIGHTS, label="by its weights")
    axes.bar(places, outputs, bottom=weights, color=_OUTPUT, label="by rounding its output")
    axes.set_ylabel("share of the noise\nat the logits (%)")
    axes.set_xlabel("layer, in the order in which they run")
    axes.set_xticks(places, [row.layer for row in report.rows], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(places) - 0.3)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper right", title="each layer alone in int8")


def _draw_histogram(axes: Any, histogram: "Histogram", title: str) -> None:
    axes.stairs(histogram.int8, histogram.edges, fill=True, color="#0b6e99", alpha=0.45, label="int8")
    axes.stairs(histogram.fp32, histogram.edges, color=_FP32, label="fp32")
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("steps of int8; fp32 beyond the ends is clipped")
    axes.set_ylabel("count")
    axes.legend(loc="best", fontsize=8)
