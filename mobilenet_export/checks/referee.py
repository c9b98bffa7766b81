"""A referee: how far a runtime's integer kernels are from the exact arithmetic of the file's own integers.

The interpreter computes with int32 accumulators and the rounding that `interpreter` documents; a runtime's
outputs are the same integers, or differ by some steps of the logits (LSB). With q the interpreter's logits and y
the runtime's, in integers 0…255: largest = max|y − q|, equal = share of outputs with y = q.

Only the first images of a run are refereed: the interpreter takes a tenth of a second for each.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray, walk_quantized
from mobilenet_export.quantized import QuantizedGraph, TensorScale
from mobilenet_export.report import Referee

REFEREED_IMAGES = 8
"""Images of a run that are refereed, at most."""
_FAR = 1e6
"""Steps beyond which an output is just wrong; keeps infinity out of the integers."""


@dataclass(slots=True)
class RefereeSums:
    """Sums over images from which the referee's figures follow; add batches as they come."""

    images: int = 0
    outputs: int = 0
    equal: int = 0
    largest_lsb: int = 0

    def add(self, exact: IntegerArray, found: NDArray[np.int64]) -> None:
        """Add a batch: integers (N, K) of the interpreter and of the runtime."""
        differences = np.abs(found - exact.astype(np.int64))
        self.images += len(exact)
        self.outputs += differences.size
        self.equal += int(np.count_nonzero(differences == 0))
        self.largest_lsb = max(self.largest_lsb, int(differences.max()))

    @property
    def figures(self) -> Referee | None:
        """What goes into the report; None where no image was refereed."""
        if not self.images:
            return None
        return Referee(self.largest_lsb, 100 * self.equal / self.outputs, self.images)


def has_referee(quantized: QuantizedGraph) -> bool:
    """Whether the outputs are logits; probabilities have no LSB to compare in."""
    return quantized.graph.logits == quantized.graph.output


def exact_logits(quantized: QuantizedGraph, images: FloatArray) -> IntegerArray:
    """Run the interpreter on float32 (N, C, H, W), and return the integers of the logits, (N, K).

    Images run side by side, one thread each and none in the BLAS, whose own stall where others want a core.
    """

    def last(image: FloatArray) -> IntegerArray:
        *_, (_, logits) = walk_quantized(quantized, image)
        return logits

    with threadpool_limits(1), ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(last, np.split(images, len(images)))))


def to_steps(logits: FloatArray, scale: TensorScale) -> NDArray[np.int64]:
    """Return the integers that dequantized logits stand for; exact, because float32 tells 256 steps apart."""
    steps = np.clip(logits.astype(np.float64) / np.float64(np.float32(scale.scale)), -_FAR, _FAR)
    return np.asarray(np.nan_to_num(np.rint(steps), nan=_FAR) + scale.zero_point, np.int64)


def same_integers(first: QuantizedGraph, second: QuantizedGraph) -> bool:
    """Whether two graphs hold the same scales, weights and biases, as files of one bundle do."""
    if first.tensors != second.tensors or first.kernels.keys() != second.kernels.keys():
        return False
    pairs = [(kernel, second.kernels[name]) for name, kernel in first.kernels.items()]
    return all(
        np.array_equal(getattr(one, part), getattr(other, part))
        for one, other in pairs
        for part in ("weight", "scale", "bias")
    )
