"""Our files in MediaPipe's ImageClassifier, which learns all it does from their metadata: `make test-mediapipe`.

Runs in a virtual environment of its own (tests/mediapipe/requirements.txt), on bundles exported before. It gets the
crop that our preprocessing makes, so that its own resize has nothing to do.
"""

import dataclasses
import os
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BUNDLES = [Path(folder) for folder in os.environ.get("MEDIAPIPE_BUNDLES", "").split(":") if folder]

if not BUNDLES:
    pytest.skip("no bundles in MEDIAPIPE_BUNDLES; make test-mediapipe", allow_module_level=True)

import mediapipe  # noqa: E402
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata_schema  # noqa: E402
from mediapipe.tasks.metadata import schema_py_generated as schema  # noqa: E402
from mediapipe.tasks.python import BaseOptions, vision  # noqa: E402

from mobilenet_export import images  # noqa: E402
from mobilenet_export.bundle import Bundle, read_bundle  # noqa: E402
from mobilenet_export.runtimes.litert import LiteRuntime  # noqa: E402
from mobilenet_export.shipped import shipped_path  # noqa: E402
from mobilenet_export.spec import ModelSpec, spec_from_table  # noqa: E402

PHOTOS = 20
TOLERANCE = 1e-4
"""It computes `x·scale + offset` where we compute `(x/255 - mean)/std`."""


def files(*, precision: str, io: str) -> list[Any]:
    """Every .tflite file of that kind, as (bundle, file name)."""
    found = [(folder, entry) for folder in BUNDLES for entry in read_bundle(folder).document["files"]]
    return [
        pytest.param(folder, entry["path"], id=entry["path"])
        for folder, entry in found
        if (entry["format"], entry["precision"], entry["io"]) == ("tflite", precision, io)
    ]


def spec_of(bundle: Bundle) -> ModelSpec:
    return spec_from_table(dict(bundle.document["model"]))


def one_scale(spec: ModelSpec) -> bool:
    """Whether all channels are normalized alike, which is all that MediaPipe does."""
    return len(set(spec.preprocess.mean)) == len(set(spec.preprocess.std)) == 1


