"""The Python API: light to import, with the command line's defaults; the README's examples run as they stand."""

import contextlib
import inspect
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import mobilenet_export
from mobilenet_export import api
from mobilenet_export.cli.bench import bench_command
from mobilenet_export.cli.export import export_command
from mobilenet_export.cli.validate import validate_command
from mobilenet_export.errors import MnxError, UsageError
from mobilenet_export.pipeline.stages import silent

README = Path(__file__).parent.parent / "README.md"
SMALL = {"width": 0.25, "resolution": 96, "weights": "none"}
COMMAND_LINE_ONLY = {"as_json", "context", "dry_run", "report_as"}
"""Options of what is printed, or that nothing is done; and where click found the options."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("api") / "bundle"
    return mobilenet_export.export("v2", out=str(out), **SMALL).bundle.folder  # type: ignore[arg-type]


def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name != "progress"}


def in_python(name: str, default: Any) -> tuple[str, Any]:
    """An option of the command line as a keyword: lists are tuples, and a `--no-x` is an x."""
    if name.startswith("no_"):
        return name.removeprefix("no_"), not default
    if name == "formats":
        return name, tuple(default.split(","))
    if name == "threads":
        return name, tuple(map(int, default.split(",")))
    return name, default


@pytest.mark.parametrize(
    ("function", "command"),
    [(api.export, export_command), (api.validate, validate_command), (api.bench, bench_command)],
)
def test_keywords_and_defaults_are_the_command_lines(
    function: Callable[..., Any], command: Callable[..., None]
) -> None:
    options = {n: d for n, d in defaults_of(command).items() if n not in COMMAND_LINE_ONLY}
    assert defaults_of(function) == dict(in_python(name, default) for name, default in options.items())


@pytest.mark.parametrize("function", [api.export, api.validate, api.bench])
def test_every_keyword_is_typed_and_documented(function: Callable[..., Any]) -> None:
    hints = get_type_hints(function)
    assert set(hints) == {*inspect.signature(function).parameters, "return"}
    for name in inspect.signature(function).parameters:
        assert re.search(rf"^ +{name}: [A-Z`]", function.__doc__ or "", re.M), name


def test_the_package_is_light_and_names_what_it_has() -> None:
    code = (
        "import sys, mobilenet_export;"
        "heavy = {'numpy', 'torch', 'onnx', 'onnxruntime', 'ai_edge_litert', 'PIL', 'typer'} & set(sys.modules);"
        "assert not heavy, heavy;"
        "from mobilenet_export import export, validate, bench;"
        "heavy = {'torch', 'onnxruntime', 'typer', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        _ = mobilenet_export.exprot  # type: ignore[attr-defined]


def test_nothing_is_printed(bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    mobilenet_export.export("v2", out=tmp_path / "new", **SMALL)  # type: ignore[arg-type]
    report = mobilenet_export.validate(bundle, limit=2)
    assert report.verdict == "pass", report.failures
    latency = mobilenet_export.bench([bundle], runs=2, runtime=("onnxruntime",), keep=True)
    assert len(latency.rows) == 1
    assert len(list(bundle.glob("devices/*.json"))) == 1
    printed = capfd.readouterr()
    assert (printed.out, printed.err) == ("", "")


FUNCTIONS = [mobilenet_export.export, mobilenet_export.validate, mobilenet_export.bench]
KEYWORDS = [
    (function, keyword) for function in FUNCTIONS for keyword in inspect.signature(function).parameters
]
FIRST = {"export": "model", "validate": "targets", "bench": "targets"}
VALUES: dict[str, list[Any]] = {
    "a path": ["nowhere", Path("nowhere")],
    "text": ["nowhere"],
    "a whole number": [1, 0, -1, 10**200],
    "a number": [0.5, -1e299, 1e-320, 3],
    "True or False": [True, False],
    "3 numbers": [(1.0, 0, 1.0), [2, 2, 2]],
    "a list of texts": [["onnx"], ("nowhere",), ()],
    "a list of paths": [["nowhere"], (Path("nowhere"),), ()],
    "a list of whole numbers": [[1], (0,), ()],
    "a function": [silent],
    "nothing at all": [
        object(), b"x", bytearray(b"x"), {"x"}, {}, 1j, math.nan, math.inf, 10**400, "\0", [None], [[]], (1,),
        (1, 2, math.nan), [b"x"], np.float32(1), np.ones(3), iter(()), range, type, MnxError,
    ],
}  # fmt: skip
"""Values of every kind that a keyword may be of, by what an error calls it."""


@pytest.mark.parametrize(
    ("function", "keyword"), KEYWORDS, ids=[f"{f.__name__}-{keyword}" for f, keyword in KEYWORDS]
)
def test_whatever_a_keyword_is_given_only_our_errors_come_out(
    function: Callable[..., Any], keyword: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = {FIRST[function.__name__]: "nowhere"}  # so that what fits ends there
    kinds = set()
    for value in (value for values in VALUES.values() for value in values):
        with pytest.raises(MnxError) as caught:
            function(**first | {keyword: value})
        assert caught.value.hint
        refused = re.match(rf"{keyword}=.*: must be (.+)", caught.value.message, re.DOTALL)
        kinds |= set(refused[1].split(" or ")) if refused else set()
    allowed = {kind for kind in VALUES if kinds & set(kind.split(" or "))}
    assert allowed
    for kind in allowed:
        for value in VALUES[kind]:
            with pytest.raises(MnxError) as caught:
                function(**first | {keyword: value})
            assert not caught.value.message.startswith(f"{keyword}=")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mobilenet_export.export("v2", width="a"), "width='a': must be a number"),
        (lambda: mobilenet_export.export("v2", resolution=224.5), "resolution=224.5: must be a whole number"),
        (lambda: mobilenet_export.export("v2", formats="onnx"), "formats='onnx': must be a list of texts"),
        (lambda: mobilenet_export.export("v2", mean=(1,)), "mean=(1,): must be 3 numbers"),
        (lambda: mobilenet_export.export("v2", int8=1), "int8=1: must be True or False"),
        (lambda: mobilenet_export.export(2), "model=2: must be text or a path"),
        (lambda: mobilenet_export.validate("x", limit="x"), "limit='x': must be a whole number"),
        (lambda: mobilenet_export.validate([]), "targets names none"),
        (
            lambda: mobilenet_export.validate([b"x"]),
            "targets=[b'x']: must be text or a path or a list of paths",
        ),
        (
            lambda: mobilenet_export.bench("x", threads=("x",)),
            "threads=('x',): must be a whole number or a list of whole numbers",
        ),
        (lambda: mobilenet_export.bench("x", progress=1), "progress=1: must be a function"),
    ],
)
def test_an_argument_of_another_type_is_refused_by_its_keyword(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert caught.value.message == message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (mobilenet_export.export, "no network named"),
        (lambda: mobilenet_export.export("v3"), "unknown arch: v3"),
        (lambda: mobilenet_export.export("v2", formats=()), "--formats names none"),
        (lambda: mobilenet_export.export("v2", io=("float64",)), "unknown io: float64"),
        (lambda: mobilenet_export.export("v2", io=()), "--io names none"),
        (lambda: mobilenet_export.export("v2", recipe="int8-fast"), "is of int8 files, and none are written"),
        (lambda: mobilenet_export.export("v2", mean=(127.5, 127.5, 127.5)), "not within 0 to 1"),
        (lambda: mobilenet_export.export("mine.onnx", width=0.5), "--width does not go with an .onnx file"),
        (lambda: mobilenet_export.validate("nowhere"), "no such file or folder: nowhere"),
        (lambda: mobilenet_export.validate("nowhere", max_drop=-1), "--max-drop -1: must be 0 or more"),
        (lambda: mobilenet_export.bench("nowhere"), "no such file or folder: nowhere"),
        (lambda: mobilenet_export.bench("nowhere", threads=(0,)), "must be 1 or more"),
        (lambda: mobilenet_export.bench("nowhere", threads=0), "must be 1 or more"),
        (lambda: mobilenet_export.bench("nowhere", threads=()), "must be 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert message in caught.value.message
    assert caught.value.hint


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = README.read_text(encoding="utf-8").split("### From Python\n")[1].split("\n## ")[0]
    examples = re.findall(r"```python\n(.*?)```", section, re.S)
    assert len(examples) == 3
    monkeypatch.chdir(tmp_path)
    printed = []
    for example in examples:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(example, str(README), "exec"), {})
        printed.append(out.getvalue())
    assert len(printed[0].splitlines()) == 6
    assert "mobilenet_v2_100_224_int8.tflite in litert: " in printed[0]
    assert printed[1] == "pass\n"
    assert re.fullmatch(r"mobilenet_v2_100_224_\S+ in \w+, [12] threads: [\d.]+ ms\n", printed[2])
