"""`report`: a bundle, or several side by side, as one HTML page."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mobilenet_export.bundle import REPORT, Bundle, read_bundle, write_whole
from mobilenet_export.errors import MissingError, UsageError


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and what could not be read of what it is of, one line each."""

    html: str
    left_out: tuple[str, ...]


def check_plotting() -> None:
    """Refuse to go on where nothing can be drawn, before any work is done.

    Raises:
        MissingError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingError("matplotlib is not installed", "pip install 'mobilenet-export[export]'")


def render(bundle: Bundle) -> Page:
    """Return the page of a bundle; the same bundle makes the same page.

    Raises:
        DamagedInputError: Something of the bundle is missing, damaged or changed.
    """
    from mobilenet_export.html_report.holdings import read_holdings  # noqa: PLC0415
    from mobilenet_export.html_report.page import bundle_page  # noqa: PLC0415 (matplotlib)

    held = read_holdings(bundle)
    return Page(bundle_page(held), held.left_out)


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """What to write.

    Attributes:
        bundles: Folders.
        compare: Whether one page shows them side by side; else each has its own.
        out: The page; None writes each bundle's own.
        force: Replace an `out` that is there.
    """

    bundles: tuple[Path, ...]
    compare: bool = False
    out: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """A page that was written, and what could not be read of what it is of, one line each."""

    path: Path
    size: int
    left_out: tuple[str, ...]


def report(request: ReportRequest) -> tuple[Written, ...]:
    """Write a page for each bundle, or one for all; the files appear whole or not at all.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    _check_request(request)
    check_plotting()
    bundles = [read_bundle(folder) for folder in request.bundles]
    if request.compare:
        assert request.out is not None
        return (_write(request.out, compare(bundles)),)
    pages = [(request.out or bundle.folder / REPORT, render(bundle)) for bundle in bundles]
    return tuple(_write(path, page) for path, page in pages)


def _check_request(request: ReportRequest) -> None:
    places = [folder.resolve() for folder in request.bundles]
    if len(set(places)) < len(places):
        raise UsageError("a bundle is named twice", "name another beside it")
    if request.compare and len(places) < 2:
        raise UsageError("--compare needs two bundles or more", "name another, or leave --compare out")
    if request.compare and request.out is None:
        raise UsageError("--compare writes a page of no bundle's own", "give --out FILE.html")
    if request.out is None:
        return
    if not request.compare and len(places) > 1:
        raise UsageError("--out is one page, and each bundle has its own", "give --compare too")
    if not request.out.absolute().parent.is_dir():
        raise UsageError(f"--out {request.out}: no such folder", "give a folder that is there")
    if request.out.is_dir():
        raise UsageError(f"--out {request.out} is a folder", "give --out FILE.html")
    if request.out.suffix.lower() not in (".html", ".htm"):  # it may be a bundle's own file
        raise UsageError(f"--out {request.out}: not the name of a page", "give --out FILE.html")
    if request.out.exists() and not request.force:
        raise UsageError(f"{request.out} exists", "give --force to replace it, or another --out")


def _write(path: Path, page: Page) -> Written:
    write_whole(path, page.html)
    return Written(path, len(page.html.encode()), page.left_out)


def compare(bundles: Sequence[Bundle]) -> Page:
    """Return one page of several bundles, by the names of their folders.

    Raises:
        DamagedInputError: Something of a bundle is missing, damaged or changed.
    """
    from mobilenet_export.html_report.comparison import Named, comparison_page  # noqa: PLC0415 (matplotlib)
    from mobilenet_export.html_report.holdings import read_holdings  # noqa: PLC0415

    names = [bundle.folder.resolve().name for bundle in bundles]
    plain = len(set(names)) == len(names)
    named = [
        Named(name if plain else str(bundle.folder), read_holdings(bundle))
        for name, bundle in zip(names, bundles, strict=True)
    ]
    left_out = tuple(f"{one.name}: {line}" for one in named for line in one.held.left_out)
    return Page(comparison_page(named), left_out)
