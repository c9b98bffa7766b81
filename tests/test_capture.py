"""Capture: what is read off our networks and off a user's ONNX file, and what is refused."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Exported
from onnx import TensorProto, helper, numpy_helper

from mobilenet_export import cli
from mobilenet_export.architectures import build
from mobilenet_export.architectures.initialize import initialize
from mobilenet_export.artifact import Artifact
from mobilenet_export.capture import capture_module, capture_onnx
from mobilenet_export.errors import DamagedInputError, MnxError, UsageError
from mobilenet_export.formats.onnx import parse
from mobilenet_export.graph import (
    Activation,
    Add,
    Conv2d,
    FullyConnected,
    Graph,
    Softmax,
    multiply_accumulates,
)
from mobilenet_export.interpreter import run
from mobilenet_export.pipeline.validate import bare_artifact
from mobilenet_export.runtimes import runtime
from mobilenet_export.runtimes.torch import TorchSession
from mobilenet_export.spec import find_spec, resize_spec

PX = 32
RANDOM = np.random.default_rng(3)


def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
    return (scale * RANDOM.standard_normal(shape)).astype(np.float32)


class OwnFile:
    """A user's ONNX classifier, written operator by operator: conv → ReLU → pool → linear, unless changed."""

    def __init__(self, opset: int = 13, size: tuple[Any, Any] = (PX, PX), batch: Any = 1) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, *size])
        self.outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])]
        self.last = "image"

    def constant(self, value: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(
        self, operator: str, *constants: np.ndarray, output: str | None = None, **attributes: Any
    ) -> "OwnFile":
        output = output or f"t{len(self.nodes)}"
        inputs = [self.last, *map(self.constant, constants)]
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"n{len(self.nodes)}", **attributes)
        )
        self.last = output
        return self

    def stem(self, **attributes: Any) -> "OwnFile":
        pads = {"pads": [1, 1, 1, 1]} if "auto_pad" not in attributes else {}
        return self.node("Conv", weights(8, 3, 3, 3), weights(8), **{"strides": [2, 2], **pads, **attributes})

    def head(self) -> "OwnFile":
        self.node("Flatten")
        return self.node("Gemm", weights(5, 8), weights(5), transB=1, output="scores")

    def save(self, folder: Path) -> Path:
        graph = helper.make_graph(self.nodes, "own", [self.input], self.outputs, self.initializers)
        domains = {node.domain for node in self.nodes} - {""}
        opsets = [
            helper.make_opsetid("", self.opset),
            *(helper.make_opsetid(domain, 1) for domain in domains),
        ]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 8
        path = folder / "own.onnx"
        onnx.save(model, str(path))
        return path


def pooled() -> OwnFile:
    return OwnFile().stem().node("Relu").node("GlobalAveragePool")


