"""The files: what stands in them, read back without the code that wrote it; ONNX and TFLite hold one network."""

import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from conftest import Exported, TfliteFile, tiny_batch, tiny_graph
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from mobilenet_export.artifact import PRECISIONS, Artifact, InputOutput, Precision
from mobilenet_export.errors import UsageError
from mobilenet_export.formats import artifact_name, format_of, io_types
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.graph import Activation, Conv2d, FloatArray, FullyConnected, Pads
from mobilenet_export.interpreter import run_quantized
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import available_runtimes
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import OnnxRuntime, watch


def model_of(exported: Exported, precision: Precision) -> onnx.ModelProto:
    model = onnx.load_from_string(exported.artifact("onnx", precision).data)
    onnx.checker.check_model(model, full_check=True)
    return model


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}


def tflite_of(exported: Exported, precision: Precision, io: InputOutput = "float32") -> TfliteFile:
    return TfliteFile(exported.artifact("tflite", precision, io).data)


def quantized_tiny(activation: Activation = Activation.RELU6, *, softmax: bool = False) -> QuantizedGraph:
    graph = fold_normalization(tiny_graph(activation=activation, softmax=softmax), (0.5,) * 3, (0.25,) * 3)
    assert graph.pixels is not None
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), graph.pixels.bounds)
    return quantize_graph(graph, ranges, saturation_safe=True)


# One network, two spellings


def test_both_int8_files_hold_the_same_weights_scales_and_biases(real: Exported) -> None:
    held = constants(model_of(real, "int8"))
    file = tflite_of(real, "int8")
    layers = list(real.graph.kernels())
    assert len(layers) in (28, 53)
    for node in layers:
        weight, bias = file.constant(f"{node.name}.weight"), file.constant(f"{node.name}.bias")
        if isinstance(node, Conv2d):
            weight = weight.transpose((3, 0, 1, 2) if node.is_depthwise else (0, 3, 1, 2))
        assert weight.dtype == np.int8
        assert bias.dtype == np.int32
        np.testing.assert_array_equal(weight, held[f"{node.name}.weight/int8"], err_msg=node.name)
        np.testing.assert_array_equal(bias, held[f"{node.name}.bias/int32"], err_msg=node.name)
        for part, scale in (("weight", "weight/scale"), ("bias", "bias/scale")):
            quantization = file.tensors[f"{node.name}.{part}"].quantization
            np.testing.assert_array_equal(quantization.scale, held[f"{node.name}.{scale}"], err_msg=node.name)
            assert not np.any(quantization.zeroPoint)


def test_both_int8_files_hold_the_same_activation_scales(real: Exported) -> None:
    held, file = constants(model_of(real, "int8")), tflite_of(real, "int8")
    renamed = {"input/int8": "input/pixels", f"{real.graph.output}/int8": "output"}
    compared = 0
    for name, tensor in file.tensors.items():
        if file.is_constant(name) or file.kind(name) == "FLOAT32" or name.endswith("/padded"):
            continue
        spelled = renamed.get(name, name)
        assert tensor.quantization.scale[0] == held[f"{spelled}/scale"], name
        assert tensor.quantization.zeroPoint[0] == int(held[f"{spelled}/zero_point"]) - 128, name
        compared += 1
    assert compared == len(real.graph.nodes) + 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_both_float_files_hold_the_same_weights(real: Exported, precision: Precision) -> None:
    held, file = constants(model_of(real, precision)), tflite_of(real, precision)
    stored = "/fp16" if precision == "fp16" else ""
    kind = np.float16 if stored else np.float32
    for node in real.graph.kernels():
        weight = file.constant(f"{node.name}.weight{stored}")
        if isinstance(node, Conv2d):
            weight = weight.transpose((3, 0, 1, 2) if node.is_depthwise else (0, 3, 1, 2))
        assert weight.dtype == kind
        np.testing.assert_array_equal(weight, held[f"{node.name}.weight{stored}"])
        np.testing.assert_array_equal(file.constant(f"{node.name}.bias"), held[f"{node.name}.bias"])
        if precision == "fp32":
            np.testing.assert_array_equal(held[f"{node.name}.bias"], node.bias)
            np.testing.assert_array_equal(held[f"{node.name}.weight"], node.weight)


