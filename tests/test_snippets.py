"""`mnx snippet`: the code by which apps run a bundle's files."""

import dataclasses
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_IMAGES
from PIL import Image

from mobilenet_export import cli
from mobilenet_export.bundle import Bundle, read_bundle
from mobilenet_export.errors import DamagedInputError, ExitCode
from mobilenet_export.images import open_image, preprocess
from mobilenet_export.pipeline.export import ExportRequest, export
from mobilenet_export.plugins import plugin_names
from mobilenet_export.snippets import choose_file, read_facts, snippet
from mobilenet_export.spec import find_spec, resize_spec

FILES = [
    "mobilenet_v2_100_96_fp32.onnx",
    "mobilenet_v2_100_96_fp32.tflite",
    "mobilenet_v2_100_96_fp16.tflite",
    "mobilenet_v2_100_96_int8.onnx",
    "mobilenet_v2_100_96_int8.tflite",
    "mobilenet_v2_100_96_int8_io_uint8.onnx",
    "mobilenet_v2_100_96_int8_io_uint8.tflite",
    "mobilenet_v2_100_96_int8_io_int8.tflite",
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """V2 at 96 px with its weights, in all kinds of files."""
    folder = tmp_path_factory.mktemp("snippets") / "bundle"
    spec = resize_spec(find_spec("v2"), None, 96, None)
    recipe = dataclasses.replace(FEW_IMAGES, name="test")
    export(
        ExportRequest(
            spec,
            folder,
            ("fp32", "fp16", "int8"),
            ("onnx", "tflite"),
            recipe,
            io=("float32", "uint8", "int8"),
        )
    )
    return read_bundle(folder)


def pictures(bundle: Bundle) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((bundle.folder / "self_check" / "expected.json").read_text())
    return expected


@pytest.mark.parametrize("file", FILES)
def test_the_python_code_gives_the_recorded_outputs(file: str, bundle: Bundle) -> None:
    script = bundle.folder / "classify.py"
    script.write_text(snippet("python").write(read_facts(bundle, file)))
    code = runpy.run_path(str(script))
    network = code["Network"](bundle.folder / file)
    for picture, expected in pictures(bundle)[file].items():
        scores = code["classify"](network, str(bundle.folder / "self_check" / picture))
        assert scores.dtype == np.float32
        assert int(scores.argmax()) == expected["top5"][0]["class"]
        np.testing.assert_allclose(scores, expected["output"], rtol=1e-4, atol=1e-4)


def test_the_python_code_runs_by_itself(
    bundle: Bundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["snippet", str(bundle.folder), "--for", "python"]) == 0
    printed = capfd.readouterr()
    file = "mobilenet_v2_100_96_int8_io_uint8.onnx"
    taken = bundle.folder / file
    assert printed.err == f"{file}: a file for python\n\nnext: copy {taken} and labels.txt into the app\n"
    assert cli.run(["snippet", str(bundle.folder), "--for", "python", "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document == {"file": file, "for": "python", "code": printed.out}
    (tmp_path / "classify.py").write_text(printed.out)
    for name in (file, "labels.txt"):
        shutil.copy(bundle.folder / name, tmp_path)
    picture, expected = next(iter(pictures(bundle)[file].items()))
    command = [sys.executable, "classify.py", str(bundle.folder / "self_check" / picture)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1].split(maxsplit=1)[1] == expected["top5"][0]["label"]


def test_the_python_code_reads_images_as_the_package_does(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("mobilenet_v2_100_96_fp32.onnx", "labels.txt"):
        shutil.copy(bundle.folder / name, tmp_path)
    script = tmp_path / "classify.py"
    script.write_text(snippet("python").write(read_facts(bundle, "mobilenet_v2_100_96_fp32.onnx")))
    grey = np.linspace(0, 65535, 200 * 150).astype(np.uint16).reshape(150, 200)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    pixels = runpy.run_path(str(script))["read_image"](str(tmp_path / "grey.png"))
    how = find_spec("v2").preprocess
    how = dataclasses.replace(how, resize_px=110, crop_px=96, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    ours = preprocess(open_image(tmp_path / "grey.png", "grey.png"), how)
    np.testing.assert_allclose(pixels.transpose(2, 0, 1), ours, atol=1e-2)
    (tmp_path / "text.png").write_text("no image")
    for file in ("text.png", "nothing.png"):
        done = subprocess.run(
            [sys.executable, "classify.py", file], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"{file}: no image that can be read: ")
        assert "Traceback" not in done.stderr


def test_a_file_that_is_gone_is_said(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DamagedInputError, match=r"fp32.onnx is missing"):
        choose_file(dataclasses.replace(bundle, folder=tmp_path), snippet("python"), FILES[0])


def test_ort_files_run_in_onnx_runtime(bundle: Bundle) -> None:
    entry = {**bundle.document["files"][0], "path": "net.ort", "format": "ort"}
    facts = read_facts(dataclasses.replace(bundle, document={**bundle.document, "files": [entry]}), "net.ort")
    assert "onnxruntime.InferenceSession(path)" in snippet("python").write(facts)
    assert 'forResource: "net", ofType: "ort"' in snippet("ios").write(facts)
    assert "ORTSession" in snippet("ios").write(facts)


@pytest.mark.parametrize("name", plugin_names("snippets"))
def test_every_snippet_is_filled_for_every_file_that_it_takes(name: str, bundle: Bundle) -> None:
    chosen = snippet(name)
    assert chosen.name == name
    written = {
        file: chosen.write(read_facts(bundle, file))
        for file in FILES
        if file.rpartition(".")[2] in chosen.formats
    }
    assert len(set(written.values())) == len(written) > 0
    for file, text in written.items():
        assert "«" not in text
        assert "None" not in text.replace("-> None", "").replace("[None]", "")
        assert file.rpartition(".")[0] in text
        assert re.search(r"(RESIZE_PX.*|resizePx) = 110", text)
        assert ("0.485" in text) == ("_io_" not in file)
        assert max(map(len, text.splitlines())) <= 130


def test_phones_are_given_what_their_files_take(bundle: Bundle) -> None:
    def code(kind: str, file: str) -> str:
        return snippet(kind).write(read_facts(bundle, f"mobilenet_v2_100_96_{file}"))

    assert "values[i * cropPx * cropPx + pixel] = (Float(channel) / 255 - mean[i]) / std[i]" in code(
        "ios", "fp32.onnx"
    )
    assert "let shape = [1, 3, cropPx, cropPx]" in code("ios", "fp32.onnx")
    assert "values[3 * pixel + i] = channel\n" in code("ios", "int8_io_uint8.onnx")
    assert "elementType: .uInt8" in code("ios", "int8_io_uint8.onnx")
    assert "import TensorFlowLite\n" in code("ios", "int8_io_uint8.tflite")
    assert "inputs[0].writeFloat(values)" in code("android", "fp32.tflite")
    assert "FloatArray(3 * pixels.size)" in code("android", "fp32.tflite")
    assert "(channel - 128).toByte()" in code("android", "int8_io_int8.tflite")
    facts = read_facts(bundle, "mobilenet_v2_100_96_int8_io_int8.tflite")
    assert facts.scale is not None
    assert f".map {{ {facts.scale}f * (it - {facts.zero_point}) }}" in code("android", "int8_io_int8.tflite")


def test_a_camera_ready_file_is_preferred(bundle: Bundle) -> None:
    assert choose_file(bundle, snippet("android"), None) == "mobilenet_v2_100_96_int8_io_uint8.tflite"
    few = dataclasses.replace(
        bundle,
        document={
            **bundle.document,
            "files": [e for e in bundle.document["files"] if "_io_" not in e["path"]],
        },
    )
    assert choose_file(few, snippet("ios"), None) == "mobilenet_v2_100_96_int8.tflite"


def test_what_does_not_fit_is_refused(bundle: Bundle, capfd: pytest.CaptureFixture[str]) -> None:
    for options, words in (
        (["--for", "androit"], "error: unknown snippet: androit\nhint: did you mean android?"),
        (["--for", "android", "--file", "x.tflite"], "error: unknown file of the bundle: x.tflite"),
        (
            ["--for", "android", "--file", FILES[0]],
            f"error: {FILES[0]}: no file for android, which takes tflite\nhint: export --formats tflite",
        ),
    ):
        assert cli.run(["snippet", str(bundle.folder), *options]) == ExitCode.USAGE
        printed = capfd.readouterr()
        assert words in printed.err
        assert not printed.out


def test_a_bundle_cannot_smuggle_code_into_an_app(bundle: Bundle) -> None:
    entry = {
        **bundle.document["files"][0],
        "output": {"name": 'x"; evil("', "type": "float32", "shape": [1, 2]},
    }
    hostile = dataclasses.replace(bundle, document={**bundle.document, "files": [entry]})
    with pytest.raises(DamagedInputError, match="cannot stand in code"):
        read_facts(hostile, entry["path"])


def test_a_bundle_of_an_older_version_says_too_little(bundle: Bundle) -> None:
    entry = dict(bundle.document["files"][0])
    entry["input"] = {key: value for key, value in entry["input"].items() if key != "values"}
    old = dataclasses.replace(bundle, document={**bundle.document, "files": [entry]})
    document = {"files": [{"path": FILES[0], "format": "onnx", "precision": "fp32", "io": "uint9"}]}
    with pytest.raises(DamagedInputError, match="does not know"):
        choose_file(Bundle(bundle.folder, document), snippet("python"), None)
    with pytest.raises(DamagedInputError, match="does not say how to feed"):
        read_facts(old, entry["path"])
