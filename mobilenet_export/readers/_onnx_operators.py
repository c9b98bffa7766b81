"""ONNX's operators, and those that ONNX Runtime fuses them to, in the words of a listing."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mobilenet_export.graph import Activation
from mobilenet_export.readers._nodes import CLAMP, DEQUANTIZE, QUANTIZE, VIEW, Constant, Node

_WORDS = {
    "Add": "add",
    "AveragePool": "pool",
    "Clip": CLAMP,
    "Conv": "conv",
    "DequantizeLinear": DEQUANTIZE,
    "Dropout": VIEW,
    "Flatten": VIEW,
    "FusedConv": "conv",
    "Gemm": "linear",
    "GlobalAveragePool": "pool",
    "Identity": VIEW,
    "MatMul": "linear",
    "Mul": "mul",
    "Pad": "pad",
    "QGemm": "linear",
    "QLinearAdd": "add",
    "QLinearConv": "conv",
    "QLinearGlobalAveragePool": "pool",
    "QuantizeLinear": QUANTIZE,
    "ReduceMean": "pool",
    "Relu": CLAMP,
    "Reshape": VIEW,
    "Softmax": "softmax",
    "Squeeze": VIEW,
    "Transpose": "transpose",
    "Unsqueeze": VIEW,
}
_KERNELS = {
    "Conv": (1, 2),
    "FusedConv": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (1, 2),
    "QGemm": (3, 6),
    "QLinearConv": (3, 8),
}
"""Operator → where among its inputs the weight and the bias are."""
_SCALING = ("Add", "BatchNormalization", "Div", "Mul", "PRelu", "Sub")
"""Operators whose constants are parameters."""


def read_node(
    operator: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    attributes: Mapping[str, Any],
    constants: Mapping[str, Constant],
) -> Node:
    """Return an operator in the words of a listing.

    Raises:
        ValueError: It does not have the inputs that it needs.
    """
    word, node = _WORDS.get(operator, operator), Node("", inputs, outputs)
    if operator in _KERNELS and len(inputs) > 1:
        weight, bias = _KERNELS[operator]
        kernel = _kernel(word, node, (weight, bias), attributes, constants)
        return dataclasses.replace(kernel, activation="") if operator.startswith("Q") else kernel
    biases = 0
    if operator in _SCALING:
        biases = sum(math.prod(constants[name].shape) for name in inputs if name in constants)
    activation = "" if operator == "QLinearAdd" else "none"
    if word == CLAMP:
        activation = _clamp(operator, inputs, attributes, constants)
    return Node(word, inputs, outputs, biases=biases, activation=activation)


def _kernel(
    word: str,
    node: Node,
    places: tuple[int, int],
    attributes: Mapping[str, Any],
    constants: Mapping[str, Constant],
) -> Node:
    weight, bias = (node.inputs[place] if place < len(node.inputs) else "" for place in places)
    shape = constants[weight].shape if weight in constants else ()
    strides = attributes.get("strides", [1, 1])
    if word == "linear" and not attributes.get("transB"):
        shape = shape[::-1]
    if word == "conv" and (len(shape) != 4 or np.shape(strides) != (2,)):
        shape, strides = (), [1, 1]
    return Node(
        word,
        node.inputs,
        node.outputs,
        weight,
        shape,
        math.prod(constants[bias].shape) if bias in constants else 0,
        (int(strides[0]), int(strides[1])),
        _fused(attributes),
    )


def _fused(attributes: Mapping[str, Any]) -> str:
    """What ONNX Runtime's FusedConv ends in."""
    operator = attributes.get("activation", "none")
    if operator == "none":
        return "none"
    bounds = attributes.get("activation_params", [])
    return (
        _named(0.0, math.inf)
        if operator == "Relu"
        else _named(*map(float, bounds))
        if len(bounds) == 2
        else ""
    )


def _clamp(
    operator: str, inputs: tuple[str, ...], attributes: Mapping[str, Any], constants: Mapping[str, Constant]
) -> str:
    if operator == "Relu":
        return _named(0.0, math.inf)
    bounds = []
    for place, (name, none) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        stored = constants.get(inputs[place]) if place < len(inputs) and inputs[place] else None
        bounds.append(attributes.get(name, none if stored is None or stored.value is None else stored.value))
    return _named(*bounds)


def _named(low: float, high: float) -> str:
    names = {activation.bounds: activation.value for activation in Activation}
    return names.get((low, high), f"clamp {low:g}…{high:g}")
