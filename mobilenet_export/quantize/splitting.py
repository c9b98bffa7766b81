"""Dead channels give their place to copies of the channels whose rounding costs most.

A hidden channel is a row of a dense layer, the depthwise filter that reads it, and the column of the dense layer
that reads that. With m copies of one, each read with 1/m of its weight, nothing changes but the rounding: copy j is
shifted by o_j = (j + ½)/m − ½ steps before it is rounded, and the mean of m such staircases is one with steps of
Δ/m. So the noise falls to 1/m².

In a wider network copies cost time. Trained MobileNets have the room: 9 of the 32 channels after V1's stem, and 7
after V2's, vary by less than 0.05 whatever the image; what they add goes into the bias of their reader.
Source: Zhao et al. 2019 (arXiv:1901.09504), outlier channel splitting and its quantization-aware form, there for
weights and with more channels; here for activations and in place of others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import Add, Conv2d, FloatArray, GlobalAveragePool, Graph, Node, Pads
from mobilenet_export.quantize.sensitivity import ChannelSlopes
from mobilenet_export.quantized import Copies, QuantizedGraph, TensorScale

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Lowest and highest value of each channel, (C,) each."""


@dataclass(frozen=True, slots=True)
class _Hidden:
    """The layers around channels that nothing else reads: dense, depthwise, dense."""

    made: Conv2d
    filtered: Conv2d
    read: Conv2d

    @property
    def nodes(self) -> tuple[Conv2d, Conv2d, Conv2d]:
        return (self.made, self.filtered, self.read)


def find_copies(
    graph: Graph,
    slopes: Mapping[str, ChannelSlopes],
    steps: Mapping[str, FloatArray],
) -> Copies:
    """Choose which channels to copy, and into whose places, as long as a copy gains more than the place loses.

    A copy gains of the rounding noise Σg²·Δ²/12 that its channel puts on the logits; a place loses at most
    (Σg)²·(w/2)², w being how much its channel can vary.

    Args:
        graph: Fused float graph that takes pixels.
        slopes: Of its tensors.
        steps: What they are rounded to, float32 (C,) or (1,).
    """
    bounds = channel_bounds(graph)
    found = {}
    for hidden in _hidden(graph):
        names = (hidden.made.name, hidden.filtered.name)
        noise = np.sum([slopes[name].squares * np.square(steps[name]) / 12 for name in names], axis=0)
        low, high = bounds[hidden.filtered.name]
        loss = slopes[hidden.filtered.name].shifts * ((high - low) / 2) ** 2
        if copies := _assign(noise, loss):
            found[hidden.filtered.name] = copies
    return found


def _assign(noise: NDArray[np.float64], loss: NDArray[np.float64]) -> dict[int, int]:
    """Place → channel that is copied into it, the cheapest places first."""
    count, copies = np.ones(len(noise)), dict[int, int]()
    for place in np.argsort(loss, kind="stable").tolist():
        gain = noise / count**2 - noise / (count + 1) ** 2
        gain[[place, *copies]] = 0
        best = int(gain.argmax())
        if count[place] > 1 or gain[best] <= loss[place]:
            break
        copies[place] = best
        count[best] += 1
    return copies


def place_copies(graph: Graph, copies: Copies) -> Graph:
    """Return the graph with the copies in their places; it computes the same, but for what the places lose.

    Args:
        graph: Fused float graph, as copies were found for.
        copies: What to place.
    """
    bounds = channel_bounds(graph) if copies else {}
    placed: dict[str, Conv2d] = {}
    for hidden in _hidden(graph):
        if not (chosen := copies.get(hidden.filtered.name)):
            continue
        made, filtered, read = (placed.get(node.name, node) for node in hidden.nodes)
        source = sources(chosen, len(filtered.weight))
        share = (1 / np.bincount(source, minlength=len(source))[source]).astype(np.float32)
        places, (low, high) = list(chosen), bounds[filtered.name]
        constant = read.weight[:, places].sum(axis=(2, 3)) @ ((low + high) / 2)[places]
        weight = read.weight[:, source] * share[:, None, None]
        placed[made.name] = _gathered(made, source)
        placed[filtered.name] = _gathered(filtered, source)
        placed[read.name] = replace(read, weight=weight, bias=(read.bias + constant).astype(np.float32))
    return replace(graph, nodes=tuple(placed.get(node.name, node) for node in graph.nodes))


def _gathered(node: Conv2d, source: NDArray[np.int64]) -> Conv2d:
    return replace(node, weight=node.weight[source], bias=node.bias[source])


def sources(copies: Mapping[int, int], channels: int) -> NDArray[np.int64]:
    """Return which channel of the original each channel is, (C,)."""
    source = np.arange(channels)
    source[list(copies)] = list(copies.values())
    return source


def factors_of_copies(
    graph: Graph, copies: Copies, factors: Mapping[str, FloatArray]
) -> dict[str, FloatArray]:
    """Return the factors by which copies are scaled where the originals are scaled by these."""
    return {
        name: factors[name][sources(copies[hidden.filtered.name], len(hidden.filtered.weight))]
        for hidden in _hidden(graph)
        if hidden.filtered.name in copies
        for name in (hidden.made.name, hidden.filtered.name)
        if name in factors
    }


