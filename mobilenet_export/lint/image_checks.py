"""Checks over the traits of all images, as a table of functions; each yields what it finds."""

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np

from mobilenet_export.findings import Finding
from mobilenet_export.images import MINIMUM_IMAGES
from mobilenet_export.lint.channel_order import looks_swapped
from mobilenet_export.lint.traits import Refused, Traits
from mobilenet_export.spec import Preprocess

NEAR_COPY_CORRELATION = 0.98
"""Of two thumbnails. Among 1,000 ImageNet photos no two reach 0.95; of 200 of them that were scaled by ½, saved
at JPEG quality 30 or at 0.7 of their contrast, every one exceeds 0.998 against its original."""
MANY_GREY = 0.25
"""Share of images. 2.5 % of 1,000 ImageNet photos are grey."""
_BLOCK = 32
_RANGE_SLACK = 0.02
_NARROW = (0.1, 0.9)
"""Of 100,000 random draws of 8 from 1,000 ImageNet photos none stays within."""
_NEARLY_BLACK = 8 / 255


@dataclass(frozen=True, slots=True)
class Looks:
    """What one pass over a set noted.

    Attributes:
        traits: Of the images that can be used, in the set's order.
        refused: The others.
        how: The preprocessing that they were looked at with.
    """

    traits: Sequence[Traits]
    refused: Sequence[Refused]
    how: Preprocess

    @property
    def are_preprocessed(self) -> bool:
        """Whether they came as an array of floats."""
        return bool(self.traits) and self.traits[0].short_side_px is None


def check_images(looks: Looks) -> tuple[Finding, ...]:
    """Return what is wrong with a set of images, or suspected to be."""
    return tuple(finding for check in _CHECKS for finding in check(looks))


def _unreadable(looks: Looks) -> Iterator[Finding]:
    files = tuple(f"{image.name} ({image.reason})" for image in looks.refused if image.kind == "unreadable")
    if files:
        problem = f"{_count(files)} cannot be read"
        yield Finding("error", "unreadable", problem, "replace or remove what cannot be read", files)


def _not_normalized(looks: Looks) -> Iterator[Finding]:
    refused = [image for image in looks.refused if image.kind == "value-range"]
    if refused:
        problem = f"{_count(refused)} with other values than the network takes ({refused[0].reason})"
        hint = "normalize to (x/255 - mean)/std, or save uint8 (N, H, W, 3)"
        yield Finding("error", "value-range", problem, hint, tuple(image.name for image in refused))


def _too_few(looks: Looks) -> Iterator[Finding]:
    elsewhere = any(image.kind == "value-range" for image in looks.refused)  # is said already
    if len(looks.traits) < MINIMUM_IMAGES and not elsewhere:
        problem = f"{_count(looks.traits)} can be used, {MINIMUM_IMAGES} are needed"
        yield Finding("error", "too-few", problem, "add images; 96 are enough")
        return
    telling = {image.digest for image in looks.traits if not image.is_constant}
    if len(telling) < MINIMUM_IMAGES <= len(looks.traits):
        problem = (
            f"{_count(telling)} of {len(looks.traits):,} differ and show anything, {MINIMUM_IMAGES} must"
        )
        yield Finding("error", "too-few", problem, "give photos of what the network will see; 96 are enough")


def _value_range(looks: Looks) -> Iterator[Finding]:
    """Look at the set's extremes: photos together reach nearly black and nearly white."""
    if not looks.traits or all(image.is_constant for image in looks.traits):
        return
    lowest = min(image.lowest for image in looks.traits)
    highest = max(image.highest for image in looks.traits)
    as_pixels = f"as pixels they reach from {255 * lowest:.0f} to {255 * highest:.0f} of 0 to 255"
    if looks.are_preprocessed and (lowest < -_RANGE_SLACK or highest > 1 + _RANGE_SLACK):
        problem = f"the values were normalized with another mean or std: {as_pixels}"
    elif looks.are_preprocessed and lowest > _NARROW[0] and highest < _NARROW[1]:
        problem = f"the values look scaled to 0 to 1 or -1 to 1, not normalized: {as_pixels}"
    elif highest < _NEARLY_BLACK:
        problem = f"all images are nearly black: {as_pixels}"
    else:
        return
    yield Finding("warning", "value-range", problem, _range_hint(looks))


