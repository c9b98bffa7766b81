"""Photos to float32 batches: the one preprocessing, used to calibrate, to check, and on the device.

A pixel x of 0 to 255 becomes (x/255 − mean)/std, after the short side was resized and the centre cropped.
Only numpy and Pillow are needed. Nothing is repaired: a photo that cannot be used is refused with a reason.
"""

import csv
import hashlib
import os
import warnings
import zipfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO, StringIO
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mobilenet_export.documents import parse_toml
from mobilenet_export.errors import DamagedInputError, MissingError, MnxError, UsageError
from mobilenet_export.graph import FloatArray
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import Preprocess

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What Pillow may open; the rest of its list (EPS runs Ghostscript) stays shut."""

SHORTEST_SIDE_PX = 32
LARGEST_ASPECT_RATIO = 20
MOST_PIXELS = 89_478_485
"""A quarter of a GiB in RGB. Source: Pillow's `Image.MAX_IMAGE_PIXELS`."""
MOST_MEMBER_BYTES = 4 * MOST_PIXELS + 2**20
"""Of one file in a zip: the largest picture without compression, and its header."""
MOST_NPZ_BYTES = 2**31
"""Of a .npz, unpacked."""
MOST_OF_REACH = 8
"""How many times farther from 0 than any pixel's (x/255 − mean)/std a preprocessed array may reach. One that
was never normalized reaches 255, about 100 times as far."""

STEPS = (
    "apply the EXIF orientation; convert to 8-bit RGB",
    "resize the short side to resize_px with Pillow's filter (antialiased); long side = int(resize_px*long/short)",
    "crop the centre to crop_px: top = int(round((height - crop_px)/2.0)), left likewise",
    "(x/255 - mean)/std per channel R, G, B in float32, then the file's layout",
)
"""The preprocessing in words, for whoever has to write it again."""
MINIMUM_IMAGES = 8
MANIFEST = "manifest.toml"
MANIFEST_SCHEMA = "mobilenet-export/image-set/1"
WORKERS = 2

Picture = Image.Image | FloatArray
"""An RGB image yet to be preprocessed, or float32 (3, crop, crop) that already is."""
Role = Literal["calibrate", "check"]
Batch = tuple[tuple[str, ...], FloatArray]
"""Names of n images and their values, float32 (n, 3, H, W)."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How each EXIF orientation is undone. Source: EXIF 2.32, tag 0x0112."""


class NotNormalizedError(DamagedInputError):
    """A preprocessed array holds values that no normalized pixel can have, such as 255."""


# One photo


