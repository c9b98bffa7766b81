"""Weight scales with which int8 gives one answer on every CPU.

x86 without VNNI multiplies u8·s8 with `pmaddubsw`, which adds two neighbouring products in int16 and saturates:
255·w₁ + 255·w₂ overflows once |w₁ + w₂| ≥ 129 with equal signs (255·128 = 32640 still fits). Neighbours are
elements (2k, 2k+1) along the reduction axis in (kh, kw, in-channel) order. Depthwise kernels take another path
and are exact.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import FloatArray

LARGEST_PAIR = 128
_STEP = np.float32(1 + 1 / 512)


def reduction_rows(weight: NDArray[Any]) -> NDArray[Any]:
    """Weights as (O, reduction) rows in the order that the kernels add them up, (kh, kw, in-channel)."""
    if weight.ndim == 4:
        weight = weight.transpose(0, 2, 3, 1)
    return weight.reshape(weight.shape[0], -1)


def largest_pair_sum(weight: NDArray[Any]) -> NDArray[Any]:
    """Largest |w₁ + w₂| of neighbours with equal signs, per output channel: (O, …) → (O,)."""
    rows = reduction_rows(weight)
    if rows.dtype == np.int8:
        rows = rows.astype(np.int32)
    rows = rows[:, : rows.shape[1] // 2 * 2]
    if not rows.size:
        return np.zeros(len(weight), rows.dtype)
    first, second = rows[:, 0::2], rows[:, 1::2]
    sums = np.where(np.sign(first) == np.sign(second), np.abs(first + second), 0)
    return np.asarray(sums.max(axis=1))


def saturation_safe_scale(weight: FloatArray, scale: FloatArray) -> FloatArray:
    """Enlarge scales (O,) until no pair of rounded weights can saturate.

    Args:
        weight: float32 (O, I, kh, kw) or (O, I) of a layer that is not depthwise.
        scale: float32 (O,), at least absmax/127.
    """
    scale = np.maximum(scale, largest_pair_sum(weight).astype(np.float32) / LARGEST_PAIR)
    while True:
        shape = (-1,) + (1,) * (weight.ndim - 1)
        rounded = np.rint(weight / scale.reshape(shape))
        unsafe = largest_pair_sum(rounded) > LARGEST_PAIR
        if not unsafe.any():
            return scale
        scale = np.where(unsafe, scale * _STEP, scale)
