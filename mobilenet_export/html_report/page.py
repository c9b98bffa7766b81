"""The page of one bundle."""

from collections.abc import Sequence
from pathlib import Path

from mobilenet_export.html_report import sections
from mobilenet_export.html_report.drift import drift
from mobilenet_export.html_report.holdings import Holdings
from mobilenet_export.html_report.latency import latency
from mobilenet_export.html_report.markup import Html, tag, text
from mobilenet_export.html_report.self_check import self_check

_NOTHING_FROM_ELSEWHERE = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PARTS = (
    ("files", "Files", sections.files),
    ("drift", "Drift", drift),
    ("layers", "Error by layer", sections.layers),
    ("latency", "Latency", latency),
    ("calibration", "Calibration", sections.calibration),
    ("self-check", "Self-check", self_check),
    ("provenance", "Provenance", sections.provenance),
)


def bundle_page(held: Holdings) -> str:
    """Return the report of a bundle."""
    links = navigation([(identity, title) for identity, title, _ in _PARTS])
    return document(held.spec.name, [sections.head(held), links, *(part(held) for _, _, part in _PARTS)])


def navigation(links: Sequence[tuple[str, str]]) -> Html:
    """Return links to the parts of a page."""
    entries = [tag("li", tag("a", text(title), href=f"#{identity}")) for identity, title in links]
    return tag("nav", tag("ul", *entries), aria_label="Parts of this page")


def document(title: str, parts: Sequence[Html]) -> str:
    """Return a whole HTML document."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_NOTHING_FROM_ELSEWHERE),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", text(f"{title}: report")),
        tag("style", Html(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
    )
    return f'<!DOCTYPE html>\n<html lang="en">{head}{tag("body", tag("main", *parts))}</html>\n'
