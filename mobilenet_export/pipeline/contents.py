"""What goes into a bundle: files, class names, notice, self-check, and the table of contents."""

import dataclasses
import hashlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

import mobilenet_export
from mobilenet_export import __version__, images
from mobilenet_export.agent import MODULES
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import (
    CALIBRATION,
    COPIES,
    DEVICE,
    EQUALIZATION,
    LABELS,
    LAYERS,
    REPORT,
    RUN,
    SCHEMA,
    SELF_CHECK,
    read_bundle,
    write_document,
)
from mobilenet_export.formats import Format
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import Choice, ImageSet
from mobilenet_export.pipeline.evidence import hash_images, printable, values_of
from mobilenet_export.pipeline.reference import Source
from mobilenet_export.pipeline.report import render
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantize.splitting import spell_copies
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.report import DriftReport, LayerCurve
from mobilenet_export.runtimes import available_runtimes
from mobilenet_export.spec import spec_to_table
from mobilenet_export.thumbnails import contact_sheet

SELF_CHECK_IMAGES = 4
_SHEET = (12, 96, 6)
"""Images of the contact sheet, the side of each in px, columns."""
_SELF_CHECK_CROPS = ((0, 0, 256, 211), (0, 0, 199, 256))


@dataclass(frozen=True, slots=True)
class Contents:
    """All that goes into a bundle; `shows_images`: some of those that calibrated, too."""

    recipe: QuantRecipe
    source: Source
    choice: Choice
    quantized: QuantizedGraph | None
    artifacts: tuple[Artifact, ...]
    labels: tuple[str, ...]
    drift: DriftReport
    layers: LayerCurve | None
    shows_images: bool


def fill_bundle(folder: Path, contents: Contents) -> None:
    """Write the files, their table of contents, the class names, the notice, the self-check and the report."""
    for artifact in contents.artifacts:
        (folder / artifact.file).write_bytes(artifact.data)
    for name, data in _companions(contents.artifacts):
        (folder / name).write_bytes(data)
    (folder / LABELS).write_text("\n".join(contents.labels) + "\n", encoding="utf-8")
    weights = contents.source.spec.weights
    if weights is not None and (card := weights.card_path):
        (folder / "WEIGHTS.md").write_bytes(card.read_bytes())
    if factors := _equalization(contents):
        (folder / EQUALIZATION).write_bytes(factors)
    if contents.layers:
        text = json.dumps(contents.layers.to_json(), separators=(",", ":"), allow_nan=False)
        (folder / LAYERS).write_text(text + "\n", encoding="utf-8")
    if contents.shows_images and (sheet := contact_sheet(contents.choice.calibrate, *_SHEET)):
        (folder / CALIBRATION).write_bytes(sheet)
    self_check = write_self_check(folder / SELF_CHECK, contents)
    write_device_code(folder)
    write_document(folder, describe(contents, self_check) | {"parts": hash_parts(folder, contents)})
    (folder / REPORT).write_text(render(read_bundle(folder)).html, encoding="utf-8")


def _companions(artifacts: Sequence[Artifact]) -> Iterator[tuple[str, bytes]]:
    """What each format puts beside its files, as name and bytes."""
    for name in sorted({artifact.format for artifact in artifacts}):
        form: Format = load_plugin("formats", name)
        yield from form.companions([one.data for one in artifacts if one.format == name]).items()


def write_device_code(folder: Path) -> None:
    """Write what checks and runs the files on a device; an uncompressed zip has the same bytes everywhere."""
    package = Path(mobilenet_export.__file__).parent
    shutil.copyfile(package / "agent" / "run.py", folder / RUN)
    with zipfile.ZipFile(folder / DEVICE, "w") as archive:
        for module in MODULES:
            path = Path(*module.split(".")).with_suffix(".py")
            entry = zipfile.ZipInfo(f"{package.name}/{path.as_posix()}")  # dated 1980
            archive.writestr(entry, (package / path).read_bytes())


def hash_parts(folder: Path, contents: Contents) -> list[dict[str, str]]:
    """Return name and hash of every file but the models and the images, which have entries of their own."""
    models = {artifact.file for artifact in contents.artifacts}
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    parts = (name for name in names if name not in models and not name.endswith(".png"))
    return [{"path": n, "sha256": hashlib.sha256((folder / n).read_bytes()).hexdigest()} for n in parts]


def _equalization(contents: Contents) -> bytes | None:
    """By what the int8 files' channels were multiplied, and which are copies, as safetensors; None without any."""
    if contents.quantized is None:
        return None
    arrays: dict[str, NDArray[Any]] = {
        name: np.ascontiguousarray(values) for name, values in contents.quantized.equalization.items()
    }
    arrays |= {COPIES + layer: source for layer, source in spell_copies(contents.quantized).items()}
    return save(arrays) if arrays else None


