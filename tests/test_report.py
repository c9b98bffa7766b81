# ruff: noqa: F811 (the fixture is imported)
"""`report.html`: what it says, that nothing gets into it unescaped, and what `mnx report` and `bench --keep` do."""

import dataclasses
import hashlib
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_IMAGES, Exported
from test_cli import Printed, mnx  # noqa: F401 (a fixture)

from mobilenet_export import images
from mobilenet_export.architectures.dissect import dissect, trainable
from mobilenet_export.bundle import CALIBRATION, DOCUMENT, LAYERS, REPORT, RESULTS, read_bundle
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.deployment.parcel import pack
from mobilenet_export.html_report.figures import Series, legend
from mobilenet_export.html_report.holdings import read_holdings
from mobilenet_export.html_report.markup import tag, text
from mobilenet_export.html_report.spelling import two_digits
from mobilenet_export.pipeline import ExportRequest, export
from mobilenet_export.pipeline.layer_curve import CURVE_IMAGES, measure_curve
from mobilenet_export.pipeline.report import render
from mobilenet_export.report import (
    DriftReport,
    DriftRow,
    Referee,
    curve_from_json,
    drift_from_json,
)
from mobilenet_export.runtimes import runtime
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import find_spec, resize_spec

Mnx = Callable[..., Printed]
HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{a", "a & b", "\u202edrac")
CLASSES = 12


def request_for(out: Path, **changes: Any) -> ExportRequest:
    spec = resize_spec(find_spec("v2"), 0.25, 96, CLASSES)
    request = ExportRequest(spec, out, ("fp32", "int8"), ("onnx", "tflite"), FEW_IMAGES, weights="none")
    return dataclasses.replace(request, **changes)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose class names are hostile."""
    folder = tmp_path_factory.mktemp("report")
    labels = folder / "labels.txt"
    labels.write_text("\n".join([*HOSTILE, *(f"class {i}" for i in range(len(HOSTILE), CLASSES))]) + "\n")
    export(request_for(folder / "bundle", labels=labels))
    return folder / "bundle"


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def page_of(folder: Path) -> str:
    return render(read_bundle(folder)).html


def device_report(name: str, runtime: str = "onnxruntime", file: str = "x_int8.onnx") -> dict[str, Any]:
    """A report as `mnx deploy` keeps it."""
    machine = {"system": "Linux", "architecture": "aarch64", "board": "Pi <5>", "cpu": "A76", "cores": 4}
    row = {"file": file, "precision": "int8", "runtime": runtime, "provider": "CPU", "threads": 2, "batch": 1}
    times = {"p50_ms": 3.0, "p90_ms": 5.0, "ratio": 1.0, "rounds_ms": [[1.0, 2.0, 3.0], [4.0, 5.0]]}
    check_row = {
        "file": file,
        "runtime": runtime,
        "provider": "CPU",
        "verdict": "pass",
        "detail": "bit-equal",
    }
    check = {"kind": "check", "verdict": "pass", "machine": machine, "rows": [check_row], "failures": []}
    latency = {"kind": "latency", "machine": machine, "rows": [row | times], "notes": ["a <note>"]}
    return {"host": name, "verdict": "pass", "check": check, "latency": latency}


def keep(bundle: Path, document: object, name: str = "pi.json") -> None:
    (bundle / RESULTS).mkdir(exist_ok=True)
    (bundle / RESULTS / name).write_text(json.dumps(document))


class Page(HTMLParser):
    """What a page is made of; raises where an element is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in ("img", "meta", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words).replace("\N{NO-BREAK SPACE}", " ")

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


# The page


def test_the_report_is_a_function_of_the_folder_and_not_of_its_name(written: Path, bundle: Path) -> None:
    assert (written / REPORT).read_bytes() == page_of(written).encode() == page_of(bundle).encode()
    assert str(written) not in page_of(written)
    assert not re.search(r"20[2-9]\d-\d\d-\d\d", page_of(written))


def test_a_page_needs_nothing_beside_it(bundle: Path) -> None:
    keep(bundle, device_report("pi"))
    page = Page(page_of(bundle))
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    sources = [attributes["src"] for _, attributes in page.tags if "src" in attributes]
    assert len(sources) == 5
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    links = [
        value for _, attributes in page.tags for key, value in attributes.items() if key.endswith("href")
    ]
    assert all(link.startswith("#") for link in links)
    assert "url(http" not in page_of(bundle)
    (policy,) = [one["content"] for one in page.all("meta") if one.get("http-equiv")]
    assert policy.startswith("default-src 'none'")


def test_a_page_can_be_read_without_seeing_it(bundle: Path) -> None:
    keep(bundle, device_report("pi"))
    page = Page(page_of(bundle))
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in page.all("svg"))
    assert {"caption", "thead", "h1", "h2", "h3", "figcaption", "main", "nav"} <= {
        tag for tag, _ in page.tags
    }
    assert {head["scope"] for head in page.all("th")} == {"col", "row"}
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(names)) == len(names)
    targets = {a["href"][1:] for a in page.all("a")} | {s["aria-labelledby"] for s in page.all("section")}
    assert targets <= set(names)


