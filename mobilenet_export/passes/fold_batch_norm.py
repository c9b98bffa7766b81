"""Folds a BatchNorm into the convolution before it.

scale·(w∗x + b) + shift = (scale·w)∗x + (scale·b + shift), exact but for one float32 rounding per weight.
Source: Jacob et al. 2018 (arXiv:1712.05877), eq. 14.
"""

import dataclasses

import numpy as np

from mobilenet_export.graph import BatchNorm, Conv2d, Graph, Node
from mobilenet_export.passes import absorb


def fold_batch_norm(graph: Graph) -> Graph:
    """Return the graph with every BatchNorm that is the only reader of a plain convolution folded into it."""
    producers = {node.name: node for node in graph.nodes}
    gone: dict[str, str] = {}
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        source = producers.get(node.inputs[0])
        if (
            isinstance(node, BatchNorm)
            and isinstance(source, Conv2d)
            and len(graph.consumers(source.name)) == 1
        ):
            gone[node.name] = source.name
            changed[source.name] = _fold(source, node)
    return absorb(graph, gone, changed)


def _fold(conv: Conv2d, norm: BatchNorm) -> Conv2d:
    with np.errstate(over="ignore"):  # capture refuses what overflows, by name
        return dataclasses.replace(
            conv,
            weight=(conv.weight * norm.scale[:, None, None, None]).astype(np.float32),
            bias=(conv.bias * norm.scale + norm.shift).astype(np.float32),
        )
