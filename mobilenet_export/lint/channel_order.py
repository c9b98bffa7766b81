"""Whether red and blue look swapped, from two things that are true of photos and flip with the channels.

* Warmth: most photos hold more red than blue (75 % of 1,000 ImageNet photos; 16 % hold less).
* Greens: where green leads, red is second far more often than blue, as leaves are rather yellow than cyan
  (36 % of the photos lean so, 8 % the other way, the rest shows little green).

Of each, the signs are counted over the images: z = (n₊ − n₋)/√(n₊ + n₋), about standard normal where there is no
preference. Both have to point backwards, since one alone may have a reason: pictures of the sea are blue, too. A
third sign vetoes: the top of a photo is bluer than its bottom, for that is where the sky is.

Measured on those photos (one a class, cropped to 224 px) as they are: no alarm in 2,000 random subsets of each of
8, 16, 24, 32, 48, 64, 96, 128, 200 and 500 photos, none in any run of so many neighbours in the order of the
classes (so that some show fish or ships alone), and none for the N bluest photos, whatever N.
With red and blue swapped the alarm was given for 24 % of the random subsets of 16, 69 % of 32, 96 % of 64, 98 % of
96 and 99.6 % of 200; of 8 it is hardly ever. The shipped procedural images prefer neither order (z 1.1, 1.6 and
−1.4 of 96): no alarm, swapped or not.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mobilenet_export.graph import FloatArray

_LEAST_DIFFERENCE = 0.01
"""Of red and blue, of 1: a smaller mean is none."""
_LEAST_COLOUR = 0.08
"""Difference of the largest and the smallest channel, of 1, from which a pixel counts as coloured."""
_LEAST_GREENS = 10
"""Of 32×32 blocks."""
_ONE_AGAINST = -1.5
_BOTH_AGAINST = -3.5
_SKY_IN_FAVOUR = 1.0


@dataclass(frozen=True, slots=True)
class ColourSigns:
    """Which way one image leans: +1 as photos do in RGB, −1 as they do in BGR, 0 neither."""

    warmth: int
    greens: int
    sky: int


def colour_signs(unit: FloatArray) -> ColourSigns:
    """Note which way an image leans, float32 (3, h, w) of 0 to 1, at about 32 px."""
    red_blue = unit[0] - unit[2]
    coloured = unit.max(axis=0) - unit.min(axis=0) > _LEAST_COLOUR
    green = coloured & (unit[1] >= unit[0]) & (unit[1] >= unit[2])
    down = np.linspace(-1, 1, unit.shape[1], dtype=np.float32)[:, None]
    warmth, sky = float(red_blue.mean()), float((red_blue * down).mean())
    return ColourSigns(
        warmth=int(np.sign(warmth)) if abs(warmth) > _LEAST_DIFFERENCE else 0,
        greens=int(np.sign(np.sign(red_blue[green]).sum())) if green.sum() >= _LEAST_GREENS else 0,
        sky=int(np.sign(sky)) if abs(sky) > 1e-6 else 0,
    )


def looks_swapped(images: Sequence[ColourSigns]) -> bool:
    """Return whether red and blue look swapped over a set of images; of few images it never is."""
    warmth = preference(image.warmth for image in images)
    greens = preference(image.greens for image in images)
    sky = preference(image.sky for image in images)
    against = max(warmth, greens) < _ONE_AGAINST and (warmth + greens) / math.sqrt(2) < _BOTH_AGAINST
    return against and sky < _SKY_IN_FAVOUR


def preference(signs: Iterable[int]) -> float:
    """Return z of a sign test: 0 where both signs are as frequent, or there are none."""
    chosen = [sign for sign in signs if sign]
    return sum(chosen) / math.sqrt(max(len(chosen), 1))
