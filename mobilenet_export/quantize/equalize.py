"""Channels brought to like ranges, so that one scale per tensor serves them all.

A tensor's channel c may be multiplied by f_c > 0 where it is made, and divided where it is read, without changing
what the network computes: W[c, :]·f_c and b_c·f_c before, W[:, c]/f_c after. Tensors that an Add joins share their
factors, and so do those before and after the pool.

With m_c the largest magnitude of channel c:

* read by depthwise layers only ("pairs"): f_c = M/m_c, every channel is given the whole range. Weights have one
  scale per channel on both sides, so this costs nothing.
* read by a dense layer: f_c = k_c^¾/m_c, k_c = max over outputs o of |W[o, c]|·m_c/m_o. What the activations gain
  is shared with the columns of the weights that read them. m_c·f_c does not change when somebody rescales the
  channels of a checkpoint, so neither does the result.

ReLU6 commutes with a factor only below 6: channels that reach 6 keep factor 1, the others never leave 6.
Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.1, there for weight ranges; ReLU6 as there in appendix B
is replaced by ReLU, which changes the network, and here is kept.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import (
    Add,
    Conv2d,
    FloatArray,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Kernel,
    Node,
    activation_bounds,
)
from mobilenet_export.quantize.calibrate import Ranges

Factors = Mapping[str, FloatArray]
"""Tensor name → what each of its channels is multiplied by, float32 (C,)."""

Magnitudes = Mapping[str, NDArray[np.float64]]
"""Tensor name → largest absolute value of each channel, (C,)."""

_WEIGHTS_SHARE = 0.75
"""At 0 all channels of a tensor become alike, at 1 all columns of the weights. On V2, 100 photos, biases corrected:
18.3 dB at ¼, 20.2 at ½, 21.3 at ¾ and at 1; V1 with ReLU 17.4, 18.2, 17.8, 16.7."""
_ROUNDS = 20
_LIMIT = 1e9
"""A channel is given no more than this times its range."""
NARROWEST = 4096.0
"""One that gave nothing but zeros has no range; it counts as so much narrower than the widest."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Tensors that share their factors, and the layers that read them."""

    members: tuple[str, ...]
    readers: tuple[Kernel, ...]

    @property
    def dense_readers(self) -> tuple[Kernel, ...]:
        return tuple(node for node in self.readers if not (isinstance(node, Conv2d) and node.is_depthwise))


@dataclass(frozen=True, slots=True)
class Equalization:
    """Factors, and the ranges of the tensors whose channels were all given the whole range."""

    factors: Factors
    ranges: Ranges


def equalize_pairs(graph: Graph, magnitude: Magnitudes) -> Equalization:
    """Return factors for the tensors that depthwise layers alone read."""
    return _equalize(graph, magnitude, dense=False)


def equalize_all(graph: Graph, magnitude: Magnitudes) -> Equalization:
    """Return factors for every group of tensors that can have some."""
    return _equalize(graph, magnitude, dense=True)


def _equalize(graph: Graph, magnitude: Magnitudes, *, dense: bool) -> Equalization:
    factors: dict[str, FloatArray] = {}
    ranges: dict[str, tuple[float, float]] = {}
    tops = {name: high for name, (_, high) in activation_bounds(graph).items()}
    for group in _groups(graph):
        if group.dense_readers and not dense:
            continue
        reach = np.max([magnitude[name] for name in group.members], axis=0)
        reach = np.maximum(reach, reach.max() / np.where(reach > 0, _LIMIT, NARROWEST))
        wanted = _wanted(group, reach, magnitude)
        found = _within(wanted, reach, min(tops[name] for name in group.members))
        factors.update(dict.fromkeys(group.members, found.astype(np.float32)))
        if not group.dense_readers:
            whole = min(float((found * reach).max()), tops[group.members[0]])
            ranges.update(dict.fromkeys(group.members, (-whole, whole)))
    return Equalization(factors, ranges)


