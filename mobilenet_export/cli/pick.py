"""`mnx pick`."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import ExitCode, UsageError, unknown_name

_Item = TypeVar("_Item")
_EXAMPLES = {"--arch": "v2", "--widths": "0.5,1", "--resolutions": "160,224", "--precision": "int8"}
_MOST_ROWS, _MOST_FITTING = 20, 14
"""Of the table: the rest of a long front is in the JSON and the plot."""

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobilenet_export.artifact import Precision
    from mobilenet_export.candidate import Candidate
    from mobilenet_export.cli.tables import Table
    from mobilenet_export.pipeline.pick import PickReport


def pick_command(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(help="Your own, to choose from instead.", metavar="BUNDLE…", show_default=False),
    ] = None,
    max_ms: Annotated[float | None, typer.Option(help="Most latency of one image.", metavar="MS")] = None,
    max_mb: Annotated[
        float | None, typer.Option(help="Largest file, 1 MB = 10⁶ bytes.", metavar="MB")
    ] = None,
    max_memory: Annotated[
        float | None, typer.Option(help="Most memory of the process, Python included.", metavar="MIB")
    ] = None,
    min_top1: Annotated[float | None, typer.Option(help="Least top-1.", metavar="PERCENT")] = None,
    arch: Annotated[
        str | None,
        typer.Option(help="v1, v2; default both.", metavar="LIST", autocompletion=completion.published),
    ] = None,
    widths: Annotated[
        str | None, typer.Option(help="Default those with a published top-1.", metavar="LIST")
    ] = None,
    resolutions: Annotated[
        str | None, typer.Option(help="Default those with a published top-1.", metavar="LIST")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="fp32, int8.", metavar="LIST", autocompletion=completion.precisions)
    ] = "fp32,int8",
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated; default all there.",
            metavar="NAME[:PROVIDER]",
            autocompletion=completion.file_runtimes,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(help="Of the runtime.", metavar="N", min=1, max=64)] = 1,
    device: Annotated[
        str | None,
        typer.Option(
            help="Measure there, as `mnx deploy` reaches it.", metavar="HOST", autocompletion=completion.hosts
        ),
    ] = None,
    ssh_config: Annotated[
        Path | None,
        typer.Option(help="In place of ~/.ssh/config.", metavar="FILE", envvar="MNX_SSH_CONFIG"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Labelled images, for the top-1 of bundles.", metavar="DIR")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of file,label.", metavar="CSV")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use N images at most, drawn from all.", metavar="N", min=1)
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option(help="Scheduler whose workers measure top-1; they see DIR too.", metavar="ADDRESS"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw latency and top-1 to this .png or .svg.", metavar="FILE")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Measure all anew; MNX_CACHE=DIR moves what is kept.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find the most accurate network within a budget of latency, size and memory.

    Measures networks of all widths and sizes in fp32 and int8, in every runtime, here or on a device. Top-1 is as
    published, or measured of your own bundles. What was measured is kept, so the next run goes on from there. The
    best is measured again before it is named. Exit code 1 where nothing fits.

    \b
    Examples:
      mnx pick --max-ms 15 --max-mb 2
      mnx pick --max-ms 30 --min-top1 65 --device pi@raspberrypi.local
      mnx pick --arch v2 --precision int8 --runtime litert --plot pick.png
      mnx pick small/ large/ --data val/ --labels val.csv --max-ms 10
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.candidate import Budget  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.cli.layer_plot import check_plot  # noqa: PLC0415
    from mobilenet_export.devices import Settings, StoppedError  # noqa: PLC0415
    from mobilenet_export.pipeline.accuracy import Labelled  # noqa: PLC0415
    from mobilenet_export.pipeline.cache import cache_folder  # noqa: PLC0415
    from mobilenet_export.pipeline.pick import Grid, PickRequest, pick  # noqa: PLC0415

    if plot:
        check_plot(plot)
    if data is None and (labels or limit or dask):
        raise UsageError("--labels, --limit and --dask are of --data", "give --data DIR too")
    request = PickRequest(
        budget=Budget(
            _above_zero("--max-ms", max_ms, 15),
            _above_zero("--max-mb", max_mb, 2),
            _above_zero("--max-memory", max_memory, 100),
            _above_zero("--min-top1", min_top1, 60),
        ),
        grid=Grid(
            _items("--arch", arch, str),
            _items("--widths", widths, float),
            _items("--resolutions", resolutions, int),
            _precisions(precision),
        ),
        bundles=tuple(bundles or ()),
        labelled=Labelled(data, labels, limit, dask) if data else None,
        runtimes=tuple(runtime or ()),
        threads=threads,
        device=device,
        settings=Settings(ssh_config, ask=sys.stdin.isatty() and sys.stderr.isatty()),
        cache=None if no_cache else cache_folder(),
    )
    try:
        report = pick(request, terminal.progress)
    except KeyboardInterrupt:
        kept = (
            "nothing was kept"
            if no_cache
            else "what was measured is kept: the same command goes on from there"
        )
        raise StoppedError("interrupted", kept) from None
    if plot:
        from mobilenet_export.cli.pick_plot import draw_front  # noqa: PLC0415

        draw_front(report, plot)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        _print(report)
    _say_verdict(report)
    if report.winner is None:
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _above_zero(option: str, value: float | None, example: int) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise UsageError(f"{option} {value:g}: must be above 0", f"for example {option} {example}")
    return value


def _items(option: str, text: str | None, kind: "Callable[[str], _Item]") -> "tuple[_Item, ...]":
    if text is None:
        return ()
    example = f"for example {option} {_EXAMPLES[option]}"
    try:
        found = tuple(dict.fromkeys(kind(part.strip()) for part in text.split(",") if part.strip()))
    except ValueError:
        raise UsageError(f"{option} {text}: not numbers", example) from None
    if not found:
        raise UsageError(f"{option} names none", example)
    return found


def _precisions(text: str) -> "tuple[Precision, ...]":
    known: tuple[Precision, ...] = ("fp32", "int8")
    names = _items("--precision", text, str)
    for name in names:
        if name not in known:
            raise unknown_name("precision", name, known)
    return tuple(name for name in known if name in names) or known


def _print(report: "PickReport") -> None:
    from mobilenet_export.cli.tables import print_table  # noqa: PLC0415 (imports rich)

    screen = terminal.console()
    print_table(screen, _table(report))
    for line in _notes(report):
        screen.print(line, markup=False, style="dim")


def _table(report: "PickReport") -> "Table":
    """Return the Pareto front, what is within the budget marked."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)

    columns = [Column("network"), Column(""), Column("runtime")]
    columns += [Column(name, right=True) for name in ("p50 ms", "MB")]
    columns += [Column("MiB", right=True, spare=1), Column("top-1 %", right=True), Column("")]
    rows = tuple((*_cells(one), _mark(report, one)) for one in _shown(report))
    return Table(tuple(columns), rows)


