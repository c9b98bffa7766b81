"""Graph + calibration data → QuantizedGraph, by the steps of a recipe.

Activation: scale = (high − low)/255, zero point = round(−low/scale).
Weight, per output channel: scale = max|w|/127, enlarged where pairs could saturate or the int32 bias overflow.
Bias: round(b / (s_in·s_w)) in int32.
Source: Jacob et al. 2018 (arXiv:1712.05877), eq. 1, 5 and section 2.4.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mobilenet_export.graph import Add, Conv2d, FloatArray, GlobalAveragePool, Graph, Kernel
from mobilenet_export.quantize.bias_correction import channel_means
from mobilenet_export.quantize.calibrate import (
    Activations,
    Expectation,
    Observed,
    Ranges,
    find_ranges,
    observe,
)
from mobilenet_export.quantize.equalize import (
    NARROWEST,
    Equalization,
    Factors,
    Magnitudes,
    equalize_all,
    equalize_pairs,
    equalize_weights,
    rescale,
)
from mobilenet_export.quantize.saturation import saturation_safe_scale
from mobilenet_export.quantize.sensitivity import best_ranges, channel_slopes
from mobilenet_export.quantize.sequential import Rebuild, rebuild
from mobilenet_export.quantize.splitting import factors_of_copies, find_copies, place_copies, shift_copies
from mobilenet_export.quantized import Copies, Decision, QuantizedGraph, QuantizedKernel, TensorScale
from mobilenet_export.recipe import QuantRecipe

_LARGEST_BIAS = 1 << 29
"""Leaves room in int32 for the products that are added to it."""
_LARGEST_PRODUCT = 64 * 255
"""Of a weight and a step of its input, in steps of the output, all of which it crosses many times over. XNNPACK
refuses weights of one step that cross 256; 64 of them leave room for the scales that saturation enlarges."""
_ADD_STEPS = 999
"""Odd, so that no sum of whole multiples lies half-way between two integers: the nearest are 1/1998 off."""
_POOL_STEPS = 4999
"""Odd for the same reason; a ReLU6's average at 224 px is multiplied by some 85 of them."""
_SMALLEST_SCALE = np.float32(1e-10)
_SLOPE_IMAGES = 8
"""Their gradients say what the rounding of each channel costs, in a second."""
_NONE = Equalization({}, {})
_NO_COPIES: Copies = {}


@dataclass(frozen=True, slots=True)
class CalibrationData:
    """What the steps of a recipe may look at.

    Attributes:
        activations: fp32 activations of one image after another; read once.
        input_range: Extremes that the input tensor can have.
        images: float32 (N, C, H, W), the first of them, for the steps that hold theirs in memory.
        clipped_activations: fp32 activations of a quantized graph's float form for images, clipped to its ranges.
        judge: Mean SQNR in dB of an int8 graph's logits against fp32 on held-out images.
        judge_images: How many those are.
        reach: How much farther than on these images the activations are expected to reach.
        logits_reach: The same, of the highest logit.
    """

    activations: Iterable[Activations]
    input_range: tuple[float, float]
    images: FloatArray
    clipped_activations: Callable[[QuantizedGraph, FloatArray], Iterable[Activations]]
    judge: Callable[[QuantizedGraph], float]
    judge_images: int
    reach: float = 1.0
    logits_reach: float = 1.0


def post_training(graph: Graph, data: CalibrationData, recipe: QuantRecipe) -> QuantizedGraph:
    """Quantize a fused float graph by a recipe; a step that does not raise the held-out SQNR is undone.

    Args:
        graph: Fused float graph.
        data: What there is to go by.
        recipe: Which steps to try.
    """
    trial = _Trial(graph, data, recipe, observe(graph, data.activations))
    trial.start()
    if recipe.bias_correction:
        trial.correct_biases()
    if recipe.equalization:
        trial.equalize("equalize_pairs", equalize_pairs)
        trial.equalize("equalize_all", equalize_all)
    if recipe.equalization and recipe.per_tensor_weights:
        trial.equalize("equalize_weights", equalize_weights)
    if recipe.channel_splitting:
        trial.split_channels()
    if recipe.range_search:
        trial.search_ranges()
    if recipe.rounding:
        trial.round_weights()
    return dataclasses.replace(trial.best, decisions=tuple(trial.decisions))