def assert_same_numbers(path: Path, graph: Graph) -> None:
    batch = RANDOM.standard_normal((2, *graph.input_shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    value = session.get_inputs()[0]
    feed = batch.transpose(0, 2, 3, 1) if value.shape[-1] == 3 else batch
    truth = np.concatenate([session.run(None, {value.name: image})[0] for image in np.split(feed, 2)])
    np.testing.assert_allclose(run(graph, batch), truth.reshape(2, -1), rtol=1e-4, atol=1e-5)


# Our networks


def test_v2_is_64_nodes_of_4_kinds(v2: Exported) -> None:
    kinds = Counter(type(node).__name__ for node in v2.graph.nodes)
    assert kinds == {"Conv2d": 52, "Add": 10, "GlobalAveragePool": 1, "FullyConnected": 1}
    convolutions = [node for node in v2.graph.nodes if isinstance(node, Conv2d)]
    assert Counter(node.activation for node in convolutions) == {Activation.RELU6: 35, Activation.NONE: 17}
    assert sum(node.is_depthwise for node in convolutions) == 17


def test_v1_is_29_nodes_of_3_kinds(v1: Exported) -> None:
    kinds = Counter(type(node).__name__ for node in v1.graph.nodes)
    assert kinds == {"Conv2d": 27, "GlobalAveragePool": 1, "FullyConnected": 1}
    assert {node.activation for node in v1.graph.nodes if isinstance(node, Conv2d)} == {Activation.RELU6}
    assert sum(node.is_depthwise for node in v1.graph.nodes if isinstance(node, Conv2d)) == 13


def test_layers_of_our_networks_have_the_names_of_their_torch_modules(real: Exported) -> None:
    modules = dict(real.source.reference._module.named_modules())  # type: ignore[attr-defined]
    for node in real.graph.kernels():
        assert tuple(modules[node.name].weight.shape) == node.weight.shape, node.name
    for node in real.graph.nodes:
        if isinstance(node, Add):
            assert node.name.removesuffix(".add") in modules


def test_v2_has_the_expected_names(v2: Exported) -> None:
    names = [node.name for node in v2.graph.nodes]
    assert names[0] == "features.0.0"
    assert {"features.2.conv.1.0", "features.3.add", "features.18.0"} <= set(names)
    assert names[-1] == "classifier.1"


def test_the_graph_multiplies_as_often_as_the_variant_says(real: Exported) -> None:
    assert multiply_accumulates(real.graph) == real.source.spec.macs


def test_padding_and_strides_are_the_modules(v1: Exported, v2: Exported) -> None:
    for exported, pads in ((v1, (0, 0, 1, 1)), (v2, (1, 1, 1, 1))):
        halving = [
            node for node in exported.graph.nodes if isinstance(node, Conv2d) and node.stride == (2, 2)
        ]
        assert len(halving) == 5
        assert {(n.pads.top, n.pads.left, n.pads.bottom, n.pads.right) for n in halving} == {pads}


@pytest.mark.parametrize(
    ("name", "counts", "activation", "softmax"),
    [
        (
            "mobilenet_v1_tutorial",
            {"Conv2d": 27, "GlobalAveragePool": 1, "FullyConnected": 1, "Softmax": 1},
            Activation.RELU,
            True,
        ),
        (
            "mobilenet_v2_tutorial",
            {
                "Conv2d": 53,
                "Add": 11,
                "GlobalAveragePool": 1,
                "FullyConnected": 1,
            },  # 8 channels throughout stage 1
            Activation.RELU6,
            False,
        ),
    ],
)
def test_the_tutorials_networks_are_captured(
    name: str, counts: dict[str, int], activation: Activation, softmax: bool
) -> None:
    spec = resize_spec(dataclasses.replace(find_spec(name), fixed_resolution=False), 0.25, 96, None)
    module = build(spec)
    initialize(module, 0)
    graph = capture_module(module, spec.name, spec.input_shape)
    assert Counter(type(node).__name__ for node in graph.nodes) == counts
    assert isinstance(graph.nodes[-1], Softmax) == softmax
    fused = {node.activation for node in graph.nodes if isinstance(node, Conv2d)} - {Activation.NONE}
    assert fused == {activation}
    batch = RANDOM.standard_normal((1, *spec.input_shape)).astype(np.float32)
    np.testing.assert_allclose(run(graph, batch), TorchSession(module).run(batch), rtol=1e-3, atol=1e-4)


@pytest.mark.slow  # 43 million parameters
def test_the_tutorials_dense_network_is_captured_with_its_biases() -> None:
    spec = find_spec("mobilenet_v2_tutorial_as_coded")
    module = build(spec)
    initialize(module, 0)
    graph = capture_module(module, spec.name, spec.input_shape)
    convolutions = [node for node in graph.nodes if isinstance(node, Conv2d)]
    assert len(convolutions) == 53
    assert not any(node.is_depthwise for node in convolutions)
    assert {node.activation for node in convolutions} == {Activation.RELU6}
    batch = RANDOM.standard_normal((1, *spec.input_shape)).astype(np.float32)
    np.testing.assert_allclose(run(graph, batch), TorchSession(module).run(batch), rtol=1e-3, atol=1e-4)


def test_capture_is_the_same_twice(small_v2: Exported) -> None:
    module = small_v2.source.reference._module  # type: ignore[attr-defined]
    again = capture_module(module, small_v2.graph.name, small_v2.graph.input_shape)
    assert [node.name for node in small_v2.graph.nodes] == [node.name for node in again.nodes]
    pairs = zip(small_v2.graph.kernels(), again.kernels(), strict=True)
    assert all(np.array_equal(a.weight, b.weight) and np.array_equal(a.bias, b.bias) for a, b in pairs)


# A user's own file


def test_our_own_fp32_file_is_read_back_to_the_same_numbers(small: Exported, tmp_path: Path) -> None:
    path = tmp_path / "again.onnx"
    path.write_bytes(small.artifact("onnx", "fp32").data)
    graph = capture_onnx(path, 96)
    assert graph.name == "again"
    assert [type(node) for node in graph.nodes] == [type(node) for node in small.graph.nodes]
    for ours, theirs in zip(small.graph.kernels(), graph.kernels(), strict=True):
        assert np.array_equal(ours.weight, theirs.weight)
        assert np.array_equal(ours.bias, theirs.bias)


def head_conv(file: OwnFile) -> OwnFile:
    return file.node("Conv", weights(5, 8, 1, 1), weights(5)).node("Flatten", output="scores")


def head_matmul(file: OwnFile) -> OwnFile:
    return file.node("Flatten").node("MatMul", weights(8, 5)).node("Add", weights(5), output="scores")


def head_reshape(file: OwnFile) -> OwnFile:
    file.node("Reshape", np.array([-1, 8], np.int64))
    return file.node("Gemm", weights(8, 5), weights(5), output="scores")


def head_squeeze(file: OwnFile) -> OwnFile:
    file.node("Squeeze", np.array([2, 3], np.int64))
    return file.node("Gemm", weights(8, 5), output="scores")


def head_scalar_bias(file: OwnFile) -> OwnFile:
    return file.node("Flatten").node("Gemm", weights(8, 5), np.float32([0.5]), output="scores")


def head_two_layers(file: OwnFile) -> OwnFile:
    return head_matmul(file.node("Flatten").node("Gemm", weights(8, 8), weights(8)))


def head_softmax(file: OwnFile) -> OwnFile:
    return file.node("Flatten").node("Gemm", weights(8, 5), weights(5)).node("Softmax", output="scores")


HEADS = {
    "gemm": OwnFile.head,
    "conv": head_conv,
    "matmul": head_matmul,
    "reshape": head_reshape,
    "squeeze": head_squeeze,
    "scalar bias": head_scalar_bias,
    "two layers": head_two_layers,
    "softmax": head_softmax,
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_head_is_a_linear_layer_however_it_is_spelled(
    head: Callable[[OwnFile], OwnFile], tmp_path: Path
) -> None:
    path = head(pooled()).save(tmp_path)
    graph = capture_onnx(path, None)
    assert graph.shapes[graph.output] == (5,)
    assert any(isinstance(node, FullyConnected) for node in graph.nodes)
    assert_same_numbers(path, graph)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_the_map_is_a_pool(keepdims: int, tmp_path: Path) -> None:
    path = (
        OwnFile().stem().node("Relu").node("ReduceMean", axes=[2, 3], keepdims=keepdims).head().save(tmp_path)
    )
    assert_same_numbers(path, capture_onnx(path, None))


def test_a_mean_with_its_axes_as_an_input_is_a_pool(tmp_path: Path) -> None:
    file = OwnFile(opset=18).stem().node("Relu").node("ReduceMean", np.array([-2, -1], np.int64), keepdims=0)
    path = file.head().save(tmp_path)
    assert_same_numbers(path, capture_onnx(path, None))


def test_an_average_pool_of_the_whole_map_is_a_global_pool(tmp_path: Path) -> None:
    path = OwnFile().stem().node("Relu").node("AveragePool", kernel_shape=[16, 16]).head().save(tmp_path)
    assert_same_numbers(path, capture_onnx(path, None))


def test_a_batch_norm_is_folded(tmp_path: Path) -> None:
    file = OwnFile().stem()
    file.node("BatchNormalization", weights(8), weights(8), weights(8), weights(8) ** 2 + 0.5, epsilon=1e-3)
    path = file.node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    graph = capture_onnx(path, None)
    assert [type(node).__name__ for node in graph.nodes] == ["Conv2d", "GlobalAveragePool", "FullyConnected"]
    assert_same_numbers(path, graph)


def test_a_pad_goes_into_its_convolution(tmp_path: Path) -> None:
    file = OwnFile().node("Pad", np.array([0, 0, 0, 1, 0, 0, 2, 1], np.int64), np.float32(0))
    path = file.stem(pads=[0, 0, 0, 0]).node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    graph = capture_onnx(path, None)
    (conv,) = [node for node in graph.nodes if isinstance(node, Conv2d)]
    assert (conv.pads.top, conv.pads.left, conv.pads.bottom, conv.pads.right) == (0, 1, 2, 1)
    assert_same_numbers(path, graph)


def test_channel_last_input_is_brought_to_channel_first(tmp_path: Path) -> None:
    file = OwnFile()
    file.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, PX, PX, 3])
    path = (
        file.node("Transpose", perm=[0, 3, 1, 2])
        .stem()
        .node("Relu")
        .node("GlobalAveragePool")
        .head()
        .save(tmp_path)
    )
    graph = capture_onnx(path, None)
    assert graph.input_shape == (3, PX, PX)
    assert_same_numbers(path, graph)


@pytest.mark.parametrize("batch", ["N", 1])
def test_an_open_batch_is_one_image(batch: Any, tmp_path: Path) -> None:
    path = OwnFile(batch=batch).stem().node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    assert_same_numbers(path, capture_onnx(path, None))


def test_an_open_size_is_the_resolution_asked_for(tmp_path: Path) -> None:
    path = OwnFile(size=("H", "W")).stem().node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    graph = capture_onnx(path, 96)
    assert graph.input_shape == (3, 96, 96)
    assert_same_numbers(path, graph)


@pytest.mark.parametrize("opset", [11, 13])
def test_a_clip_to_6_is_a_relu6(opset: int, tmp_path: Path) -> None:
    file = OwnFile(opset=opset).stem().node("Clip", np.float32(0), np.float32(6))
    graph = capture_onnx(file.node("GlobalAveragePool").head().save(tmp_path), None)
    assert graph.nodes[0].activation is Activation.RELU6  # type: ignore[union-attr]


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    inside = pooled().head().save(tmp_path)
    outside = tmp_path / "outside.onnx"
    model = onnx.load(str(inside))
    onnx.save(model, str(outside), save_as_external_data=True, location="outside.data", size_threshold=0)
    pairs = zip(capture_onnx(inside, None).kernels(), capture_onnx(outside, None).kernels(), strict=True)
    assert all(np.array_equal(a.weight, b.weight) for a, b in pairs)


# What is refused


def refused(
    path: Path, resolution_px: int | None = None, kind: type[MnxError] = DamagedInputError
) -> MnxError:
    with pytest.raises(kind) as caught:
        capture_onnx(path, resolution_px)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("operator", "attributes", "opset"),
    [("HardSwish", {}, 14), ("Sigmoid", {}, 13), ("Elu", {}, 13), ("MaxPool", {"kernel_shape": [2, 2]}, 13)],
)
def test_a_foreign_operator_is_refused_by_name(
    operator: str, attributes: dict[str, Any], opset: int, tmp_path: Path
) -> None:
    path = (
        OwnFile(opset=opset)
        .stem()
        .node(operator, **attributes)
        .node("GlobalAveragePool")
        .head()
        .save(tmp_path)
    )
    error = refused(path)
    assert error.message == f"own: operators that are not supported: {operator}"
    assert error.hint.startswith("supported: Add, AveragePool")


