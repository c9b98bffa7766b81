"""Weights rounded so that the layer's output, not each weight, comes out closest.

With x the integer inputs of a layer and H = E[x·xᵀ] over positions and images, a row of weights w is rounded to the
integers q that make (w − s·q)ᵀ H (w − s·q) small. Dense rows are rounded one input after another, in the order of
falling Hᵢᵢ; what each rounding breaks is spread over the inputs that are still free. Depthwise filters have so few
weights that each is moved in turn until none gains any more, for several scales at once, of which the best is kept.

A pair that would saturate in int16 is clamped as it is rounded, so that the rows stay saturation-safe and the rest
of the row makes up for the clamp.
Source: Frantar et al. 2023, GPTQ (arXiv:2210.17323), algorithm 1; act-order and damping as in its published code's
options, written here from the paper.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import Conv2d, FloatArray, Kernel
from mobilenet_export.interpreter import pad, views
from mobilenet_export.quantize.saturation import LARGEST_PAIR, reduction_rows

Moment = NDArray[np.float64]
"""E[x·xᵀ] in steps of the input: (I, I) of a dense layer, (C, k, k) of a depthwise one with k positions."""

_POSITIONS = 1024
"""Positions of an image that are looked at, at most; more change no figure."""
_DAMPING = 0.01
"""Of the mean of the diagonal, added to it: H of a few images is singular."""
_BLOCK = 64
_SCALES = np.linspace(1.0, 0.7, 7, dtype=np.float32)
_MOVES = 16


def second_moment(node: Kernel, values: FloatArray) -> Moment:
    """Return the sum of x·xᵀ over the positions of one image.

    Args:
        node: Convolution or linear layer.
        values: Its input, (1, H, W, C) or (1, C), integers with the zero point taken off.
    """
    if not isinstance(node, Conv2d):
        return np.asarray(values.T @ values, np.float64)
    taps = np.stack(views(node, pad(values, node.pads)), axis=-1)  # (1, H, W, C, kh·kw)
    taps = taps.reshape(-1, *taps.shape[-2:])
    taps = taps[:: max(1, len(taps) // _POSITIONS)]
    if node.is_depthwise:
        channels = taps.transpose(1, 2, 0)
        return np.asarray(channels @ channels.transpose(0, 2, 1), np.float64) / len(taps)
    rows = taps.transpose(0, 2, 1).reshape(len(taps), -1)
    return np.asarray(rows.T @ rows, np.float64) / len(taps)


def round_rows(
    weight: FloatArray, scale: FloatArray, moment: Moment, *, saturation_safe: bool
) -> NDArray[np.int8]:
    """Round a dense layer's weights.

    Args:
        weight: float32 (O, I, kh, kw) or (O, I).
        scale: float32 (O,).
        moment: (I·kh·kw, I·kh·kw), inputs in (kh, kw, in-channel) order.
        saturation_safe: Clamp pairs that would saturate.

    Returns:
        int8 in the weight's shape.
    """
    rows = reduction_rows(weight).astype(np.float64) / scale[:, None].astype(np.float64)
    order = np.argsort(-np.diag(moment), kind="stable")
    factor = _inverse_factor(moment[np.ix_(order, order)])
    rounded, left = np.zeros_like(rows), rows[:, order]
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        errors = np.empty_like(left[:, block])
        for index, column in enumerate(order[block]):
            free, weights = left[:, block][:, index:], factor[block, block][index, index:]
            rounded[:, column] = np.clip(np.rint(free[:, 0]), *_bounds(rounded, column, saturation_safe))
            errors[:, index] = (free[:, 0] - rounded[:, column]) / weights[0]
            free -= np.outer(errors[:, index], weights)
        left[:, block.stop :] -= errors @ factor[block, block.stop :]
    return _unrolled(rounded, weight.shape)


def _inverse_factor(moment: Moment) -> Moment:
    """Upper triangular U with UᵀU = H⁻¹: row i says how the error of input i is spread over the later ones."""
    damped = moment + np.eye(len(moment)) * max(_DAMPING * float(np.trace(moment)) / len(moment), 1e-9)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(damped)).T)


def _bounds(rounded: NDArray[np.float64], column: int, saturation_safe: bool) -> tuple[Any, Any]:
    """Least and largest integer of each row in a column, given the neighbour that it is added to."""
    partner = column ^ 1
    if not saturation_safe or partner >= rounded.shape[1]:
        return -127, 127
    other = rounded[:, partner]
    low = np.where(other < 0, -LARGEST_PAIR - other, -127)
    high = np.where(other > 0, LARGEST_PAIR - other, 127)
    return np.maximum(low, -127), np.minimum(high, 127)


def _unrolled(rows: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Undo `reduction_rows`."""
    integers = rows.astype(np.int8)
    if len(shape) == 2:
        return integers
    outputs, inputs, height, width = shape
    return np.ascontiguousarray(integers.reshape(outputs, height, width, inputs).transpose(0, 3, 1, 2))


def round_filters(
    weight: FloatArray, scale: FloatArray, moment: Moment, *, free_scales: bool = True
) -> tuple[NDArray[np.int8], FloatArray]:
    """Round a depthwise layer's filters, and choose their scales.

    Args:
        weight: float32 (C, 1, kh, kw).
        scale: float32 (C,), the largest to try.
        moment: (C, kh·kw, kh·kw).
        free_scales: Also try smaller scales, for each filter its own.

    Returns:
        int8 in the weight's shape, and float32 (C,).
    """
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    best, best_scale, least = np.zeros_like(rows), scale.copy(), np.full(len(rows), np.inf)
    for factor in _SCALES if free_scales else _SCALES[:1]:
        tried = scale * factor
        integers, error = _descend(rows / tried[:, None].astype(np.float64), moment)
        error *= tried.astype(np.float64) ** 2
        better = error < least
        best[better], best_scale[better], least[better] = integers[better], tried[better], error[better]
    return best.astype(np.int8).reshape(weight.shape), best_scale


def _descend(rows: NDArray[np.float64], moment: Moment) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Move one or two integers of each filter by one at a time, as long as its error falls."""
    moves = _moves(rows.shape[1])
    cost = np.einsum("mi,cij,mj->cm", moves, moment, moves, optimize=True)
    integers = np.clip(np.rint(rows), -127, 127)
    for _ in range(_MOVES):
        slope = np.einsum("cij,cj->ci", moment, rows - integers)
        change = cost - 2 * (slope @ moves.T)
        choice = change.argmin(axis=1)
        moved = integers + moves[choice]
        falls = (change[np.arange(len(rows)), choice] < 0) & (np.abs(moved).max(axis=1) <= 127)
        if not falls.any():
            break
        integers[falls] = moved[falls]
    left = rows - integers
    return integers, np.einsum("ci,cij,cj->c", left, moment, left, optimize=True)


def _moves(size: int) -> NDArray[np.float64]:
    """Every step of ±1 in one or in two of `size` coordinates, (M, size)."""
    unit = np.eye(size)
    single = np.concatenate([unit, -unit])
    pairs = [
        a * unit[i] + b * unit[j] for i in range(size) for j in range(i) for a in (1, -1) for b in (1, -1)
    ]
    return np.concatenate([single, np.array(pairs).reshape(-1, size)])