class _Trial:
    """The best int8 graph so far, and the steps that were tried to better it."""

    def __init__(self, graph: Graph, data: CalibrationData, recipe: QuantRecipe, seen: Observed) -> None:
        self._graph, self._data, self._recipe, self._seen = graph, data, recipe, seen
        self._copies: Copies = {}
        self.decisions: list[Decision] = []
        self.best: QuantizedGraph
        self._best_db = -math.inf

    def start(self) -> None:
        """Quantize by the mean extremes."""
        self.best = self._quantize({}, self._ranges(_NONE))
        if self._recipe.tries_steps:
            self._best_db = self._data.judge(self.best)

    def correct_biases(self) -> None:
        """Shift biases by the mean error of their layer."""
        self._keep_better("bias_correction", self._rebuilt(self.best, rounding=False))

    def equalize(self, step: str, method: Callable[[Graph, Magnitudes], Equalization]) -> None:
        """Bring channels to like ranges."""
        margin = self._data.reach**2  # a channel's extreme is known from fewer values than a tensor's
        magnitude = {name: extremes.magnitude(margin) for name, extremes in self._seen.items()}
        if self._recipe.per_tensor_weights:  # the weights of one that is given more would rule the scale
            magnitude = {name: np.maximum(row, row.max() / NARROWEST) for name, row in magnitude.items()}
        found = method(self._graph, magnitude)
        if found.factors:
            self._keep_better(step, self._corrected(self._quantize(found.factors, self._ranges(found))))

    def split_channels(self) -> None:
        """Copy the channels whose rounding costs most into the places of dead ones."""
        if self._graph.pixels is None:  # what normalized values can reach is not known
            return
        tensors, factors = self.best.tensors, self.best.equalization
        slopes = channel_slopes(self._graph, self._data.images[:_SLOPE_IMAGES])
        one = np.ones(1, np.float32)
        steps = {name: scale.scale / factors.get(name, one) for name, scale in tensors.items()}
        copies = find_copies(self._graph, slopes, steps)
        if not copies:
            return
        before, self._graph, self._copies = self._graph, place_copies(self._graph, copies), copies
        bounds = {name: scale.bounds for name, scale in tensors.items()}
        tried = self._quantize({**factors, **factors_of_copies(self._graph, copies, factors)}, bounds)
        if not self._keep_better("split_channels", self._corrected(tried)):
            self._graph, self._copies = before, {}

    def search_ranges(self) -> None:
        """Take the ranges that cost least at the logits."""
        start = {name: scale.bounds for name, scale in self.best.tensors.items()}
        images = self._data.images[: self._recipe.range_search_images]
        ranges = best_ranges(self.best.graph, images, start, self._data.reach)
        self._keep_better("range_search", self._corrected(self._quantize(self.best.equalization, ranges)))

    def round_weights(self) -> None:
        """Round weights so that each layer's output comes out closest."""
        self._keep_better("rounding", self._rebuilt(self.best, rounding=True))

    def _ranges(self, found: Equalization) -> Ranges:
        expectation = Expectation(found.factors, found.ranges, self._data.logits_reach)
        return find_ranges(self._graph, self._seen, self._data.input_range, expectation)

    def _quantize(self, factors: Factors, ranges: Ranges) -> QuantizedGraph:
        graph = rescale(self._graph, factors) if factors else self._graph
        recipe = self._recipe
        quantized = quantize_graph(
            graph,
            ranges,
            self._copies,
            saturation_safe=recipe.saturation_safe,
            per_tensor=recipe.per_tensor_weights,
        )
        return dataclasses.replace(quantized, equalization=factors)

    def _corrected(self, quantized: QuantizedGraph) -> QuantizedGraph:
        return self._rebuilt(quantized, rounding=False) if self._recipe.bias_correction else quantized

    def _rebuilt(self, quantized: QuantizedGraph, *, rounding: bool) -> QuantizedGraph:
        recipe = self._recipe
        images = self._data.images[: recipe.rounding_images if rounding else recipe.bias_correction_images]
        means = None
        if recipe.bias_correction:
            means = channel_means(quantized.graph, self._data.clipped_activations(quantized, images))
        work = Rebuild(means, rounding, recipe.saturation_safe, free_scales=not recipe.per_tensor_weights)
        return rebuild(quantized, images, work)

    def _keep_better(self, step: str, tried: QuantizedGraph) -> bool:
        """Take what was tried if it is closer to fp32 on the held-out images, and record the decision."""
        before, after = self._best_db, self._data.judge(tried)
        self.decisions.append(Decision(step, before, after, after > before, self._data.judge_images))
        if after > before:
            self.best, self._best_db = tried, after
        return after > before