def open_image(source: Path | BinaryIO, name: str) -> Image.Image:
    """Decode one photo to 8-bit RGB, upright.

    EXIF orientation is applied. Grey, palette and CMYK are converted as Pillow converts them, colour profiles
    aside; 16-bit grey v becomes v/257, rounded. Of an animation the first frame is taken.

    Args:
        source: File, or binary stream at its start.
        name: What error messages call it.

    Raises:
        DamagedInputError: Not an image, truncated, more than `MOST_PIXELS` px (found before decoding), a
            short side under 32 px, longer than 20:1, not fully opaque, or 32 bits a channel.
    """
    if isinstance(source, Path):
        with _decoding(name), source.open("rb") as stream:
            return open_image(stream, name)
    # Not undone, as undoing would race with filters of other threads. Pillow warns of what is refused here or
    # harmless.
    warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
    with _decoding(name):
        image = Image.open(source, formats=FORMATS)
        _check_size(image.size, name)
        image.load()
        return _to_rgb(_upright(image), name)


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Turn what Pillow or zipfile raises into a refusal; for malformed files that may be of any type."""
    try:
        yield
    except MnxError:
        raise
    except UnidentifiedImageError:
        raise _refusal(name, "not an image", f"the formats are {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise _refusal(name, f"more than {MOST_PIXELS:,} px", "scale it down first") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise _refusal(name, f"cannot be read: {reason}", "replace the file or leave it out") from None
    except Exception as error:
        reason = f"cannot be decoded: {error or type(error).__name__}"
        raise _refusal(name, reason, "replace the file or leave it out") from error


def _refusal(name: str, reason: str, hint: str) -> DamagedInputError:
    return DamagedInputError(f"{name}: {reason}", hint)


def _check_size(size_px: tuple[int, int], name: str) -> None:
    width, height = size_px
    short, long = min(size_px), max(size_px)
    if width * height > MOST_PIXELS:
        raise _refusal(name, f"{width}×{height} is more than {MOST_PIXELS:,} px", "scale it down first")
    if short < SHORTEST_SIDE_PX:
        reason = f"{width}×{height} px: the short side is under {SHORTEST_SIDE_PX} px"
        raise _refusal(name, reason, "use photos; 256 px and more is best")
    if long > LARGEST_ASPECT_RATIO * short:
        reason = f"{width}×{height} px is longer than {LARGEST_ASPECT_RATIO}:1"
        raise _refusal(name, reason, "cut the part out that shows the object")


def _upright(image: Image.Image) -> Image.Image:
    turn = _UPRIGHT.get(image.getexif().get(0x0112, 1))
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if _may_be_transparent(image):
        return _drop_opaque_alpha(image, name)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _scale_16_bit(image).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "integers" if image.mode == "I" else "floats"
        raise _refusal(
            name, f"holds 32-bit {kind}, which have no white point", "save it with 8 bits a channel"
        )
    return image if image.mode == "RGB" else image.convert("RGB")


def _may_be_transparent(image: Image.Image) -> bool:
    """As `has_transparency_data` says, which the Pillow 9.4 of Debian 12 does not have."""
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _drop_opaque_alpha(image: Image.Image, name: str) -> Image.Image:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    if rgba.getchannel("A").getextrema() != (255, 255):
        raise _refusal(
            name, "is partly transparent", "flatten it first, onto the background it will be seen on"
        )
    return rgba.convert("RGB")


def _scale_16_bit(image: Image.Image) -> Image.Image:
    """Map 0 to 65535 onto 0 to 255; 65535 = 255·257, and Pillow's own conversion would clip at 255."""
    wide = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((wide + 128) // 257).astype(np.uint8))


def preprocess(image: Image.Image, how: Preprocess) -> FloatArray:
    """Resize the short side, crop the centre, normalize: RGB image → float32 (3, crop, crop).

    The long side becomes int(resize·long/short) px; the filter is antialiased. Arithmetic is in float32.

    Raises:
        UsageError: The crop is larger than the resized short side.

    Source: torchvision 0.29, `transforms.functional`: `_compute_resized_output_size`, `resize` (PIL),
    `center_crop`, `to_tensor`, `normalize`.
    """
    if how.crop_px > how.resize_px:
        problem = f"a crop of {how.crop_px} px does not fit a short side of {how.resize_px} px"
        raise UsageError(problem, "set preprocess.resize_px to at least the crop")
    resized = image.resize(_resized_size(image.size, how.resize_px), FILTERS[how.interpolation])
    left, top = (round((side_px - how.crop_px) / 2.0) for side_px in resized.size)
    cropped = resized.crop((left, top, left + how.crop_px, top + how.crop_px))
    unit = np.asarray(cropped, dtype=np.float32) / np.float32(255)
    normalized = (unit - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(normalized.transpose(2, 0, 1))


def _resized_size(size_px: tuple[int, int], short_px: int) -> tuple[int, int]:
    width, height = size_px
    if width <= height:
        return short_px, int(short_px * height / width)
    return int(short_px * width / height), short_px


# Many photos


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Named images, none of them read before it is asked for.

    Attributes:
        origin: The folder or file, for messages.
        names: In a fixed order; of a folder or zip, the relative paths, sorted.
        load: Reads one image by its name; may be called from several threads. Raises DamagedInputError.
        roles: Of a set with a manifest: what each image is for. Else empty.
    """

    origin: str
    names: tuple[str, ...]
    load: Callable[[str], Picture] = field(repr=False)
    roles: Mapping[str, Role] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path) -> "ImageSet":
        """List the images of a folder or zip (nested or flat), or of a .npy or .npz array.

        uint8 (N, H, W, 3) are images; float32 (N, 3, crop, crop) are preprocessed ones, used as they are. A
        .npy is mapped, not read; a .npz is read whole. Hidden files are left out.

        Raises:
            UsageError: There is no such path, or it is of no kind that holds images.
            MissingError: A folder may not be read.
            DamagedInputError: No images in it, a damaged archive, another shape or dtype, or files that are
                not those of the folder's manifest.
        """
        if not path.exists():
            raise UsageError(f"no such file or folder: {path}", "give a folder, .zip, .npy or .npz of images")
        kind = "folder" if path.is_dir() else path.suffix.lower()
        if kind not in _OPENERS:
            hint = "give a folder, .zip, .npy or .npz; of a single photo, the folder it is in"
            raise UsageError(f"{path}: not a set of images", hint)
        image_set = _OPENERS[kind](path)
        if not image_set.names:
            raise DamagedInputError(f"{path}: no images in it", "looked for " + " ".join(SUFFIXES))
        return image_set

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, names: Iterable[str]) -> "ImageSet":
        """Return the set of these images only, in the order given."""
        return replace(self, names=tuple(names))


def save_crop(image_set: ImageSet, name: str, box_px: tuple[int, int, int, int], path: Path) -> None:
    """Write a part of an image, (left, top, right, bottom), as PNG."""
    picture = image_set.load(name)
    if not isinstance(picture, Image.Image):
        raise TypeError(f"{name} is preprocessed, so it is no picture any more")
    picture.crop(box_px).save(path, "PNG")


def batches(image_set: ImageSet, how: Preprocess, size: int) -> Iterator[Batch]:
    """Yield names and float32 (n, 3, crop, crop) values, n = `size` but for the last batch.

    Two threads decode about one batch ahead, so memory does not grow with the number of images. The order is
    the set's.

    Raises:
        DamagedInputError: An image cannot be used, or a preprocessed array was not normalized; the batches
            before it were yielded.
        UsageError: A preprocessed array of another crop.
    """
    names: list[str] = []
    values: list[FloatArray] = []
    read = partial(_read, image_set, how)
    with closing(prefetch(read, image_set.names, ahead=max(size, WORKERS))) as images:
        for name, image in zip(image_set.names, images, strict=True):
            names.append(name)
            values.append(image)
            if len(names) == size:
                yield tuple(names), np.stack(values)
                names, values = [], []
    if names:
        yield tuple(names), np.stack(values)


def _read(image_set: ImageSet, how: Preprocess, name: str) -> FloatArray:
    return prepare(image_set.load(name), how, name)


def prepare(picture: Picture, how: Preprocess, name: str) -> FloatArray:
    """Return what the network sees of an image, float32 (3, crop, crop).

    Raises:
        NotNormalizedError: A preprocessed array whose values no normalized pixel can have.
        UsageError: A preprocessed array of another crop.
    """
    if isinstance(picture, Image.Image):
        return preprocess(picture, how)
    _check_preprocessed(picture, how, name)
    return picture


def short_side_px(picture: Picture) -> int | None:
    """Return a picture's short side; None of an array, whose size was changed before it came here."""
    return min(picture.size) if isinstance(picture, Image.Image) else None


def _check_preprocessed(values: FloatArray, how: Preprocess, name: str) -> None:
    if values.shape != (3, how.crop_px, how.crop_px):
        problem = f"the array was preprocessed for {values.shape[-1]} px; the model takes {how.crop_px} px"
        raise UsageError(problem, "make the array again, or give the photos themselves")
    reach = max(max(mean, 1 - mean) / std for mean, std in zip(how.mean, how.std, strict=True))
    most = float(np.abs(values).max())
    if most > MOST_OF_REACH * reach:
        reason = f"values reach {most:.4g}, those of a photo {reach:.3g}: not normalized"
        hint = "normalize to (x/255 - mean)/std, or save uint8 (N, H, W, 3)"
        raise NotNormalizedError(f"{name}: {reason}", hint)


def prefetch(function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int) -> Generator[_Result]:
    """Yield `function(item)` in order while two threads work up to `ahead` items in advance.

    An error of the function is raised in its item's place; items after it are given up.
    """
    pending: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="images") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


# Where images come from


def _open_folder(folder: Path) -> ImageSet:
    names = _list_folder(folder)
    return ImageSet(str(folder), names, partial(_load_file, folder), _read_manifest(folder, names))


def _list_folder(folder: Path) -> tuple[str, ...]:
    """Walk through links too, but into no folder twice."""
    names: list[str] = []
    seen: set[Path] = set()
    try:
        for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
            root = Path(place)
            folders[:] = [] if root.resolve() in seen else sorted(folders)
            names += [
                (root / file).relative_to(folder).as_posix() for file in files if root.resolve() not in seen
            ]
            seen.add(root.resolve())
    except OSError as error:
        raise MissingError(f"{error.filename}: {error.strerror}", "make the folder readable") from None
    return tuple(sorted(name for name in names if _is_image(name)))


def _raise(error: OSError) -> None:
    raise error


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _load_file(folder: Path, name: str) -> Picture:
    return open_image(folder / name, name)


def _open_zip(path: Path) -> ImageSet:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DamagedInputError(f"{path}: not a readable zip: {error}", "pack it again") from None
    members = {info.filename: info for info in archive.infolist() if _is_image(info.filename)}
    if any(info.flag_bits & 0x1 for info in members.values()):
        raise DamagedInputError(f"{path}: the zip is encrypted", "unpack it and give the folder")
    return ImageSet(str(path), tuple(sorted(members)), partial(_load_member, archive, members))


def _load_member(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], name: str) -> Picture:
    if members[name].file_size > MOST_MEMBER_BYTES:
        raise _refusal(name, f"{members[name].file_size:,} bytes unpacked", "scale it down first")
    with _decoding(name):
        data = archive.read(members[name])
    return open_image(BytesIO(data), name)


