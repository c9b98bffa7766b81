"""The runtimes: one protocol, clear refusals, and the same numbers whatever the input type."""

import sys
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import pytest
import torch
from conftest import Exported, TfliteFile, tiny_batch, tiny_graph

from mobilenet_export.artifact import Artifact, Precision
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.errors import DamagedInputError, ExitCode, MissingError, UsageError
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.graph import Graph
from mobilenet_export.interpreter import run
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.runtimes import Setup, available_runtimes, runtime
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import OnnxRuntime, watch
from mobilenet_export.runtimes.tflite_runtime import TfliteRuntime
from mobilenet_export.runtimes.torch import TorchRuntime, TorchSession

WRITERS = {"onnx": onnx_format.write_float, "tflite": tflite_format.write_float}
ENGINES = {"onnxruntime": OnnxRuntime(), "litert": LiteRuntime()}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> OnnxRuntime | LiteRuntime:
    return ENGINES[request.param]


def tiny_artifact(engine: OnnxRuntime | LiteRuntime, graph: Graph, precision: Precision = "fp32") -> Artifact:
    form, *_ = engine.formats
    return Artifact(f"tiny.{form}", form, precision, WRITERS[form](graph, precision))


def test_runtimes_are_listed_without_importing_them() -> None:
    assert plugin_names("runtimes") == ("litert", "onnxruntime", "tflite_runtime", "torch")


def test_every_runtime_says_what_it_is() -> None:
    for name in plugin_names("runtimes"):
        found = load_plugin("runtimes", name)
        assert found.name == name
        assert set(found.formats) <= set(plugin_names("formats"))


def test_the_runtimes_that_work_here_are_found_with_their_versions() -> None:
    found = {engine.name: engine.version() for engine in available_runtimes()}
    assert {"litert", "onnxruntime", "torch"} <= set(found)
    assert found["litert"] == version("ai-edge-litert")
    assert found["onnxruntime"] == version("onnxruntime")


def test_an_unknown_runtime_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown runtime: onnxruntim") as caught:
        runtime("onnxruntim")
    assert caught.value.hint.startswith("did you mean onnxruntime?")


@pytest.mark.parametrize(
    ("engine", "module", "hint"),
    [
        (OnnxRuntime(), "onnxruntime", "pip install onnxruntime"),
        (LiteRuntime(), "ai_edge_litert", "pip install ai-edge-litert"),
        (TorchRuntime(), "torch", "pip install torch"),
        (TfliteRuntime(), "tflite_runtime", "pip install tflite-runtime 'numpy<2' (Python ≤ 3.11)"),
    ],
    ids=["onnxruntime", "litert", "torch", "tflite_runtime"],
)
def test_a_runtime_that_is_not_installed_says_how_to_get_it(
    engine: OnnxRuntime, module: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    missing = engine.missing()
    assert missing is not None
    assert (missing.reason, missing.hint) == ("not installed", hint)
    with pytest.raises(MissingError, match=f"{engine.name}: not installed") as caught:
        runtime(engine.name)
    assert caught.value.exit_code == ExitCode.MISSING
    assert caught.value.hint == hint


def test_tflite_runtime_beside_numpy_2_is_missing_because_it_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    monkeypatch.setattr(np, "__version__", "2.4.0")
    missing = TfliteRuntime().missing()
    assert missing is not None
    assert missing.reason == "crashes with numpy 2.4.0"
    assert missing.hint == "pip install 'numpy<2'"
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert TfliteRuntime().missing() is None


# Running


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_runs_to_the_interpreters_numbers(
    engine: OnnxRuntime | LiteRuntime, precision: Precision
) -> None:
    graph = tiny_graph()
    session = engine.open(tiny_artifact(engine, graph, precision))
    result = session.run(tiny_batch())
    assert result.dtype == np.float32
    assert result.shape == (4, 5)
    tolerance = 1e-4 if precision == "fp32" else 1e-2
    np.testing.assert_allclose(result, run(graph, tiny_batch()), rtol=tolerance, atol=tolerance)
    assert (session.runtime, session.provider) in (("onnxruntime", "CPU"), ("litert", "XNNPACK"))


def test_a_softmax_file_gives_probabilities(engine: OnnxRuntime | LiteRuntime) -> None:
    graph = tiny_graph(softmax=True)
    scores = engine.open(tiny_artifact(engine, graph)).run(tiny_batch())
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(scores, run(graph, tiny_batch()), rtol=1e-4, atol=1e-6)


def test_a_batch_that_is_not_contiguous_is_run_as_it_reads(engine: OnnxRuntime | LiteRuntime) -> None:
    session = engine.open(tiny_artifact(engine, tiny_graph()))
    batch = tiny_batch()
    swapped = np.asfortranarray(batch)[::-1]
    np.testing.assert_allclose(session.run(swapped), session.run(batch)[::-1], rtol=1e-5, atol=1e-6)


def test_litert_without_xnnpack_says_so() -> None:
    engine = LiteRuntime()
    session = engine.open(tiny_artifact(engine, tiny_graph()), Setup(provider="builtin"))
    assert session.provider == "builtin"


def test_torch_runs_a_module_and_reads_no_file() -> None:
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 5)).eval()
    session = TorchSession(module)
    batch = tiny_batch()
    with torch.no_grad():
        np.testing.assert_array_equal(session.run(batch), module(torch.from_numpy(batch)).numpy())
    with pytest.raises(UsageError, match=r"torch does not read x\.onnx"):
        TorchRuntime().open(Artifact("x.onnx", "onnx", "fp32", b""))


