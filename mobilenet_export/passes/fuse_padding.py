"""Moves a layer of zero padding into the convolutions that read it: pads add up."""

import dataclasses

from mobilenet_export.graph import Conv2d, Graph, Node, Pads, ZeroPad
from mobilenet_export.passes import absorb


def fuse_padding(graph: Graph) -> Graph:
    """Return the graph with every ZeroPad that only convolutions read fused into them."""
    gone: dict[str, str] = {}
    changed: dict[str, Node] = {}
    for node in graph.nodes:
        readers = graph.consumers(node.name)
        if not isinstance(node, ZeroPad) or not all(isinstance(reader, Conv2d) for reader in readers):
            continue
        gone[node.name] = node.input
        for reader in readers:
            assert isinstance(reader, Conv2d)
            changed[reader.name] = dataclasses.replace(reader, pads=_add(reader.pads, node.pads))
    return absorb(graph, gone, changed)


def _add(a: Pads, b: Pads) -> Pads:
    return Pads(a.top + b.top, a.left + b.left, a.bottom + b.bottom, a.right + b.right)
