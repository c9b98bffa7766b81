"""The drift figures of the README, on labelled photos: `make accuracy DATA=DIR LABELS=CSV`."""

import os
from pathlib import Path

import numpy as np
import pytest

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

INT8_LIMITS = {
    "v1": Limits(int8_sqnr_db=23.0, int8_agreement_percent=97.5),
    "v2": Limits(int8_sqnr_db=18.0, int8_agreement_percent=95.0),
}


@pytest.fixture(scope="module", params=["v1", "v2"])
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(arch: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / arch
    formats = ("onnx", "tflite")
    export(ExportRequest(find_spec(arch), out, ("fp32", "fp16", "int8"), formats, find_recipe("int8")))
    return out


@pytest.fixture(scope="module")
def report(arch: str, bundle: Path) -> DriftReport:
    assert DATA
    labels = Path(LABELS) if LABELS else None
    request = ValidateRequest(
        (bundle,), data=Path(DATA), labels_csv=labels, limits=INT8_LIMITS[arch], max_drop_points=1.0
    )
    return validate(request)


def test_every_limit_is_met_in_every_runtime(report: DriftReport, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        for row in report.rows:
            drop = row.top1_drop_points
            print(  # noqa: T201 (the figures are what this suite is for)
                f"\n{row.file} in {row.runtime}: {report.images} images, agreement {row.agreement_percent:.2f} %, "
                f"SQNR {row.sqnr_db:.2f} dB, top-1 {row.top1_percent} %, drop {drop} points",
                end="",
            )
    assert report.failures == ()
    assert {row.runtime for row in report.rows} >= {"onnxruntime", "litert"}


def test_int8_onnx_gives_the_same_logits_with_exact_multiplication(bundle: Path) -> None:
    """Saturation-safe weights: what a PC without VNNI computes is what every other CPU does."""
    from mobilenet_export.bundle import read_bundle  # noqa: PLC0415

    found = read_bundle(bundle)
    (artifact,) = [a for a in found.artifacts() if a.precision == "int8" and a.format == "onnx"]
    engine = load_plugin("runtimes", "onnxruntime")
    default, exact = engine.open(artifact), engine.open(artifact, EXACT_ON_X64)
    preprocess = spec_from_table(dict(found.document["model"])).preprocess
    assert DATA
    for _, batch in batches(ImageSet.open(Path(DATA)), preprocess, 8):
        assert np.array_equal(default.run(batch), exact.run(batch))
