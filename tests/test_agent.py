"""What a bundle does where it lies, without torch: `python3 run.py check|bench|classify`."""

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import FEW_IMAGES
from PIL import Image

import mobilenet_export
from mobilenet_export.agent import MODULES
from mobilenet_export.bundle import read_bundle
from mobilenet_export.checks.mistakes import MISTAKES, find_label_shift
from mobilenet_export.errors import ExitCode
from mobilenet_export.images import open_image
from mobilenet_export.pipeline import ExportRequest, export
from mobilenet_export.runtimes import runtime
from mobilenet_export.spec import find_spec, resize_spec, spec_from_table

PACKAGE = Path(mobilenet_export.__file__).parent
FILES = [
    f"mobilenet_v2_100_96_{precision}.{suffix}"
    for precision in ("fp32", "int8", "int8_io_uint8")
    for suffix in ("onnx", "tflite")
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """V2 with its own weights at 96 px, fp32 and int8, in both formats."""
    out = tmp_path_factory.mktemp("agent") / "bundle"
    spec = resize_spec(find_spec("v2"), None, 96, None)
    export(ExportRequest(spec, out, ("fp32", "int8"), ("onnx", "tflite"), FEW_IMAGES))
    return out


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(exported, tmp_path / "my bundle"))


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a device would: isolated, so that this package is not found but in the zip."""
    command = [sys.executable, "-I", "run.py", *arguments]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300, check=False)


def document(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def change(bundle: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    path = bundle / "mnx.json"
    table = json.loads(path.read_text())
    edit(table)
    path.write_text(json.dumps(table))


# The code that goes along


def imports_of(module: str) -> set[str]:
    """What a module imports when it is loaded; what it imports inside functions, it can do without."""
    tree = ast.parse((PACKAGE / Path(*module.split("."))).with_suffix(".py").read_text(encoding="utf-8"))
    return {
        name
        for node in tree.body
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_the_device_needs_only_others_of_it(module: str) -> None:
    names = {f"mobilenet_export.{name}".removesuffix(".__init__") for name in MODULES}
    names.add("mobilenet_export")
    for name in imports_of(module):
        assert name in names or name.split(".")[0] in {*sys.stdlib_module_names, "numpy", "PIL"}, name


def test_the_zip_holds_the_package_s_own_code(exported: Path) -> None:
    with zipfile.ZipFile(exported / "device.zip") as archive:
        assert len(archive.namelist()) == len(MODULES)
        for name in archive.namelist():
            assert archive.read(name) == (PACKAGE.parent / name).read_bytes()


def test_nothing_heavy_is_imported(exported: Path) -> None:
    command = [sys.executable, "-I", "-X", "importtime", "run.py", "check"]
    found = subprocess.run(command, cwd=exported, capture_output=True, text=True, check=True)
    modules = {line.split("|")[-1].strip().split(".")[0] for line in found.stderr.splitlines()}
    assert "numpy" in modules
    assert not modules & {"torch", "onnx", "onnxsim", "typer", "rich", "safetensors", "flatbuffers"}


def test_an_old_python_is_told_so(exported: Path) -> None:
    code = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path('run.py', run_name='__main__')"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=exported, capture_output=True, text=True, check=False
    )
    assert found.returncode == ExitCode.MISSING
    assert "Python 3.9 is too old, 3.11 is needed" in found.stderr
    assert "hint: " in found.stderr


def test_a_damaged_zip_is_named(bundle: Path) -> None:
    (bundle / "device.zip").write_bytes(b"PK")
    found = run(bundle, "check")
    assert found.returncode == ExitCode.MISSING
    assert "device.zip is missing or damaged" in found.stderr


# Check


def test_a_whole_bundle_passes(exported: Path) -> None:
    found = run(exported, "check")
    assert found.returncode == 0, found.stderr
    assert "verdict: pass, 4 images" in found.stdout
    assert found.stdout.count("bit-equal") == 4
    report = document(run(exported, "check", "--json"))
    assert report["verdict"] == "pass"
    assert [row["file"] for row in report["rows"]] == FILES
    assert set(report["runtimes"]) == {"onnxruntime", "litert"}
    assert len(report["rows"][0]["top5"]) == 5


def test_one_file_or_one_runtime_can_be_checked(exported: Path) -> None:
    assert [
        row["file"] for row in document(run(exported, "check", "--json", "--file", FILES[2]))["rows"]
    ] == FILES[2:3]
    rows = document(run(exported, "check", "--json", "--runtime", "litert:builtin"))["rows"]
    assert {(row["runtime"], row["provider"]) for row in rows} == {("litert", "builtin")}
    assert all(row["verdict"] == "pass" for row in rows)


def failures(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == ExitCode.CHECK_FAILED, result.stderr
    return "\n".join(line for line in result.stdout.splitlines() if line.startswith("failed: "))


def test_a_flipped_byte_is_named_and_hides_no_other_file(bundle: Path) -> None:
    path = bundle / FILES[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    found = run(bundle, "check")
    assert f"{FILES[0]}: changed since it was exported: its sha256 differs" in failures(found)
    assert found.stdout.count(" pass ") == 5


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / FILES[3]).unlink()
    (bundle / "WEIGHTS.md").unlink()
    found = failures(run(bundle, "check"))
    assert f"{FILES[3]}: listed in mnx.json but not there" in found
    assert "WEIGHTS.md is missing" in found


@pytest.mark.parametrize(
    ("shift", "words"), [(1, "stands 1 line below its place"), (-1, "stands 1 line above")]
)
def test_shifted_labels_are_named(bundle: Path, shift: int, words: str) -> None:
    path = bundle / "labels.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["background", *lines] if shift > 0 else lines[1:]) + "\n")
    found = failures(run(bundle, "check"))
    assert "labels are shifted" in found
    assert words in found
    assert "labels.txt has changed since the export" in found


def test_other_labels_are_named(bundle: Path) -> None:
    (bundle / "labels.txt").write_text("cat\ndog\n")
    assert "it is another model's" in failures(run(bundle, "check"))


def test_another_mean_and_std_are_named(bundle: Path) -> None:
    """The record was made with ImageNet's; whoever writes another into the document is told which is right."""
    change(bundle, lambda table: table["model"]["preprocess"].update(mean=[0.5] * 3, std=[0.5] * 3))
    assert "as if mean and std are ImageNet's" in failures(run(bundle, "check"))


