"""Every kind of photo and source, the preprocessing against other computations, and who gets which image."""

import contextlib
import gc
import hashlib
import os
import struct
import threading
import time
import warnings
import weakref
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.images import (
    MINIMUM_IMAGES,
    ImageSet,
    batches,
    choose,
    labelled,
    open_image,
    prefetch,
    preprocess,
    read_labels_csv,
    readable,
    rows_without_image,
    split,
)
from mobilenet_export.spec import Preprocess

HALVES = (0.5, 0.5, 0.5)
PLAIN = Preprocess(resize_px=36, crop_px=32, interpolation="bilinear", mean=HALVES, std=HALVES)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def photo(seed: int = 0, height: int = 40, width: int = 48) -> bytes:
    return encoded(Image.fromarray(noise(height, width, seed)), "PNG")


def opened(data: bytes) -> NDArray[np.uint8]:
    image = open_image(BytesIO(data), "photo")
    assert image.mode == "RGB"
    return np.asarray(image)


def refused(data: bytes) -> str:
    with pytest.raises(DamagedInputError) as caught:
        open_image(BytesIO(data), "photo")
    assert caught.value.hint
    assert caught.value.message.startswith("photo: ")
    return caught.value.message


def empty_png(width: int, height: int) -> bytes:
    """A PNG that is all header: nothing in it can be decoded."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 100) + b"IDAT"


class TestOnePhoto:
    @pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
    def test_lossless_rgb_comes_back(self, kind: str) -> None:
        pixels = noise(40, 50)
        assert np.array_equal(opened(encoded(Image.fromarray(pixels), kind)), pixels)

    def test_webp_and_jpeg_are_read(self) -> None:
        flat = Image.new("RGB", (64, 64), (200, 100, 50))
        for kind in ("WEBP", "JPEG"):
            assert np.abs(opened(encoded(flat, kind)).astype(int) - (200, 100, 50)).max() <= 4

    def test_grey_becomes_three_equal_channels(self) -> None:
        grey = noise(40, 50)[:, :, 0]
        rgb = opened(encoded(Image.fromarray(grey), "PNG"))
        assert all(np.array_equal(rgb[:, :, channel], grey) for channel in range(3))

    def test_one_bit_becomes_black_and_white(self) -> None:
        image = Image.new("1", (40, 40), 1)
        assert (opened(encoded(image, "PNG")) == 255).all()

    def test_palette_gives_its_colours(self) -> None:
        image = Image.fromarray(noise(40, 50)).quantize(16)
        assert np.array_equal(opened(encoded(image, "PNG")), np.asarray(image.convert("RGB")))

    @pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
    @pytest.mark.parametrize(
        ("ink", "colour"),
        [
            ((0, 0, 0, 0), (255, 255, 255)),
            ((0, 255, 255, 0), (255, 0, 0)),
            ((0, 0, 0, 255), (0, 0, 0)),
            ((255, 0, 0, 0), (0, 255, 255)),
        ],
    )
    def test_cmyk_ink_becomes_the_colour_it_prints(
        self, kind: str, ink: tuple[int, ...], colour: tuple[int, ...]
    ) -> None:
        data = encoded(Image.new("CMYK", (40, 40), ink), kind)
        assert np.abs(opened(data).astype(int) - colour).max() <= 3

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_16_bit_grey_is_scaled_and_not_clipped(self, kind: str) -> None:
        values = np.linspace(0, 65535, 40 * 50).astype(np.uint16).reshape(40, 50)
        rgb = opened(encoded(Image.fromarray(values), kind))
        assert np.array_equal(rgb[:, :, 0], np.rint(values / 257).astype(np.uint8))
        assert (rgb.min(), rgb.max()) == (0, 255)

    def test_16_bit_pgm_is_scaled(self) -> None:
        values = np.linspace(0, 65535, 40 * 50).astype(np.uint16).reshape(40, 50)
        rgb = opened(b"P5 50 40 65535\n" + values.astype(">u2").tobytes())
        assert np.array_equal(rgb[:, :, 1], np.rint(values / 257).astype(np.uint8))

    @pytest.mark.parametrize("dtype", [np.int32, np.float32])
    def test_32_bit_is_refused(self, dtype: type) -> None:
        assert "32-bit" in refused(encoded(Image.fromarray(np.ones((40, 40), dtype)), "TIFF"))

    def test_opaque_alpha_is_dropped(self) -> None:
        pixels = noise(40, 50)
        image = Image.fromarray(pixels)
        image.putalpha(255)
        assert np.array_equal(opened(encoded(image, "PNG")), pixels)

    @pytest.mark.parametrize("mode", ["RGBA", "LA"])
    def test_transparency_is_refused(self, mode: str) -> None:
        image = Image.new(mode, (40, 40), 255 if mode == "L" else None)
        image.putalpha(254)
        assert "transparent" in refused(encoded(image, "PNG"))

    def test_transparent_palette_entry_is_refused_only_where_it_shows(self) -> None:
        indices = np.zeros((40, 40), np.uint8)
        indices[5] = 1
        image = Image.fromarray(indices)
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
        assert "transparent" in refused(encoded(image, "PNG", transparency=1))
        assert tuple(opened(encoded(image, "PNG", transparency=2))[5, 0]) == (40, 50, 60)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda stored: stored),
            (2, lambda stored: stored[:, ::-1]),
            (3, lambda stored: stored[::-1, ::-1]),
            (4, lambda stored: stored[::-1]),
            (5, lambda stored: stored.transpose(1, 0, 2)),
            (6, lambda stored: np.rot90(stored, -1)),
            (7, lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
            (8, lambda stored: np.rot90(stored, 1)),
        ],
    )
    def test_exif_orientation_is_applied(
        self, kind: str, orientation: int, upright: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    ) -> None:
        pixels = noise(40, 50)
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(Image.fromarray(pixels), kind, exif=exif)
        assert np.array_equal(opened(data), upright(pixels))

    def test_exif_rotated_jpeg_stands_up(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(Image.fromarray(noise(40, 50)), "JPEG", exif=exif)
        assert opened(data).shape == (50, 40, 3)

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_first_frame_of_an_animation(self, kind: str) -> None:
        first, second = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(first, kind, save_all=True, append_images=[second], **options)
        assert (opened(data) == (255, 0, 0)).all()

    def test_phone_jpeg_with_a_second_picture_gives_the_first(self) -> None:
        first, second = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
        data = encoded(first, "MPO", save_all=True, append_images=[second])
        assert np.abs(opened(data).astype(int) - (255, 0, 0)).max() <= 3

    @pytest.mark.parametrize(("width", "height"), [(1, 1), (31, 400), (400, 31)])
    def test_tiny_is_refused(self, width: int, height: int) -> None:
        assert "under 32 px" in refused(photo(width=width, height=height))

    def test_the_smallest_and_the_longest_are_read(self) -> None:
        assert opened(photo(width=32, height=640)).shape == (640, 32, 3)
        assert "longer than 20:1" in refused(photo(width=32, height=641))

    @pytest.mark.parametrize("side_px", [9_460, 12_000, 60_000])
    def test_bomb_is_refused_by_its_header(self, side_px: int) -> None:
        assert "89,478,485 px" in refused(empty_png(side_px, side_px))

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM"])
    @pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
    def test_truncated_is_refused(self, kind: str, kept: float) -> None:
        data = encoded(Image.fromarray(noise(100, 100)), kind)
        refused(data[: int(len(data) * kept)])

    @pytest.mark.parametrize(
        "data", [b"", b"hello", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n"]
    )
    def test_what_is_no_image_is_refused(self, data: bytes) -> None:
        assert "not an image" in refused(data)

    def test_any_damage_is_refused_or_read_and_never_crashes(self) -> None:
        random = np.random.default_rng(1)
        for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
            data = np.frombuffer(encoded(Image.fromarray(noise(40, 40)), kind), np.uint8)
            for _ in range(25):
                damaged = data.copy()
                damaged[random.integers(0, min(len(data), 200), 6)] = random.integers(0, 256, 6)
                with contextlib.suppress(DamagedInputError):
                    opened(damaged.tobytes())

    def test_file_is_named_and_closed(self, tmp_path: Path) -> None:
        path = tmp_path / "text.jpg"
        path.write_text("not a photo")
        with pytest.raises(DamagedInputError, match=r"^text\.jpg: not an image$"):
            open_image(path, "text.jpg")
        with pytest.raises(DamagedInputError, match="No such file"):
            open_image(tmp_path / "gone.jpg", "gone.jpg")

    def test_no_warning_of_pillow_leaks(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            refused(empty_png(10_000, 10_000))
            warnings.warn("of somebody else", UserWarning, stacklevel=1)
        assert [str(warning.message) for warning in caught] == ["of somebody else"]


def triangle_weights(size: int, target: int) -> NDArray[np.float64]:
    """Antialiased bilinear filter as a matrix (target, size): a triangle as wide as the scale."""
    scale = size / target
    reach = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    distance = np.abs(np.arange(size)[None, :] + 0.5 - centres[:, None]) / reach
    weights = np.maximum(1 - distance, 0)
    return weights / weights.sum(axis=1, keepdims=True)


class TestPreprocess:
    def test_by_hand(self) -> None:
        # 41×36 is not resized; round(4.5) = 4 columns and 2 rows go; 51/255 = 0.2; (0.2 − 0.5)/0.25 = −1.2.
        pixels = np.zeros((36, 41, 3), np.uint8)
        pixels[2, 4] = (51, 255, 0)
        how = Preprocess(36, 32, "bilinear", (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
        result = preprocess(Image.fromarray(pixels), how)
        assert result.shape == (3, 32, 32)
        assert result.dtype == np.float32
        assert result[:, 0, 0] == pytest.approx([-1.2, 1.0, -0.5])
        assert result[:, 0, 1] == pytest.approx([-2.0, -1.0, -0.5])

    @pytest.mark.parametrize(("width", "left"), [(37, 2), (38, 3), (39, 4), (41, 4)])
    def test_odd_margins_round_half_to_even_as_torchvision_does(self, width: int, left: int) -> None:
        pixels = np.repeat(np.arange(width, dtype=np.uint8)[None, :, None], 36, axis=0).repeat(3, axis=2)
        how = Preprocess(36, 32, "bilinear", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        assert preprocess(Image.fromarray(pixels), how)[0, 0, 0] * 255 == pytest.approx(left)

    @pytest.mark.parametrize(("width", "height"), [(120, 90), (90, 120), (50, 300), (40, 36), (33, 57)])
    def test_against_an_independent_filter(self, width: int, height: int) -> None:
        pixels = noise(height, width)
        short = min(width, height)
        rows, columns = int(36 * height / short), int(36 * width / short)
        middle = np.einsum("th,hwc->twc", triangle_weights(height, rows), pixels)
        resized = np.einsum("sw,twc->tsc", triangle_weights(width, columns), middle)
        top, left = round((rows - 32) / 2), round((columns - 32) / 2)
        expected = resized[top : top + 32, left : left + 32].transpose(2, 0, 1) / 255
        result = preprocess(Image.fromarray(pixels), PLAIN) / 2 + 0.5
        assert np.abs(result - expected).max() * 255 < 1.6  # Pillow rounds to 8 bits after each pass

    def test_mean_and_std_go_to_their_channels(self) -> None:
        how = Preprocess(36, 32, "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        result = preprocess(Image.new("RGB", (60, 50), (255, 0, 128)), how)
        expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225]
        assert result.mean(axis=(1, 2)) == pytest.approx(expected, abs=1e-6)

    def test_bicubic_is_another_filter(self) -> None:
        image = Image.fromarray(noise(80, 80))
        how = Preprocess(36, 32, "bicubic", HALVES, HALVES)
        assert not np.array_equal(preprocess(image, how), preprocess(image, PLAIN))

    def test_crop_must_fit(self) -> None:
        with pytest.raises(UsageError, match="does not fit"):
            preprocess(Image.new("RGB", (60, 60)), Preprocess(32, 36, "bilinear", HALVES, HALVES))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photos, two of them nested, among files that are none."""
    root = tmp_path / "photos"
    (root / "b" / "deep").mkdir(parents=True)
    (root / ".thumbs").mkdir()
    for index, name in enumerate(["b/deep/2.PNG", "a.png", "b/1.Jpeg", "c.tif"]):
        (root / name).write_bytes(photo(index))
    for name in ("notes.txt", ".hidden.png", ".thumbs/a.png", "b/noextension"):
        (root / name).write_bytes(photo())
    return root


