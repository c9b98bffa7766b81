"""Graph → Graph rewrites, one file each; `simplify` runs them in the order that each relies on."""

import dataclasses
from collections.abc import Mapping

from mobilenet_export.graph import Add, Graph, Node


def rename_inputs(node: Node, names: Mapping[str, str]) -> Node:
    """Return the node reading other tensors: each input that is a key of `names` becomes its value."""
    renamed = tuple(names.get(name, name) for name in node.inputs)
    if renamed == node.inputs:
        return node
    if isinstance(node, Add):
        return dataclasses.replace(node, inputs=renamed)
    return dataclasses.replace(node, input=renamed[0])


def absorb(graph: Graph, gone: Mapping[str, str], changed: Mapping[str, Node]) -> Graph:
    """Return the graph without some nodes.

    Args:
        graph: To rewrite.
        gone: Name of each node to drop → name of the tensor that takes its place.
        changed: Name of each node to replace → its replacement, of the same name.
    """
    kept = (changed.get(node.name, node) for node in graph.nodes if node.name not in gone)
    resolved = {name: _resolve(name, gone) for name in gone}
    return dataclasses.replace(graph, nodes=tuple(rename_inputs(node, resolved) for node in kept))


def _resolve(name: str, gone: Mapping[str, str]) -> str:
    while name in gone:
        name = gone[name]
    return name