def test_what_a_bundle_and_devices_say_is_escaped(bundle: Path) -> None:
    keep(bundle, device_report('<b onload="x">', "$\\frac{<i>\u0007", "<u>.onnx"))
    html = page_of(bundle)
    assert "<script" not in html
    assert "onerror=alert" not in re.sub(r"&[a-z]+;.*?<", "<", html)
    for wrong in ('<b onload="x">', "<i>\u0007", "<u>", "<5>", "<note>", "\u202e"):
        assert wrong not in html
    shown = Page(html).text
    for right in ('<b onload="x">', "$\\frac{<i>", "<u>.onnx", "Pi <5>", "a <note>"):
        assert right in shown


def test_every_label_that_is_shown_is_escaped(bundle: Path) -> None:
    held = read_holdings(read_bundle(bundle))
    best = {int(place) for answers in held.answers for place in np.argsort(-answers.shares)[:, :5].ravel()}
    shown = Page(page_of(bundle)).text
    for place in best:
        assert held.labels[place].replace("\u202e", "") in shown
    assert best & set(range(len(HOSTILE))), "no hostile label is among the best five: take another seed"


def test_figures_say_how_many_images_they_are_of(written: Path) -> None:
    shown = Page((written / REPORT).read_text()).text
    drift = json.loads((written / DOCUMENT).read_text())["drift"]
    assert f"Share of the {drift['images']} images whose best class is the original's" in shown
    assert f"where all {drift['images']} agree, the 95 % interval of the share begins at 67.6 %" in shown
    assert f"summed over {drift['images']} images and {CLASSES} classes" in shown
    assert "int8 logits of the first 8 images" in shown
    assert "Top-1 dropNot measured: it needs photos with labels" in shown
    row = drift["rows"][0]
    assert f"{row['agreement_percent']:.1f} % 8/8" in shown


def test_int8_that_nothing_judges_is_not_called_good(bundle: Path) -> None:
    assert "every limit is met; no limit is known for int8 of this network" in page_of(bundle)
    document = json.loads((bundle / DOCUMENT).read_text())
    document["model"]["limits"]["int8_sqnr_db"] = 1.0
    (bundle / DOCUMENT).write_text(json.dumps(document))
    assert "Drift check: every limit is met.<" in page_of(bundle)


def test_a_labelled_drift_shows_the_drop_with_its_interval(bundle: Path) -> None:
    document = json.loads((bundle / DOCUMENT).read_text())
    document["drift"] |= {"labelled": 8, "reference_top1_percent": 75.0}
    for row in document["drift"]["rows"]:
        row |= {"top1_percent": 62.5, "top1_drop_points": 12.5, "top1_drop_interval_points": [-3.0, 40.0]}
    (bundle / DOCUMENT).write_text(json.dumps(document))
    shown = Page(page_of(bundle)).text
    assert "+12.50, −3.00 … +40.00" in shown
    assert "top-1 accuracy on 8 labelled images, 75.00 %" in shown


