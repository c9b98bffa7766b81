"""What each tensor's rounding and clipping costs at the logits, from gradients of the fp32 network.

With a random sign vector r over the classes and g = ∂(r·logits)/∂x, an error e of tensor x moves the logits by J·e
with E_r[(g·e)²] = |J·e|². So over images and probes r

* rounding to steps of Δ costs Σg² · Δ²/12, its errors being independent of one another;
* clipping at h costs the mean of (Σ g·max(x − h, 0))², whatever its errors have in common; likewise at the low end.

Both are known for every range from one pass backward, and the best range of every tensor follows.
Source: Hutchinson 1990, "A stochastic estimator of the trace of the influence matrix" (the probes); Δ²/12 from
Widrow et al. 1996, "Statistical theory of quantization", IEEE Trans. Instrum. Meas. 45(2).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import (
    Add,
    Conv2d,
    FloatArray,
    FullyConnected,
    Graph,
    Node,
    Softmax,
    activation_bounds,
)
from mobilenet_export.quantize.calibrate import Ranges

_REACHES = np.array([0.35, 0.42, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2, 1.45, 1.75, 2.1, 2.5, 3.0])
"""Ranges that are tried, in units of the range to start from."""
_PROBES = 2
_BATCH = 1
"""Images whose gradients are held at once by each thread: 1.3 GB at the peak of an export, with 4 it is 2.1."""


_Part = tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]]
"""Σg² (n,), and g·e of clipping at the low and at the high ends (R, n), of n images."""
_Channels = tuple[NDArray[Any], NDArray[Any]]
"""Σg² and (Σg)² of each channel, (n, C), of n images."""
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class TensorNoise:
    """What a tensor's errors cost at the logits, over S samples (images × probes) and R ranges.

    Attributes:
        rounding: Mean of Σg².
        low: g·e of clipping at each low end, (R, S).
        high: g·e of clipping at each high end, (R, S).
    """

    rounding: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChannelSlopes:
    """How the logits follow each channel of a tensor, mean over samples (images × probes).

    Attributes:
        squares: Σg² over positions, (C,): of errors that are independent of one another.
        shifts: (Σg)² over positions, (C,): of one error that all positions share.
    """

    squares: NDArray[np.float64]
    shifts: NDArray[np.float64]


def channel_slopes(graph: Graph, images: FloatArray) -> Mapping[str, ChannelSlopes]:
    """Measure the channels of every tensor between the input and the logits."""
    parts: dict[str, list[_Channels]] = {}
    for found in _each(images, lambda number, batch: _channels(graph, number, batch)):
        for name, rows in found.items():
            parts.setdefault(name, []).extend(rows)
    return {name: _mean(rows) for name, rows in parts.items()}


def _mean(rows: list[_Channels]) -> ChannelSlopes:
    squares, shifts = (np.concatenate(part).astype(np.float64) for part in zip(*rows, strict=True))
    return ChannelSlopes(squares.mean(axis=0), shifts.mean(axis=0))


def best_ranges(graph: Graph, images: FloatArray, start: Ranges, reach: float) -> Ranges:
    """Return the ranges that cost least at the logits; those of the input and the logits stay.

    Args:
        graph: Fused float graph.
        images: float32 (N, C, H, W).
        start: Ranges to start from.
        reach: How many times as large as in these images the activations are expected to be where they peak.
    """
    bounds = activation_bounds(graph)
    noise = tensor_noise(graph, images, start)
    found = {name: _best(noise[name], start[name], bounds[name], reach) for name in noise}
    return {**start, **found}


def _best(
    noise: TensorNoise, start: tuple[float, float], bounds: tuple[float, float], reach: float
) -> tuple[float, float]:
    lows = np.maximum(_REACHES * start[0], bounds[0])
    highs = np.minimum(_REACHES * start[1], bounds[1])
    low_cost = np.where((lows > bounds[0])[:, None], _reaching(noise.low, reach), 0)
    high_cost = np.where((highs < bounds[1])[:, None], _reaching(noise.high, reach), 0)
    steps = (highs[None, :] - lows[:, None]) / 255
    clipping = np.square(low_cost[:, None] + high_cost[None, :]).mean(axis=2)
    low, high = np.unravel_index(np.argmin(noise.rounding * steps**2 / 12 + clipping), steps.shape)
    return (float(lows[low]), float(highs[high]))


def _reaching(moved: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
    """What clipping costs where values are `reach` times as large: max(a·x − h, 0) = a·max(x − h/a, 0)."""
    return reach * np.stack([np.interp(_REACHES / reach, _REACHES, sample) for sample in moved.T], axis=1)


def tensor_noise(graph: Graph, images: FloatArray, start: Ranges) -> Mapping[str, TensorNoise]:
    """Measure every tensor between the input and the logits."""
    parts: dict[str, list[_Part]] = {}
    for found in _each(images, lambda number, batch: _measure(graph, number, batch, start)):
        for name, rows in found.items():
            parts.setdefault(name, []).extend(rows)
    return {name: _joined(rows) for name, rows in parts.items()}


def _each(images: FloatArray, measure: Callable[[int, FloatArray], _Found]) -> Iterator[_Found]:
    """Measure a few images at a time, on all cores."""
    batches = [images[first : first + _BATCH] for first in range(0, len(images), _BATCH)]
    with _one_thread_each(), ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(measure, range(len(batches)), batches)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from splitting each layer, which on two cores costs twice the time that it saves."""
    import torch  # noqa: PLC0415

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measure(graph: Graph, number: int, batch: FloatArray, start: Ranges) -> dict[str, list[_Part]]:
    """What a few images say of every tensor, one part per probe."""
    parts: dict[str, list[_Part]] = {}
    for name, value, slope in _slopes(graph, number, batch, _PROBES):
        seen, gradient, (low, high) = value.flatten(1), slope.flatten(1), start[name]
        ends = (_clipped(-seen, -gradient, -low), _clipped(seen, gradient, high))
        parts.setdefault(name, []).append((gradient.square().sum(1).numpy(), *ends))
    return parts


