"""Reference execution of `Graph` and `QuantizedGraph` in numpy, channel-last, one layer at a time.

The integer arithmetic is that of the files we write: int32 accumulators, then
q = clamp(round_half_even(accumulator · (s_in·s_w/s_out)) + zero_point, 0, 255) with a float32 multiplier,
as ONNX Runtime computes it. TFLite's fixed-point multiplier may differ by one step at a tie.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import (
    Activation,
    Add,
    Conv2d,
    FloatArray,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Kernel,
    Node,
    Pads,
    Softmax,
)
from mobilenet_export.quantized import QuantizedGraph, TensorScale

IntegerArray = NDArray[np.uint8]
Float = TypeVar("Float", np.float32, np.float64)

_EXACT_FLOAT32 = 1 << 24
"""Integers up to here are exact in float32, so that sgemm adds them without rounding."""


def run(graph: Graph, batch: FloatArray) -> FloatArray:
    """Run a float graph.

    Args:
        graph: Fused, as `passes.simplify` leaves it.
        batch: float32 (N, C, H, W), preprocessed.

    Returns:
        The output, float32 (N, K).
    """
    *_, (_, result) = walk(graph, batch)
    return result


def walk(graph: Graph, batch: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Yield (tensor name, value) as a float graph runs, the input first; maps are (N, H, W, C).

    A tensor is dropped as soon as no later layer reads it.
    """
    values = {graph.input: channels_last(graph.feed(batch))}
    yield graph.input, values[graph.input]
    for index, node in enumerate(graph.nodes):
        values[node.name] = float_layer(node, [values[name] for name in node.inputs])
        yield node.name, values[node.name]
        drop_dead(graph, index, values)


def run_quantized(quantized: QuantizedGraph, batch: FloatArray) -> FloatArray:
    """Run an int8 graph on float input; the output is dequantized, float32 (N, K)."""
    graph = quantized.graph
    *_, (_, integers) = walk_quantized(quantized, batch)
    logits = dequantize(integers, quantized.tensors[graph.logits])
    return softmax(logits) if graph.logits != graph.output else logits


def walk_quantized(quantized: QuantizedGraph, batch: FloatArray) -> Iterator[tuple[str, IntegerArray]]:
    """Yield (tensor name, integers 0…255) up to the logits as an int8 graph runs; maps are (N, H, W, C)."""
    graph = quantized.graph
    values = {graph.input: quantize(channels_last(graph.feed(batch)), quantized.tensors[graph.input])}
    yield graph.input, values[graph.input]
    for index, node in enumerate(graph.nodes):
        if isinstance(node, Softmax):
            return
        values[node.name] = integer_layer(quantized, node, [values[name] for name in node.inputs])
        yield node.name, values[node.name]
        drop_dead(graph, index, values)


def channels_last(batch: FloatArray) -> FloatArray:
    """(N, C, H, W) → (N, H, W, C), contiguous."""
    return np.ascontiguousarray(batch.transpose(0, 2, 3, 1))


def drop_dead(graph: Graph, index: int, values: dict[str, Any]) -> None:
    """Delete the tensors that no node after `index` reads."""
    alive = {name for node in graph.nodes[index + 1 :] for name in node.inputs} | {graph.nodes[index].name}
    for name in values.keys() - alive:
        del values[name]


def quantize(values: FloatArray, scale: TensorScale) -> IntegerArray:
    """Real values → integers 0…255, ties to even."""
    return to_integers(values / np.float32(scale.scale), scale)


def dequantize(integers: IntegerArray, scale: TensorScale) -> FloatArray:
    """Integers 0…255 → real values, float32."""
    return centred(integers, scale) * np.float32(scale.scale)


def centred(integers: IntegerArray, scale: TensorScale) -> FloatArray:
    """Integers with the zero point taken off, held in float32 where they are exact."""
    return integers.astype(np.float32) - np.float32(scale.zero_point)


def float_layer(node: Node, inputs: list[FloatArray]) -> FloatArray:
    """Run one float layer on channel-last inputs."""
    match node:
        case Conv2d():
            return clamp(linear(node, inputs[0]), node.activation)
        case FullyConnected():
            return linear(node, inputs[0])
        case Add(activation=activation):
            return clamp(inputs[0] + inputs[1], activation)
        case GlobalAveragePool():
            return np.asarray(inputs[0].mean(axis=(1, 2), dtype=np.float32))
        case Softmax():
            return softmax(inputs[0])
        case _:
            raise TypeError(f"{type(node).__name__} must be fused before it can run")


def linear(node: Kernel, values: FloatArray) -> FloatArray:
    """Run a layer with weights up to its activation."""
    return products(node, values, node.weight) + node.bias