def rehash(bundle: Path, file: str) -> None:
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256((bundle / file).read_bytes()).hexdigest()
    change(bundle, lambda table: [e.update(sha256=digest) for e in table["files"] if e["path"] == file])


def test_a_file_that_takes_bgr_is_named(bundle: Path) -> None:
    model = onnx.load(bundle / FILES[0])
    first = next(node for node in model.graph.node if node.op_type == "Conv").input[1]
    (weight,) = [one for one in model.graph.initializer if one.name == first]
    swapped = onnx.numpy_helper.to_array(weight)[:, ::-1]
    weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(swapped), first))
    onnx.save(model, bundle / FILES[0])
    rehash(bundle, FILES[0])
    found = failures(run(bundle, "check", "--runtime", "onnxruntime"))
    assert f"{FILES[0]} in onnxruntime" in found
    assert "channels are in the order B, G, R" in found


def test_a_foreign_file_is_named(bundle: Path) -> None:
    model = onnx.load(bundle / FILES[0])
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.ndim == 4:
            weight.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), weight.name))
    onnx.save(model, bundle / FILES[0])
    rehash(bundle, FILES[0])
    assert "another network's file" in failures(run(bundle, "check", "--runtime", "onnxruntime"))


def test_a_file_too_new_for_the_runtime_is_named(bundle: Path) -> None:
    model = onnx.load(bundle / FILES[0])
    model.opset_import[0].version = 99
    onnx.save(model, bundle / FILES[0])
    rehash(bundle, FILES[0])
    found = failures(run(bundle, "check", "--runtime", "onnxruntime"))
    assert f"onnxruntime {runtime('onnxruntime').version()} is too old for this file" in found


