"""The parts of a bundle's page, each a function of what the bundle holds."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from mobilenet_export.checks.interval import wilson
from mobilenet_export.graph import FloatArray
from mobilenet_export.html_report.figures import (
    Box,
    Series,
    draw_error,
    draw_latency,
    draw_ranges,
    legend,
    points_of,
)
from mobilenet_export.html_report.holdings import Answers, Calibration, Device, Holdings, Timing
from mobilenet_export.html_report.markup import (
    Html,
    bar,
    facts,
    fold,
    join,
    jpeg,
    paragraph,
    section,
    table,
    tag,
    text,
)
from mobilenet_export.report import DriftReport, DriftRow, LayerCurve
from mobilenet_export.thumbnails import thumbnail

_SHOWN_CLASSES = 5
_PICTURE_PX = 160
_NONE = text("–")


def head(held: Holdings) -> Html:
    """Say what network this is, and the few figures that are asked for first."""
    spec, drift = held.spec, held.drift
    verdict = {"pass": "every limit is met", "fail": "a limit is not met", "inconclusive": "in doubt"}
    kind = "good" if drift.verdict == "pass" else "bad"
    lines = [tag("p", text(f"Drift check: {verdict[drift.verdict]}."), class_=kind)]
    lines += [paragraph(line, "bad") for line in (*drift.failures, *drift.doubts, *drift.warnings)]
    figures = [tag("div", tag("dt", text(name)), tag("dd", text(value), *_small(note))) for name, value, note in _key_figures(held)]
    return tag(
        "header",
        tag("h1", text(spec.name)),
        paragraph(spec.summary, "soft"),
        *lines,
        tag("dl", *figures, class_="figures"),
    )


def _small(note: str) -> list[Html]:
    return [tag("small", text(note))] if note else []


def _key_figures(held: Holdings) -> Iterator[tuple[str, str, str]]:
    spec = held.spec
    yield "Input", f"{spec.resolution_px} px", f"{spec.classes:,} classes"
    if spec.parameters:
        yield "Parameters", millions(spec.parameters), ""
    if spec.macs:
        yield "Multiply-adds", millions(spec.macs), "per image"
    for precision in ("fp32", "fp16", "int8"):
        sizes = [file.bytes for file in held.files if file.precision == precision]
        if sizes:
            yield f"{precision} file", megabytes(min(sizes)), "" if precision == "fp32" else _share_of_fp32(held, min(sizes))
    int8 = [row for row in held.drift.rows if row.precision == "int8"]
    if int8:
        worst = min(int8, key=lambda row: (row.agreement_percent, row.sqnr_db))
        yield "int8 agreement", f"{worst.agreement_percent:.1f} %", f"of {held.drift.images} images"
        yield "int8 SQNR", decibels(worst.sqnr_db), f"on {held.drift.images} images"


def _share_of_fp32(held: Holdings, size: int) -> str:
    full = min((file.bytes for file in held.files if file.precision == "fp32"), default=0)
    return f"{100 * size / full:.0f} % of fp32" if full else ""


def millions(count: int) -> str:
    """Write a large number short."""
    return f"{count / 1e6:.2f} M" if count < 10e6 else f"{count / 1e6:.0f} M"


def megabytes(size: int) -> str:
    """Write a size in decimal megabytes."""
    return f"{size / 1e6:.2f} MB"


def decibels(ratio: float) -> str:
    """Write a ratio of energies."""
    return "equal" if ratio == math.inf else f"{ratio:.1f} dB"


def files(held: Holdings) -> Html:
    """List the model files, and what each takes and gives."""
    largest = max(file.bytes for file in held.files)
    rows = [
        (
            tag("span", text(file.path), class_="file"),
            text(file.precision),
            bar(file.bytes / largest, f"{file.bytes:,}", _tone(file.precision)),
            text(file.takes),
            text(file.gives),
            tag("code", text(file.sha256[:8])),
        )
        for file in held.files
    ]
    heads = ("File", "Precision", "Bytes", "Takes", "Gives", "sha256")
    note = "“normalized” is (pixel/255 − mean)/std; “rgb” is the pixels themselves, cropped to the network's size."
    return section("files", "Files", table("Model files", heads, rows, ()), paragraph(note, "note"))


def _tone(precision: str) -> str:
    return {"fp32": "two", "fp16": "three"}.get(precision, "one")


def drift(held: Holdings) -> Html:
    """Show how far every file is from the original, and say what each figure means and is of."""
    report = held.drift
    labels = f", {report.labelled} of them labelled" if report.labelled else ", without labels"
    what = f"Every file in the runtimes that read it, against {report.reference}, on {report.images} images of {report.data}{labels}."
    heads = ["File", "Runtime", f"Agreement of {report.images}", "SQNR", "Referee", "Cosine", "Largest difference", "KL, nats"]
    if report.labelled:
        heads += ["Top-1", "Top-1 drop, 95 % interval"]
    rows = [_drift_cells(row, report) for row in report.rows]
    shown = table("Drift of every file", heads, rows, range(2, len(heads)))
    return section("drift", "Drift", paragraph(what), shown, facts(_metrics(held)))


def _drift_cells(row: DriftRow, report: DriftReport) -> list[Html]:
    agreed = round(row.agreement_percent * report.images / 100)
    cells = [
        tag("span", text(row.file), class_="file"),
        text(f"{row.runtime} {row.provider}"),
        join([text(f"{row.agreement_percent:.1f} % "), tag("small", text(f"{agreed}/{report.images}"))]),
        text(decibels(row.sqnr_db)),
        text(row.referee.words) if row.referee else _NONE,
        text(f"{row.cosine:.6f}"),
        text(f"{row.max_abs:.2g}"),
        text(f"{row.kl:.2g}"),
    ]
    if report.labelled:
        low, high = row.top1_drop_interval_points or (math.nan, math.nan)
        drop = f"{row.top1_drop_points:+.2f}, {low:+.2f} … {high:+.2f}"
        cells += [text(f"{row.top1_percent:.2f} %"), text(drop)]
    return cells


def _metrics(held: Holdings) -> Iterator[tuple[str, Html]]:
    """What each figure means, with the number of images that it is of."""
    report, count = held.drift, held.drift.images
    least = 100 * wilson(count, count)[0] if count else 0.0
    yield "Agreement", text(
        f"Share of the {count} images whose best class is the original's. So few images say only so much: where all "
        f"of {count} agree, the 95 % interval of the share begins at {least:.1f} %."
    )
    yield "SQNR", text(
        "Signal-to-quantization-noise ratio: the energy of the original's outputs over the energy of the "
        f"difference, summed over {count} images and {held.spec.classes:,} classes. 20 dB is an error of a tenth, "
        "40 dB of a hundredth."
    )
    refereed = max((row.referee.images for row in report.rows if row.referee), default=0)
    if refereed:
        yield "Referee", text(
            f"The runtime's int8 logits of the first {refereed} images against the file's own integers computed "
            "exactly, in steps of int8 (LSB). Bit-equal: the runtime adds no error of its own."
        )
    yield "Cosine", text(f"Mean over {count} images of the cosine of the angle between both output vectors; 1 is equal.")
    yield "Largest difference", text(f"Of any output of any of the {count} images, in the output's own units.")
    yield "KL", text(f"Mean Kullback–Leibler divergence of the class probabilities over {count} images; 0 is equal.")
    if report.labelled:
        yield "Top-1 drop", text(
            f"The original's top-1 accuracy on {report.labelled} labelled images, {report.reference_top1_percent:.2f} %, "
            "less the file's, in points; Newcombe's 95 % interval for paired proportions."
        )
    else:
        yield "Top-1 drop", join(
            [
                text("Not measured: it needs photos with labels. "),
                tag("code", text("mnx validate FOLDER --data PHOTOS --labels CSV")),
                text(" measures it, with its 95 % interval."),
            ]
        )


def layers(held: Holdings) -> Html:
    """Draw the error of int8 along the network."""
    curve = held.curve
    if curve is None:
        int8 = any(file.precision == "int8" for file in held.files)
        why = "This bundle is of a version that kept no figures of layers: export it again." if int8 else "No int8 file, so no layer loses anything."
        return section("layers", "Error by layer", paragraph(why))
    names = [f"{runtime} ({held.kind(file)})" for runtime, file in curve.files.items()]
    series = [Series(name, points_of(curve, runtime)) for name, runtime in zip(names, curve.files, strict=True)]
    worst = min(curve.layers, key=_lowest)
    alt = f"SQNR of {len(curve.layers) - 1} layers in {', '.join(names)}; lowest {_lowest(worst):.1f} dB at {worst.layer}"
    caption = (
        f"SQNR of each layer's output against fp32, with all layers before it in int8, too; {curve.images} images of "
        f"{curve.data}. Lowest: {worst.layer} ({worst.kind}), {_lowest(worst):.1f} dB. Noise may be lost again on the "
        "way: what counts is the last point, the logits."
    )
    figure = tag("figure", legend(names), draw_error(series, alt, "layer, in the order in which they run"), tag("figcaption", text(caption)))
    hint = tag("p", text("Why, and what would help: "), tag("code", text("mnx analyze FOLDER")), class_="note")
    return section("layers", "Error by layer", figure, fold(f"All {len(curve.layers)} tensors as a table", _layer_table(curve)), hint)


def _lowest(layer: object) -> float:
    ratios = [ratio for ratio in layer.sqnr_db.values() if ratio is not None]  # type: ignore[attr-defined]
    return min(ratios, default=math.inf)


def _layer_table(curve: LayerCurve) -> Html:
    heads = ["Layer", "Kind", "Output", *(f"{runtime}, dB" for runtime in curve.files), "int8 range"]
    rows = [
        [
            tag("span", text(layer.layer), class_="file"),
            text(layer.kind),
            text("×".join(map(str, layer.shape))),
            *(text("–" if ratio is None else f"{ratio:.1f}") for ratio in layer.sqnr_db.values()),
            text(f"{layer.low:.4g} … {layer.high:.4g}".replace("-", "−")),
        ]
        for layer in curve.layers
    ]
    return table("Error and range of every layer", heads, rows, range(3, len(heads)))


def latency(held: Holdings) -> Html:
    """Draw what every device measured; without any, say how to get some."""
    parts = [part for index, device in enumerate(held.devices) for part in _device(device, index, held)]
    parts += [paragraph(f"Left out: {line}", "bad") for line in held.left_out]
    if not held.devices:
        parts.append(
            tag(
                "p",
                text("Nothing is measured yet. "),
                tag("code", text("mnx bench FOLDER --keep")),
                text(" measures on this computer, "),
                tag("code", text("mnx deploy HOST FOLDER")),
                text(" on a device, "),
                tag("code", text("mnx phone FOLDER")),
                text(" in a phone's browser; then "),
                tag("code", text("mnx report FOLDER")),
                text(" writes this page anew."),
            )
        )
    return section("latency", "Latency", *parts)


def _device(device: Device, index: int, held: Holdings) -> Iterator[Html]:
    yield tag("h3", text(device.name))
    if device.machine:
        yield paragraph(device.machine, "note")
    if device.check:
        passed = device.check.verdict == "pass"
        yield tag("p", text(f"Self-check there: {device.check.verdict}, {len(device.check.rows)} files and runtimes."), class_="note" if passed else "bad")
        yield join(paragraph(line, "bad") for line in device.check.failures)
    if not device.timings:
        yield paragraph(f"No latency was measured; it ended in: {device.verdict}.", "note")
        return
    ordered = sorted(device.timings, key=lambda one: one.percentile_ms(50))
    boxes = [box(one, held) for one in ordered]
    runs = sorted({len(one.samples_ms) for one in ordered})
    caption = f"{' or '.join(map(str, runs))} inferences of each; box: the middle half, line: the median, whiskers: 5th to 95th percentile. Fastest first."
    alt = f"Box plots of latency on {device.name}: " + "; ".join(box.words for box in boxes)
    figure = draw_latency(boxes, alt, f"{index}-{device.name}")
    yield tag("figure", figure, tag("figcaption", text(caption)))
    yield fold("As a table", timing_table(ordered, held))
    yield join(paragraph(note, "note") for note in device.notes)


def box(timing: Timing, held: Holdings, before: str = "") -> Box:
    """Return the row of a figure that shows a timing."""
    found = held.file(timing.file)
    threads = f"{timing.threads} thread{'s'[: timing.threads > 1]}"
    batch = f", batch {timing.batch}" if timing.batch > 1 else ""
    words = f"{before}{held.kind(timing.file)} · {timing.runtime} {timing.provider} · {threads}{batch} · {timing.percentile_ms(50):.2f} ms"
    return Box(words, found.precision if found else "", timing.samples_ms)


def timing_table(timings: Sequence[Timing], held: Holdings) -> Html:
    """Return the numbers behind a figure of latency."""
    heads = ["File", "Runtime", "Threads", "p50 ms", "p90 ms", "p99 ms", "min ms", "samples"]
    rows = [
        [
            tag("span", text(one.file), class_="file"),
            text(f"{one.runtime} {one.provider}"),
            text(one.threads),
            *(text(f"{one.percentile_ms(percent):.2f}") for percent in (50, 90, 99, 0)),
            text(len(one.samples_ms)),
        ]
        for one in timings
    ]
    return table("Latency", heads, rows, range(2, len(heads)))


def calibration(held: Holdings) -> Html:
    """Say what int8 was calibrated with, and what came of it."""
    found = held.calibration
    if found is None:
        return section("calibration", "Calibration", paragraph("Nothing was calibrated: all files are fp32."))
    parts = [facts(_calibration_facts(found, held)), _sheet(found)]
    if held.curve is not None:
        lows, highs = [one.low for one in held.curve.layers], [one.high for one in held.curve.layers]
        alt = f"Ranges of {len(lows)} tensors, from {min(lows):.3g} to {max(highs):.3g} at most"
        caption = "What the integers 0 to 255 of each layer's output stand for; the axis is linear up to ±10, then logarithmic."
        parts.append(tag("figure", draw_ranges(held.curve, alt), tag("figcaption", text(caption))))
    return section("calibration", "Calibration", *parts)


def _calibration_facts(found: Calibration, held: Holdings) -> Iterator[tuple[str, Html]]:
    yield "Images", text(f"{found.images} of {found.origin}")
    held_out = held.decisions[0].images if held.decisions else 0
    if held_out:
        yield "Held out", text(f"{held_out} of them only judged whether a step of the quantizer is kept")
    yield "Pixels' sha256", tag("code", text(found.sha256))
    if found.unreadable:
        yield "Passed over", text(f"{len(found.unreadable)} that could not be read: {', '.join(found.unreadable)}")


def _sheet(found: Calibration) -> Html:
    if found.sheet is None:
        return paragraph("No thumbnails: a bundle holds none of a user's own images unless --thumbnails is given.", "note")
    caption = f"Some of the {found.images} images, cut to squares."
    return tag("figure", jpeg(found.sheet, f"Thumbnails of images of {found.origin}"), tag("figcaption", text(caption)))


def self_check(held: Holdings) -> Html:
    """Show the self-check's images and what fp32 and int8 make of them."""
    answers = held.answers
    beside = f" beside {answers.second.path}" if answers.second else ""
    intro = f"Class probabilities that {answers.first.path} gives{beside}. The images are drawn, so no class is right; the answers have to be alike."
    found = [_answer(held, index) for index in range(len(held.pictures))]
    return section("self-check", "Self-check", paragraph(intro), tag("div", *found, class_="answers"))


