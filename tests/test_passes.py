"""The passes: each is exact, and touches only what it may."""

import dataclasses

import numpy as np
import pytest
from conftest import tiny_batch, tiny_graph

from mobilenet_export.artifact import Normalization
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.graph import (
    Activation,
    Add,
    BatchNorm,
    Clamp,
    Conv2d,
    FloatArray,
    GlobalAveragePool,
    Graph,
    Node,
    Pads,
    ZeroPad,
)
from mobilenet_export.interpreter import convolve, run
from mobilenet_export.passes import absorb
from mobilenet_export.passes.fold_batch_norm import fold_batch_norm
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.passes.fuse_activation import fuse_activation
from mobilenet_export.passes.fuse_padding import fuse_padding
from mobilenet_export.passes.simplify import simplify

PX = 8
RANDOM = np.random.default_rng(11)
IMAGES = RANDOM.standard_normal((2, 3, PX, PX)).astype(np.float32)


def conv(name: str = "conv", source: str = "input", inputs: int = 3, pads: Pads = Pads()) -> Conv2d:
    weight = RANDOM.standard_normal((4, inputs, 3, 3)).astype(np.float32)
    return Conv2d(name, source, weight, RANDOM.standard_normal(4).astype(np.float32), pads=pads)


def graph(*nodes: Node) -> Graph:
    return Graph("test", "input", (3, PX, PX), nodes)


def channels_last(batch: FloatArray) -> FloatArray:
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1))


def test_folding_a_batch_norm_changes_no_number() -> None:
    layer = conv()
    norm = BatchNorm("norm", "conv", RANDOM.standard_normal(4), RANDOM.standard_normal(4))
    folded = fold_batch_norm(graph(layer, norm, GlobalAveragePool("pool", "norm")))
    assert [node.name for node in folded.nodes] == ["conv", "pool"]
    values = (
        convolve(layer, channels_last(IMAGES).astype(np.float64), layer.weight.astype(np.float64))
        + layer.bias
    )
    truth = (values * norm.scale + norm.shift).mean(axis=(1, 2))
    np.testing.assert_allclose(run(folded, IMAGES), truth, rtol=1e-5, atol=1e-5)


def test_folding_is_done_in_float64_and_rounded_once() -> None:
    layer = conv()
    norm = BatchNorm("norm", "conv", np.full(4, 1 / 3), np.full(4, 1 / 7))
    (folded, _) = fold_batch_norm(graph(layer, norm, GlobalAveragePool("pool", "norm"))).nodes
    assert isinstance(folded, Conv2d)
    assert np.array_equal(folded.weight, (layer.weight.astype(np.float64) / 3).astype(np.float32))
    assert folded.weight.dtype == folded.bias.dtype == np.float32


def test_a_batch_norm_of_a_tensor_that_others_read_is_not_folded() -> None:
    norm = BatchNorm("norm", "conv", np.ones(4), np.zeros(4))
    before = graph(conv(), norm, Add("add", ("conv", "norm")), GlobalAveragePool("pool", "add"))
    assert fold_batch_norm(before).nodes == before.nodes
    with pytest.raises(
        DamagedInputError, match="norm: this BatchNorm does not follow a convolution of its own"
    ):
        simplify(before)


def test_a_batch_norm_after_an_activation_is_refused() -> None:
    nodes = (
        conv(),
        Clamp("relu", "conv", Activation.RELU),
        BatchNorm("norm", "relu", np.ones(4), np.zeros(4)),
    )
    with pytest.raises(DamagedInputError, match="this BatchNorm"):
        simplify(graph(*nodes, GlobalAveragePool("pool", "norm")))


@pytest.mark.parametrize("activation", [Activation.RELU, Activation.RELU6])
def test_fusing_an_activation_changes_no_number(activation: Activation) -> None:
    layer = dataclasses.replace(conv(), bias=np.full(4, 3, np.float32))
    nodes = (layer, Clamp("clamp", "conv", activation), GlobalAveragePool("pool", "clamp"))
    fused = fuse_activation(graph(*nodes))
    assert [node.name for node in fused.nodes] == ["conv", "pool"]
    values = convolve(layer, channels_last(IMAGES), layer.weight) + layer.bias
    assert values.max() > 6
    assert values.min() < 0
    np.testing.assert_array_equal(run(fused, IMAGES), np.clip(values, *activation.bounds).mean(axis=(1, 2)))


def test_an_activation_after_an_add_is_fused_into_it() -> None:
    nodes = (conv("a"), conv("b"), Add("add", ("a", "b")), Clamp("relu", "add", Activation.RELU))
    fused = fuse_activation(graph(*nodes, GlobalAveragePool("pool", "relu")))
    assert fused.nodes[2] == Add("add", ("a", "b"), Activation.RELU)
    assert fused.nodes[3].inputs == ("add",)


def test_an_activation_of_a_tensor_that_others_read_unclamped_is_refused() -> None:
    nodes = (conv(), Clamp("relu", "conv", Activation.RELU), Add("add", ("conv", "relu")))
    with pytest.raises(DamagedInputError, match="this Clamp"):
        simplify(graph(*nodes, GlobalAveragePool("pool", "add")))


def test_fusing_a_padding_changes_no_number() -> None:
    layer = conv(source="pad", pads=Pads(2, 1, 1, 0))
    fused = fuse_padding(
        graph(ZeroPad("pad", "input", Pads(1, 0, 2, 3)), layer, GlobalAveragePool("pool", "conv"))
    )
    assert fused.nodes[0].pads == Pads(3, 1, 3, 3)  # type: ignore[union-attr]
    padded = np.pad(channels_last(IMAGES), ((0, 0), (3, 3), (1, 3), (0, 0)))
    plain = dataclasses.replace(layer, pads=Pads())
    truth = (convolve(plain, padded, layer.weight) + layer.bias).mean(axis=(1, 2), dtype=np.float32)
    np.testing.assert_array_equal(run(fused, IMAGES), truth)
    assert fused.shapes["conv"] == (4, PX + 6 - 2, PX + 4 - 2)