def _open_array(path: Path) -> ImageSet:
    array = _read_array(path)
    if 0 in array.shape:  # else a header alone could stand for any number of images
        raise DamagedInputError(f"{path}: holds no pixels: {tuple(array.shape)}", "make the array again")
    is_images = array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] == 3
    is_batch = array.dtype == np.float32 and array.ndim == 4 and array.shape[1] == 3
    if not is_images and not (is_batch and array.shape[2] == array.shape[3]):
        found = f"{path}: holds {array.dtype} {tuple(array.shape)}"
        raise DamagedInputError(found, "wanted uint8 (N, H, W, 3) or float32 (N, 3, crop, crop)")
    names = tuple(str(index) for index in range(len(array)))
    return ImageSet(str(path), names, partial(_load_row, array))


def _read_array(path: Path) -> NDArray[Any]:
    try:
        if path.suffix.lower() == ".npy":
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            names = ["images"] if "images" in archive.files else archive.files
            if len(names) == 1:
                _check_unpacked(archive.zip)
                return np.asarray(archive[names[0]])
    except Exception as error:  # numpy raises errors of any type for damaged files
        hint = "save a plain array with numpy.save or numpy.savez; pickled objects are never loaded"
        raise DamagedInputError(f"{path}: not a readable array: {error}", hint) from None
    found = ", ".join(names) or "none"
    raise DamagedInputError(f"{path}: holds several arrays or none: {found}", "name the one meant `images`")


