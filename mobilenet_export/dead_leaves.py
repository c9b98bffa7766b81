"""Procedural images with a photo's statistics, to calibrate and to compare with where there are no photos.

Dead leaves: discs, ellipses and boxes that hide one another, sizes r drawn from p(r) ∝ r⁻³, so that the power
spectrum falls as 1/f² as that of natural images does. By inversion of the distribution, u uniform in (0, 1):

    r = 1/√(u/r_max² + (1 − u)/r_min²)

Source: Lee, Mumford, Huang, "Occlusion models for natural images", IJCV 41 (2001), section 4.

The same seed gives the same pixels everywhere: random numbers are the raw 64-bit words of PCG64, which numpy
keeps stable, and pixels see only +, −, ×, ÷ and √, which IEEE 754 rounds exactly.
"""

import hashlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mobilenet_export.bundle import replace_folder
from mobilenet_export.errors import UsageError
from mobilenet_export.images import MANIFEST, MANIFEST_SCHEMA, SHORTEST_SIDE_PX, Role
from mobilenet_export.scratch import scratch_folder

SIZE_PX = 256
FEWEST_LEAVES, MOST_LEAVES = 60, 240
JPEG_QUALITY = 90
CALIBRATE_SEEDS = range(64)
CHECK_SEEDS = (
    89,
    104,
    132,
    145,
    168,
    211,
    277,
    306,
    312,
    327,
    333,
    370,
    421,
    456,
    461,
    525,
    535,
    615,
    683,
    700,
    711,
    821,
    853,
    876,
    899,
    950,
    991,
    1037,
    1106,
    1279,
    1331,
    1412,
)
"""Of the seeds 64 to 1499, those with the largest margin between the best and the second class, the smaller of
fp32 V1's and V2's. On other leaves the networks are unsure: half the margins are below 1, and the best class
flips with any change, which would say nothing about it."""
_DRAWN = re.compile(r"leaves_\d{4,}\.jpg")
MANIFEST_HEAD = f"""\
# Written by `python -m mobilenet_export.dead_leaves`; see calibration/README.md.
schema = "{MANIFEST_SCHEMA}"
generator = "mobilenet_export.dead_leaves 1"
"""

Field = NDArray[np.float64]
"""One number per pixel, or with a first axis of 3, one colour."""


