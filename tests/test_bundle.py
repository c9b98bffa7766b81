"""The bundle: whole or not at all, the same bytes for the same inputs, and nothing in it believed unchecked."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_IMAGES

from mobilenet_export import images
from mobilenet_export.bundle import check_place, new_bundle, read_bundle, write_document
from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline import Export, ExportRequest, export
from mobilenet_export.plugins import load_plugin
from mobilenet_export.spec import find_spec, resize_spec, spec_from_table


def request_for(out: Path, **changes: Any) -> ExportRequest:
    spec = resize_spec(find_spec("v2"), 0.25, 96, 12)
    formats, precisions = ("onnx", "tflite"), ("fp32", "fp16", "int8")
    return ExportRequest(spec, out, precisions, formats, FEW_IMAGES, weights="none", **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return export(request_for(tmp_path_factory.mktemp("first") / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MODEL = {"preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]}}


def fill(folder: Path, text: str = "new") -> None:
    (folder / "model.onnx").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    entry = {"path": "model.onnx", "format": "onnx", "precision": "fp32", "io": "float32", "sha256": digest}
    source = {"kind": "random", "origin": "", "sha256": ""}
    write_document(folder, {"schema": 1, "model": MODEL, "source": source, "files": [entry]})


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a small bundle is."""
    with new_bundle(tmp_path / "bundle", force=False) as folder:
        fill(folder, "old")
    return tmp_path / "bundle"


# Whole or not at all


def test_a_bundle_appears_when_its_block_ends(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "bundle"
    with new_bundle(place, force=False) as folder:
        assert not place.exists()
        assert folder.parent.parent == place.parent
        fill(folder)
        assert not place.exists()
    assert set(contents(place)) == {"model.onnx", "mnx.json"}
    assert list(place.parent.iterdir()) == [place]


def test_a_bundle_may_be_read_by_others_as_far_as_the_umask_lets_them(place: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert place.stat().st_mode & 0o777 == 0o777 & ~mask


def fail_inside(place: Path, error: BaseException) -> None:
    """Write a bundle, and fail after its last file."""
    with new_bundle(place, force=True) as folder:
        fill(folder)
        raise error


@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt(), UsageError("m", "h")], ids=repr)
def test_an_error_in_the_block_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)):
        fail_inside(tmp_path / "bundle", error)
    assert list(tmp_path.iterdir()) == []


def test_an_error_in_the_block_leaves_the_old_bundle_as_it_was(place: Path) -> None:
    before = contents(place)
    with pytest.raises(RuntimeError):
        fail_inside(place, RuntimeError())
    assert contents(place) == before
    assert list(place.parent.iterdir()) == [place]


def test_force_replaces_a_bundle_whole(place: Path) -> None:
    (place / "stray.txt").write_text("of before")
    with new_bundle(place, force=True) as folder:
        fill(folder, "new")
    assert contents(place).keys() == {"model.onnx", "mnx.json"}
    assert (place / "model.onnx").read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


def test_without_force_a_bundle_stays(place: Path) -> None:
    with pytest.raises(UsageError, match="exists") as caught, new_bundle(place, force=False):
        pytest.fail("the block must not run")
    assert "--force" in caught.value.hint
    assert (place / "model.onnx").read_text() == "old"


def make_folder(place: Path) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")


def make_file(place: Path) -> None:
    place.write_text("years of work")


def make_link(place: Path) -> None:
    elsewhere = place.parent / "elsewhere"
    elsewhere.mkdir()
    fill(elsewhere)
    place.symlink_to(elsewhere)


def make_dangling_link(place: Path) -> None:
    place.symlink_to(place.parent / "nowhere")


@pytest.mark.parametrize("make", [make_link, make_dangling_link])
@pytest.mark.parametrize("force", [True, False])
def test_a_link_is_never_replaced(make: Callable[[Path], None], force: bool, tmp_path: Path) -> None:
    make(tmp_path / "place")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="is a symbolic link"), new_bundle(tmp_path / "place", force=force):
        pytest.fail("the block must not run")
    assert contents(tmp_path) == before


