"""Lint of calibration images: each check finds its fault and keeps silent where there is none."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from mobilenet_export.dead_leaves import draw
from mobilenet_export.errors import UsageError
from mobilenet_export.findings import SHOWN_FILES, Finding, LintReport
from mobilenet_export.images import default_set, preprocess
from mobilenet_export.lint.channel_order import ColourSigns, colour_signs, looks_swapped, preference
from mobilenet_export.lint.class_checks import (
    check_predictions,
    check_skew,
    check_unlabelled,
    folder_classes,
)
from mobilenet_export.lint.range_checks import check_dead, check_ranges, compare_ranges
from mobilenet_export.lint.traits import shrink
from mobilenet_export.pipeline import LintRequest, lint
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec

SPEC = resize_spec(find_spec("v2"), None, 96, None)
LEAVES = [draw(seed, 128) for seed in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images that nothing is wrong with."""
    place = tmp_path / "photos"
    place.mkdir()
    for index, pixels in enumerate(LEAVES):
        save(place / f"{index:02}.png", pixels)
    return place


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)


def looked(data: Path, spec: ModelSpec = SPEC, **options: object) -> LintReport:
    request = LintRequest(data, spec, find_recipe("int8"), ranges=False)
    return lint(dataclasses.replace(request, **options))  # type: ignore[arg-type]


def only(report: LintReport, kind: str) -> Finding:
    """The one finding there is."""
    assert [finding.kind for finding in report.findings] == [kind]
    return report.findings[0]


def test_nothing_is_found_where_nothing_is_wrong(folder: Path) -> None:
    report = looked(folder)
    assert report.findings == ()
    assert (report.verdict, report.images, report.usable) == ("pass", 12, 12)


def test_nothing_is_found_in_the_shipped_images() -> None:
    calibrate, _ = default_set()
    assert looked(Path(calibrate.origin), find_spec("v2"), strict=True).verdict == "pass"


def test_what_cannot_be_read_is_an_error_with_its_reason(folder: Path) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff and then nothing")
    (folder / "text.png").write_text("not an image")
    report = looked(folder)
    finding = only(report, "unreadable")
    assert finding.severity == "error"
    assert finding.problem == "2 images cannot be read"
    assert finding.files[1] == "text.png (not an image)"
    assert (report.verdict, report.images, report.usable) == ("fail", 14, 12)


@pytest.mark.parametrize(
    ("count", "problem"), [(7, "7 images can be used, 8 are needed"), (1, "1 image can")]
)
def test_too_few_are_an_error(count: int, problem: str, folder: Path) -> None:
    for path in sorted(folder.iterdir())[count:]:
        path.unlink()
    finding = only(looked(folder), "too-few")
    assert finding.severity == "error"
    assert finding.problem.startswith(problem)


def test_as_many_images_must_differ_and_show_anything(folder: Path) -> None:
    for path in sorted(folder.iterdir())[7:]:
        Image.new("RGB", (64, 64)).save(path)
    finding, *_ = looked(folder).findings
    assert (finding.severity, finding.kind) == ("error", "too-few")
    assert finding.problem == "7 images of 12 differ and show anything, 8 must"


def test_copies_are_found_under_other_names_and_formats(folder: Path) -> None:
    save(folder / "copy.bmp", LEAVES[3])
    save(folder / "nested" / "copy.png", LEAVES[3])
    assert only(looked(folder), "duplicate").files == ("copy.bmp = 03.png", "nested/copy.png = 03.png")


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((96, 96)),
        lambda image: ImageEnhance.Contrast(image).enhance(0.7),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    ],
    ids=["smaller", "flatter", "darker"],
)
def test_near_copies_are_found(change: Callable[[Image.Image], Image.Image], folder: Path) -> None:
    change(Image.fromarray(LEAVES[3])).save(folder / "near.jpg", quality=60)
    assert only(looked(folder), "near-duplicate").files == ("near.jpg ~ 03.png",)


def test_images_of_one_colour_are_found_and_are_no_near_copies(folder: Path) -> None:
    for level in (0, 128, 255):
        save(folder / f"flat_{level:03}.png", np.full((128, 128, 3), level, np.uint8))
    finding = only(looked(folder), "constant")
    assert finding.files == ("flat_000.png", "flat_128.png", "flat_255.png")
    assert finding.severity == "warning"