def _check_unpacked(archive: zipfile.ZipFile) -> None:
    total = sum(info.file_size for info in archive.infolist())
    if total > MOST_NPZ_BYTES:
        raise ValueError(f"it unpacks to {total:,} bytes, and a .npz is read whole; a .npy may be larger")


def _load_row(array: NDArray[Any], name: str) -> Picture:
    row = np.array(array[int(name)])
    if row.dtype == np.uint8:
        _check_size((row.shape[1], row.shape[0]), name)
        return Image.fromarray(row)
    if not np.isfinite(row).all():
        raise _refusal(name, "holds infinity or not-a-number", "make the array again")
    return row


_OPENERS: dict[str, Callable[[Path], ImageSet]] = {
    "folder": _open_folder,
    ".zip": _open_zip,
    ".npy": _open_array,
    ".npz": _open_array,
}


def _read_manifest(folder: Path, names: tuple[str, ...]) -> dict[str, Role]:
    """Return the roles that the folder's manifest gives, after checking every file against its hash."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}
    try:
        table = parse_toml(path.read_bytes())
        if table.get("schema") != MANIFEST_SCHEMA:
            return {}
        rows = [
            tuple(_text_in(entry, name) for name in ("file", "sha256", "role")) for entry in table["images"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedInputError(f"{path}: not a readable manifest: {error}", _MEND_MANIFEST) from None
    _check_manifest(folder, names, {file: sha256 for file, sha256, _ in rows})
    roles: dict[str, Role] = {}
    for file, _, role in rows:
        if role not in ("calibrate", "check"):
            raise DamagedInputError(f"{path}: a role is neither calibrate nor check", _MEND_MANIFEST)
        roles[file] = "calibrate" if role == "calibrate" else "check"
    return roles


def _text_in(entry: Mapping[str, Any], name: str) -> str:
    if not isinstance(entry[name], str):
        raise TypeError(f"{name} of an image is not text")
    return str(entry[name])


_MEND_MANIFEST = f"write the set again, or remove {MANIFEST} to use the folder as it is"


def _check_manifest(folder: Path, names: tuple[str, ...], hashes: Mapping[str, str]) -> None:
    for name in sorted(set(names) ^ set(hashes)):
        problem = "is not in the manifest" if name in names else "is in the manifest but not in the folder"
        raise DamagedInputError(f"{folder / name}: {problem}", _MEND_MANIFEST)
    for name, sha256 in hashes.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256:
            raise DamagedInputError(
                f"{folder / name}: changed since the manifest was written", _MEND_MANIFEST
            )


def default_set() -> tuple[ImageSet, ImageSet]:
    """Return the shipped procedural images, those to calibrate with and those to check with.

    Raises:
        MissingError: The installation is incomplete.
        DamagedInputError: A file is not what its manifest says.
    """
    image_set = ImageSet.open(shipped_path("calibration", "default"))
    return split(image_set, len(image_set), len(image_set), seed=0)


# Which images to use


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that cannot be used, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Images to use, all of them readable, and those passed over."""

    calibrate: ImageSet
    check: ImageSet
    unreadable: tuple[Unreadable, ...]


