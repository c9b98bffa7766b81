"""`report`: a bundle, or several side by side, as one HTML page."""

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mobilenet_export.bundle import REPORT, Bundle, read_bundle
from mobilenet_export.errors import MissingError


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
