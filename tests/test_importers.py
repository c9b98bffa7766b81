"""Files of real Keras and TensorFlow give their logits here; `make test-import` writes them first."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from mobilenet_export.architectures.checkpoint import Fitted, fit, load_embedded, load_fitted
from mobilenet_export.architectures.checkpoint_file import load_checkpoint
from mobilenet_export.capture import capture_module
from mobilenet_export.formats.onnx import FORMAT
from mobilenet_export.spec import Given, find_spec

pytestmark = pytest.mark.slow

FOLDER = Path(os.environ.get("IMPORT_FILES", "build/import"))
FILES = sorted(FOLDER.glob("*.npz"))
TOLERANCE = 1e-4
"""Of the largest logit: other libraries add in another order."""


def read(record: Path) -> tuple[Fitted, Any, Any]:
    """The file beside a record, the image as we take it, and the logits of the file's own library."""
    found = np.load(record)
    picture = np.ascontiguousarray(found["image"].transpose(2, 0, 1)[np.newaxis])
    checkpoint = load_checkpoint(record.with_suffix(""))
    return fit(checkpoint, None, Given(resolution_px=picture.shape[2])), picture, found["logits"]


def test_there_are_files() -> None:
    assert len(FILES) >= 20


@pytest.mark.parametrize("record", FILES, ids=lambda record: record.stem)
def test_a_file_gives_the_logits_of_its_own_library(record: Path) -> None:
    fitted, picture, theirs = read(record)
    theirs = theirs[1:] if fitted.background else theirs
    library, architecture, width = record.stem.split("_")[:3]
    assert fitted.layout.name == f"{library}_{architecture}"
    assert fitted.spec.classes == len(theirs)
    if width[0] in "01" and width[1:2] == ".":
        assert fitted.spec.width == float(".".join(width.split(".")[:2]))
    module = load_fitted(fitted).module
    with torch.no_grad():
        ours = module(torch.from_numpy(picture))[0].numpy()
    assert np.abs(ours - theirs).max() < TOLERANCE * np.abs(theirs).max()
    if record.suffixes[-2] == ".h5":  # the same weights as in the .keras
        return
    graph = capture_module(module, "imported", fitted.spec.input_shape)
    session = onnxruntime.InferenceSession(FORMAT.write_float(graph, "fp32"))
    (exported,) = session.run(None, {"input": picture})
    assert np.abs(exported[0] - theirs).max() < TOLERANCE * np.abs(theirs).max()


def test_a_frozen_graph_of_googles_weights_is_what_ships() -> None:
    loaded = load_fitted(read(FOLDER / "slim_v1_google.pb.npz")[0]).module.state_dict()
    for key, tensor in load_embedded(find_spec("v1")).items():
        assert torch.equal(loaded[key], tensor), key