def equalize_weights(graph: Graph, magnitude: Magnitudes) -> Equalization:
    """Return factors that give the weights of each layer like ranges, for one scale per weight tensor.

    f_c = √(r_c/w_c), w_c the largest weight that makes channel c, r_c the largest that reads it, until it settles.
    """
    tops = {name: high for name, (_, high) in activation_bounds(graph).items()}
    total: dict[str, NDArray[np.float64]] = {}
    for _ in range(_ROUNDS):
        for group in _groups(graph):
            scaled = {node.name: node for node in rescale(graph, _rounded(total)).kernels()}
            made = np.max([_largest(scaled[name], 0) for name in group.members if name in scaled], axis=0)
            read = np.max([_largest(scaled[node.name], 1) for node in group.readers], axis=0)
            reach = np.max([magnitude[name] for name in group.members], axis=0)
            before = total.get(group.members[0], np.ones_like(reach))
            wanted = before * np.sqrt(np.maximum(read, 1e-9) / np.maximum(made, 1e-9))
            top = min(tops[name] for name in group.members)
            wanted = np.minimum(wanted / np.exp(np.log(wanted).mean()), top / np.maximum(reach, 1e-12))
            total.update(dict.fromkeys(group.members, np.where(reach >= top, 1.0, wanted)))
    return Equalization(_rounded(total), {})


def _rounded(factors: Mapping[str, NDArray[np.float64]]) -> Factors:
    return {name: values.astype(np.float32) for name, values in factors.items()}


def _largest(node: Kernel, axis: int) -> NDArray[np.float64]:
    """Largest weight of each output (axis 0) or input channel (axis 1)."""
    if isinstance(node, Conv2d) and node.is_depthwise:
        axis = 0
    return np.asarray(
        np.abs(np.moveaxis(node.weight, axis, 0)).reshape(node.weight.shape[axis], -1).max(axis=1)
    )


def _groups(graph: Graph) -> Iterator[_Group]:
    root = {name: name for name in graph.shapes}
    for node in graph.nodes:
        if isinstance(node, Add | GlobalAveragePool):
            for name in node.inputs:
                old, new = root[name], root[node.name]
                root = {member: new if found == old else found for member, found in root.items()}
    for name in dict.fromkeys(root.values()):
        members = tuple(member for member, found in root.items() if found == name)
        readers = tuple(node for node in graph.kernels() if node.input in members)
        if readers and graph.input not in members:
            yield _Group(members, readers)


def _wanted(group: _Group, reach: NDArray[np.float64], magnitude: Magnitudes) -> NDArray[np.float64]:
    """How large each channel should become, up to a common factor, (C,)."""
    strength = np.zeros_like(reach)
    for node in group.dense_readers:
        columns = np.abs(node.weight.astype(np.float64)).reshape(*node.weight.shape[:2], -1).max(axis=2)
        relative = columns / np.maximum(magnitude[node.name], 1e-9)[:, None]
        strength = np.maximum(strength, relative.max(axis=0) * reach)
    return np.maximum(strength, 1e-12) ** _WEIGHTS_SHARE if group.dense_readers else np.ones_like(reach)


def _within(wanted: NDArray[np.float64], reach: NDArray[np.float64], top: float) -> NDArray[np.float64]:
    """Factors that make channels as large as wanted, in a tensor that a clamp bounds at `top`."""
    whole = min(float(reach.max()), top)
    if whole <= 0:
        return np.ones_like(reach)
    factors = wanted / reach
    factors *= whole / float((np.minimum(reach, top) * factors).max())
    return np.where(reach >= top, 1.0, np.minimum(factors, top / reach))


def rescale(graph: Graph, factors: Factors) -> Graph:
    """Return the graph with its tensors multiplied by the factors, channel by channel."""
    return dataclasses.replace(graph, nodes=tuple(_rescaled(node, factors) for node in graph.nodes))


def _rescaled(node: Node, factors: Factors) -> Node:
    if not isinstance(node, Conv2d | FullyConnected):
        return node
    outer = factors.get(node.name, np.ones(len(node.weight), np.float32)).astype(np.float64)
    inner = factors.get(node.input, np.ones(1, np.float32)).astype(np.float64)
    spread = (1,) * (node.weight.ndim - 2)
    depthwise = isinstance(node, Conv2d) and node.is_depthwise
    columns = inner.reshape(-1, 1, *spread) if depthwise else inner.reshape(1, -1, *spread)
    weight = node.weight * outer.reshape(-1, 1, *spread) / columns
    return dataclasses.replace(
        node, weight=weight.astype(np.float32), bias=(node.bias * outer).astype(np.float32)
    )