def shift_copies(
    graph: Graph,
    copies: Copies,
    tensors: Mapping[str, TensorScale],
    factors: Mapping[str, FloatArray],
) -> Graph:
    """Return the graph with its copies shifted by their parts of a step, before they are rounded.

    Args:
        graph: With the copies in their places.
        copies: Which those are.
        tensors: Scales that tensors are rounded to.
        factors: By which the scales' tensors are larger than this graph's, channel by channel.
    """
    shifted: dict[str, Node] = {}
    for hidden in _hidden(graph):
        if not (chosen := copies.get(hidden.filtered.name)):
            continue
        steps = _steps(sources(chosen, len(hidden.filtered.weight)))
        made, filtered = (
            steps * tensors[node.name].scale / factors.get(node.name, np.float32(1))
            for node in (hidden.made, hidden.filtered)
        )
        shifted[hidden.made.name] = _raised(hidden.made, made)
        shifted[hidden.filtered.name] = _raised(hidden.filtered, filtered)
    return replace(graph, nodes=tuple(shifted.get(node.name, node) for node in graph.nodes))


def reference_graph(graph: Graph, quantized: QuantizedGraph) -> Graph:
    """Return the float graph whose tensors those of the integers are, but for their factors.

    Args:
        graph: The original one, taking pixels.
        quantized: Integers of it, with what was done to its channels.
    """
    placed = place_copies(graph, quantized.copies)
    return shift_copies(placed, quantized.copies, quantized.tensors, quantized.equalization)


def spell_copies(quantized: QuantizedGraph) -> dict[str, NDArray[np.int32]]:
    """Return by layer which channel each of its channels is a copy of; `read_copies` undoes it."""
    return {
        layer: sources(rows, len(quantized.kernels[layer].bias)).astype(np.int32)
        for layer, rows in quantized.copies.items()
    }


def read_copies(graph: Graph, arrays: Mapping[str, NDArray[Any]]) -> Copies:
    """Read copies back from the sources of each layer's channels.

    Raises:
        ValueError: They do not fit the graph.
    """
    channels = {hidden.filtered.name: len(hidden.filtered.weight) for hidden in _hidden(graph)}
    found = {}
    for layer, source in arrays.items():
        fits = source.shape == (channels.get(layer),) and source.dtype == np.int32
        if not fits or not np.isin(source, np.flatnonzero(source == np.arange(len(source)))).all():
            raise ValueError(f"no copies of {layer}")
        found[layer] = {
            int(place): int(source[place]) for place in np.flatnonzero(source != np.arange(len(source)))
        }
    return found


def _steps(source: NDArray[np.int64]) -> NDArray[np.float64]:
    """(j + ½)/m − ½ of each channel, j being its number among m copies of one; 0 of others."""
    same = source[:, None] == source
    number = np.tril(same, -1).sum(axis=1)
    return np.asarray((number + 0.5) / same.sum(axis=1) - 0.5)


def _raised(node: Conv2d, shift: NDArray[np.float64]) -> Conv2d:
    return replace(node, bias=(node.bias + shift).astype(np.float32))


def _is_dense(node: Node | None) -> TypeGuard[Conv2d]:
    return isinstance(node, Conv2d) and node.groups == 1


def _hidden(graph: Graph) -> Iterator[_Hidden]:
    nodes = {node.name: node for node in graph.nodes}
    for filtered in graph.nodes:
        if not isinstance(filtered, Conv2d) or not filtered.is_depthwise:
            continue
        made, readers = nodes.get(filtered.input), graph.consumers(filtered.name)
        alone = len(graph.consumers(filtered.input)) == len(readers) == 1
        if alone and _is_dense(made) and _is_dense(read := readers[0]) and read.pads == Pads():
            yield _Hidden(made, filtered, read)


def channel_bounds(graph: Graph) -> dict[str, Bounds]:
    """Return what each channel can reach whatever the pixels, by interval arithmetic; up to the pool.

    The bounds are true but wide: each layer assumes the worst of all its inputs at once.
    """
    assert graph.pixels is not None
    low, high = (np.full(graph.input_shape[0], end, np.float64) for end in graph.pixels.bounds)
    bounds = {graph.input: (low, high)}
    for node in graph.nodes:
        if isinstance(node, GlobalAveragePool):
            break
        found = [bounds[name] for name in node.inputs]
        if isinstance(node, Conv2d):
            low, high = _reached(node, *found[0])
        else:
            low, high = (np.sum(ends, axis=0) for ends in zip(*found, strict=True))
        assert isinstance(node, Conv2d | Add)
        bounds[node.name] = (low.clip(*node.activation.bounds), high.clip(*node.activation.bounds))
    return bounds


def _reached(node: Conv2d, low: NDArray[np.float64], high: NDArray[np.float64]) -> Bounds:
    if node.pads != Pads():
        low, high = np.minimum(low, 0), np.maximum(high, 0)
    rows = len(node.weight) // node.groups
    low, high = (ends.reshape(node.groups, -1).repeat(rows, axis=0) for ends in (low, high))
    weight = node.weight.astype(np.float64)
    up, down = weight.clip(min=0).sum(axis=(2, 3)), weight.clip(max=0).sum(axis=(2, 3))
    return (
        (up * low + down * high).sum(axis=1) + node.bias,
        (up * high + down * low).sum(axis=1) + node.bias,
    )
