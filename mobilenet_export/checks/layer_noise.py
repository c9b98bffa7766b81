"""The noise that each layer's integers alone put on the logits.

Layer by layer, with all others in fp32: the weights become the ones that the integers stand for, the output is
rounded to its scale, and the rest of the network runs on from there. noise = Σ(r − y)² over images and classes,
with r the fp32 logits and y those; a layer's share is its noise over the sum of all. Errors of different layers
are nearly uncorrelated, so that the sum comes close to the noise of the whole file.

Everything is in the units of the original network. Where a tensor of the int8 file is the original one times a
factor per channel (equalization), with factors f_in and f_out of a layer's input and output,

    ŵ[o, i] = scale[o] · q[o, i] · f_in[i] / f_out[o]     (a depthwise layer: f_in[o])
    ŷ[o] = dequantize(quantize(y[o] · f_out[o])) / f_out[o]

Where the file's biases were corrected (Nagel et al. 2019, section 4.2), they also make up for errors of the layers
before, which are not there; so the bias is corrected here for the layer's own weights alone, over the same images.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from mobilenet_export.graph import (
    Activation,
    Conv2d,
    FloatArray,
    FullyConnected,
    Graph,
    Kernel,
    Node,
    Softmax,
)
from mobilenet_export.interpreter import (
    channels_last,
    clamp,
    dequantize,
    drop_dead,
    float_layer,
    linear,
    quantize,
)
from mobilenet_export.quantized import QuantizedGraph

Suffix = Callable[[Mapping[str, FloatArray]], FloatArray]
"""Runs the rest of a float network on its live tensors, channel-first by name, to logits (N, K)."""

Factors = Mapping[str, FloatArray]
"""Tensor name → what the int8 file's tensor is multiplied with per channel, float32 (C,); none is 1."""


@dataclass(slots=True)
class Noise:
    """Energy that one layer puts on the logits: by its weights, by rounding its output, and by both together."""

    weights: float = 0.0
    activations: float = 0.0
    together: float = 0.0

    def include(self, other: "Noise") -> None:
        """Add what other images showed."""
        self.weights += other.weights
        self.activations += other.activations
        self.together += other.together


@dataclass(frozen=True, slots=True)
class _Variants:
    """One layer's output for one image, channel-last: rounded weights, rounded output, both; and as it is."""

    exact: FloatArray
    changed: tuple[FloatArray, ...]


def noise_alone(
    quantized: QuantizedGraph,
    factors: Factors,
    images: FloatArray,
    suffix: Callable[[int], Suffix],
    advance: Callable[[int], None],
) -> tuple[float, dict[str, Noise]]:
    """Measure the noise of every layer up to the logits, and of the input.

    Args:
        quantized: The integers, and the original float graph.
        factors: Of an equalized file.
        images: float32 (N, C, H, W); the live tensors of all are held at once.
        suffix: Called with the index of a node, returns what runs from that node to the logits.
        advance: Told of each layer that is done.

    Returns:
        Σr² of the fp32 logits, and the noise by tensor name.
    """
    graph = quantized.graph
    truth = [suffix(0)({graph.input: image}) for image in np.split(graph.feed(images), len(images))]
    noise = {}
    for index, name, live, variants in _walk(quantized, factors, images):
        rest = suffix(index + 1) if name != graph.logits else None
        noise[name] = Noise()
        for exact, tensors, found in zip(truth, live, variants, strict=True):
            _add(noise[name], exact, _logits(rest, name, tensors, found))
        advance(1)
    return float(sum(np.square(one, dtype=np.float64).sum() for one in truth)), noise


def _walk(
    quantized: QuantizedGraph, factors: Factors, images: FloatArray
) -> Iterator[tuple[int, str, list[dict[str, FloatArray]], list[_Variants]]]:
    """Run the float network on all images, a layer at a time; yield the live tensors and the layer's variants."""
    graph = quantized.graph
    values = {graph.input: [channels_last(image) for image in np.split(graph.feed(images), len(images))]}
    found = [_Variants(v, (_rounded(quantized, factors, graph.input, v),)) for v in values[graph.input]]
    yield -1, graph.input, _per_image(values), found
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, node in enumerate(graph.nodes):
            if isinstance(node, Softmax):
                return
            inputs = list(zip(*(values[name] for name in node.inputs), strict=True))
            found = _variants(quantized, factors, node, inputs, pool)
            values[node.name] = [one.exact for one in found]
            drop_dead(graph, index, values)
            yield index, node.name, _per_image(values), found


