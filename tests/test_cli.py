"""The command line: what is on stdout and stderr, the JSON documents, and every bad input end to end."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from conftest import Exported
from onnx import helper
from PIL import Image

from mobilenet_export import __version__, cli
from mobilenet_export.architectures import build
from mobilenet_export.errors import ExitCode
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import find_spec, resize_spec

CLASSES = 12
SMALL = ["--arch", "v2", "--width", "0.25", "--resolution", "96"]


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error line, once the form of the whole has been checked."""
        *_, error, hint = self.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert len(hint) > len("hint: ")
        assert [line.startswith("error: ") for line in self.err.splitlines()].count(True) == 1
        assert "Traceback" not in self.err
        assert not self.out
        return error.removeprefix("error: ")

    @property
    def hint(self) -> str:
        return self.err.splitlines()[-1].removeprefix("hint: ")


@pytest.fixture
def mnx(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Printed]:
    """Run `mnx` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Printed:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return Printed(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network, well-conditioned enough to quantize."""
    from mobilenet_export.architectures.initialize import initialize  # noqa: PLC0415

    module = build(resize_spec(find_spec("v2"), 0.25, 96, CLASSES))
    initialize(module, 3)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    safetensors.torch.save_file(module.state_dict(), path)
    return path


@pytest.fixture
def own(checkpoint: Path) -> list[object]:
    """Arguments that name the small network with its checkpoint."""
    return [*SMALL, "--classes", CLASSES, "--checkpoint", checkpoint]


def mnx_process(*arguments: object, cwd: Path) -> Printed:
    command = [str(Path(sys.executable).parent / "mnx"), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    return Printed(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> tuple[Path, Printed]:
    """A whole export in a process of its own, and the folder that it ran in."""
    folder = tmp_path_factory.mktemp("cli")
    options = [*SMALL, "--classes", CLASSES, "--checkpoint", checkpoint, "--int8", "--fp16", "--json"]
    return folder, mnx_process("export", *options, cwd=folder)


@pytest.fixture
def bundle(exported: tuple[Path, Printed]) -> Path:
    return exported[0] / "mobilenet_v2_025_96"


# Help


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["export"],
        ["validate"],
        ["analyze"],
        ["models"],
        ["inspect"],
        ["compat"],
        ["recipes"],
        ["deploy"],
        ["bench"],
        ["doctor"],
        ["calibration"],
        ["calibration", "lint"],
        ["calibration", "synth"],
    ],
)
def test_every_command_has_a_help(command: list[str], mnx: Callable[..., Printed]) -> None:
    printed = mnx(*command, "--help")
    assert printed.code == 0
    assert "Usage:" in printed.out
    assert not printed.err


def test_usage_lines_show_arguments_as_they_are_called(mnx: Callable[..., Printed]) -> None:
    names = {
        "analyze": "BUNDLE",
        "bench": "BUNDLE|FILE…",
        "compat": "BUNDLE|FILE…",
        "deploy": "HOST… BUNDLE",
        "export": "[MODEL]",
        "pick": "[BUNDLE…]",
        "report": "BUNDLE…",
        "validate": "BUNDLE|FILE…",
    }
    for command, name in names.items():
        first = mnx(command, "--help").out.splitlines()[0]
        assert first == f"Usage: mnx {command} [OPTIONS] {name}".rstrip()


