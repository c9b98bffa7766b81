"""The procedural images: the same everywhere, like photos in what matters, and the set that ships."""

import hashlib
import tomllib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mobilenet_export.dead_leaves import CALIBRATE_SEEDS, CHECK_SEEDS, draw, encode, main, write_set
from mobilenet_export.errors import UsageError
from mobilenet_export.images import ImageSet, default_set
from mobilenet_export.pipeline.export import choose_images
from mobilenet_export.recipe import find_recipe
from mobilenet_export.shipped import shipped_path

DEFAULT = shipped_path("calibration", "default")
PIXELS_OF_SEEDS_0_TO_3_AT_64_PX = "fc38e8c7fea96f71bacb7d384187534185ecb2f518183745fa4e1c891b79c284"


def spectral_slope(image: NDArray[np.uint8]) -> float:
    """Exponent a of power ∝ f^a: a line through the logarithms of means over rings of 3 to 80 cycles."""
    grey = image.mean(axis=-1) - image.mean()
    window = np.hanning(len(grey))
    power = np.abs(np.fft.fft2(grey * window[:, None] * window)) ** 2
    axis = np.fft.fftfreq(len(grey), 1 / len(grey))
    ring = np.rint(np.hypot(axis[:, None], axis)).astype(int)
    rings = np.arange(3, 81)
    means = [power[ring == r].mean() for r in rings]
    return float(np.polyfit(np.log(rings), np.log(means), 1)[0])


def test_same_seed_same_bytes() -> None:
    assert draw(7).tobytes() == draw(7).tobytes()
    assert draw(7).tobytes() != draw(8).tobytes()


def test_pixels_are_those_of_every_numpy_version() -> None:
    # Run with numpy 1.26 and 2.4, with and without AVX2.
    pixels = b"".join(draw(seed, 64).tobytes() for seed in range(4))
    assert hashlib.sha256(pixels).hexdigest() == PIXELS_OF_SEEDS_0_TO_3_AT_64_PX


@pytest.mark.parametrize("size_px", [32, 100, 256])
def test_shape_and_dtype(size_px: int) -> None:
    image = draw(1, size_px)
    assert image.shape == (size_px, size_px, 3)
    assert image.dtype == np.uint8


@pytest.mark.parametrize(("seed", "size_px"), [(-1, 256), (0, 31)])
def test_refuses_what_it_cannot_draw(seed: int, size_px: int) -> None:
    with pytest.raises(UsageError, match="cannot draw"):
        draw(seed, size_px)


def test_spectrum_contrast_and_exposure_are_like_those_of_photos() -> None:
    images = [draw(seed) for seed in range(12)]
    # 84 photos measured: −2.55 ± 0.46.
    assert -3.6 < np.mean([spectral_slope(image) for image in images]) < -2
    assert 0.12 < np.mean([image.std() / 255 for image in images]) < 0.3
    means = [image.mean() / 255 for image in images]
    assert 0.3 < np.mean(means) < 0.6
    assert np.std(means) > 0.05
    assert np.mean([np.ptp(image) for image in images]) > 220


def test_jpeg_is_near_the_drawing() -> None:
    image = draw(3)
    decoded = np.asarray(Image.open(BytesIO(encode(image))))
    assert np.abs(decoded.astype(int) - image).mean() < 5


@pytest.mark.parametrize("seed", [0, 63, CHECK_SEEDS[-1]])
def test_committed_images_are_what_the_generator_draws(seed: int) -> None:
    committed = (DEFAULT / f"leaves_{seed:04}.jpg").read_bytes()
    again = encode(draw(seed))
    if again != committed:  # another libjpeg
        pixels = [np.asarray(Image.open(BytesIO(data))).astype(int) for data in (again, committed)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 3


def test_shipped_set_has_its_roles_and_is_small() -> None:
    calibrate, check = default_set()
    assert (len(calibrate), len(check)) == (64, 32)
    assert not set(calibrate.names) & set(check.names)
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) < 6 * 2**20


def test_shipped_manifest_gives_the_seeds() -> None:
    table = tomllib.loads((DEFAULT / "manifest.toml").read_text(encoding="utf-8"))
    assert [entry["seed"] for entry in table["images"]] == [*CALIBRATE_SEEDS, *CHECK_SEEDS]
    assert len({entry["sha256"] for entry in table["images"]}) == 96


def test_writes_a_set_that_opens_with_its_roles(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "set"
    write_set(folder, {"calibrate": [5, 6], "check": [7]}, size_px=64)
    image_set = ImageSet.open(folder)
    assert image_set.roles == {
        "leaves_0005.jpg": "calibrate",
        "leaves_0006.jpg": "calibrate",
        "leaves_0007.jpg": "check",
    }
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_set(tmp_path / name, {"calibrate": [0], "check": [1]}, size_px=64)
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert first == second


def test_never_writes_over_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        write_set(tmp_path, {"check": [0]})
    assert list(tmp_path.iterdir()) == []


def test_force_replaces_a_set_that_was_drawn_and_nothing_else(tmp_path: Path) -> None:
    drawn, other = tmp_path / "drawn", tmp_path / "other"
    write_set(drawn, {"calibrate": [5, 6]}, size_px=64)
    write_set(drawn, {"calibrate": [7]}, size_px=64, force=True)
    assert sorted(path.name for path in drawn.iterdir()) == ["leaves_0007.jpg", "manifest.toml"]
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="--force does not delete it"):
        write_set(other, {"calibrate": [7]}, size_px=64, force=True)
    (drawn / "mine.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"mine\.txt was not drawn"):
        write_set(drawn, {"calibrate": [8]}, size_px=64, force=True)
    assert (drawn / "mine.txt").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drawn", "other"]


def test_a_failure_under_force_leaves_the_old_set(tmp_path: Path) -> None:
    write_set(tmp_path / "set", {"calibrate": [5]}, size_px=64)
    with pytest.raises(UsageError):
        write_set(tmp_path / "set", {"calibrate": [6]}, size_px=8, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert ImageSet.open(tmp_path / "set").names == ("leaves_0005.jpg",)


def test_each_image_that_is_written_is_told(tmp_path: Path) -> None:
    steps: list[int] = []
    write_set(tmp_path / "set", {"calibrate": [5], "check": [6]}, size_px=64, advance=steps.append)
    assert steps == [1, 1]


def test_refuses_to_write_no_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot draw 0"):
        write_set(tmp_path / "set", {"check": []})


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_set(tmp_path / "set", {"check": [0]}, size_px=8)
    assert list(tmp_path.iterdir()) == []


def test_command_line_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("error: one folder is needed\nhint: ")


def test_a_set_that_only_calibrates_is_checked_with_shipped_images_that_it_does_not_hold(
    tmp_path: Path,
) -> None:
    write_set(tmp_path / "set", {"calibrate": range(88, 98)}, 64)
    choice = choose_images(tmp_path / "set", find_recipe("int8"))
    assert len(choice.calibrate) == 10
    assert 89 in CHECK_SEEDS
    assert len(choice.check) == len(CHECK_SEEDS) - 1
    assert not set(choice.check.names) & set(choice.calibrate.names)