NAMES = ("a.png", "b/1.Jpeg", "b/deep/2.PNG", "c.tif")


class TestSources:
    def test_folder(self, folder: Path) -> None:
        image_set = ImageSet.open(folder)
        assert image_set.names == NAMES
        assert len(image_set) == 4
        picture = image_set.load("b/1.Jpeg")
        assert np.array_equal(np.asarray(picture), noise(40, 48, 2))

    def test_nothing_is_read_when_listed(self, tmp_path: Path) -> None:
        (tmp_path / "broken.jpg").write_text("no photo")
        assert ImageSet.open(tmp_path).names == ("broken.jpg",)

    def test_links_are_followed_and_loops_are_not(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "outside" / "z.png").write_bytes(photo())
        (folder / "link").symlink_to(tmp_path / "outside")
        (folder / "loop").symlink_to(folder)
        assert ImageSet.open(folder).names == (*NAMES, "link/z.png")

    @pytest.mark.skipif(getattr(os, "geteuid", int)() == 0, reason="root may read everything")
    def test_closed_folder_is_missing_permission(self, folder: Path) -> None:
        (folder / "b").chmod(0)
        with pytest.raises(MissingError, match="Permission denied"):
            ImageSet.open(folder)
        (folder / "b").chmod(0o700)

    def test_zip_is_the_folder(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "photos.ZIP"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*"), reverse=True):
                archive.write(file, file.relative_to(folder))
            archive.writestr("__MACOSX/._a.png", b"resource fork")
        from_zip, from_folder = ImageSet.open(path), ImageSet.open(folder)
        assert from_zip.names == NAMES
        for (names, values), (_, others) in zip(
            batches(from_zip, PLAIN, 3), batches(from_folder, PLAIN, 3), strict=True
        ):
            assert len(names) == len(values)
            assert np.array_equal(values, others)

    def test_zip_with_a_damaged_member_refuses_that_one(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", photo())
        data = bytearray(path.read_bytes())
        data[200] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(DamagedInputError, match="Bad CRC"):
            ImageSet.open(path).load("a.png")

    def test_zip_member_too_large_is_not_unpacked(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.bmp", photo())
        image_set = ImageSet.open(path)
        image_set.load.args[1]["a.bmp"].file_size = 10**10  # type: ignore[attr-defined]
        with pytest.raises(DamagedInputError, match="10,000,000,000 bytes"):
            image_set.load("a.bmp")

    def test_encrypted_zip_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.png", photo())
        data = path.read_bytes()
        directory = data.index(b"PK\x01\x02")
        path.write_bytes(data[: directory + 8] + b"\x01" + data[directory + 9 :])
        with pytest.raises(DamagedInputError, match="encrypted"):
            ImageSet.open(path)

    def test_corrupt_zip_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "photos.zip"
        path.write_bytes(b"PK\x03\x04 and no more")
        with pytest.raises(DamagedInputError, match="not a readable zip"):
            ImageSet.open(path)

    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_uint8_array_is_images(self, suffix: str, tmp_path: Path) -> None:
        pixels = np.stack([noise(40, 48, seed) for seed in range(11)])
        path = tmp_path / f"photos.{suffix}"
        if suffix == "npy":
            np.save(path, pixels)
        else:
            np.savez_compressed(path, images=pixels, labels=np.arange(11))
        image_set = ImageSet.open(path)
        assert image_set.names == tuple(map(str, range(11)))
        ((names, values),) = batches(image_set, PLAIN, 11)
        assert names[10] == "10"
        assert np.array_equal(values[10], preprocess(Image.fromarray(pixels[10]), PLAIN))

    def test_float_array_is_used_as_it_is(self, tmp_path: Path) -> None:
        array = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
        np.save(tmp_path / "ready.npy", array)
        image_set = ImageSet.open(tmp_path / "ready.npy")
        ((_, values),) = batches(image_set, PLAIN, 8)
        assert np.array_equal(values, array)
        other = Preprocess(64, 64, "bilinear", HALVES, HALVES)
        with pytest.raises(UsageError, match="preprocessed for 32 px; the model takes 64 px"):
            next(batches(image_set, other, 8))

    def test_npz_with_one_array_of_any_name(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "one.npz", noise(40, 40)[None])
        assert len(ImageSet.open(tmp_path / "one.npz")) == 1

    def test_npz_with_several_arrays_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "two.npz", left=noise(40, 40)[None], right=noise(40, 40)[None])
        with pytest.raises(DamagedInputError, match="left, right"):
            ImageSet.open(tmp_path / "two.npz")

    @pytest.mark.parametrize(
        ("array", "found"),
        [
            (np.zeros((2, 3, 40, 40), np.uint8), r"uint8 \(2, 3, 40, 40\)"),
            (np.zeros((2, 32, 32, 3), np.float32), r"float32 \(2, 32, 32, 3\)"),
            (np.zeros((2, 3, 32, 40), np.float32), r"float32 \(2, 3, 32, 40\)"),
            (np.zeros((2, 3, 32, 32)), r"float64 \(2, 3, 32, 32\)"),
            (np.zeros((40, 40, 3), np.uint8), r"uint8 \(40, 40, 3\)"),
            (np.zeros((), np.uint8), r"uint8 \(\)"),
        ],
    )
    def test_other_arrays_are_refused_by_shape_and_dtype(
        self, array: NDArray[np.generic], found: str, tmp_path: Path
    ) -> None:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DamagedInputError, match=found):
            ImageSet.open(tmp_path / "a.npy")

    @pytest.mark.parametrize("suffix", ["npy", "npz"])
    def test_object_array_is_never_unpickled(self, suffix: str, tmp_path: Path) -> None:
        array = np.array([Bomb()], dtype=object)
        path = tmp_path / f"a.{suffix}"
        if suffix == "npy":
            np.save(path, array, allow_pickle=True)
        else:
            np.savez(path, array)
        with pytest.raises(DamagedInputError, match="not a readable array"):
            ImageSet.open(path)
        assert not Bomb.went_off

    @pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"text", b"PK\x03\x04"])
    def test_damaged_array_is_refused(self, data: bytes, tmp_path: Path) -> None:
        for suffix in ("npy", "npz"):
            path = tmp_path / f"a.{suffix}"
            path.write_bytes(data)
            with pytest.raises(DamagedInputError, match="not a readable array"):
                ImageSet.open(path)

    @pytest.mark.parametrize(
        ("value", "reason"), [(np.nan, "not-a-number"), (np.inf, "infinity"), (255, "not normalized")]
    )
    def test_array_that_cannot_be_an_input_is_refused(
        self, value: float, reason: str, tmp_path: Path
    ) -> None:
        array = np.zeros((2, 3, 32, 32), np.float32)
        array[1, 0, 0, 0] = value
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(DamagedInputError, match=f"^1: .*{reason}"):
            next(batches(ImageSet.open(tmp_path / "a.npy"), PLAIN, 2))

    def test_a_network_that_takes_0_to_255_may_have_them(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.full((1, 3, 32, 32), 255, np.float32))
        how = Preprocess(36, 32, "bilinear", (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
        assert next(batches(ImageSet.open(tmp_path / "a.npy"), how, 1))[1].max() == 255

    def test_what_is_no_source_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file or folder"):
            ImageSet.open(tmp_path / "gone")
        with pytest.raises(DamagedInputError, match="no images"):
            ImageSet.open(tmp_path)
        (tmp_path / "a.png").write_bytes(photo())
        with pytest.raises(UsageError, match="not a set of images"):
            ImageSet.open(tmp_path / "a.png")


class Bomb:
    """Says so when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[object, ...]:
        return (setattr, (Bomb, "went_off", True))


class TestManifest:
    @pytest.fixture
    def listed(self, tmp_path: Path) -> Path:
        lines = ['schema = "mobilenet-export/image-set/1"']
        for index, role in enumerate(["check", "calibrate", "calibrate"]):
            (tmp_path / f"{index}.png").write_bytes(photo(index))
            sha256 = hashlib.sha256(photo(index)).hexdigest()
            lines += ["[[images]]", f'file = "{index}.png"', f'role = "{role}"', f'sha256 = "{sha256}"']
        (tmp_path / "manifest.toml").write_text("\n".join(lines))
        return tmp_path

    def test_roles_win_over_seeds(self, listed: Path) -> None:
        image_set = ImageSet.open(listed)
        for seed in range(5):
            calibrate, check = split(image_set, 9, 9, seed)
            assert sorted(calibrate.names) == ["1.png", "2.png"]
            assert check.names == ("0.png",)
            assert len(split(image_set, 1, 1, seed)[0]) == 1

    def test_changed_file_is_refused(self, listed: Path) -> None:
        (listed / "1.png").write_bytes(photo(9))
        with pytest.raises(DamagedInputError, match=r"1\.png: changed"):
            ImageSet.open(listed)

    def test_missing_and_added_files_are_refused(self, listed: Path) -> None:
        (listed / "new.png").write_bytes(photo(9))
        with pytest.raises(DamagedInputError, match=r"new\.png: is not in the manifest"):
            ImageSet.open(listed)
        (listed / "new.png").rename(listed / "2.png")
        (listed / "0.png").unlink()
        with pytest.raises(DamagedInputError, match=r"0\.png: is in the manifest but not in the folder"):
            ImageSet.open(listed)

    @pytest.mark.parametrize("text", ["schema = ", 'schema = "mobilenet-export/image-set/1"'])
    def test_damaged_manifest_is_refused(self, text: str, listed: Path) -> None:
        (listed / "manifest.toml").write_text(text)
        with pytest.raises(DamagedInputError, match="not a readable manifest"):
            ImageSet.open(listed)

    def test_unknown_role_is_refused(self, listed: Path) -> None:
        text = (listed / "manifest.toml").read_text()
        (listed / "manifest.toml").write_text(text.replace('"check"', '"train"'))
        with pytest.raises(DamagedInputError, match="role"):
            ImageSet.open(listed)

    def test_manifest_of_another_tool_is_left_alone(self, listed: Path) -> None:
        (listed / "manifest.toml").write_text('name = "something else"')
        assert ImageSet.open(listed).roles == {}


def fake_set(count: int, load: Callable[[str], NDArray[np.float32]] | None = None) -> ImageSet:
    def make(name: str) -> NDArray[np.float32]:
        return np.full((3, 32, 32), int(name) / 1000, np.float32)

    return ImageSet("fake", tuple(map(str, range(count))), load or make)


class TestBatches:
    @pytest.mark.parametrize(
        ("count", "size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (0, 4, [])]
    )
    def test_sizes_names_and_order(self, count: int, size: int, sizes: list[int]) -> None:
        results = list(batches(fake_set(count), PLAIN, size))
        assert [len(names) for names, _ in results] == sizes
        assert [name for names, _ in results for name in names] == [str(index) for index in range(count)]
        for names, values in results:
            assert values.shape == (len(names), 3, 32, 32)
            assert values.dtype == np.float32
            assert values[:, 0, 0, 0] == pytest.approx([int(name) / 1000 for name in names])

    def test_order_holds_when_early_images_are_slow(self) -> None:
        def load(name: str) -> NDArray[np.float32]:
            time.sleep(0.01 if int(name) % 4 == 0 else 0)
            return np.full((3, 32, 32), int(name) / 8, np.float32)

        values = np.concatenate([values for _, values in batches(fake_set(16, load), PLAIN, 5)])
        assert list(values[:, 0, 0, 0] * 8) == list(range(16))

    def test_memory_does_not_grow_with_the_number_of_images(self) -> None:
        alive: set[int] = set()
        most = 0
        lock = threading.Lock()

        def load(name: str) -> NDArray[np.float32]:
            nonlocal most
            array = np.zeros((3, 32, 32), np.float32)
            with lock:
                alive.add(int(name))
                most = max(most, len(alive))
            weakref.finalize(array, alive.discard, int(name))
            return array

        count = sum(len(names) for names, _ in batches(fake_set(500, load), PLAIN, 8))
        gc.collect()
        assert count == 500
        assert most <= 3 * 8
        assert not alive

    def test_error_comes_in_its_place_and_the_threads_end(self) -> None:
        def load(name: str) -> NDArray[np.float32]:
            if name == "9":
                raise DamagedInputError("9: truncated", "leave it out")
            return np.zeros((3, 32, 32), np.float32)

        stream = batches(fake_set(500, load), PLAIN, 4)
        assert next(stream)[0] == ("0", "1", "2", "3")
        assert next(stream)[0] == ("4", "5", "6", "7")
        with pytest.raises(DamagedInputError, match="9: truncated"):
            next(stream)
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]

    def test_leaving_early_ends_the_threads(self) -> None:
        stream = batches(fake_set(500), PLAIN, 4)
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]

    def test_nothing_is_read_before_it_is_asked_for(self) -> None:
        read: list[str] = []

        def load(name: str) -> NDArray[np.float32]:
            read.append(name)
            return np.zeros((3, 32, 32), np.float32)

        stream = batches(fake_set(500, load), PLAIN, 4)
        assert read == []
        next(stream)
        time.sleep(0.05)
        assert len(read) <= 9

    def test_prefetch_raises_any_error(self) -> None:
        with pytest.raises(ZeroDivisionError):
            list(prefetch(lambda number: 1 // number, [1, 2, 0, 3], ahead=8))


def set_with_damage(count: int, damaged: set[int]) -> ImageSet:
    def load(name: str) -> NDArray[np.float32]:
        if int(name) in damaged:
            raise DamagedInputError(f"{name}: truncated", "leave it out")
        return np.zeros((3, 32, 32), np.float32)

    return fake_set(count, load)


class TestChoice:
    def test_reads_only_as_many_as_asked_for(self) -> None:
        read: list[str] = []

        def load(name: str) -> NDArray[np.float32]:
            read.append(name)
            return np.zeros((3, 32, 32), np.float32)

        choice = choose(fake_set(5000, load), 16, 8, seed=0)
        assert (len(choice.calibrate), len(choice.check), choice.unreadable) == (16, 8, ())
        assert len(read) <= 24 + 4

    def test_the_next_takes_an_unreadable_ones_place(self) -> None:
        damaged = set(range(0, 60, 2))
        choice = choose(set_with_damage(60, damaged), 16, 8, seed=3)
        used = {int(name) for name in choice.calibrate.names + choice.check.names}
        assert len(used) == 24
        assert not used & damaged
        assert {int(image.name) for image in choice.unreadable} <= damaged
        assert {image.reason for image in choice.unreadable} == {"truncated"}

    def test_each_image_that_can_be_read_is_told(self) -> None:
        steps: list[int] = []
        choose(set_with_damage(60, {1, 2}), 16, 8, 3, steps.append)
        assert steps == [1] * 24

    def test_too_few_that_are_all_readable_need_more_and_no_mending(self) -> None:
        with pytest.raises(
            DamagedInputError, match=r"fake: 1 of 1 images can be used, 8 are needed$"
        ) as caught:
            choose(set_with_damage(1, set()), 64, 32, seed=0)
        assert caught.value.hint.startswith("add images; ")

    def test_same_seed_same_choice(self) -> None:
        first, second = (choose(set_with_damage(60, {1, 2}), 16, 8, seed=3) for _ in range(2))
        assert first.calibrate.names == second.calibrate.names
        assert first.check.names == second.check.names
        assert choose(set_with_damage(60, {1, 2}), 16, 8, seed=4).calibrate.names != first.calibrate.names

    def test_too_few_readable_names_the_first_unreadable(self) -> None:
        with pytest.raises(
            DamagedInputError, match=r"fake: 7 of 9 .* 8 are needed \(.*: truncated; .*: truncated\)"
        ):
            choose(set_with_damage(9, {1, 2}), 64, 32, seed=0)
        assert len(choose(set_with_damage(10, {1, 2}), 64, 32, seed=0).check) == MINIMUM_IMAGES // 3

    def test_an_error_that_is_not_the_images_goes_through(self) -> None:
        def load(name: str) -> NDArray[np.float32]:
            raise MemoryError

        with pytest.raises(MemoryError):
            choose(fake_set(9, load), 4, 4, seed=0)

    def test_readable_keeps_the_order_and_stops(self) -> None:
        good, bad = readable(set_with_damage(50, {0, 3}), 4)
        assert good.names == ("1", "2", "4", "5")
        assert [image.name for image in bad] == ["0", "3"]
        assert readable(set_with_damage(50, {0}), 0)[0].names == ()

    def test_roles_are_chosen_from_separately(self) -> None:
        roles = {str(index): "check" if index < 10 else "calibrate" for index in range(30)}
        image_set = ImageSet("fake", tuple(roles), set_with_damage(30, {1}).load, roles)  # type: ignore[arg-type]
        choice = choose(image_set, 12, 9, seed=0)
        assert len(choice.calibrate) == 12
        assert sorted(choice.check.names) == ["0", *map(str, range(2, 10))]

    @pytest.mark.parametrize(
        ("role", "missing", "asked"), [("calibrate", "check", (4, 4)), ("check", "calibrate", (4, 0))]
    )
    def test_a_role_that_no_image_has_is_refused(
        self, role: str, missing: str, asked: tuple[int, int]
    ) -> None:
        roles = dict.fromkeys(map(str, range(9)), role)
        image_set = ImageSet("fake", tuple(roles), set_with_damage(9, set()).load, roles)  # type: ignore[arg-type]
        with pytest.raises(DamagedInputError, match=f"fake: its manifest has no image to {missing} with"):
            choose(image_set, *asked, seed=0)


class TestSplit:
    @settings(deadline=None)
    @given(
        names=st.sets(st.text(min_size=1, max_size=6), min_size=1, max_size=60),
        calibrate=st.integers(1, 64),
        check=st.integers(1, 64),
        seed=st.integers(0, 2**32),
        data=st.data(),
    )
    def test_properties(
        self, names: set[str], calibrate: int, check: int, seed: int, data: st.DataObject
    ) -> None:
        ordered = sorted(names)
        shuffled = data.draw(st.permutations(ordered))
        image_set = ImageSet("fake", tuple(ordered), lambda _: np.zeros(1, np.float32))
        first, second = split(image_set, calibrate, check, seed)
        again = split(image_set.subset(shuffled), calibrate, check, seed)
        assert (first.names, second.names) == (again[0].names, again[1].names)
        assert not set(first.names) & set(second.names)
        assert set(first.names) | set(second.names) <= names
        assert len(first) + len(second) == min(len(names), calibrate + check)
        assert 1 <= len(second) <= check
        assert len(first) <= calibrate
        if len(names) >= calibrate + check:
            assert (len(first), len(second)) == (calibrate, check)

    @pytest.mark.parametrize(
        ("count", "sizes"),
        [(96, (64, 32)), (95, (64, 31)), (60, (40, 20)), (8, (6, 2)), (2, (1, 1)), (1, (0, 1))],
    )
    def test_two_thirds_calibrate_where_there_are_too_few(self, count: int, sizes: tuple[int, int]) -> None:
        assert tuple(map(len, split(fake_set(count), 64, 32, 0))) == sizes

    def test_other_seeds_draw_other_images(self) -> None:
        assert split(fake_set(200), 64, 32, 0)[0].names != split(fake_set(200), 64, 32, 1)[0].names


def named(*names: str) -> ImageSet:
    return ImageSet("photos", names, lambda _: np.zeros(1, np.float32))


class TestLabels:
    CLASSES = ("tench", "great white shark", "crane", "ear", "crane")

    def write(self, folder: Path, text: str) -> Path:
        path = folder / "labels.csv"
        path.write_text(text, encoding="utf-8")
        return path

    @pytest.mark.parametrize("head", ["", "file,label\n", "\ufefffile,label\r\n", "File, Label\n"])
    def test_csv(self, head: str, tmp_path: Path) -> None:
        path = self.write(tmp_path, head + 'a.png,3\n\n   \n"b, c.png", 0\n')
        assert labelled(named("a.png", "b, c.png", "d.png"), path, 5, ()) == {"a.png": 3, "b, c.png": 0}

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("a.png,5", "line 3: class 5 is not within 0 to 4"),
            ("a.png,-1", "line 3: 'a.png,-1' is not a file and a class index"),
            ("a.png,ear", "line 3: .* is not a file and a class index"),
            ("a.png", "line 3: .* is not a file and a class index"),
            ("a.png,1,2", "line 3: .* is not a file and a class index"),
            (",1", "line 3: .* is not a file and a class index"),
            ("a.png,1.0", "line 3: .* is not a file and a class index"),
            ("b.png,2", "b.png is class 1 in line 2, but 2 in line 3"),
            ('"a.png', "not a readable CSV"),
        ],
    )
    def test_csv_row_that_is_wrong_is_named(self, row: str, problem: str, tmp_path: Path) -> None:
        path = self.write(tmp_path, f"file,label\nb.png,1\n{row}\n")
        with pytest.raises(DamagedInputError, match=problem):
            labelled(named("a.png", "b.png"), path, 5, ())

    def test_the_same_row_twice_counts_once(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "a.png,3\nb.png,1\na.png,3\n")
        assert [(row.file, row.line) for row in read_labels_csv(path)] == [("a.png", 1), ("b.png", 2)]
        assert labelled(named("a.png", "b.png"), path, 5, ()) == {"a.png": 3, "b.png": 1}

    def test_rows_without_an_image_are_told_and_left_out(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "file,label\na.png,3\ngone.png,1\nlost.png,2\n")
        image_set = named("a.png", "b.png")
        assert labelled(image_set, path, 5, ()) == {"a.png": 3}
        rows = rows_without_image(image_set, path)
        assert [(row.file, row.line) for row in rows] == [("gone.png", 3), ("lost.png", 4)]

    def test_rows_none_of_which_names_an_image_are_refused(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "file,label\nphotos/a.png,3\nphotos/b.png,1\n")
        with pytest.raises(
            DamagedInputError, match=r"line 2: no image photos/a\.png, nor of any row"
        ) as caught:
            labelled(named("a.png", "b.png"), path, 5, ())
        assert "relative to the images' folder" in caught.value.hint

    def test_csv_that_is_no_text_or_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such file"):
            read_labels_csv(tmp_path / "gone.csv")
        (tmp_path / "photo.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(DamagedInputError, match="not a readable CSV"):
            read_labels_csv(tmp_path / "photo.csv")

    def test_csv_wins_over_folders(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "3/a.png,1\n")
        assert labelled(named("3/a.png", "0/b.png"), path, 5, self.CLASSES) == {"3/a.png": 1}

    def test_folders_named_by_index_or_name(self) -> None:
        image_set = named("0/a.png", "root/Great_White_Shark/b.png", "ear/c.png", "004/d.png")
        expected = {"0/a.png": 0, "root/Great_White_Shark/b.png": 1, "ear/c.png": 3, "004/d.png": 4}
        assert labelled(image_set, None, 5, self.CLASSES) == expected

    @pytest.mark.parametrize(
        "names", [("a.png",), ("holiday/a.png", "2019/b.png"), ("a.png", "holiday/b.png")]
    )
    def test_folders_that_name_no_class_are_no_labels(self, names: tuple[str, ...]) -> None:
        assert labelled(named(*names), None, 5, self.CLASSES) == {}

    @pytest.mark.parametrize(
        ("names", "problem"),
        [
            (("ear/a.png", "holiday/b.png"), "the folder holiday is no class"),
            (("0/a.png", "5/b.png"), "the folder 5 is no class"),
            (("0/a.png", "b.png"), "outside the class folders"),
            (("crane/a.png",), "the folder crane may mean class 2 or 4"),
        ],
    )
    def test_folders_that_leave_a_doubt_are_refused(self, names: tuple[str, ...], problem: str) -> None:
        with pytest.raises(DamagedInputError, match=problem):
            labelled(named(*names), None, 5, self.CLASSES)

    def test_digit_names_that_differ_from_their_index_are_refused(self) -> None:
        assert labelled(named("1/a.png"), None, 2, ("0", "1")) == {"1/a.png": 1}
        with pytest.raises(DamagedInputError, match="the folder 1 may mean class 0 or 1"):
            labelled(named("1/a.png"), None, 2, ("1", "0"))

    def test_no_class_names_leaves_indices(self) -> None:
        assert labelled(named("1/a.png"), None, 2, ()) == {"1/a.png": 1}