def test_the_help_lists_every_option_of_the_issue(
    mnx: Callable[..., Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    export = mnx("export", "--help").out
    for option in (
        "--arch", "--width", "--resolution", "--classes", "--checkpoint", "--weights", "--int8", "--fp16",
        "--formats", "--calibration", "--recipe", "--out", "--labels", "--force", "--json", "--dry-run", "--io",
        "--no-cache",
    ):  # fmt: skip
        assert option in export
    validate = mnx("validate", "--help").out
    for option in (
        "--data",
        "--labels",
        "--runtime",
        "--limit",
        "--max-drop",
        "--min-agreement",
        "--min-sqnr",
        "--json",
    ):
        assert option in validate
    analyze = mnx("analyze", "--help").out
    for option in ("--data", "--limit", "--checkpoint", "--top", "--plot", "--json", "Examples:"):
        assert option in analyze


def test_every_exit_code_is_in_the_help() -> None:
    for code in (0, 1, 2, 3, 4, 70, 130):
        assert code in set(ExitCode)
        assert f" {code} " in cli.EPILOG


def test_the_version_is_printed(mnx: Callable[..., Printed]) -> None:
    assert mnx("--version") == Printed(0, f"mnx {__version__}\n", "")


def test_help_in_a_process_of_its_own_imports_nothing_heavy(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-c",
        "from mobilenet_export.cli import main; main()",
        "--help",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "onnxruntime", "numpy", "onnx", "PIL", "ai_edge_litert"}


# Models


def test_models_lists_every_variant(mnx: Callable[..., Printed]) -> None:
    printed = mnx("models")
    assert printed.code == 0
    assert "v1 or mobilenet_v1_100_224" in printed.out
    assert "3.5 M" in printed.out
    assert "71.9 %" in printed.out
    assert "BSD-3-Clause" in printed.out
    for name in ("mobilenet_v1_tutorial", "mobilenet_v2_tutorial", "mobilenet_v2_tutorial_as_coded"):
        assert f"{name}: " in printed.out


def test_models_as_json(mnx: Callable[..., Printed]) -> None:
    found = {model["name"]: model for model in json.loads(mnx("models", "--json").out)}
    assert found["mobilenet_v2_100_224"]["parameters"] == 3504872
    assert found["mobilenet_v2_100_224"]["weights"]["licence"] == "BSD-3-Clause"
    assert len(found) == len(list(shipped_path("models").glob("*.toml")))


# Export

ROW = {
    "file", "format", "precision", "runtime", "provider", "top1_percent", "top5_percent", "top1_drop_points",
    "top1_drop_interval_points", "agreement_percent", "sqnr_db", "cosine", "max_abs", "kl", "referee",
}  # fmt: skip


def test_export_prints_one_json_document_and_talks_on_stderr(exported: tuple[Path, Printed]) -> None:
    folder, printed = exported
    document = json.loads(printed.out)
    assert set(document) == {"bundle", "files", "drift", "seconds", "warnings"}
    assert document["warnings"] == []
    assert document["bundle"] == "mobilenet_v2_025_96"
    assert len(document["files"]) == 8
    for entry in document["files"]:
        assert set(entry) == {"path", "format", "precision", "bytes", "sha256"}
        assert (folder / entry["path"]).stat().st_size == entry["bytes"]
    assert {"images", "labelled", "reference", "rows", "verdict"} <= set(document["drift"])
    assert all(set(row) == ROW for row in document["drift"]["rows"])
    pairs = {(row["file"], row["runtime"]) for row in document["drift"]["rows"]}
    assert {runtime for _, runtime in pairs} >= {"onnxruntime", "litert"}
    assert {Path(entry["path"]).name for entry in document["files"]} == {file for file, _ in pairs}
    for stage in ("capture", "quantize", "check drift", "write the bundle"):
        assert document["seconds"][stage] >= 0
        assert any(line.startswith(stage) for line in printed.err.splitlines())


def test_export_ends_in_1_exactly_where_a_limit_is_not_met(exported: tuple[Path, Printed]) -> None:
    printed = exported[1]
    drift = json.loads(printed.out)["drift"]
    assert printed.code == (1 if drift["verdict"] == "fail" else 0)
    assert drift["verdict"] == ("fail" if drift["failures"] else "pass")
    for failure in drift["failures"]:
        assert f"failed: {failure}" in printed.err


def test_export_shows_a_table_and_the_next_command(own: list[object], mnx: Callable[..., Printed]) -> None:
    printed = mnx("export", *own, "--formats", "onnx", "--out", "made")
    assert printed.code == 0
    assert "made/" in printed.out
    assert "mobilenet_v2_025_96_fp32.onnx" in printed.out
    assert "sha256" in printed.out
    assert "onnxruntime" in printed.out
    assert "tflite" not in printed.out
    assert "next: mnx validate made --checkpoint" in printed.err


def test_a_dry_run_writes_nothing_and_lists_the_files(own: list[object], mnx: Callable[..., Printed]) -> None:
    printed = mnx("export", *own, "--int8", "--fp16", "--io", "uint8", "--dry-run", "--json")
    assert printed.code == 0
    plan = json.loads(printed.out)
    assert "mobilenet_v2_025_96_int8_io_uint8.tflite" in plan["files"]
    assert "mobilenet_v2_025_96_fp32_io_uint8.onnx" in plan["files"]
    assert len(plan["files"]) == 6
    assert list(Path().iterdir()) == []
    assert "would export mobilenet_v2_025_96" in mnx("export", *own, "--dry-run").out
    assert list(Path().iterdir()) == []


def test_force_replaces_the_bundle_and_nothing_less_does(
    own: list[object], bundle: Path, mnx: Callable[..., Printed]
) -> None:
    arguments = ["export", *own, "--formats", "onnx", "--out", "made"]
    assert mnx(*arguments).code == 0
    first = Path("made/mnx.json").read_bytes()
    printed = mnx(*arguments)
    assert printed.code == 2
    assert printed.error == "made exists"
    assert "--force" in printed.hint
    assert mnx(*arguments, "--force").code == 0
    assert Path("made/mnx.json").read_bytes() == first


def test_a_users_own_onnx_is_exported_and_validated(small_v2: Exported, mnx: Callable[..., Printed]) -> None:
    Path("mine.onnx").write_bytes(small_v2.artifact("onnx", "fp32").data)
    printed = mnx("export", "mine.onnx", "--arch", "v2", "--resolution", 96, "--int8", "--json")
    assert printed.code in (0, 1), printed.err  # random weights may miss a limit by a decibel
    document = json.loads(printed.out)
    assert document["bundle"] == "mine"
    assert document["drift"]["reference"] == "onnxruntime"
    assert min(row["sqnr_db"] or 999 for row in document["drift"]["rows"] if row["precision"] == "fp32") > 100
    again = mnx("validate", "mine", "--checkpoint", "mine.onnx", "--json", "--limit", 4)
    assert again.code in (0, 1), again.err
    assert json.loads(again.out)["reference"] == "onnxruntime"
    missing = mnx("validate", "mine")
    assert missing.code == 2
    assert "exported from mine.onnx" in missing.error


def test_images_of_every_kind_calibrate_and_the_unreadable_are_listed(
    own: list[object], mnx: Callable[..., Printed]
) -> None:
    folder = Path("photos/nested")
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    colours = random.integers(0, 256, (64, 80, 3), np.uint8)
    picture = Image.fromarray(colours)
    picture.save(folder / "rgb.png")
    picture.convert("L").save(folder / "grey.jpg")
    picture.convert("RGBA").save(folder / "opaque.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    picture.convert("P").save(folder / "palette.png")
    Image.fromarray(random.integers(0, 65536, (64, 80)).astype(np.uint16)).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    for index in range(4):
        Image.fromarray(random.integers(0, 256, (64, 80, 3), np.uint8)).save(folder / f"more_{index}.png")
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff and then nothing")
    (folder / "text.png").write_text("not an image")
    Image.new("1", (20000, 5000)).save(folder / "huge.png")
    printed = mnx("export", *own, "--int8", "--formats", "onnx", "--calibration", "photos", "--json")
    assert printed.code in (0, 1), printed.err
    passed_over = {
        line.split(": ")[0] for line in printed.err.splitlines() if line.startswith("passed over ")
    }
    assert passed_over == {
        f"passed over nested/{name}" for name in ("dot.png", "broken.jpg", "text.png", "huge.png")
    }
    document = json.loads(Path("mobilenet_v2_025_96/mnx.json").read_text())
    assert len(document["calibration"]["unreadable"]) == 4
    assert document["calibration"]["images"] + document["drift"]["images"] == 11


def black_images(path: Path) -> None:
    path.mkdir()
    for index in range(9):
        Image.new("RGB", (128, 128)).save(path / f"{index}.png")


def test_black_images_calibrate_with_a_warning(own: list[object], mnx: Callable[..., Printed]) -> None:
    black_images(Path("black"))
    printed = mnx("export", *own, "--int8", "--formats", "onnx", "--calibration", "black", "--json")
    assert printed.code in (0, 1), printed.err
    (warning,) = json.loads(printed.out)["warnings"]
    assert "every calibration image is of one colour" in warning
    assert f"warning: {warning}" in printed.err.splitlines()


def test_an_export_that_fails_on_own_images_names_lint_next(
    checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    black_images(Path("black"))
    printed = mnx(
        "export",
        "--arch",
        "v2",
        "--formats",
        "onnx",
        "--calibration",
        "black",
        "--int8",
        "--recipe",
        "int8-fast",
    )
    assert printed.code == 1
    assert "failed: " in printed.err
    assert printed.err.rstrip().endswith("next: mnx calibration lint black --arch mobilenet_v2_100_224")


def changed(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> list[object]:
    """Arguments that name the small network with other weights."""
    state = safetensors.torch.load_file(checkpoint)
    change(state)
    safetensors.torch.save_file(state, "changed.safetensors")
    return [*SMALL, "--classes", CLASSES, "--checkpoint", "changed.safetensors", "--int8"]


def kill_channels(state: dict[str, torch.Tensor]) -> None:
    """Every third channel of every layer before the head gives only zeros."""
    for key in [key for key in state if key.endswith("running_mean")]:
        for name in ("weight", "bias"):
            state[key.replace("running_mean", name)][::3] = 0


def kill_layer(state: dict[str, torch.Tensor]) -> None:
    for name in ("weight", "bias"):
        state[f"features.3.conv.1.1.{name}"][:] = 0


def kill_the_head(state: dict[str, torch.Tensor]) -> None:
    for name in ("weight", "bias"):
        state[f"classifier.1.{name}"][:] = 0


@pytest.mark.parametrize(
    ("change", "warnings"),
    [
        (kill_channels, []),
        (kill_layer, ["layers that give only zeros, so check their weights: features.3.conv.1.0"]),
        (kill_the_head, ["layers that give only zeros, so check their weights: classifier.1"]),
    ],
)
def test_dead_channels_and_layers_are_exported(
    change: Callable[[dict[str, torch.Tensor]], None],
    warnings: list[str],
    checkpoint: Path,
    mnx: Callable[..., Printed],
) -> None:
    printed = mnx("export", *changed(checkpoint, change), "--json")
    assert printed.code in (0, 1), printed.err
    document = json.loads(printed.out)
    assert document["warnings"] == warnings
    assert min(row["sqnr_db"] or 200 for row in document["drift"]["rows"]) > 10  # None where all is equal


def overflow_in_the_head(state: dict[str, torch.Tensor]) -> None:
    state["classifier.1.weight"][3] = 3e38


def overflow_before_relu6(state: dict[str, torch.Tensor]) -> None:
    state["features.1.conv.0.0.weight"] *= 1e37 / state["features.1.conv.0.0.weight"].abs().max()
    state["features.1.conv.0.1.bias"][:] = 3.4e38


def overflow_when_folded(state: dict[str, torch.Tensor]) -> None:
    state["features.1.conv.0.0.weight"][:] = 3e38
    state["features.1.conv.0.1.weight"][:] = 1e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (overflow_in_the_head, ".jpg: layer classifier.1 gives NaN or infinity for this image"),
        (overflow_before_relu6, ".jpg: layer features.1.conv.0.0 gives NaN or infinity for this image"),
        (overflow_when_folded, "features.1.conv.0.0: its weights overflow float32"),
    ],
)
@pytest.mark.parametrize("precision", ["--int8", "--fp16"])
def test_an_overflow_names_the_layer_and_the_image(
    precision: str,
    change: Callable[[dict[str, torch.Tensor]], None],
    message: str,
    checkpoint: Path,
    mnx: Callable[..., Printed],
) -> None:
    printed = mnx("export", *changed(checkpoint, change)[:-1], precision)
    assert printed.code == 4
    assert message in printed.error
    assert [path.name for path in Path().iterdir()] == ["changed.safetensors"]


def test_lint_names_the_layer_that_overflows(
    checkpoint: Path, bundle: Path, mnx: Callable[..., Printed]
) -> None:
    arguments = changed(checkpoint, overflow_in_the_head)
    Path("mine.toml").write_text(small_toml())
    assert mnx("calibration", "synth", "--out", "leaves", "--n", 9, "--size", 128).code == 0
    lint = ["calibration", "lint", "leaves", "--arch", "mine.toml", "--checkpoint", arguments[-2]]
    printed = mnx(*lint)
    assert printed.code == 1, printed.err
    assert ".jpg: layer classifier.1 gives NaN or infinity for this image" in printed.out
    assert "verdict: fail (1 error" in printed.out


def small_toml() -> str:
    """The variant of the small network."""
    text = shipped_path("models", "mobilenet_v2_100_224.toml").read_text(encoding="utf-8")
    text = text[: text.index("[weights]")]
    for old, new in {
        'name = "mobilenet_v2_100_224"': 'name = "mine"',
        'alias = "v2"\n': "",
        "width = 1.0": "width = 0.25",
        "resolution_px = 224": "resolution_px = 96",
        "classes = 1000": f"classes = {CLASSES}",
        'labels = "labels/imagenet1k.txt"\n': "",
        "parameters = 3504872\n": "",
        "macs = 300774272\n": "",
        "resize_px = 256": "resize_px = 110",
        "crop_px = 224": "crop_px = 96",
    }.items():
        assert old in text
        text = text.replace(old, new)
    return text


# Calibration


def test_synth_draws_a_set_that_calibrates(own: list[object], mnx: Callable[..., Printed]) -> None:
    printed = mnx("calibration", "synth", "--n", 9, "--seed", 60, "--size", 64, "--out", "leaves")
    assert printed.code == 0
    assert "leaves/: 9 images, seeds 60 to 68" in printed.out
    assert "next: mnx export --arch v2 --int8 --calibration leaves" in printed.err
    assert sorted(path.name for path in Path("leaves").iterdir())[-2:] == ["leaves_0068.jpg", "manifest.toml"]
    printed = mnx("export", *own, "--int8", "--formats", "onnx", "--calibration", "leaves", "--json")
    assert printed.code in (0, 1), printed.err
    document = json.loads(Path("mobilenet_v2_025_96/mnx.json").read_text())
    assert document["calibration"]["images"] == 9
    assert (document["drift"]["images"], document["drift"]["data"]) == (32, "default")
    printed = mnx("validate", "mobilenet_v2_025_96", "--checkpoint", own[-1], "--data", "leaves")
    assert (printed.code, printed.error) == (4, "leaves: its manifest has no image to check with")
    assert "manifest.toml" in printed.hint


def test_synth_replaces_only_a_drawn_set_and_only_when_forced(mnx: Callable[..., Printed]) -> None:
    draw = ["calibration", "synth", "--n", 1, "--size", 32, "--out"]
    assert json.loads(mnx(*draw, "leaves", "--json").out) == {
        "folder": "leaves",
        "images": 1,
        "seeds": [1500, 1500],
        "size_px": 32,
    }
    printed = mnx(*draw, "few")
    assert (printed.code, "next:" in printed.err) == (0, False)  # too few to calibrate with
    printed = mnx(*draw, "leaves")
    assert (printed.code, printed.error) == (2, "exists already: leaves")
    assert "--force" in printed.hint
    assert mnx(*draw, "leaves", "--force").code == 0
    Path("thesis").mkdir()
    printed = mnx(*draw, "thesis", "--force")
    assert (printed.code, Path("thesis").exists()) == (2, True)
    assert "--force does not delete it" in printed.error


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["lint", "nowhere"], "no such file or folder: nowhere", 2),
        (["lint", "."], "no images in it", 4),
        (["lint", ".", "--arch", "v5"], "unknown arch: v5", 2),
        (["lint", ".", "--recipe", "int4"], "unknown recipe: int4", 2),
        (["lint"], "Missing argument", 2),
        (["synth"], "Missing option '--out'", 2),
        (["synth", "--out", "x", "--n", "0"], "Invalid value for '--n'", 2),
        (["synth", "--out", "x", "--n", "1000000000000"], "Invalid value for '--n'", 2),
        (["synth", "--out", "x", "--seed", "-1"], "Invalid value for '--seed'", 2),
        (["synth", "--out", "x", "--size", "31"], "Invalid value for '--size'", 2),
    ],
)
def test_calibration_commands_that_do_not_fit_say_why(
    arguments: list[str], message: str, code: int, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("calibration", *arguments)
    assert printed.code == code
    assert message in printed.error
    assert list(Path().iterdir()) == []


def test_lint_prints_findings_with_their_next_step_and_a_verdict(mnx: Callable[..., Printed]) -> None:
    assert mnx("calibration", "synth", "--n", 9, "--size", 224, "--out", "leaves").code == 0
    Path("leaves/manifest.toml").unlink()
    Image.new("RGB", (224, 224)).save("leaves/black.png")
    lint = ["calibration", "lint", "leaves", "--no-ranges"]
    printed = mnx(*lint)
    assert printed.code == 0
    assert printed.out.splitlines() == [
        "warning: 1 image of one colour: black.png",
        "  next: remove them: ranges taken from them fit nothing else",
        "verdict: pass (1 warning, 10 of 10 images usable)",
    ]
    assert printed.err.startswith("look at the images")
    assert "next: mnx export --arch v2 --int8 --calibration leaves" in printed.err
    strict = mnx(*lint, "--strict")
    assert strict.code == 1
    assert strict.out.splitlines()[-1] == "verdict: fail (1 warning, 10 of 10 images usable)"


def test_lint_fails_where_hardly_an_image_shows_anything(mnx: Callable[..., Printed]) -> None:
    black_images(Path("black"))
    printed = mnx("calibration", "lint", "black", "--no-ranges")
    assert printed.code == 1
    assert printed.out.startswith(
        "error: 0 images of 9 differ and show anything, 8 must\n  next: give photos"
    )
    assert printed.out.endswith("verdict: fail (1 error, 3 warnings, 9 of 9 images usable)\n")
    assert "mnx export" not in printed.err


def test_lint_prints_one_json_document(mnx: Callable[..., Printed]) -> None:
    black_images(Path("black"))
    Path("black/broken.jpg").write_bytes(b"")
    printed = mnx("calibration", "lint", "black", "--no-ranges", "--json")
    assert printed.code == 1
    document = json.loads(printed.out)
    assert set(document) == {"data", "images", "usable", "findings", "ranges", "strict", "verdict"}
    assert (document["images"], document["usable"], document["verdict"]) == (10, 9, "fail")
    for finding in document["findings"]:
        assert set(finding) == {"severity", "kind", "problem", "hint", "files"}
    assert document["findings"][0]["kind"] == "unreadable"
    assert document["ranges"] is None


def test_lint_runs_the_network(checkpoint: Path, mnx: Callable[..., Printed]) -> None:
    Path("mine.toml").write_text(small_toml())
    assert mnx("calibration", "synth", "--out", "leaves", "--n", 16, "--size", 128).code == 0
    printed = mnx(
        "calibration", "lint", "leaves", "--arch", "mine.toml", "--checkpoint", checkpoint, "--json"
    )
    assert printed.code == 0, printed.err
    ranges = json.loads(printed.out)["ranges"]
    assert set(ranges) == {"images", "tensors", "median_percent", "worst_percent", "worst_layer"}
    assert (ranges["images"], ranges["tensors"]) == (16, 65)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_progress_shows_the_time_that_is_left(tmp_path: Path) -> None:
    import pty  # noqa: PLC0415

    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from mobilenet_export.cli import main; main()"]
    command += ["calibration", "synth", "--n", "3", "--size", "32", "--out", str(tmp_path / "leaves")]
    subprocess.run(
        command, stderr=theirs, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}, check=True
    )
    shown = os.read(ours, 65536).decode()
    assert "3/3" in shown
    assert "00:00" in shown
    assert "left" in shown