def test_a_resize_is_refused_by_name(tmp_path: Path) -> None:
    file = OwnFile().stem().node("Relu")
    file.node("Resize", np.array([], np.float32), np.array([1, 1, 2, 2], np.float32))
    assert "not supported: Resize" in refused(file.node("GlobalAveragePool").head().save(tmp_path)).message


def test_an_lstm_is_refused_by_name(tmp_path: Path) -> None:
    file = (
        OwnFile().stem().node("Relu").node("GlobalAveragePool").node("Reshape", np.array([1, 1, 8], np.int64))
    )
    file.node("LSTM", weights(1, 20, 8), weights(1, 20, 5), hidden_size=5)
    path = file.node("Reshape", np.array([1, 5], np.int64), output="scores").save(tmp_path)
    assert "not supported: LSTM" in refused(path).message


def test_operators_of_another_domain_are_refused_by_name(tmp_path: Path) -> None:
    path = (
        OwnFile().stem().node("Gelu", domain="com.microsoft").node("GlobalAveragePool").head().save(tmp_path)
    )
    assert "not supported: Gelu" in refused(path).message


def test_our_own_int8_file_is_refused_by_its_operators(small_v2: Exported, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(small_v2.artifact("onnx", "int8").data)
    assert "QuantizeLinear" in refused(path, 96).message


def relu6_to_one(file: OwnFile) -> OwnFile:
    return file.stem().node("Clip", np.float32(0), np.float32(1)).node("GlobalAveragePool").head()


def nan_weight(file: OwnFile) -> OwnFile:
    file.node("Conv", np.full((8, 3, 3, 3), np.nan, np.float32), weights(8), strides=[2, 2])
    return file.node("Relu").node("GlobalAveragePool").head()


def nan_bias(file: OwnFile) -> OwnFile:
    file.node("Conv", weights(8, 3, 3, 3), np.full(8, np.inf, np.float32), strides=[2, 2])
    return file.node("Relu").node("GlobalAveragePool").head()


def nan_linear_bias(file: OwnFile) -> OwnFile:
    file.stem().node("Relu").node("GlobalAveragePool").node("Flatten")
    return file.node("Gemm", weights(8, 5), np.full(5, np.nan, np.float32), output="scores")


def huge_batch_norm(file: OwnFile) -> OwnFile:
    huge = np.full(8, 1e30, np.float32)
    file.node("Conv", huge.repeat(27).reshape(8, 3, 3, 3), weights(8), strides=[2, 2])
    file.node("BatchNormalization", huge, weights(8), weights(8), np.ones(8, np.float32))
    return file.node("Relu").node("GlobalAveragePool").head()


def negative_variance(file: OwnFile) -> OwnFile:
    file.stem().node("BatchNormalization", weights(8), weights(8), weights(8), np.full(8, -1, np.float32))
    return file.node("Relu").node("GlobalAveragePool").head()


def dilated(file: OwnFile) -> OwnFile:
    return file.stem(dilations=[2, 2]).node("Relu").node("GlobalAveragePool").head()


def grouped(file: OwnFile) -> OwnFile:
    file.stem().node("Conv", weights(8, 4, 1, 1), weights(8), group=2)
    return file.node("GlobalAveragePool").head()


def multiplied(file: OwnFile) -> OwnFile:
    file.node("Conv", weights(6, 1, 3, 3), weights(6), group=3)
    file.node("Conv", weights(8, 6, 1, 1), weights(8))
    return file.node("GlobalAveragePool").head()


def local_pool(file: OwnFile) -> OwnFile:
    file.stem().node("AveragePool", kernel_shape=[2, 2], strides=[2, 2])
    return file.node("GlobalAveragePool").head()


def reflecting(file: OwnFile) -> OwnFile:
    file.node("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), mode="reflect")
    return file.stem().node("GlobalAveragePool").head()


def padding_ones(file: OwnFile) -> OwnFile:
    file.node("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), np.float32(1))
    return file.stem().node("GlobalAveragePool").head()


def activated_head(file: OwnFile) -> OwnFile:
    file.stem().node("GlobalAveragePool").node("Flatten").node("Gemm", weights(8, 8), weights(8)).node("Relu")
    return file.node("Gemm", weights(8, 5), weights(5), output="scores")


def broadcast_add(file: OwnFile) -> OwnFile:
    """The pooled features added to every position: same channels, another shape."""
    file.stem().node("Relu")
    features = file.last
    file.node("GlobalAveragePool")
    file.nodes.append(helper.make_node("Add", [features, file.last], ["sum"], name="sum"))
    file.last = "sum"
    return file.node("GlobalAveragePool").head()


def add_constant(file: OwnFile) -> OwnFile:
    return file.stem().node("Relu").node("Add", weights(1, 8, 1, 1)).node("GlobalAveragePool").head()


def no_pool(file: OwnFile) -> OwnFile:
    file.stem().node("Flatten")
    return file.node("Gemm", weights(5, 2048), weights(5), transB=1, output="scores")


REFUSED = {
    "clamps to (0.0, 1.0)": relu6_to_one,
    "weights hold NaN": nan_weight,
    "hold NaN or infinity": nan_bias,
    "Gemm n4: its weights hold NaN": nan_linear_bias,
    "overflow float32 once the BatchNorm after it is folded in": huge_batch_norm,
    "variance": negative_variance,
    "without dilation": dilated,
    "2 groups": grouped,
    "3 groups": multiplied,
    "is not global": local_pool,
    "constant zero padding": reflecting,
    "only constant zero padding": padding_ones,
    "an activation after the pool": activated_head,
    "adds tensors of shapes": broadcast_add,
    "adds a constant": add_constant,
    "only the pooled features": no_pool,
}


@pytest.mark.parametrize(
    ("reason", "make"), REFUSED.items(), ids=[make.__name__ for make in REFUSED.values()]
)
def test_what_a_mobilenet_has_not_is_refused_with_the_reason(
    reason: str, make: Callable[[OwnFile], OwnFile], tmp_path: Path
) -> None:
    assert reason in refused(make(OwnFile()).save(tmp_path)).message


def test_padding_by_name_is_refused(tmp_path: Path) -> None:
    path = OwnFile().stem(auto_pad="SAME_LOWER").node("GlobalAveragePool").head().save(tmp_path)
    assert "auto_pad SAME_LOWER" in refused(path).message


def test_half_precision_weights_are_refused(tmp_path: Path) -> None:
    file = OwnFile()
    file.input = helper.make_tensor_value_info("image", TensorProto.FLOAT16, [1, 3, PX, PX])
    file.outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT16, [1, 8])]
    file.node("Conv", weights(8, 3, 3, 3).astype(np.float16), strides=[2, 2]).node("GlobalAveragePool")
    assert "float16, not float32" in refused(file.node("Flatten", output="scores").save(tmp_path)).message


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    file = pooled().head()
    file.outputs.append(helper.make_tensor_value_info("t2", TensorProto.FLOAT, [1, 8, 1, 1]))
    assert "1 inputs and 2 outputs" in refused(file.save(tmp_path)).message


def test_an_output_that_is_a_map_is_refused(tmp_path: Path) -> None:
    file = OwnFile()
    file.outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, 16, 16])]
    file.stem().node("Relu", output="scores")
    assert "not a vector of class scores" in refused(file.save(tmp_path)).message


