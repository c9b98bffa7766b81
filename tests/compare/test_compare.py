"""What `make compare` prints is measured on files of which the answer is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from compare import (
    Candidate,
    Convolutions,
    Speed,
    Work,
    count_convolutions,
    images_to_measure,
    run_peer,
    speed_of,
)
from conftest import tiny_batch, tiny_graph
from PIL import Image

from mobilenet_export.formats.onnx import write_float, write_int8
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.recipe import find_recipe
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.spec import find_spec


def test_convolutions_are_counted_by_what_they_compute_with() -> None:
    graph = tiny_graph()
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), (-1.0, 1.0))
    int8 = write_int8(quantize_graph(graph, ranges, saturation_safe=True), "float32")
    assert count_convolutions(int8) == Convolutions(3, 3)
    assert count_convolutions(write_float(graph, "fp32")) == Convolutions(0, 3)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import no_such_quantizer", "ModuleNotFoundError: No module named 'no_such_quantizer'"),
        ("import os; os.abort()", "it ended with code -6"),
        ("print('done, but there is no file')", "it wrote no file"),
    ],
)
def test_a_peer_that_fails_says_so_on_one_line(script: str, reason: str, tmp_path: Path) -> None:
    made = run_peer("peer", [sys.executable, "-c", script], tmp_path / "out.onnx")
    assert made == Candidate("peer", ours=False, failure=reason)


def test_what_was_calibrated_with_is_not_measured_with(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(120):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"{index}.png")
    work = Work(find_spec("v2"), ("int8",), tmp_path, tmp_path, None, None, Path(), Path(), 1)
    found, _, labels = images_to_measure(work)
    assert len(found) == 120 - find_recipe("int8").calibration_images
    assert labels == {}


def test_speed_is_compared_round_by_round() -> None:
    slowing_down = np.array([1.0, 2.0, 4.0, 8.0])
    assert speed_of(slowing_down, slowing_down / 2) == Speed(2.0, 0.0)
