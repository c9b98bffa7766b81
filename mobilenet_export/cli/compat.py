"""`mnx compat`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import ExitCode

if TYPE_CHECKING:
    from mobilenet_export.cli.tables import Table
    from mobilenet_export.compat.facts import Problem
    from mobilenet_export.compat.judge import CompatReport, Judgement

_STYLES = {True: "", False: "red", None: "yellow"}


def compat_command(
    targets: Annotated[list[Path], typer.Argument(help="Bundles, or model files.", metavar="BUNDLE|FILE…")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="Such as onnxruntime==1.16; may be repeated.",
            metavar="NAME[==VERSION]",
            autocompletion=completion.packages,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="pi3, pi4, pi5, pi02w, pi4-32bit, jetson-nano, pc …",
            metavar="NAME",
            autocompletion=completion.boards,
        ),
    ] = None,
    python: Annotated[
        str | None, typer.Option(help="On the device; default its system's.", metavar="VERSION")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Say whether files load in releases of ONNX Runtime, tflite-runtime and LiteRT, and install on a device.

    From tables with their sources; nothing is run. Exit code 1 where a runtime asked for does not work, or without
    --runtime where none of the usual ones works for a file; 5 where our table does not know.

    \b
    Examples:
      mnx compat mobilenet_v2_100_224
      mnx compat mobilenet_v2_100_224 --device pi4 --runtime onnxruntime==1.21
      mnx compat model.tflite --device pi3 --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.packages import LISTED_ON  # noqa: PLC0415
    from mobilenet_export.pipeline.compat import CompatRequest, compat  # noqa: PLC0415 (imports onnx)

    report = compat(CompatRequest(tuple(targets), tuple(runtime or ()), device, python))
    if as_json:
        terminal.print_json(report.to_json() | {"wheels_listed_on": LISTED_ON})
    else:
        _print(report)
        if report.verdict == "pass":
            command = "mnx deploy USER@HOST %s" if targets[0].is_dir() else "mnx bench %s"
            terminal.say_next(command, targets[0])
    if report.verdict != "pass":
        raise typer.Exit(ExitCode.CHECK_FAILED if report.verdict == "fail" else ExitCode.INCONCLUSIVE)


def _print(report: "CompatReport") -> None:
    from mobilenet_export.cli.tables import print_table  # noqa: PLC0415 (imports rich)
    from mobilenet_export.packages import LISTED_ON  # noqa: PLC0415

    screen = terminal.console()
    notes = _notes(report)
    if report.target.board:
        line = report.target.board.describe(report.target.python)
        screen.print(f"{line}\n", markup=False, style="bold", soft_wrap=True)
    for file, table in _tables(report, notes):
        screen.print(f"{file} ({report.requirements[file].summary})", markup=False, soft_wrap=True)
        print_table(screen, table)
        screen.print()
    for mark, (name, problem) in enumerate(notes, 1):
        line = f"[{mark}] {name}: {problem.happens}; {problem.remedy} ({problem.source})"
        screen.print(line, markup=False, style="dim", soft_wrap=True)
    for line in filter(None, dict.fromkeys(map(_first_that_loads, report.judgements))):
        screen.print(line, markup=False, soft_wrap=True)
    for file in report.left_out:
        screen.print(f"{file}: not judged, no runtime asked for reads it", markup=False, soft_wrap=True)
    screen.print(f"wheels: as PyPI listed them on {LISTED_ON}", style="dim")
    screen.print(f"verdict: {report.verdict}", style="bold")


def _notes(report: "CompatReport") -> "list[tuple[str, Problem]]":
    """The problems to explain below the tables, each once, with the runtime that has it."""
    found: list[tuple[str, Problem]] = []
    for row in report.judgements:
        problems = [(row.package, problem) for problem in (*row.known_bad, *row.cautions)]
        found += [entry for entry in problems if entry not in found]
    return found


def _tables(report: "CompatReport", notes: "list[tuple[str, Problem]]") -> "Iterator[tuple[str, Table]]":
    """Yield a table for every file."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)

    columns = (Column("runtime"), Column("loads"), Column("wheel"), Column("known problems", prose=True))
    for file in report.requirements:
        found = [row for row in report.judgements if row.file == file]
        if found:
            rows = tuple(_cells(row, notes) for row in found)
            yield file, Table(columns, rows, styles=tuple(_STYLES[row.works] for row in found))


def _cells(row: "Judgement", notes: "list[tuple[str, Problem]]") -> tuple[str, ...]:
    """The runtime, whether it loads the file, its wheel, and the problems with their numbers below."""
    wheel = row.wheel.why if row.wheel.yes and row.wheel.why else row.wheel.text
    bad = [f"bad: {problem.label} [{notes.index((row.package, problem)) + 1}]" for problem in row.known_bad]
    others = [f"{problem.label} [{notes.index((row.package, problem)) + 1}]" for problem in row.cautions]
    return f"{row.package} {row.release}", row.loads.text, wheel, ", ".join(bad + others) or "–"


def _first_that_loads(row: "Judgement") -> str:
    """Which release is the first to load a file that this one does not."""
    if row.loads.yes is not False:
        return ""
    if row.first_that_loads is None:
        return f"{row.file}: no {row.package} in our table loads it"
    return f"{row.file}: {row.package} {row.first_that_loads} is the first in our table that loads it"