@pytest.mark.parametrize("shape", [[1, 1, PX, PX], [1, 4, PX, PX], [3, PX, PX], []])
def test_an_input_that_is_no_rgb_image_is_refused(shape: list[int], tmp_path: Path) -> None:
    file = OwnFile()
    file.input = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
    assert "is not" in refused(file.node("Identity", output="scores").save(tmp_path)).message


def test_a_fixed_batch_of_several_is_refused(tmp_path: Path) -> None:
    file = OwnFile(batch=8)
    path = file.stem().node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    assert "batch" in refused(path).message


def test_an_open_size_needs_the_resolution(tmp_path: Path) -> None:
    path = OwnFile(size=("H", "W")).stem().node("Relu").node("GlobalAveragePool").head().save(tmp_path)
    error = refused(path, kind=UsageError)
    assert "leaves the image size open" in error.message
    assert "--resolution" in error.hint


def test_another_resolution_than_the_files_is_refused(tmp_path: Path) -> None:
    error = refused(pooled().head().save(tmp_path), 96, UsageError)
    assert f"fixed at {PX} px, not 96" in error.message


@pytest.mark.parametrize("damage", ["empty", "truncated", "renamed", "flipped"])
def test_a_damaged_file_is_refused_with_exit_code_4(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pooled().head().save(tmp_path)
    data = path.read_bytes()
    changed = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "renamed": b"PK\x03\x04" + data[4:],
        "flipped": bytes(byte ^ 0xFF for byte in data),
    }
    path.write_bytes(changed[damage])
    assert "not a valid ONNX model" in refused(path).message
    out = tmp_path / "out"
    assert cli.run(["export", str(path), "--arch", "v2", "--out", str(out)]) == 4
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-2].startswith("error: ")
    assert printed.err.splitlines()[-1].startswith("hint: ")
    assert not printed.out
    assert not out.exists()


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.onnx", kind=UsageError).message


