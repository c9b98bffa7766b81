"""What users see: errors, progress and tables. stdout is data, stderr is talk."""

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_PLAIN_WIDTH = 120
"""Columns where the output is no terminal, so that tables in logs do not wrap."""

_BAR_WIDTH = 30
"""Columns, so that a stage with thousands of images fits into 80."""

_NEVER_QUIET = ("error:", "warning:", "failed:")


class Talk(IntEnum):
    """How much stderr is told: errors and warnings; stages and next steps too; versions and origins too."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_talk = Talk.NORMAL


def set_talk(talk: Talk) -> None:
    """Decide how much is said from here on."""
    global _talk  # noqa: PLW0603 (of the process, as the streams are)
    _talk = talk


def prepare_streams() -> None:
    """Make stdout and stderr writable whatever the caller closed, and printable whatever their encoding."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (for good)
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say_error(message: str, hint: str) -> None:
    """Print an error and the next step on stderr."""
    say(f"error: {message}\nhint: {hint}")


def say(text: str, *, always: bool = False) -> None:
    """Print a line of talk on stderr; if nobody listens any more, the work goes on.

    With --quiet only what begins as an error or a warning does, or is asked to be said always.
    """
    if _talk > Talk.QUIET or always or text.startswith(_NEVER_QUIET):
        with suppress(BrokenPipeError):
            sys.stderr.write(text + "\n")


def say_detail(text: str) -> None:
    """Print a line of talk that only --verbose asks for."""
    if _talk is Talk.VERBOSE:
        say(text)


def say_next(command: str, *paths: object) -> None:
    """Name the command that comes next; each `%s` of it is a path, quoted as a shell needs it."""
    say("\nnext: " + command % tuple(shlex.quote(str(path)) for path in paths))


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def print_text(text: str) -> None:
    """Print a document on stdout as it is."""
    sys.stdout.write(text)


def console(*, stderr: bool = False) -> "Console":
    """Return a rich console; where it is no terminal as wide as COLUMNS says, or wide."""
    from rich.console import Console  # noqa: PLC0415 (slow)

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        width=None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH,
    )


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a stage: a bar or spinner on a terminal, one line at its end elsewhere."""
    start = time.perf_counter()
    if sys.stderr.isatty() and _talk > Talk.QUIET:
        with _bar(title, total) as advance:
            yield advance
    else:
        yield lambda _steps: None
    say(f"{title:<28} {time.perf_counter() - start:6.2f} s")


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich import progress as parts  # noqa: PLC0415 (slow)

    columns: list[parts.ProgressColumn] = [parts.SpinnerColumn(), parts.TextColumn("{task.description}")]
    if total:
        columns += [parts.BarColumn(_BAR_WIDTH), parts.MofNCompleteColumn()]
        columns += [parts.TimeRemainingColumn(compact=True), parts.TextColumn("left")]
    with parts.Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total or None)
        yield lambda steps: bar.advance(task, steps)
