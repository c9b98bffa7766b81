"""What rounding and clipping cost at the logits, against the network itself."""

import numpy as np
import pytest
from conftest import tiny_batch, tiny_graph

from mobilenet_export.graph import Activation, FloatArray, Graph
from mobilenet_export.interpreter import float_layer, run, walk
from mobilenet_export.quantize.calibrate import find_ranges, observe
from mobilenet_export.quantize.sensitivity import _REACHES, best_ranges, tensor_noise
from mobilenet_export.runtimes.onnxruntime import watch

PIXELS = (-1.0, 1.0)


def ranges_of(graph: Graph, batch: FloatArray) -> dict[str, tuple[float, float]]:
    return dict(find_ranges(graph, observe(graph, watch(graph, [batch])), PIXELS))


def logits_with(graph: Graph, batch: FloatArray, name: str, low: float, high: float) -> FloatArray:
    """Logits with one tensor clipped."""
    values = dict(walk(graph, batch))
    start = [node.name for node in graph.nodes].index(name) + 1
    kept = {"input": batch.transpose(0, 2, 3, 1)}
    for node in graph.nodes[:start]:
        kept[node.name] = (
            values[node.name] if node.name in values else float_layer(node, [kept[n] for n in node.inputs])
        )
    kept[name] = np.clip(kept[name], low, high)
    for node in graph.nodes[start:]:
        kept[node.name] = float_layer(node, [kept[n] for n in node.inputs])
    return kept[graph.logits]


@pytest.mark.parametrize("name", ["pointwise", "add", "pool"])
def test_clipping_costs_what_it_moves_the_logits_by(name: str) -> None:
    """Behind these tensors all is linear, so that the gradient tells the whole truth."""
    graph, batch = tiny_graph(activation=Activation.NONE), tiny_batch(40)
    ranges = ranges_of(graph, batch)
    noise = tensor_noise(graph, batch, ranges)[name]
    index = int(np.flatnonzero(_REACHES == 0.6)[0])
    high = 0.6 * ranges[name][1]
    moved = logits_with(graph, batch, name, -np.inf, high) - run(graph, batch)
    assert np.square(noise.high[index]).mean() == pytest.approx(np.square(moved).sum(axis=1).mean(), rel=0.35)


def test_the_range_that_is_chosen_costs_no_more_than_the_others() -> None:
    graph, batch = tiny_graph(activation=Activation.NONE), tiny_batch(40)
    ranges = ranges_of(graph, batch)
    found = best_ranges(graph, batch, ranges, reach=1.0)
    assert found["input"] == ranges["input"]
    assert found["fc"] == ranges["fc"]

    def cost(low: float, high: float) -> float:
        step = (high - low) / 255
        rounding = tensor_noise(graph, batch, ranges)["add"].rounding * step**2 / 12
        moved = logits_with(graph, batch, "add", low, high) - run(graph, batch)
        return float(rounding + np.square(moved).sum(axis=1).mean())

    best = cost(*found["add"])
    for reach in (0.35, 0.6, 1.75, 3.0):
        assert best <= 1.3 * cost(reach * ranges["add"][0], reach * ranges["add"][1])


def test_a_farther_reach_widens_ranges_and_the_activation_bounds_them() -> None:
    graph, batch = tiny_graph(), tiny_batch(8)
    ranges = ranges_of(graph, batch)
    near, far = (best_ranges(graph, batch, ranges, reach) for reach in (1.0, 2.0))
    assert sum(high - low for low, high in far.values()) > sum(high - low for low, high in near.values())
    for name in ("stem", "depthwise"):
        assert far[name][0] == 0
        assert far[name][1] <= 6