def test_the_same_graph_is_written_to_the_same_bytes(small: Exported) -> None:
    for form in (onnx_format, tflite_format):
        name = form.FORMAT.name
        again = form.write_int8(small.quantized, "float32", small.card)
        assert again == small.artifact(name, "int8").data
        for _ in range(2):
            assert form.write_float(small.graph, "fp32", small.card) == small.artifact(name, "fp32").data


@pytest.mark.parametrize(
    ("name", "form", "largest_mb"),
    [("v2", "onnx", 3.9), ("v2", "tflite", 4.05), ("v1", "onnx", 4.6), ("v1", "tflite", 4.6)],
)
def test_int8_files_are_as_small_as_promised(
    name: str, form: str, largest_mb: float, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(name)
    assert len(exported.artifact(form, "int8").data) <= largest_mb * 1e6


def test_fp16_files_are_half_the_size(real: Exported) -> None:
    for form in ("onnx", "tflite"):
        ratio = len(real.artifact(form, "fp16").data) / len(real.artifact(form, "fp32").data)
        assert 0.5 < ratio < 0.52


# ONNX


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_files_load_in_runtimes_of_2021(small: Exported, precision: Precision) -> None:
    model = model_of(small, precision)
    assert model.ir_version == 7
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_files_are_one_file_without_external_data(small: Exported, precision: Precision) -> None:
    for initializer in model_of(small, precision).graph.initializer:
        assert initializer.data_location == TensorProto.DEFAULT
        assert not initializer.external_data


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_files_take_any_batch_and_give_each_image_its_own_answer(
    small: Exported, precision: Precision
) -> None:
    (value,) = model_of(small, precision).graph.input
    assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == [
        "batch",
        3,
        96,
        96,
    ]
    session = OnnxRuntime().open(small.artifact("onnx", precision))
    together = session.run(small.images)
    assert together.shape == (8, 1000)
    single = np.concatenate([session.run(image) for image in np.split(small.images, 8)])
    np.testing.assert_allclose(together, single, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_onnx_files_pool_globally_and_never_reduce(small: Exported, precision: Precision) -> None:
    operators = Counter(node.op_type for node in model_of(small, precision).graph.node)
    assert operators["GlobalAveragePool"] == 1
    assert "ReduceMean" not in operators
    assert "BatchNormalization" not in operators


def test_onnx_operators_are_those_of_the_graph(v2: Exported) -> None:
    layers = {"Conv": 52, "Add": 10, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    fp32 = Counter(node.op_type for node in model_of(v2, "fp32").graph.node)
    assert fp32 == {**layers, "Clip": 35}
    fp16 = Counter(node.op_type for node in model_of(v2, "fp16").graph.node)
    assert fp16 == {**layers, "Clip": 35, "Cast": 53}
    int8 = Counter(node.op_type for node in model_of(v2, "int8").graph.node)
    activations = 1 + 64 + 1  # the input, every layer, and the pool once more before it is flattened
    integers = {"QuantizeLinear": activations, "DequantizeLinear": activations + 2 * 53}
    assert int8 == {**layers, **integers, "Mul": 1, "Add": 11}  # back to pixels
    camera = onnx.load_from_string(v2.artifact("onnx", "int8", "uint8").data)
    assert Counter(node.op_type for node in camera.graph.node) == {
        **layers,
        **integers,
        "QuantizeLinear": activations - 1,
        "Transpose": 1,
    }


@pytest.mark.parametrize("activation", list(Activation))
def test_no_clamp_is_left_in_int8_onnx(activation: Activation) -> None:
    model = onnx.load_from_string(onnx_format.write_int8(quantized_tiny(activation), "float32"))
    assert not {"Clip", "Relu"} & {node.op_type for node in model.graph.node}


def test_int8_onnx_saturates_where_the_activation_clamps(real: Exported) -> None:
    for node in real.graph.nodes:
        if isinstance(node, Conv2d) and node.activation is Activation.RELU6:
            low, high = real.quantized.tensors[node.name].bounds
            assert low == 0
            assert high <= 6 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("precision", "types"),
    [
        ("fp32", {TensorProto.FLOAT}),
        ("fp16", {TensorProto.FLOAT, TensorProto.FLOAT16}),
        ("int8", {TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32}),
    ],
)
def test_onnx_constants_have_the_types_of_their_precision(
    small: Exported, precision: Precision, types: set[int]
) -> None:
    model = model_of(small, precision)
    assert {initializer.data_type for initializer in model.graph.initializer} == types
    for name, value in constants(model).items():
        if name.endswith(("weight/int8", "weight/zero_point")):
            assert value.dtype == np.int8, name
        elif name.endswith("/zero_point"):
            assert value.dtype == np.uint8, name
        elif name.endswith("bias/int32"):
            assert value.dtype == np.int32, name
        elif name.endswith("/fp16"):
            assert value.dtype == np.float16, name
        else:
            assert value.dtype == np.float32, name
            assert precision != "int8" or name.endswith(("/scale", "input/gain", "input/shift")), name


def test_int8_onnx_weights_have_a_scale_per_channel(real: Exported) -> None:
    held = constants(model_of(real, "int8"))
    for node in real.graph.kernels():
        assert held[f"{node.name}.weight/scale"].shape == (len(node.weight),)
        assert held[f"{node.name}.bias/scale"].shape == (len(node.weight),)


@pytest.mark.parametrize("form", ["onnx", "tflite"])
def test_one_scale_for_all_channels_is_written_and_read_as_one(form: str) -> None:
    graph = tiny_graph()
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), (-1.0, 1.0))
    quantized = quantize_graph(graph, ranges, saturation_safe=True, per_tensor=True)
    writer = load_plugin("formats", form)
    data = writer.write_int8(quantized, "float32")
    found = writer.read_int8(data, graph)
    for name, kernel in quantized.kernels.items():
        assert len(set(kernel.scale)) == 1
        np.testing.assert_array_equal(found.kernels[name].scale, kernel.scale)
        np.testing.assert_array_equal(found.kernels[name].weight, kernel.weight)
    if form == "onnx":
        held = constants(onnx.load_from_string(data))
        assert held["stem.weight/scale"].shape == held["stem.bias/scale"].shape == ()
    else:
        assert len(TfliteFile(data).tensors["stem.weight"].quantization.scale) == 1
    (engine, *_) = [engine for engine in available_runtimes() if form in engine.formats]
    batch = tiny_batch(4)
    session = engine.open(Artifact("tiny", form, "int8", data))
    step = quantized.tensors["fc"].scale
    np.testing.assert_allclose(session.run(batch), run_quantized(quantized, batch), atol=1.01 * step)


