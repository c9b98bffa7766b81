"""What `make fuzz` and a reading for it found: each ended in a traceback, a hang or a file where none belongs."""

import io
import json
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import tiny_graph

from mobilenet_export import images
from mobilenet_export.agent.check import _read_outputs
from mobilenet_export.agent.cold import refuse_crashing
from mobilenet_export.architectures import checkpoint_file
from mobilenet_export.architectures.checkpoint_file import load_checkpoint, tensors_from_bytes
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import DOCUMENT, read_bundle
from mobilenet_export.capture import capture_onnx
from mobilenet_export.deployment.commands import Result
from mobilenet_export.deployment.fleet import read_fleet
from mobilenet_export.deployment.measure import _document
from mobilenet_export.documents import parse_json, parse_toml
from mobilenet_export.errors import DamagedInputError, ExitCode, explain_error
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.html_report.holdings import _read_devices
from mobilenet_export.images import ImageSet
from mobilenet_export.plugins import load_plugin
from mobilenet_export.recipe import read_recipe
from mobilenet_export.requirements.ort import read_requirements
from mobilenet_export.scratch import scratch_folder
from mobilenet_export.spec import find_spec, is_inside, read_spec, spec_from_table, spec_to_table

# Documents

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", ["NaN", "[1e400]", '{"a": -Infinity}', DEEP, '"\\ud800"', "9" * 5000, "{", "\xff"]
)
def test_json_that_cannot_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text.encode("latin-1"))


def test_json_with_a_pair_of_halves_is_text() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"


@pytest.mark.parametrize("text", [f"a = {DEEP}", f"a = {'9' * 5000}", "a", "a = '\xff'"])
@pytest.mark.parametrize("read", [read_spec, read_recipe, read_fleet])
def test_toml_of_no_sane_depth_or_number_is_damaged(read: Any, text: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"."):
        parse_toml(path.read_bytes())
    with pytest.raises(DamagedInputError):
        read(path)


def test_a_device_that_reports_an_infinite_number_is_refused() -> None:
    with pytest.raises(DamagedInputError, match="1e400 is no number"):
        _document("pi", Result(0, b'{"kind": "latency", "rows": [], "spread": 1e400}', ""), "latency")


# Variants


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "../../home"),
        ("name", "a\nb"),
        ("classes", 10**12),
        ("batch_norm_eps", float("nan")),
        ("labels", "../../secret"),
        ("labels", "/etc/passwd"),
        ("limits", 3),
        ("limits", {"int8_sqnr_db": float("nan")}),
        ("preprocess", {"resize_px": 10**9}),
        ("preprocess", {"mean": [10**400, 0, 0]}),
        ("preprocess", {"std": [float("nan"), 1, 1]}),
    ],
)
def test_a_variant_out_of_reason_is_refused(field: str, value: Any) -> None:
    table = spec_to_table(find_spec("v2"))
    table["preprocess"]["mean"] = list(table["preprocess"]["mean"])
    table[field] = {**table[field], **value} if isinstance(value, dict) else value
    with pytest.raises((TypeError, ValueError)):
        spec_from_table(table)


@pytest.mark.parametrize("name", ["", ".", "..", "/etc", "a/../b", "a\\b", "a\0", 3, None])
def test_a_name_outside_a_folder_is_told(name: Any) -> None:
    assert not is_inside(name)
    assert is_inside("labels/imagenet.txt")


# Bundles

