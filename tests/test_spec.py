"""The variants: that what ships can be read, and that what cannot be meant is refused."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest

from mobilenet_export.errors import DamagedInputError, ExitCode, UsageError
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import (
    ModelSpec,
    check_resolution,
    find_spec,
    read_spec,
    resize_spec,
    spec_from_table,
    spec_paths,
    spec_to_table,
)

SHIPPED = {path.stem: read_spec(path) for path in spec_paths()}


def test_the_shipped_variants() -> None:
    assert set(SHIPPED) == {
        "mobilenet_v1_100_224",
        "mobilenet_v2_100_224",
        "mobilenet_v1_tutorial",
        "mobilenet_v2_tutorial",
        "mobilenet_v2_tutorial_as_coded",
    }
    assert [SHIPPED[name].alias for name in ("mobilenet_v1_100_224", "mobilenet_v2_100_224")] == ["v1", "v2"]


@pytest.mark.parametrize("spec", SHIPPED.values(), ids=SHIPPED.keys())
def test_a_shipped_variant_is_complete(spec: ModelSpec) -> None:
    assert SHIPPED[spec.name] is spec, "the file has the variant's name"
    assert spec.summary
    assert "\n" not in spec.summary
    if spec.labels:
        names = shipped_path("models", *spec.labels.split("/")).read_text(encoding="utf-8").splitlines()
        assert len(names) == spec.classes
    if spec.weights:
        file = shipped_path("models", "weights", spec.weights.file)
        assert hashlib.sha256(file.read_bytes()).hexdigest() == spec.weights.sha256
        card = shipped_path("models", *spec.weights.card.split("/")).read_text(encoding="utf-8")
        for fact in (
            spec.weights.file,
            spec.weights.sha256,
            spec.weights.licence,
            str(spec.weights.top1_percent),
        ):
            assert fact in card
        assert f"{file.stat().st_size:,} bytes, {spec.parameters:,} parameters" in card


@pytest.mark.parametrize("spec", SHIPPED.values(), ids=SHIPPED.keys())
def test_a_variant_survives_json(spec: ModelSpec) -> None:
    assert spec_from_table(json.loads(json.dumps(spec_to_table(spec)))) == spec


def test_an_alias_and_a_path_find_the_same_variant() -> None:
    assert find_spec("v2") == find_spec("mobilenet_v2_100_224") == find_spec(str(spec_paths()[2]))


def test_an_unknown_variant_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown arch: mobilenet_v2_tutorail") as caught:
        find_spec("mobilenet_v2_tutorail")
    assert caught.value.hint.startswith("did you mean mobilenet_v2_tutorial? ")
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_missing_toml_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        find_spec(str(tmp_path / "none.toml"))


BAD_LINES = {
    'padding = "tensorflow"': ("padding = 3", "padding must be symmetric or tensorflow"),
    "width = 1.0": ("width = 2.0", "width must be within 0.25 to 1.4"),
    "classes = 1000": ("classes = 1000.5", "classes must be a whole number"),
    "resolution_px = 224": ("resolution_px = 225", "resolution 225 px is not 96 to 320"),
    "batch_norm_eps = 1e-3": ("batch_norm_eps = true", "batch_norm_eps must be a number"),
    'alias = "v1"': ("softmax = 1", "softmax must be true or false"),
    'architecture = "mobilenet_v1"': ("", "missing field 'architecture'"),
    "macs = 568740352": ("mac = 568740352", "unknown field mac, did you mean macs?"),
    'labels = "labels/imagenet1k.txt"': ('home = "/"', "unknown field home"),
    'interpolation = "bilinear"': (
        'interpolation = "lanczos"',
        "preprocess.interpolation must be bilinear or bicubic",
    ),
    "std = [0.5, 0.5, 0.5]": ("std = [0.5, 0.5, 0.0]", "preprocess.std must be 3 numbers"),
    "mean = [0.5, 0.5, 0.5]": ("mean = [127.5]", "preprocess.mean must be 3 numbers"),
    "resize_px = 256": ("resize_px = 200", "preprocess.resize_px must not be smaller than the crop"),
    "top1_percent = 70.9": ('top1_percent = "70.9"', "weights.top1_percent must be a number"),
    "fp16_sqnr_db = 55.0": (
        "fp61_sqnr_db = 55.0",
        "unknown field limits.fp61_sqnr_db, did you mean limits.fp16_sqnr_db?",
    ),
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_wrong_field_is_named(line: str, tmp_path: Path) -> None:
    text = spec_paths()[0].read_text(encoding="utf-8")
    wrong, message = BAD_LINES[line]
    assert line in text
    (tmp_path / "x.toml").write_text(text.replace(line, wrong, 1), encoding="utf-8")
    with pytest.raises(DamagedInputError) as caught:
        read_spec(tmp_path / "x.toml")
    assert message in caught.value.message
    assert caught.value.exit_code is ExitCode.DAMAGED
    assert caught.value.hint


@pytest.mark.parametrize("content", [b"", b"name = ", b"\xff\xfe", b"preprocess = 3\nresolution_px = 224"])
def test_what_is_no_variant_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(DamagedInputError, match=r"x\.toml: "):
        read_spec(tmp_path / "x.toml")


def test_the_same_size_is_the_same_variant() -> None:
    spec = find_spec("v1")
    assert resize_spec(spec, 1.0, 224, 1000) is spec
    assert resize_spec(spec, None, None, None) is spec


def test_another_resolution_keeps_weights_and_the_ratio_of_the_crop() -> None:
    spec = resize_spec(find_spec("v2"), None, 160, None)
    assert (spec.name, spec.alias) == ("mobilenet_v2_100_160", None)
    assert (spec.preprocess.resize_px, spec.preprocess.crop_px) == (183, 160)
    assert spec.weights
    assert spec.parameters
    assert spec.macs is None
    assert spec.limits.int8_sqnr_db is None


@pytest.mark.parametrize("change", [{"width": 0.5}, {"classes": 10}])
def test_another_network_drops_what_was_published(change: dict[str, float]) -> None:
    wanted = {"width": None, "resolution_px": None, "classes": None} | change
    spec = resize_spec(find_spec("v1"), **wanted)  # type: ignore[arg-type]
    assert spec.weights is None
    assert spec.parameters is None
    assert (spec.labels is None) == ("classes" in change)


@pytest.mark.parametrize("resolution_px", [64, 100, 225, 352, 0, -224])
def test_a_resolution_without_a_clean_feature_map_is_refused(resolution_px: int) -> None:
    with pytest.raises(UsageError, match=f"resolution {resolution_px} px") as caught:
        check_resolution(find_spec("v1"), resolution_px)
    assert "96, 128, 160" in caught.value.hint


def test_a_tutorial_takes_one_resolution() -> None:
    with pytest.raises(UsageError, match="takes 224 px only, not 192"):
        resize_spec(find_spec("mobilenet_v1_tutorial"), None, 192, None)
    assert resize_spec(find_spec("mobilenet_v1_tutorial"), None, None, 5).name == "mobilenet_v1_tutorial"
    assert (
        resize_spec(find_spec("mobilenet_v1_tutorial"), 0.5, None, 5).name == "mobilenet_v1_tutorial_050_224"
    )


@pytest.mark.parametrize(("width", "classes", "message"), [(2.0, None, "width 2 "), (None, 1, "1 classes")])
def test_a_size_out_of_range_is_refused(width: float | None, classes: int | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resize_spec(find_spec("v1"), width, None, classes)


def test_a_variant_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_spec("v1").width = 0.5  # type: ignore[misc]
