"""What int8 makes of each tensor inside the network, summed over images one at a time.

Everything is compared in the units of the original network: a tensor of an equalized file is divided by its
factors first. Ranges and clipping are in the file's own steps, 0…255: t = y·f/scale + zero point of the fp32
value y. A value is clipped where t < −½ or t > 255½.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.checks.layer_noise import Factors, factor, input_factor
from mobilenet_export.checks.metrics import decibel
from mobilenet_export.graph import FloatArray, Kernel
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph, QuantizedKernel, TensorScale

ACTIVATION_EDGES = tuple(float(edge) for edge in np.arange(65) * 4 - 0.5)
"""64 bins of 4 steps each, 0…255."""
WEIGHT_EDGES = tuple(float(edge) for edge in np.arange(52) * 5 - 127.5)
"""51 bins of 5 steps each, −127…127; 0 is the middle of one."""


@dataclass(slots=True)
class TensorSums:
    """Sums over images for one tensor.

    Attributes:
        scale: Of the tensor in the file.
        times: Factors per channel, float32 (C,).
        signal: Σy² of the fp32 values.
        noise: Σ(y − ŷ)² by runtime.
        lowest: Of every channel in steps, (C,).
        highest: Of every channel in steps, (C,).
        values: How many values were seen.
        clipped: How many of them lie beyond the range.
        rounding: Σ of squared rounding errors in steps², of the fp32 values rounded to this scale.
        clipping: The part of it that comes from clipped values.
        fp32: Counts of the fp32 values by `ACTIVATION_EDGES`; the clipped ones are in none.
        int8: Counts of the integers of the first runtime.
    """

    scale: TensorScale
    times: FloatArray
    signal: float = 0.0
    noise: dict[str, float] = field(default_factory=dict)
    lowest: NDArray[np.float64] = field(init=False)
    highest: NDArray[np.float64] = field(init=False)
    values: int = 0
    clipped: int = 0
    rounding: float = 0.0
    clipping: float = 0.0
    fp32: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))
    int8: NDArray[np.int64] = field(default_factory=lambda: np.zeros(64, np.int64))

    def __post_init__(self) -> None:
        self.lowest = np.full(len(self.times), np.inf)
        self.highest = np.full(len(self.times), -np.inf)

    def add(self, truth: FloatArray, integers: Mapping[str, IntegerArray]) -> None:
        """Add one image: its fp32 values and every runtime's integers, (1, C, …)."""
        times = self.times.reshape((1, -1) + (1,) * (truth.ndim - 2))
        steps = truth * (times / np.float32(self.scale.scale)) + np.float32(self.scale.zero_point)
        self.signal += float(np.square(truth, dtype=np.float64).sum())
        for runtime, found in integers.items():
            real = (found.astype(np.float32) - np.float32(self.scale.zero_point)) * (
                np.float32(self.scale.scale) / times
            )
            energy = float(np.square(real - truth, dtype=np.float64).sum())
            self.noise[runtime] = self.noise.get(runtime, 0.0) + energy
        self._add_steps(steps)
        self.int8 += np.bincount(next(iter(integers.values())).ravel() // 4, minlength=64)

    def _add_steps(self, steps: FloatArray) -> None:
        channels = steps.reshape(steps.shape[1], -1)
        self.lowest = np.minimum(self.lowest, channels.min(axis=1))
        self.highest = np.maximum(self.highest, channels.max(axis=1))
        errors = np.square(np.clip(np.rint(steps), 0, 255) - steps, dtype=np.float64)
        outside = ~((steps >= -0.5) & (steps <= 255.5))  # what is not a number, too
        self.values += steps.size
        self.clipped += int(np.count_nonzero(outside))
        self.rounding += float(errors.sum())
        self.clipping += float(errors[outside].sum())
        bins = np.clip((steps[~outside] + np.float32(0.5)) / 4, 0, 63).astype(np.int64)
        self.fp32 += np.bincount(bins, minlength=64)

    def sqnr_db(self, runtime: str) -> float:
        """SQNR of the tensor in a runtime, in dB."""
        return decibel(self.signal, self.noise[runtime])

    @property
    def channel_steps(self) -> NDArray[np.float64]:
        """How many of the 255 steps each channel's values span, (C,)."""
        return np.clip(self.highest, 0, 255) - np.clip(self.lowest, 0, 255)

    @property
    def dead_channels(self) -> int:
        """Channels that had one and the same of several values."""
        several = self.values > len(self.highest)  # one image gives the pool and the logits one value each
        return int(np.count_nonzero(self.highest == self.lowest)) if several else 0


def tensor_sums(quantized: QuantizedGraph, factors: Factors) -> dict[str, TensorSums]:
    """Return empty sums for every tensor up to the logits."""
    return {
        name: TensorSums(scale, factor(quantized.graph, factors, name))
        for name, scale in quantized.tensors.items()
    }


def weights_in_steps(quantized: QuantizedGraph, factors: Factors, node: Kernel) -> FloatArray:
    """The fp32 weights of a layer in steps of their integers, in the weight's shape."""
    kernel = quantized.kernels[node.name]
    return stored_weights(quantized, factors, node) / _per_output(kernel, kernel.scale)


def stored_weights(quantized: QuantizedGraph, factors: Factors, node: Kernel) -> FloatArray:
    """The fp32 weights of a layer as the file has them before rounding: w·f_out/f_in."""
    kernel, graph = quantized.kernels[node.name], quantized.graph
    times = _per_output(kernel, factor(graph, factors, node.name))
    return node.weight * times / input_factor(graph, factors, node)


def _per_output(kernel: QuantizedKernel, values: FloatArray) -> FloatArray:
    return values.reshape((-1,) + (1,) * (kernel.weight.ndim - 1))
