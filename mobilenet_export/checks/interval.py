"""Confidence interval of a top-1 drop measured on the same images (paired proportions).

Of n images a are right in both models, b in the reference only, c in the result only, d in neither; the drop is
θ = (b − c)/n. With (l₁, u₁) and (l₂, u₂) the Wilson intervals of p₁ = (a + b)/n and p₂ = (a + c)/n, and φ the
correlation of the two outcomes, the interval is θ − δ … θ + ε with

    δ² = (p₁ − l₁)² − 2φ(p₁ − l₁)(u₂ − p₂) + (u₂ − p₂)²
    ε² = (p₂ − l₂)² − 2φ(p₂ − l₂)(u₁ − p₁) + (u₁ − p₁)²
    φ = C/√((a+b)(c+d)(a+c)(b+d)),  C = max(ad − bc − n/2, 0) where ad > bc, else ad − bc.

It holds its level with few images and few disagreements, where the normal approximation does not.
Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on
paired data", Statistics in Medicine 17, 2635–2650, method 10; Wilson 1927, JASA 22, 209–212.
"""

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """How many images are right in both models, in the reference only, in the result only, in neither."""

    both: int = 0
    reference_only: int = 0
    result_only: int = 0
    neither: int = 0

    @property
    def images(self) -> int:
        """Number of labelled images."""
        return self.both + self.reference_only + self.result_only + self.neither


def wilson(successes: int, images: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion."""
    share, square = successes / images, z * z / images
    middle = (share + square / 2) / (1 + square)
    half = z * math.sqrt(share * (1 - share) / images + square / (4 * images)) / (1 + square)
    return (max(middle - half, 0.0), min(middle + half, 1.0))


def drop_interval(counts: PairedCounts, z: float = Z_95) -> tuple[float, float]:
    """Return the 95 % interval of the drop in percentage points; at least one image is needed."""
    n = counts.images
    first, second = counts.both + counts.reference_only, counts.both + counts.result_only
    p1, p2 = first / n, second / n
    (l1, u1), (l2, u2) = wilson(first, n, z), wilson(second, n, z)
    phi = _correlation(counts)
    below = _distance(p1 - l1, u2 - p2, phi)
    above = _distance(p2 - l2, u1 - p1, phi)
    return (100 * (p1 - p2 - below), 100 * (p1 - p2 + above))


def _distance(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(first * first - 2 * phi * first * second + second * second, 0.0))


def _correlation(counts: PairedCounts) -> float:
    a, b, c, d = counts.both, counts.reference_only, counts.result_only, counts.neither
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if product == 0:
        return 0.0
    covariance = float(a * d - b * c)
    if covariance > 0:
        covariance = max(covariance - counts.images / 2, 0.0)
    return covariance / math.sqrt(product)
