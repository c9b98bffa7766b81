"""TFLite Metadata: what a TFLite file says about itself, a flatbuffer within the flatbuffer.

The file's entry `TFLITE_METADATA` holds it. Class names are a file of their own, in an uncompressed zip that
follows the model in the same file. A table is declared here as its fields by their number, which is their order in
the schema, from 0; a union takes two, its type and its value.

Source: tensorflow/tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs, version 1.1.0, of which
only what is in 1.0.0 is used.
"""

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from mobilenet_export.artifact import Normalization
from mobilenet_export.model_card import ModelCard

ENTRY = "TFLITE_METADATA"
_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"
_LABELS = "labels.txt"
_TENSOR_AXIS_LABELS = 2
_IMAGE_PROPERTIES = 2
_RGB = 1
_NORMALIZATION, _SCORE_THRESHOLDING = 1, 3


@dataclass(frozen=True, slots=True)
class _Table:
    """Fields by number: text, a byte, a float, a vector of floats or of tables, or a table."""

    fields: Mapping[int, Any]


@dataclass(frozen=True, slots=True)
class _Floats:
    values: Sequence[float] | NDArray[Any]


def describe(card: ModelCard, normalization: Normalization, *, probabilities: bool) -> bytes:
    """Return the metadata of a classifier with one input and one output.

    Args:
        card: What the file says about itself.
        normalization: By which pixels become what its input stands for.
        probabilities: Whether it ends in a softmax. Those below chance, 1 / classes, are then marked as not worth
            showing; logits have no such threshold.
    """
    network = _Table({0: card.name, 2: [_image(card, normalization)], 3: [_scores(card, probabilities)]})
    model = _Table(
        {
            0: card.name,
            1: card.description,
            3: [network],
            **({4: card.author} if card.author else {}),
            **({5: card.licence} if card.licence else {}),
            7: _PARSER_VERSION,
        }
    )
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write(builder, model), _IDENTIFIER)
    return bytes(builder.Output())


def append_labels(model: bytes, card: ModelCard) -> bytes:
    """Return the file followed by its class names in a zip; the same names make the same bytes."""
    whole = io.BytesIO(model)
    with zipfile.ZipFile(whole, "a") as archive:
        entry = zipfile.ZipInfo(_LABELS)  # dated 1980
        archive.writestr(entry, "".join(f"{label}\n" for label in card.labels))
    return whole.getvalue()


def _image(card: ModelCard, normalization: Normalization) -> _Table:
    mean, std = 255 * np.array(normalization.mean), 255 * np.array(normalization.std)
    crop = card.preprocess
    text = (
        f"RGB; short side resized to {crop.resize_px} px ({crop.interpolation}), centre of {crop.crop_px} px"
    )
    content = _Table({0: _IMAGE_PROPERTIES, 1: _Table({0: _RGB})})
    stats = _Table({0: _Floats((255 - mean) / std), 1: _Floats((0 - mean) / std)})
    unit = _Table({0: _NORMALIZATION, 1: _Table({0: _Floats(mean), 1: _Floats(std)})})
    return _Table({0: "image", 1: text, 3: content, 4: [unit], 5: stats})


def _scores(card: ModelCard, probabilities: bool) -> _Table:
    text = "score of each class, in the order of the labels"
    labels = _Table({0: _LABELS, 1: "class names", 2: _TENSOR_AXIS_LABELS})
    if not probabilities:
        return _Table({0: "logits", 1: text, 6: [labels]})
    unit = _Table({0: _SCORE_THRESHOLDING, 1: _Table({0: 1 / len(card.labels)})})
    stats = _Table({0: _Floats([1.0]), 1: _Floats([0.0])})
    return _Table({0: "probability", 1: text, 4: [unit], 5: stats, 6: [labels]})


def _write(builder: Any, value: Any) -> int:
    """Write a value that a table only refers to, and return where it is."""
    match value:
        case str():
            return int(builder.CreateString(value))
        case _Floats(values):
            return int(builder.CreateNumpyVector(np.asarray(values, np.float32)))
        case list():
            offsets = [_write(builder, table) for table in value]
            builder.StartVector(4, len(offsets), 4)
            for offset in reversed(offsets):
                builder.PrependUOffsetTRelative(offset)
            return int(builder.EndVector())
        case _:
            return _write_table(builder, value)


def _write_table(builder: Any, table: _Table) -> int:
    within = {slot: value for slot, value in table.fields.items() if isinstance(value, int | float)}
    offsets = {slot: _write(builder, table.fields[slot]) for slot in table.fields if slot not in within}
    builder.StartObject(max(table.fields) + 1)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, value in within.items():
        prepend = builder.PrependByteSlot if isinstance(value, int) else builder.PrependFloat32Slot
        prepend(slot, value, 0)
    return int(builder.EndObject())