def choose(
    image_set: ImageSet,
    calibrate: int,
    check: int,
    seed: int,
    advance: Callable[[int], None] = lambda _images: None,
) -> Choice:
    """Choose readable images to calibrate and to check with; an unreadable one gives its place to the next.

    Only as many are decoded as are asked for, and the unreadable ones among them. `advance` is told of each that
    could be read.

    Raises:
        DamagedInputError: Fewer than `MINIMUM_IMAGES` are readable (or than asked for, if that is less), or the
            set's manifest has none of a role that is asked for.
    """
    ordered = image_set.subset(_shuffle(image_set.names, seed))
    pools = [(ordered, calibrate + check)]
    if image_set.roles:
        pools = [_pool(ordered, "calibrate", calibrate), _pool(ordered, "check", check)]
    found = [readable(pool, count, advance) for pool, count in pools]
    unreadable = tuple(image for _, passed_over in found for image in passed_over)
    usable = image_set.subset(name for pool, _ in found for name in pool.names)
    if len(usable) < min(MINIMUM_IMAGES, calibrate + check):
        raise _too_few(image_set, len(usable), unreadable)
    return Choice(*split(usable, calibrate, check, seed), unreadable)


def _pool(image_set: ImageSet, role: Role, count: int) -> tuple[ImageSet, int]:
    pool = _with_role(image_set, role)
    if count and not len(pool):
        problem = f"{image_set.origin}: its manifest has no image to {role} with"
        raise DamagedInputError(problem, f"give another set, or remove {MANIFEST} to use the folder as it is")
    return pool, count


