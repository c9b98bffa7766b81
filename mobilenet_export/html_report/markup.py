"""HTML that cannot be forgotten to be escaped: what is not `Html` does not get in, and mypy says so."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import NewType

from mobilenet_export.deployment.commands import printable

Html = NewType("Html", str)
"""Text that is markup already."""

_VOID = ("img", "meta", "wbr")
_UNIT = re.compile(r"(?<=\d) (?=%|dB|ms|px|MB|M\b)")
_WORD = re.compile(r"(?<=[_/])|(?<=\.)(?=\D)|(?<=\D\.)")
"""Where a word of a name begins; a number is one word."""


def text(value: object) -> Html:
    """Escape text; a number keeps its unit on its line."""
    return Html(html.escape(_UNIT.sub("\N{NO-BREAK SPACE}", printable(str(value)))))


def breakable(value: str) -> Html:
    """Escape text whose names a narrow screen may break where a new word begins."""
    return join([text(word) for word in _WORD.split(value)], tag("wbr"))


def file_name(value: str) -> Html:
    """Return a file's or layer's name, which a narrow screen may break likewise."""
    return tag("span", breakable(value), class_="file")


def join(parts: Iterable[Html], between: str = "") -> Html:
    """Put pieces one after the other."""
    return Html(between.join(parts))


def tag(name: str, /, *children: Html, **attributes: str) -> Html:
    """Return an element; `class_` is its class, and `aria_label` its aria-label."""
    pairs = ((key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items())
    start = "".join(f' {key}="{html.escape(printable(value))}"' for key, value in pairs)
    end = "" if name in _VOID else f"{''.join(children)}</{name}>"
    return Html(f"<{name}{start}>{end}")


def section(identity: str, title: str, *children: Html) -> Html:
    """Return a part of the page with a heading that links can go to."""
    heading = tag("h2", text(title), id=f"{identity}-title")
    return tag("section", heading, *children, id=identity, aria_labelledby=f"{identity}-title")


def paragraph(value: str, kind: str = "") -> Html:
    """Return a paragraph of plain text."""
    return tag("p", text(value), **({"class_": kind} if kind else {}))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Html]], numbers: Sequence[int]) -> Html:
    """Return a table whose first column heads the rows; it scrolls where it is too wide for the screen.

    Args:
        caption: What it shows, for who cannot see it.
        heads: Titles of the columns.
        rows: Cells.
        numbers: Columns that hold numbers, which are set flush right.
    """
    kinds = ["n" if index in numbers else "" for index in range(len(heads))]
    head = [_cell("th", breakable(head), kind, "col") for head, kind in zip(heads, kinds, strict=True)]
    body = []
    for row in rows:
        cells = [_cell("td", cell, kind) for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        body.append(tag("tr", _cell("th", row[0], kinds[0], "row"), *cells))
    whole = tag(
        "table",
        tag("caption", text(caption), class_="unseen"),
        tag("thead", tag("tr", *head)),
        tag("tbody", *body),
    )
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _cell(name: str, content: Html, kind: str, scope: str = "") -> Html:
    attributes = {key: value for key, value in (("class_", kind), ("scope", scope)) if value}
    return tag(name, content, **attributes)


def facts(pairs: Iterable[tuple[str, Html]]) -> Html:
    """Return a list of names and what they are."""
    return tag("dl", *(tag("div", tag("dt", text(name)), tag("dd", value)) for name, value in pairs))


def notes(lines: Iterable[str]) -> Html:
    """Return remarks, one below the other; nothing without any."""
    entries = [tag("li", text(line)) for line in lines]
    return tag("ul", *entries, class_="note") if entries else Html("")


def fold(title: str, *children: Html) -> Html:
    """Return what is shown on request, and in print."""
    return tag("details", tag("summary", text(title)), *children)


def jpeg(data: bytes, alt: str) -> Html:
    """Return an image that lies in the page itself."""
    return tag("img", src="data:image/jpeg;base64," + base64.b64encode(data).decode(), alt=alt)


def bar(share: float, words: str, kind: str) -> Html:
    """Return a number, and beside it a bar as long as its share of 1."""
    length = f"width:{100 * min(max(share, 0.0), 1.0):.2f}%"
    return tag("span", tag("span", text(words)), tag("i", tag("b", class_=kind, style=length)), class_="bar")
