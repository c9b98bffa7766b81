"""Running statistics of activations; memory does not grow with the number of images."""

from dataclasses import dataclass

import numpy as np

from mobilenet_export.graph import FloatArray


@dataclass(slots=True)
class Extremes:
    """One tensor's extremes over images.

    The mean of each image's minimum and maximum is steadier than the global extremes, which grow with the number
    of images.
    """

    images: int = 0
    low_sum: float = 0.0
    high_sum: float = 0.0
    lowest: float = np.inf
    highest: float = -np.inf

    def observe(self, value: FloatArray) -> None:
        """Take in one image's tensor, of any shape."""
        low, high = float(value.min()), float(value.max())
        self.images += 1
        self.low_sum += low
        self.high_sum += high
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)

    @property
    def mean_range(self) -> tuple[float, float]:
        """Mean minimum and mean maximum."""
        return (self.low_sum / self.images, self.high_sum / self.images)

    @property
    def full_range(self) -> tuple[float, float]:
        """Lowest and highest value seen."""
        return (self.lowest, self.highest)