def test_decisions_recipe_versions_and_hashes_are_there(written: Path) -> None:
    document = json.loads((written / DOCUMENT).read_text())
    shown = Page((written / REPORT).read_text()).text
    assert document["decisions"]
    for decision in document["decisions"]:
        gain = f"{decision['after_db'] - decision['before_db']:+.2f}".replace("-", "−")
        words = decision["step"].replace("_", " "), gain, "kept" if decision["kept"] else "left out"
        assert all(word in shown for word in words)
    for name in ("torch", "onnxruntime", "ai-edge-litert"):
        assert f"{name} {document['versions'][name]}" in shown
    for entry in [*document["files"], *document["parts"]]:
        assert entry["sha256"] in shown
        assert entry["path"] in shown
    assert document["calibration"]["sha256"] in shown
    for knob, value in document["recipe"].items():
        assert (f"{knob}{value}" if knob not in ("name", "summary") else value) in shown


def test_without_devices_the_page_says_how_to_measure(written: Path) -> None:
    shown = Page((written / REPORT).read_text()).text
    assert "Nothing is measured yet. mnx bench FOLDER --keep measures on this computer" in shown


def test_a_device_is_shown_with_its_samples(bundle: Path) -> None:
    name = "mobilenet_v2_025_96_int8.onnx"
    keep(bundle, device_report("pi", file=name))
    html = page_of(bundle)
    shown = Page(html).text
    assert "int8 ONNX, onnxruntime CPU, 2 threads: 3.00 ms" in html  # of the figure's description
    assert f"{name}onnxruntime CPU23.005.005.001.005" in shown
    assert "Self-check there: pass, 1 files and runtimes" in shown
    assert "Pi <5>, A76, aarch64, Linux, 4 cores" in shown


def test_a_device_that_measured_nothing_is_named(bundle: Path) -> None:
    keep(bundle, {"host": "far", "verdict": "error", "check": None, "latency": None})
    assert "No latency was measured; it ended in: error." in Page(page_of(bundle)).text


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(device_report("pi") | {"latency": {"rows": 3}}).encode(),
        json.dumps(device_report("pi")).replace("[4.0, 5.0]", "[4.0, NaN]").encode(),
        json.dumps(device_report("pi")).replace("[1.0, 2.0, 3.0], [4.0, 5.0]", "").encode(),
        json.dumps(device_report("pi")).replace('"host": "pi"', '"host": null').encode(),
    ],
)
def test_a_damaged_report_of_a_device_is_left_out_and_named(bundle: Path, damage: bytes, mnx: Mnx) -> None:
    keep(bundle, device_report("good"), "good.json")
    (bundle / RESULTS / "bad.json").write_bytes(damage)
    printed = mnx("report", bundle)
    assert printed.code == 0
    assert printed.out == f"{bundle / REPORT}\n"
    line = "devices/bad.json cannot be read"
    assert f"left out: {line}" in printed.err
    shown = Page((bundle / REPORT).read_text()).text
    assert f"Left out: {line}" in shown
    assert "good" in shown


# Calibration images


