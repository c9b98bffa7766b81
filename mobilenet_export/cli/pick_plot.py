"""The plot of `mnx pick --plot`: latency and top-1 of every candidate, the Pareto front, the budget, the pick."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobilenet_export.candidate import Candidate
    from mobilenet_export.pipeline.pick import PickReport

_COLOURS = ("#0b6e99", "#e8743b", "#4a9d5b", "#7a5195", "#ffa600", "#444444")
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "^"}
_LARGEST_DOT = 160


def draw_front(report: "PickReport", path: Path) -> None:
    """Draw candidates of known top-1: colour is the runtime, shape the precision, area the file's size."""
    import matplotlib  # noqa: PLC0415 (optional)
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    settings = {"svg.hashsalt": "mnx", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _draw_candidates(axes, report)
        _draw_budget(axes, report)
        if report.winner:
            _draw_winner(axes, report.winner)
        axes.set_xlabel("latency, p50 of one image (ms)")
        axes.set_ylabel("top-1 (%), of int8 its fp32 network's where it was published")
        axes.set_title(f"{report.place}\nfull: on the Pareto front; area: size of the file", fontsize=10)
        axes.grid(alpha=0.3, which="both")
        axes.legend(loc="lower right")
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
        figure.savefig(path, dpi=110, metadata=metadata)


def _draw_candidates(axes: Any, report: "PickReport") -> None:
    known = [one for one in report.candidates if one.top1]
    best = {one.point for one in report.front}
    largest = max(one.measured.size_bytes for one in known)
    kinds = sorted({(one.point.runtime, one.point.provider, one.point.precision) for one in known})
    engines = list(dict.fromkeys(kind[:2] for kind in kinds))
    for kind in kinds:
        group = [one for one in known if (one.point.runtime, one.point.provider, one.point.precision) == kind]
        colour = _COLOURS[engines.index(kind[:2]) % len(_COLOURS)]
        for on_front in (False, True):
            part = [one for one in group if (one.point in best) is on_front]
            areas = [15 + _LARGEST_DOT * one.measured.size_bytes / largest for one in part]
            style = (
                {"facecolors": colour, "alpha": 0.6} if on_front else {"facecolors": "none", "alpha": 0.35}
            )
            label = f"{kind[0]}:{kind[1]}, {kind[2]}" if on_front else None
            xs, ys = _places(part)
            axes.scatter(xs, ys, s=areas, marker=_MARKERS[kind[2]], edgecolors=colour, label=label, **style)


def _places(candidates: "Sequence[Candidate]") -> tuple[list[float], list[float]]:
    return [one.measured.p50_ms for one in candidates], [one.top1.percent for one in candidates if one.top1]


def _draw_budget(axes: Any, report: "PickReport") -> None:
    budget = report.budget
    if budget.ms is not None:
        axes.axvline(
            budget.ms, color="#444444", linestyle="--", linewidth=1, label=f"at most {budget.ms:g} ms"
        )
    if budget.top1_percent is not None:
        text = f"at least {budget.top1_percent:g} %"
        axes.axhline(budget.top1_percent, color="#444444", linestyle=":", linewidth=1, label=text)


def _draw_winner(axes: Any, winner: "Candidate") -> None:
    (x,), (y,) = _places([winner])
    text = f"{winner.point.network} {winner.point.precision}, {winner.measured.size_mb:.2f} MB"
    axes.scatter([x], [y], s=420, facecolors="none", edgecolors="#c00000", linewidths=1.8)
    axes.annotate(
        text, (x, y), xytext=(-12, 14), textcoords="offset points", ha="right", color="#c00000", fontsize=10
    )
