"""Drift: every file in every runtime against the reference, on the same images, in one pass."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mobilenet_export.artifact import Artifact, Precision
from mobilenet_export.checks.interval import drop_interval, wilson
from mobilenet_export.checks.metrics import DriftSums
from mobilenet_export.checks.referee import (
    REFEREED_IMAGES,
    RefereeSums,
    exact_logits,
    has_referee,
    to_steps,
)
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import IntegerArray
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.report import DriftReport, DriftRow
from mobilenet_export.runtimes import Session
from mobilenet_export.spec import Limits


@dataclass(frozen=True, slots=True)
class Subject:
    """A file loaded in a runtime; `integers` are the file's own where a referee is to compute with them."""

    artifact: Artifact
    session: Session
    integers: QuantizedGraph | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """The images to check with, as a stream.

    Attributes:
        origin: Where they are from.
        batches: Names and float32 (n, 3, H, W) values.
        labels: Class index by name; of none, some or all images.
    """

    origin: str
    batches: Iterable[tuple[tuple[str, ...], FloatArray]]
    labels: Mapping[str, int]


def measure_drift(
    reference: Session, subjects: Sequence[Subject], evidence: Evidence, *, probabilities: bool
) -> DriftReport:
    """Run every subject and the reference over the images.

    Args:
        reference: That sets the truth.
        subjects: Files in runtimes.
        evidence: Images and labels; one batch is held at a time.
        probabilities: Outputs are class probabilities, not logits.
    """
    sums = [DriftSums(probabilities) for _ in subjects]
    referees = [RefereeSums() for _ in subjects]
    for names, batch in evidence.batches:
        truth = reference.run(batch)
        labels = [evidence.labels.get(name) for name in names]
        outputs = [subject.session.run(batch) for subject in subjects]
        for result, total in zip(outputs, sums, strict=True):
            total.add(truth, result, labels)
        _referee(subjects, batch, outputs, referees)
    first = sums[0]
    return DriftReport(
        reference=reference.runtime,
        data=evidence.origin,
        images=first.images,
        labelled=first.labelled,
        reference_top1_percent=first.percent(first.reference_top1, first.labelled),
        rows=tuple(_row(*measured) for measured in zip(subjects, sums, referees, strict=True)),
    )


def _referee(
    subjects: Sequence[Subject],
    batch: FloatArray,
    outputs: Sequence[FloatArray],
    sums: Sequence[RefereeSums],
) -> None:
    """Compare the first images of a run with the interpreter, which runs once for files of the same integers."""
    exact: dict[int, IntegerArray] = {}
    for subject, result, total in zip(subjects, outputs, sums, strict=True):
        integers, few = subject.integers, batch[: max(REFEREED_IMAGES - total.images, 0)]
        if integers is None or not has_referee(integers) or not len(few):
            continue
        if id(integers) not in exact:
            exact[id(integers)] = exact_logits(integers, few)
        scale = integers.tensors[integers.graph.logits]
        total.add(exact[id(integers)], to_steps(result[: len(few)], scale))


def _row(subject: Subject, sums: DriftSums, referee: RefereeSums) -> DriftRow:
    artifact, session = subject.artifact, subject.session
    return DriftRow(
        file=artifact.file,
        format=artifact.format,
        precision=artifact.precision,
        runtime=session.runtime,
        provider=session.provider,
        top1_percent=sums.percent(sums.top1, sums.labelled),
        top5_percent=sums.percent(sums.top5, sums.labelled),
        top1_drop_points=sums.percent(sums.reference_top1 - sums.top1, sums.labelled),
        top1_drop_interval_points=drop_interval(sums.pairs) if sums.labelled else None,
        agreement_percent=100 * sums.agreements / sums.images,
        sqnr_db=sums.sqnr_db,
        cosine=sums.cosine_sum / sums.images,
        max_abs=sums.max_abs,
        kl=sums.kl_sum / sums.images,
        referee=referee.figures,
    )


def judge(report: DriftReport, limits: Limits, max_drop_points: float | None) -> DriftReport:
    """Return the report with one line per limit that a row does not meet, and per limit that it cannot decide.

    None is no limit, and NaN or infinity meets none. A top-1 drop fails where its whole 95 % interval lies beyond
    the most allowed, passes where all of it lies within, and is in doubt otherwise.
    """
    failures: list[str] = []
    doubts: list[str] = []
    for row in report.rows:
        where = f"{row.file} in {row.runtime}"
        failures += [f"{where}: {reason}" for reason in _drift_failures(row, limits)]
        interval = row.top1_drop_interval_points
        if max_drop_points is None or interval is None or interval[1] <= max_drop_points:
            continue
        found = f"{where}: top-1 drops {row.top1_drop_points:.2f} points, 95 % interval {_span(interval)}"
        if interval[0] > max_drop_points:
            failures.append(f"{found}: more than {max_drop_points:g}")
        else:
            doubts.append(
                f"{found}: {report.labelled} images cannot tell whether more than {max_drop_points:g}"
            )
    return dataclasses.replace(report, failures=tuple(failures), doubts=tuple(doubts))


def guessing(report: DriftReport, classes: int) -> str | None:
    """Say so where the reference is no better than guessing at the labels, so that no drop follows from them."""
    if not report.labelled or report.reference_top1_percent is None:
        return None
    right = round(report.reference_top1_percent * report.labelled / 100)
    if wilson(right, report.labelled)[0] > 1 / classes:
        return None
    return (
        f"{report.reference} itself is right on {right} of {report.labelled} labelled images, as by guessing, "
        "so they tell of no drop: are the labels this network's, counted from 0?"
    )


def _span(interval: tuple[float, float]) -> str:
    return f"{interval[0]:+.2f} to {interval[1]:+.2f}"


def _drift_failures(row: DriftRow, limits: Limits) -> list[str]:
    if row.sqnr_db == -math.inf:
        return ["its outputs hold NaN or infinity"]
    failures = []
    least = sqnr_limit(limits, row.precision)
    if least is not None and row.sqnr_db < least:
        failures.append(f"SQNR {row.sqnr_db:.1f} dB is below {least:g} dB")
    least = limits.int8_agreement_percent if row.precision == "int8" else None
    if least is not None and row.agreement_percent < least:
        failures.append(f"agreement {row.agreement_percent:.2f} % is below {least:g} %")
    return failures


def sqnr_limit(limits: Limits, precision: Precision) -> float | None:
    """The least SQNR in dB for a precision; None where no run has set one."""
    return {"fp32": limits.fp32_sqnr_db, "fp16": limits.fp16_sqnr_db, "int8": limits.int8_sqnr_db}[precision]
