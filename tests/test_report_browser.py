"""`report.html` in a real Chromium, opened from disk: nothing is fetched, nothing overflows, everything shows.

Screenshots and a print are kept in build/report/, to be looked at.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilenet_export.artifact import PRECISIONS
from mobilenet_export.bundle import REPORT
from mobilenet_export.cli import run
from mobilenet_export.pipeline.export import ExportRequest, export
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import find_spec

api = pytest.importorskip("playwright.sync_api", reason="make test-report installs playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]

PICTURES = Path(__file__).parent.parent / "build" / "report"
MOST_BYTES = 2_000_000
WIDTHS = (360, 412, 768, 1280)
READABLE_PX = 8.5
CONTRAST = 4.5
"""Of text to what is behind it. Source: WCAG 2.2, success criterion 1.4.3."""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """MobileNetV1 and V2 with their weights, measured here, and both on one page."""
    folder = tmp_path_factory.mktemp("report")
    for arch in ("v1", "v2"):
        recipe = find_recipe("int8-fast")
        export(ExportRequest(find_spec(arch), folder / arch, PRECISIONS, ("onnx", "tflite"), recipe))
        assert run(["bench", str(folder / arch), "--threads", "1,2", "--runs", "20", "--keep"]) == 0
    bundles = [str(folder / arch) for arch in ("v1", "v2")]
    both = folder / "compare.html"
    assert run(["report", *bundles]) == 0
    assert run(["report", *bundles, "--compare", "--out", str(both)]) == 0
    return {"v1": folder / "v1" / REPORT, "v2": folder / "v2" / REPORT, "compare": both}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=sandbox)
        yield started
        started.close()


@pytest.fixture(params=["v1", "v2", "compare"])
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(params=["light", "dark"])
def opened(
    request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path], name: str, width: int
) -> Iterator[Any]:
    """A page from disk; whatever it fetches or complains of fails the test."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=request.param)
    page, wrong = context.new_page(), []
    page.on("request", lambda one: wrong.append(one.url))
    page.on("console", lambda one: wrong.append(one.text))
    page.on("pageerror", lambda one: wrong.append(str(one)))
    page.goto(pages[name].as_uri())
    yield page
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}-{width}-{request.param}.png", full_page=True)
    context.close()
    assert [one for one in wrong if not one.startswith(("file:", "data:"))] == []
    assert len([one for one in wrong if one.startswith("file:")]) == 1


def test_a_page_is_small(pages: dict[str, Path], name: str) -> None:
    assert pages[name].stat().st_size <= MOST_BYTES


def test_a_page_fits_its_window_and_can_be_read(opened: Any, width: int) -> None:
    assert opened.evaluate("document.documentElement.scrollWidth") == width
    drawings = opened.evaluate(
        """() => [...document.querySelectorAll("svg")].map(drawing => {
          const box = drawing.getBoundingClientRect(), words = [...drawing.querySelectorAll("text")];
          const scale = box.width / drawing.viewBox.baseVal.width;
          return {
            left: Math.min(...words.map(one => one.getBoundingClientRect().left)) - box.left,
            right: box.right - Math.max(...words.map(one => one.getBoundingClientRect().right)),
            smallest: Math.min(...words.map(one => parseFloat(getComputedStyle(one).fontSize) * scale)),
            width: box.width,
          };
        }).filter(one => one.width)"""
    )
    assert drawings
    for one in drawings:
        assert min(one["left"], one["right"]) >= -1
        assert one["smallest"] >= READABLE_PX
    assert opened.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")


def test_rows_of_figures_are_full(opened: Any, name: str) -> None:
    """A page that compares has none."""
    rows = opened.evaluate(
        """() => [...document.querySelectorAll(".figures > div")].map(one => one.getBoundingClientRect().top)
          .reduce((rows, top) => ({ ...rows, [top]: (rows[top] ?? 0) + 1 }), {})"""
    )
    assert len(set(rows.values())) == (0 if name == "compare" else 1), rows


def test_two_bundles_stand_side_by_side_on_a_phone(opened: Any, name: str) -> None:
    cut = opened.evaluate(
        """() => [...document.querySelectorAll(".matrix .scroll")].map(one => one.scrollWidth > one.clientWidth)"""
    )
    assert len(cut) == (3 if name == "compare" else 0)
    assert not any(cut)


def test_words_stand_out_from_what_is_behind_them(opened: Any) -> None:
    """Of every element that holds text of its own; what is behind it is the nearest background that is no gap."""
    found = opened.evaluate(
        """() => {
          const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
          const light = colour => numbers(colour).slice(0, 3).map(v => v / 255)
            .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const behind = element => {
            for (let one = element; one; one = one.parentElement) {
              const colour = getComputedStyle(one).backgroundColor;
              if ((numbers(colour)[3] ?? 1) > 0) return colour;
            }
          };
          const own = element => [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
          return [...document.body.querySelectorAll("*")].filter(own).map(element => {
            const style = getComputedStyle(element);
            const ink = element.closest("svg") ? style.fill : style.color;
            const [low, high] = [light(ink), light(behind(element))].sort((a, b) => a - b);
            return [(high + 0.05) / (low + 0.05), element.textContent.slice(0, 40)];
          });
        }"""
    )
    assert len(found) > 100
    assert [one for one in found if one[0] < CONTRAST] == []


def test_a_page_prints_whole(browser: Any, pages: dict[str, Path], name: str) -> None:
    page = browser.new_page()
    page.goto(pages[name].as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = page.evaluate(
        """[...document.querySelectorAll("details table")]
             .filter(one => !one.checkVisibility({contentVisibilityAuto: true})).length"""
    )
    assert hidden == 0
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.pdf(path=PICTURES / f"{name}.pdf", format="A4")
    page.close()
