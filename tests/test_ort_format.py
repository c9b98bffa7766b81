"""ORT format: the ONNX files, optimized and saved by ONNX Runtime, and the same bytes every time."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from conftest import Exported, tiny_graph
from onnxruntime.tools.reduced_build_config_parser import parse_config

from mobilenet_export.artifact import PRECISIONS, Artifact, Precision
from mobilenet_export.checks.referee import same_integers
from mobilenet_export.formats import _ort_flatbuffer, ort
from mobilenet_export.runtimes import USUAL
from mobilenet_export.runtimes.onnxruntime import OnnxRuntime


def spelled(exported: Exported, precision: Precision) -> Artifact:
    if precision == "int8":
        data = ort.write_int8(exported.quantized, "float32", exported.card)
    else:
        data = ort.write_float(exported.graph, precision, exported.card)
    return Artifact(f"f_{precision}.ort", "ort", precision, data)


def test_int8_gives_the_bits_of_the_onnx_file_on_integer_kernels(real: Exported) -> None:
    artifact, engine = spelled(real, "int8"), OnnxRuntime()
    first, second = (engine.open(one).run(real.images) for one in (artifact, real.artifact("onnx", "int8")))
    np.testing.assert_array_equal(first, second)
    ran = [one.operator for one in engine.placements(artifact, USUAL, real.images[:1])]
    assert ran.count("QLinearConv") + ran.count("QGemm") == len(list(real.graph.kernels()))
    assert "Conv" not in ran
    assert "Gemm" not in ran
    assert ran.count("QuantizeLinear") == ran.count("DequantizeLinear") == 1


def test_floats_differ_by_the_order_of_additions_alone(real: Exported) -> None:
    engine = OnnxRuntime()
    truth = engine.open(real.artifact("onnx", "fp32")).run(real.images)
    result = engine.open(spelled(real, "fp32")).run(real.images)
    assert np.linalg.norm(result - truth) < 1e-5 * np.linalg.norm(truth)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_two_conversions_are_the_same_bytes(small_v2: Exported, precision: Precision) -> None:
    first, second = spelled(small_v2, precision), spelled(small_v2, precision)
    assert first.data == second.data
    assert _ort_flatbuffer.write(_ort_flatbuffer.read(first.data)) == first.data
    assert ort.read_precision(first.data) == precision


def test_the_size_is_that_of_the_onnx_file(real: Exported) -> None:
    for precision in ("fp16", "int8"):  # fp16 weights are stored as such
        assert len(spelled(real, precision).data) < 1.02 * len(real.artifact("onnx", precision).data)


def test_the_integers_can_be_read_back(small: Exported) -> None:
    assert same_integers(ort.read_int8(spelled(small, "int8").data, small.graph), small.quantized)
    with pytest.raises(ValueError, match="it holds no "):
        ort.read_int8(spelled(small, "fp32").data, small.graph)


def test_no_layout_of_this_cpu_is_baked_in(real: Exported) -> None:
    for precision in PRECISIONS:
        session = _ort_flatbuffer.read(spelled(real, precision).data)
        domains = {node.get("domain", "") for node in session["model"]["graph"]["nodes"]}
        assert domains <= {"", "com.microsoft"}  # com.microsoft.nchwc is the blocked layout


def test_a_build_for_just_these_operators_can_be_configured(small_v2: Exported, tmp_path: Path) -> None:
    files = [spelled(small_v2, precision).data for precision in ("fp32", "int8")]
    (tmp_path / ort.OPERATORS).write_bytes(ort.required_operators(files)[ort.OPERATORS])
    operators, *_ = parse_config(str(tmp_path / ort.OPERATORS))
    assert operators["com.microsoft"][1] >= {"QGemm", "QLinearAdd", "FusedConv"}
    assert "QLinearConv" in operators["ai.onnx"][10]
    assert ort.required_operators(files) == ort.required_operators(files[::-1])


def test_the_card_is_in_the_file(v2: Exported) -> None:
    held = _ort_flatbuffer.read(spelled(v2, "fp32").data)["model"]["metadata_props"]
    assert {entry["key"]: entry["value"] for entry in held}["model_license"] == "BSD-3-Clause"


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_is_refused_or_read_but_nothing_else(seed: int) -> None:
    rng, data = np.random.default_rng(seed), bytearray(ort.write_float(tiny_graph(), "fp32"))
    for place in rng.integers(0, len(data), 4):
        data[place] = rng.integers(0, 256)
    with contextlib.suppress(ValueError):
        assert ort.read_precision(bytes(data)) in PRECISIONS


def test_a_file_that_refers_to_one_part_over_and_over_is_refused() -> None:
    root = _ort_flatbuffer.read(ort.write_float(tiny_graph(), "fp32"))
    root["model"]["domain"] = "d" * 10_000
    node = {"op_type": "Add", "inputs": ["d" * 10_000] * 1_000}
    root["model"]["graph"]["nodes"] = [node]
    with pytest.raises(ValueError, match="refers to the same parts too often"):
        ort.read_precision(_ort_flatbuffer.write(root))  # equal texts are written once
