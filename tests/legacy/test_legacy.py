"""Our files in runtimes of 2023, as devices still have them: `make test-legacy`.

Runs in a virtual environment of its own (tests/legacy/requirements.txt: Python 3.11, numpy < 2, tflite-runtime
2.14, onnxruntime 1.16, no torch and no onnx), on bundles exported before. What a bundle's self-check recorded with
today's runtimes has to come out again.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BUNDLES = [Path(folder) for folder in os.environ.get("LEGACY_BUNDLES", "").split(":") if folder]

if not BUNDLES:
    pytest.skip("no bundles in LEGACY_BUNDLES; make test-legacy", allow_module_level=True)

from mobilenet_export import images  # noqa: E402
from mobilenet_export.agent.check import MOST_STEPS  # noqa: E402
from mobilenet_export.artifact import Artifact  # noqa: E402
from mobilenet_export.bundle import read_bundle  # noqa: E402
from mobilenet_export.runtimes.onnxruntime import RUNTIME as ONNX_RUNTIME  # noqa: E402
from mobilenet_export.runtimes.tflite_runtime import RUNTIME as TFLITE_RUNTIME  # noqa: E402
from mobilenet_export.spec import spec_from_table  # noqa: E402

FLOAT_TOLERANCE = 1e-5
"""Of fp32 and fp16, relative to the norm of the outputs; only the order of additions differs (2e-7)."""


def files(suffix: str) -> list[Any]:
    """Every listed file of that suffix, as (bundle, entry)."""
    found = [(folder, entry) for folder in BUNDLES for entry in read_bundle(folder).document["files"]]
    return [
        pytest.param(folder, entry, id=f"{folder.name}-{entry['path']}")
        for folder, entry in found
        if entry["path"].endswith(suffix)
    ]


@cache
def batch_of(folder: Path) -> np.ndarray:
    """The bundle's self-check images, preprocessed as its document says."""
    document = read_bundle(folder).document
    names = [entry["image"] for entry in document["self_check"]]
    for entry in document["self_check"]:
        data = (folder / "self_check" / entry["image"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    image_set = images.ImageSet.open(folder / "self_check").subset(names)
    spec = spec_from_table(dict(document["model"]))
    ((_, batch),) = images.batches(image_set, spec.preprocess, len(names))
    return batch


def expected(folder: Path, file: str) -> list[dict[str, Any]]:
    table = json.loads((folder / "self_check" / "expected.json").read_text(encoding="utf-8"))
    return list(table[file].values())


def assert_expected(folder: Path, entry: dict[str, Any], outputs: np.ndarray, steps: float) -> None:
    recorded = expected(folder, entry["path"])
    wanted = np.float32([image["output"] for image in recorded])
    assert outputs.shape == wanted.shape
    if entry["precision"] == "int8":
        assert np.abs(outputs - wanted).max() <= (steps + 0.01) * step_of(wanted)
    else:
        assert np.linalg.norm(outputs - wanted) <= FLOAT_TOLERANCE * np.linalg.norm(wanted)
    for scores, image in zip(outputs, recorded, strict=True):
        best, runner_up = (candidate["score"] for candidate in image["top5"][:2])
        if best - runner_up > 2 * steps * step_of(wanted):
            assert scores.argmax() == image["top5"][0]["class"]


def step_of(outputs: np.ndarray) -> float:
    """The smallest distance of two outputs: of int8, one step of the logits' scale."""
    gaps = np.diff(np.unique(outputs))
    return float(gaps[gaps > 1e-6].min())


def test_this_is_an_environment_of_2023() -> None:
    assert int(np.__version__.split(".")[0]) < 2
    assert TFLITE_RUNTIME.missing() is None
    assert TFLITE_RUNTIME.version() == "2.14.0"
    for package in ("torch", "onnx", "ai_edge_litert"):
        assert importlib.util.find_spec(package) is None, package


def test_there_is_something_to_check() -> None:
    assert files(".tflite")
    assert files(".onnx")


@pytest.mark.parametrize(("folder", "entry"), files(".tflite"))
def test_a_tflite_file_gives_the_recorded_outputs_in_tflite_runtime(
    folder: Path, entry: dict[str, Any]
) -> None:
    session = TFLITE_RUNTIME.open(read_bundle(folder).artifact(entry["path"]))
    assert_expected(folder, entry, session.run(batch_of(folder)), MOST_STEPS)


def onnx_outputs(artifact: Artifact, batch: np.ndarray) -> Iterator[np.ndarray]:
    """All images at once, and each alone: the batch is open."""
    assert ONNX_RUNTIME.version().startswith("1.16.")
    session = ONNX_RUNTIME.open(artifact)
    yield session.run(batch)
    yield np.concatenate([session.run(image) for image in np.split(batch, len(batch))])


@pytest.mark.parametrize(("folder", "entry"), files(".onnx"))
def test_an_onnx_file_gives_the_recorded_outputs_in_onnxruntime_1_16(
    folder: Path, entry: dict[str, Any]
) -> None:
    for outputs in onnx_outputs(read_bundle(folder).artifact(entry["path"]), batch_of(folder)):
        assert_expected(folder, entry, outputs, steps=0)


@pytest.mark.parametrize("folder", BUNDLES, ids=lambda folder: folder.name)
def test_a_bundle_checks_itself(folder: Path) -> None:
    """As on a device of 2023: numpy 1, tflite-runtime 2.14 and onnxruntime 1.16."""
    done = subprocess.run(
        [sys.executable, "-I", "run.py", "check", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    report = json.loads(done.stdout)
    assert report["runtimes"]["tflite_runtime"] == "2.14.0"
    assert {row["file"] for row in report["rows"]} == {
        e["path"] for e in read_bundle(folder).document["files"]
    }