def write_self_check(folder: Path, contents: Contents) -> list[dict[str, str]]:
    """Write procedural images as PNG, and what every file makes of them in its default runtime.

    PNG decodes to the same pixels everywhere; the images are not square, so that a wrong resize or crop shows.

    Returns:
        Name and hash of each image.
    """
    folder.mkdir()
    _, check = images.default_set()
    for index, name in enumerate(check.names[:SELF_CHECK_IMAGES]):
        images.save_crop(check, name, _SELF_CHECK_CROPS[index % 2], folder / f"{Path(name).stem}.png")
    pictures = ImageSet.open(folder)
    batch = values_of(pictures, contents.source.spec)
    expected = {
        artifact.file: dict(zip(pictures.names, _expected(artifact, batch, contents.labels), strict=True))
        for artifact in contents.artifacts
    }
    (folder / "expected.json").write_text(
        json.dumps(expected, separators=(",", ":")) + "\n", encoding="utf-8"
    )
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in pictures.names}
    return [{"image": name, "sha256": sha256} for name, sha256 in hashes.items()]


def _expected(artifact: Artifact, batch: FloatArray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """What a file makes of each image: the best five classes, and all outputs, dequantized to float."""
    (engine, *_) = [engine for engine in available_runtimes() if artifact.format in engine.formats]
    outputs = engine.open(artifact).run(batch)
    return [
        {"top5": _top5(scores, labels), "output": [float(f"{x:.8g}") for x in scores]} for scores in outputs
    ]


def _top5(scores: FloatArray, labels: Sequence[str]) -> list[dict[str, Any]]:
    best = np.argsort(-scores, kind="stable")[:5]
    return [{"class": int(i), "label": labels[i], "score": float(f"{scores[i]:.6g}")} for i in best]


def describe(contents: Contents, self_check: list[dict[str, str]]) -> dict[str, Any]:
    """Return the bundle's table of contents."""
    quantized, factors = contents.quantized, _equalization(contents)
    calibration = {
        "origin": printable(contents.choice.calibrate.origin),
        "images": len(contents.choice.calibrate),
        "sha256": hash_images(contents.choice.calibrate, contents.source.spec),
        "unreadable": [image.name for image in contents.choice.unreadable],
    }
    return {
        "schema": SCHEMA,
        "mobilenet_export": __version__,
        "model": spec_to_table(contents.source.spec),
        "preprocessing": list(images.STEPS),
        "source": dict(contents.source.provenance),
        "files": [describe_file(artifact, contents) for artifact in contents.artifacts],
        "calibration": calibration if {a.precision for a in contents.artifacts} != {"fp32"} else None,
        "recipe": dataclasses.asdict(contents.recipe) if quantized else None,
        "decisions": [_rounded(dataclasses.asdict(decision)) for decision in quantized.decisions]
        if quantized
        else [],
        "equalization_sha256": hashlib.sha256(factors).hexdigest() if factors else None,
        "versions": {
            name: version(name) for name in ("torch", "onnx", "onnxruntime", "onnxsim", "ai-edge-litert")
        },
        "drift": contents.drift.to_json(),
        "self_check": self_check,
    }


def _rounded(table: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in table.items()}


def describe_file(artifact: Artifact, contents: Contents) -> dict[str, Any]:
    """Return a file's entry: what it is, and how to feed it."""
    graph, form = contents.source.graph, load_plugin("formats", artifact.format)
    channels, height, width = graph.input_shape
    layout = "NHWC" if artifact.io == "uint8" else form.layout
    shape = [channels, height, width] if layout == "NCHW" else [height, width, channels]
    batch = "batch" if form.dynamic_batch else 1
    return {
        "path": artifact.file,
        "format": artifact.format,
        "precision": artifact.precision,
        "io": artifact.io,
        "bytes": len(artifact.data),
        "sha256": artifact.sha256,
        "input": {"name": "input", "layout": layout, "shape": [batch, *shape]}
        | _input_values(artifact, contents.quantized),
        "output": {"name": "output", "shape": [batch, *graph.shapes[graph.output]]}
        | _output_values(artifact, contents.quantized),
    } | _step(artifact, contents)


def _step(artifact: Artifact, contents: Contents) -> dict[str, float]:
    """Of an int8 file, the step of its logits, whatever type they leave the file as."""
    if artifact.precision != "int8" or contents.quantized is None:
        return {}
    return {"step": contents.quantized.tensors[contents.source.graph.logits].scale}


def _input_values(artifact: Artifact, quantized: QuantizedGraph | None) -> dict[str, Any]:
    """Type of a file's input and what it holds: normalized values, or RGB pixels, in int8 less 128."""
    if artifact.io == "float32":
        return {"type": "float32", "values": "normalized"}
    zero_point = 0
    if artifact.precision == "int8" and quantized is not None:
        zero_point = quantized.tensors[quantized.graph.input].zero_point
    offset = 128 if artifact.io == "int8" else 0
    return {"type": artifact.io, "values": "rgb", "scale": 1.0, "zero_point": zero_point - offset}


def _output_values(artifact: Artifact, quantized: QuantizedGraph | None) -> dict[str, Any]:
    """Type of a file's output; of integers also what they stand for: real = scale·(q − zero_point)."""
    graph = quantized.graph if quantized else None
    if artifact.io != "int8" or quantized is None or graph is None or graph.logits != graph.output:
        return {"type": "float32"}
    scale = quantized.tensors[graph.logits]
    return {"type": "int8", "scale": scale.scale, "zero_point": scale.zero_point - 128}