def test_only_shipped_images_are_shown_unless_asked_for(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in sorted(shipped_path("calibration", "default").glob("*.jpg"))[:20]:
        shutil.copy(path, photos)
    for name, asked in (("private", False), ("shown", True)):
        export(request_for(tmp_path / name, calibration=photos, thumbnails=asked))
        assert (tmp_path / name / CALIBRATION).is_file() == asked
        html = (tmp_path / name / REPORT).read_text()
        assert ("No thumbnails" in html) != asked
        assert html.count("data:image/jpeg") == 4 + asked


def test_fp32_alone_shows_no_calibration_and_no_layers(tmp_path: Path) -> None:
    export(request_for(tmp_path / "b", precisions=("fp32",)))
    assert not (tmp_path / "b" / CALIBRATION).exists()
    assert not (tmp_path / "b" / LAYERS).exists()
    shown = Page((tmp_path / "b" / REPORT).read_text()).text
    assert "Nothing was calibrated" in shown
    assert "No int8 file, so no layer loses anything" in shown


def test_thumbnails_without_calibration_are_refused(mnx: Mnx) -> None:
    printed = mnx("export", "--arch", "v2", "--int8", "--thumbnails")
    assert printed.code == 2
    assert printed.error == "--thumbnails is of your own images"


# Layers


def test_the_curve_is_of_all_layers_and_ends_at_the_logits(small: Exported) -> None:
    seen = []
    _, check = images.default_set()
    int8 = tuple(artifact for artifact in small.artifacts if artifact.precision == "int8")
    curve = measure_curve(small.source, small.quantized, int8, check, seen.append)
    assert sum(seen) == curve.images == CURVE_IMAGES
    assert [layer.layer for layer in curve.layers] == list(small.quantized.tensors)
    assert curve.layers[0].kind == "input"
    assert set(curve.files) == {"onnxruntime", "litert"}
    assert curve_from_json(json.loads(json.dumps(curve.to_json()))) == curve
    few = check.subset(check.names[:CURVE_IMAGES])
    ((_, batch),) = images.batches(few, small.source.spec.preprocess, CURVE_IMAGES)
    truth = np.concatenate([one[small.graph.logits] for one in watch(small.pixel_graph, [batch])])
    for name, form in (("onnxruntime", "onnx"), ("litert", "tflite")):
        found = runtime(name).open(small.artifact(form, "int8")).run(batch)
        assert curve.layers[-1].sqnr_db[name] == pytest.approx(sqnr_db(truth, found), abs=0.02)


def test_lines_that_lie_on_each_other_are_told_apart() -> None:
    one = Series("one", ((0, 20.0), (1, 21.0)))
    near, far = dataclasses.replace(one, name="near"), Series("far", ((0, 30.0), (1, 9.0)))
    assert [m["class"] for m in Page(legend([one, far, near])).all("span")] == [
        "mark one pale", "mark two", "mark three"
    ]  # fmt: skip


def test_a_bundle_without_layers_says_so(bundle: Path) -> None:
    (bundle / LAYERS).unlink()
    document = json.loads((bundle / DOCUMENT).read_text())
    document["parts"] = [part for part in document["parts"] if part["path"] != LAYERS]
    (bundle / DOCUMENT).write_text(json.dumps(document))
    assert "kept no figures of layers: export it again" in Page(page_of(bundle)).text


# Values


def test_drift_is_read_back_as_it_was() -> None:
    referee = Referee(2, 63.5, 8)
    row = DriftRow(
        "a", "onnx", "int8", "litert", "CPU", 70.0, 90.0, 1.5, (-1.0, 4.0), 97.5, 24.5, 0.99, 1.5, 0.25
    )
    equal = dataclasses.replace(row, sqnr_db=math.inf, max_abs=0.0, top1_percent=None, referee=referee)
    broken = dataclasses.replace(row, sqnr_db=-math.inf, max_abs=math.inf, kl=math.inf)
    report = DriftReport("torch", "photos", 40, 20, 71.5, (row, equal, broken), ("f",), ("d",), ("w",))
    assert drift_from_json(json.loads(json.dumps(report.to_json()))) == report


def test_markup_escapes_and_keeps_units_on_their_line() -> None:
    assert text('<&">') == "&lt;&amp;&quot;&gt;"
    assert (
        text("95 % of 3 MB in 2 ms")
        == "95\N{NO-BREAK SPACE}% of 3\N{NO-BREAK SPACE}MB in 2\N{NO-BREAK SPACE}ms"
    )
    assert tag("a", text("x"), href='"><b') == '<a href="&quot;&gt;&lt;b">x</a>'
    assert text("a\ud800\u0000b") == "ab"
    assert [two_digits(x) for x in (0, 1.1, 0.0039, 0.000017)] == ["0", "1.1", "0.0039", "1.7·10⁻⁵"]


# What does not leave, and what is kept


def test_devices_get_no_report(bundle: Path) -> None:
    keep(bundle, device_report("pi"))
    sent = {item.path for item in pack(read_bundle(bundle), ("onnx",)).items}
    assert not sent & {REPORT, LAYERS, CALIBRATION}
    assert not any(name.startswith(RESULTS) for name in sent)
    assert "self_check/expected.json" in sent


def test_bench_keeps_its_samples_where_the_report_finds_them(bundle: Path, mnx: Mnx) -> None:
    printed = mnx("bench", bundle, "--keep", "--runs", 7, "--runtime", "onnxruntime")
    assert printed.code == 0, printed.err
    (path,) = (bundle / RESULTS).iterdir()
    assert f"kept {path}" in printed.err
    assert f"next: mnx report {bundle}" in printed.err
    document = json.loads(path.read_text())
    assert document["verdict"] == "measured"
    assert document["host"] == path.stem
    assert mnx("report", bundle).code == 0
    shown = Page((bundle / REPORT).read_text()).text
    assert path.stem in shown
    samples = sum(map(len, document["latency"]["rows"][0]["rounds_ms"]))
    assert f"{samples} inferences of each" in shown


@pytest.mark.parametrize("count", [0, 2])
def test_bench_keeps_samples_of_one_bundle_only(written: Path, mnx: Mnx, count: int) -> None:
    targets = [written, written] if count else [written / "mobilenet_v2_025_96_fp32.onnx"]
    printed = mnx("bench", *targets, "--keep")
    assert printed.code == 2
    assert printed.error == "--keep is of one bundle, and nothing beside it"


# The command


def test_report_writes_each_bundle_anew(bundle: Path, written: Path, tmp_path: Path, mnx: Mnx) -> None:
    other = Path(shutil.copytree(written, tmp_path / "other"))
    (bundle / REPORT).write_text("old")
    (other / REPORT).unlink()
    printed = mnx("report", bundle, other)
    assert printed.out == f"{bundle / REPORT}\n{other / REPORT}\n"
    assert f"next: open {bundle / REPORT} in a browser" in printed.err
    assert (bundle / REPORT).read_bytes() == (other / REPORT).read_bytes() == (written / REPORT).read_bytes()
    assert {path.name for path in bundle.iterdir()} == {path.name for path in written.iterdir()}


def test_several_bundles_are_compared_on_one_page(
    bundle: Path, written: Path, tmp_path: Path, mnx: Mnx
) -> None:
    fp32 = export(request_for(tmp_path / "only <fp32>", precisions=("fp32",))).bundle.folder
    keep(bundle, device_report("pi", file="mobilenet_v2_025_96_int8.onnx"))
    pages = [tmp_path / name for name in ("one.html", "two.html")]
    for out in pages:
        assert mnx("report", bundle, written, fp32, "--compare", "--out", out).code == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()
    assert "<fp32>" not in pages[0].read_text()
    page = Page(pages[0].read_text())
    assert "3 bundles side by side" in page.text
    spec = read_bundle(bundle).spec()
    for words in (
        "Parameters" + 3 * f"{trainable(spec) / 1e6:.2f} M",
        "Multiply-adds" + 3 * f"{dissect(spec).macs / 1e6:.2f} M",
        "copybundleonly <fp32>",
        "int8 ONNX in onnxruntime",
        "copy: int8 ONNX",
        "bias correction",
    ):
        assert words in page.text


def test_names_of_folders_that_are_alike_are_told_apart(
    bundle: Path, written: Path, tmp_path: Path, mnx: Mnx
) -> None:
    twin = Path(shutil.copytree(written, tmp_path / "deeper" / "copy"))
    assert mnx("report", bundle, twin, "--compare", "--out", "both.html").code == 0
    assert str(twin) in Path("both.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["nowhere"], "nowhere is not a bundle: it has no mnx.json", "mnx export"),
        (["{bundle}", "--compare", "--out", "x.html"], "--compare needs two bundles or more", "another"),
        (["{bundle}", "{bundle}/../copy", "--compare"], "a bundle is named twice", "another"),
        (["{bundle}", "{written}", "--compare"], "--compare writes a page of no bundle's own", "--out"),
        (["{bundle}", "{written}", "--out", "x.html"], "--out is one page", "--compare"),
        (["{bundle}", "--out", "no/x.html"], "--out no/x.html: no such folder", "folder"),
        (["{bundle}", "--out", "{bundle}"], "is a folder", "FILE.html"),
        (["{bundle}", "--out", "{bundle}/mnx.json", "--force"], "not the name of a page", "FILE.html"),
        (["{bundle}", "--out", "{bundle}/report.html"], "report.html exists", "--force"),
        ([], "Missing argument", "--help"),
    ],
)
def test_a_wrong_request_is_refused(
    bundle: Path,
    written: Path,
    mnx: Mnx,
    arguments: list[str],
    message: str,
    hint: str,
) -> None:
    printed = mnx("report", *(one.format(bundle=bundle, written=written) for one in arguments))
    assert printed.code == 2
    assert message in printed.error
    assert hint in printed.hint