def _answer(held: Holdings, index: int) -> Html:
    answers, name = held.answers, held.names[index]
    columns = [(answers.first, answers.first_shares[index])]
    if answers.second is not None and answers.second_shares is not None:
        columns.append((answers.second, answers.second_shares[index]))
    rows = [
        [text(held.labels[place]), *(bar(float(shares[place]), f"{100 * shares[place]:.1f} %", _tone(file.precision)) for file, shares in columns)]
        for place in best_classes([shares for _, shares in columns])
    ]
    heads = ["Class", *(file.precision for file, _ in columns)]
    return tag(
        "article",
        tag("h3", text(name)),
        jpeg(thumbnail(held.pictures[index], _PICTURE_PX), f"Self-check image {name}"),
        table(f"Best classes of {name}", heads, rows, ()),
        paragraph(_agreement(answers, index), "note"),
        class_="answer",
    )


def best_classes(columns: Sequence[FloatArray]) -> list[int]:
    """Return the best five of the first file, and the best of the others where it is none of these."""
    first, *others = (np.argsort(-shares, kind="stable") for shares in columns)
    places = [int(place) for place in first[:_SHOWN_CLASSES]]
    return places + [int(order[0]) for order in others if int(order[0]) not in places]


def _agreement(answers: Answers, index: int) -> str:
    if answers.second is None or answers.second_shares is None:
        return ""
    first, second = answers.first_shares[index], answers.second_shares[index]
    shared = len(set(np.argsort(-first)[:5].tolist()) & set(np.argsort(-second)[:5].tolist()))
    same = "The same best class" if first.argmax() == second.argmax() else "Another best class"
    return f"{same}; {shared} of the best five are shared."


