"""Activations of the calibration images → the range of every tensor."""

from collections.abc import Iterable, Mapping

import numpy as np

from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import UNCLAMPED, Activation, Add, Conv2d, FloatArray, Graph
from mobilenet_export.quantize.observers import Extremes

Ranges = Mapping[str, tuple[float, float]]
"""Tensor name → (lowest, highest) real value to represent; 0 lies inside."""

Activations = Mapping[str, FloatArray]
"""Every tensor of one image by name."""

_LOGITS_REACH = 2.0
"""How much farther than in calibration the logits may reach. Photos can excite a class far more than the images
that were calibrated with, and clipped logits tie: on 334 photos a V2 calibrated with procedural images agreed with
fp32 on 84 % of them at a reach of 1.1 and on 97 % at 2.2, for 0.2 dB on held-out images."""


class NotFiniteError(DamagedInputError):
    """A layer gives NaN or infinity for an image.

    Attributes:
        layer: The first that does.
        image: Index of the image among those that were looked at, from 0.
    """

    def __init__(self, layer: str, image: int) -> None:
        hint = "its values overflow float32: check the weights of that layer and those before it"
        super().__init__(f"image {image}: layer {layer} gives NaN or infinity", hint)
        self.layer = layer
        self.image = image


def refuse_not_finite(graph: Graph, image: Activations, index: int) -> None:
    """Refuse activations that are NaN or infinite, also where ReLU6 hides it.

    Raises:
        NotFiniteError: Names the first such layer.
    """
    for node in graph.nodes:
        value = image.get(node.name + UNCLAMPED, image[node.name])  # a clamp adds nothing that is not finite
        with np.errstate(all="ignore"):  # the sum of finite values may overflow, so it only clears them
            cleared = np.isfinite(value.sum())
        if not cleared and not np.isfinite(value).all():
            raise NotFiniteError(node.name, index)


def calibrate(graph: Graph, images: Iterable[Activations], input_range: tuple[float, float]) -> Ranges:
    """Return the range of every activation up to the logits.

    A tensor's range is the mean over images of its extremes, clamped by the fused activation; the logits take
    twice their full range instead.

    Args:
        graph: Fused float graph.
        images: Activations of one image after another.
        input_range: Extremes that the preprocessing can produce.

    Raises:
        NotFiniteError: A layer gives NaN or infinity.
    """
    seen: dict[str, Extremes] = {node.name: Extremes() for node in graph.nodes}
    for index, image in enumerate(images):
        refuse_not_finite(graph, image, index)
        for name, extremes in seen.items():
            extremes.observe(image[name])
    bounds = {node.name: node.activation.bounds for node in graph.nodes if isinstance(node, Conv2d | Add)}
    ranges = {
        name: _clamped(extremes.mean_range, bounds.get(name, Activation.NONE.bounds))
        for name, extremes in seen.items()
    }
    low, high = seen[graph.logits].full_range
    ranges[graph.logits] = (min(low, 0.0) * _LOGITS_REACH, max(high, 0.0) * _LOGITS_REACH)
    return {graph.input: input_range, **ranges}


def _clamped(extremes: tuple[float, float], bounds: tuple[float, float]) -> tuple[float, float]:
    """Widen a range to hold 0, and narrow it to what the fused activation lets through."""
    low, high = min(extremes[0], 0.0), max(extremes[1], 0.0)
    return (max(low, bounds[0]), min(high, bounds[1]))