def test_a_place_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def race() -> None:
        with new_bundle(tmp_path / "place", force=False) as folder:
            fill(folder, "second")
            with new_bundle(tmp_path / "place", force=False) as other:
                fill(other, "first")

    with pytest.raises(UsageError, match="exists by now"):
        race()
    assert (tmp_path / "place" / "model.onnx").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


@pytest.mark.parametrize("make", [make_folder, make_file])
def test_force_never_deletes_what_is_not_a_bundle(make: Callable[[Path], None], tmp_path: Path) -> None:
    place = tmp_path / "place"
    make(place)
    before = contents(tmp_path)
    for force, reason in ((True, "is not a bundle"), (False, "exists")):
        with pytest.raises(UsageError, match=reason):
            check_place(place, force=force)
        with pytest.raises(UsageError, match=reason), new_bundle(place, force=force):
            pytest.fail("the block must not run")
    assert contents(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that nobody can write to")
def test_a_place_that_not_even_root_can_write_to_is_refused_at_once() -> None:
    with pytest.raises(MissingError, match="cannot write /proc/x/y: ") as caught:
        check_place(Path("/proc/x/y"), force=False)
    assert caught.value.hint == "give an --out that you may write to"


@pytest.mark.parametrize("force", [True, False])
def test_an_empty_folder_is_taken(force: bool, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with new_bundle(place, force=force) as folder:
        fill(folder)
    assert read_bundle(place).artifacts()[0].data == b"new"


def test_the_old_bundle_comes_back_where_the_new_one_cannot_be_moved(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if ".partial-" in self.parent.name and self.name == place.name:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(MissingError, match="Permission denied"), new_bundle(place, force=True) as folder:
        fill(folder)
    assert (place / "model.onnx").read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


# No space, no permission


def test_a_file_in_place_of_the_parent_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(MissingError, match="cannot write") as caught,
        new_bundle(tmp_path / "file" / "bundle", force=False),
    ):
        pytest.fail("the block must not run")
    assert "--out" in caught.value.hint


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_and_leaves_nothing(code: int, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="the disk ran full") as caught:
        fail_inside(tmp_path / "bundle", OSError(code, os.strerror(code)))
    assert "space" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        done = False
    if not done:
        pytest.skip("mounting a tmpfs needs root and the right to")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_runs_full_is_said_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(MissingError, match="the disk ran full"):
        export(request_for(small_disk / "bundle"))
    assert list(small_disk.iterdir()) == []


# Reading


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is not a bundle: it has no mnx\.json"):
        read_bundle(tmp_path)


def change(place: Path, **values: Any) -> None:
    document = json.loads((place / "mnx.json").read_text())
    (place / "mnx.json").write_text(json.dumps({**document, **values}))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", '{"schema": 1}', '{"files": []}', '{"schema": 1, "files": [{}]}', "\xff"]
)
def test_a_document_that_is_none_is_refused(text: str, place: Path) -> None:
    (place / "mnx.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedInputError, match="not a bundle's document"):
        read_bundle(place)


@pytest.mark.parametrize("field", ["path", "format", "precision", "io", "sha256"])
def test_an_entry_that_is_not_complete_is_refused(field: str, place: Path) -> None:
    (entry,) = json.loads((place / "mnx.json").read_text())["files"]
    for broken in ({k: v for k, v in entry.items() if k != field}, {**entry, field: 7}):
        change(place, files=[broken])
        with pytest.raises(DamagedInputError, match="not a bundle's document"):
            read_bundle(place)


@pytest.mark.parametrize("field", ["model", "source", "files"])
def test_a_document_that_is_not_complete_is_refused(field: str, place: Path) -> None:
    document = json.loads((place / "mnx.json").read_text())
    del document[field]
    (place / "mnx.json").write_text(json.dumps(document))
    with pytest.raises(DamagedInputError, match=field):
        read_bundle(place)


def test_class_names_that_are_gone_or_no_text_are_refused(place: Path) -> None:
    with pytest.raises(DamagedInputError, match=r"labels\.txt: missing"):
        read_bundle(place).labels()
    (place / "labels.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedInputError, match="not UTF-8 text"):
        read_bundle(place).labels()


@pytest.mark.parametrize("schema", [0, 2, "1"])
def test_another_schema_is_refused(schema: Any, place: Path) -> None:
    change(place, schema=schema)
    with pytest.raises(DamagedInputError, match=f"schema {schema}; this version reads 1") as caught:
        read_bundle(place)
    assert "update" in caught.value.hint


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/b", "..", ".", "", "mnx.json/../../x"])
def test_a_file_outside_the_bundle_is_refused(path: str, place: Path) -> None:
    (place.parent / "secret").write_text("secret")
    entry = {"path": path, "format": "onnx", "precision": "fp32", "io": "float32", "sha256": ""}
    change(place, files=[entry])
    with pytest.raises(DamagedInputError, match="outside the bundle"):
        read_bundle(place)


def test_a_file_that_was_changed_is_refused(place: Path) -> None:
    (place / "model.onnx").write_text("Old")
    with pytest.raises(DamagedInputError, match=r"model\.onnx: changed since it was exported"):
        read_bundle(place).artifacts()


def test_a_file_that_is_gone_is_refused(place: Path) -> None:
    (place / "model.onnx").unlink()
    with pytest.raises(DamagedInputError, match="not there"):
        read_bundle(place).artifacts()


def test_a_document_never_holds_what_json_has_no_word_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_document(tmp_path, {"value": float("nan")})


# A real export


def test_a_bundle_holds_what_it_lists(exported: Export) -> None:
    document, folder = exported.bundle.document, exported.bundle.folder
    assert [artifact.file for artifact in exported.bundle.artifacts()] == [
        f"mobilenet_v2_025_96_{precision}.{suffix}"
        for precision in ("fp32", "fp16", "int8", "int8_io_uint8")
        for suffix in ("onnx", "tflite")
    ]
    assert set(document) == {
        "schema", "mobilenet_export", "model", "preprocessing",
        "source", "files", "calibration", "recipe", "decisions",
        "equalization_sha256", "versions", "drift", "self_check", "parts",
    }  # fmt: skip
    assert exported.bundle.artifacts() == exported.artifacts
    assert exported.bundle.labels() == tuple(f"class {index}" for index in range(12))
    expected = {artifact.file for artifact in exported.artifacts} | {
        "mnx.json",
        "labels.txt",
        "run.py",
        "device.zip",
        "layers.json",
        "calibration.jpg",
        "report.html",
    }
    expected |= {"equalization.safetensors"} if document["equalization_sha256"] else set()
    assert {path.name for path in folder.iterdir()} == expected | {"self_check"}


def test_the_document_says_how_to_feed_a_file(exported: Export) -> None:
    for entry in exported.bundle.document["files"]:
        batch = "batch" if entry["format"] == "onnx" else 1
        camera = entry["io"] == "uint8"
        channels_first = entry["format"] == "onnx" and not camera
        assert entry["input"]["layout"] == ("NCHW" if channels_first else "NHWC")
        assert entry["input"]["shape"] == [batch, *((3, 96, 96) if channels_first else (96, 96, 3))]
        assert entry["input"]["type"] == ("uint8" if camera else "float32")
        assert entry["input"]["values"] == ("rgb" if camera else "normalized")
        assert entry["output"] == {"name": "output", "shape": [batch, 12], "type": "float32"}
        assert entry["bytes"] == (exported.bundle.folder / entry["path"]).stat().st_size


def test_the_document_says_what_the_integers_of_input_and_output_mean(tmp_path: Path) -> None:
    made = export(request_for(tmp_path / "bundle", io=("uint8", "int8")))
    entries = [file for file in made.bundle.document["files"] if file["io"] != "float32"]
    assert [entry["path"].rpartition("_96_")[2] for entry in entries] == [
        "fp32_io_uint8.onnx",
        "fp32_io_uint8.tflite",
        "fp16_io_uint8.onnx",
        "fp16_io_uint8.tflite",
        "int8_io_uint8.onnx",
        "int8_io_uint8.tflite",
        "int8_io_int8.tflite",
    ]
    for entry in entries:
        if entry["format"] != "tflite":
            continue
        session = load_plugin("runtimes", "litert").open(made.bundle.artifact(entry["path"]))
        for details, side in ((session._input, entry["input"]), (session._output, entry["output"])):
            assert details["dtype"] == np.dtype(side["type"])
            if side["type"] != "float32":
                assert details["quantization"] == pytest.approx((side["scale"], side["zero_point"]))
        assert entry["input"]["scale"] == 1


def test_the_self_check_can_be_repeated(exported: Export) -> None:
    folder, document = exported.bundle.folder / "self_check", exported.bundle.document
    assert len(document["self_check"]) == 4
    for entry in document["self_check"]:
        data = (folder / entry["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    image_set = ImageSet.open(folder)
    assert list(image_set.names) == sorted(entry["image"] for entry in document["self_check"])
    image_set = image_set.subset(entry["image"] for entry in document["self_check"])
    spec = spec_from_table(dict(document["model"]))
    ((_, batch),) = images.batches(image_set, spec.preprocess, 4)
    expected = json.loads((folder / "expected.json").read_text())
    assert set(expected) == {artifact.file for artifact in exported.artifacts}
    for artifact in exported.artifacts:
        engine = load_plugin("runtimes", {"onnx": "onnxruntime", "tflite": "litert"}[artifact.format])
        outputs = engine.open(artifact).run(batch)
        entries = [expected[artifact.file][name] for name in image_set.names]
        wanted = np.float32([entry["output"] for entry in entries])
        np.testing.assert_allclose(outputs, wanted, rtol=1e-5, atol=1e-6, err_msg=artifact.file)
        for scores, entry in zip(outputs, entries, strict=True):
            best = entry["top5"][0]
            assert best["class"] == scores.argmax()
            assert best["label"] == f"class {best['class']}"
            assert [e["score"] for e in entry["top5"]] == sorted(
                (e["score"] for e in entry["top5"]), reverse=True
            )


def test_two_exports_give_the_same_bytes_of_every_file(exported: Export, tmp_path: Path) -> None:
    again = export(request_for(tmp_path / "elsewhere"))
    first, second = contents(exported.bundle.folder), contents(again.bundle.folder)
    assert first.keys() == second.keys()
    for name, data in first.items():
        assert data == second[name], name


def test_nothing_in_a_bundle_tells_where_or_when_it_was_made(exported: Export) -> None:
    text = (exported.bundle.folder / "mnx.json").read_text()
    assert str(exported.bundle.folder) not in text
    assert str(Path.cwd()) not in text
    assert str(Path.home()) + "/" not in text
    assert "seconds" not in text


def test_embedded_weights_take_their_notice_with_them(tmp_path: Path) -> None:
    spec = resize_spec(find_spec("v2"), None, 96, None)
    made = export(ExportRequest(spec, tmp_path / "bundle", ("fp32",), ("onnx",), FEW_IMAGES))
    assert "BSD" in (made.bundle.folder / "WEIGHTS.md").read_text()
    assert made.bundle.document["source"]["kind"] == "embedded"
    assert made.bundle.document["calibration"] is None
    assert made.bundle.document["recipe"] is None


# Ctrl-C

EXPORT = ["--arch", "v2", "--width", "0.25", "--resolution", "96", "--weights", "none", "--int8", "--fp16"]


MNX = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs are started deaf to Ctrl-C
from mobilenet_export.cli import main
main()
"""


@pytest.mark.parametrize("stage", ["load torch and the network", "capture", "check drift"])
def test_an_interrupted_export_leaves_nothing_and_exits_with_130(stage: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", MNX, "export", *EXPORT]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(stage):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert "error: interrupted" in err
    assert "Traceback" not in err
    assert not out
    assert list(tmp_path.iterdir()) == []
