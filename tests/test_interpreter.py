"""The reference interpreter: its numbers are ONNX Runtime's, in fp32 nearly and in int8 to the bit."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Exported, tiny_batch, tiny_graph
from onnx import TensorProto, helper

from mobilenet_export.agent.check import MOST_STEPS
from mobilenet_export.artifact import Artifact
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.graph import (
    Activation,
    BatchNorm,
    Conv2d,
    FloatArray,
    GlobalAveragePool,
    Graph,
    Pads,
)
from mobilenet_export.interpreter import (
    accumulator_type,
    clamp,
    convolve,
    dequantize,
    float_layer,
    integer_layer,
    quantize,
    run,
    run_quantized,
    softmax,
    walk,
    walk_quantized,
)
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantized import QuantizedGraph, TensorScale
from mobilenet_export.runtimes import Setup
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import EXACT_ON_X64, OnnxRuntime, watch


def onnx_file(graph: Graph) -> Artifact:
    return Artifact("f.onnx", "onnx", "fp32", onnx_format.write_float(graph, "fp32"))


def quantized_tiny(graph: Graph) -> QuantizedGraph:
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), (-1.0, 1.0))
    return quantize_graph(graph, ranges, saturation_safe=True)


VARIANTS = {
    "relu6": tiny_graph(1),
    "relu": tiny_graph(2, Activation.RELU),
    "linear": tiny_graph(3, Activation.NONE),
    "same padding": tiny_graph(4, pads=Pads(0, 0, 1, 1)),
    "no padding": tiny_graph(5, pads=Pads()),
    "lopsided padding": tiny_graph(6, pads=Pads(2, 0, 1, 3)),
    "softmax": tiny_graph(7, softmax=True),
}


@pytest.mark.parametrize("graph", VARIANTS.values(), ids=VARIANTS)
def test_fp32_of_small_graphs_is_onnxruntimes(graph: Graph) -> None:
    truth = OnnxRuntime().open(onnx_file(graph)).run(tiny_batch())
    np.testing.assert_allclose(run(graph, tiny_batch()), truth, rtol=1e-4, atol=1e-5)


def test_fp32_of_our_networks_is_onnxruntimes(real: Exported) -> None:
    batch = real.images[:2]
    truth = OnnxRuntime().open(real.artifact("onnx", "fp32")).run(batch)
    result = run(real.graph, batch)
    assert np.linalg.norm(result - truth) <= 1e-4 * np.linalg.norm(truth)


def test_every_fp32_tensor_is_onnxruntimes(small: Exported) -> None:
    image = small.images[:1]
    (truth,) = watch(small.graph, iter([image]))
    for name, value in walk(small.graph, image):
        expected = truth[name]
        expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
        assert np.linalg.norm(value - expected) <= 1e-4 * np.linalg.norm(expected), name


@pytest.mark.parametrize("graph", VARIANTS.values(), ids=VARIANTS)
def test_int8_of_small_graphs_is_onnxruntimes_to_the_bit(graph: Graph) -> None:
    quantized, batch = quantized_tiny(graph), tiny_batch(16, seed=9)
    artifact = Artifact("q.onnx", "onnx", "int8", onnx_format.write_int8(quantized, "float32"))
    truth = OnnxRuntime().open(artifact).run(batch)
    if graph.logits == graph.output:
        np.testing.assert_array_equal(run_quantized(quantized, batch), truth)
    else:
        np.testing.assert_allclose(run_quantized(quantized, batch), truth, rtol=1e-5, atol=1e-7)


def test_int8_logits_of_our_networks_are_onnxruntimes_to_the_bit(real: Exported) -> None:
    batch = real.images[:3]
    truth = OnnxRuntime().open(real.artifact("onnx", "int8")).run(batch)
    np.testing.assert_array_equal(run_quantized(real.quantized, batch), truth)


def inner_integers(exported: Exported, batch: FloatArray) -> dict[str, np.ndarray]:
    """Every uint8 tensor of the int8 ONNX file, channel-last, by its name in the graph."""
    model = onnx.load_from_string(exported.artifact("onnx", "int8").data)
    graph = exported.graph
    names = {node.name: f"{node.name}/int" for node in graph.nodes} | {graph.output: "output/int"}
    for name in names.values():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(list(names.values()), {"input": batch})
    return {
        name: value.transpose(0, 2, 3, 1) if value.ndim == 4 else value
        for name, value in zip(names, values, strict=True)
    }


def test_every_int8_tensor_inside_is_onnxruntimes_to_the_bit(real: Exported) -> None:
    batch = real.images[:1]
    truth = inner_integers(real, batch)
    for name, value in walk_quantized(real.quantized, batch):
        if name in truth:
            np.testing.assert_array_equal(value, truth.pop(name), err_msg=name)
    assert not truth


def test_int8_is_the_same_with_and_without_exact_x64_products(real: Exported) -> None:
    runtime, artifact = OnnxRuntime(), real.artifact("onnx", "int8")
    usual = runtime.open(artifact).run(real.images)
    exact = runtime.open(artifact, EXACT_ON_X64).run(real.images)
    np.testing.assert_array_equal(usual, exact)


@pytest.mark.parametrize("provider", ["XNNPACK", "builtin"])
def test_int8_logits_in_litert_are_a_few_steps_away_at_most(real: Exported, provider: str) -> None:
    """Its fixed-point multipliers break ties differently; a step on the way moves a few logits by one or two."""
    truth = run_quantized(real.quantized, real.images[:4])
    session = LiteRuntime().open(real.artifact("tflite", "int8"), Setup(provider=provider))
    steps = np.abs(session.run(real.images[:4]) - truth) / real.quantized.tensors[real.graph.logits].scale
    assert steps.max() <= (0.01 if provider == "XNNPACK" else MOST_STEPS)
    assert steps.mean() < 1


@pytest.mark.parametrize("graph", VARIANTS.values(), ids=VARIANTS)
def test_int8_of_small_graphs_in_litert_is_one_step_away_at_most(graph: Graph) -> None:
    quantized, batch = quantized_tiny(graph), tiny_batch(16, seed=9)
    data = tflite_format.write_int8(quantized, "float32")
    result = LiteRuntime().open(Artifact("q.tflite", "tflite", "int8", data)).run(batch)
    logits_step = quantized.tensors[graph.logits].scale
    assert np.abs(result - run_quantized(quantized, batch)).max() <= 2.01 * logits_step


# Pieces


def test_a_convolution_is_the_sum_over_its_window() -> None:
    random = np.random.default_rng(0)
    values = random.integers(-5, 5, (2, 5, 6, 3)).astype(np.float32)
    weight = random.integers(-5, 5, (4, 3, 3, 2)).astype(np.float32)
    node = Conv2d("c", "input", weight, np.zeros(4, np.float32), (2, 1), Pads(1, 0, 0, 2))
    padded = np.pad(values, ((0, 0), (1, 0), (0, 2), (0, 0)))
    result = convolve(node, values, weight)
    assert result.shape == (2, 2, 7, 4)
    for y in range(2):
        for x in range(7):
            window = padded[:, 2 * y : 2 * y + 3, x : x + 2]
            expected = np.einsum("nyxi,oiyx->no", window, weight)
            np.testing.assert_array_equal(result[:, y, x], expected)


def test_a_depthwise_convolution_keeps_channels_apart() -> None:
    random = np.random.default_rng(0)
    values = random.integers(-5, 5, (1, 4, 4, 3)).astype(np.float32)
    weight = random.integers(-5, 5, (3, 1, 3, 3)).astype(np.float32)
    node = Conv2d("d", "input", weight, np.zeros(3, np.float32), groups=3)
    expected = np.stack(
        [
            [[(values[0, y : y + 3, x : x + 3, c] * weight[c, 0]).sum() for c in range(3)] for x in range(2)]
            for y in range(2)
        ]
    )
    np.testing.assert_array_equal(convolve(node, values, weight)[0], expected)


def test_integers_round_ties_to_even_and_saturate() -> None:
    scale = TensorScale(0.5, 10)
    values = np.float32([-100, -0.75, -0.25, 0, 0.25, 0.75, 200])
    np.testing.assert_array_equal(quantize(values, scale), [0, 8, 10, 10, 10, 12, 255])
    np.testing.assert_array_equal(dequantize(np.uint8([0, 10, 255]), scale), [-5, 0, 122.5])


def test_accumulators_are_in_a_type_that_holds_them_exactly() -> None:
    assert accumulator_type(np.full((2, 128), 127, np.int8)) is np.float32
    assert accumulator_type(np.full((2, 1280), 127, np.int8)) is np.float64


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.float32([[1000, 1000, -1000]])), [[0.5, 0.5, 0]])


def test_a_clamp_is_its_activations() -> None:
    values = np.float32([-1, 3, 9])
    np.testing.assert_array_equal(clamp(values, Activation.RELU6), [0, 3, 6])
    np.testing.assert_array_equal(clamp(values, Activation.RELU), [0, 3, 9])
    np.testing.assert_array_equal(clamp(values, Activation.NONE), values)


def test_what_is_not_fused_does_not_run() -> None:
    norm = BatchNorm("n", "input", np.ones(3), np.zeros(3))
    with pytest.raises(TypeError, match="BatchNorm must be fused"):
        float_layer(norm, [np.zeros((1, 2, 2, 3), np.float32)])
    quantized = quantized_tiny(tiny_graph())
    tensors = {**quantized.tensors, "n": quantized.tensors["input"]}
    with pytest.raises(TypeError, match="BatchNorm has no integer form"):
        integer_layer(
            dataclasses.replace(quantized, tensors=tensors), norm, [np.zeros((1, 2, 2, 3), np.uint8)]
        )


def test_a_tensor_is_dropped_once_nothing_reads_it() -> None:
    graph = Graph("pool", "input", (3, 8, 8), (GlobalAveragePool("pool", "input"),))
    assert [name for name, _ in walk(graph, np.ones((1, 3, 8, 8), np.float32))] == ["input", "pool"]