def _too_few(image_set: ImageSet, count: int, unreadable: Sequence[Unreadable]) -> DamagedInputError:
    first = "; ".join(f"{image.name}: {image.reason}" for image in unreadable[:3])
    message = (
        f"{image_set.origin}: {count} of {len(image_set)} images can be used, {MINIMUM_IMAGES} are needed"
    )
    hint = "add images or mend those" if first else "add images; 96 are enough, and 64 calibrate"
    return DamagedInputError(message + (f" ({first})" if first else ""), hint)


def readable(
    image_set: ImageSet, count: int, advance: Callable[[int], None] = lambda _images: None
) -> tuple[ImageSet, tuple[Unreadable, ...]]:
    """Decode images in order until `count` could be read; return those, and the ones that could not."""
    good: list[str] = []
    bad: list[Unreadable] = []
    with closing(prefetch(partial(_probe, image_set), image_set.names, ahead=WORKERS)) as probes:
        for name, reason in zip(image_set.names, probes if count else (), strict=False):
            if reason is None:
                good.append(name)
                advance(1)
            else:
                bad.append(Unreadable(name, reason))
            if len(good) == count:
                break
    return image_set.subset(good), tuple(bad)


def _probe(image_set: ImageSet, name: str) -> str | None:
    """Return why an image cannot be read, or None."""
    try:
        image_set.load(name)
    except DamagedInputError as error:
        return error.message.removeprefix(f"{name}: ")
    return None


