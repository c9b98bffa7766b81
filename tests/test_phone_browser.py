"""`mnx phone` as its user has it: the printed address, opened in a real Chromium as a phone's.

Screenshots are kept in build/phone/, to be looked at.
"""

import base64
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mobilenet_export.artifact import PRECISIONS
from mobilenet_export.bundle import read_bundle
from mobilenet_export.errors import MissingError
from mobilenet_export.images import open_image, preprocess
from mobilenet_export.phone.address import lan_address
from mobilenet_export.phone.assets import ASSETS, find_resources
from mobilenet_export.pipeline.export import ExportRequest, export
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import Preprocess, find_spec, resize_spec, spec_from_table

api = pytest.importorskip("playwright.sync_api", reason="make test-phone installs playwright")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed"),
]

PICTURES = Path(__file__).parent.parent / "build" / "phone"
LONGEST_MS = 300_000
"""A wait for a page on a busy machine; on a quiet one twelve files take half a minute."""
QUIET = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP other.example 127.0.0.1",
)
SOFTWARE_GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
PIXEL = {
    "viewport": {"width": 412, "height": 915},
    "device_scale_factor": 2.625,
    "is_mobile": True,
    "has_touch": True,
}


@pytest.fixture(scope="module", autouse=True)
def runtimes() -> None:
    """Skip where npm has not brought them."""
    try:
        find_resources()
    except MissingError as error:
        pytest.skip(f"{error.message}: {error.hint}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 with its weights, in every precision and format."""
    out = tmp_path_factory.mktemp("browser") / "v2"
    export(
        ExportRequest(find_spec("v2"), out, PRECISIONS, ("onnx", "ort", "tflite"), find_recipe("int8-fast"))
    )
    return out


@pytest.fixture(scope="module")
def pixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, small, in fp32 and fp16 files that take pixels."""
    out = tmp_path_factory.mktemp("browser") / "pixels"
    spec = resize_spec(find_spec("v2"), None, 96, None)
    forms, recipe = ("onnx", "ort", "tflite"), find_recipe("int8-fast")
    export(ExportRequest(spec, out, ("fp32", "fp16"), forms, recipe, io=("uint8",)))
    return out


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Any]]:
    """Start Chromium; each start with other flags is another browser."""
    with api.sync_playwright() as playwright:
        started: dict[tuple[str, ...], Any] = {}

        def start(*flags: str) -> Any:
            if flags not in started:
                sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
                arguments = [*sandbox, *QUIET, *flags]
                started[flags] = playwright.chromium.launch(
                    executable_path=shutil.which("chromium"), args=arguments
                )
            return started[flags]

        yield start
        for browser in started.values():
            browser.close()


@dataclass
class Command:
    """A running `mnx phone`."""

    process: subprocess.Popen[str]
    url: str

    @property
    def origin(self) -> str:
        return self.url.split("/#")[0]

    def end(self) -> tuple[int, str, str]:
        out, talk = self.process.communicate(timeout=LONGEST_MS / 1000)
        return self.process.returncode, out, talk


@contextmanager
def phone(bundle: Path, *options: str) -> Iterator[Command]:
    """Run `mnx phone`, and read the address that it prints."""
    code = "from mobilenet_export.cli import main; main()"
    command = [sys.executable, "-c", code, "phone", str(bundle), "--port", "0", "--runs", "12", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = []
        for line in process.stderr:
            told.append(line)
            if "Ctrl-C" in line:
                break
        (url,) = re.findall(r"https?://\S+", "".join(told))
        yield Command(process, url)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def opened(browser: Any, command: Command, url: str | None = None, **look: Any) -> Iterator[Any]:
    """Open a page; at its end, nothing may have been asked of another origin, and no script have failed."""
    context = browser.new_context(**(PIXEL | {"ignore_https_errors": True} | look))
    page = context.new_page()
    asked: list[str] = []
    broken: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(url or command.url)
    yield page
    context.close()
    origins = {re.match(r"(blob:)?[a-z]+://[^/]+", address)[0].removeprefix("blob:") for address in asked}  # type: ignore[index]
    assert origins <= {command.origin if url is None else url.split("/#")[0].rstrip("/")}
    assert not broken


def wait_for(page: Any, selector: str) -> None:
    page.wait_for_selector(f"{selector}, #problem:not([hidden])", timeout=LONGEST_MS)


def measured(page: Any) -> dict[tuple[str, str], tuple[str, str]]:
    """Wait for the end, and return (file, runtime) → (verdict, detail) as the page shows it."""
    wait_for(page, "#again:not([hidden])")
    assert page.is_hidden("#problem"), page.inner_text("#problem")
    rows = {}
    for row in page.query_selector_all("#rows tr"):
        name, check, p50, _, here = row.query_selector_all("td")
        lines = name.inner_text().split("\n")
        rows[lines[0].removesuffix(" ★"), lines[1]] = tuple(check.inner_text().split("\n", 1))
        assert float(p50.inner_text()) > 0
        assert float(here.inner_text()) > 0
    return rows  # type: ignore[return-value]


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def choose(page: Any, data: bytes, name: str = "photo.png") -> None:
    page.set_input_files("#photo", {"name": name, "mimeType": "image/png", "buffer": data})


def take_screenshots(page: Any, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for width in (360, 412, 1280):
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (
                "it has to be scrolled sideways"
            )
            page.screenshot(path=PICTURES / f"{name}-{width}-{scheme}.png", full_page=True)


def test_plain_http_from_the_printed_address_to_the_report(bundle: Path, launch: Callable[..., Any]) -> None:
    address = lan_address()
    assert address, "this machine has no address but loopback"
    with phone(bundle, "--once") as command:
        assert command.origin.startswith(f"http://{address}:")
        start = time.monotonic()
        with opened(launch(), command) as page:
            wait_for(page, "#rows .pass, #rows .fail")
            first_s = time.monotonic() - start
            rows = measured(page)
            assert [verdict for verdict, _ in rows.values()] == ["pass"] * 12
            for kind in ("", ", RGB"):
                assert rows[f"int8 TFLite{kind}", "litert.js"][1] == "bit-equal"
                for form in ("ONNX", "ORT"):
                    detail = rows[f"int8 {form}{kind}", "onnxruntime-web"][1]
                    assert re.fullmatch("bit-equal|[01] steps .*", detail), form
            assert "Take " in page.inner_text("#advice")
            for start_of_sentence in ("The camera works", "Threads work", "WebGPU works"):
                assert f"{start_of_sentence} on https only" in page.inner_text("#limits")
            assert page.is_disabled("#camera")
            expected = json.loads((bundle / "self_check" / "expected.json").read_text(encoding="utf-8"))
            name, best = next(
                (n, image["top5"][0]) for n, image in expected["mobilenet_v2_100_224_fp32.onnx"].items()
            )
            choose(page, (bundle / "self_check" / name).read_bytes())
            page.wait_for_selector("#top5 li")
            assert page.inner_text("#top5 li:first-child").startswith(best["label"])
            take_screenshots(page, "http")
        code, out, talk = command.end()
    assert code == 0
    assert first_s <= 5
    assert "← fastest" in out
    assert "report of chrome-" in talk
    (kept,) = (bundle / "devices").glob("chrome-*.json")
    report = json.loads(kept.read_text(encoding="utf-8"))
    assert report["verdict"] == "pass"
    assert {len(row["rounds_ms"]) for row in report["latency"]["rows"]} == {3}
    (PICTURES / "table.txt").write_text(
        f"{out}\nassets: {assets_bytes():,} bytes compressed\n", encoding="utf-8"
    )


def test_float_files_take_pixels(pixels: Path, launch: Callable[..., Any]) -> None:
    with phone(pixels, "--once") as command:
        with opened(launch(), command) as page:
            rows = measured(page)
        assert command.end()[0] == 0
    runtimes = {"ONNX": "onnxruntime-web", "ORT": "onnxruntime-web", "TFLite": "litert.js"}
    assert {key: verdict for key, (verdict, _) in rows.items()} == {
        (f"{precision} {form}, RGB", runtime): "pass"
        for precision in ("fp32", "fp16")
        for form, runtime in runtimes.items()
    }


def assets_bytes() -> int:
    return sum(path.stat().st_size for path in ASSETS.rglob("*.gz"))


def test_the_runtimes_are_small() -> None:
    assert assets_bytes() < 13e6


def test_self_signed_tls_brings_camera_and_threads(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle, "--once", "--tls", "--threads", "2") as command:
        assert command.origin.startswith("https://")
        with opened(launch(), command, permissions=["camera"]) as page:
            assert page.evaluate("crossOriginIsolated")
            rows = measured(page)
            assert {verdict for verdict, _ in rows.values()} == {"pass"}
            assert "https only" not in page.inner_text("#limits")
            page.click("#camera")
            page.wait_for_selector("#top5 li")
            took = page.inner_text("#took")
            page.wait_for_function("took => document.getElementById('took').textContent !== took", arg=took)
            page.screenshot(path=PICTURES / "camera.png", full_page=True)
            page.click("#camera")
            assert page.inner_text("#camera") == "Start the camera"
        code, out, _ = command.end()
    assert code == 0
    assert "litert.js:wasm" in out
    report = json.loads(next((bundle / "devices").glob("chrome-*.json")).read_text(encoding="utf-8"))
    assert {row["threads"] for row in report["latency"]["rows"]} == {2}
    assert "threads" in report["check"]["machine"]["features"]


def test_tflite_files_run_on_a_gpu_that_answers(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle, "--tls", "--runs", "1") as command, opened(launch(*SOFTWARE_GPU), command) as page:
        wait_for(page, "#rows tr:last-child .pass, #rows tr:last-child .fail")
        assert page.is_hidden("#problem"), page.inner_text("#problem")
        checks = [row.inner_text() for row in page.query_selector_all("#rows tr")]
        assert len([text for text in checks if "WebGPU" in text and "pass" in text]) == 4, checks


def test_pixels_are_those_of_the_exporter(bundle: Path, launch: Callable[..., Any]) -> None:
    pictures = [open_image(path, path.name) for path in sorted((bundle / "self_check").glob("*.png"))]
    random = np.random.default_rng(0)
    for height, width in ((224, 224), (256, 256), (33, 50), (701, 400), (1500, 2213), (257, 5000)):
        pictures.append(Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)))
    hows = [spec_from_table(dict(read_bundle(bundle).document["model"])).preprocess]
    hows.append(Preprocess(146, 128, "bicubic", hows[0].mean, hows[0].std))
    script = """async ([data, how, layout, limits]) => {
      const { readPhoto, feed } = await import("/page/pixels.js");
      const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
      const pixels = await readPhoto(new Blob([bytes], { type: "image/png" }), how, limits);
      const values = feed(pixels, { type: "float32", layout }, how);
      const raw = new Uint8Array(values.buffer);
      let text = "";
      for (let at = 0; at < raw.length; at += 8192) text += String.fromCharCode(...raw.subarray(at, at + 8192));
      return btoa(text);
    }"""
    limits = {"most_pixels": 10**8, "shortest_side_px": 32, "largest_aspect_ratio": 20}
    with phone(bundle) as command, opened(launch(), command, f"{command.origin}/#idle") as page:
        for how in hows:
            table = {"resize_px": how.resize_px, "crop_px": how.crop_px, "interpolation": how.interpolation}
            table |= {"mean": list(how.mean), "std": list(how.std)}
            for picture in pictures:
                data = base64.b64encode(png(picture)).decode()
                wanted = preprocess(picture, how)
                for layout in ("NCHW", "NHWC"):
                    found = np.frombuffer(
                        base64.b64decode(page.evaluate(script, [data, table, layout, limits])), "<f4"
                    )
                    target = wanted if layout == "NCHW" else wanted.transpose(1, 2, 0)
                    assert np.array_equal(found.reshape(target.shape), target), (picture.size, how, layout)


def test_what_is_no_photo_gets_one_clear_sentence(bundle: Path, launch: Callable[..., Any]) -> None:
    huge = png(Image.new("1", (10_000, 10_000)))
    clear = png(Image.new("RGBA", (64, 64), (1, 2, 3, 128)))
    sentences = {
        b"no picture": "This file is not a picture that this browser can read.",
        huge: "This photo has 100 million pixels; 89 million are the most: scale it down first.",
        png(
            Image.new("RGB", (20, 300))
        ): "This picture is 20×300 px; its short side has to be 32 px at least.",
        clear: "This picture is partly transparent: flatten it first.",
    }
    with phone(bundle) as command, opened(launch(), command) as page:
        page.wait_for_selector("#photo:enabled", state="attached", timeout=LONGEST_MS)
        for data, sentence in sentences.items():
            choose(page, data, "photo.jpg")
            page.wait_for_function(
                "text => document.getElementById('photo-problem').textContent === text", arg=sentence
            )
            assert page.is_visible("#photo-problem")
            assert page.is_hidden("#answer")


def test_the_page_can_be_used_with_keys_alone_and_names_what_it_shows(
    bundle: Path, launch: Callable[..., Any]
) -> None:
    with phone(bundle) as command, opened(launch(), command, is_mobile=False, has_touch=False) as page:
        measured(page)
        reached = []
        for _ in range(8):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.id"))
        assert [one for one in reached if one][:3] == ["again", "model", "photo"]  # the camera needs https
        assert page.get_by_role("table", name="Every file in every runtime of this browser").is_visible()
        assert page.get_by_label("Model file").is_visible()
        assert page.get_by_role("button", name="Measure again").is_visible()


def test_a_wrong_token_is_told(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle) as command, opened(launch(), command, f"{command.origin}/#wrong") as page:
        wait_for(page, "#problem")
        assert "scan the code again" in page.inner_text("#problem")


def test_a_page_of_another_name_gets_a_refusal(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle, "--host", "127.0.0.1") as command:
        other = command.url.replace("127.0.0.1", "other.example")
        with opened(launch(), command, other) as page:
            assert "this page is not at other.example" in page.inner_text("body")


def test_a_killed_tab_and_a_second_phone_disturb_nothing(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle) as command:
        with opened(launch(), command) as killed:
            wait_for(killed, "#rows .pass")
        with opened(launch(), command) as first, opened(launch(), command) as second:
            assert measured(first).keys() == measured(second).keys()
        command.process.send_signal(signal.SIGINT)
        code, out, talk = command.end()
    assert code == 0
    assert out.count("← fastest") == 2
    names = re.findall(r"report of (\S+):", talk)
    assert len(set(names)) == 2
    assert all((bundle / "devices" / f"{name}.json").is_file() for name in names)


def test_a_phone_that_sleeps_measures_again(bundle: Path, launch: Callable[..., Any]) -> None:
    hide = """hidden => {
      const value = hidden ? "hidden" : "visible";
      Object.defineProperty(document, "visibilityState", { value, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    with phone(bundle, "--once") as command:
        with opened(launch(), command) as page:
            page.wait_for_function(
                "() => document.getElementById('status').textContent.startsWith('Measuring')",
                timeout=LONGEST_MS,
            )
            page.evaluate(hide, True)
            page.wait_for_timeout(1500)
            assert page.is_hidden("#again")
            page.evaluate(hide, False)
            measured(page)
            assert "measured again, as the page was hidden or the phone slept" in page.inner_text("#notes")
        assert command.end()[0] == 0


def test_a_browser_without_simd_is_told_so(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle) as command:
        context = launch().new_context()
        context.add_init_script("WebAssembly.validate = () => false")
        page = context.new_page()
        page.goto(command.url)
        wait_for(page, "#problem")
        assert "no WebAssembly SIMD" in page.inner_text("#problem")
        context.close()


def test_a_server_that_is_gone_is_told(bundle: Path, launch: Callable[..., Any]) -> None:
    with phone(bundle) as command, opened(launch(), command) as page:
        measured(page)
        command.process.kill()
        command.process.wait()
        page.click("#again")
        page.wait_for_selector("#problem:not([hidden])", timeout=LONGEST_MS)
        assert "does not answer any more" in page.inner_text("#problem")
