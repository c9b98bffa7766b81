"""The drift figures of the README, on labelled photos: `make accuracy DATA=DIR LABELS=CSV`.

Half of the photos calibrate, the other half checks; the shipped images calibrate too. The floors lie a little
under what was measured, so that what gets worse is seen; what the figures are, the README says.
"""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mobilenet_export.artifact import PRECISIONS
from mobilenet_export.bundle import read_bundle
from mobilenet_export.images import ImageSet, batches
from mobilenet_export.pipeline import ExportRequest, ValidateRequest, export, validate
from mobilenet_export.plugins import load_plugin
from mobilenet_export.recipe import find_recipe
from mobilenet_export.report import DriftReport
from mobilenet_export.runtimes.onnxruntime import EXACT_ON_X64
from mobilenet_export.spec import Limits, find_spec, spec_from_table

DATA, LABELS = os.environ.get("DATA"), os.environ.get("LABELS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA, reason="no labelled photos; make accuracy DATA=DIR LABELS=CSV"),
]


@dataclass(frozen=True)
class Case:
    """A recipe, what calibrates it, and what it has to reach on photos that it has not seen."""

    arch: str
    recipe: str
    photos: bool
    seed: int
    least_db: float
    least_agreement_percent: float
    most_drop_points: float

    def __str__(self) -> str:
        images = "photos" if self.photos else "drawn"
        return f"{self.arch}-{self.recipe}-{images}-{self.seed}"


CASES = [
    *(Case("v1", "int8", True, seed, 26.7, 97.0, 1.0) for seed in (0, 1, 2)),
    *(Case("v2", "int8", True, seed, 23.6, 96.0, 1.5) for seed in (0, 1, 2)),
    Case("v1", "int8", False, 0, 26.4, 97.5, 1.0),
    Case("v2", "int8", False, 0, 23.2, 95.5, 1.5),
    Case("v1", "int8-fast", True, 0, 24.5, 97.5, 1.0),
    Case("v2", "int8-fast", True, 0, 22.0, 96.0, 1.5),
    Case("v1", "int8-per-tensor", True, 0, 16.5, 94.5, 3.0),
    Case("v2", "int8-per-tensor", True, 0, 21.0, 95.0, 1.5),
]


WHOLE = (CASES[0], CASES[3])
"""Those with files of every precision and input."""


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def bundle(case: Case, halves: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / str(case)
    recipe = dataclasses.replace(find_recipe(case.recipe), seed=case.seed)
    calibration = halves[0] if case.photos else None
    request = ExportRequest(
        find_spec(case.arch),
        out,
        ("int8",),
        ("onnx", "tflite"),
        recipe,
        calibration=calibration,
        io=("float32",),
    )
    if case in WHOLE:
        request = dataclasses.replace(request, precisions=PRECISIONS, io=("float32", "uint8"))
    export(request)
    return out


@pytest.fixture(scope="module")
def report(case: Case, bundle: Path, halves: tuple[Path, Path]) -> DriftReport:
    limits = Limits(int8_sqnr_db=case.least_db, int8_agreement_percent=case.least_agreement_percent)
    labels = Path(LABELS) if LABELS else None
    return validate(
        ValidateRequest(
            (bundle,), data=halves[1], labels_csv=labels, limits=limits, max_drop_points=case.most_drop_points
        )
    )


def test_every_limit_is_met_in_every_runtime(
    case: Case, report: DriftReport, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        for row in report.rows:
            drop = "" if row.top1_drop_points is None else f", drop {row.top1_drop_points:+.2f} points"
            print(  # noqa: T201 (the figures are what this suite is for)
                f"\n{case} {row.precision} in {row.runtime}: {report.images} images, agreement "
                f"{row.agreement_percent:.2f} %, SQNR {row.sqnr_db:.2f} dB{drop}",
                end="",
            )
    assert report.failures == ()
    assert {row.runtime for row in report.rows} >= {"onnxruntime", "litert"}


def test_both_formats_answer_alike(bundle: Path, halves: tuple[Path, Path]) -> None:
    """ONNX in ONNX Runtime and TFLite in LiteRT: all logits of all photos, to the bit."""
    files = {
        a.format: a for a in read_bundle(bundle).artifacts() if (a.precision, a.io) == ("int8", "float32")
    }
    sessions = [
        load_plugin("runtimes", n).open(files[f]) for n, f in (("onnxruntime", "onnx"), ("litert", "tflite"))
    ]
    preprocess = spec_from_table(dict(read_bundle(bundle).document["model"])).preprocess
    outputs = [
        tuple(session.run(batch) for session in sessions)
        for _, batch in batches(ImageSet.open(halves[1]), preprocess, 50)
    ]
    onnx, tflite = (np.concatenate(found) for found in zip(*outputs, strict=True))
    assert np.array_equal(onnx, tflite)


def test_a_cameras_pixels_give_the_same_logits_to_the_bit(
    case: Case, bundle: Path, halves: tuple[Path, Path]
) -> None:
    """So not one photo in a thousand is lost to taking frames as they are."""
    if case not in WHOLE:
        pytest.skip("one case of each network is enough")
    found = read_bundle(bundle)
    preprocess = spec_from_table(dict(found.document["model"])).preprocess
    for form, name in (("onnx", "onnxruntime"), ("tflite", "litert")):
        files = [a for a in found.artifacts() if a.precision == "int8" and a.format == form]
        assert [artifact.io for artifact in files] == ["float32", "uint8"]
        normalized, camera = (load_plugin("runtimes", name).open(artifact) for artifact in files)
        for _, batch in batches(ImageSet.open(halves[1]), preprocess, 50):
            assert np.array_equal(normalized.run(batch), camera.run(batch))


def test_int8_onnx_gives_the_same_logits_with_exact_multiplication(
    bundle: Path, halves: tuple[Path, Path]
) -> None:
    """Saturation-safe weights: what a PC without VNNI computes is what every other CPU does."""
    found = read_bundle(bundle)
    artifact, *_ = [a for a in found.artifacts() if a.precision == "int8" and a.format == "onnx"]
    engine = load_plugin("runtimes", "onnxruntime")
    default, exact = engine.open(artifact), engine.open(artifact, EXACT_ON_X64)
    preprocess = spec_from_table(dict(found.document["model"])).preprocess
    for _, batch in batches(ImageSet.open(halves[1]), preprocess, 8):
        assert np.array_equal(default.run(batch), exact.run(batch))