def _range_hint(looks: Looks) -> str:
    if not looks.are_preprocessed:
        return "if they hold 0 to 1, multiply by 255 before saving them as 8 bits"
    mean, std = (",".join(f"{x:g}" for x in numbers) for numbers in (looks.how.mean, looks.how.std))
    return f"this network wants (x/255 - mean)/std with mean {mean} and std {std}; or save uint8 (N, H, W, 3)"


def _channel_order(looks: Looks) -> Iterator[Finding]:
    if looks_swapped([image.colours for image in looks.traits]):
        problem = "red and blue look swapped (BGR): more blue than red, and cyan greens, over the whole set"
        hint = "if OpenCV read them: cv2.cvtColor(image, cv2.COLOR_BGR2RGB); else look at some"
        yield Finding("warning", "channel-order", problem, hint)


def _constant(looks: Looks) -> Iterator[Finding]:
    files = tuple(image.name for image in looks.traits if image.is_constant)
    if files:
        every = " (all there are)" if len(files) == len(looks.traits) else ""
        problem = f"{_count(files)} of one colour{every}"
        yield Finding(
            "warning", "constant", problem, "remove them: ranges taken from them fit nothing else", files
        )


def _grey(looks: Looks) -> Iterator[Finding]:
    files = tuple(image.name for image in looks.traits if image.is_grey and not image.is_constant)
    if len(files) > MANY_GREY * len(looks.traits):
        problem = f"{len(files):,} of {_count(looks.traits)} are grey in every pixel"
        yield Finding(
            "warning", "grey", problem, "if the camera sees colour, calibrate with colour images", files
        )


def _small(looks: Looks) -> Iterator[Finding]:
    side = looks.how.crop_px
    files = tuple(i.name for i in looks.traits if i.short_side_px is not None and i.short_side_px < side)
    if files:
        problem = (
            f"{_count(files)} smaller than the {side} px that the network takes, so blurred by enlarging"
        )
        yield Finding("warning", "small", problem, f"use images of {looks.how.resize_px} px and more", files)


def _duplicates(looks: Looks) -> Iterator[Finding]:
    first: dict[bytes, str] = {}
    files = []
    for image in looks.traits:
        original = first.setdefault(image.digest, image.name)
        if original != image.name:
            files.append(f"{image.name} = {original}")
    if files:
        problem = f"{_count(files)} with the same pixels as another"
        yield Finding("warning", "duplicate", problem, "remove the copies: they count twice", tuple(files))


def _near_copies(looks: Looks) -> Iterator[Finding]:
    seen: dict[bytes, Traits] = {image.digest: image for image in reversed(looks.traits)}
    different = [image for image in reversed(seen.values()) if not image.is_constant]
    files = tuple(f"{copy} ~ {original}" for original, copy in _near_pairs(different))
    if files:
        problem = f"{_count(files)} nearly the same as another"
        hint = "keep one of each, unless that is what the camera will see"
        yield Finding("warning", "near-duplicate", problem, hint, files)


def _near_pairs(traits: Sequence[Traits]) -> Iterator[tuple[str, str]]:
    """Yield each image that nearly equals an earlier one, after the first such; blockwise, for memory's sake."""
    if not traits:
        return
    packed = b"".join(image.thumbnail for image in traits)
    thumbnails = np.frombuffer(packed, np.float16).reshape(len(traits), -1).astype(np.float32)
    for start in range(0, len(traits), _BLOCK):
        block = thumbnails[start : start + _BLOCK]
        likeness = block @ thumbnails[: start + len(block)].T
        earlier = np.arange(likeness.shape[1]) < np.arange(start, start + len(block))[:, None]
        near = (likeness > NEAR_COPY_CORRELATION) & earlier
        for row in np.flatnonzero(near.any(axis=1)):
            yield traits[int(near[row].argmax())].name, traits[start + int(row)].name


def _count(images: Sized) -> str:
    return f"{len(images):,} {'image' if len(images) == 1 else 'images'}"


_CHECKS: tuple[Callable[[Looks], Iterator[Finding]], ...] = (
    _unreadable,
    _not_normalized,
    _too_few,
    _value_range,
    _channel_order,
    _constant,
    _grey,
    _small,
    _duplicates,
    _near_copies,
)
