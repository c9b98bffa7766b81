"""Drift: metrics against numbers worked out by hand, and limits that fail where they are not met."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.drift import Evidence, Subject, guessing, judge, measure_drift, sqnr_limit
from mobilenet_export.checks.metrics import DriftSums, decibel, sqnr_db
from mobilenet_export.graph import FloatArray
from mobilenet_export.report import DriftReport, DriftRow
from mobilenet_export.spec import Limits


class Fixed:
    """A session that answers with given outputs, batch after batch."""

    provider = "CPU"

    def __init__(self, runtime: str, outputs: FloatArray) -> None:
        self.runtime = runtime
        self._outputs = list(outputs)

    def run(self, batch: FloatArray) -> FloatArray:
        answer, self._outputs = self._outputs[: len(batch)], self._outputs[len(batch) :]
        return np.stack(answer)


def summed(
    reference: list[list[float]], result: list[list[float]], labels: list[int | None] | None = None
) -> DriftSums:
    sums = DriftSums(probabilities=False)
    sums.add(np.float32(reference), np.float32(result), labels or [None] * len(reference))
    return sums


# Metrics


def test_sqnr_is_the_ratio_of_energies_in_decibel() -> None:
    assert sqnr_db(np.float32([3, 4]), np.float32([3, 3.5])) == pytest.approx(20.0)  # 25 / 0.25
    assert summed([[3.0, 4.0]], [[3.0, 3.5]]).sqnr_db == pytest.approx(20.0)


def test_sqnr_of_equal_outputs_is_infinite_and_of_no_signal_is_finite() -> None:
    assert math.isinf(sqnr_db(np.float32([1, 2]), np.float32([1, 2])))
    assert sqnr_db(np.float32([0, 0]), np.float32([1, 0])) < -1000
    assert decibel(1.0, 0.0) == math.inf


def test_sqnr_goes_over_all_images_at_once() -> None:
    """A mean of ratios would give (20 + 40) / 2."""
    sums = summed([[10.0, 0.0], [10.0, 0.0]], [[9.0, 0.0], [10.1, 0.0]])
    assert sums.sqnr_db == pytest.approx(10 * math.log10(200 / 1.01), abs=1e-4)


def test_agreement_counts_images_with_the_same_best_class() -> None:
    assert summed([[1, 2], [2, 1], [0, 3]], [[0, 9], [1, 2], [1, 2]]).agreements == 2


def test_cosine_is_the_mean_over_images() -> None:
    sums = summed([[1, 0], [1, 1]], [[5, 0], [1, 0]])
    assert sums.cosine_sum / sums.images == pytest.approx((1 + 1 / math.sqrt(2)) / 2)


def test_max_abs_is_the_largest_difference_of_any_batch() -> None:
    sums = summed([[0.0, 1.0]], [[0.5, -2.0]])
    sums.add(np.float32([[0, 0]]), np.float32([[1, 1]]), [None])
    assert sums.max_abs == 3.0


def test_kl_of_logits_is_of_their_probabilities() -> None:
    p, q = np.array([0.75, 0.25]), np.array([0.5, 0.5])
    expected = float((p * np.log(p / q)).sum())
    assert summed([list(np.log(p))], [list(np.log(q))]).kl_sum == pytest.approx(expected, rel=1e-5)
    sums = DriftSums(probabilities=True)
    sums.add(np.float32([p]), np.float32([q]), [None])
    assert sums.kl_sum == pytest.approx(expected, rel=1e-5)


def test_kl_of_a_probability_of_zero_is_large_and_finite() -> None:
    sums = DriftSums(probabilities=True)
    sums.add(np.float32([[1, 0]]), np.float32([[0, 1]]), [None])
    assert 20 < sums.kl_sum < 40


def test_top1_and_top5_are_of_labelled_images_only() -> None:
    ramp = list(np.arange(10.0))
    sums = summed([ramp] * 4, [ramp] * 4, [9, 5, 4, None])
    assert (sums.labelled, sums.top1, sums.top5, sums.reference_top1) == (3, 1, 2, 1)
    assert sums.percent(sums.top1, sums.labelled) == pytest.approx(100 / 3)
    assert sums.percent(0, 0) is None


LOGITS = arrays.arrays(np.float32, (6, 4), elements=st.floats(-50, 50, width=32))


@given(LOGITS, LOGITS, st.integers(1, 5))
def test_batches_add_up_to_the_whole(reference: FloatArray, result: FloatArray, cut: int) -> None:
    labels: list[int | None] = [0, 1, None, 3, 2, None]
    whole, parts = DriftSums(probabilities=False), DriftSums(probabilities=False)
    whole.add(reference, result, labels)
    parts.add(reference[:cut], result[:cut], labels[:cut])
    parts.add(reference[cut:], result[cut:], labels[cut:])
    for field in dataclasses.fields(DriftSums):
        assert getattr(parts, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-4, abs=1e-4)


@given(LOGITS, LOGITS)
def test_metrics_stay_in_their_ranges(reference: FloatArray, result: FloatArray) -> None:
    sums = DriftSums(probabilities=False)
    sums.add(reference, result, [None] * 6)
    assert 0 <= sums.agreements <= 6
    assert -6.001 <= sums.cosine_sum <= 6.001
    assert sums.kl_sum >= -1e-4
    assert math.isfinite(sums.kl_sum)
    assert sums.max_abs == np.abs(reference - result).max()


@given(LOGITS)
def test_a_result_equal_to_the_reference_has_no_drift(reference: FloatArray) -> None:
    sums = DriftSums(probabilities=False)
    sums.add(reference, reference, [None] * 6)
    assert sums.agreements == 6
    assert sums.noise == sums.max_abs == sums.kl_sum == 0
    assert math.isinf(sums.sqnr_db)


# The report

TRUTH = np.float32([[3, 0, 0], [0, 3, 0], [0, 0, 3], [3, 0, 0]])
WRONG_ONCE = np.float32([[3, 0, 0], [0, 3, 0], [0, 3, 0], [3, 0, 0]])


def report_of(labels: dict[str, int], *, probabilities: bool = False) -> DriftReport:
    batch = np.zeros((2, 3, 8, 8), np.float32)
    artifacts = [Artifact("a.onnx", "onnx", "fp32", b""), Artifact("b.tflite", "tflite", "int8", b"")]
    sessions = [Fixed("onnxruntime", TRUTH), Fixed("litert", WRONG_ONCE)]
    subjects = [Subject(a, s) for a, s in zip(artifacts, sessions, strict=True)]
    evidence = Evidence("photos", [(("1", "2"), batch), (("3", "4"), batch)], labels)
    return measure_drift(Fixed("torch", TRUTH), subjects, evidence, probabilities=probabilities)


def test_a_report_has_a_row_per_file_and_runtime() -> None:
    report = report_of({})
    assert (report.reference, report.data, report.images, report.labelled) == ("torch", "photos", 4, 0)
    assert report.reference_top1_percent is None
    first, second = report.rows
    assert (first.file, first.format, first.precision) == ("a.onnx", "onnx", "fp32")
    assert (first.runtime, first.provider) == ("onnxruntime", "CPU")
    assert first.agreement_percent == 100
    assert math.isinf(first.sqnr_db)
    assert (second.file, second.runtime, second.agreement_percent) == ("b.tflite", "litert", 75)
    assert second.sqnr_db == pytest.approx(10 * math.log10(36 / 18))
    assert second.max_abs == 3
    assert [second.top1_percent, second.top5_percent, second.top1_drop_points] == [None] * 3
    assert second.top1_drop_interval_points is None


def test_labels_give_accuracy_and_its_drop() -> None:
    report = report_of({"1": 0, "2": 1, "3": 2, "4": 1})
    assert report.labelled == 4
    assert report.reference_top1_percent == 75
    first, second = report.rows
    assert (first.top1_percent, first.top5_percent, first.top1_drop_points) == (75, 100, 0)
    assert (second.top1_percent, second.top1_drop_points) == (50, 25)


def test_only_labelled_images_count_for_accuracy() -> None:
    report = report_of({"3": 2})
    assert (report.images, report.labelled, report.rows[1].top1_percent) == (4, 1, 0)
    assert report.rows[1].top1_drop_points == 100


def test_json_has_null_for_what_is_infinite_or_unknown_and_says_the_verdict() -> None:
    document = report_of({}).to_json()
    assert document["rows"][0]["sqnr_db"] is None
    assert document["rows"][0]["top1_percent"] is None
    assert document["verdict"] == "pass"
    assert document["failures"] == []
    failing = dataclasses.replace(report_of({}), failures=("too bad",))
    assert failing.to_json()["verdict"] == "fail"


def test_json_is_rounded_so_that_the_same_run_writes_the_same_bytes() -> None:
    row = dataclasses.replace(report_of({}).rows[1], sqnr_db=12.3456789)
    report = dataclasses.replace(report_of({}), rows=(row,))
    assert report.to_json()["rows"][0]["sqnr_db"] == 12.3457


# Limits


def row(**changes: object) -> DriftRow:
    return dataclasses.replace(report_of({"1": 0}).rows[1], **changes)  # type: ignore[arg-type]


def failures_of(found: DriftRow, limits: Limits = Limits(), max_drop: float | None = None) -> tuple[str, ...]:
    return judge(dataclasses.replace(report_of({}), rows=(found,)), limits, max_drop).failures


def test_no_limit_is_no_failure() -> None:
    assert failures_of(row(sqnr_db=-10.0, agreement_percent=0.0, top1_drop_points=99.0)) == ()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_each_precision_has_its_own_least_sqnr(precision: str) -> None:
    limits = Limits(fp32_sqnr_db=110.0, fp16_sqnr_db=55.0, int8_sqnr_db=18.0)
    least = sqnr_limit(limits, precision)  # type: ignore[arg-type]
    assert least == {"fp32": 110.0, "fp16": 55.0, "int8": 18.0}[precision]
    assert failures_of(row(precision=precision, sqnr_db=least), limits) == ()
    (failure,) = failures_of(row(precision=precision, sqnr_db=least - 0.1), limits)
    assert failure == f"b.tflite in litert: SQNR {least - 0.1:.1f} dB is below {least:g} dB"


def test_agreement_is_a_limit_of_int8_only() -> None:
    limits = Limits(int8_agreement_percent=95.0)
    assert failures_of(row(agreement_percent=95.0), limits) == ()
    assert failures_of(row(agreement_percent=94.0, precision="fp16"), limits) == ()
    (failure,) = failures_of(row(agreement_percent=94.0), limits)
    assert failure == "b.tflite in litert: agreement 94.00 % is below 95 %"


def test_a_top1_drop_beyond_the_most_allowed_fails() -> None:
    assert failures_of(row(top1_drop_points=0.4, top1_drop_interval_points=(-0.2, 1.0)), max_drop=1.0) == ()
    assert failures_of(row(top1_drop_points=None, top1_drop_interval_points=None), max_drop=0.0) == ()
    (failure,) = failures_of(row(top1_drop_points=1.5, top1_drop_interval_points=(1.1, 1.9)), max_drop=1.0)
    assert failure == (
        "b.tflite in litert: top-1 drops 1.50 points, 95 % interval +1.10 to +1.90: more than 1"
    )


def test_a_top1_drop_that_so_few_images_cannot_tell_is_in_doubt() -> None:
    found = row(top1_drop_points=0.5, top1_drop_interval_points=(-0.3, 1.4))
    report = judge(dataclasses.replace(report_of({"1": 0}), rows=(found,)), Limits(), 1.0)
    assert (report.failures, report.verdict) == ((), "inconclusive")
    (doubt,) = report.doubts
    assert doubt.endswith("95 % interval -0.30 to +1.40: 1 images cannot tell whether more than 1")
    both = dataclasses.replace(report, failures=("worse",))
    assert both.verdict == "fail"


@pytest.mark.parametrize(
    ("right", "labelled", "classes", "guesses"),
    [
        (0, 450, 1000, True),
        (1, 450, 1000, True),
        (8, 8, 1000, False),
        (320, 450, 1000, False),
        (60, 100, 2, False),
        (55, 100, 2, True),
    ],
)
def test_labels_that_the_reference_only_guesses_tell_of_no_drop(
    right: int, labelled: int, classes: int, guesses: bool
) -> None:
    percent = 100 * right / labelled
    report = dataclasses.replace(report_of({}), labelled=labelled, reference_top1_percent=percent)
    found = guessing(report, classes)
    assert (found is not None) is guesses
    assert guessing(report_of({}), classes) is None
    if found:
        assert found.startswith(
            f"torch itself is right on {right} of {labelled} labelled images, as by guessing"
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_not_numbers_never_pass_a_limit(bad: float) -> None:
    sums = DriftSums(probabilities=False)
    sums.add(np.float32([[1, 2]]), np.float32([[1, 2]]), [None])
    sums.add(np.float32([[1, 2]]), np.float32([[1, bad]]), [None])
    sums.add(np.float32([[1, 2]]), np.float32([[1, 2]]), [None])
    measured = row(sqnr_db=sums.sqnr_db, cosine=sums.cosine_sum, kl=sums.kl_sum, max_abs=sums.max_abs)
    assert failures_of(measured) == ("b.tflite in litert: its outputs hold NaN or infinity",)
    document = dataclasses.replace(report_of({}), rows=(measured,)).to_json()
    assert document["rows"][0]["sqnr_db"] is None
    json.dumps(document, allow_nan=False)
