"""`mnx compat`: its tables against the runtimes installed here, what files need, and the verdicts."""

import hashlib
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema
from conftest import tiny_graph
from onnx import TensorProto, helper

import mobilenet_export
from mobilenet_export import cli
from mobilenet_export.bundle import SCHEMA, write_document
from mobilenet_export.compat.boards import BOARDS, find_board
from mobilenet_export.compat.facts import Package, Requirements, Version, parse_version, version_text
from mobilenet_export.compat.judge import Target, does_load, has_wheel, judge
from mobilenet_export.errors import ExitCode, UsageError
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.packages.litert import PACKAGE as LITERT
from mobilenet_export.packages.onnxruntime import PACKAGE as ONNXRUNTIME
from mobilenet_export.packages.tflite_runtime import PACKAGE as TFLITE_RUNTIME
from mobilenet_export.pipeline.compat import CompatRequest, compat, find_release
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.requirements import onnx as onnx_requirements
from mobilenet_export.requirements import tflite as tflite_requirements

PACKAGES = (LITERT, ONNXRUNTIME, TFLITE_RUNTIME)
LEGACY = Path(mobilenet_export.__file__).parents[1] / ".venv-legacy" / "bin" / "python"


def onnx_file(opset: int = 13, ir_version: int = 7, operator: str = "Relu", domain: str = "") -> bytes:
    """One node from x to y."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    imports = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=imports)
    model.ir_version = ir_version
    data: bytes = model.SerializeToString()
    return data


def tflite_file(code: int, operator_version: int, custom: bytes | None = None, *, used: bool = True) -> bytes:
    """A file whose table of operators has one entry; used, without the options that most need, or just listed."""
    import flatbuffers  # noqa: PLC0415

    kind = schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, 127), customCode=custom, version=operator_version, builtinCode=code
    )
    tensors = [schema.TensorT(shape=np.array([1], np.int32), name=name, buffer=0) for name in "xy"]
    ends = [np.array([index], np.int32) for index in range(2)]
    graph = schema.SubGraphT(
        tensors=tensors,
        inputs=ends[0],
        outputs=ends[1],
        operators=[schema.OperatorT(opcodeIndex=0, inputs=ends[0], outputs=ends[1])] if used else [],
    )
    model = schema.ModelT(version=3, operatorCodes=[kind], subgraphs=[graph], buffers=[schema.BufferT()])
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# The tables


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_table_is_in_order_and_whole(package: Package) -> None:
    versions = [release.version for release in package.releases]
    assert versions == sorted(set(versions))
    assert set(package.usual) <= set(versions)
    for release in package.releases:
        assert release.stamps
        for wheels in release.wheels:
            assert wheels.oldest_python <= wheels.newest_python
    for problem in package.problems:
        assert problem.first in versions
        assert problem.fixed is None or problem.fixed in versions
        assert all(cpu in {board.cpu for board in BOARDS} for cpu in problem.cpus)
        assert all((problem.label, problem.happens, problem.remedy, problem.source))


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_newer_release_can_all_that_an_older_one_can(package: Package) -> None:
    for old, new in zip(package.releases, package.releases[1:], strict=False):
        assert all(value <= new.stamps[name] for name, value in old.stamps.items())
        if old.operators is not None and new.operators is not None:
            assert all(value <= new.operators[name] for name, value in old.operators.items())


def test_every_format_has_requirements_and_a_package() -> None:
    assert plugin_names("requirements") == plugin_names("formats")
    assert {name for package in PACKAGES for name in package.formats} == set(plugin_names("formats"))
    assert {load_plugin("packages", name).name for name in plugin_names("packages")} == {
        package.name for package in PACKAGES
    }


def test_onnxruntime_here_accepts_what_the_table_says_and_no_more() -> None:
    installed = parse_version(onnxruntime.__version__, 3)
    release = ONNXRUNTIME.nearest(installed)
    assert release
    opset, ir_version = release.stamps["opset"], release.stamps["IR"]
    for data in (onnx_file(opset, 7), onnx_file(13, ir_version)):
        onnxruntime.InferenceSession(data)
    if release.version != installed:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} is not in the table; it loads what is promised")
    for data in (onnx_file(opset + 1, 7), onnx_file(13, ir_version + 1)):
        with pytest.raises(Exception, match=r"under development|max supported IR version"):
            onnxruntime.InferenceSession(data)


def test_litert_here_has_the_operators_that_the_table_says_and_no_more() -> None:
    installed = parse_version(version("ai-edge-litert"), 3)
    release = LITERT.nearest(installed)
    assert release
    assert release.operators
    codes = {name: code for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    for name, highest in release.operators.items():
        interpreter.Interpreter(model_content=tflite_file(codes[name], highest, used=False))
        if release.version == installed:
            with pytest.raises(ValueError, match="Didn't find op"):
                interpreter.Interpreter(model_content=tflite_file(codes[name], highest + 1, used=False))


def test_onnxruntime_and_tflite_runtime_of_2023_agree(tmp_path: Path) -> None:
    """The real releases 1.16.3 and 2.14.0 accept and refuse as the tables say."""
    if not LEGACY.is_file():
        pytest.skip("no .venv-legacy; make test-legacy")
    fully_connected = schema.BuiltinOperator.FULLY_CONNECTED
    files = {
        "ours.onnx": onnx_format.write_float(tiny_graph(), "fp32"),
        "highest.onnx": onnx_file(19, 9),
        "opset.onnx": onnx_file(20, 9),
        "ir.onnx": onnx_file(13, 10),
        "ours.tflite": tflite_format.write_float(tiny_graph(), "fp16"),
        "highest.tflite": tflite_file(fully_connected, 10),
        "version.tflite": tflite_file(fully_connected, 11),
        "operator.tflite": tflite_file(schema.BuiltinOperator.STABLEHLO_ADD, 1),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, onnxruntime\nfrom tflite_runtime.interpreter import Interpreter\n"
        "for path in sys.argv[1:]:\n    try:\n"
        "        onnxruntime.InferenceSession(path) if path.endswith('.onnx') else Interpreter(path)\n"
        "        print(True)\n    except Exception:\n        print(False)\n"
    )
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run([LEGACY, "-c", code, *paths], capture_output=True, text=True, check=True)
    request = CompatRequest(
        tuple(map(Path, paths)), ("onnxruntime==1.16.3", "tflite-runtime==2.14"), python="3.11"
    )
    said = {row.file: row.loads.yes for row in compat(request).judgements}
    assert [said[path] for path in paths] == [line == "True" for line in done.stdout.split()]


# What files need


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_our_onnx_files_need_opset_13_and_ir_7(precision: str) -> None:
    needs = onnx_requirements.read_requirements(onnx_format.write_float(tiny_graph(), precision))  # type: ignore[arg-type]
    assert needs.stamps == {"opset": 13, "IR": 7}
    assert {"Conv": 11, "Gemm": 13}.items() <= needs.operators.items()
    assert needs.summary == f"opset 13, IR 7, {len(needs.operators)} operators"


def test_our_tflite_files_load_in_every_release() -> None:
    needs = tflite_requirements.read_requirements(tflite_format.write_float(tiny_graph(), "fp16"))
    assert needs.stamps == {"schema": 3}
    assert {"CONV_2D": 1, "DEQUANTIZE": 3}.items() <= needs.operators.items()
    for package in (TFLITE_RUNTIME, LITERT):
        assert all(does_load(needs, package, release.version).yes for release in package.releases)


def test_operators_within_branches_and_functions_count() -> None:
    inner = helper.make_graph(
        [helper.make_node("Mish", ["x"], ["z"])],
        "branch",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    model = onnx.load_from_string(onnx_file(18))
    model.graph.node.append(helper.make_node("If", ["c"], ["w"], then_branch=inner, else_branch=inner))
    model.graph.node.append(helper.make_node("Mine", ["x"], ["v"], domain="my"))
    body = [helper.make_node("Elu", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("my", "Mine", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
    )
    needs = onnx_requirements.read_requirements(model.SerializeToString())
    assert {"Mish": 18, "If": 16, "Elu": 6}.items() <= needs.operators.items()
    assert set(needs.stamps) == {"opset", "IR"}
    assert "my.Mine" not in needs.operators


def test_a_vendors_operators_are_unknown_not_guessed() -> None:
    needs = onnx_requirements.read_requirements(onnx_file(operator="Gelu", domain="com.microsoft"))
    assert needs.operators == {"com.microsoft.Gelu": 1}
    answer = does_load(needs, ONNXRUNTIME, (1, 32, 0))
    assert answer.text == "unknown: our table says nothing of com.microsoft opset"


def test_a_custom_operator_is_refused_by_name() -> None:
    needs = tflite_requirements.read_requirements(
        tflite_file(schema.BuiltinOperator.CUSTOM, 1, custom=b"Mine")
    )
    assert does_load(needs, LITERT, (2, 3, 0)).text == "no: no custom operator Mine"


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("onnx", b""),
        ("onnx", b"\xff" * 40),
        ("onnx", onnx.load_from_string(onnx_file()).graph.SerializeToString()),
        ("tflite", b""),
        ("tflite", b"\x00" * 40),
        ("tflite", tflite_file(0, 1)[:60]),
        ("tflite", b"\xff\xff\xff\x7fTFL3" + b"\xff" * 40),
    ],
)
def test_a_damaged_file_is_a_value_error(form: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load_plugin("requirements", form)(data)


def test_a_domain_without_an_opset_is_named() -> None:
    model = onnx.load_from_string(onnx_file())
    del model.opset_import[:]
    with pytest.raises(ValueError, match=r"states no opset of ai\.onnx, which Relu is of"):
        onnx_requirements.read_requirements(model.SerializeToString())


# The judgement

PLAIN = Requirements({"opset": 13, "IR": 7}, {"Conv": 11})
NEW = Requirements({"opset": 21, "IR": 10}, {"Conv": 11})


@pytest.mark.parametrize(
    ("needs", "package", "release", "text"),
    [
        (PLAIN, ONNXRUNTIME, (1, 16, 3), "yes"),
        (NEW, ONNXRUNTIME, (1, 16, 3), "no: opset 21 > 19, IR 10 > 9"),
        (NEW, ONNXRUNTIME, (1, 18, 0), "yes"),
        (
            NEW,
            ONNXRUNTIME,
            (1, 17, 9),
            "unknown: not in our table; 1.17.3 before it: opset 21 > 20, IR 10 > 9",
        ),
        (NEW, ONNXRUNTIME, (9, 0, 0), "yes: 1.32.0 before it does; not in our table"),
        (PLAIN, ONNXRUNTIME, (1, 2, 0), "unknown: older than 1.15.0, the first in our table"),
        (
            Requirements({"schema": 3}, {"FULLY_CONNECTED": 12}),
            TFLITE_RUNTIME,
            (2, 14, 0),
            "no: FULLY_CONNECTED v12 > v10",
        ),
        (Requirements({"schema": 3}, {"FULLY_CONNECTED": 12}), LITERT, (1, 0, 0), "yes"),
        (Requirements({"schema": 4}, {"ADD": 1}), LITERT, (2, 3, 0), "no: schema 4 > 3"),
    ],
)
def test_whether_a_release_loads(needs: Requirements, package: Package, release: Version, text: str) -> None:
    assert does_load(needs, package, release).text == text


@pytest.mark.parametrize(
    ("package", "release", "device", "python", "text"),
    [
        (ONNXRUNTIME, (1, 32, 0), "pi5", None, "yes"),
        (ONNXRUNTIME, (1, 16, 3), "pi5", None, "no: Python 3.8–3.11 only"),
        (ONNXRUNTIME, (1, 16, 3), "pi5", (3, 11), "yes"),
        (ONNXRUNTIME, (1, 32, 0), "pi4-32bit", (3, 11), "no: none for armv7l"),
        (LITERT, (2, 3, 0), "pi3-32bit", (3, 11), "no: none for armv7l"),
        (TFLITE_RUNTIME, (2, 14, 0), "pi3-32bit", (3, 11), "yes"),
        (TFLITE_RUNTIME, (2, 14, 0), "pi4", (3, 9), "no: needs glibc 2.34"),
        (TFLITE_RUNTIME, (2, 14, 0), "pc", (3, 13), "no: Python 3.8–3.11 only"),
        (LITERT, (1, 0, 1), "pi4", (3, 11), "no: none for aarch64"),
        (ONNXRUNTIME, (1, 32, 0), "jetson-nano", None, "no: Python 3.11–3.14 only"),
        (ONNXRUNTIME, (1, 32, 0), None, (3, 12), "yes: aarch64 x86_64"),
        (TFLITE_RUNTIME, (2, 14, 0), None, (3, 11), "yes: aarch64 armv7l x86_64"),
        (ONNXRUNTIME, (1, 32, 0), None, None, "yes: Python 3.11–3.14"),
        (ONNXRUNTIME, (1, 33, 0), "pi5", None, "unknown: not in our table"),
    ],
)
def test_whether_pip_finds_a_wheel(
    package: Package, release: Version, device: str | None, python: Version | None, text: str
) -> None:
    board = find_board(device) if device else None
    assert has_wheel(package, release, Target(board, python)).text == text


@pytest.mark.parametrize(
    ("device", "release", "works"),
    [
        ("pi3", (1, 21, 0), False),
        ("pi4", (1, 21, 0), False),
        ("pi02w", (1, 21, 0), False),
        ("pi5", (1, 21, 0), True),
        ("pi4", (1, 20, 1), True),
        ("pi4", (1, 21, 1), True),
        (None, (1, 21, 0), True),
    ],
)
def test_onnxruntime_1_21_0_is_known_to_die_on_old_cores(
    device: str | None, release: Version, works: bool
) -> None:
    board = find_board(device) if device else None
    row = judge("a.onnx", PLAIN, ONNXRUNTIME, release, Target(board, (3, 11)))
    assert row.works is works
    assert bool(row.known_bad) is not works
    assert [problem.label for problem in row.cautions] == ([] if device else ["dies on import"])


@pytest.mark.parametrize(
    ("release", "warned"),
    [
        ("onnxruntime==1.18", True),
        ("onnxruntime==1.19", False),
        ("tflite-runtime==2.14", True),
        ("litert", False),
    ],
)
def test_numpy_2_is_warned_of(release: str, warned: bool) -> None:
    package, number = find_release(release)
    row = judge("a", PLAIN, package, number, Target())
    assert ("needs numpy < 2" in [problem.label for problem in row.cautions]) is warned


@pytest.mark.parametrize(
    ("text", "name", "number"),
    [
        ("onnxruntime==1.16", "onnxruntime", "1.16.0"),
        ("onnxruntime==1.16.3", "onnxruntime", "1.16.3"),
        ("OnnxRuntime == 1.16.3", "onnxruntime", "1.16.3"),
        ("tflite_runtime==2.14", "tflite-runtime", "2.14.0"),
        ("tflite-runtime", "tflite-runtime", "2.14.0"),
        ("litert==2.3", "ai-edge-litert", "2.3.0"),
        ("ai_edge_litert==2.3", "ai-edge-litert", "2.3.0"),
        ("onnxruntime", "onnxruntime", "1.32.0"),
    ],
)
def test_the_ways_to_spell_a_release(text: str, name: str, number: str) -> None:
    package, found = find_release(text)
    assert (package.name, version_text(found)) == (name, number)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("onnxruntim==1.16", "did you mean onnxruntime?"),
        ("onnxruntime=1.16", "did you mean onnxruntime==1.16?"),
        ("onnxruntime>=1.16", "did you mean onnxruntime==1.16?"),
        ("onnxruntime ~= 1.16", "did you mean onnxruntime==1.16?"),
        ("onnxruntime==", "numbers and dots"),
        ("onnxruntime==1.x", "numbers and dots"),
        ("onnxruntime==-1", "numbers and dots"),
        ("onnxruntime==1..2", "numbers and dots"),
        ("onnxruntime==1.16.3.1", "numbers and dots"),
        ("onnxruntime==1.٣", "numbers and dots"),
        ("", "known: "),
    ],
)
def test_a_release_that_is_none_gets_a_hint(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_release(text)
    assert hint in caught.value.hint


# The command


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our files, one newer than old runtimes, and damaged ones."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ours.onnx").write_bytes(onnx_format.write_float(tiny_graph(), "fp32"))
    (tmp_path / "ours.tflite").write_bytes(tflite_format.write_float(tiny_graph(), "fp32"))
    (tmp_path / "new.onnx").write_bytes(onnx_file(21, 10))
    (tmp_path / "vendor.onnx").write_bytes(onnx_file(operator="Gelu", domain="com.microsoft"))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "broken.tflite").write_bytes(b"no model")
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("ours.onnx ours.tflite", ExitCode.DONE),
        ("ours.onnx --runtime onnxruntime==1.16", ExitCode.DONE),
        ("ours.onnx ours.tflite --runtime tflite_runtime==2.14 --device pi4 --python 3.11", ExitCode.DONE),
        ("new.onnx --runtime onnxruntime==1.16", ExitCode.CHECK_FAILED),
        ("new.onnx", ExitCode.DONE),
        ("ours.onnx --device pi4 --runtime onnxruntime==1.21", ExitCode.CHECK_FAILED),
        ("ours.onnx --device pi4", ExitCode.DONE),
        ("ours.onnx --device pi4-32bit", ExitCode.CHECK_FAILED),
        ("ours.tflite --python 3.13 --runtime tflite-runtime", ExitCode.CHECK_FAILED),
        ("vendor.onnx", ExitCode.INCONCLUSIVE),
        ("ours.onnx --runtime onnxruntime==1.99", ExitCode.INCONCLUSIVE),
    ],
)
def test_the_verdict_is_the_exit_code(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: ExitCode
) -> None:
    assert cli.run(["compat", *arguments.split()]) == code
    said = {ExitCode.DONE: "pass", ExitCode.CHECK_FAILED: "fail", ExitCode.INCONCLUSIVE: "inconclusive"}
    printed = capsys.readouterr()
    assert printed.out.endswith(f"verdict: {said[code]}\n")
    first = arguments.split(maxsplit=1)[0]
    assert printed.err == (f"\nnext: mnx bench {first}\n" if code == ExitCode.DONE else "")
    cli.run(["compat", *arguments.split(), "--json"])
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == said[code]
    assert all(row["file"] in document["files"] for row in document["rows"])


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        ("gone.onnx", ExitCode.USAGE, "no such file or folder: gone.onnx"),
        ("notes.txt", ExitCode.USAGE, "no format ends in .txt"),
        ("empty", ExitCode.USAGE, "empty is not a bundle"),
        ("broken.onnx", ExitCode.DAMAGED, "broken.onnx: not an ONNX model"),
        ("ours.onnx broken.tflite", ExitCode.DAMAGED, "broken.tflite: not a TFLite model"),
        ("ours.onnx --runtime litert", ExitCode.USAGE, "none of the runtimes reads any of the files"),
        ("ours.onnx --runtime tensorrt", ExitCode.USAGE, "unknown runtime: tensorrt"),
        ("ours.onnx --device pi6", ExitCode.USAGE, "unknown device: pi6"),
        ("ours.onnx --python three", ExitCode.USAGE, "three is no version"),
        ("", ExitCode.USAGE, "Missing argument"),
    ],
)
def test_bad_input_is_one_error_and_one_hint(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: ExitCode, error: str
) -> None:
    assert cli.run(["compat", *arguments.split()]) == code
    printed = capsys.readouterr()
    assert not printed.out
    first, hint = printed.err.splitlines()
    assert first.startswith("error: ")
    assert error in first
    assert hint.startswith("hint: ")


def test_a_bundle_is_judged_file_by_file(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"path": name, "format": form, "precision": "fp32", "io": "float32"}
        | {"sha256": hashlib.sha256((files / name).read_bytes()).hexdigest()}
        for name, form in (("ours.onnx", "onnx"), ("ours.tflite", "tflite"))
    ]
    source = {"kind": "random", "origin": "none", "sha256": ""}
    model = {"preprocess": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    write_document(files, {"schema": SCHEMA, "files": entries, "model": model, "source": source})
    assert cli.run(["compat", ".", "--device", "pi5", "--json"]) == ExitCode.DONE
    assert list(json.loads(capsys.readouterr().out)["files"]) == ["ours.onnx", "ours.tflite"]
    assert cli.run(["compat", ".", "new.onnx", "--json"]) == ExitCode.DONE
    assert list(json.loads(capsys.readouterr().out)["files"]) == ["ours.onnx", "ours.tflite", "new.onnx"]
    (files / "ours.onnx").write_bytes(b"another")
    assert cli.run(["compat", "."]) == ExitCode.DAMAGED
    assert "changed since it was exported" in capsys.readouterr().err


def test_what_is_printed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--device", "pi4", "--python", "3.11"]
    for release in ("onnxruntime==1.16.3", "onnxruntime==1.21.0"):
        options += ["--runtime", release]
    assert cli.run(["compat", "new.onnx", "ours.tflite", *options]) == ExitCode.CHECK_FAILED
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == (
        "pi4: Raspberry Pi 4, Cortex-A72, aarch64, 1 GB or more; "
        "Raspberry Pi OS bookworm, glibc 2.36, Python 3.11"
    )
    assert "new.onnx (opset 21, IR 10, 1 operator)" in lines
    (old, dying) = (line for line in lines if line.startswith("onnxruntime "))
    assert re.split("  +", old.strip()) == [
        "onnxruntime 1.16.3",
        "no: opset 21 > 19, IR 10 > 9",
        "yes",
        "needs numpy < 2 [1]",
    ]
    assert dying.endswith("bad: dies on import [2]")
    assert "new.onnx: onnxruntime 1.18.0 is the first in our table that loads it" in lines
    assert "ours.tflite: not judged, no runtime asked for reads it" in lines
    assert any("issues/23957" in line for line in lines)


def test_the_document_holds_everything(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["compat", "new.onnx", "--runtime", "onnxruntime==1.16.3", "--device", "pi3", "--json"])
    document = json.loads(capsys.readouterr().out)
    (row,) = document["rows"]
    assert document["files"] == {"new.onnx": {"stamps": {"opset": 21, "IR": 10}, "operators": {"Relu": 14}}}
    assert (document["device"]["name"], document["device"]["cpu"]) == ("pi3", "Cortex-A53")
    assert (row["runtime"], row["version"], row["works"]) == ("onnxruntime", "1.16.3", False)
    assert row["loads"] == {"answer": False, "why": "opset 21 > 19, IR 10 > 9"}
    assert row["wheel"] == {"answer": False, "why": "Python 3.8–3.11 only"}
    assert row["first_that_loads"] == "1.18.0"
    assert (document["python"], document["left_out"]) == ("3.13", [])
    assert document["wheels_listed_on"]
    assert row["cautions"][0]["source"] == "https://github.com/microsoft/onnxruntime/issues/21063"


def test_nothing_is_run_and_neither_torch_nor_a_runtime_is_imported(files: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from mobilenet_export.pipeline.compat import CompatRequest, compat\n"
        "assert compat(CompatRequest((Path('ours.onnx'), Path('ours.tflite')))).verdict == 'pass'\n"
        "assert not {'torch', 'onnxruntime', 'ai_edge_litert.interpreter'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
