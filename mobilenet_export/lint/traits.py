"""One image → the few numbers that the checks need; the pixels are let go of at once.

All is computed from what the network will see, float32 (3, crop, crop), turned back into pixels of 0 to 1:
v·std + mean. So photos, uint8 arrays and preprocessed arrays are looked at alike.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mobilenet_export import images
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import ImageSet, NotNormalizedError
from mobilenet_export.lint.channel_order import ColourSigns, colour_signs
from mobilenet_export.spec import Preprocess

THUMBNAIL_PX = 8
COLOUR_PX = 32


@dataclass(frozen=True, slots=True, eq=False)
class Traits:
    """What is noted of an image that can be used; about 0.5 kB.

    Attributes:
        name: Of the image.
        short_side_px: Before it was resized; None of an array that is preprocessed already.
        digest: Of the preprocessed values.
        lowest: Pixel value, 0 to 1 if the preprocessing is what it is said to be.
        highest: Likewise.
        is_grey: Red, green and blue are equal in every pixel.
        is_constant: All pixels have one colour.
        colours: Which way the colours lean.
        thumbnail: Brightness at 8×8 px less its mean, of length 1; zeros of a constant image. float16 (64,).
    """

    name: str
    short_side_px: int | None
    digest: bytes
    lowest: float
    highest: float
    is_grey: bool
    is_constant: bool
    colours: ColourSigns
    thumbnail: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that cannot be used, and why."""

    name: str
    kind: Literal["unreadable", "value-range"]
    reason: str


def look(image_set: ImageSet, how: Preprocess, name: str) -> Traits | Refused:
    """Read one image and note what it is like.

    Raises:
        UsageError: A preprocessed array of another crop than the network's.
    """
    try:
        picture = image_set.load(name)
        values = images.prepare(picture, how, name)
    except NotNormalizedError as error:
        return Refused(name, "value-range", error.message.removeprefix(f"{name}: "))
    except DamagedInputError as error:
        return Refused(name, "unreadable", error.message.removeprefix(f"{name}: "))
    return traits_of(name, images.short_side_px(picture), values, how)


def traits_of(name: str, short_side_px: int | None, values: FloatArray, how: Preprocess) -> Traits:
    """Note what preprocessed values, float32 (3, H, W), are like."""
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (how.mean, how.std))
    unit = values * std + mean
    pixels = np.rint(unit * 255)
    return Traits(
        name=name,
        short_side_px=short_side_px,
        digest=hashlib.blake2b(values.tobytes(), digest_size=16).digest(),
        lowest=float(unit.min()),
        highest=float(unit.max()),
        is_grey=bool((pixels == pixels[:1]).all()),
        is_constant=bool((pixels == pixels[:, :1, :1]).all()),
        colours=colour_signs(shrink(unit, COLOUR_PX)),
        thumbnail=_thumbnail(unit),
    )


def shrink(values: FloatArray, side_px: int) -> FloatArray:
    """Average (C, H, W) over blocks to (C, side, side), or leave an axis that is shorter as it is."""
    for axis in (1, 2):
        length = values.shape[axis]
        starts = np.arange(min(side_px, length)) * length // min(side_px, length)
        sizes = np.diff(np.append(starts, length)).astype(np.float32)
        sums = np.add.reduceat(values, starts, axis=axis)
        values = np.asarray(sums / (sizes[:, None] if axis == 1 else sizes), np.float32)
    return values


def _thumbnail(unit: FloatArray) -> bytes:
    grey = shrink(unit.mean(axis=0, keepdims=True), THUMBNAIL_PX).ravel()
    grey = grey - grey.mean()
    length = float(np.linalg.norm(grey))
    unit_length = grey / np.float32(length) if length > 1e-3 else np.zeros_like(grey)
    return bytes(unit_length.astype(np.float16))
