"""The other parts of a bundle's page, each a function of what the bundle holds."""

import math
from collections.abc import Iterator, Sequence

from mobilenet_export.html_report.figures import Series, draw_error, draw_ranges, legend, points_of
from mobilenet_export.html_report.holdings import Calibration, Holdings
from mobilenet_export.html_report.markup import (
    Html,
    bar,
    facts,
    file_name,
    fold,
    join,
    jpeg,
    paragraph,
    section,
    table,
    tag,
    text,
)
from mobilenet_export.html_report.spelling import decibels, megabytes, millions, signed, tone
from mobilenet_export.report import LayerCurve, LayerError

_VERDICTS = {"pass": "every limit is met", "fail": "a limit is not met", "inconclusive": "in doubt"}
_NOT_JUDGED = "no limit is known for int8 of this network, so nothing judges it"


def head(held: Holdings) -> Html:
    """Say what network this is, and the few figures that are asked for first."""
    spec, drift = held.spec, held.drift
    judged = held.judges_int8
    verdict = _VERDICTS[drift.verdict] + ("" if judged else f"; {_NOT_JUDGED}")
    lines = [paragraph(f"Drift check: {verdict}.", "good" if judged and drift.verdict == "pass" else "bad")]
    lines += [paragraph(line, "bad") for line in (*drift.failures, *drift.doubts, *drift.warnings)]
    figures = [
        tag("div", tag("dt", text(name)), tag("dd", text(value), tag("small", text(note))))
        for name, value, note in _key_figures(held)
    ]
    listed = tag("dl", *figures, class_="figures")
    return tag("header", tag("h1", text(spec.name)), paragraph(spec.summary, "soft"), *lines, listed)


def _key_figures(held: Holdings) -> Iterator[tuple[str, str, str]]:
    """Yield an even number of figures, so that rows of two, and of three where there are six, come out full."""
    spec = held.spec
    yield "Input", f"{spec.resolution_px} px", f"{spec.classes:,} classes"
    if held.parameters and held.macs:
        yield "Parameters", millions(held.parameters), ""
        yield "Multiply-adds", millions(held.macs), "per image"
    full, half, least = map(held.smallest, ("fp32", "fp16", "int8"))
    if full:
        yield "fp32 file", megabytes(full), f"fp16: {megabytes(half)}" if half else ""
    if least:
        yield "int8 file", megabytes(least), f"{100 * least / full:.0f} % of fp32" if full else ""
    int8 = [row for row in held.drift.rows if row.precision == "int8"]
    if int8:
        worst = min(int8, key=lambda row: (row.agreement_percent, row.sqnr_db))
        note = f"of {held.drift.images} images, SQNR\N{NO-BREAK SPACE}{decibels(worst.sqnr_db)}"
        yield "int8 agreement", f"{worst.agreement_percent:.1f} %", note


def files(held: Holdings) -> Html:
    """List the model files, and what each takes and gives."""
    largest = max(file.bytes for file in held.files)
    rows = [
        (
            file_name(file.path),
            text(file.precision),
            bar(file.bytes / largest, f"{file.bytes:,}", tone(file.precision)),
            text(file.takes),
            text(file.gives),
            file_name(file.sha256[:8]),
        )
        for file in held.files
    ]
    heads = ("File", "Precision", "Bytes", "Takes", "Gives", "sha256")
    note = "“normalized” is (pixel/255 − mean)/std; “rgb” is the pixels themselves, cropped to the network's size."
    return section("files", "Files", table("Model files", heads, rows, ()), paragraph(note, "note"))


def layers(held: Holdings) -> Html:
    """Draw the error of int8 along the network."""
    curve = held.curve
    if curve is None:
        int8 = any(file.precision == "int8" for file in held.files)
        older = "This bundle is of a version that kept no figures of layers: export it again."
        return section(
            "layers",
            "Error by layer",
            paragraph(older if int8 else "No int8 file, so no layer loses anything."),
        )
    names = {runtime: f"{runtime} ({held.kind(file)})" for runtime, file in curve.files.items()}
    series = [Series(name, points_of(curve, runtime)) for runtime, name in names.items()]
    worst = min(curve.layers, key=_lowest)
    alt = f"SQNR of {len(curve.layers) - 1} layers in {', '.join(names.values())}; {_told(worst)}"
    drawn = draw_error(series, alt, "layer, in the order in which they run")
    caption = tag("figcaption", text(_caption(curve, _told(worst), series)))
    figure = tag("figure", legend(series), drawn, caption)
    hint = tag(
        "p", text("Why, and what would help: "), tag("code", text("mnx analyze FOLDER")), class_="note"
    )
    listed = fold(f"All {len(curve.layers)} tensors as a table", _layer_table(curve))
    return section("layers", "Error by layer", figure, listed, hint)


def _caption(curve: LayerCurve, lowest: str, series: Sequence[Series]) -> str:
    same = len(series) > 1 and len({one.points for one in series}) == 1
    return (
        "SQNR of each layer's output against fp32, with all layers before it in int8, too; "
        f"{curve.images} images of {curve.data}; {lowest}. Noise may be lost again on the way: what counts is the "
        "last point, the logits."
        + (" The runtimes give the same figures, so their lines lie on each other." if same else "")
    )


