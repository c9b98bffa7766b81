"""A checkpoint whose channels are scaled at random computes the same in fp32, and has to cost int8 nothing.

Part of `make accuracy`: half of the photos calibrate, the other half checks.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobilenet_export import images
from mobilenet_export.formats.onnx import FORMAT
from mobilenet_export.graph import Activation, Conv2d, Graph, activation_bounds
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline import ExportRequest, ValidateRequest, export, validate
from mobilenet_export.pipeline.evidence import values_of
from mobilenet_export.pipeline.reference import Origin, capture, open_reference
from mobilenet_export.quantize.calibrate import observe
from mobilenet_export.quantize.equalize import equalize_all, rescale
from mobilenet_export.recipe import find_recipe
from mobilenet_export.report import DriftRow
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.spec import find_spec

DATA = os.environ.get("DATA")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="no photos; make accuracy DATA=DIR LABELS=CSV"),
]

MOST_DB_LOST = 1.0
"""V1 lost none, V2 0.8 when all were scaled and 0.9 by one: its own scales beat what equalization finds."""
MOST_AGREEMENT_LOST_PERCENT = 1.5
"""0.3 is the aim, 1 or 2 of 500 images; which images flip is chance, and tells no less than about 1 %."""


def with_relu(graph: Graph) -> Graph:
    """The network with ReLU for ReLU6, so that every channel may be scaled."""
    nodes = (
        dataclasses.replace(node, activation=Activation.RELU)
        if isinstance(node, Conv2d) and node.activation is Activation.RELU6
        else node
        for node in graph.nodes
    )
    return dataclasses.replace(graph, nodes=tuple(nodes))


def plant(graph: Graph, batch: np.ndarray) -> tuple[Graph, int]:
    """Make one channel of one layer 200 times as large, and what reads it that much smaller."""
    seen = observe(graph, watch(graph, [batch]))
    unclamped = [names for names in groups(graph, seen) if activation_bounds(graph)[names[0]][1] == np.inf]
    names = unclamped[len(unclamped) // 2]
    factors = np.ones(graph.shapes[names[0]][0], np.float32)
    factors[np.argmax(seen[names[0]].magnitude(1.0))] = 200
    return rescale(graph, dict.fromkeys(names, factors)), 1


def scale_all(graph: Graph, batch: np.ndarray) -> tuple[Graph, int]:
    """Shrink every channel that stays clear of its clamp by 1 to 30; return also how many those are."""
    seen = observe(graph, watch(graph, [batch]))
    bounds, random = activation_bounds(graph), np.random.default_rng(0)
    factors = {}
    for names in groups(graph, seen):
        reach = np.max([seen[name].magnitude(1.2) for name in names], axis=0)
        shrink = (1 / random.uniform(1, 30, len(reach))).astype(np.float32)
        shrink[reach >= min(bounds[name][1] for name in names)] = 1
        factors.update(dict.fromkeys(names, shrink))
    return rescale(graph, factors), sum(int((f != 1).sum()) for f in factors.values())


def groups(graph: Graph, seen: dict) -> list[list[str]]:
    """Tensors that have to be scaled alike, read off what equalization does to them."""
    found: dict[bytes, list[str]] = {}
    equalized = equalize_all(graph, {name: extremes.magnitude(1.2) for name, extremes in seen.items()})
    for name, factors in equalized.factors.items():
        found.setdefault(factors.tobytes(), []).append(name)
    return list(found.values())


def measure(graph: Graph, arch: str, halves: tuple[Path, Path], folder: Path) -> DriftRow:
    """Export a graph as a user's own ONNX file, and return how its int8 file drifts."""
    folder.mkdir()
    own = folder / "own.onnx"
    own.write_bytes(FORMAT.write_float(graph, "fp32"))
    recipe, spec = find_recipe("int8"), find_spec(arch)
    export(
        ExportRequest(spec, folder / "bundle", ("int8",), ("onnx",), recipe, onnx=own, calibration=halves[0])
    )
    report = validate(ValidateRequest((folder / "bundle",), checkpoint=own, data=halves[1]))
    return report.rows[0]


@pytest.fixture(scope="module")
def clean_rows() -> dict[str, DriftRow]:
    """What the untouched networks reach, measured once each."""
    return {}


@pytest.mark.parametrize("spoil", [scale_all, plant])
@pytest.mark.parametrize("arch", ["v1", "v2"])
def test_scaled_channels_cost_nothing(
    arch: str,
    spoil: Callable[[Graph, np.ndarray], tuple[Graph, int]],
    clean_rows: dict[str, DriftRow],
    halves: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = find_spec(arch)
    source = capture(Origin(spec), open_reference(Origin(spec)))
    graph = with_relu(source.graph) if arch == "v1" else source.graph
    names = images.split(ImageSet.open(halves[0]), 32, 0, seed=0)[0]
    hostile, channels = spoil(graph, values_of(names, spec))
    if arch not in clean_rows:
        clean_rows[arch] = measure(graph, arch, halves, tmp_path / "clean")
    clean_row, hostile_row = clean_rows[arch], measure(hostile, arch, halves, tmp_path / "hostile")
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{arch}, {channels:,} channels scaled ({spoil.__name__}): "
            f"agreement {hostile_row.agreement_percent:.2f} % (clean {clean_row.agreement_percent:.2f} %), "
            f"SQNR {hostile_row.sqnr_db:.2f} dB "
            f"(clean {clean_row.sqnr_db:.2f} dB)",
            end="",
        )
    assert hostile_row.sqnr_db >= clean_row.sqnr_db - MOST_DB_LOST
    assert hostile_row.agreement_percent >= clean_row.agreement_percent - MOST_AGREEMENT_LOST_PERCENT
