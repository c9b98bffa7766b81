"""`mnx bench`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import completion, terminal

if TYPE_CHECKING:
    from mobilenet_export.cli.tables import Table
    from mobilenet_export.latency import LatencyReport, LatencyRow, Ratio

_BARS = "▁▂▃▄▅▆▇█"

_FIGURES = {
    "thr": 0, "p50": 0, "p90": 3, "p99": 7, "min": 6, "×": 0, "95 %": 1, "rank": 2, "load": 4, "first": 5, "MiB": 0
}  # fmt: skip
"""Columns of the table, with the order in which a narrow terminal does without them, the highest first."""


def bench_command(
    targets: Annotated[list[Path], typer.Argument(help="Bundles, or model files.", metavar="BUNDLE|FILE…")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated; default all here. `torch` adds the original.",
            metavar="NAME[:PROVIDER]",
            autocompletion=completion.runtimes,
        ),
    ] = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads to try.", metavar="N,…")] = "1",
    runs: Annotated[int, typer.Option(help="Inferences of each row.", metavar="N")] = 100,
    minutes: Annotated[
        float | None,
        typer.Option(help="Measure so long instead, and show whether it slows down.", metavar="M"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Images per inference.", metavar="B")] = 1,
    resolution: Annotated[
        int | None, typer.Option(help="Of files that leave their input size open.", metavar="PX")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your own weights, for --runtime torch.", metavar="FILE")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep every sample in the bundle, for `mnx report`.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document with every sample on stdout.")
    ] = False,
) -> None:
    """Measure latency: every file in every runtime takes its turn in every round, so that drift hits all alike.

    Ratios are to the first row, round by round, with their 95 % interval.

    \b
    Examples:
      mnx bench mobilenet_v2_100_224
      mnx bench mobilenet_v2_100_224 --runtime onnxruntime --runtime torch --threads 1,2
      mnx bench v1_bundle v2_bundle --minutes 10 --json > bench.json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.agent.bench import parse_threads  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.checks.latency import Plan  # noqa: PLC0415
    from mobilenet_export.pipeline.bench import (  # noqa: PLC0415
        BenchRequest,
        bundle_to_keep,
        keep_latency,
        measure_latency,
    )

    request = BenchRequest(
        targets=tuple(targets),
        runtimes=tuple(runtime or ()),
        threads=parse_threads(threads),
        batch=batch,
        plan=Plan(runs, minutes),
        checkpoint=checkpoint,
        resolution_px=resolution,
    )
    bundle = bundle_to_keep(request.targets) if keep else None
    report = measure_latency(request, terminal.progress)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        print_latency(report)
    if bundle is not None:
        terminal.say(f"kept {keep_latency(bundle, report)}")
        terminal.say_next("mnx report %s", bundle.folder)
    elif not as_json:
        terminal.say_next("mnx compat %s", targets[0])


def print_latency(report: "LatencyReport") -> None:
    """Print the table, what it is of, and what has to be known of it."""
    from mobilenet_export.cli.tables import print_table  # noqa: PLC0415 (imports rich)

    machine, screen = report.machine, terminal.console()
    print_table(screen, latency_table(report))
    rounds = len(report.rows[0].rounds_ms)
    lines = [
        f"{machine.cpu}, {machine.cores} cores, {machine.architecture}; {machine.int8}",
        f"{len(report.rows[0].samples_ms)} inferences of each, batch {report.rows[0].batch}, "
        f"in {rounds} round{'' if rounds == 1 else 's'}; ×: how many times as fast as the first row",
        "p50 to min: ms of a batch; load, first: ms in a process of its own, and MiB its peak",
    ]
    if report.split:
        split = report.split
        lines.append(
            f"from photo to answer, first row: decode {split.decode_ms:.1f} ms, "
            f"preprocess {split.preprocess_ms:.1f} ms, infer {split.infer_ms:.1f} ms"
        )
    for line in lines:
        screen.print(line, markup=False, style="dim")
    if len(report.minutes) > 1:
        screen.print()
        print_table(screen, _minutes_table(report))
        if governors := _governors(report):
            screen.print(governors, markup=False, style="dim")
    for note in report.notes:
        screen.print(f"note: {note}", markup=False, style="yellow")


def latency_table(report: "LatencyReport") -> "Table":
    """Return one line per row of a report."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)
    from mobilenet_export.latency import ranks  # noqa: PLC0415

    columns = [Column("file"), Column("runtime")]
    columns += [Column(name, right=True, spare=spare) for name, spare in _FIGURES.items()]
    rows = [
        (row.file, *_cells(row, report.rows[0], rank))
        for row, rank in zip(report.rows, ranks(report.rows), strict=True)
    ]
    return Table(tuple(columns), tuple(rows))


def _cells(row: "LatencyRow", first: "LatencyRow", rank: str) -> list[str]:
    ratio, cold = row.speed_over(first), row.cold
    cells = [f"{row.runtime}:{row.provider}", str(row.threads)]
    cells += [f"{row.percentile_ms(percent):.2f}" for percent in (50, 90, 99, 0)]
    cells += [f"{ratio.times:.2f}", _interval(ratio) if row is not first else "", rank]
    if cold is None:
        return [*cells, "", "", ""]
    memory = f"{cold.peak_rss_bytes / 2**20:.0f}" if cold.peak_rss_bytes else "?"
    return [*cells, f"{cold.load_ms:.0f}", f"{cold.first_ms:.1f}", memory]


def _interval(ratio: "Ratio") -> str:
    return f"{ratio.low:.2f}–{ratio.high:.2f}" if ratio.has_interval else "?"


def _minutes_table(report: "LatencyReport") -> "Table":
    """Show every row over time, the first minute beside the last, and how warm it got."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)

    titles = ("minute 1", f"minute {len(report.minutes)}", "change")
    rows = []
    for index, row in enumerate(report.rows):
        medians = [minute.medians_ms[index] for minute in report.minutes]
        change = f"{100 * (medians[-1] / medians[0] - 1):+.1f} %"
        figures = (f"{medians[0]:.2f} ms", f"{medians[-1]:.2f} ms", change)
        rows.append((row.name, *figures, _sparkline(medians)))
    states = [minute.condition for minute in report.minutes]
    for name, values in (
        ("temperature, °C", [state.temperature_c for state in states]),
        ("clock, MHz", [state.mhz for state in states]),
    ):
        known = [value for value in values if value is not None]
        if len(known) == len(states):
            rows.append((name, f"{known[0]:.0f}", f"{known[-1]:.0f}", "", _sparkline(known)))
        else:
            rows.append((name, "", "", "", "not shown by this system"))
    figures_under = (Column(title, right=True) for title in titles)
    columns = (Column("over time"), *figures_under, Column("p50 by minute", prose=True))
    return Table(columns, tuple(rows))


def _governors(report: "LatencyReport") -> str:
    """Say what governed the clock, and in which minutes it was throttled."""
    states = [minute.condition for minute in report.minutes]
    governors = {state.governor for state in states if state.governor}
    throttled = [str(number) for number, state in enumerate(states, 1) if state.throttled]
    return "; ".join(
        filter(
            None,
            [
                f"governor: {', '.join(sorted(governors))}" if governors else "",
                f"throttled in minutes {', '.join(throttled)}" if throttled else "",
            ],
        )
    )


def _sparkline(values: list[float]) -> str:
    low, high = min(values), max(values)
    span = max(high - low, 0.05 * high)  # noise of a few percent shall look like little
    return "".join(_BARS[min(int((value - low) / span * len(_BARS)), len(_BARS) - 1)] for value in values)