def _told(worst: LayerError) -> str:
    return f"lowest {_lowest(worst):.1f} dB at {worst.layer}, a {worst.kind}"


def _lowest(layer: LayerError) -> float:
    return min((ratio for ratio in layer.sqnr_db.values() if ratio is not None), default=math.inf)


def _layer_table(curve: LayerCurve) -> Html:
    heads = ["Layer", "Kind", "Output", *(f"{runtime}, dB" for runtime in curve.files), "int8 range"]
    rows = [
        [
            file_name(layer.layer),
            text(layer.kind),
            text("×".join(map(str, layer.shape))),
            *(text("–" if ratio is None else f"{ratio:.1f}") for ratio in layer.sqnr_db.values()),
            text(f"{layer.low:.4g} … {layer.high:.4g}".replace("-", "−")),
        ]
        for layer in curve.layers
    ]
    return table("Error and range of every layer", heads, rows, range(3, len(heads)))


def calibration(held: Holdings) -> Html:
    """Say what int8 was calibrated with, and what came of it."""
    found = held.calibration
    if found is None:
        return section("calibration", "Calibration", paragraph("Nothing was calibrated: all files are fp32."))
    parts = [facts(_calibration_facts(found, held)), _sheet(found)]
    if held.curve is not None:
        lows, highs = [one.low for one in held.curve.layers], [one.high for one in held.curve.layers]
        alt = f"Ranges of {len(lows)} tensors, from {min(lows):.3g} to {max(highs):.3g} at most"
        parts.append(tag("figure", draw_ranges(held.curve, alt), tag("figcaption", text(_RANGES))))
    return section("calibration", "Calibration", *parts)


_RANGES = (
    "What the integers 0 to 255 of each layer's output stand for; 0 is the input. "
    "The axis is linear up to ±10, then logarithmic."
)
_NO_SHEET = (
    "No thumbnails: a bundle shows none of a user's own images unless it is exported with --thumbnails."
)


def _calibration_facts(found: Calibration, held: Holdings) -> Iterator[tuple[str, Html]]:
    yield "Images", text(f"{found.images} of {found.origin}")
    if held.decisions:
        held_out = held.decisions[0].images
        yield "Held out", text(f"{held_out} of them only judged whether a step of the quantizer is kept")
    yield "Pixels' sha256", tag("code", text(found.sha256))
    if found.unreadable:
        listed = ", ".join(found.unreadable)
        yield "Passed over", text(f"{len(found.unreadable)} that could not be read: {listed}")


def _sheet(found: Calibration) -> Html:
    if found.sheet is None:
        return paragraph(_NO_SHEET, "note")
    caption = tag("figcaption", text(f"Some of the {found.images} images, cut to squares."))
    return tag("figure", jpeg(found.sheet, f"Thumbnails of images of {found.origin}"), caption)


def provenance(held: Holdings) -> Html:
    """Say what everything was made of, and what the quantizer decided."""
    parts = [facts(_origins(held))]
    if held.recipe:
        name, summary = (str(held.recipe.get(key, "")) for key in ("name", "summary"))
        parts += [tag("h3", text(f"Recipe {name}")), paragraph(summary, "note")]
        parts += [_decisions(held)] if held.decisions else []
        knobs = [
            (file_name(knob), text(value))
            for knob, value in held.recipe.items()
            if value not in (name, summary)
        ]
        parts.append(fold("Every knob of the recipe", table("Recipe", ("Knob", "Value"), knobs, (1,))))
    hashes = {file.path: file.sha256 for file in held.files} | dict(held.parts)
    rows = [(file_name(path), tag("code", text(sha256))) for path, sha256 in hashes.items()]
    parts.append(fold("Hashes of every file", table("Hashes", ("File", "sha256"), rows, ())))
    return section("provenance", "Provenance", *parts)


def _origins(held: Holdings) -> Iterator[tuple[str, Html]]:
    spec, how = held.spec, held.spec.preprocess
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    network = f"{spec.architecture}, width {spec.width:g}, {spec.padding} padding, "
    yield "Weights", text(held.source["origin"])
    yield "Their sha256", tag("code", text(held.source["sha256"]))
    yield "Architecture", text(f"{network}BatchNorm eps {spec.batch_norm_eps:g}")
    yield "Preprocessing", tag("ol", *(tag("li", text(step)) for step in held.steps))
    yield (
        "Its numbers",
        text(
            f"resize_px {how.resize_px}, crop_px {how.crop_px}, {how.interpolation}; mean {mean}; std {std}"
        ),
    )
    yield "Versions", text(", ".join(f"{name} {number}" for name, number in held.versions.items()))


def _decisions(held: Holdings) -> Html:
    rows = [
        (
            text(one.step.replace("_", " ")),
            text(f"{one.before_db:.2f}"),
            text(f"{one.after_db:.2f}"),
            text(signed(one.after_db - one.before_db)),
            tag("span", text("kept" if one.kept else "left out"), class_="good" if one.kept else "soft"),
        )
        for one in held.decisions
    ]
    note = (
        f"Each step is judged by the mean SQNR of the logits over {held.decisions[0].images} held-out calibration "
        "images, and kept only where it rises."
    )
    heads = ("Step", "Before, dB", "After, dB", "Gain, dB", "Decision")
    return join([paragraph(note, "note"), table("Decisions of the quantizer", heads, rows, (1, 2, 3))])