def integer_layer(quantized: QuantizedGraph, node: Node, inputs: Sequence[IntegerArray]) -> IntegerArray:
    """Run one int8 layer on channel-last integers."""
    if isinstance(node, Conv2d | FullyConnected):
        return requantize(quantized, node, accumulate(quantized, node, inputs[0]))
    target = quantized.tensors[node.name]
    scales = [quantized.tensors[name] for name in node.inputs]
    ratios = [np.float32(scale.scale) / np.float32(target.scale) for scale in scales]
    values = [centred(value, scale) for value, scale in zip(inputs, scales, strict=True)]
    match node:
        case Add():
            return to_integers(values[0] * ratios[0] + values[1] * ratios[1], target)
        case GlobalAveragePool():
            return to_integers(values[0].mean(axis=(1, 2), dtype=np.float32) * ratios[0], target)
        case _:
            raise TypeError(f"{type(node).__name__} has no integer form")


def accumulate(quantized: QuantizedGraph, node: Kernel, integers: IntegerArray) -> NDArray[np.floating]:
    """The int32 accumulators of a layer, bias included, in a float type that holds them exactly."""
    kernel = quantized.kernels[node.name]
    weight = kernel.weight.astype(accumulator_type(kernel.weight))
    values = centred(integers, quantized.tensors[node.input]).astype(weight.dtype, copy=False)
    return products(node, values, weight) + kernel.bias


def requantize(quantized: QuantizedGraph, node: Kernel, accumulators: NDArray[np.floating]) -> IntegerArray:
    """Accumulators → integers of the layer's output."""
    source, target = quantized.tensors[node.input], quantized.tensors[node.name]
    multiplier = np.float32(source.scale) * quantized.kernels[node.name].scale / np.float32(target.scale)
    with np.errstate(over="ignore"):  # an absurd bias; infinity is clipped as any large value is
        steps = accumulators.astype(np.float32) * multiplier
    return to_integers(steps, target)


def to_integers(steps: FloatArray, scale: TensorScale) -> IntegerArray:
    """Round values that are already in steps of the scale, ties to even; overwrites them."""
    np.rint(steps, out=steps)
    steps += np.float32(scale.zero_point)
    return np.clip(steps, 0, 255, out=steps).astype(np.uint8)


def accumulator_type(weight: NDArray[np.int8]) -> type[np.float32] | type[np.float64]:
    """The fastest float type in which the layer's integer sums are exact."""
    largest = np.abs(weight.astype(np.int32)).reshape(weight.shape[0], -1).sum(axis=1).max() * 255
    return np.float32 if largest < _EXACT_FLOAT32 else np.float64


def products(node: Kernel, values: NDArray[Float], weight: NDArray[Float]) -> NDArray[Float]:
    """Sums of products of a layer, without its bias; zero padding."""
    if isinstance(node, FullyConnected):
        return values @ weight.T
    return convolve(node, values, weight)


def convolve(node: Conv2d, values: NDArray[Float], weight: NDArray[Float]) -> NDArray[Float]:
    """Convolve (N, H, W, C) with (O, C/groups, kh, kw) into (N, OH, OW, O)."""
    values = pad(values, node.pads)
    taps = views(node, values)
    if node.is_depthwise:
        return _depthwise(taps, weight)
    if len(taps) == 1:
        return taps[0] @ weight[:, :, 0, 0].T
    columns = np.concatenate(taps, axis=-1)
    return columns @ weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def pad(values: NDArray[Float], pads: Pads) -> NDArray[Float]:
    """Put zeros around the spatial axes of (N, H, W, C)."""
    if pads == Pads():
        return values
    width = ((0, 0), (pads.top, pads.bottom), (pads.left, pads.right), (0, 0))
    return np.pad(values, width)


def views(node: Conv2d, values: NDArray[Float]) -> list[NDArray[Float]]:
    """One strided view of the padded input per kernel position, in (kh, kw) order."""
    (_, _, kh, kw), (sy, sx) = node.weight.shape, node.stride
    height, width = (values.shape[1] - kh) // sy + 1, (values.shape[2] - kw) // sx + 1
    return [
        values[:, y : y + (height - 1) * sy + 1 : sy, x : x + (width - 1) * sx + 1 : sx]
        for y in range(kh)
        for x in range(kw)
    ]


def _depthwise(taps: list[NDArray[Float]], weight: NDArray[Float]) -> NDArray[Float]:
    flat = weight.reshape(weight.shape[0], -1)
    total = taps[0] * flat[:, 0]
    product = np.empty_like(total)
    for index, tap in enumerate(taps[1:], start=1):
        np.multiply(tap, flat[:, index], out=product)
        total += product
    return total


def clamp(values: FloatArray, activation: Activation) -> FloatArray:
    """Apply a fused activation."""
    low, high = activation.bounds
    return values if activation is Activation.NONE else np.clip(values, np.float32(low), np.float32(high))


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=-1, keepdims=True), np.float32)
