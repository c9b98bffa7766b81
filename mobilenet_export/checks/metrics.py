"""How far a model's outputs are from a reference's, as a table of functions over the same sums.

With reference r and result y over all images and classes:
SQNR = 10·log₁₀(Σr² / Σ(r−y)²) dB; cosine = mean over images of r·y/(|r||y|); KL = mean over images of
Σ p·ln(p/q) in nats with p, q the class probabilities.
"""

import math
from dataclasses import dataclass

import numpy as np

from mobilenet_export.checks.interval import PairedCounts
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import softmax

_MOST_DB = 200.0
_FLOOR = 1e-12
"""Smallest probability in the KL divergence, so that an exact zero counts as a large but finite error."""


def sqnr_db(reference: FloatArray, result: FloatArray) -> float:
    """Signal-to-quantization-noise ratio in dB; infinite where both are equal."""
    return decibel(_energy(reference), _energy(reference - result))


def mean_sqnr_db(reference: FloatArray, result: FloatArray) -> float:
    """Mean over images of the SQNR of each, in dB, so that no outlier decides alone; outputs are (N, K).

    An image counts 200 dB at most, which is more than float32 holds: one whose outputs are equal decides no mean.
    """
    images = zip(reference, result, strict=True)
    return sum(min(sqnr_db(*image), _MOST_DB) for image in images) / len(reference)


def decibel(signal: float, noise: float) -> float:
    """Ratio of two energies in dB; minus infinity where the noise is infinite."""
    if math.isinf(noise):
        return -math.inf
    return math.inf if noise == 0 else 10 * math.log10(max(signal, 1e-300) / noise)


def _energy(values: FloatArray) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))


@dataclass(slots=True)
class DriftSums:
    """Sums over images from which every drift metric follows; add batches as they come.

    `probabilities` says that the outputs are probabilities already, not logits. An output that is NaN or infinite
    makes the noise infinite for good, and counts as 0 in the other sums.
    """

    probabilities: bool
    images: int = 0
    agreements: int = 0
    signal: float = 0.0
    noise: float = 0.0
    cosine_sum: float = 0.0
    kl_sum: float = 0.0
    max_abs: float = 0.0
    both: int = 0
    reference_only: int = 0
    result_only: int = 0
    neither: int = 0
    top5: int = 0

    def add(self, reference: FloatArray, result: FloatArray, labels: list[int | None]) -> None:
        """Add a batch: outputs float32 (N, K) of the reference and the result, a label or None per image."""
        if not (np.isfinite(reference).all() and np.isfinite(result).all()):
            self.noise = math.inf
            reference, result = _finite(reference), _finite(result)
        self.images += len(reference)
        self.agreements += int(np.sum(reference.argmax(axis=1) == result.argmax(axis=1)))
        self.signal += _energy(reference)
        self.noise += _energy(reference - result)
        self.cosine_sum += float(_cosine(reference, result).sum())
        self.kl_sum += max(float(self._kl(reference, result).sum()), 0.0)  # rounding may fall below 0
        self.max_abs = max(self.max_abs, float(np.abs(reference - result).max()))
        self._add_labels(reference, result, labels)

    def _kl(self, reference: FloatArray, result: FloatArray) -> FloatArray:
        if not self.probabilities:
            reference, result = softmax(reference), softmax(result)
        p, q = np.maximum(reference, _FLOOR), np.maximum(result, _FLOOR)
        return np.asarray((p * np.log(p / q)).sum(axis=1))

    def _add_labels(self, reference: FloatArray, result: FloatArray, labels: list[int | None]) -> None:
        for expected, truth, scores in zip(labels, reference, result, strict=True):
            if expected is None:
                continue
            was, now = truth.argmax() == expected, scores.argmax() == expected
            self.both += int(was and now)
            self.reference_only += int(was and not now)
            self.result_only += int(now and not was)
            self.neither += int(not was and not now)
            self.top5 += int(expected in np.argsort(-scores, kind="stable")[:5])

    @property
    def pairs(self) -> PairedCounts:
        """Of the labelled images, how many each model got right."""
        return PairedCounts(self.both, self.reference_only, self.result_only, self.neither)

    @property
    def labelled(self) -> int:
        """Number of images that had a label."""
        return self.pairs.images

    @property
    def top1(self) -> int:
        """Labelled images that the result got right."""
        return self.both + self.result_only

    @property
    def reference_top1(self) -> int:
        """Labelled images that the reference got right."""
        return self.both + self.reference_only

    @property
    def sqnr_db(self) -> float:
        """SQNR of the outputs in dB."""
        return decibel(self.signal, self.noise)

    def percent(self, count: int, of: int) -> float | None:
        """Share in percent; None of nothing."""
        return 100 * count / of if of else None


def _finite(values: FloatArray) -> FloatArray:
    return np.where(np.isfinite(values), values, np.float32(0))


def _cosine(reference: FloatArray, result: FloatArray) -> FloatArray:
    norms = np.linalg.norm(reference, axis=1) * np.linalg.norm(result, axis=1)
    return np.asarray((reference * result).sum(axis=1) / np.maximum(norms, _FLOOR))