def _channels(graph: Graph, number: int, batch: FloatArray) -> dict[str, list[_Channels]]:
    """What a few images say of every tensor's channels, by one probe."""
    parts: dict[str, list[_Channels]] = {}
    for name, _, slope in _slopes(graph, number, batch, probes=1):
        gradient = slope.reshape(*slope.shape[:2], -1)
        parts[name] = [(gradient.square().sum(2).numpy(), gradient.sum(2).square().numpy())]
    return parts


def _slopes(graph: Graph, number: int, batch: FloatArray, probes: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, value and gradient of every tensor between the input and the logits, probe by probe."""
    import torch  # noqa: PLC0415

    random = torch.Generator().manual_seed(number)
    values = _forward(graph, torch.tensor(graph.feed(batch)))
    logits = values.pop(graph.logits)
    for _ in range(probes):
        signs = torch.randint(0, 2, logits.shape, generator=random) * 2.0 - 1
        slopes = torch.autograd.grad(logits, list(values.values()), signs, retain_graph=True)
        for (name, value), slope in zip(values.items(), slopes, strict=True):
            yield name, value.detach(), slope


def _joined(rows: list[_Part]) -> TensorNoise:
    squares, low, high = zip(*rows, strict=True)
    return TensorNoise(float(np.concatenate(squares).mean()), np.hstack(low), np.hstack(high))


def _clipped(value: Any, gradient: Any, end: float) -> NDArray[np.float64]:
    """g·e of clipping `value` (n, size) at each reach of `end`, (R, n)."""
    import torch  # noqa: PLC0415

    moved = torch.zeros(len(_REACHES), len(value))
    if end <= 0:
        return np.asarray(moved, np.float64)
    image, place = torch.nonzero(value > end * _REACHES[0], as_tuple=True)
    beyond, slope = value[image, place], gradient[image, place]
    for index, reach in enumerate(_REACHES.tolist()):
        moved[index].index_add_(0, image, -slope * (beyond - end * reach).clamp(min=0))
    return np.asarray(moved, np.float64)


def _forward(graph: Graph, batch: Any) -> dict[str, Any]:
    """Every tensor after the input up to the logits, channel-first, ready to be derived."""
    values = {graph.input: batch.requires_grad_()}
    for node in graph.nodes:
        if not isinstance(node, Softmax):
            values[node.name] = _layer(node, [values[name] for name in node.inputs])
    del values[graph.input]
    return values


def _layer(node: Node, inputs: list[Any]) -> Any:
    from torch import tensor  # noqa: PLC0415
    from torch.nn import functional  # noqa: PLC0415

    if isinstance(node, FullyConnected):
        return functional.linear(inputs[0], tensor(node.weight), tensor(node.bias))
    if isinstance(node, Conv2d):
        pads = node.pads
        padded = functional.pad(inputs[0], (pads.left, pads.right, pads.top, pads.bottom))
        weight, bias = tensor(node.weight), tensor(node.bias)
        value = functional.conv2d(padded, weight, bias, node.stride, groups=node.groups)
    else:
        value = inputs[0] + inputs[1] if len(inputs) > 1 else inputs[0].mean((2, 3))
    return value.clamp(*node.activation.bounds) if isinstance(node, Conv2d | Add) else value
