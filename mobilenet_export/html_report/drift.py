"""The part of the page that says how far every file is from the original, and what each figure means."""

import math
from collections.abc import Iterator

from mobilenet_export.checks.interval import wilson
from mobilenet_export.html_report.holdings import Holdings
from mobilenet_export.html_report.markup import (
    Html,
    facts,
    file_name,
    join,
    paragraph,
    section,
    table,
    tag,
    text,
)
from mobilenet_export.html_report.spelling import decibels, signed, two_digits
from mobilenet_export.report import DriftReport, DriftRow

_HEADS = ("File", "Runtime", "Agreement", "SQNR", "Referee", "Cosine", "Largest difference", "KL, nats")
_WITH_LABELS = ("Top-1", "Top-1 drop, 95 % interval")


def drift(held: Holdings) -> Html:
    """Show the drift of every file, and say what each figure means and how many images it is of."""
    report = held.drift
    labels = f", {report.labelled} of them labelled" if report.labelled else ", without labels"
    what = (
        f"Every file in the runtimes that read it, against {report.reference}, "
        f"on {report.images} images of {report.data}{labels}."
    )
    heads = _HEADS + (_WITH_LABELS if report.labelled else ())
    rows = [_cells(row, report) for row in report.rows]
    shown = table("Drift of every file", heads, rows, range(2, len(heads)))
    meanings = [*_meanings(held), ("Top-1 drop", _top1_drop(report))]
    return section("drift", "Drift", paragraph(what), shown, facts(meanings))


def _cells(row: DriftRow, report: DriftReport) -> list[Html]:
    agreed = round(row.agreement_percent * report.images / 100)
    cells = [
        file_name(row.file),
        text(f"{row.runtime} {row.provider}"),
        join([text(f"{row.agreement_percent:.1f} % "), tag("small", text(f"{agreed}/{report.images}"))]),
        text(decibels(row.sqnr_db)),
        text(row.referee.words if row.referee else "–"),
        text(f"{row.cosine:.6f}"),
        text(two_digits(row.max_abs)),
        text(two_digits(row.kl)),
    ]
    if report.labelled:
        low, high = row.top1_drop_interval_points or (math.nan, math.nan)
        drop = f"{signed(row.top1_drop_points or 0)}, {signed(low)} … {signed(high)}"
        cells += [text(f"{row.top1_percent or 0:.2f} %"), text(drop)]
    return cells


def _meanings(held: Holdings) -> Iterator[tuple[str, Html]]:
    count = held.drift.images
    least = 100 * wilson(count, count)[0]
    yield "Agreement", text(_AGREEMENT.format(count=count, least=least))
    yield "SQNR", text(_SQNR.format(count=count, classes=held.spec.classes))
    refereed = max((row.referee.images for row in held.drift.rows if row.referee), default=0)
    if refereed:
        yield "Referee", text(_REFEREE.format(count=refereed))
    yield "Cosine", text(_COSINE.format(count=count))
    yield "Largest difference", text(_LARGEST.format(count=count))
    yield "KL", text(_KL.format(count=count))


_AGREEMENT = (
    "Share of the {count} images whose best class is the original's. So few images say only so much: "
    "where all {count} agree, the 95 % interval of the share begins at {least:.1f} %."
)
_SQNR = (
    "Signal-to-quantization-noise ratio: the energy of the original's outputs over the energy of the difference, "
    "summed over {count} images and {classes:,} classes. 20 dB is an error of a tenth, 40 dB of a hundredth."
)
_REFEREE = (
    "The runtime's int8 logits of the first {count} images against the file's own integers computed exactly, "
    "in steps of int8 (LSB). Bit-equal: the runtime adds no error of its own."
)
_COSINE = "Mean over {count} images of the cosine of the angle between both output vectors; 1 is equal."
_LARGEST = "Of any output of any of the {count} images, in the output's own units."
_KL = "Mean Kullback–Leibler divergence of the class probabilities over {count} images; 0 is equal."
_DROP = (
    "The original's top-1 accuracy on {count} labelled images, {top1:.2f} %, less the file's, in points; "
    "Newcombe's 95 % interval for paired proportions."
)


def _top1_drop(report: DriftReport) -> Html:
    if report.labelled:
        return text(_DROP.format(count=report.labelled, top1=report.reference_top1_percent or 0))
    return join(
        [
            text("Not measured: it needs photos with labels. "),
            tag("code", text("mnx validate FOLDER --data PHOTOS --labels CSV")),
            text(" measures it, with its 95 % interval."),
        ]
    )