def optimized_operators(data: bytes, folder: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(str(folder / "optimized.onnx")).graph.node)


def test_onnxruntime_computes_int8_in_integers_from_end_to_end(real: Exported, tmp_path: Path) -> None:
    counts = optimized_operators(real.artifact("onnx", "int8").data, tmp_path)
    kinds = Counter(type(node).__name__ for node in real.graph.nodes)
    expected = {
        "Mul": 1,  # back to pixels
        "Add": 1,
        "QuantizeLinear": 1,
        "QLinearConv": kinds["Conv2d"],
        "QLinearAdd": kinds["Add"],
        "QLinearGlobalAveragePool": 1,
        "QGemm": 1,
        "DequantizeLinear": 1,
    }
    layout = {"Flatten", "Transpose", "Reshape"}
    assert {name: count for name, count in counts.items() if name not in layout} == {
        k: v for k, v in expected.items() if v
    }


def test_onnxruntime_takes_pixels_without_a_float_on_the_way(real: Exported, tmp_path: Path) -> None:
    counts = optimized_operators(real.artifact("onnx", "int8", "uint8").data, tmp_path)
    assert not {"QuantizeLinear", "Mul", "Add", "Conv"} & counts.keys()
    assert counts["DequantizeLinear"] == 1  # of the logits