def test_nothing_but_black_is_an_error(tmp_path: Path) -> None:
    for index in range(9):
        save(tmp_path / "black" / f"{index}.png", np.zeros((128, 128, 3), np.uint8))
    report = looked(tmp_path / "black")
    assert {finding.kind for finding in report.findings} == {"too-few", "constant", "duplicate"}
    assert report.findings[0].problem == "0 images of 9 differ and show anything, 8 must"
    assert "(all there are)" in report.findings[1].problem
    assert report.verdict == "fail"


def test_many_grey_images_are_found_and_a_few_are_not(folder: Path) -> None:
    for index in range(3):
        Image.fromarray(LEAVES[index]).convert("L").save(folder / f"{index:02}.png")
    assert looked(folder).findings == ()
    Image.fromarray(LEAVES[3]).convert("L").save(folder / "03.png")
    finding = only(looked(folder), "grey")
    assert finding.problem == "4 of 12 images are grey in every pixel"
    assert finding.files == ("00.png", "01.png", "02.png", "03.png")


def test_images_smaller_than_the_crop_are_found(folder: Path) -> None:
    save(folder / "tiny.png", draw(99, 64))
    finding = only(looked(folder), "small")
    assert finding.files == ("tiny.png",)
    assert "the 96 px" in finding.problem


# Arrays


def normalized(scale: float = 1.0, shift: float = 0.0) -> NDArray[np.float32]:
    how = SPEC.preprocess
    values = np.stack([preprocess(Image.fromarray(pixels), how) for pixels in LEAVES])
    mean, std = (np.array(numbers, np.float32)[:, None, None] for numbers in (how.mean, how.std))
    return values if scale == 0 else ((values * std + mean) * scale + shift).astype(np.float32)


