"""Layers without weights: the table that `mnx inspect` counts is the torch module; the counts are the papers'."""

import dataclasses
import subprocess
import sys

import pytest

from mobilenet_export.anatomy import Anatomy, Layer, Tensor
from mobilenet_export.architectures import ARCHITECTURES
from mobilenet_export.architectures.dissect import dissect
from mobilenet_export.architectures.layouts import outline
from mobilenet_export.architectures.plans import plan
from mobilenet_export.capture import capture_module
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import (
    Activation,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Node,
    Softmax,
    multiply_accumulates,
)
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec


def sized(name: str, width: float, resolution_px: int, classes: int = 1000) -> ModelSpec:
    return resize_spec(find_spec(name), width, resolution_px, classes)


def captured_layer(graph: Graph, node: Node) -> Layer:
    inputs = tuple(Tensor(name, graph.shapes[name]) for name in node.inputs)
    output = Tensor(node.name, graph.shapes[node.name])
    match node:
        case Conv2d(weight=weight, bias=bias, stride=stride, activation=activation):
            operator = "depthwise" if node.is_depthwise else "conv"
            return Layer(
                node.name, operator, inputs, output, weight.shape, bias.size, stride, activation.value
            )
        case FullyConnected(weight=weight, bias=bias):
            return Layer(node.name, "linear", inputs, output, weight.shape, bias.size)
        case Add(activation=activation):
            return Layer(node.name, "add", inputs, output, activation=activation.value)
        case GlobalAveragePool():
            return Layer(node.name, "pool", inputs, output)
        case Softmax():
            return Layer(node.name, "softmax", inputs, output)
    raise AssertionError(node)


@pytest.mark.parametrize(
    ("name", "width", "resolution_px"),
    [
        ("v1", 1.0, 224),
        ("v1", 0.25, 96),
        ("v1", 0.35, 160),
        ("v1", 1.4, 128),
        ("v2", 1.0, 224),
        ("v2", 0.25, 96),
        ("v2", 0.35, 192),
        ("v2", 0.75, 320),
        ("v2", 1.4, 128),
        ("mobilenet_v1_tutorial", 0.5, 224),
        ("mobilenet_v2_tutorial", 0.5, 224),
        ("mobilenet_v2_tutorial_as_coded", 0.25, 224),
    ],
)
def test_the_table_is_what_capture_finds_in_torch(name: str, width: float, resolution_px: int) -> None:
    from mobilenet_export.architectures import build  # noqa: PLC0415

    spec = sized(name, width, resolution_px, 12)
    graph = capture_module(build(spec), spec.name, spec.input_shape)
    found = dissect(spec)
    assert found.layers == tuple(captured_layer(graph, node) for node in graph.nodes)
    assert found.macs == multiply_accumulates(graph)
    assert found.input == Tensor("input", graph.input_shape)


@pytest.mark.parametrize("name", ["v1", "v2", "mobilenet_v2_tutorial_as_coded"])
def test_parameters_are_the_modules_without_its_batch_norms(name: str) -> None:
    spec = find_spec(name)
    weights = [p.numel() for p in outline(spec).parameters() if p.dim() > 1]
    assert dissect(spec).weights == sum(weights)
    assert dissect(spec).macs == spec.macs


@pytest.mark.parametrize(
    ("width", "resolution_px", "million_macs", "million_parameters"),
    [
        (1, 224, 569, 4.2),
        (0.75, 224, 325, 2.6),
        (0.5, 224, 149, 1.3),
        (0.25, 224, 41, 0.5),
        (1, 192, 418, 4.2),
    ],
)
def test_v1_costs_what_the_paper_says(
    width: float, resolution_px: int, million_macs: int, million_parameters: float
) -> None:
    """Source: Howard et al. 2017, arXiv 1704.04861, tables 6 and 7."""
    found = dissect(sized("v1", width, resolution_px))
    assert found.macs / 1e6 == pytest.approx(million_macs, abs=1)
    assert round(found.weights / 1e6, 1) == round(found.parameters / 1e6, 1) == million_parameters