def test_only_a_graph_of_pixels_takes_integers() -> None:
    graph = tiny_graph()
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), (-1.0, 1.0))
    quantized = quantize_graph(graph, ranges, saturation_safe=True)
    for form in (onnx_format.FORMAT, tflite_format.FORMAT):
        with pytest.raises(ValueError, match="takes uint8"):
            form.write_int8(quantized, "uint8")
    with pytest.raises(ValueError, match="takes int8"):
        onnx_format.write_int8(quantized_tiny(), "int8")


def test_all_spellings_of_the_integers_give_the_same_bits(real: Exported) -> None:
    """Whatever they take: normalized values, a camera's pixels, or pixels less 128."""
    images = real.images[:4]
    for form, engine in (("onnx", OnnxRuntime()), ("tflite", LiteRuntime())):
        files = [a for a in real.artifacts if a.format == form and a.precision == "int8"]
        outputs = [engine.open(artifact).run(images) for artifact in files]
        assert len(outputs) == (2 if form == "onnx" else 3)
        for output in outputs[1:]:
            np.testing.assert_array_equal(output, outputs[0])


def test_the_tapped_file_shows_every_tensor_and_the_unclamped_ones() -> None:
    graph = tiny_graph()
    _, taps = onnx_format.write_tapped(graph, {})
    names = {node.name for node in graph.nodes} - {graph.output}
    assert set(taps) == names | {"stem/unclamped", "depthwise/unclamped"}


# TFLite

NEWEST = {
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "ADD": 2,
    "MEAN": 2,
    "PAD": 2,
    "DEQUANTIZE": 3,
    "FULLY_CONNECTED": 4,
    "QUANTIZE": 1,
    "SOFTMAX": 1,
    "MUL": 1,
}
"""What tflite-runtime 2.14 still loads."""


def every_tflite(exported: Exported) -> list[TfliteFile]:
    files = [TfliteFile(artifact.data) for artifact in exported.artifacts if artifact.format == "tflite"]
    assert len(files) == 7
    return files


def test_tflite_operators_load_in_tflite_runtime_2_14(real: Exported) -> None:
    for file in every_tflite(real):
        for name, version, _ in file.operators():
            assert version <= NEWEST[name], name


def test_tflite_operator_codes_are_listed_once_and_readable_by_old_readers(real: Exported) -> None:
    for file in every_tflite(real):
        codes = [(code.builtinCode, code.version) for code in file.model.operatorCodes]
        assert len(codes) == len(set(codes))
        assert all(code.deprecatedBuiltinCode == code.builtinCode for code in file.model.operatorCodes)
        assert file.model.version == 3
        assert file.data[4:8] == b"TFL3"


def test_tflite_is_channel_last_with_a_batch_of_1(real: Exported) -> None:
    for file in every_tflite(real):
        assert file.tensors["input"].shape.tolist() == [1, 224, 224, 3]
        assert file.tensors["output"].shape.tolist() == [1, 1000]
        (inputs,), (outputs,) = file.subgraph.inputs, file.subgraph.outputs
        assert file.subgraph.tensors[inputs].name == b"input"
        assert file.subgraph.tensors[outputs].name == b"output"
        for node in real.graph.nodes:
            if isinstance(node, Conv2d):
                channels, height, width = real.graph.shapes[node.name]
                assert file.tensors[node.name].shape.tolist() == [1, height, width, channels]