@cache
def crops(folder: Path) -> np.ndarray:
    """Photos as the bundle's preprocessing crops them, uint8 (20, H, W, 3)."""
    image_set = images.ImageSet.open(Path(os.environ.get("DATA") or shipped_path("calibration", "default")))
    chosen = image_set.subset(image_set.names[:: len(image_set) // PHOTOS][:PHOTOS])
    as_it_is = dataclasses.replace(spec_of(read_bundle(folder)).preprocess, mean=(0, 0, 0), std=(1, 1, 1))
    ((_, batch),) = images.batches(chosen, as_it_is, PHOTOS)
    return np.ascontiguousarray(np.rint(batch * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def classifier(path: Path) -> vision.ImageClassifier:
    options = vision.ImageClassifierOptions(
        base_options=BaseOptions(model_asset_path=str(path)), max_results=5, score_threshold=-1e9
    )
    return vision.ImageClassifier.create_from_options(options)


def classified(path: Path, pictures: np.ndarray) -> Iterator[list[Any]]:
    """The best five classes of each picture."""
    with closing(classifier(path)) as model:
        for picture in pictures:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            yield model.classify(image).classifications[0].categories


def assert_as_in_litert(folder: Path, name: str) -> None:
    """The same best five classes with our labels, at scores that differ by the tolerance at most."""
    bundle, pictures = read_bundle(folder), crops(folder)
    how = spec_of(bundle).preprocess
    mean, std = np.float32(how.mean), np.float32(how.std)
    batch = ((pictures / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    truth = LiteRuntime().open(bundle.artifact(name)).run(np.ascontiguousarray(batch, np.float32))
    labels = bundle.labels()
    for scores, categories in zip(truth, classified(folder / name, pictures), strict=True):
        best = np.sort(scores)[::-1][:5]
        assert len(categories) == np.count_nonzero(best >= 1 / len(scores))  # the metadata's threshold
        for found, score in zip(categories, best, strict=False):
            assert found.category_name == labels[found.index]
            assert abs(found.score - scores[found.index]) <= TOLERANCE
            assert abs(found.score - score) <= TOLERANCE


@pytest.mark.parametrize(("folder", "name"), files(precision="fp32", io="float32"))
def test_a_float_file_gives_what_litert_gives(folder: Path, name: str) -> None:
    if not one_scale(spec_of(read_bundle(folder))):
        with pytest.raises(NotImplementedError, match="Per-channel image normalization is not available"):
            list(classified(folder / name, crops(folder)[:1]))
        return
    assert_as_in_litert(folder, name)


@pytest.mark.parametrize(
    ("folder", "name"), [*files(precision="fp32", io="uint8"), *files(precision="int8", io="uint8")]
)
def test_a_file_of_raw_pixels_gives_what_litert_gives(folder: Path, name: str) -> None:
    assert_as_in_litert(folder, name)


@pytest.mark.parametrize(("folder", "name"), files(precision="int8", io="int8"))
def test_int8_input_is_refused(folder: Path, name: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)type"):
        list(classified(folder / name, crops(folder)[:1]))


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_the_metadata_says_what_the_bundle_says(folder: Path) -> None:
    bundle = read_bundle(folder)
    spec = spec_of(bundle)
    for entry in bundle.document["files"]:
        if entry["format"] != "tflite":
            continue
        data = (folder / entry["path"]).read_bytes()
        card = metadata(data)
        (network,) = card.subgraphMetadata
        (image,), (scores,) = network.inputTensorMetadata, network.outputTensorMetadata
        assert card.name.decode() == spec.name
        assert card.description.decode() == spec.summary
        assert spec.weights
        assert (card.author.decode(), card.license.decode()) == (spec.weights.source, spec.weights.licence)
        assert image.content.contentProperties.colorSpace == metadata_schema.ColorSpaceType.RGB
        (labels,) = scores.associatedFiles
        (threshold,) = scores.processUnits
        assert threshold.options.globalScoreThreshold == np.float32(1 / spec.classes)
        assert labels.type == metadata_schema.AssociatedFileType.TENSOR_AXIS_LABELS
        options = image.processUnits[0].options
        fed = (np.array([0.0, 255.0])[:, np.newaxis] - options.mean) / options.std
        np.testing.assert_allclose(fed, expected_range(spec, entry), rtol=1e-6)
        np.testing.assert_allclose([image.stats.min, image.stats.max], fed, rtol=1e-6)


def expected_range(spec: ModelSpec, entry: dict[str, Any]) -> np.ndarray:
    """What black and white pixels stand for at the file's input: (2, 3)."""
    if entry["io"] != "float32":
        taken = np.array([0.0, 255.0]) - (128 if entry["io"] == "int8" else 0)
        steps = taken - entry["input"]["zero_point"]
        return np.repeat(steps[:, np.newaxis] * entry["input"]["scale"], 3, axis=1)
    return (np.array([0.0, 1.0])[:, np.newaxis] - spec.preprocess.mean) / np.array(spec.preprocess.std)


def metadata(data: bytes) -> Any:
    """A file's metadata, as the code that MediaPipe's own schema generates reads it."""
    model = schema.Model.GetRootAs(data, 0)
    entries = map(model.Metadata, range(model.MetadataLength()))
    (found,) = (entry for entry in entries if entry.Name() == b"TFLITE_METADATA")
    buffer = model.Buffers(found.Buffer()).DataAsNumpy().tobytes()
    assert metadata_schema.ModelMetadata.ModelMetadataBufferHasIdentifier(buffer, 0)
    return metadata_schema.ModelMetadataT.InitFromObj(metadata_schema.ModelMetadata.GetRootAs(buffer, 0))