def test_v1_with_standard_convolutions_costs_what_the_paper_says() -> None:
    """Source: Howard et al. 2017, table 4, "Conv MobileNet": 4866 M MACs, 29.3 M parameters."""
    found = dissect(find_spec("v1"))
    assert found.standard_macs / 1e6 == pytest.approx(4866, rel=3e-4)
    assert round(found.standard_weights / 1e6, 1) == 29.3
    assert 8 < found.standard_macs / found.macs < 9


def test_v2_costs_what_the_paper_says() -> None:
    """Source: Sandler et al. 2018, arXiv 1801.04381, table 4: 300 M MACs, 3.4 M parameters, both cut off."""
    found = dissect(find_spec("v2"))
    assert int(found.macs / 1e6) == 300
    assert int(found.weights / 1e5) == int(found.parameters / 1e5) == 34


@pytest.mark.parametrize(
    ("width", "resolution_px", "million_macs", "million_weights"),
    [
        (1.4, 224, 582, 6.06),
        (1.3, 224, 509, 5.34),
        (1.0, 224, 300, 3.47),
        (1.0, 192, 221, 3.47),
        (1.0, 160, 154, 3.47),
        (1.0, 128, 99, 3.47),
        (1.0, 96, 56, 3.47),
        (0.75, 224, 209, 2.61),
        (0.5, 224, 97, 1.95),
        (0.35, 224, 59, 1.66),
    ],
)
def test_v2_costs_what_its_authors_list(
    width: float, resolution_px: int, million_macs: int, million_weights: float
) -> None:
    """Source: tensorflow/models, research/slim/nets/mobilenet/README.md."""
    found = dissect(sized("v2", width, resolution_px))
    assert found.macs / 1e6 == pytest.approx(million_macs, abs=1)
    assert found.weights / 1e6 == pytest.approx(million_weights, abs=0.006)


@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize("width", [0.25, 0.35, 1.0, 1.4])
def test_a_pair_takes_its_share_of_the_dense_convolution(name: str, width: float) -> None:
    pairs = dissect(sized(name, width, 224)).pairs()
    assert len(pairs) == {"v1": 13, "v2": 17}[name]
    for pair in pairs:
        channels, height, width_px = pair.pointwise.output.shape
        dense = pair.depthwise.output.shape[0] * channels * 9
        assert pair.standard_weights == dense
        assert pair.standard_macs == dense * height * width_px
        assert pair.ratio == pytest.approx(1 / channels + 1 / 9)
        assert pair.weights / pair.standard_weights == pytest.approx(pair.ratio)
        assert pair.macs / pair.standard_macs == pytest.approx(pair.ratio)


def test_the_peak_is_the_largest_sum_of_what_lives_at_once() -> None:
    """V2 at 224 px is fullest where the first 96-channel map is halved; V1 where 32 channels become 64."""
    v2, v1 = dissect(find_spec("v2")), dissect(find_spec("v1"))
    assert v2.peak_bytes(4) == v2.peak_bytes() == 4 * (96 * 112 * 112 + 96 * 56 * 56)
    assert v1.peak_bytes(1) == 32 * 112 * 112 + 64 * 112 * 112


def test_a_shortcut_keeps_its_tensor_alive() -> None:
    image, a, b, c = (Tensor(name, (2, 4, 4)) for name in ("input", "a", "b", "c"))
    layers = (
        Layer("a", "conv", (image,), a),
        Layer("b", "conv", (a,), b),
        Layer("c", "add", (a, b), c),
    )
    assert Anatomy("x", image, layers).live_bytes(1) == (64, 64, 96)


def test_a_variant_is_counted_without_torch() -> None:
    code = (
        "import sys; from mobilenet_export.spec import find_spec;"
        "from mobilenet_export.architectures.dissect import dissect; dissect(find_spec('v2'));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx', 'onnxruntime', 'ai_edge_litert')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_architecture_has_a_plan() -> None:
    spec = find_spec("v2")
    for name in ARCHITECTURES:
        assert plan(dataclasses.replace(spec, architecture=name)).activation in (
            Activation.RELU,
            Activation.RELU6,
        )
    with pytest.raises(UsageError, match="unknown architecture: mobilenet_v3"):
        dissect(dataclasses.replace(spec, architecture="mobilenet_v3"))