class _Dice:
    """Random numbers that no version of numpy changes."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)
        self._stock: list[float] = []

    def field(self, *shape: int) -> Field:
        """Draw float64 from [0, 1): the high 53 bits of each word."""
        words = self._bits.random_raw(math.prod(shape))
        unit: Field = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return unit.reshape(shape)

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw one number from [low, high)."""
        if not self._stock:
            self._stock = self.field(1024).tolist()
        return low + (high - low) * self._stock.pop()

    def chance(self, probability: float) -> bool:
        """Return True that often."""
        return self.number() < probability

    def direction(self) -> tuple[float, float]:
        """Draw a unit vector (x, y) without a sine: a point of the disc, divided by its length."""
        while True:
            x, y = self.number(-1, 1), self.number(-1, 1)
            length = math.sqrt(x * x + y * y)
            if 0.1 < length < 1:
                return x / length, y / length

    def grain(self, *shape: int) -> Field:
        """Draw nearly normal noise of mean 0 and variance 1: the centred sum of a word's 8 bytes."""
        words = self._bits.random_raw(math.prod(shape)).astype("<u8")
        sums = words.view(np.uint8).reshape(*shape, 8).sum(axis=-1, dtype=np.int64)
        normal: Field = (sums - 1020) / math.sqrt(8 * (256**2 - 1) / 12)
        return normal


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What the leaves of one image have in common.

    Attributes:
        palette: (n, 3, 1, 1) colours, 0 to 1, in linear light.
        textures: (3, H, W), coarse and fine clouds and mere grain, around 0.
        softness_px: Width of an edge; near 1 where the lens is sharp.
        shadow: Unit vector (x, y) that shadows fall along.
    """

    palette: Field
    textures: Field
    softness_px: float
    shadow: tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Leaf:
    """One shape: centre and half axes in px, its long axis as a unit vector (x, y), and if it is a box."""

    centre: tuple[float, float]
    half_axes: tuple[float, float]
    axis: tuple[float, float]
    is_box: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Patch:
    """The part of the image that a leaf touches, and there the px along and across its long axis, (h, w)."""

    window: tuple[slice, slice, slice]
    along: Field
    across: Field


def draw(seed: int, size_px: int = SIZE_PX) -> NDArray[np.uint8]:
    """Draw the image of a seed, uint8 (size, size, 3), RGB.

    Raises:
        UsageError: Smaller than 32 px, or the seed is negative.
    """
    if size_px < SHORTEST_SIDE_PX or seed < 0:
        raise UsageError(
            f"cannot draw seed {seed} at {size_px} px", f"the least are seed 0 and {SHORTEST_SIDE_PX} px"
        )
    dice = _Dice(seed)
    scene = _compose(dice, size_px)
    image = _background(dice, scene)
    for radius_px in _radii(dice, size_px):
        _paint(image, _leaf(dice, radius_px, size_px), scene, dice)
    return _develop(_expose(image, dice), dice)


def _compose(dice: _Dice, size_px: int) -> _Scene:
    palette = np.array([_hue(dice) for _ in range(3 + int(dice.number(0, 6)))]).reshape(-1, 3, 1, 1)
    textures = np.stack(
        [_clouds(dice, size_px, 4), _clouds(dice, size_px, 32), 0.35 * dice.grain(size_px, size_px)]
    )
    softness_px = dice.number(0.7, 1.1) if dice.chance(0.8) else dice.number(1.5, 5)
    return _Scene(palette, textures, softness_px, dice.direction())


def _hue(dice: _Dice) -> list[float]:
    """Draw a colour as found outdoors: mostly greyish, and rather orange or blue than green or pink."""
    light = 0.05 + 0.95 * dice.number() * dice.number(0.5, 1)
    warm, green = dice.number(-1, 1), dice.number(-0.5, 1)
    vivid = light * dice.number() ** 2
    red_blue, green_pink = vivid * warm, 0.5 * vivid * green
    return [light + red_blue - green_pink, light + 0.2 * red_blue + green_pink, light - red_blue - green_pink]


def _clouds(dice: _Dice, size_px: int, cells: int) -> Field:
    """Add octaves of smooth noise, each twice as fine and 0.7 as strong, (H, W)."""
    total = np.zeros((size_px, size_px))
    strength = 0.5
    while cells <= size_px:
        total += strength * _enlarge(2 * dice.field(cells + 1, cells + 1) - 1, size_px)
        cells, strength = cells * 2, strength * 0.7
    return total


def _enlarge(grid: Field, size_px: int) -> Field:
    """Interpolate a square grid bilinearly to (size, size)."""
    place = np.arange(size_px) * ((grid.shape[0] - 1) / size_px)
    cell = place.astype(np.int64)
    part = place - cell
    rows = grid[cell] * (1 - part)[:, None] + grid[cell + 1] * part[:, None]
    smooth: Field = rows[:, cell] * (1 - part) + rows[:, cell + 1] * part
    return smooth


def _background(dice: _Dice, scene: _Scene) -> Field:
    """Blend two colours along a line, as sky or ground, with clouds over it, (3, H, W)."""
    size_px = scene.textures.shape[-1]
    across, down = dice.direction()
    steps = np.arange(size_px) / size_px - 0.5
    ramp = np.clip(0.5 + 0.7 * (steps[None, :] * across + steps[:, None] * down), 0, 1)
    ramp = ramp + dice.number(0, 0.6) * scene.textures[0]
    blend: Field = scene.palette[0] + ramp * (scene.palette[1] - scene.palette[0])
    return blend


def _radii(dice: _Dice, size_px: int) -> list[float]:
    """Draw radii in px, p(r) ∝ r⁻³ between two sizes: a busy image has many small leaves, a calm one few."""
    calm = dice.number()
    low, high = size_px * (0.014 + 0.07 * calm * calm), size_px * dice.number(0.3, 0.6)
    part = dice.field(int(FEWEST_LEAVES + (MOST_LEAVES - FEWEST_LEAVES) * (1 - calm)))
    radii: list[float] = (1 / np.sqrt(part / high**2 + (1 - part) / low**2)).tolist()
    return radii


def _leaf(dice: _Dice, radius_px: float, size_px: int) -> _Leaf:
    shape = dice.number()
    stretch = 1.0 if shape < 0.3 else 1 + 5 * dice.number() * dice.number()
    centre = (dice.number(-0.1, 1.1) * size_px, dice.number(-0.1, 1.1) * size_px)
    root = math.sqrt(stretch)
    return _Leaf(centre, (radius_px * root, radius_px / root), dice.direction(), is_box=shape > 0.65)


def _paint(image: Field, leaf: _Leaf, scene: _Scene, dice: _Dice) -> None:
    """Lay one leaf over the image, in place, and its shadow under it."""
    if leaf.half_axes[1] > 6 and dice.chance(0.6):
        _cast_shadow(image, leaf, scene.shadow)
    patch = _patch(leaf, image.shape[-1], scene.softness_px)
    light = _shade(leaf, patch, dice) + _texture(leaf, patch, scene, dice)
    region = image[patch.window]
    region += _cover(leaf, patch, scene.softness_px) * (light * _colour(scene, dice) - region)


def _colour(scene: _Scene, dice: _Dice) -> Field:
    chosen = scene.palette[int(dice.number(0, len(scene.palette)))]
    colour: Field = np.maximum(chosen * dice.number(0.6, 1.4), 0.005)
    return colour


def _shade(leaf: _Leaf, patch: _Patch, dice: _Dice) -> Field:
    """Light a leaf as a plane or a dome, around 1, (h, w)."""
    u, v = patch.along / leaf.half_axes[0], patch.across / leaf.half_axes[1]
    dome = dice.number(-0.1, 0.3)
    slope_u, slope_v = dice.number(-0.4, 0.4) - dome * u, dice.number(-0.4, 0.4) - dome * v
    return 1 + slope_u * u + slope_v * v


def _texture(leaf: _Leaf, patch: _Patch, scene: _Scene, dice: _Dice) -> Field | float:
    """Roughen a leaf by clouds or grain, or stripe it, around 0, (h, w)."""
    kind, strength = dice.number(), dice.number(0.1, 0.8)
    if kind < 0.2:
        return 0.0
    if kind < 0.8:
        rough: Field = strength * scene.textures[int(dice.number(0, 3))][patch.window[1:]]
        return rough
    phase = patch.across / (2 + dice.number(0.05, 0.4) * leaf.half_axes[1])
    stripes: Field = strength * (np.abs(phase - np.floor(phase) - 0.5) - 0.25) * 2
    return stripes


def _cast_shadow(image: Field, leaf: _Leaf, direction: tuple[float, float]) -> None:
    softness_px = 0.5 * leaf.half_axes[1] + 2
    x, y = (c + 0.25 * leaf.half_axes[1] * d for c, d in zip(leaf.centre, direction, strict=True))
    moved = replace(leaf, centre=(x, y))
    patch = _patch(moved, image.shape[-1], softness_px)
    image[patch.window] *= 1 - 0.6 * _cover(moved, patch, softness_px)


def _patch(leaf: _Leaf, size_px: int, margin_px: float) -> _Patch:
    reach = leaf.half_axes[0] + (leaf.half_axes[1] if leaf.is_box else 0.0) + margin_px + 1
    left, top = (min(max(int(c - reach), 0), size_px) for c in leaf.centre)
    right, bottom = (min(max(int(c + reach) + 1, 0), size_px) for c in leaf.centre)
    x = np.arange(left, right)[None, :] - leaf.centre[0]
    y = np.arange(top, bottom)[:, None] - leaf.centre[1]
    window = (slice(None), slice(top, bottom), slice(left, right))
    return _Patch(window, x * leaf.axis[0] + y * leaf.axis[1], y * leaf.axis[0] - x * leaf.axis[1])


def _cover(leaf: _Leaf, patch: _Patch, softness_px: float) -> Field:
    """Return 1 inside, 0 outside, and a ramp of `softness_px` between, by the distance to the edge."""
    long, short = leaf.half_axes
    if leaf.is_box:
        outside_px = np.maximum(np.abs(patch.along) - long, np.abs(patch.across) - short)
    else:
        u, v = patch.along / long, patch.across / short
        outside_px = (np.sqrt(u * u + v * v) - 1) * short
    return np.minimum(np.maximum(0.5 - outside_px / softness_px, 0), 1)


def _expose(image: Field, dice: _Dice) -> Field:
    """Apply a camera: tint, vignette, exposure, and the tone curve x(1 + k)/(x + k) that a display needs."""
    tint = 1 + dice.number(0, 0.4) * (dice.field(3, 1, 1) - 0.5)
    steps = np.arange(image.shape[-1]) / image.shape[-1] - 0.5
    squares = steps * steps
    vignette = 1 - dice.number(0, 0.8) * (squares[:, None] + squares[None, :])
    lit = np.maximum(image, 0) * (tint * dice.number(0.6, 1.4)) * vignette
    knee = dice.number(0.3, 2)
    shown = lit * (1 + knee) / (lit + knee)
    black, white = dice.number(-0.1, 0.1), dice.number(0.85, 1.05)
    levels: Field = (shown - black) / (white - black)
    return levels


def _develop(image: Field, dice: _Dice) -> NDArray[np.uint8]:
    """Blur a few, add grain, and round to 8 bits, (3, H, W) to (H, W, 3)."""
    if dice.chance(0.15):
        image = _blur(_blur(image).transpose(0, 2, 1)).transpose(0, 2, 1)
    rough = dice.number()
    image = image + (0.002 + 0.03 * rough * rough * rough) * dice.grain(*image.shape[1:])
    bytes_ = np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(bytes_.transpose(1, 2, 0))


def _blur(image: Field) -> Field:
    """Filter each column by (1, 2, 1)/4; edges repeat."""
    padded = np.concatenate([image[:, :1], image, image[:, -1:]], axis=1)
    smooth: Field = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return smooth


def encode(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB image as JPEG bytes, without chroma subsampling; they depend on Pillow's libjpeg."""
    buffer = BytesIO()
    Image.fromarray(image).save(
        buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True, progressive=True
    )
    return buffer.getvalue()


