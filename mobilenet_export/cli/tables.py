"""Tables that stay readable on a narrow terminal, by one rule.

Where a table is too wide, in this order: what all file names begin with is said once, above; names stand on lines
of their own, above their rows; the columns that matter least are left out, and named below. Prose wraps.
"""

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

_GAP = "  "
CHEAP = 10
"""Spare columns from this number on go before names are set above their rows."""
_PROSE = 24
"""Columns that prose may be narrowed to before anything else gives way."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column.

    Attributes:
        title: In one line or two.
        right: Whether its cells are flush right.
        prose: Whether its cells may wrap; of the last column alone.
        spare: Where room lacks, columns are left out from the highest number down, from CHEAP on early; 0 never.
    """

    title: str
    right: bool = False
    prose: bool = False
    spare: int = 0

    @property
    def name(self) -> str:
        """The title in one line."""
        return self.title.replace("\n", " ")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under columns.

    Attributes:
        columns: From left to right.
        rows: One cell for each column; a name that the row above has too is shown once.
        names: How many columns on the left name a row; the last of them holds names of files, or the like.
        styles: One of rich for each row, or none.
        complete: Where what was left out can be read.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1
    styles: tuple[str, ...] = ()
    complete: str = "--json has all"

    def without(self, column: Column) -> "Table":
        """Return the table with one column less."""
        at = self.columns.index(column)
        rows = tuple(row[:at] + row[at + 1 :] for row in self.rows)
        return replace(self, columns=self.columns[:at] + self.columns[at + 1 :], rows=rows)

    def shortened(self, beginning: str) -> "Table":
        """Return the table with names that lack what all of them begin with."""
        at = self.names - 1
        rows = tuple((*row[:at], row[at].removeprefix(beginning), *row[at + 1 :]) for row in self.rows)
        return replace(self, rows=rows)


@dataclass(frozen=True, slots=True)
class _Form:
    """A way to show a table: what stands above it, and whether names stand above their rows."""

    table: Table
    above: str = ""
    stacked: bool = False

    @property
    def first(self) -> int:
        """The first column that stands in rows."""
        return self.table.names if self.stacked else 0

    def widths(self) -> list[int]:
        """The least that every column takes."""
        found = []
        for at, column in enumerate(self.table.columns[self.first :], self.first):
            cells = [*column.title.split("\n"), *(row[at] for row in self.table.rows)]
            most = max(map(cell_len, cells))
            found.append(min(most, _PROSE) if column.prose else most)
        return found

    def width(self) -> int:
        """The least that a line takes."""
        widths = self.widths()
        return sum(widths) + len(_GAP) * (len(widths) - (not self.stacked))


def print_table(screen: Console, table: Table) -> None:
    """Print a table, in the first form that fits the screen."""
    forms = list(_forms(table))
    form = next((one for one in forms if one.width() <= screen.width), forms[-1])
    if form.above:
        screen.print(Text(f"{form.above}…", style="dim"))
    for line in _lines(form, screen.width):
        screen.print(line, soft_wrap=True)
    gone = [column.name for column in table.columns if column not in form.table.columns]
    if gone:
        screen.print(Text(f"left out for want of room: {', '.join(gone)}; {table.complete}", style="dim"))


def _forms(table: Table) -> Iterator[_Form]:
    """Yield the forms of a table, the fullest first."""
    spare = sorted((column for column in table.columns if column.spare), key=lambda column: -column.spare)
    beginning = shared_beginning([row[table.names - 1] for row in table.rows])
    for at in range(len(spare) + 1):
        yield _Form(table)
        if beginning:
            yield _Form(table.shortened(beginning), above=beginning)
        if all(column.spare < CHEAP for column in spare[at:]):
            yield _Form(table, stacked=True)
        table = table.without(spare[at]) if at < len(spare) else table


def shared_beginning(names: Sequence[str]) -> str:
    """Return what all names begin with, up to an underscore or a slash; nothing where there is one name."""
    shared = os.path.commonprefix(list(names)) if len(set(names)) > 1 else ""  # noqa: RUF071 (of characters)
    return shared[: max(shared.rfind("_"), shared.rfind("/")) + 1]


def _lines(form: _Form, width: int) -> Iterator[Text]:
    table, widths = form.table, form.widths()
    columns = table.columns[form.first :]
    if columns[-1].prose:
        widths[-1] = max(
            widths[-1], width - sum(widths[:-1]) - len(_GAP) * (len(widths) - (not form.stacked))
        )
    titles = [column.title.split("\n") for column in columns]
    for line in range(-max(map(len, titles)), 0):
        cells = [title[line] if len(title) >= -line else "" for title in titles]
        yield Text(_line(cells, columns, widths, form.stacked), style="bold")
    previous: tuple[str, ...] = ()
    for row, style in zip(table.rows, table.styles or [""] * len(table.rows), strict=True):
        same = len(os.path.commonprefix([row[: table.names], previous[: table.names]]))  # noqa: RUF071 (of cells)
        previous = row
        if form.stacked and same < table.names:
            yield Text(_GAP.join(row[: table.names]), style=style)
        cells = ["" if at < same else cell for at, cell in enumerate(row)][form.first :]
        prose = textwrap.wrap(cells[-1], widths[-1], break_on_hyphens=False) if columns[-1].prose else []
        yield Text(
            _line([*cells[:-1], prose[0]] if prose else cells, columns, widths, form.stacked), style=style
        )
        for more in prose[1:]:
            yield Text(_line([""] * (len(cells) - 1) + [more], columns, widths, form.stacked), style=style)


def _line(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], stacked: bool) -> str:
    padded = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        room = " " * (width - cell_len(cell))
        padded.append(room + cell if column.right else cell + room)
    return ((_GAP if stacked else "") + _GAP.join(padded)).rstrip()