def _shown(report: "PickReport") -> "list[Candidate]":
    """Return of a long front what fits best, and some that just do not."""
    front, excess = report.front, report.budget.excess
    fits = [one for one in front if excess(one) <= 1][:_MOST_FITTING]
    misses = sorted((one for one in front if excess(one) > 1), key=excess)
    shown = {one.point for one in [*fits, *misses[: _MOST_ROWS - len(fits)]]}
    return [one for one in front if one.point in shown]


def _cells(one: "Candidate") -> list[str]:
    point, measured, top1 = one.point, one.measured, one.top1
    assert top1 is not None
    own = f" {point.file}" if top1.images else ""
    memory = f"{measured.peak_mib:.0f}" if measured.peak_bytes else "?"
    figure = f"{top1.percent:.1f}{'*' if top1.of_fp32 else ' '}"
    engine = f"{point.runtime}:{point.provider}"
    figures = [f"{measured.p50_ms:.2f}", f"{measured.size_mb:.2f}", memory, figure]
    return [point.network + own, point.precision, engine, *figures]


def _mark(report: "PickReport", one: "Candidate") -> str:
    if report.winner and one.point == report.winner.point:
        return "← pick"
    if any(one.point == other.point for other in report.rejected):
        return "over"
    if report.budget.excess(one) <= 1:
        return "fits"
    return "unsure" if report.budget.excess(_at_its_median(one)) <= 1 else ""


def _at_its_median(one: "Candidate") -> "Candidate":
    certain = dataclasses.replace(one.measured, high_ms=one.measured.p50_ms)
    return dataclasses.replace(one, measured=certain)


def _notes(report: "PickReport") -> list[str]:
    """Return what has to be known of the table."""
    from mobilenet_export.findings import listing  # noqa: PLC0415 (imports numpy)

    unknown = [one for one in report.candidates if one.top1 is None]
    front, shown = report.front, _shown(report)
    more = f"; {len(front) - len(shown)} more in --json and --plot" if len(shown) < len(front) else ""
    count = report.candidates[0].point.threads
    lines = [
        f"{report.place}; {count} thread{'s'[: count > 1]}",
        f"{len(front)} of {len(report.candidates)} points are on the Pareto front: no other is as good in all "
        f"and better in one{more}",
    ]
    if "unsure" in [_mark(report, one) for one in shown]:
        lines.append("unsure: its p50 is within the budget, the upper end of its 95 % interval is not")
    if any(one.top1 and one.top1.of_fp32 for one in shown):
        lines.append("*: top-1 of the fp32 network, which int8 does not quite reach: see `mnx validate`")
    if unknown:
        names = dict.fromkeys(one.point.network for one in unknown)
        lines.append(f"no top-1 was published, so out of the running: {listing(names)}")
    if report.doubt:
        lines.append(f"note: {report.doubt}")
    lines += [f"top-1: {source}" for source in dict.fromkeys(one.top1.source for one in shown if one.top1)]
    return lines


def _say_verdict(report: "PickReport") -> None:
    for one in report.rejected:
        terminal.say(
            f"measured again, {one.point.network} {one.point.precision} in {one.point.runtime} takes up to "
            f"{one.measured.high_ms:.2f} ms and {one.measured.peak_mib:.0f} MiB: over the budget"
        )
    if report.winner is None:
        terminal.say("failed: nothing is within the budget; the nearest:")
        for one in report.nearest:
            terminal.say(f"  {_named(one)}: needs {_options(report, one)}")
        return
    winner = report.winner
    terminal.say(
        f"\n{_named(winner)}: {winner.measured.p50_ms:.2f} ms, at most {winner.measured.high_ms:.2f} "
        f"(95 %), when measured again"
    )
    if report.missing_weights:
        terminal.say(
            "no weights of this size ship: the top-1 is of Google's own; to only try it: --weights none"
        )
    terminal.say(f"next: {report.command}")


def _named(one: "Candidate") -> str:
    return f"{one.point.network} {one.point.precision} in {one.point.runtime}"


def _options(report: "PickReport", one: "Candidate") -> str:
    wide = report.budget.widened(one)
    options = {
        "--max-ms": wide.ms,
        "--max-mb": wide.mb,
        "--max-memory": wide.mib,
        "--min-top1": wide.top1_percent,
    }
    return " ".join(f"{name} {value:g}" for name, value in options.items() if value is not None)