def test_a_padding_that_something_else_reads_too_is_refused() -> None:
    nodes = (conv("first", pads=Pads(1, 1, 1, 1)), ZeroPad("pad", "first", Pads(1, 1, 1, 1)))
    with pytest.raises(DamagedInputError, match="pad: this ZeroPad"):
        simplify(graph(*nodes, conv("second", "pad", 4), GlobalAveragePool("pool", "pad")))


def test_dropping_a_chain_of_nodes_joins_its_ends() -> None:
    nodes = (
        conv("a"),
        Clamp("b", "a", Activation.RELU),
        Clamp("c", "b", Activation.RELU),
        GlobalAveragePool("d", "c"),
    )
    joined = absorb(graph(*nodes), {"b": "a", "c": "b"}, {})
    assert [node.name for node in joined.nodes] == ["a", "d"]
    assert joined.nodes[1].inputs == ("a",)


def test_simplifying_a_fused_graph_changes_nothing() -> None:
    before = tiny_graph()
    assert simplify(before).nodes == before.nodes


def test_all_passes_together_are_exact() -> None:
    fused = tiny_graph()
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in fused.nodes:
        if not isinstance(node, Conv2d):
            reads = tuple(renamed.get(name, name) for name in node.inputs)
            change = {"inputs": reads} if isinstance(node, Add) else {"input": reads[0]}
            nodes.append(dataclasses.replace(node, **change))  # type: ignore[arg-type]
            continue
        source, name = renamed.get(node.input, node.input), node.name
        nodes.append(ZeroPad(f"{name}_pad", source, node.pads))
        nodes.append(
            dataclasses.replace(
                node, input=f"{name}_pad", pads=Pads(), bias=node.bias * 0, activation=Activation.NONE
            )
        )
        nodes.append(BatchNorm(f"{name}_norm", name, np.ones(8), node.bias.astype(np.float64)))
        nodes.append(Clamp(f"{name}_clamp", f"{name}_norm", node.activation))
        renamed[name] = f"{name}_clamp"
    again = simplify(Graph("tiny", "input", fused.input_shape, tuple(nodes)))
    assert [node.name for node in again.nodes] == [node.name for node in fused.nodes]
    batch = tiny_batch()
    np.testing.assert_array_equal(run(again, batch), run(fused, batch))


# Half precision


# The normalization, folded into the first layer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_folding_the_normalization_changes_nothing_but_the_border() -> None:
    original = graph(conv(pads=Pads(1, 1, 1, 1)))
    folded = fold_normalization(original, MEAN, STD)
    truth, found = run(original, IMAGES), run(folded, IMAGES)
    np.testing.assert_allclose(found[:, 1:-1, 1:-1], truth[:, 1:-1, 1:-1], rtol=1e-4, atol=1e-4)
    assert np.abs(found - truth).max() > 0.01


def test_without_padding_folding_the_normalization_is_exact() -> None:
    original = graph(conv())
    folded = fold_normalization(original, MEAN, STD)
    np.testing.assert_allclose(run(folded, IMAGES), run(original, IMAGES), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pads", [Pads(1, 1, 1, 1), Pads(0, 0, 1, 1), Pads(2, 0, 0, 0)])
def test_the_zero_point_is_the_one_with_the_least_error_at_the_border(pads: Pads) -> None:
    original = graph(conv(pads=pads))
    folded = fold_normalization(original, MEAN, STD)
    truth, stem = run(original, IMAGES), folded.nodes[0]
    assert folded.pixels is not None
    assert isinstance(stem, Conv2d)

    def error(zero_point: int) -> float:
        """One side at a time, as where two meet is only a corner."""
        assert folded.pixels is not None
        moved = stem.weight.sum(axis=(1, 2, 3)) * (zero_point - folded.pixels.zero_point)
        nodes = (dataclasses.replace(stem, bias=stem.bias + moved),)
        pixels = dataclasses.replace(folded.pixels, zero_point=zero_point)
        off = run(dataclasses.replace(folded, nodes=nodes, pixels=pixels), IMAGES) - truth
        sides = (off[:, 0, 1:-1], off[:, -1, 1:-1], off[:, 1:-1, 0], off[:, 1:-1, -1])
        return sum(float(np.square(side).mean()) for side in sides)

    assert min(range(256), key=error) == folded.pixels.zero_point


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, STD), ((0.5,) * 3, (0.5,) * 3), ((0.0,) * 3, (1 / 255,) * 3)]
)
def test_every_pixel_comes_back_as_itself(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    folded = fold_normalization(graph(conv(pads=Pads(1, 1, 1, 1))), mean, std)
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 256, 1, 3).transpose(0, 3, 1, 2)
    mean_, std_ = (np.float32(values)[:, None, None] for values in (mean, std))
    normalized = (pixels.astype(np.float32) / np.float32(255) - mean_) / std_
    assert folded.pixels is not None
    steps = folded.feed(normalized) + folded.pixels.zero_point
    assert np.abs(steps - np.rint(steps)).max() < 1e-3  # far from all ties
    np.testing.assert_array_equal(np.rint(steps).astype(np.uint8), pixels)
    np.testing.assert_array_equal(Normalization(mean, std).pixels(normalized), pixels)


def test_only_a_convolution_takes_the_normalization_in() -> None:
    with pytest.raises(UsageError, match="pool cannot take the normalization in"):
        fold_normalization(graph(GlobalAveragePool("pool", "input")), MEAN, STD)