def test_tflite_operators_are_those_of_the_graph(v1: Exported, v2: Exported) -> None:
    v2_layers = {"CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "MEAN": 1, "FULLY_CONNECTED": 1, "PAD": 5}
    v1_layers = {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 13, "MEAN": 1, "FULLY_CONNECTED": 1}
    for exported, layers, weights in ((v1, v1_layers, 28), (v2, v2_layers, 53)):
        assert tflite_of(exported, "fp32").counts() == layers
        assert tflite_of(exported, "fp16").counts() == {**layers, "DEQUANTIZE": weights}
        ends = {"QUANTIZE": 1, "DEQUANTIZE": 1}
        to_pixels = {"MUL": 1, "ADD": layers.get("ADD", 0) + 1}
        assert tflite_of(exported, "int8").counts() == {**layers, **ends, **to_pixels}
        assert tflite_of(exported, "int8", "int8").counts() == layers
        assert tflite_of(exported, "int8", "uint8").counts() == {**layers, **ends}


def test_tflite_fuses_activations(real: Exported) -> None:
    expected = [node.activation.name for node in real.graph.nodes if isinstance(node, Conv2d)]
    names = {0: "NONE", 1: "RELU", 3: "RELU6"}
    for file in every_tflite(real):
        found = [
            names[operator.builtinOptions.fusedActivationFunction]  # type: ignore[attr-defined]
            for name, _, operator in file.operators()
            if name in ("CONV_2D", "DEPTHWISE_CONV_2D")
        ]
        assert found == expected


def test_everything_inside_int8_tflite_is_an_integer(real: Exported) -> None:
    for io in ("float32", "int8", "uint8"):
        file = tflite_of(real, "int8", io)  # type: ignore[arg-type]
        for name in file.tensors:
            if name.startswith("input") and name != "input/int8":
                assert file.kind(name) == io.upper()
            elif name == "output":
                assert file.kind(name) == ("INT8" if io == "int8" else "FLOAT32")
            else:
                assert file.kind(name) in ("INT8", "INT32"), name


def test_tflite_normalizes_a_row_at_a_time(real: Exported) -> None:
    width, pixels, file = real.graph.input_shape[2], real.quantized.graph.pixels, tflite_of(real, "int8")
    assert pixels is not None
    for name, factors in (("input/gain", pixels.gain), ("input/shift", pixels.shift)):
        np.testing.assert_array_equal(file.constant(name), np.tile(factors, (1, 1, width, 1)))


def test_integer_input_and_output_state_their_scale(real: Exported) -> None:
    graph = real.graph
    for io, offset in (("int8", 128), ("uint8", 0)):
        file = tflite_of(real, "int8", io)  # type: ignore[arg-type]
        for name, tensor in (("input", graph.input), ("output", graph.output)):
            if file.kind(name) == "FLOAT32":
                continue
            scale, quantization = real.quantized.tensors[tensor], file.tensors[name].quantization
            assert quantization.scale.tolist() == [scale.scale]
            assert quantization.zeroPoint.tolist() == [scale.zero_point - offset]
        assert file.tensors["input"].quantization.scale.tolist() == [1.0]


def test_tflite_weights_are_symmetric_per_channel_on_the_right_axis(real: Exported) -> None:
    file = tflite_of(real, "int8")
    for node in real.graph.kernels():
        quantization = file.tensors[f"{node.name}.weight"].quantization
        depthwise = isinstance(node, Conv2d) and node.is_depthwise
        assert quantization.quantizedDimension == (3 if depthwise else 0)
        assert len(quantization.scale) == len(node.weight)
        assert np.abs(file.constant(f"{node.name}.weight").astype(int)).max() <= 127


def test_tflite_constants_are_aligned_to_16_bytes(real: Exported) -> None:
    for file in every_tflite(real):
        found = 0
        for name, tensor in file.tensors.items():
            if not file.is_constant(name):
                continue
            data = file.model.buffers[tensor.buffer].data.tobytes()
            if len(data) < 64:
                continue  # short ones may occur twice
            assert file.data.index(data) % 16 == 0, name
            found += 1
        assert found >= 28


def test_a_network_that_ends_in_a_softmax_gives_float_probabilities() -> None:
    quantized = quantized_tiny(softmax=True)
    for io in ("float32", "int8", "uint8"):
        data = tflite_format.write_int8(quantized, io)  # type: ignore[arg-type]
        file = TfliteFile(data)
        assert file.kind("output") == "FLOAT32"
        assert file.kind("input") == io.upper()
        scores = LiteRuntime().open(Artifact("s.tflite", "tflite", "int8", data)).run(tiny_batch())
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


# Padding


def tensorflow_same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Source: TensorFlow's documentation of padding='SAME'."""
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    return total // 2, total - total // 2


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_same_padding_is_tensorflows(height: int, width: int, kh: int, kw: int, stride: int) -> None:
    pads = tflite_format._same_pads((3, height, width), (kh, kw), (stride, stride))
    top, bottom = tensorflow_same(height, kh, stride)
    left, right = tensorflow_same(width, kw, stride)
    assert pads == Pads(top, left, bottom, right)


@pytest.mark.parametrize(
    ("pads", "operators"),
    [(Pads(1, 1, 1, 1), 1), (Pads(0, 0, 1, 1), 0), (Pads(), 0), (Pads(2, 0, 1, 3), 1)],
)
def test_only_padding_that_tensorflow_has_no_word_for_needs_an_operator(pads: Pads, operators: int) -> None:
    graph = tiny_graph(pads=pads)
    data = tflite_format.write_float(graph, "fp32")
    assert TfliteFile(data).counts().get("PAD", 0) == operators
    result = LiteRuntime().open(Artifact("p.tflite", "tflite", "fp32", data)).run(tiny_batch())
    onnx_data = onnx_format.write_float(graph, "fp32")
    truth = OnnxRuntime().open(Artifact("p.onnx", "onnx", "fp32", onnx_data)).run(tiny_batch())
    np.testing.assert_allclose(result, truth, rtol=1e-4, atol=1e-5)


# Agreement


def sqnr_db(truth: FloatArray, result: FloatArray) -> float:
    return float(
        10
        * np.log10((truth.astype(np.float64) ** 2).sum() / ((truth - result).astype(np.float64) ** 2).sum())
    )


@pytest.mark.parametrize(
    ("name", "precision", "least_db"),
    [
        ("v1", "fp32", 110),
        ("v1", "fp16", 55),
        ("v1", "int8", 23),
        ("v2", "fp32", 110),
        ("v2", "fp16", 55),
        ("v2", "int8", 18),
    ],
)
def test_files_with_real_weights_agree_with_torch(
    name: str, precision: Precision, least_db: float, request: pytest.FixtureRequest
) -> None:
    real: Exported = request.getfixturevalue(name)
    truth = real.source.reference.run(real.images)
    for engine in (OnnxRuntime(), LiteRuntime()):
        result = engine.open(real.artifact(engine.formats[0], precision)).run(real.images)
        assert sqnr_db(truth, result) >= least_db, engine.name


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_fp16_and_fp32_files_agree_between_runtimes(small: Exported, precision: Precision) -> None:
    first = OnnxRuntime().open(small.artifact("onnx", precision)).run(small.images)
    second = LiteRuntime().open(small.artifact("tflite", precision)).run(small.images)
    assert sqnr_db(first, second) > 100


# The registry


def test_formats_are_found_by_name_and_extension() -> None:
    assert plugin_names("formats") == ("onnx", "ort", "tflite")
    for name in plugin_names("formats"):
        form = load_plugin("formats", name)
        assert form.name == name
        assert format_of(Path(f"model{form.extension.upper()}")) is form


def test_an_unknown_extension_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no format ends in \.pb") as caught:
        format_of(Path("model.pb"))
    assert caught.value.hint == "known: .onnx, .ort, .tflite"


def test_a_format_without_integer_input_keeps_its_own() -> None:
    assert io_types(onnx_format.FORMAT, "int8", ["int8"]) == ("float32",)
    assert io_types(tflite_format.FORMAT, "int8", ["uint8", "int8"]) == ("uint8", "int8")
    assert io_types(tflite_format.FORMAT, "fp32", ["uint8", "int8"]) == ("uint8",)
    assert io_types(tflite_format.FORMAT, "fp16", ["int8"]) == ("float32",)


def test_file_names_say_precision_and_integer_input() -> None:
    assert artifact_name("m", onnx_format.FORMAT, "fp16", "float32") == "m_fp16.onnx"
    assert artifact_name("m", tflite_format.FORMAT, "int8", "uint8") == "m_int8_io_uint8.tflite"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_files_precision_is_told_from_its_bytes(small: Exported, precision: Precision) -> None:
    for form in (onnx_format.FORMAT, tflite_format.FORMAT):
        assert form.read_precision(small.artifact(form.name, precision).data) == precision


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00\x00",
        b"PK\x03\x04 not a model at all",
        b"\xff" * 64,
        b"\x00\x00\x00\x00TFL3",
        b"\x00\x00\x00\x00ORTM",
        b"\xff\x00\x00\x00ORTM",
    ],
)
@pytest.mark.parametrize("name", plugin_names("formats"))
def test_what_is_no_model_has_no_precision(name: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an? (ONNX|TFLite|ORT format) model"):
        load_plugin("formats", name).read_precision(data)


def test_a_fully_connected_weight_is_written_as_it_is() -> None:
    node = FullyConnected(
        "fc", "pool", np.arange(10, dtype=np.float32).reshape(2, 5), np.zeros(2, np.float32)
    )
    assert tflite_format._laid_out(node, node.weight) is node.weight


# What a file says about itself


def metadata_of(data: bytes) -> dict[str, bytes]:
    """Every entry of metadata of a .tflite file."""
    model = schema.Model.GetRootAs(data)
    entries = map(model.Metadata, range(model.MetadataLength()))
    return {entry.Name().decode(): model.Buffers(entry.Buffer()).DataAsNumpy().tobytes() for entry in entries}


def test_every_tflite_file_holds_its_metadata_and_class_names(real: Exported) -> None:
    for artifact in real.artifacts:
        if artifact.format == "tflite":
            (entry,) = metadata_of(artifact.data).items()
            assert entry[0] == "TFLITE_METADATA"
            assert entry[1][4:8] == b"M001"
            with zipfile.ZipFile(BytesIO(artifact.data)) as archive:
                (names,) = archive.infolist()
                assert names.compress_type == zipfile.ZIP_STORED
                labels = archive.read("labels.txt").decode().splitlines()
            assert tuple(labels) == real.card.labels


def test_metadata_costs_little_more_than_the_class_names(real: Exported) -> None:
    bare, labels = tflite_format.write_float(real.graph, "fp32"), "\n".join(real.card.labels)
    assert len(real.artifact("tflite", "fp32").data) - len(bare) < len(labels) + 1_500


def test_an_onnx_file_names_author_and_licence_of_its_weights(small_v2: Exported, v2: Exported) -> None:
    model = onnx.load_from_string(v2.artifact("onnx", "int8").data)
    held = {entry.key: entry.value for entry in model.metadata_props}
    assert held["model_license"] == "BSD-3-Clause"
    assert held["model_author"].startswith("torchvision")
    assert model.doc_string == v2.card.description
    assert not onnx.load_from_string(small_v2.artifact("onnx", "fp32").data).metadata_props  # random weights
