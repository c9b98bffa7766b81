"""Width × resolution: every size of both architectures exports, agrees in fp32, and holds one set of integers."""

from functools import cache
from itertools import product

import numpy as np
import pytest
from conftest import TfliteFile

from mobilenet_export.architectures.checkpoint import build_with_weights
from mobilenet_export.artifact import Artifact, Precision
from mobilenet_export.capture import capture_module
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.formats import onnx as onnx_format
from mobilenet_export.formats import tflite as tflite_format
from mobilenet_export.graph import Add, Conv2d, FloatArray, Graph
from mobilenet_export.images import ImageSet, batches, default_set
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantize.saturation import largest_pair_sum
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes.litert import LiteRuntime
from mobilenet_export.runtimes.onnxruntime import EXACT_ON_X64, OnnxRuntime, watch
from mobilenet_export.runtimes.torch import TorchSession
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec

ARCHITECTURES = ("v1", "v2")
WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.4)
RESOLUTIONS_PX = (96, 128, 160, 192)

CALIBRATE, CHECK = 8, 4
LEAST_FP32_DB = 100.0
LEAST_INT8_DB = 10.0
"""Random weights are noisier than trained ones, and nothing corrects their biases here."""
LARGEST_LITERT_STEPS = 8
"""Steps of the logits; a difference of one on the way grows in random networks."""


def spec_of(name: str, width: float, resolution_px: int) -> ModelSpec:
    return resize_spec(find_spec(name), width, resolution_px, 100)


@cache
def network(name: str, width: float) -> TorchSession:
    """The seeded network; its weights do not depend on the resolution it runs at."""
    return TorchSession(build_with_weights(spec_of(name, width, 96), weights="none").module)


@cache
def leaves() -> tuple[ImageSet, ImageSet]:
    calibration, check = default_set()
    return calibration.subset(calibration.names[:CALIBRATE]), check.subset(check.names[:CHECK])


def values(image_set: ImageSet, spec: ModelSpec) -> FloatArray:
    ((_, batch),) = batches(image_set, spec.preprocess, len(image_set))
    return batch


def assert_size(name: str, width: float, resolution_px: int) -> None:
    spec = spec_of(name, width, resolution_px)
    calibration, check = (values(image_set, spec) for image_set in leaves())
    session = network(name, width)
    graph = capture_module(session._module, spec.name, spec.input_shape)
    truth = session.run(check)
    assert_floats_agree(graph, truth, check)
    folded = fold_normalization(graph, spec.preprocess.mean, spec.preprocess.std)
    assert folded.pixels is not None
    ranges = calibrate(folded, watch(folded, [calibration]), folded.pixels.bounds)
    quantized = quantize_graph(folded, ranges, saturation_safe=True)
    onnx_int8, tflite_int8 = written(quantized)
    assert_same_integers(quantized, TfliteFile(tflite_int8.data), onnx_int8.data)
    assert_saturation_safe(quantized)
    assert_integers_agree(quantized, (onnx_int8, tflite_int8), truth, check)


def assert_floats_agree(graph: Graph, truth: FloatArray, check: FloatArray) -> None:
    precision: Precision = "fp32"
    for form, engine in ((onnx_format, OnnxRuntime()), (tflite_format, LiteRuntime())):
        artifact = Artifact("f", form.FORMAT.name, precision, form.write_float(graph, precision))
        assert sqnr_db(truth, engine.open(artifact).run(check)) >= LEAST_FP32_DB, engine.name


def written(quantized: QuantizedGraph) -> tuple[Artifact, Artifact]:
    return (
        Artifact("q.onnx", "onnx", "int8", onnx_format.write_int8(quantized, "float32")),
        Artifact("q.tflite", "tflite", "int8", tflite_format.write_int8(quantized, "float32")),
    )


def assert_same_integers(quantized: QuantizedGraph, tflite: TfliteFile, onnx_data: bytes) -> None:
    import onnx  # noqa: PLC0415

    model = onnx.load_from_string(onnx_data)
    assert not {"Clip", "Relu", "ReduceMean"} & {node.op_type for node in model.graph.node}
    held = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in quantized.graph.kernels():
        weight = tflite.constant(f"{node.name}.weight")
        if isinstance(node, Conv2d):
            weight = weight.transpose((3, 0, 1, 2) if node.is_depthwise else (0, 3, 1, 2))
        np.testing.assert_array_equal(weight, held[f"{node.name}.weight/int8"], err_msg=node.name)
        np.testing.assert_array_equal(tflite.constant(f"{node.name}.bias"), held[f"{node.name}.bias/int32"])
        scale = tflite.tensors[f"{node.name}.weight"].quantization.scale
        np.testing.assert_array_equal(scale, held[f"{node.name}.weight/scale"])
    inside = {tflite.kind(name) for name in tflite.tensors if not name.startswith(("input", "output"))}
    assert inside == {"INT8", "INT32"}
    counts = tflite.counts()
    assert counts["ADD"] == 1 + sum(isinstance(node, Add) for node in quantized.graph.nodes)  # 1 makes pixels
    halving = [n for n in quantized.graph.nodes if isinstance(n, Conv2d) and n.stride == (2, 2)]
    assert counts.get("PAD", 0) == sum(n.pads.top == n.pads.left == 1 for n in halving)


def assert_saturation_safe(quantized: QuantizedGraph) -> None:
    for node in quantized.graph.kernels():
        if not (isinstance(node, Conv2d) and node.is_depthwise):
            assert largest_pair_sum(quantized.kernels[node.name].weight).max() <= 128, node.name


def assert_integers_agree(
    quantized: QuantizedGraph, files: tuple[Artifact, Artifact], truth: FloatArray, check: FloatArray
) -> None:
    onnx_int8, tflite_int8 = files
    result = OnnxRuntime().open(onnx_int8).run(check)
    assert sqnr_db(truth, result) >= LEAST_INT8_DB
    np.testing.assert_array_equal(OnnxRuntime().open(onnx_int8, EXACT_ON_X64).run(check), result)
    step = quantized.tensors[quantized.graph.logits].scale
    assert np.abs(LiteRuntime().open(tflite_int8).run(check) - result).max() <= LARGEST_LITERT_STEPS * step


@pytest.mark.parametrize(("name", "width", "resolution_px"), [("v1", 0.35, 128), ("v2", 0.35, 128)])
def test_an_odd_size_exports_and_agrees(name: str, width: float, resolution_px: int) -> None:
    assert_size(name, width, resolution_px)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "resolution_px"), [*product(ARCHITECTURES, WIDTHS, RESOLUTIONS_PX)]
)
def test_every_size_exports_and_agrees(name: str, width: float, resolution_px: int) -> None:
    assert_size(name, width, resolution_px)