ENTRY = {"path": "a.onnx", "format": "onnx", "precision": "fp32", "io": "float32", "sha256": "0"}
WHOLE = {
    "schema": 1,
    "model": {"preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]}},
    "source": {"kind": "random", "origin": "", "sha256": ""},
    "files": [ENTRY],
}


@pytest.mark.parametrize(
    "change",
    [
        {"parts": [{"path": "../../etc/passwd", "sha256": ""}]},
        {"parts": [{"sha256": ""}]},
        {"parts": 3},
        {"self_check": [{"image": "/etc/passwd", "sha256": ""}]},
        {"self_check": ["image"]},
        {"files": [ENTRY | {"path": "a\0"}]},
        {"model": {"preprocess": {"mean": 3, "std": [1, 1, 1]}}},
        {"source": {"kind": 3, "origin": "", "sha256": ""}},
    ],
)
def test_a_bundle_that_lists_what_is_none_of_its_files_is_refused(change: Any, tmp_path: Path) -> None:
    (tmp_path / DOCUMENT).write_text(json.dumps(WHOLE))
    assert read_bundle(tmp_path).document == WHOLE
    (tmp_path / DOCUMENT).write_text(json.dumps(WHOLE | change))
    with pytest.raises(DamagedInputError):
        read_bundle(tmp_path)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1e400", "1e308", '"x"'])
def test_a_kept_report_of_no_sane_numbers_is_left_out(number: str, tmp_path: Path) -> None:
    document = {"host": "pi", "verdict": "pass", "check": None}
    latency = {"kind": "latency", "rows": [], "notes": [], "machine": {"board": "a board", "cores": "@"}}
    text = json.dumps(document | {"latency": latency}).replace('"@"', number)
    (tmp_path / "pi.json").write_text(text)
    devices, left_out = _read_devices(tmp_path)
    assert bool(left_out) != bool(devices)


# Images


def test_an_array_without_pixels_is_refused_whatever_its_header_counts(tmp_path: Path) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 0, 32, 3), }\n"
    path = tmp_path / "set.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DamagedInputError):
        ImageSet.open(path)


def test_a_npz_that_unpacks_to_too_much_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=np.zeros((20, 64, 64, 3), np.uint8))
    assert len(ImageSet.open(tmp_path / "set.npz")) == 20
    monkeypatch.setattr(images, "MOST_NPZ_BYTES", 1000)
    with pytest.raises(DamagedInputError, match="unpacks to"):
        ImageSet.open(tmp_path / "set.npz")


@pytest.mark.parametrize("row", [{"file": ["a"]}, {"file": 3}, {"role": []}, {"sha256": 1.5}])
def test_a_manifest_whose_entries_are_no_text_is_refused(row: dict[str, Any], tmp_path: Path) -> None:
    entry = {"file": "a.png", "sha256": "0", "role": "check"} | row
    fields = ", ".join(f"{name} = {json.dumps(value)}" for name, value in entry.items())
    text = f'schema = "{images.MANIFEST_SCHEMA}"\nimages = [{{{fields}}}, {{{fields}}}]\n'
    (tmp_path / images.MANIFEST).write_text(text)
    (tmp_path / "a.png").touch()
    with pytest.raises(DamagedInputError, match="is not text"):
        ImageSet.open(tmp_path)


def test_a_class_of_thousands_of_digits_is_none(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"a.png,{'9' * 5000}\n")
    with pytest.raises(DamagedInputError, match="not a file and a class index"):
        images.read_labels_csv(tmp_path / "labels.csv")


def test_outputs_with_a_broken_header_are_refused(tmp_path: Path) -> None:
    header = b"{'descr': (\n"
    path = tmp_path / "outputs.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DamagedInputError):
        _read_outputs(path)


# Checkpoints


def saved(value: Any, folder: Path) -> Path:
    torch.save(value, folder / "x.pth")
    return folder / "x.pth"


def test_a_dict_that_holds_itself_does_not_hang(tmp_path: Path) -> None:
    nested: dict[str, Any] = {"w": torch.ones(2)}
    nested["model"] = nested
    with pytest.raises(DamagedInputError, match="not a state_dict"):
        load_checkpoint(saved(nested, tmp_path))


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path: Path) -> None:
    """One number, repeated by strides of 0, would take 4 TB."""
    path = saved({"w": torch.ones(1).expand(1_000_000, 1_000_000)}, tmp_path)
    with pytest.raises(DamagedInputError, match="larger than what is stored"):
        load_checkpoint(path)


def test_a_sparse_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedInputError, match="no plain tensor"):
        load_checkpoint(saved({"w": torch.eye(3).to_sparse()}, tmp_path))


def test_a_checkpoint_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1_000_000))
    (tmp_path / "x.pth").write_bytes(stream.getvalue())
    monkeypatch.setattr(checkpoint_file, "_MOST_UNPACKED_BYTES", 1000)
    with pytest.raises(DamagedInputError, match="unpack to 1,000,000"):
        load_checkpoint(tmp_path / "x.pth")


