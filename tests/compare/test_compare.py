"""What `make compare` prints is measured on files of which the answer is known."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from compare import (
    Candidate,
    Row,
    Work,
    count_convolutions,
    images_to_measure,
    run_peer,
    speed,
    verdict,
)
from conftest import tiny_batch, tiny_graph
from PIL import Image

from mobilenet_export.formats.onnx import write_float, write_int8
from mobilenet_export.latency import LatencyRow
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.recipe import find_recipe
from mobilenet_export.report import DriftRow
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.spec import find_spec


def test_convolutions_are_counted_by_what_they_compute_with() -> None:
    graph = tiny_graph()
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), (-1.0, 1.0))
    int8 = write_int8(quantize_graph(graph, ranges, saturation_safe=True), "float32")
    spec = dataclasses.replace(find_spec("v2"), resolution_px=graph.input_shape[1])
    assert count_convolutions(Candidate("int8", "ours", "onnx", int8), spec) == (3, 3)
    fp32 = Candidate("fp32", "fp32", "onnx", write_float(graph, "fp32"))
    assert count_convolutions(fp32, spec) == (0, 3)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import no_such_quantizer", "ModuleNotFoundError: No module named 'no_such_quantizer'"),
        ("import os; os.abort()", "it ended with code -6"),
        ("print('done, but there is no file')", "it wrote no file"),
    ],
)
def test_a_peer_that_fails_says_so_on_one_line(script: str, reason: str, tmp_path: Path) -> None:
    peer = Candidate("peer", "peer", "tflite")
    made = run_peer(peer, [sys.executable, "-c", script], tmp_path / "out.tflite")
    assert made == dataclasses.replace(peer, failure=reason)


def test_what_was_calibrated_with_is_not_measured_with(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(120):
        Image.fromarray(random.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / f"{index}.png")
    work = Work(find_spec("v2"), ("int8",), tmp_path, tmp_path, None, None, Path(), Path(), 1)
    found, _, labels = images_to_measure(work)
    assert len(found) == 120 - find_recipe("int8").calibration_images
    assert labels == {}


def measured(name: str, role: str, agreement: float, times_ms: list[float]) -> Row:
    drift = DriftRow("f", "onnx", "int8", "r", "CPU", None, None, None, None, agreement, 20.0, 1.0, 0.0, 0.0)
    latency, base = (
        LatencyRow("f", "int8", "r", "CPU", 1, 1, tuple((ms,) for ms in rounds))
        for rounds in (times_ms, [10.0, 20.0, 40.0])
    )
    return Row(Candidate(name, role, "onnx", b"1", 1.0), drift, None, (3, 3), latency, base)


def test_ours_is_set_beside_the_fastest_peer_that_is_correct_and_beside_each() -> None:
    ours = measured("mnx", "ours", 95.0, [5.0, 10.0, 20.0])
    wrong = measured("wrong", "peer", 50.0, [1.0, 2.0, 4.0])
    right = measured("right", "peer", 96.0, [10.0, 20.0, 40.0])
    assert speed(ours.latency, ours.base) == "2.00× (2.00 to 2.00)"
    assert list(verdict([ours, wrong, right])) == [
        "mnx in r: 2.00× (2.00 to 2.00) as fast as fp32",
        "  0.20× (0.20 to 0.20) as fast as wrong; ahead in agree (95.0 % to 50.0 %); behind in nothing",
        "  2.00× (2.00 to 2.00) as fast as right (the fastest that agrees on 90 % or more); ahead in nothing; "
        "behind in agree (96.0 % to 95.0 %)",
    ]