def write_set(
    folder: Path,
    seeds: Mapping[Role, Sequence[int]],
    size_px: int = SIZE_PX,
    *,
    force: bool = False,
    advance: Callable[[int], None] = lambda _images: None,
) -> None:
    """Write one image per seed, and the manifest that gives each its role, seed and hash.

    The folder appears whole or not at all.

    Args:
        folder: To write.
        seeds: Of the images for each role.
        size_px: Height and width.
        force: Replace a set that this function wrote.
        advance: Told of each image that is written.

    Raises:
        UsageError: The folder exists already and `force` is not given or it holds what is none of ours; the size is
            under 32 px, a seed is negative, or there are none.
    """
    _check_place(folder, force=force)
    roles = [(role, seed) for role, chosen in seeds.items() for seed in chosen]
    if not roles:
        raise UsageError("cannot draw 0 images", "ask for at least one")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent, ".leaves-") as scratch:
        unfinished = scratch / folder.name
        unfinished.mkdir()
        entries = []
        for role, seed in roles:
            entries.append(_write_image(unfinished, role, seed, size_px))
            advance(1)
        text = MANIFEST_HEAD + "".join(entries)
        (unfinished / MANIFEST).write_text(text, encoding="utf-8", newline="\n")
        replace_folder(folder, unfinished, force=force)


