"""Graph + calibration data → QuantizedGraph, by the steps of a recipe.

Activation: scale = (high − low)/255, zero point = round(−low/scale).
Weight, per output channel: scale = max|w|/127, enlarged where pairs could saturate or the int32 bias overflow.
Bias: round(b / (s_in·s_w)) in int32.
Source: Jacob et al. 2018 (arXiv:1712.05877), eq. 1, 5 and section 2.4.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from mobilenet_export.graph import Conv2d, FloatArray, Graph, Kernel
from mobilenet_export.quantize.bias_correction import channel_means, correct_biases
from mobilenet_export.quantize.calibrate import Activations, Ranges, calibrate
from mobilenet_export.quantize.saturation import saturation_safe_scale
from mobilenet_export.quantized import Decision, QuantizedGraph, QuantizedKernel, TensorScale
from mobilenet_export.recipe import QuantRecipe

_LARGEST_BIAS = 1 << 29
"""Leaves room in int32 for the products that are added to it."""
_SMALLEST_SCALE = np.float32(1e-10)


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """What the steps of a recipe may look at.

    Attributes:
        activations: fp32 activations of one image after another; read once.
        input_range: Extremes that the preprocessing can produce.
        correction_images: float32 (N, C, H, W) for bias correction.
        clipped_activations: fp32 activations of those, clipped to the ranges of a quantized graph.
        judge: SQNR in dB of an int8 graph's logits against fp32 on held-out images.
        judge_images: How many those are.
    """

    activations: Iterable[Activations]
    input_range: tuple[float, float]
    correction_images: FloatArray
    clipped_activations: Callable[[QuantizedGraph], Iterable[Activations]]
    judge: Callable[[QuantizedGraph], float]
    judge_images: int


def post_training(graph: Graph, data: CalibrationData, recipe: QuantRecipe) -> QuantizedGraph:
    """Quantize a fused float graph by a recipe; a step that does not raise the held-out SQNR is undone."""
    ranges = calibrate(graph, data.activations, data.input_range)
    quantized = quantize_graph(graph, ranges, saturation_safe=recipe.saturation_safe)
    if not recipe.bias_correction:
        return quantized
    means = channel_means(graph, data.clipped_activations(quantized))
    corrected = correct_biases(quantized, data.correction_images, means)
    return keep_better("bias_correction", quantized, corrected, data)


def keep_better(
    step: str, before: QuantizedGraph, after: QuantizedGraph, data: CalibrationData
) -> QuantizedGraph:
    """Return whichever is closer to fp32 on the held-out images, with the decision recorded in it."""
    before_db, after_db = data.judge(before), data.judge(after)
    decision = Decision(step, before_db, after_db, after_db > before_db, data.judge_images)
    return dataclasses.replace(after if decision.kept else before, decisions=(*before.decisions, decision))


def quantize_graph(graph: Graph, ranges: Ranges, *, saturation_safe: bool) -> QuantizedGraph:
    """Quantize every activation up to the logits, every weight and every bias.

    Args:
        graph: Fused float graph.
        ranges: From `calibrate` on the same graph.
        saturation_safe: Make every pair of weights summable in int16.
    """
    tensors = {name: tensor_scale(*extremes) for name, extremes in ranges.items()}
    tensors = {name: tensors[name] for name in tensors if name == graph.logits or name != graph.output}
    kernels = {
        node.name: quantize_kernel(node, tensors[node.input].scale, saturation_safe=saturation_safe)
        for node in graph.kernels()
    }
    return QuantizedGraph(graph, tensors, kernels)


def tensor_scale(low: float, high: float) -> TensorScale:
    """Return the affine map that puts [low, high] onto 0…255 with 0 on an integer."""
    scale = np.float32(max(high - low, 1e-6) / 255)
    return TensorScale(float(scale), int(np.clip(np.rint(-low / scale), 0, 255)))


def quantize_kernel(node: Kernel, input_scale: float, *, saturation_safe: bool) -> QuantizedKernel:
    """Quantize one layer's weights and bias.

    Args:
        node: Convolution or linear layer.
        input_scale: Of the tensor that it reads.
        saturation_safe: Make every pair of weights summable in int16.
    """
    scale = weight_scale(node, input_scale, saturation_safe=saturation_safe)
    weight = np.rint(node.weight / per_channel(scale, node.weight.ndim)).astype(np.int8)
    bias = np.rint(node.bias.astype(np.float64) / (np.float64(input_scale) * scale)).astype(np.int32)
    return QuantizedKernel(weight, scale, bias)


def weight_scale(node: Kernel, input_scale: float, *, saturation_safe: bool) -> FloatArray:
    """Scale per output channel, float32 (O,)."""
    peak = np.abs(node.weight).reshape(len(node.weight), -1).max(axis=1)
    scale = np.maximum(peak / np.float32(127), _SMALLEST_SCALE)
    scale = np.maximum(scale, np.abs(node.bias) / np.float32(input_scale * _LARGEST_BIAS)).astype(np.float32)
    depthwise = isinstance(node, Conv2d) and node.is_depthwise
    return scale if depthwise or not saturation_safe else saturation_safe_scale(node.weight, scale)


def per_channel(scale: FloatArray, dimensions: int) -> FloatArray:
    """Reshape (O,) to broadcast against weights (O, …)."""
    return scale.reshape((-1,) + (1,) * (dimensions - 1))


def pixel_range(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[float, float]:
    """Range of a preprocessed pixel, (x/255 − mean)/std, a hair wider than it needs to be.

    The extra 1/254 keeps whole pixel values off rounding ties: with mean = std = ½ and a scale of 2/255 every
    value would lie half-way between two integers, and runtimes break ties differently.
    """
    low = min((0.0 - m) / s for m, s in zip(mean, std, strict=True))
    high = max((1.0 - m) / s for m, s in zip(mean, std, strict=True))
    middle, half = (low + high) / 2, (high - low) / 2 * 255 / 254
    return (middle - half, middle + half)
