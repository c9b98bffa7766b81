"""Layers made anew one after another, each on the inputs that the layers before it now give.

First the weights are rounded (`rounding`), then the bias is shifted (`bias_correction`); so a later layer sees the
earlier ones as they will be.
"""

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mobilenet_export.graph import Conv2d, FloatArray, FullyConnected, Kernel
from mobilenet_export.interpreter import (
    IntegerArray,
    accumulate,
    centred,
    channels_last,
    drop_dead,
    integer_layer,
    quantize,
    requantize,
)
from mobilenet_export.quantize.bias_correction import ChannelMeans, bias_shift
from mobilenet_export.quantize.rounding import Moment, round_filters, round_rows, second_moment
from mobilenet_export.quantized import QuantizedGraph, QuantizedKernel, TensorScale

_MOMENTS_AT_ONCE = 4
"""A pool left alone runs ahead of their sum, and 48 of a V2's last layer take 0.6 GB."""


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What to do to each layer.

    Attributes:
        expected: Mean output of every layer before its activation in fp32, to shift the biases to; None leaves
            them as they are.
        rounding: Round the weights anew too.
        saturation_safe: Keep pairs of weights summable in int16.
        free_scales: Depthwise filters may get smaller scales, each its own.
    """

    expected: ChannelMeans | None
    rounding: bool
    saturation_safe: bool
    free_scales: bool = True


def rebuild(quantized: QuantizedGraph, images: FloatArray, work: Rebuild) -> QuantizedGraph:
    """Return the graph with its layers made anew, first to last.

    Args:
        quantized: To start from.
        images: Normalized float32 (N, C, H, W); the integer network's activations for all of them are held at once.
        work: What to do.
    """
    graph, kernels = quantized.graph, dict(quantized.kernels)
    rebuilt = dataclasses.replace(quantized, kernels=kernels)
    scale, fed = quantized.tensors[graph.input], channels_last(graph.feed(images))
    values = {graph.input: [quantize(image, scale) for image in np.split(fed, len(fed))]}
    # One thread per image and none in the BLAS, whose own stall for seconds where another process wants a core.
    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, node in enumerate(graph.nodes):
            if node.name not in quantized.tensors:
                break
            inputs = list(zip(*(values[name] for name in node.inputs), strict=True))
            if isinstance(node, Conv2d | FullyConnected):
                layer = _Layer(rebuilt, node, [image[0] for image in inputs], pool)
                if work.rounding:
                    kernels[node.name] = layer.rounded(work)
                values[node.name], kernels[node.name] = layer.shifted(work.expected)
            else:
                values[node.name] = list(pool.map(lambda x, n=node: integer_layer(rebuilt, n, x), inputs))
            drop_dead(graph, index, values)
    return rebuilt


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer with weights, and its integer inputs, one array an image."""

    quantized: QuantizedGraph
    node: Kernel
    inputs: Sequence[IntegerArray]
    pool: ThreadPoolExecutor

    @property
    def kernel(self) -> QuantizedKernel:
        return self.quantized.kernels[self.node.name]

    def rounded(self, work: Rebuild) -> QuantizedKernel:
        """Return the kernel with weights that fit these inputs, and the bias of the float layer."""
        node, scale = self.node, self.quantized.tensors[self.node.input]
        moment = self._mean_moment(scale)
        weight_scale = self.kernel.scale
        if isinstance(node, Conv2d) and node.is_depthwise:
            weight, weight_scale = round_filters(
                node.weight, weight_scale, moment, free_scales=work.free_scales
            )
            self._round_copies(weight, weight_scale, moment)
        else:
            weight = round_rows(node.weight, weight_scale, moment, saturation_safe=work.saturation_safe)
        step = np.float64(scale.scale) * weight_scale
        return QuantizedKernel(weight, weight_scale, np.rint(node.bias / step).astype(np.int32))

    def _mean_moment(self, scale: TensorScale) -> Moment:
        """Mean of E[x·xᵀ] over images, added up in their order, so that every machine rounds alike."""

        def moment_of(image: IntegerArray) -> Moment:
            return second_moment(self.node, centred(image, scale))

        total: Moment | float = 0.0
        for first in range(0, len(self.inputs), _MOMENTS_AT_ONCE):
            for moment in self.pool.map(moment_of, self.inputs[first : first + _MOMENTS_AT_ONCE]):
                total = total + moment
        return np.asarray(total / len(self.inputs))

    def _round_copies(self, weight: NDArray[np.int8], scale: FloatArray, moment: Moment) -> None:
        """Round the filters of copies so that their mean, not each of them, comes closest; in place.

        A copy is given what its channel's filter and the copies before it have left.
        """
        left = self.node.weight - weight * scale.reshape(-1, 1, 1, 1)
        for place, channel in self.quantized.copies.get(self.node.name, {}).items():
            target = self.node.weight[place] + left[channel]
            rounded, _ = round_filters(target[None], scale[[place]], moment[[place]], free_scales=False)
            weight[place] = rounded[0]
            left[channel] = target - weight[place] * scale[place]

    def shifted(self, expected: ChannelMeans | None) -> tuple[list[IntegerArray], QuantizedKernel]:
        """Return the outputs, and the kernel with the bias that gives them the expected mean."""
        sums = list(self.pool.map(lambda image: accumulate(self.quantized, self.node, image), self.inputs))
        shift = np.zeros(len(self.kernel.bias), np.int32)
        if expected is not None:
            shift = bias_shift(self.quantized, self.node, sums, expected[self.node.name])
        kernel = dataclasses.replace(self.kernel, bias=self.kernel.bias + shift)
        outputs = self.pool.map(
            lambda image: requantize(self.quantized, self.node, image + shift.astype(image.dtype)), sums
        )
        return list(outputs), kernel