def test_a_zip_whose_directory_lies_is_refused() -> None:
    """zipfile then looks for members before the beginning, and raises a ValueError."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("model.weights.h5", b"")
        archive.writestr("data.pkl", b"cos\nsystem\n.")
    data = bytearray(stream.getvalue())
    assert list(checkpoint_file._code_wanted(bytes(data))) == ["os.system"]
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = (2**31 - 1).to_bytes(4, "little")
    assert list(checkpoint_file._code_wanted(bytes(data))) == []
    with pytest.raises(DamagedInputError, match="Keras archive"):
        tensors_from_bytes(bytes(data), "x.keras")


# Model files


def test_a_node_without_its_inputs_is_refused(tmp_path: Path) -> None:
    model = onnx.load_from_string(onnx_format.write_float(tiny_graph(), "fp32"))
    (held,) = [one for one in model.graph.initializer if one.name == "stem.weight"]
    held.dims[0] = 1000
    with pytest.raises(ValueError, match="malformed"):
        onnx_format.array_of(held)
    path = tmp_path / "own.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DamagedInputError):
        capture_onnx(path, None)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "link"])
def test_weights_outside_the_models_folder_are_not_read(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load_from_string(onnx_format.write_float(tiny_graph(), "fp32"))
    held = model.graph.initializer[0]
    (tmp_path / "secret").write_bytes(held.raw_data)
    (folder / "link").symlink_to(tmp_path / "secret")
    onnx.external_data_helper.set_external_data(held, location)
    held.ClearField("raw_data")
    (folder / "own.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(DamagedInputError):
        capture_onnx(folder / "own.onnx", None)


def test_an_ort_file_with_a_nameless_operator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    session = {"ort_version": "6", "model": {"graph": {"nodes": [{"since_version": 1}]}}}
    monkeypatch.setattr("mobilenet_export.requirements.ort.read", lambda _data: session)
    with pytest.raises(ValueError, match="op_type"):
        read_requirements(b"")


def crashing(data: bytes) -> bytes:
    """One of 700 random damages makes LiteRT 2.3 crash rather than refuse."""
    wrong, rng = bytearray(data), random.Random(263)
    for _ in range(rng.choice([1, 1, 2, 8])):
        wrong[rng.randrange(len(wrong))] = rng.randrange(256)
    return bytes(wrong)


def test_a_runtime_that_crashes_on_a_file_takes_nothing_with_it() -> None:
    engine = load_plugin("runtimes", "litert")
    right = tflite_format.write_float(tiny_graph(), "fp32")
    refuse_crashing(Artifact("right.tflite", "tflite", "fp32", right), engine)
    refuse_crashing(
        Artifact("cut.tflite", "tflite", "fp32", right[:-100]), engine
    )  # which the runtime refuses
    with pytest.raises(DamagedInputError, match="litert crashes on it"):
        refuse_crashing(Artifact("broken.tflite", "tflite", "fp32", crashing(right)), engine)


@pytest.mark.parametrize("command", [["validate", "--arch", "v2"], ["bench"]])
def test_a_file_that_a_runtime_crashes_on_is_refused(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(crashing(tflite_format.write_float(tiny_graph(), "fp32")))
    main = "from mobilenet_export.cli import main; main()"
    name, *options = command
    done = subprocess.run(
        [sys.executable, "-c", main, name, path, *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.DAMAGED, done.stderr
    assert "error: " in done.stderr
    assert "hint: " in done.stderr


# What killed processes leave


def test_a_folder_in_use_stays_and_one_of_a_dead_process_goes(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from mobilenet_export.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1]), ".a-"):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    (left,) = tmp_path.iterdir()
    with scratch_folder(tmp_path, ".a-") as first:
        assert not left.exists()
        with scratch_folder(tmp_path, ".a-") as second:
            assert first != second
            assert first.exists()
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_no_bug_of_ours() -> None:
    message, hint, code = explain_error(MemoryError())
    assert code == ExitCode.MISSING
    assert message
    assert hint