def _per_image(values: Mapping[str, list[FloatArray]]) -> list[dict[str, FloatArray]]:
    count = len(next(iter(values.values())))
    return [{name: tensors[index] for name, tensors in values.items()} for index in range(count)]


def _variants(
    quantized: QuantizedGraph,
    factors: Factors,
    node: Node,
    inputs: Sequence[Sequence[FloatArray]],
    pool: ThreadPoolExecutor,
) -> list[_Variants]:
    rounded = partial(_rounded, quantized, factors, node.name)
    if not isinstance(node, Conv2d | FullyConnected):
        exact = list(pool.map(lambda tensors: float_layer(node, list(tensors)), inputs))
        return [_Variants(value, (rounded(value),)) for value in exact]
    activation = node.activation if isinstance(node, Conv2d) else Activation.NONE
    coarse = rounded_layer(quantized, factors, node)
    exact = list(pool.map(lambda tensors: linear(node, tensors[0]), inputs))
    changed = list(pool.map(lambda tensors: linear(coarse, tensors[0]), inputs))
    shift = np.float32(0)
    if _is_corrected(quantized, factors, node):
        shift = np.mean([_channel_means(a - b) for a, b in zip(exact, changed, strict=True)], axis=0)

    def finish(pair: tuple[FloatArray, FloatArray]) -> _Variants:
        value, weights = clamp(pair[0], activation), clamp(pair[1] + shift, activation)
        return _Variants(value, (weights, rounded(value), rounded(weights)))

    return list(pool.map(finish, zip(exact, changed, strict=True)))


def _channel_means(values: FloatArray) -> FloatArray:
    return np.asarray(values.reshape(-1, values.shape[-1]).mean(axis=0, dtype=np.float64), np.float32)


def rounded_layer(quantized: QuantizedGraph, factors: Factors, node: Kernel) -> Kernel:
    """Return the float layer with the weights that its integers stand for, in original units."""
    kernel = quantized.kernels[node.name]
    scale = kernel.scale / factor(quantized.graph, factors, node.name)
    weight = kernel.weight.astype(np.float32) * _along(scale, 0, kernel.weight.ndim)
    return replace(node, weight=weight * input_factor(quantized.graph, factors, node))


def input_factor(graph: Graph, factors: Factors, node: Kernel) -> FloatArray:
    """The factors of a layer's input, shaped to broadcast against its weights."""
    depthwise = isinstance(node, Conv2d) and node.is_depthwise
    return _along(factor(graph, factors, node.input), 0 if depthwise else 1, node.weight.ndim)


def factor(graph: Graph, factors: Factors, tensor: str) -> FloatArray:
    """The factors of a tensor, float32 (C,)."""
    return factors.get(tensor, np.ones(graph.shapes[tensor][0], np.float32))


def _along(values: FloatArray, axis: int, dimensions: int) -> FloatArray:
    return values.reshape([-1 if index == axis else 1 for index in range(dimensions)])


def _is_corrected(quantized: QuantizedGraph, factors: Factors, node: Kernel) -> bool:
    """Whether the file's bias is another than the rounded one of the float layer."""
    kernel = quantized.kernels[node.name]
    step = quantized.tensors[node.input].scale * kernel.scale.astype(np.float64)
    plain = node.bias * factor(quantized.graph, factors, node.name) / step
    return bool(np.any(np.abs(plain - kernel.bias) > 1 + np.abs(plain) * 1e-6))


def _rounded(quantized: QuantizedGraph, factors: Factors, tensor: str, values: FloatArray) -> FloatArray:
    """A tensor after it has been integers, channel-last, in original units."""
    scale, times = quantized.tensors[tensor], factor(quantized.graph, factors, tensor)
    return dequantize(quantize(values * times, scale), scale) / times


def _logits(
    rest: Suffix | None, name: str, live: Mapping[str, FloatArray], variants: _Variants
) -> FloatArray:
    """Logits of every variant of a layer, (variants, K)."""
    changed = np.concatenate(variants.changed)
    if rest is None:
        return changed
    count = len(changed)
    tensors = {other: np.repeat(value, count, axis=0) for other, value in live.items() if other != name}
    return rest({other: _channels_first(value) for other, value in {**tensors, name: changed}.items()})


def _channels_first(values: FloatArray) -> FloatArray:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else values


def _add(noise: Noise, truth: FloatArray, logits: FloatArray) -> None:
    energies = np.square(logits - truth, dtype=np.float64).sum(axis=1)
    noise.together += float(energies[-1])
    if len(energies) > 1:
        noise.weights += float(energies[0])
        noise.activations += float(energies[1])
    else:
        noise.activations += float(energies[0])
