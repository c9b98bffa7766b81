"""Whether the images are enough: do two halves of them give the ranges that activations get in int8?"""

from collections.abc import Iterator

import numpy as np

from mobilenet_export.findings import Finding, RangeStability, listing
from mobilenet_export.quantize.calibrate import Ranges

MOST_MEDIAN_PERCENT = 7.0
MOST_WORST_PERCENT = 75.0
"""Measured on V2 at 224 px, 200 random draws each. ImageNet photos: 64 of them give a median of 3.2 % (98 % of
draws below 5.6) and a worst of 23 % (below 52); 16 give 6.3 % and 45 %; 8 give 8.9 % and 58 %. Procedural images:
64 give 2.5 % and 15 %. On V1 the median is 0, since ReLU6 bounds nearly every range."""


def compare_ranges(first: Ranges, second: Ranges, images: int) -> RangeStability:
    """Compare the ranges that two halves of the images give; the input's, which is fixed, aside."""
    differences = {
        name: _difference_percent(first[name], second[name]) for name in list(first)[1:] if name in second
    }
    worst = max(differences, key=lambda name: differences[name])
    middle = float(np.median(list(differences.values())))
    return RangeStability(images, len(differences), middle, differences[worst], worst)


def _difference_percent(first: tuple[float, float], second: tuple[float, float]) -> float:
    width = (first[1] - first[0] + second[1] - second[0]) / 2
    apart = max(abs(first[0] - second[0]), abs(first[1] - second[1]))
    return 100 * apart / width if width > 0 else 0.0


def check_ranges(stability: RangeStability, more_available: bool) -> Iterator[Finding]:
    """Yield a finding where the halves disagree.

    Args:
        stability: Of the ranges.
        more_available: The set holds more images than the recipe uses.
    """
    if stability.median_percent <= MOST_MEDIAN_PERCENT and stability.worst_percent <= MOST_WORST_PERCENT:
        return
    problem = (
        f"two halves of {stability.images:,} images give ranges that are {stability.median_percent:.1f} % apart "
        f"(median), at worst {stability.worst_percent:.0f} % in {stability.worst_layer}"
    )
    hint = "give more images, and more varied ones; 64 to calibrate are usually enough"
    if more_available:
        hint = "use more of them: raise calibration_images in a recipe of your own (--recipe my.toml)"
    yield Finding("warning", "unstable-ranges", problem, hint)


def check_dead(first: Ranges, second: Ranges) -> Iterator[Finding]:
    """Yield a finding where layers give nothing but zeros."""
    dead = tuple(name for name in first if first[name] == second.get(name) == (0.0, 0.0))
    if dead:
        problem = f"{len(dead)} {'layer gives' if len(dead) == 1 else 'layers give'} only zeros"
        hint = "check the weights; if the images are all alike, give others"
        yield Finding("warning", "dead-layer", f"{problem}: {listing(dead)}", hint)