def test_integer_input_is_quantized_as_the_file_states(small_v2: Exported) -> None:
    engine = LiteRuntime()
    usual = engine.open(small_v2.artifact("tflite", "int8")).run(small_v2.images)
    step = small_v2.quantized.tensors[small_v2.graph.logits].scale
    for io in ("int8", "uint8"):
        result = engine.open(small_v2.artifact("tflite", "int8", io)).run(small_v2.images)  # type: ignore[arg-type]
        assert np.abs(result - usual).max() <= 2.01 * step, io


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_float_file_of_pixels_gives_what_normalized_values_give(
    engine: OnnxRuntime | LiteRuntime, precision: Precision, real: Exported
) -> None:
    (form,) = {"onnx", "tflite"} & set(engine.formats)
    usual = engine.open(real.artifact(form, precision)).run(real.images)
    camera = engine.open(real.artifact(form, precision, "uint8")).run(real.images)
    assert sqnr_db(usual, camera) > 105


def test_watching_yields_every_tensor_of_every_image() -> None:
    graph, batch = tiny_graph(), tiny_batch(3)
    seen = list(watch(graph, iter([batch[:2], batch[2:]])))
    assert len(seen) == 3
    for image, values in zip(np.split(batch, 3), seen, strict=True):
        np.testing.assert_array_equal(values["input"], image)
        np.testing.assert_allclose(values["fc"], run(graph, image), rtol=1e-4, atol=1e-5)
        unclamped = values["stem/unclamped"]
        assert unclamped.min() < 0
        np.testing.assert_array_equal(values["stem"], np.clip(unclamped, 0, 6))
        assert {node.name for node in graph.nodes} <= set(values)


# Damaged files


def damaged(engine: OnnxRuntime | LiteRuntime) -> Iterator[tuple[str, bytes]]:
    data = tiny_artifact(engine, tiny_graph()).data
    yield "empty", b""
    yield "text", b"this is not a model"
    yield "half", data[: len(data) // 2]
    yield "zeros", bytes(len(data))


@pytest.mark.parametrize("kind", ["empty", "text", "half", "zeros"])
def test_a_damaged_file_is_refused_with_one_line(
    engine: OnnxRuntime | LiteRuntime, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = dict(damaged(engine))[kind]
    with pytest.raises(DamagedInputError) as caught:
        engine.open(Artifact("model.bin", engine.formats[0], "fp32", data))
    assert caught.value.message.startswith(f"model.bin: {engine.name} refuses it: ")
    assert len(caught.value.message) > len(f"model.bin: {engine.name} refuses it: ") + 5
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert capfd.readouterr().err == ""


def test_a_file_of_operators_that_the_runtime_has_not_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    data = bytearray(tflite_format.write_float(tiny_graph(), "fp32"))
    file = TfliteFile(bytes(data))
    assert {name for name, _, _ in file.operators()} == {
        "PAD", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "FULLY_CONNECTED",
    }  # fmt: skip
    for code in file.model.operatorCodes:
        code.version = 99
    import flatbuffers  # noqa: PLC0415

    builder = flatbuffers.Builder(1024)
    builder.Finish(file.model.Pack(builder), b"TFL3")
    with pytest.raises(DamagedInputError) as caught:
        LiteRuntime().open(Artifact("new.tflite", "tflite", "fp32", bytes(builder.Output())))
    assert caught.value.message.startswith("new.tflite: litert refuses it: ")
    assert "version" in caught.value.message  # what the C++ code says on file descriptor 2
    assert capfd.readouterr().err == ""


def test_the_engines_are_imported_only_when_they_open(tmp_path: object) -> None:
    import subprocess  # noqa: PLC0415

    code = (
        "import sys\nfrom mobilenet_export.plugins import plugin_names, load_plugin\n"
        "for name in ('litert', 'torch', 'tflite_runtime'): load_plugin('runtimes', name).missing()\n"
        "assert not {'torch', 'onnxruntime', 'ai_edge_litert', 'tflite_runtime'} & set(sys.modules), sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
