"""Fuses a ReLU or ReLU6 into the layer before it, so that no tensor exists unclamped."""

import dataclasses

from mobilenet_export.graph import Activation, Add, Clamp, Conv2d, Graph, Node
from mobilenet_export.passes import absorb


def fuse_activation(graph: Graph) -> Graph:
    """Return the graph with every Clamp that is the only reader of a convolution or an Add fused into it."""
    producers = {node.name: node for node in graph.nodes}
    gone: dict[str, str] = {}
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        source = producers.get(node.inputs[0])
        if not isinstance(node, Clamp) or not isinstance(source, Conv2d | Add):
            continue
        if source.activation is Activation.NONE and len(graph.consumers(source.name)) == 1:
            gone[node.name] = source.name
            changed[source.name] = dataclasses.replace(source, activation=node.activation)
    return absorb(graph, gone, changed)
