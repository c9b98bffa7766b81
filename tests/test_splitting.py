"""Copies of channels in the places of dead ones: what is chosen, that nothing else changes, and what it gains."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from conftest import Exported, tiny_batch
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_export.bundle import EQUALIZATION, Bundle
from mobilenet_export.checks.metrics import sqnr_db
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import (
    Activation,
    Conv2d,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Node,
    Pads,
    PixelInput,
)
from mobilenet_export.interpreter import (
    channels_last,
    dequantize,
    float_layer,
    quantize,
    run,
    walk,
    walk_quantized,
)
from mobilenet_export.pipeline.analyze import as_exported
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.equalize import rescale
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantize.sensitivity import ChannelSlopes, channel_slopes
from mobilenet_export.quantize.sequential import Rebuild, rebuild
from mobilenet_export.quantize.splitting import (
    channel_bounds,
    find_copies,
    place_copies,
    reference_graph,
    shift_copies,
)
from mobilenet_export.quantized import QuantizedGraph, TensorScale

PIXELS = PixelInput((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 128)
DEAD = (1, 4)


def graph_with_dead(dead: tuple[int, ...] = DEAD, activation: Activation = Activation.RELU6) -> Graph:
    """Stem, depthwise, linear pointwise, pool, 5 classes; some hidden channels give one value only."""
    random = np.random.default_rng(5)

    def values(*shape: int, scale: float) -> np.ndarray:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    stem, filters = values(8, 3, 3, 3, scale=0.01), values(8, 1, 3, 3, scale=0.5)
    biases = values(8, scale=0.3)
    filters[list(dead)] = 0
    biases[list(dead)] = 0.7
    pads = Pads(1, 1, 1, 1)
    nodes: tuple[Node, ...] = (
        Conv2d("stem", "input", stem, values(8, scale=0.3), (2, 2), pads, 1, activation),
        Conv2d("depthwise", "stem", filters, biases, pads=pads, groups=8, activation=activation),
        Conv2d("pointwise", "depthwise", values(6, 8, 1, 1, scale=0.4), values(6, scale=0.3)),
        GlobalAveragePool("pool", "pointwise"),
        FullyConnected("fc", "pool", values(5, 6, scale=1.0), values(5, scale=0.3)),
    )
    return Graph("tiny", "input", (3, 16, 16), nodes, PIXELS)


def activations(graph: Graph, batch: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [
        {name: value.transpose(0, 3, 1, 2) if value.ndim == 4 else value for name, value in walk(graph, one)}
        for one in np.split(batch, len(batch))
    ]


def quantized_of(graph: Graph, copies: dict[str, dict[int, int]] | None = None) -> QuantizedGraph:
    ranges = calibrate(graph, activations(graph, tiny_batch(8)), PIXELS.bounds)
    return quantize_graph(graph, ranges, copies or {}, saturation_safe=True)


def steps_of(quantized: QuantizedGraph) -> dict[str, np.ndarray]:
    return {name: np.full(1, scale.scale, np.float32) for name, scale in quantized.tensors.items()}


def chosen(graph: Graph) -> dict[str, dict[int, int]]:
    found = find_copies(graph, channel_slopes(graph, tiny_batch(8)), steps_of(quantized_of(graph)))
    return {layer: dict(rows) for layer, rows in found.items()}


def weights_of(graph: Graph, name: str) -> np.ndarray:
    (node,) = [node for node in graph.kernels() if node.name == name]
    return node.weight


# What is chosen


def test_dead_channels_take_copies_of_the_channels_whose_rounding_costs_most() -> None:
    graph = graph_with_dead()
    slopes, steps = channel_slopes(graph, tiny_batch(8)), steps_of(quantized_of(graph))
    noise = sum(slopes[name].squares * steps[name] ** 2 for name in ("stem", "depthwise"))
    noise[list(DEAD)] = 0
    first, second = np.argsort(-noise)[:2].tolist()
    assert sorted(chosen(graph)["depthwise"]) == list(DEAD)
    assert list(chosen(graph)["depthwise"].values()) == [first, second]


def test_without_dead_channels_nothing_is_copied() -> None:
    assert chosen(graph_with_dead(())) == {}


def test_a_channel_that_could_wake_keeps_its_place() -> None:
    graph = graph_with_dead()
    nodes = tuple(
        dataclasses.replace(node, weight=np.where(node.weight == 0, 0.2, node.weight).astype(np.float32))
        if node.name == "depthwise" and isinstance(node, Conv2d)
        else node
        for node in graph.nodes
    )
    assert chosen(dataclasses.replace(graph, nodes=nodes)) == {}


def test_channels_that_others_read_too_are_left_alone() -> None:
    graph = graph_with_dead()
    more = Conv2d("more", "stem", np.ones((6, 8, 1, 1), np.float32), np.zeros(6, np.float32))
    both = dataclasses.replace(graph, nodes=(graph.nodes[0], more, *graph.nodes[1:]))
    zero = {n: ChannelSlopes(np.ones(s[0]), np.zeros(s[0])) for n, s in both.shapes.items()}
    assert find_copies(both, zero, dict.fromkeys(both.shapes, np.ones(1, np.float32))) == {}


def test_how_a_checkpoints_channels_are_scaled_does_not_matter() -> None:
    graph = graph_with_dead(activation=Activation.RELU)
    factors = {name: np.float32([1, 0.03, 5, 0.2, 30, 1, 2, 0.5]) for name in ("stem", "depthwise")}
    scaled, steps = rescale(graph, factors), steps_of(quantized_of(graph))
    scaled_steps = {name: step * factors.get(name, np.ones(1, np.float32)) for name, step in steps.items()}
    expected = find_copies(graph, channel_slopes(graph, tiny_batch(8)), steps)
    assert find_copies(scaled, channel_slopes(scaled, tiny_batch(8)), scaled_steps) == expected
    assert sorted(expected["depthwise"]) == list(DEAD)


@pytest.mark.parametrize(
    ("arch", "layer", "places"), [("v1", "features.1.0.0", 9), ("v2", "features.1.conv.0.0", 7)]
)
def test_the_embedded_networks_have_room_after_their_stems(
    arch: str, layer: str, places: int, request: pytest.FixtureRequest
) -> None:
    exported: Exported = request.getfixturevalue(arch)
    graph = exported.pixel_graph
    slopes = channel_slopes(graph, exported.images[:4])
    found = find_copies(graph, slopes, steps_of(exported.quantized))
    assert len(found[layer]) == pytest.approx(places, abs=2)


# Nothing changes but the rounding


def test_bounds_hold_for_any_pixels() -> None:
    graph = graph_with_dead()
    bounds = channel_bounds(graph)
    random = np.random.default_rng(0)
    pixels = random.choice([0.0, 1.0], (64, 3, 16, 16)).astype(np.float32)
    for name, value in walk(graph, (pixels - 0.5) / 0.5):
        if name in ("stem", "depthwise", "pointwise"):
            low, high = bounds[name]
            assert (value.min(axis=(0, 1, 2)) >= low - 1e-4).all(), name
            assert (value.max(axis=(0, 1, 2)) <= high + 1e-4).all(), name
    low, high = bounds["depthwise"]
    assert (high - low)[list(DEAD)].tolist() == [0, 0]


def test_a_graph_with_copies_computes_the_same() -> None:
    graph, batch = graph_with_dead(), tiny_batch(4)
    placed = place_copies(graph, chosen(graph))
    np.testing.assert_allclose(run(placed, batch), run(graph, batch), atol=1e-5)
    assert (weights_of(placed, "depthwise")[list(DEAD)] != 0).all()
    assert placed.shapes == graph.shapes


def copies_in(exported: Exported) -> dict[str, dict[int, int]]:
    """Copies for a real network, whether or not the few images of its fixture kept them."""
    slopes = channel_slopes(exported.pixel_graph, exported.images[:4])
    found = find_copies(exported.pixel_graph, slopes, steps_of(exported.quantized))
    assert found
    return {layer: dict(rows) for layer, rows in found.items()}


def test_what_places_lose_lies_far_below_the_noise_of_int8(real: Exported) -> None:
    """int8 has 24 to 28 dB, this 46 (V1) and 58: places of channels that vary a little are given away too."""
    plain, batch = real.pixel_graph, real.images[:2]
    lost_db = sqnr_db(run(plain, batch), run(place_copies(plain, copies_in(real)), batch))
    assert 40 < lost_db < np.inf


# What it gains


@given(st.floats(-40, 40), st.integers(1, 5))
def test_the_mean_of_copies_has_finer_steps(value: float, count: int) -> None:
    copies = {"depthwise": dict.fromkeys(range(1, count), 0)}
    step = TensorScale(0.5, 0)
    graph = place_copies(graph_with_dead((1, 2, 3, 4)), copies)
    flat = dataclasses.replace(
        graph,
        nodes=tuple(
            dataclasses.replace(node, weight=0 * node.weight, bias=np.full(8, value, np.float32))
            if node.name in ("stem", "depthwise") and isinstance(node, Conv2d)
            else node
            for node in graph.nodes
        ),
    )
    shifted = shift_copies(flat, copies, dict.fromkeys(flat.shapes, step), {})
    for name in ("stem", "depthwise"):
        (node,) = [node for node in shifted.kernels() if node.name == name]
        rounded = np.rint(node.bias[:count].astype(np.float64) / step.scale) * step.scale
        assert abs(rounded.mean() - value) <= step.scale / count / 2 + 1e-5


def with_rounded_activations(quantized: QuantizedGraph, batch: np.ndarray) -> np.ndarray:
    """Logits with float weights and hidden channels that were integers."""
    graph = quantized.graph
    values = {graph.input: channels_last(graph.feed(batch))}
    for node in graph.nodes:
        made = float_layer(node, [values[name] for name in node.inputs])
        scale, hidden = quantized.tensors[node.name], node.name in ("stem", "depthwise")
        values[node.name] = dequantize(quantize(made, scale), scale) if hidden else made
    return values[graph.output]


def test_copies_lower_the_noise_of_activations() -> None:
    graph, batch = graph_with_dead(), tiny_batch(32, seed=3)
    copies, truth = chosen(graph), run(graph, batch)
    plain, copied = quantized_of(graph), quantized_of(place_copies(graph, copies), copies)
    noise = [np.square(with_rounded_activations(q, batch) - truth).mean() for q in (plain, copied)]
    assert noise[1] < 0.8 * noise[0]


def test_the_filters_of_copies_are_rounded_together() -> None:
    graph = graph_with_dead((1, 2, 3, 4, 5))
    copies = {"depthwise": dict.fromkeys((1, 2, 3), 0)}
    placed = place_copies(graph, copies)
    quantized = quantized_of(placed, copies)
    rebuilt = rebuild(quantized, tiny_batch(8), Rebuild(None, rounding=True, saturation_safe=True))
    kernel, wanted = rebuilt.kernels["depthwise"], weights_of(placed, "depthwise")[0]
    found = kernel.weight[:4] * kernel.scale[:4, None, None, None]
    assert np.abs(found.mean(axis=0) - wanted).max() < 0.5 * np.abs(found[0] - wanted).max()


# What bundles and caches hold


def bundle_with(folder: Path, arrays: dict[str, np.ndarray]) -> Bundle:
    data = safetensors.numpy.save(arrays)
    (folder / EQUALIZATION).write_bytes(data)
    return Bundle(folder, {"equalization_sha256": hashlib.sha256(data).hexdigest(), "decisions": []})


def test_copies_are_read_back_from_a_bundle(tmp_path: Path) -> None:
    graph, source = graph_with_dead(), np.int32([0, 0, 2, 3, 2, 5, 6, 7])
    found, _ = as_exported(bundle_with(tmp_path, {"copies/depthwise": source}), quantized_of(graph))
    assert found.copies == {"depthwise": {1: 0, 4: 2}}
    placed = place_copies(graph, found.copies)
    assert np.array_equal(weights_of(found.graph, "pointwise"), weights_of(placed, "pointwise"))


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        ("stem", np.arange(8, dtype=np.int32)),
        ("fc", np.arange(5, dtype=np.int32)),
        ("nowhere", np.arange(8, dtype=np.int32)),
        ("depthwise", np.arange(7, dtype=np.int32)),
        ("depthwise", np.arange(8, dtype=np.int64)),
        ("depthwise", np.arange(8, dtype=np.float32)),
        ("depthwise", np.int32([0, 8, 2, 3, 4, 5, 6, 7])),
        ("depthwise", np.int32([0, -1, 2, 3, 4, 5, 6, 7])),
        ("depthwise", np.int32([0, 4, 2, 3, 0, 5, 6, 7])),
        ("depthwise", np.zeros((), np.int32)),
    ],
)
def test_copies_that_do_not_fit_are_damaged(layer: str, source: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(DamagedInputError, match=f"no copies of {layer}"):
        as_exported(bundle_with(tmp_path, {f"copies/{layer}": source}), quantized_of(graph_with_dead()))


def test_layers_with_copies_are_compared_with_copies(v1: Exported) -> None:
    """The stem's integers are those of the reference graph, where the original has dead channels."""
    quantized, batch, stem = v1.quantized, v1.images[:2], "features.0.0"
    places = list(quantized.copies["features.1.0.0"])
    factors = quantized.equalization.get(stem, np.ones(32, np.float32))
    scale, integers = quantized.tensors[stem], dict(walk_quantized(quantized, batch))[stem]
    for graph, close in ((reference_graph(v1.pixel_graph, quantized), True), (v1.pixel_graph, False)):
        wanted = dict(walk(graph, batch))[stem] * factors
        wrong = np.abs(dequantize(integers, scale) - wanted.clip(*scale.bounds)) / scale.scale
        assert (np.quantile(wrong[..., places], 0.99) < 3) == close
