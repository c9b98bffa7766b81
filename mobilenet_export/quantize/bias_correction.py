"""Sequential bias correction.

Layer by layer, b ← b + (E[y] − E[ŷ]) with y the fp32 layer's output before its activation and ŷ the integer
layer's, each on its own network's input, so that a later layer sees the earlier ones corrected. The mean goes
over images and positions, per output channel.

The fp32 activations are clipped to the ranges of the integers first. Without that the correction also tries to
mend clipping, which only a few images suffer, with a shift that all of them get: on V2 calibrated with photos it
costs 6 dB instead of gaining 2.
Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.2 and appendix D (empirical correction).
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mobilenet_export.graph import UNCLAMPED, Conv2d, FloatArray, FullyConnected, Graph, Kernel
from mobilenet_export.interpreter import (
    IntegerArray,
    accumulate,
    channels_last,
    drop_dead,
    integer_layer,
    quantize,
    requantize,
)
from mobilenet_export.quantize.calibrate import Activations
from mobilenet_export.quantized import QuantizedGraph

ChannelMeans = Mapping[str, NDArray[np.float64]]
"""Layer name → mean of its output before the activation, float64 (O,)."""


def channel_means(graph: Graph, images: Iterable[Activations]) -> ChannelMeans:
    """Return E[y] of every layer with weights over fp32 activations of one image after another, channel-first."""
    sums = {node.name: np.zeros(len(node.weight)) for node in graph.kernels()}
    count = 0
    for image in images:
        count += 1
        for name in sums:
            value = image.get(name + UNCLAMPED, image[name])
            sums[name] += value.reshape(value.shape[1], -1).mean(axis=1, dtype=np.float64)
    return {name: total / count for name, total in sums.items()}


def correct_biases(quantized: QuantizedGraph, images: FloatArray, expected: ChannelMeans) -> QuantizedGraph:
    """Return the graph with every bias shifted by the mean error of its layer.

    Args:
        quantized: To correct.
        images: float32 (N, C, H, W); the integer network's activations for all of them are held at once.
        expected: E[y] over the same images.
    """
    graph, kernels = quantized.graph, dict(quantized.kernels)
    corrected = dataclasses.replace(quantized, kernels=kernels)
    scale = quantized.tensors[graph.input]
    values = {graph.input: [quantize(channels_last(images[i : i + 1]), scale) for i in range(len(images))]}
    # One thread per image and none in the BLAS, whose own stall for seconds where another process wants a core.
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, node in enumerate(graph.nodes):
            if node.name not in quantized.tensors:
                break
            inputs = list(zip(*(values[name] for name in node.inputs), strict=True))
            if isinstance(node, Conv2d | FullyConnected):
                sums = list(pool.map(partial(_accumulate, corrected, node), inputs))
                shift = _shift(corrected, node, sums, expected[node.name])
                kernels[node.name] = dataclasses.replace(
                    kernels[node.name], bias=kernels[node.name].bias + shift
                )
                values[node.name] = list(pool.map(partial(_finish, corrected, node, shift), sums))
            else:
                values[node.name] = list(pool.map(partial(integer_layer, corrected, node), inputs))
            drop_dead(graph, index, values)
    return corrected


def _accumulate(
    quantized: QuantizedGraph, node: Kernel, inputs: Sequence[IntegerArray]
) -> NDArray[np.floating]:
    return accumulate(quantized, node, inputs[0])


def _shift(
    quantized: QuantizedGraph,
    node: Kernel,
    sums: Sequence[NDArray[np.floating]],
    expected: NDArray[np.float64],
) -> NDArray[np.int32]:
    """E[y] − E[ŷ] in steps of the bias."""
    means = np.mean(
        [image.reshape(-1, image.shape[-1]).mean(axis=0, dtype=np.float64) for image in sums], axis=0
    )
    step = quantized.tensors[node.input].scale * quantized.kernels[node.name].scale.astype(np.float64)
    return np.asarray(np.rint(expected / step - means), np.int32)


def _finish(
    quantized: QuantizedGraph, node: Kernel, shift: NDArray[np.int32], sums: NDArray[np.floating]
) -> IntegerArray:
    return requantize(quantized, node, sums + shift.astype(sums.dtype))