def save_beside(artifact: Artifact, folder: Path) -> Path:
    """As `torch.onnx.export` writes large networks."""
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(parse(artifact.data), str(path), save_as_external_data=True, location="model.onnx.data")
    return path


def test_weights_in_a_file_of_their_own_are_read_from_any_folder(small_v2: Exported, tmp_path: Path) -> None:
    artifact = small_v2.artifact("onnx", "fp32")
    path = save_beside(artifact, tmp_path / "theirs")
    assert len(path.read_bytes()) < len(artifact.data) / 10
    session = runtime("onnxruntime").open(bare_artifact(path))
    truth = runtime("onnxruntime").open(artifact)
    assert np.array_equal(session.run(small_v2.images), truth.run(small_v2.images))


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b"short")], ids=["gone", "cut"]
)
def test_weights_that_are_not_beside_the_file_are_asked_for(
    damage: Callable[[Path], object], small_v2: Exported, tmp_path: Path
) -> None:
    path = save_beside(small_v2.artifact("onnx", "fp32"), tmp_path / "theirs")
    damage(path.with_name("model.onnx.data"))
    with pytest.raises(DamagedInputError, match="its weights lie in another file") as caught:
        bare_artifact(path)
    assert caught.value.hint == "copy that file too, into the same folder"


@pytest.mark.parametrize("place", ["../secret", "{folder}/secret", "link"])
def test_no_file_outside_the_folder_is_read_as_weights(
    place: str, small_v2: Exported, tmp_path: Path
) -> None:
    path = save_beside(small_v2.artifact("onnx", "fp32"), tmp_path / "theirs")
    secret = path.with_name("model.onnx.data").rename(tmp_path / "secret")
    (path.parent / "link").symlink_to(secret)
    model = onnx.load(str(path), load_external_data=False)
    for entry in (entry for held in model.graph.initializer for entry in held.external_data):
        if entry.key == "location":
            entry.value = place.format(folder=tmp_path)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DamagedInputError, match="its weights lie in another file, which cannot be read"):
        bare_artifact(path)
