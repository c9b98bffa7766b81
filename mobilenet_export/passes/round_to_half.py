"""Rounds weights to values that float16 holds, so that fp16 files of every format hold the same ones.

Rounding each weight to its nearest float16 shifts the sum of a filter, and a filter whose large weights cancel
(MobileNetV2's first depthwise layer) turns that shift into noise: 45 dB at the logits. So the error is diffused:
within a filter, from the largest weight to the smallest, each takes over the rounding error of the one before,
and what remains is half a step of the smallest. Inputs are mostly positive and smooth, so the sum is what counts:
56 dB. Biases stay float32; they are half a percent of the bytes.
"""

import dataclasses

import numpy as np

from mobilenet_export.graph import Conv2d, FloatArray, FullyConnected, Graph, Node

_LARGEST = float(np.finfo(np.float16).max)


def round_to_half(graph: Graph) -> Graph:
    """Return the graph with every weight on the float16 grid, clamped to its range."""
    return dataclasses.replace(graph, nodes=tuple(_round(node) for node in graph.nodes))


def _round(node: Node) -> Node:
    if isinstance(node, Conv2d | FullyConnected):
        return dataclasses.replace(node, weight=diffuse(node.weight))
    return node


def diffuse(weight: FloatArray) -> FloatArray:
    """Round (O, …) to float16 values, float32 in and out, with the error carried along each output's filter."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    order = np.argsort(-np.abs(rows), axis=1, kind="stable")
    sorted_rows = np.take_along_axis(rows, order, axis=1)
    carry = np.zeros(len(rows))
    for column in range(sorted_rows.shape[1]):
        wanted = sorted_rows[:, column] + carry
        sorted_rows[:, column] = np.clip(wanted, -_LARGEST, _LARGEST).astype(np.float16)
        carry = wanted - sorted_rows[:, column]
    np.put_along_axis(rows, order, sorted_rows, axis=1)
    return rows.astype(np.float32).reshape(weight.shape)
