"""Channels brought to like ranges: the network stays, and its origin does not matter."""

import dataclasses

import numpy as np
import pytest
from conftest import Exported, tiny_batch, tiny_graph

from mobilenet_export.graph import Activation, Conv2d, FloatArray, Graph, activation_bounds
from mobilenet_export.interpreter import run, walk
from mobilenet_export.quantize.calibrate import Observed, observe
from mobilenet_export.quantize.equalize import (
    Factors,
    equalize_all,
    equalize_pairs,
    equalize_weights,
    rescale,
)
from mobilenet_export.runtimes.onnxruntime import watch


def seen(graph: Graph, batch: FloatArray) -> Observed:
    return observe(graph, watch(graph, [batch]))


def magnitudes(graph: Graph, batch: FloatArray) -> dict[str, np.ndarray]:
    return {name: extremes.magnitude(1.2) for name, extremes in seen(graph, batch).items()}


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("activation", [Activation.RELU, Activation.RELU6])
def test_the_network_computes_the_same(activation: Activation, dense: bool) -> None:
    graph, batch = tiny_graph(activation=activation), tiny_batch(6)
    factors = (equalize_all if dense else equalize_pairs)(graph, magnitudes(graph, batch)).factors
    assert bool(factors) == dense  # depthwise layers alone read no tensor of this graph
    np.testing.assert_allclose(run(rescale(graph, factors), batch), run(graph, batch), rtol=1e-3, atol=1e-4)


def test_real_networks_compute_the_same(real: Exported) -> None:
    batch = real.images[:2]
    for method in (equalize_pairs, equalize_all, equalize_weights):
        factors = method(real.graph, magnitudes(real.graph, batch)).factors
        truth, result = run(real.graph, batch), run(rescale(real.graph, factors), batch)
        assert np.square(truth - result).sum() < 1e-9 * np.square(truth).sum()


def test_what_only_depthwise_layers_read_gets_the_whole_range(real: Exported) -> None:
    batch = real.images[:2]
    magnitude = magnitudes(real.graph, batch)
    found = equalize_pairs(real.graph, magnitude)
    readers = {name: real.graph.consumers(name) for name in found.factors}
    assert all(isinstance(n, Conv2d) and n.is_depthwise for nodes in readers.values() for n in nodes)
    for name, factors in found.factors.items():
        whole = found.ranges[name][1]
        alive = magnitude[name] > magnitude[name].max() / 4000
        scaled = (magnitude[name] * factors)[alive & (magnitude[name] < 6)]
        np.testing.assert_allclose(scaled, whole, rtol=1e-5)


def test_channels_that_reach_the_clamp_keep_their_scale(real: Exported) -> None:
    magnitude = magnitudes(real.graph, real.images[:2])
    bounds = activation_bounds(real.graph)
    for name, factors in equalize_all(real.graph, magnitude).factors.items():
        top = bounds[name][1]
        assert (factors[magnitude[name] >= top] == 1).all()
        assert (np.minimum(magnitude[name], top) * factors <= top * 1.0001).all()


def test_tensors_that_an_add_joins_share_their_factors() -> None:
    graph, batch = tiny_graph(activation=Activation.RELU), tiny_batch(6)
    factors = equalize_all(graph, magnitudes(graph, batch)).factors
    for name in ("pointwise", "add", "pool"):
        np.testing.assert_array_equal(factors[name], factors["stem"])
    assert "fc" not in factors
    assert "input" not in factors


def hostile(graph: Graph, factors: Factors) -> Graph:
    return rescale(graph, factors)


@pytest.mark.parametrize("least", [1 / 30, 1e-7])
def test_a_rescaled_checkpoint_gives_the_same_network(least: float) -> None:
    """Whatever somebody multiplied the channels by, each tensor is the same but for one factor."""
    graph, batch = tiny_graph(activation=Activation.RELU), tiny_batch(6)
    random = np.random.default_rng(3)
    stream = np.exp(random.uniform(np.log(least), 0, 8)).astype(np.float32)
    spoilt = hostile(
        graph,
        {
            **dict.fromkeys(("stem", "pointwise", "add", "pool"), stream),
            "depthwise": np.float32(1 / 7) + 0 * stream,
        },
    )
    equal = [rescale(g, equalize_all(g, magnitudes(g, batch)).factors) for g in (graph, spoilt)]
    tensors = [dict(walk(g, batch)) for g in equal]
    for name in graph.shapes:
        one, other = (found[name] / np.abs(found[name]).max() for found in tensors)
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_dead_channel_does_not_spoil_the_others() -> None:
    graph, batch = tiny_graph(activation=Activation.RELU), tiny_batch(6)
    stem = graph.nodes[0]
    assert isinstance(stem, Conv2d)
    weight, bias = stem.weight.copy(), stem.bias.copy()
    weight[2], bias[2] = 0, 0
    dead = dataclasses.replace(
        graph, nodes=(dataclasses.replace(stem, weight=weight, bias=bias), *graph.nodes[1:])
    )
    factors = equalize_all(dead, magnitudes(dead, batch)).factors
    assert all(np.isfinite(values).all() and (values > 0).all() for values in factors.values())
    np.testing.assert_allclose(run(rescale(dead, factors), batch), run(dead, batch), rtol=1e-3, atol=1e-4)