def test_a_record_that_cannot_be_read_is_an_error(bundle: Path) -> None:
    (bundle / "self_check" / "expected.json").write_text("{")
    found = run(bundle, "check")
    assert found.returncode == ExitCode.DAMAGED
    assert "expected.json: cannot be checked against" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["check", "--file", "other.onnx"], ExitCode.USAGE, "its files: mobilenet_v2"),
        (["check", "--runtime", "onnxruntim"], ExitCode.USAGE, "did you mean onnxruntime?"),
        (["check", "--runtime", "onnxruntime:xnpack"], ExitCode.USAGE, "did you mean xnnpack?"),
        (["check", "--runtime", "onnxruntime:xnnpack"], ExitCode.MISSING, "Debian 13's python3-onnxruntime"),
        (["bench", "--runtime", "onnxruntime:acl"], ExitCode.MISSING, "gone: removed from ONNX Runtime"),
        (["check", "--runtime", "tflite-runtime"], ExitCode.MISSING, "pip install tflite-runtime"),
        (["bench", "--threads", "0"], ExitCode.USAGE, "must be 1 or more"),
        (["bench", "--threads", "many"], ExitCode.USAGE, "not whole numbers"),
        (["bench", "--runs", "0"], ExitCode.USAGE, "must be above 0"),
        (["classify", "nothing.jpg"], ExitCode.DAMAGED, "nothing.jpg: cannot be read"),
        (["check", "--bundle", ".."], ExitCode.USAGE, "is not a bundle"),
        (["check", "--outputs", "nothing.npy"], ExitCode.USAGE, "no such file: nothing.npy"),
        (["check", "--outputs", "labels.txt"], ExitCode.USAGE, "not .npy or .json"),
        (["check", "--outputs", "mnx.json"], ExitCode.DAMAGED, "no array of numbers"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_message(
    exported: Path, arguments: list[str], code: int, words: str
) -> None:
    found = run(exported, *arguments)
    assert found.returncode == code, found.stderr
    assert words in found.stderr
    assert found.stderr.startswith("error: ")
    assert "Traceback" not in found.stderr


# An app's own outputs


@pytest.fixture
def app(exported: Path) -> Callable[[Callable[..., np.ndarray] | None], np.ndarray]:
    """What an app gives for the images that makes a mistake, or none."""
    table = read_bundle(exported)
    how = spec_from_table(dict(table.document["model"])).preprocess
    session = runtime("onnxruntime").open(table.artifact(FILES[0]))
    paths = sorted((exported / "self_check").glob("*.png"))

    def compute(prepare: Callable[..., np.ndarray] | None) -> np.ndarray:
        from mobilenet_export.images import preprocess  # noqa: PLC0415

        make = prepare or preprocess
        return session.run(np.stack([make(open_image(path, path.name), how) for path in paths]))

    return compute


def test_an_app_that_is_right_passes(exported: Path, tmp_path: Path, app: Any) -> None:
    np.save(tmp_path / "own.npy", app(None))
    found = run(exported, "check", "--outputs", str(tmp_path / "own.npy"))
    assert (found.returncode, found.stderr) == (0, "")
    assert f"({FILES[0]})" in found.stdout
    exponents = np.exp(app(None))
    (tmp_path / "own.json").write_text(
        json.dumps((exponents / exponents.sum(axis=1, keepdims=True)).tolist())
    )
    assert run(exported, "check", "--outputs", str(tmp_path / "own.json")).returncode == 0


# ImageNet's mean and std are what this network takes
@pytest.mark.parametrize(
    "mistake", [m for m in MISTAKES if "ImageNet" not in m.name], ids=lambda one: one.name
)
def test_the_mistake_of_an_app_is_named(exported: Path, tmp_path: Path, app: Any, mistake: Any) -> None:
    np.save(tmp_path / "own.npy", app(mistake.prepare))
    found = run(exported, "check", "--outputs", str(tmp_path / "own.npy"))
    assert found.returncode == ExitCode.CHECK_FAILED
    assert mistake.name in found.stdout


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda values: values[::-1], "the images are in another order: 3, 2, 1, 0"),
        (lambda values: np.full_like(values, np.nan), "they hold NaN"),
        (np.zeros_like, "the same for every image"),
        (
            lambda values: values + np.sin(np.arange(values.size)).reshape(values.shape) * 9,
            "no known mistake",
        ),
    ],
)
def test_outputs_that_no_network_gave_are_told_apart(
    exported: Path, tmp_path: Path, app: Any, spoil: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    np.save(tmp_path / "own.npy", spoil(app(None)))
    found = run(exported, "check", "--outputs", str(tmp_path / "own.npy"))
    assert found.returncode == ExitCode.CHECK_FAILED
    assert words in found.stdout


def test_the_shifted_classes_of_an_app_are_named(exported: Path, tmp_path: Path, app: Any) -> None:
    np.save(tmp_path / "own.npy", np.roll(app(None), 1, axis=1))
    assert (
        "classes are shifted by +1" in run(exported, "check", "--outputs", str(tmp_path / "own.npy")).stdout
    )
    np.save(tmp_path / "own.npy", np.pad(app(None), ((0, 0), (1, 0))))
    found = run(exported, "check", "--outputs", str(tmp_path / "own.npy"))
    assert found.returncode == ExitCode.DAMAGED
    assert "TensorFlow's background, class 0: leave it out" in found.stderr


def test_a_label_shift_needs_every_recorded_class() -> None:
    assert find_label_shift(["a", "b", "c"], {0: "a", 2: "c"}) == 0
    assert find_label_shift(["x", "a", "b", "c"], {0: "a", 2: "c"}) == 1
    assert find_label_shift(["b", "c"], {1: "b", 2: "c"}) == -1
    assert find_label_shift(["a", "c", "b"], {0: "a", 1: "b", 2: "c"}) is None


# Classify and bench


def test_photos_are_named(exported: Path, tmp_path: Path) -> None:
    photo = sorted((exported / "self_check").glob("*.png"))[0]
    Image.open(photo).save(tmp_path / "a photo.jpg", quality=95)
    recorded = json.loads((exported / "self_check" / "expected.json").read_text())[FILES[0]][photo.name][
        "top5"
    ]
    found = document(run(exported, "classify", str(photo), str(tmp_path / "a photo.jpg"), "--json"))
    assert [one[1] for one in found["images"][str(photo)]] == [one["label"] for one in recorded]
    assert len(found["images"]) == 2
    mixed = run(exported, "classify", "labels.txt", str(photo))
    assert mixed.returncode == ExitCode.DAMAGED
    assert "labels.txt: not an image" in mixed.stderr
    assert recorded[0]["label"] in mixed.stdout


def test_latency_is_measured_with_its_samples(exported: Path) -> None:
    found = document(run(exported, "bench", "--json", "--runs", "30", "--threads", "1,2"))
    assert [row["file"] for row in found["rows"]] == [name for name in FILES for _ in (1, 2)]
    for row in found["rows"]:
        assert len(row["rounds_ms"]) == 6
        assert row["min_ms"] <= row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["load_ms"] > 0
        assert row["first_ms"] > 0
        assert row["peak_rss_bytes"] > 20e6
        assert row["ratio_interval"][0] <= row["ratio"] <= row["ratio_interval"][1]
        assert row["unfused"] == row["elsewhere"] == []
    assert found["split"]["decode_ms"] > 0
    assert found["machine"]["cores"] >= 1


def test_the_table_of_latency_fits_a_terminal(exported: Path) -> None:
    lines = run(exported, "bench", "--runs", "5", "--file", FILES[2]).stdout.splitlines()
    assert lines[0].split()[:3] == ["file", "runtime", "threads"]
    assert len(lines[1]) < 120
