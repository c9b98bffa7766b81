"""Running statistics of activations; memory does not grow with the number of images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import FloatArray

_ROWS = 64
"""Images whose extremes are kept one by one."""
_SHUT = 0.1


@dataclass(slots=True)
class Extremes:
    """One tensor's extremes over images, as a whole and per channel (C,).

    The mean of each image's minimum and maximum is steadier than the global extremes, which grow with the number
    of images.
    """

    images: int = 0
    low_sum: float = 0.0
    high_sum: float = 0.0
    lowest: NDArray[Any] | float = np.inf
    highest: NDArray[Any] | float = -np.inf
    spread: NDArray[Any] | float = 0.0
    rows: list[tuple[FloatArray, FloatArray]] = field(default_factory=list)

    def observe(self, value: FloatArray, unclamped: FloatArray) -> None:
        """Take in one image's tensor, channel-first, (1, C, H, W) or (1, C), after and before its activation."""
        low, high = _extremes(value)
        self.images += 1
        self.low_sum += float(low.min())
        self.high_sum += float(high.max())
        self.lowest, self.highest = np.minimum(self.lowest, low), np.maximum(self.highest, high)
        if len(self.rows) < _ROWS:
            self.rows.append((low, high))
            lowest, highest = (low, high) if unclamped is value else _extremes(unclamped)
            self.spread = np.maximum(self.spread, highest - lowest)

    @property
    def mean_range(self) -> tuple[float, float]:
        """Mean minimum and mean maximum of the tensor."""
        return (float(self.low_sum / self.images), float(self.high_sum / self.images))

    def scaled_range(self, factors: FloatArray) -> tuple[float, float]:
        """Mean minimum and mean maximum of the tensor with its channels multiplied."""
        lows = [float((low * factors).min()) for low, _ in self.rows]
        highs = [float((high * factors).max()) for _, high in self.rows]
        return (sum(lows) / len(lows), sum(highs) / len(highs))

    @property
    def full_range(self) -> tuple[float, float]:
        """Lowest and highest value seen."""
        return (float(np.min(self.lowest)), float(np.max(self.highest)))

    def magnitude(self, reach: float) -> NDArray[np.float64]:
        """Largest absolute value to expect of each channel, (C,), where values reach that much farther.

        A channel that stayed shut may open for other images: it is given a part of what it varies by before its
        activation.
        """
        seen = np.maximum(np.abs(self.lowest), np.abs(self.highest)) * reach
        return np.asarray(np.maximum(seen, self.spread * _SHUT), np.float64)


def _extremes(value: FloatArray) -> tuple[FloatArray, FloatArray]:
    rows = value.reshape(value.shape[1], -1)
    return rows.min(axis=1), rows.max(axis=1)