def test_a_normalized_array_is_fine(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", normalized(0))
    assert looked(tmp_path / "a.npy").findings == ()


@pytest.mark.parametrize(
    ("scale", "shift", "severity", "problem"),
    [
        (1, 0, "warning", "look scaled to 0 to 1 or -1 to 1"),
        (2, -1, "warning", "look scaled to 0 to 1 or -1 to 1"),
        (6, -3, "warning", "normalized with another mean or std"),
        (255, 0, "error", "with other values than the network takes (values reach "),
    ],
)
def test_another_value_range_is_suspected(
    scale: float, shift: float, severity: str, problem: str, tmp_path: Path
) -> None:
    np.savez(tmp_path / "a.npz", images=normalized(scale, shift))
    finding = only(looked(tmp_path / "a.npz"), "value-range")
    assert finding.severity == severity
    assert problem in finding.problem
    assert "(x/255 - mean)/std" in finding.hint


def test_bytes_of_0_to_1_are_suspected(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack(LEAVES) // 128)
    report = looked(tmp_path / "a.npy")
    assert "multiply by 255" in {finding.kind: finding.hint for finding in report.findings}["value-range"]


def test_an_array_of_another_crop_is_a_usage_error(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((9, 3, 64, 64), np.float32))
    with pytest.raises(UsageError, match="preprocessed for 64 px"):
        looked(tmp_path / "a.npy")


# Channel order


def outdoors(count: int) -> NDArray[np.uint8]:
    """Pictures with a sky, warm walls and leaves that are rather yellow than cyan, uint8 (N, 128, 128, 3)."""
    random = np.random.default_rng(0)
    pixels = np.empty((count, 128, 128, 3))
    pixels[:, :40], pixels[:, 40:80], pixels[:, 80:] = (150, 170, 200), (190, 140, 90), (90, 140, 50)
    pixels += random.normal(0, 12, (count, 1, 1, 3)) + random.normal(0, 20, (count, 16, 16, 3)).repeat(
        8, 1
    ).repeat(8, 2)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_swapped_channels_are_suspected(tmp_path: Path) -> None:
    pixels = outdoors(40)
    np.save(tmp_path / "rgb.npy", pixels)
    np.save(tmp_path / "bgr.npy", pixels[..., ::-1])
    assert "channel-order" not in {finding.kind for finding in looked(tmp_path / "rgb.npy").findings}
    (finding,) = [f for f in looked(tmp_path / "bgr.npy").findings if f.kind == "channel-order"]
    assert finding.severity == "warning"
    assert "BGR" in finding.problem


def test_a_preprocessed_array_with_swapped_channels_is_suspected(tmp_path: Path) -> None:
    values = np.stack(
        [preprocess(Image.fromarray(pixels[..., ::-1]), SPEC.preprocess) for pixels in outdoors(40)]
    )
    np.save(tmp_path / "bgr.npy", values)
    assert "channel-order" in {finding.kind for finding in looked(tmp_path / "bgr.npy").findings}


def test_the_shipped_images_give_no_alarm_in_either_order() -> None:
    how = dataclasses.replace(SPEC.preprocess, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    calibrate, check = default_set()
    units = [
        shrink(preprocess(images.load(name), how), 32)  # type: ignore[arg-type]
        for images in (calibrate, check)
        for name in images.names
    ]
    for order in (1, -1):
        assert not looks_swapped([colour_signs(unit[::order]) for unit in units])


def test_swapping_turns_warmth_and_greens_around() -> None:
    unit = outdoors(1)[0].transpose(2, 0, 1).astype(np.float32) / 255
    assert colour_signs(unit) == ColourSigns(1, 1, 1)
    assert colour_signs(unit[::-1]) == ColourSigns(-1, -1, -1)


@pytest.mark.parametrize(
    ("signs", "swapped"),
    [
        (ColourSigns(-1, -1, -1), True),
        (ColourSigns(-1, -1, 0), True),
        (ColourSigns(-1, 0, 0), False),  # blue, and no leaf that could tell: the sea
        (ColourSigns(-1, -1, 1), False),  # but the sky is where it belongs
        (ColourSigns(1, -1, -1), False),
        (ColourSigns(0, 0, 0), False),
    ],
)
def test_one_sign_alone_is_not_enough(signs: ColourSigns, swapped: bool) -> None:
    assert looks_swapped([signs] * 30) == swapped
    assert not looks_swapped([signs] * 4)


def test_a_preference_is_a_sign_test() -> None:
    assert preference([]) == 0
    assert preference([1, -1, 0]) == 0
    assert preference([1, 1, 1, 1, 0, 0]) == 2


@pytest.mark.parametrize("side_px", [1, 7, 33, 96])
def test_shrinking_keeps_the_mean_of_equal_blocks(side_px: int) -> None:
    values = np.random.default_rng(0).random((3, 96, 96), np.float32)
    small = shrink(values, side_px)
    assert small.shape == (3, side_px, side_px)
    if 96 % side_px == 0:
        np.testing.assert_allclose(small.mean(axis=(1, 2)), values.mean(axis=(1, 2)), rtol=1e-5)
    assert shrink(values[:, :16, :16], 32).shape == (3, 16, 16)


# Classes


def test_folders_are_classes_only_where_every_image_lies_in_one() -> None:
    assert folder_classes(["cat/a.png", "dog/b.png"]) == {"cat/a.png": "cat", "dog/b.png": "dog"}
    assert folder_classes(["cat/a.png", "b.png"]) == {}
    assert folder_classes(["cat/a.png", "cat/b.png"]) == {}


@pytest.mark.parametrize(
    ("counts", "skewed"),
    [
        ([50, 50], False),
        ([70, 30], False),
        ([80, 20], True),
        ([60, 20, 20], False),
        ([70, 15, 15], True),
        ([9, *[1] * 40], False),
        ([30, *[2] * 40], True),
        ([100], False),
    ],
)
def test_skew(counts: list[int], skewed: bool) -> None:
    classes = {f"{label}/{i}": label for label, count in enumerate(counts) for i in range(count)}
    found = list(check_skew(classes))
    assert [finding.kind for finding in found] == ["class-skew"] * skewed
    if skewed:
        assert found[0].problem.startswith(f"class 0 has {counts[0]} of {sum(counts)} images")
        rest = f"the other has {counts[1]}" if len(counts) == 2 else f"others {counts[1]} in the middle"
        assert found[0].problem.endswith(rest)


def test_images_without_a_label_are_counted() -> None:
    assert list(check_unlabelled({}, 9)) == list(check_unlabelled({"a": 0}, 1)) == []
    (finding,) = check_unlabelled({"a": 0}, 9)
    assert finding.problem == "8 of 9 images have no label"


def test_a_class_that_is_never_predicted_is_named() -> None:
    labels = {f"{label}{i}": label for label in range(3) for i in range(3)}
    predictions = {name: min(label, 1) for name, label in labels.items()}
    (finding,) = check_predictions(predictions, labels, ["ant", "bee", "cow"])
    assert finding.problem.endswith("class 2 (cow)")
    assert list(check_predictions(predictions, {}, ["ant", "bee", "cow"])) == []
    assert list(check_predictions(labels, labels, ["ant", "bee", "cow"])) == []


def test_one_class_for_all_images_is_a_warning() -> None:
    (finding,) = check_predictions(dict.fromkeys("abc", 1), {}, ["ant", "bee"])
    assert finding.problem == "the network takes all 3 images for class bee"


def test_labels_that_contradict_one_another_are_an_error_with_their_rows(
    folder: Path, tmp_path: Path
) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("00.png,1\n01.png,2\n00.png,3\n")
    finding = only(looked(folder, labels_csv=csv), "labels")
    assert finding.severity == "error"
    assert "00.png is class 1 in line 1, but 3 in line 3" in finding.problem


def test_rows_without_an_image_and_images_without_a_row_are_warnings(folder: Path, tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("00.png,1\n00.png,1\n01.png,2\ngone.png,3\n")
    report = looked(folder, labels_csv=csv)
    assert [finding.kind for finding in report.findings] == ["labels", "unlabelled"]
    assert report.findings[0].files == ("gone.png (line 4)",)
    assert "10 of 12 images have no label" in report.findings[1].problem
    assert report.verdict == "pass"
    assert looked(folder, labels_csv=csv, strict=True).verdict == "fail"


def test_skewed_class_folders_are_found(folder: Path) -> None:
    for index, path in enumerate(sorted(folder.iterdir())):
        place = folder / ("cat" if index < 10 else "dog")
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    assert only(looked(folder), "class-skew").problem.startswith("class cat has 10 of 12 images (83 %)")


# Ranges


def test_ranges_are_compared_by_the_bound_that_differs_most() -> None:
    first = {"input": (-1.0, 1.0), "a": (0.0, 6.0), "b": (-1.0, 3.0), "c": (0.0, 0.0)}
    second = {"input": (-1.0, 1.0), "a": (0.0, 6.0), "b": (-3.0, 3.0), "c": (0.0, 0.0)}
    stability = compare_ranges(first, second, 10)
    assert (stability.images, stability.tensors, stability.worst_layer) == (10, 3, "b")
    assert stability.worst_percent == pytest.approx(40)
    assert stability.median_percent == 0
    (finding,) = check_dead(first, second)
    assert finding.problem == "1 layer gives only zeros: c"


@pytest.mark.parametrize(("more", "hint"), [(False, "give more images"), (True, "raise calibration_images")])
def test_ranges_that_differ_ask_for_more_images(more: bool, hint: str) -> None:
    steady = compare_ranges({"input": (0, 1), "a": (0, 1)}, {"input": (0, 1), "a": (0, 1.05)}, 8)
    assert list(check_ranges(steady, more)) == []
    shaky = compare_ranges({"input": (0, 1), "a": (0, 1)}, {"input": (0, 1), "a": (0, 1.2)}, 8)
    (finding,) = check_ranges(shaky, more)
    assert "18.2 % apart (median)" in finding.problem
    assert hint in finding.hint


def test_a_network_looks_at_two_halves(folder: Path) -> None:
    report = looked(folder, ranges=True)
    assert report.ranges is not None
    assert (report.ranges.images, report.ranges.tensors) == (8, 64)
    assert 0 < report.ranges.median_percent < report.ranges.worst_percent
    assert {finding.kind for finding in report.findings} <= {"unstable-ranges"}


# The report


def test_a_finding_shows_a_few_files_and_counts_the_rest() -> None:
    finding = Finding("warning", "grey", "many are grey", "", tuple(f"{i}.png" for i in range(2000)))
    assert finding.line == "many are grey: 0.png, 1.png, 2.png, 3.png, 4.png and 1,995 more"
    assert len(finding.to_json()["files"]) == 2000
    few = dataclasses.replace(finding, files=finding.files[:SHOWN_FILES])
    assert few.line.endswith("4.png")
    assert dataclasses.replace(finding, files=()).line == "many are grey"


def test_errors_come_first(folder: Path) -> None:
    save(folder / "tiny.png", draw(99, 64))
    (folder / "broken.jpg").write_bytes(b"")
    report = looked(folder)
    assert [finding.severity for finding in report.findings] == ["error", "warning"]