def _check_place(folder: Path, *, force: bool) -> None:
    """Refuse a folder that is there, unless it may be replaced and its manifest is one of ours."""
    if not folder.exists():
        return
    if not force:
        raise UsageError(f"exists already: {folder}", "give --force to replace it, or name another folder")
    manifest = folder / MANIFEST
    if not manifest.is_file() or not manifest.read_text(encoding="utf-8", errors="replace").startswith(
        MANIFEST_HEAD
    ):
        raise UsageError(
            f"{folder} is no set that was drawn, so --force does not delete it", "name another folder"
        )
    added = (path.name for path in folder.iterdir() if path != manifest and not _DRAWN.fullmatch(path.name))
    if name := min(added, default=None):
        raise UsageError(
            f"{folder / name} was not drawn, so --force does not delete it",
            "move it away, or name another folder",
        )


def _write_image(folder: Path, role: Role, seed: int, size_px: int) -> str:
    """Write one image and return its manifest entry."""
    file, data = f"leaves_{seed:04}.jpg", encode(draw(seed, size_px))
    (folder / file).write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return f'\n[[images]]\nfile = "{file}"\nrole = "{role}"\nseed = {seed}\nsha256 = "{sha256}"\n'


def main(arguments: list[str]) -> int:
    """Write the default set to the folder named; return the exit code."""
    try:
        if len(arguments) != 1:
            raise UsageError("one folder is needed", "python -m mobilenet_export.dead_leaves OUT")
        write_set(Path(arguments[0]), {"calibrate": CALIBRATE_SEEDS, "check": CHECK_SEEDS})
    except UsageError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