def damage(bundle: Path, *path: object) -> None:
    """Put something of another kind into the document at a place."""
    document = json.loads((bundle / DOCUMENT).read_text())
    *way, last = path
    place = document
    for step in way:
        place = place[step]
    place[last] = {"no": ["thing"]}
    (bundle / DOCUMENT).write_text(json.dumps(document))


@pytest.mark.parametrize(
    "path",
    [
        ("drift",), ("drift", "rows"), ("drift", "images"), ("drift", "rows", 0, "kl"), ("drift", "verdict"),
        ("model",), ("model", "parameters"), ("decisions",), ("decisions", 0, "before_db"), ("recipe",),
        ("calibration",), ("calibration", "images"), ("versions",), ("preprocessing",), ("self_check",),
        ("self_check", 0, "image"), ("parts",), ("parts", 0, "sha256"), ("files", 0, "bytes"),
        ("files", 0, "input"), ("files", 0, "precision"), ("source", "origin"), ("drift", "rows", 2, "referee"),
    ],
)  # fmt: skip
def test_a_damaged_document_is_one_line_that_names_it(
    bundle: Path, mnx: Mnx, path: tuple[object, ...]
) -> None:
    damage(bundle, *path)
    printed = mnx("report", bundle)
    if printed.code == 0:  # what is shown as it is, or not read at all
        assert path in {
            ("recipe",),
            ("versions",),
            ("preprocessing",),
            ("source", "origin"),
            ("drift", "verdict"),
        }
        Page((bundle / REPORT).read_text())
        return
    assert printed.code == 4
    assert str(bundle) in printed.error
    assert (bundle / REPORT).is_file()