def provenance(held: Holdings) -> Html:
    """Say what everything was made of, and what the quantizer decided."""
    spec = held.spec
    pairs = [
        ("Weights", text(f"{held.source['origin']} ({held.source['kind']})")),
        ("Their sha256", tag("code", text(held.source["sha256"]))),
        ("Architecture", text(f"{spec.architecture}, width {spec.width:g}, {spec.padding} padding, BatchNorm eps {spec.batch_norm_eps:g}")),
        ("Preprocessing", join(text(f"{step}.") for step in held.steps)),
        ("mean, std", text(f"{_three(spec.preprocess.mean)}; {_three(spec.preprocess.std)}")),
        ("Versions", text(", ".join(f"{name} {number}" for name, number in held.versions.items()))),
    ]
    parts = [facts(pairs)]
    if held.recipe:
        parts += [tag("h3", text(f"Recipe {held.recipe.get('name', '')}")), paragraph(str(held.recipe.get("summary", "")), "note")]
    if held.decisions:
        parts.append(_decisions(held))
    if held.recipe:
        knobs = [(tag("code", text(name)), text(value)) for name, value in held.recipe.items() if name not in ("name", "summary")]
        parts.append(fold("Every knob of the recipe", table("Recipe", ("Knob", "Value"), knobs, (1,))))
    hashes = [(tag("span", text(name), class_="file"), tag("code", text(sha256))) for name, sha256 in _hashes(held)]
    parts.append(fold("Hashes of every file", table("Hashes", ("File", "sha256"), hashes, ())))
    return section("provenance", "Provenance", *parts)


def _three(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _hashes(held: Holdings) -> Iterator[tuple[str, str]]:
    yield from ((file.path, file.sha256) for file in held.files)
    yield from held.parts.items()


def _decisions(held: Holdings) -> Html:
    rows = [
        (
            text(one.step.replace("_", " ")),
            text(f"{one.before_db:.2f}"),
            text(f"{one.after_db:.2f}"),
            text(f"{one.after_db - one.before_db:+.2f}".replace("-", "−")),
            tag("span", text("kept" if one.kept else "left out"), class_="good" if one.kept else "soft"),
        )
        for one in held.decisions
    ]
    note = f"Each step is judged by the SQNR of the logits on {held.decisions[0].images} held-out calibration images, and kept only where it rises."
    heads = ("Step", "Before, dB", "After, dB", "Gain, dB", "Decision")
    return join([paragraph(note, "note"), table("Decisions of the quantizer", heads, rows, (1, 2, 3))])