def split(image_set: ImageSet, calibrate: int, check: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Draw two disjoint sets, the same ones for the same names and seed in whatever order they are listed.

    Where there are fewer images than asked for, one third of them, at least one, is kept for checking. Roles
    that a manifest gives are kept.
    """
    ordered = image_set.subset(_shuffle(image_set.names, seed))
    if image_set.roles:
        first, second = _with_role(ordered, "calibrate"), _with_role(ordered, "check")
        return first.subset(first.names[:calibrate]), second.subset(second.names[:check])
    count = len(ordered)
    check = min(check, max(1, count // 3, count - calibrate))
    return ordered.subset(ordered.names[check:][:calibrate]), ordered.subset(ordered.names[:check])


def _shuffle(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _with_role(image_set: ImageSet, role: Role) -> ImageSet:
    return image_set.subset(name for name in image_set.names if image_set.roles[name] == role)


# Which class an image shows


@dataclass(frozen=True, slots=True)
class LabelRow:
    """One row of a labels file."""

    line: int
    file: str
    label: int


def read_labels_csv(path: Path) -> tuple[LabelRow, ...]:
    """Read rows of `file,label`, label being a class index; a first row that says so is skipped.

    A row that is there twice counts once.

    Raises:
        UsageError: There is no such file.
        DamagedInputError: It is not UTF-8 CSV, a row is malformed, or two rows give a file different labels.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(StringIO(text, newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"no such file: {path}", "give a CSV of file,label") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DamagedInputError(f"{path}: not a readable CSV file: {error}", "save it as UTF-8 CSV") from None
    if rows and [cell.strip().lower() for cell in rows[0][1]] == ["file", "label"]:
        rows = rows[1:]
    if not rows:
        raise DamagedInputError(f"{path}: no rows in it", "a row is file,label; label is a class index")
    labels: dict[str, LabelRow] = {}
    for line, cells in rows:
        row = _parse_row(path, line, cells)
        first = labels.setdefault(row.file, row)
        if first.label != row.label:
            lines = f"{first.label} in line {first.line}, but {row.label} in line {line}"
            raise DamagedInputError(f"{path}: {row.file} is class {lines}", "keep the row that is right")
    return tuple(labels.values())


def _parse_row(path: Path, line: int, row: list[str]) -> LabelRow:
    cells = [cell.strip() for cell in row]
    if len(cells) != 2 or not cells[0] or not _is_index(cells[1]):
        hint = "a row is file,label; label is a class index, counted from 0"
        raise DamagedInputError(
            f"{path}, line {line}: {','.join(row)!r} is not a file and a class index", hint
        )
    return LabelRow(line, cells[0], int(cells[1]))


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def labelled(
    image_set: ImageSet, labels_csv: Path | None, class_count: int, class_names: Sequence[str]
) -> dict[str, int]:
    """Return the class index of each labelled image, by name; of none where nothing says it.

    With a labels file, from that; images that it leaves out have no label, and rows without an image are left
    out (`rows_without_image` tells which). Else from the folders that the
    images lie in, if each is named by a class index or a class name (case, and `_` for a space, aside). If no
    folder names a class, there are no labels.

    Raises:
        UsageError: There is no such labels file.
        DamagedInputError: A row names no class, or none of the rows an image; some folders name classes and
            others do not; or a folder's name is that of two classes.
    """
    if labels_csv is not None:
        rows = read_labels_csv(labels_csv)
        known = set(image_set.names)
        _check_rows(labels_csv, rows, known, class_count)
        return {row.file: row.label for row in rows if row.file in known}
    parents = {name: PurePosixPath(name).parent.name for name in image_set.names}
    classes = _class_indices(class_count, class_names)
    labels = {folder: classes.get(_fold(folder), ()) for folder in sorted(set(parents.values()))}
    if not any(labels.values()):
        return {}
    for folder, indices in labels.items():
        _check_folder(image_set.origin, folder, indices)
    return {name: labels[folder][0] for name, folder in parents.items()}


def rows_without_image(image_set: ImageSet, labels_csv: Path) -> tuple[LabelRow, ...]:
    """Return the rows of a labels file whose file is not among the images.

    Raises:
        UsageError, DamagedInputError: As `read_labels_csv`.
    """
    known = set(image_set.names)
    return tuple(row for row in read_labels_csv(labels_csv) if row.file not in known)


def _check_rows(path: Path, rows: Sequence[LabelRow], known: set[str], class_count: int) -> None:
    for row in rows:
        if row.label >= class_count:
            problem = f"{path}, line {row.line}: class {row.label} is not within 0 to {class_count - 1}"
            raise DamagedInputError(
                problem, "count classes from 0; a label file with a background class is one off"
            )
    if rows and not any(row.file in known for row in rows):
        hint = "write each file's path relative to the images' folder, with /"
        raise DamagedInputError(f"{path}, line {rows[0].line}: no image {rows[0].file}, nor of any row", hint)


def _class_indices(class_count: int, class_names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Map what a folder may be called to the classes meant; ImageNet has two `crane` and two `maillot`."""
    found: dict[str, set[int]] = {str(index): {index} for index in range(class_count)}
    for index, name in enumerate(class_names):
        found.setdefault(_fold(name), set()).add(index)
    return {name: tuple(sorted(indices)) for name, indices in found.items()}


def _fold(name: str) -> str:
    """Spell a class name or folder alike: `007`, `Great_White_Shark`."""
    return str(int(name)) if _is_index(name) else name.strip().replace("_", " ").casefold()


def _check_folder(origin: str, folder: str, indices: tuple[int, ...]) -> None:
    if not folder:
        raise DamagedInputError(
            f"{origin}: an image lies outside the class folders", "move it into one of them"
        )
    if not indices:
        problem = f"{origin}: the folder {folder} is no class index or name, though others are"
        raise DamagedInputError(problem, "rename it to a class index, or give a labels file")
    if len(indices) > 1:
        problem = f"{origin}: the folder {folder} may mean class {' or '.join(map(str, indices))}"
        raise DamagedInputError(problem, "rename it to the class index")