@pytest.mark.parametrize("name", ["self_check/expected.json", LAYERS, CALIBRATION, "labels.txt"])
def test_a_part_that_changed_is_named(bundle: Path, mnx: Mnx, name: str) -> None:
    (bundle / name).write_text("{}")
    printed = mnx("report", bundle)
    assert printed.code == 4
    assert name in printed.error


@pytest.mark.parametrize("name", ["self_check/expected.json", LAYERS])
def test_a_part_that_is_not_what_it_was_is_named_though_its_hash_fits(
    bundle: Path, mnx: Mnx, name: str
) -> None:
    (bundle / name).write_text("{}")
    document = json.loads((bundle / DOCUMENT).read_text())
    for part in document["parts"]:
        part["sha256"] = hashlib.sha256((bundle / part["path"]).read_bytes()).hexdigest()
    (bundle / DOCUMENT).write_text(json.dumps(document))
    printed = mnx("report", bundle)
    assert printed.code == 4
    assert str(bundle / name) in printed.error


def test_a_missing_model_file_is_named(bundle: Path, mnx: Mnx) -> None:
    (bundle / "mobilenet_v2_025_96_int8.onnx").unlink()
    printed = mnx("report", bundle)
    assert printed.code == 4
    assert "mobilenet_v2_025_96_int8.onnx: listed in mnx.json but not there" in printed.error


def test_a_place_that_cannot_be_written_is_said(bundle: Path, mnx: Mnx) -> None:
    (bundle / REPORT).unlink()
    (bundle / REPORT).mkdir()
    printed = mnx("report", bundle)
    assert printed.code == 3
    assert f"cannot write {bundle / REPORT}" in printed.error
    assert not list(bundle.glob("tmp*"))


def test_without_matplotlib_nothing_is_begun(
    bundle: Path,
    mnx: Mnx,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for arguments in (
        ["report", bundle],
        ["export", "--arch", "v2"],
        ["export", "--arch", "v2", "--dry-run"],
    ):
        printed = mnx(*arguments)
        assert printed.code == 3
        assert printed.error == "matplotlib is not installed"
        assert printed.hint == "pip install 'mobilenet-export[export]'"
