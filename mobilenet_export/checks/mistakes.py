"""What people do wrong between a photo and a network: each known mistake can be made on purpose, and recognised.

Outputs that are not as recorded are compared with those that each mistake gives. The one that comes close names
the cause.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from mobilenet_export.graph import FloatArray
from mobilenet_export.images import FILTERS, preprocess
from mobilenet_export.spec import Preprocess

_CLOSE = 0.05
"""A mistake explains outputs that are within this share of their norm; rounding stays under 0.02."""
_NEARER = 3
"""And this many times nearer than without the mistake, so that a file that is off in itself explains nothing."""
_LONGEST_SHIFT = 2

_Channels = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A way to feed a network wrongly: RGB image → float32 (3, crop, crop)."""

    name: str
    prepare: Callable[[Image.Image, Preprocess], FloatArray]


def _swap_channels(image: Image.Image, how: Preprocess) -> FloatArray:
    return preprocess(Image.merge("RGB", image.split()[::-1]), how)


def _swap_planes(image: Image.Image, how: Preprocess) -> FloatArray:
    return np.ascontiguousarray(preprocess(image, how)[::-1])


def _normalized_with(mean: _Channels, std: _Channels) -> Callable[[Image.Image, Preprocess], FloatArray]:
    def prepare(image: Image.Image, how: Preprocess) -> FloatArray:
        return preprocess(image, replace(how, mean=mean, std=std))

    return prepare


def _squash(image: Image.Image, how: Preprocess) -> FloatArray:
    square = image.resize((how.crop_px, how.crop_px), Image.Resampling.BILINEAR)
    return preprocess(square, replace(how, resize_px=how.crop_px))


def _no_margin(image: Image.Image, how: Preprocess) -> FloatArray:
    return preprocess(image, replace(how, resize_px=how.crop_px))


def _nearest(image: Image.Image, how: Preprocess) -> FloatArray:
    """As preprocess does it, but each pixel of the resized photo is one of the photo's."""
    width, height = image.size
    ratio = how.resize_px / min(width, height)
    size = (max(int(width * ratio), how.resize_px), max(int(height * ratio), how.resize_px))
    return preprocess(image.resize(size, Image.Resampling.NEAREST), how)


def _round_long_side(image: Image.Image, how: Preprocess) -> FloatArray:
    """The long side rounded to the nearest pixel instead of down."""
    width, height = image.size
    ratio = how.resize_px / min(width, height)
    size = (round(width * ratio), round(height * ratio))
    return preprocess(image.resize(size, FILTERS[how.interpolation]), how)


def _wrong_layout(image: Image.Image, how: Preprocess) -> FloatArray:
    values = preprocess(image, how)
    return np.ascontiguousarray(values.transpose(1, 2, 0)).reshape(values.shape)


def _turn(image: Image.Image, how: Preprocess) -> FloatArray:
    return np.ascontiguousarray(preprocess(image, how).transpose(0, 2, 1))


MISTAKES = (
    Mistake("the channels are in the order B, G, R", _swap_channels),
    Mistake("the channels are in the order B, G, R, each with the mean and std of its own", _swap_planes),
    Mistake(
        "pixels are fed as 0 to 255, without mean and std",
        _normalized_with((0, 0, 0), (1 / 255, 1 / 255, 1 / 255)),
    ),
    Mistake("pixels are fed as 0 to 1, without mean and std", _normalized_with((0, 0, 0), (1, 1, 1))),
    Mistake(
        "mean and std are 0.5, so pixels are fed as -1 to 1",
        _normalized_with((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ),
    Mistake(
        "mean and std are ImageNet's (0.485 …, 0.229 …)",
        _normalized_with((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    Mistake("the photo is squeezed to a square instead of cropped", _squash),
    Mistake("the photo is resized to the crop, without the margin around it", _no_margin),
    Mistake("the photo is resized to the nearest pixels, without a filter", _nearest),
    Mistake("the long side is rounded to the nearest pixel instead of down", _round_long_side),
    Mistake("the layout is wrong: NHWC values read as NCHW, or the other way round", _wrong_layout),
    Mistake("rows and columns are swapped", _turn),
)


def distance(outputs: FloatArray, target: FloatArray) -> float:
    """Norm of the difference of two (N, K) arrays, over the norm of the target."""
    return float(np.linalg.norm(outputs - target) / max(float(np.linalg.norm(target)), 1e-30))


Run = Callable[[FloatArray], FloatArray]
"""Preprocessed images, float32 (N, 3, H, W) → outputs, float32 (N, K)."""


def find_mistake(
    runs: Sequence[Run], pictures: Sequence[Image.Image], how: Preprocess, target: FloatArray
) -> str | None:
    """Return the mistake that turns what one of `runs` gives for pictures into the target; None if none does."""
    usual = np.stack([preprocess(picture, how) for picture in pictures])
    before = min(distance(run(usual), target) for run in runs)
    found = {}
    for mistake in MISTAKES:
        batch = np.stack([mistake.prepare(picture, how) for picture in pictures])
        found[mistake.name] = min(distance(run(batch), target) for run in runs)
    name = min(found, key=lambda one: found[one])
    return name if found[name] <= min(_CLOSE, before / _NEARER) else None


def find_label_shift(labels: Sequence[str], recorded: Mapping[int, str]) -> int | None:
    """Return by how many lines labels stand below where they belong; None where no shift puts all right.

    Args:
        labels: Of the file, by class.
        recorded: Class → its name when the bundle was written.
    """
    moved = dict(enumerate(labels))
    for shift in sorted(range(-_LONGEST_SHIFT, _LONGEST_SHIFT + 1), key=abs):
        if all(moved.get(c + shift) == name for c, name in recorded.items() if c + shift >= 0):
            return shift
    return None