def quantize_graph(
    graph: Graph,
    ranges: Ranges,
    copies: Copies = _NO_COPIES,
    *,
    saturation_safe: bool,
    per_tensor: bool = False,
) -> QuantizedGraph:
    """Quantize every activation up to the logits, every weight and every bias.

    Args:
        graph: Fused float graph.
        ranges: From `calibrate` on the same graph.
        copies: Channels that it has several times.
        saturation_safe: Make every pair of weights summable in int16.
        per_tensor: Give all output channels one scale.
    """
    tensors = {name: tensor_scale(*extremes) for name, extremes in ranges.items()}
    tensors = {name: tensors[name] for name in tensors if name == graph.logits or name != graph.output}
    tensors |= _add_scales(graph, tensors)
    tensors |= _pool_scales(graph, tensors)
    graph = shift_copies(graph, copies, tensors, {})
    kernels = {}
    for node in graph.kernels():
        input_scale = tensors[node.input].scale
        most = _LARGEST_PRODUCT * tensors[node.name].scale / input_scale
        bounded = dataclasses.replace(node, weight=node.weight.clip(-most, most))
        kernels[node.name] = quantize_kernel(
            bounded, input_scale, saturation_safe=saturation_safe, per_tensor=per_tensor
        )
    return QuantizedGraph(graph, tensors, kernels, copies=copies)


def _add_scales(graph: Graph, tensors: Mapping[str, TensorScale]) -> dict[str, TensorScale]:
    """Scales of what Adds read, moved to whole multiples of 1/999 of their outputs'.

    ONNX Runtime adds with the ratios in fixed point, LiteRT in float. In between, one element in 2,000 of a V2 came
    out one step apart, and the best class of one photo in 50; away from all ties they are equal to the bit.
    """
    moved: dict[str, TensorScale] = {}
    for node in reversed(graph.nodes):
        if not isinstance(node, Add):
            continue
        target = moved.get(node.name, tensors[node.name]).scale
        for name in node.inputs:
            ratio = max(np.rint(tensors[name].scale / target * _ADD_STEPS), 1) / _ADD_STEPS
            moved[name] = dataclasses.replace(tensors[name], scale=float(np.float32(target * ratio)))
    return moved


def _pool_scales(graph: Graph, tensors: Mapping[str, TensorScale]) -> dict[str, TensorScale]:
    """Scales of averages, moved so that a sum of integers is multiplied by a whole multiple of 1/4999.

    Runtimes differ in the last bits of that product. With an odd denominator it lies 1e-4 or more from a rounding
    tie, and float32 errs by less than that up to 255. Before, scales could be such that some sums lie on ties: then
    one photo in four got other logits from LiteRT than from ONNX Runtime.
    """
    moved: dict[str, TensorScale] = {}
    for node in graph.nodes:
        if isinstance(node, GlobalAveragePool):
            one = tensors[node.input].scale / math.prod(graph.shapes[node.input][1:])
            factor = max(np.rint(one / tensors[node.name].scale * _POOL_STEPS), 1) / _POOL_STEPS
            moved[node.name] = dataclasses.replace(tensors[node.name], scale=float(np.float32(one / factor)))
    return moved


def tensor_scale(low: float, high: float) -> TensorScale:
    """Return the affine map that puts [low, high] onto 0…255 with 0 on an integer."""
    scale = np.float32(max(high - low, 1e-6) / 255)
    return TensorScale(float(scale), int(np.clip(np.rint(-low / scale), 0, 255)))


def quantize_kernel(
    node: Kernel, input_scale: float, *, saturation_safe: bool, per_tensor: bool = False
) -> QuantizedKernel:
    """Quantize one layer's weights and bias.

    Args:
        node: Convolution or linear layer.
        input_scale: Of the tensor that it reads.
        saturation_safe: Make every pair of weights summable in int16.
        per_tensor: Give all output channels one scale.
    """
    scale = weight_scale(node, input_scale, saturation_safe=saturation_safe)
    if per_tensor:
        scale = np.full_like(scale, scale.max())
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