# Validate


def test_rows_of_labels_without_an_image_are_a_warning(
    photos: Path, bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    csv = Path("some.csv")
    csv.write_text("0/0.png,0\n1/1.png,1\n1/1.png,1\nx/gone.png,1\n")
    file = bundle / "mobilenet_v2_025_96_fp32.onnx"
    validate = ["validate", file, "--checkpoint", checkpoint, "--data", photos, "--labels", csv, "--json"]
    printed = mnx(*validate)
    assert printed.code == 0, printed.err
    assert "warning: some.csv: rows that name no image, 1: x/gone.png (line 4)" in printed.err
    document = json.loads(printed.out)
    assert (document["images"], document["labelled"]) == (8, 2)
    assert "rows that name no image" in document["warnings"][0]
    csv.write_text("0/0.png,0\n1/1.png,1\n0/0.png,2\n")
    printed = mnx(*validate)
    assert printed.code == 4
    assert printed.error == "some.csv: 0/0.png is class 0 in line 1, but 2 in line 3"


def test_folders_that_name_no_class_are_a_warning(
    photos: Path, bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    for name, number in (("cat", 0), ("dog", 1)):
        shutil.copytree(photos / str(number), Path("pets") / name)
    file = bundle / "mobilenet_v2_025_96_fp32.onnx"
    printed = mnx("validate", file, "--checkpoint", checkpoint, "--data", "pets")
    assert "warning: pets: no folder is named by a class, so there is no accuracy: cat, dog\n" in printed.err
    assert f"\nnext: mnx bench {file}\n" in printed.err


def test_what_names_the_output_twice_or_another_size_is_refused(
    bundle: Path, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("validate", bundle, "--report", "md", "--json")
    assert (printed.code, printed.error) == (2, "--report and --json both say what is printed")
    printed = mnx("bench", bundle, "--resolution", 128, "--runtime", "onnxruntime", "--runs", 8)
    assert printed.code == 2
    assert printed.error.startswith("--resolution 128: mobilenet_v2_025_96_f")
    assert printed.error.endswith("takes 96 px, and no other")


def test_fewer_images_than_the_recipe_asks_for_are_said(
    photos: Path, own: list[object], mnx: Callable[..., Printed]
) -> None:
    printed = mnx("export", *own, "--formats", "tflite", "--calibration", photos)
    assert f"{photos} has fewer images than the recipe asks for: " in printed.err
    assert " of 64 calibrate, " in printed.err


def test_validate_prints_one_json_document(
    bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("validate", bundle, "--checkpoint", checkpoint, "--limit", 4, "--json")
    document = json.loads(printed.out)
    assert set(document) >= {"images", "labelled", "reference", "rows", "verdict"}
    assert (document["images"], document["labelled"], document["reference"]) == (4, 0, "torch")
    assert len(document["rows"]) == 8
    for row in document["rows"]:
        assert set(row) == ROW
        assert row["top1_percent"] is row["top5_percent"] is row["top1_drop_points"] is None
    assert printed.code == (1 if document["failures"] else 0)


def test_validate_shows_a_table_and_a_verdict(
    bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    file = bundle / "mobilenet_v2_025_96_int8.tflite"
    printed = mnx("validate", file, "--checkpoint", checkpoint, "--limit", 4)
    assert printed.code == 0
    assert "mobilenet_v2_025_96_int8.tflite" in printed.out
    assert "fp32" not in printed.out
    assert "without labels" in printed.out
    assert "verdict: pass" in printed.out


@pytest.mark.parametrize(
    ("limit", "failure"),
    [(["--min-sqnr", "99"], "is below 99 dB"), (["--min-agreement", "100.5"], "is below 100.5 %")],
)
def test_a_limit_that_is_not_met_ends_in_1(
    limit: list[str], failure: str, bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    arguments = ["--runtime", "onnxruntime", "--limit", 4, "--checkpoint", checkpoint]
    printed = mnx("validate", bundle / "mobilenet_v2_025_96_int8.onnx", *arguments, *limit)
    assert printed.code == 1
    assert f"failed: mobilenet_v2_025_96_int8.onnx in onnxruntime: " in printed.out  # noqa: F541
    assert failure in printed.out
    assert "verdict: fail" in printed.out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Eight photos in folders named after their class, and a CSV that says the same."""
    random = np.random.default_rng(0)
    rows = ["file,label"]
    for index in range(8):
        folder = tmp_path / "photos" / str(index % CLASSES)
        folder.mkdir(parents=True)
        pixels = random.integers(0, 256, (8, 8, 3), np.uint8).repeat(16, 0).repeat(16, 1)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        rows.append(f"{index}/{index}.png,{index}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "photos"


@pytest.mark.parametrize("by", ["folders", "csv"])
def test_labels_give_accuracy(
    by: str, photos: Path, bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    labels = ["--labels", photos.parent / "labels.csv"] if by == "csv" else []
    arguments = ["--checkpoint", checkpoint, "--data", photos, *labels, "--max-drop", 100, "--json"]
    printed = mnx("validate", bundle / "mobilenet_v2_025_96_fp32.onnx", *arguments)
    assert printed.code == 5, printed.err  # noise is recognised by chance alone
    document = json.loads(printed.out)
    assert "as by guessing" in document["doubts"][0]
    assert (document["images"], document["labelled"]) == (8, 8)
    (row,) = document["rows"]
    assert row["top1_percent"] == document["reference_top1_percent"]
    assert row["top1_drop_points"] == 0
    assert row["top5_percent"] >= row["top1_percent"]


def test_a_limit_draws_among_the_images_that_have_a_label(
    photos: Path, bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    labels = photos.parent / "labels.csv"
    labels.write_text("\n".join(labels.read_text().splitlines()[:3]) + "\n")
    arguments = ["--checkpoint", checkpoint, "--data", photos, "--labels", labels, "--limit", 2, "--json"]
    document = json.loads(mnx("validate", bundle / "mobilenet_v2_025_96_fp32.onnx", *arguments).out)
    assert (document["images"], document["labelled"]) == (2, 2)


def test_a_file_outside_a_bundle_needs_its_variant(
    bundle: Path, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    Path("alone.onnx").write_bytes((bundle / "mobilenet_v2_025_96_fp32.onnx").read_bytes())
    printed = mnx("validate", "alone.onnx", "--checkpoint", checkpoint)
    assert printed.code == 2
    assert printed.error == "alone.onnx lies in no bundle"
    assert "--arch" in printed.hint


def test_a_tampered_bundle_is_refused(bundle: Path, mnx: Callable[..., Printed]) -> None:
    import shutil  # noqa: PLC0415

    shutil.copytree(bundle, "copy")
    path = Path("copy/mobilenet_v2_025_96_int8.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    printed = mnx("validate", "copy")
    assert printed.code == 4
    assert "changed since it was exported" in printed.error


def test_another_checkpoint_than_the_bundles_is_refused(bundle: Path, mnx: Callable[..., Printed]) -> None:
    module = build(resize_spec(find_spec("v2"), 0.25, 96, CLASSES))
    safetensors.torch.save_file(module.state_dict(), "other.safetensors")
    printed = mnx("validate", bundle, "--checkpoint", "other.safetensors")
    assert printed.code == 2
    assert "other.safetensors" in printed.error
    assert "is not what the files were exported from" in printed.error


def test_a_damaged_model_file_is_refused(mnx: Callable[..., Printed], small_v2: Exported) -> None:
    data = small_v2.artifact("tflite", "int8").data
    Path("half.tflite").write_bytes(data[: len(data) // 2])
    Path("half.onnx").write_bytes(b"garbage")
    for name in ("half.tflite", "half.onnx"):
        printed = mnx("validate", name, "--arch", "v2")
        assert printed.code == 4, name
        assert name in printed.error


# Bad input: each with one message, a hint and its exit code

USAGE: dict[str, tuple[list[str], str, str]] = {
    "unknown arch": (["--arch", "v5"], "unknown arch: v5", "did you mean v"),
    "no network": ([], "no network named", "--arch v2"),
    "two networks": (["v1", "--arch", "v2"], "two networks named: v1 and v2", "one of them"),
    "no weights of this width": (
        ["--arch", "v2", "--width", "0.5"],
        "no embedded weights for width 0.5; mobilenet_v1_100_224, mobilenet_v2_100_224 have them",
        "--weights none",
    ),
    "width beyond": (["--arch", "v2", "--width", "2"], "width 2 is not within 0.25 to 1.4", "0.25, 0.35"),
    "width nan": (["--arch", "v2", "--width", "nan"], "width nan is not within", "0.25"),
    "odd resolution": (
        ["--arch", "v2", "--resolution", "100"],
        "100 px is not 96 to 320 in steps of 32",
        "96, 128",
    ),
    "one class": (["--arch", "v2", "--classes", "1"], "1 classes: not within 2 to 100,000", "--classes"),
    "classes without weights": (
        ["--arch", "v2", "--classes", "7"],
        "no embedded weights for 7 classes",
        "--weights none",
    ),
    "unknown weights": (
        ["--arch", "v2", "--weights", "imagenet"],
        "unknown weights: imagenet",
        "known: none",
    ),
    "unknown format": (
        ["--arch", "v2", "--formats", "onnx,tflit"],
        "unknown format: tflit",
        "did you mean tflite?",
    ),
    "no format": (["--arch", "v2", "--formats", ","], "--formats names none", "onnx, ort, tflite"),
    "unknown recipe": (["--arch", "v2", "--recipe", "int4"], "unknown recipe: int4", "did you mean int8?"),
    "unknown io": (["--arch", "v2", "--int8", "--io", "int16"], "unknown io: int16", "did you mean int8?"),
    "recipe without int8": (
        ["--arch", "v2", "--recipe", "int8-fast"],
        "--recipe int8-fast is of int8",
        "--int8",
    ),
    "int8 io without int8": (["--arch", "v2", "--io", "int8"], "--io int8: no float file takes it", "--int8"),
    "missing toml": (["--arch", "my.toml"], "no such file: my.toml", "mnx models"),
    "missing checkpoint": (["--arch", "v2", "--checkpoint", "my.pth"], "my.pth", "path"),
    "unknown option": (["--arch", "v2", "--int4"], "No such option: --int4", "`mnx export --help`"),
    "not a number": (["--arch", "v2", "--width", "wide"], "Invalid value for '--width'", "--help"),
    "onnx without preprocessing": (["my.onnx"], "does not say how images are preprocessed", "--mean"),
    "onnx with a width": (
        ["my.onnx", "--width", "1"],
        "--width does not go with an .onnx file",
        "leave it out",
    ),
    "two numbers": (["my.onnx", "--mean", "1,2", "--std", "1,1,1"], "--mean 1,2: not three numbers", "0.485"),
    "std of zero": (
        ["my.onnx", "--mean", "0,0,0", "--std", "1,0,1"],
        "--std 1,0,1: not within 0 to 1",
        "divide by 255",
    ),
    "missing onnx": (["my.onnx", "--arch", "v2"], "my.onnx", "path"),
}


@pytest.mark.parametrize(("arguments", "message", "hint"), USAGE.values(), ids=USAGE)
def test_what_does_not_fit_together_ends_in_2(
    arguments: list[str], message: str, hint: str, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("export", *arguments)
    assert printed.code == ExitCode.USAGE
    assert message in printed.error
    assert hint in printed.hint
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such file or folder: nowhere"),
        ([".", "."], "one bundle at a time"),
        (["."], "is not a bundle"),
        (["x.onnx", "--arch", "v5"], "unknown arch: v5"),
        (["x.onnx", "--arch", "v2"], "no such file or folder: x.onnx"),
        (["x.pb", "--arch", "v2"], "no such file or folder: x.pb"),
        (["x.onnx", "--arch", "v2", "--max-drop", "-1"], "--max-drop -1.0: must be 0 or more"),
        (["x.onnx", "--arch", "v2", "--min-sqnr", "nan"], "--min-sqnr nan: must be 0 or more"),
        ([], "Missing argument"),
    ],
)
def test_what_cannot_be_validated_ends_in_2(
    arguments: list[str], message: str, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("validate", *arguments)
    assert printed.code == ExitCode.USAGE
    assert message in printed.error


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--runtime", "onnxruntim"], "unknown runtime: onnxruntim", 2),
        (["--runtime", "torch"], "none of the runtimes reads any of the files", 2),
        (["--runtime", "tflite_runtime"], "tflite_runtime: ", 3),
        (["--max-drop", "1"], "--max-drop need labelled images", 2),
        (["--data", "nowhere"], "no such file or folder: nowhere", 2),
        (["--limit", "0"], "Invalid value for '--limit'", 2),
    ],
)
def test_a_bundle_that_cannot_be_validated_as_asked_says_why(
    arguments: list[str], message: str, code: int, bundle: Path, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("validate", bundle, *arguments)
    assert printed.code == code
    assert message in printed.error


def test_another_number_of_classes_than_the_checkpoints_is_said(
    checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    printed = mnx("export", *SMALL, "--classes", 7, "--checkpoint", checkpoint)
    assert printed.code == 2
    assert "12 classes" in printed.error
    assert "--classes 12" in printed.hint


def drop_key(state: dict[str, torch.Tensor]) -> None:
    del state["features.3.conv.1.0.weight"]


def add_key(state: dict[str, torch.Tensor]) -> None:
    state["features.99.weight"] = torch.zeros(1)


def bend_key(state: dict[str, torch.Tensor]) -> None:
    state["features.3.conv.1.0.weight"] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (drop_key, "features.3.conv.1.0.weight"),
        (add_key, "features.99.weight"),
        (bend_key, "features.3.conv.1.0.weight"),
    ],
)
def test_keys_that_do_not_fit_are_named(
    change: Callable[[dict[str, torch.Tensor]], None], key: str, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    state = safetensors.torch.load_file(checkpoint)
    change(state)
    safetensors.torch.save_file(state, "changed.safetensors")
    printed = mnx("export", *SMALL, "--classes", CLASSES, "--checkpoint", "changed.safetensors")
    assert printed.code == 4
    assert key in printed.error


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("pwned",))


def write_pickle(path: Path, _good: Path) -> None:
    torch.save({"state_dict": Evil()}, path)


def write_half(path: Path, good: Path) -> None:
    data = good.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def write_text(path: Path, _good: Path) -> None:
    path.write_text("weights")


@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
@pytest.mark.parametrize("write", [write_pickle, write_half, write_text])
def test_a_checkpoint_that_is_none_ends_in_4_and_runs_nothing(
    write: Callable[[Path, Path], None], name: str, checkpoint: Path, mnx: Callable[..., Printed]
) -> None:
    write(Path(name), checkpoint)
    printed = mnx("export", *SMALL, "--classes", CLASSES, "--checkpoint", name)
    assert printed.code == 4
    assert name in printed.error
    assert [path.name for path in Path().iterdir()] == [name]


def test_a_renamed_checkpoint_is_read_for_what_it_is(checkpoint: Path, mnx: Callable[..., Printed]) -> None:
    Path("mine.pth").write_bytes(checkpoint.read_bytes())
    options = [*SMALL, "--classes", CLASSES, "--checkpoint", "mine.pth", "--formats", "onnx", "--out", "made"]
    assert mnx("export", *options).code == 0


def test_an_onnx_file_with_a_foreign_operator_ends_in_4(
    small_v2: Exported, mnx: Callable[..., Printed]
) -> None:
    model = onnx.load_from_string(small_v2.artifact("onnx", "fp32").data)
    model.opset_import[0].version = 14
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("HardSwish", ["before"], ["output"]))
    onnx.save(model, "foreign.onnx")
    printed = mnx("export", "foreign.onnx", "--arch", "v2", "--resolution", 96)
    assert printed.code == 4
    assert printed.error == "foreign: operators that are not supported: HardSwish"
    assert not Path("foreign").exists()


def empty_folder(path: Path) -> None:
    path.mkdir()


def broken_images(path: Path) -> None:
    path.mkdir()
    for index in range(9):
        (path / f"{index}.jpg").write_bytes(b"\xff\xd8\xff broken")


def seven_images(path: Path) -> None:
    path.mkdir()
    for index in range(7):
        Image.new("RGB", (64, 64), (index * 30, 0, 0)).save(path / f"{index}.png")


def one_image(path: Path) -> None:
    path.mkdir()
    Image.new("RGB", (64, 64)).save(path / "alone.png")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty_folder, "no images in it"),
        (broken_images, "0 of 9 images can be used, 8 are needed"),
        (seven_images, "7 of 7 images can be used, 8 are needed"),
        (one_image, "1 of 1 images can be used, 8 are needed"),
    ],
)
def test_calibration_images_that_are_too_few_end_in_4(
    make: Callable[[Path], None], message: str, own: list[object], mnx: Callable[..., Printed]
) -> None:
    make(Path("photos"))
    printed = mnx("export", *own, "--int8", "--calibration", "photos")
    assert printed.code == 4
    assert message in printed.error
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_a_calibration_folder_that_is_not_there_ends_in_2(
    own: list[object], mnx: Callable[..., Printed]
) -> None:
    printed = mnx("export", *own, "--int8", "--calibration", "nowhere")
    assert printed.code == 2
    assert "nowhere" in printed.error


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (b"cat\ndog\n", 2, "2 class names, but the network has 12 classes"),
        (b"\xff\xfe\n" * 12, 4, "not UTF-8 text"),
        (None, 2, "No such file"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    content: bytes | None, code: int, message: str, own: list[object], mnx: Callable[..., Printed]
) -> None:
    if content is not None:
        Path("names.txt").write_bytes(content)
    printed = mnx("export", *own, "--labels", "names.txt")
    assert printed.code == code
    assert message in printed.error
    assert not Path("mobilenet_v2_025_96").exists()


def test_an_out_that_is_taken_is_refused_before_any_work(
    own: list[object], mnx: Callable[..., Printed]
) -> None:
    Path("taken").mkdir()
    Path("taken/thesis.txt").write_text("years of work")
    printed = mnx("export", *own, "--out", "taken")
    assert printed.code == 2
    assert printed.err.startswith("error: taken exists")
    printed = mnx("export", *own, "--out", "taken", "--force")
    assert printed.code == 2
    assert "is not a bundle, so --force does not delete it" in printed.error
    assert Path("taken/thesis.txt").read_text() == "years of work"


def test_an_out_that_cannot_be_written_ends_in_3(own: list[object], mnx: Callable[..., Printed]) -> None:
    Path("file").write_text("")
    printed = mnx("export", *own, "--formats", "onnx", "--out", "file/bundle")
    assert printed.code == 3
    assert "cannot write file/bundle" in printed.error


def test_a_bug_of_ours_ends_in_70_without_a_traceback(
    mnx: Callable[..., Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_name: str) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("mobilenet_export.pipeline.options.find_spec", fail)
    printed = mnx("export", "--arch", "v2")
    assert printed.code == 70
    assert printed.error == "internal error: ZeroDivisionError: oops"
    assert "MNX_TRACEBACK=1" in printed.hint
    monkeypatch.setenv("MNX_TRACEBACK", "1")
    assert "Traceback" in mnx("export", "--arch", "v2").err


def test_an_interrupt_is_said_and_ends_in_130(
    mnx: Callable[..., Printed], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mobilenet_export.pipeline.options.find_spec", interrupt)
    printed = mnx("export", "--arch", "v2")
    assert printed.code == 130
    assert printed.error == "interrupted"


def test_no_arguments_show_the_help(mnx: Callable[..., Printed]) -> None:
    printed = mnx()
    assert "Usage:" in printed.out + printed.err


# Recipes


def test_a_recipe_prints_as_the_toml_that_it_is(mnx: Callable[..., Printed]) -> None:
    listed = mnx("recipes").out
    assert [line.split(":")[0] for line in listed.splitlines()] == ["int8", "int8-fast", "int8-per-tensor"]
    printed = mnx("recipes", "int8").out
    assert printed == shipped_path("calibration", "recipes", "int8.toml").read_text(encoding="utf-8")
    assert mnx("recipes", "int9").hint.startswith("did you mean int8?")
    Path("mine.toml").write_text(printed.replace("reach = 1.1", "reach = 2"), encoding="utf-8")
    assert "\nreach = 2\n" in mnx("recipes", "mine.toml").out


def test_a_checkpoint_that_nothing_needs_is_refused(mnx: Callable[..., Printed], tmp_path: Path) -> None:
    made = mnx("export", *SMALL, "--weights", "none", "--out", tmp_path / "plain")
    assert made.code == 0, made.err
    assert f"next: mnx bench {tmp_path / 'plain'}" in made.err  # photos tell nothing of random weights
    (tmp_path / "other.safetensors").write_bytes(b"")
    printed = mnx("validate", tmp_path / "plain", "--checkpoint", tmp_path / "other.safetensors")
    assert printed.code == ExitCode.USAGE
    assert "not from a checkpoint of yours" in printed.err


def test_bare_mnx_is_its_help(mnx: Callable[..., Printed]) -> None:
    printed = mnx()
    assert printed.code == ExitCode.USAGE
    assert printed.err.startswith("Usage: ")
    assert "error:" not in printed.err


def test_probabilities_are_not_compared_with_logits(
    mnx: Callable[..., Printed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = mnx("export", "--arch", "v2", "--softmax", "--formats", "onnx", "--out", "soft")
    assert made.code == 0, made.err
    (file,) = Path("soft").glob("*.onnx")
    assert mnx("validate", file, "--limit", 2).code == 0
    file.rename("alone.onnx")
    printed = mnx("validate", "alone.onnx", "--arch", "v2")
    assert printed.code == 2
    assert "alone.onnx gives probabilities, and mobilenet_v2_100_224 logits" in printed.err
