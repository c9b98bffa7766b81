"""What a bundle holds, as values: everything that a report shows, read and checked in one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mobilenet_export.agent.check import EXPECTED, Recorded, changed_files, read_recorded
from mobilenet_export.architectures import ARCHITECTURES
from mobilenet_export.architectures.dissect import dissect, trainable
from mobilenet_export.bundle import CALIBRATION, DOCUMENT, EXPORT_AGAIN, LAYERS, RESULTS, SELF_CHECK, Bundle
from mobilenet_export.deployment.measure import Check, read_check, read_latency
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError, MnxError
from mobilenet_export.graph import FloatArray
from mobilenet_export.interpreter import softmax
from mobilenet_export.latency import LatencyRow
from mobilenet_export.quantized import Decision
from mobilenet_export.report import DriftReport, LayerCurve, curve_from_json, drift_from_json
from mobilenet_export.spec import ModelSpec

_NOT_A_DOCUMENT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_MOST_DEVICE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One model file: what it is, what it takes and what it gives."""

    path: str
    format: str
    precision: str
    io: str
    bytes: int
    sha256: str
    takes: str
    gives: str

    @property
    def kind(self) -> str:
        """What tells it from the other files of a bundle, such as `int8 ONNX, uint8 pixels`."""
        form = {"onnx": "ONNX", "tflite": "TFLite", "ort": "ORT"}.get(self.format, self.format)
        return f"{self.precision} {form}" + (f", {self.io} pixels" if self.io != "float32" else "")


@dataclass(frozen=True, slots=True)
class Device:
    """What came back of one device: how the bundle's check ended there, and how long inference took."""

    name: str
    verdict: str
    machine: str
    check: Check | None
    rows: tuple[LatencyRow, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What int8 was calibrated with; `sheet` is a JPEG of some of the images."""

    origin: str
    images: int
    sha256: str
    unreadable: tuple[str, ...]
    sheet: bytes | None


@dataclass(frozen=True, slots=True)
class Answers:
    """What a file made of the self-check's images: class probabilities, float32 (N, K)."""

    file: ModelFile
    shares: FloatArray


@dataclass(frozen=True, slots=True)
class Holdings:
    """All that a report shows of a bundle.

    Attributes:
        spec: The variant.
        files: The model files.
        drift: Of every file against the original.
        curve: The error of int8 along the network; None without int8, or in a bundle of an older version.
        devices: What came back of them.
        left_out: What could not be read of them, one line each.
        calibration: None where nothing was calibrated.
        pictures: Of the self-check.
        names: Of the pictures.
        labels: Class names.
        answers: Of the self-check: those of fp32, and of int8 or else fp16.
        recipe: The quantizer's knobs; empty without int8.
        decisions: What the quantizer tried.
        source: Kind, origin and hash of the weights.
        versions: Of the packages that made the bundle, mobilenet-export first.
        steps: How a photo is preprocessed, in words.
        parts: Name → hash of every other file.
    """

    spec: ModelSpec
    files: tuple[ModelFile, ...]
    drift: DriftReport
    curve: LayerCurve | None
    devices: tuple[Device, ...]
    left_out: tuple[str, ...]
    calibration: Calibration | None
    pictures: tuple[Image.Image, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    answers: tuple[Answers, ...]
    recipe: Mapping[str, Any]
    decisions: tuple[Decision, ...]
    source: Mapping[str, str]
    versions: Mapping[str, str]
    steps: tuple[str, ...]
    parts: Mapping[str, str]

    def kind(self, path: str) -> str:
        """What a file is, in a few words; its name where it is none of the bundle."""
        return next((file.kind for file in self.files if file.path == path), path)

    @property
    def parameters(self) -> int | None:
        """Trainable numbers: as the variant says, else counted; None of a network that is no variant."""
        known = self.spec.architecture in ARCHITECTURES
        return self.spec.parameters or (trainable(self.spec) if known else None)

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of one image, likewise."""
        known = self.spec.architecture in ARCHITECTURES
        return self.spec.macs or (dissect(self.spec).macs if known else None)

    @property
    def judges_int8(self) -> bool:
        """Whether there is a limit for int8, or no int8."""
        limits = self.spec.limits
        known = limits.int8_sqnr_db is not None or limits.int8_agreement_percent is not None
        return known or not self.smallest("int8")

    def smallest(self, precision: str) -> int:
        """Bytes of the smallest file of a precision; 0 where there is none."""
        return min((file.bytes for file in self.files if file.precision == precision), default=0)


def read_holdings(bundle: Bundle) -> Holdings:
    """Read what a report shows; a damaged report of a device is left out, and said to be.

    Raises:
        DamagedInputError: Something of the bundle is missing, damaged or changed.
    """
    devices, left_out = _read_devices(bundle.folder / RESULTS)
    try:
        if changed := changed_files(bundle):
            raise DamagedInputError(f"{bundle.folder}: {changed[0]}", EXPORT_AGAIN)
        bundle.artifacts()
        return _read_document(bundle, read_recorded(bundle), devices, left_out)
    except _NOT_A_DOCUMENT as error:
        raise DamagedInputError(
            f"{bundle.folder / DOCUMENT}: not a bundle's document: {_reason(error)}", EXPORT_AGAIN
        ) from None


def _read_document(
    bundle: Bundle, recorded: Recorded, devices: tuple[Device, ...], left_out: tuple[str, ...]
) -> Holdings:
    document = bundle.document
    files = tuple(_model_file(entry) for entry in document["files"])
    return Holdings(
        spec=recorded.spec,
        files=files,
        drift=drift_from_json(document["drift"]),
        curve=_read_curve(bundle.folder / LAYERS),
        devices=devices,
        left_out=left_out,
        calibration=_calibration(bundle, document["calibration"]),
        pictures=recorded.pictures,
        names=tuple(str(entry["image"]) for entry in document["self_check"]),
        labels=recorded.labels,
        answers=_answers(bundle, files, recorded),
        recipe=dict(document["recipe"] or {}),
        decisions=tuple(Decision.from_table(entry) for entry in document["decisions"]),
        source={name: str(document["source"][name]) for name in ("kind", "origin", "sha256")},
        versions={"mobilenet-export": str(document["mobilenet_export"])}
        | {str(name): str(number) for name, number in document["versions"].items()},
        steps=tuple(map(str, document["preprocessing"])),
        parts={str(entry["path"]): str(entry["sha256"]) for entry in document.get("parts", ())},
    )


def _model_file(entry: Mapping[str, Any]) -> ModelFile:
    takes, gives = entry["input"], entry["output"]
    return ModelFile(
        path=str(entry["path"]),
        format=str(entry["format"]),
        precision=str(entry["precision"]),
        io=str(entry["io"]),
        bytes=int(entry["bytes"]),
        sha256=str(entry["sha256"]),
        takes=f"{takes['layout']} {_shape(takes['shape'])} {takes['type']}, {takes['values']}",
        gives=f"{_shape(gives['shape'])} {gives['type']}",
    )


def _shape(sizes: list[Any]) -> str:
    return "×".join(map(str, sizes))


def _calibration(bundle: Bundle, table: Mapping[str, Any] | None) -> Calibration | None:
    if table is None:
        return None
    sheet = bundle.folder / CALIBRATION
    return Calibration(
        origin=str(table["origin"]),
        images=int(table["images"]),
        sha256=str(table["sha256"]),
        unreadable=tuple(map(str, table["unreadable"])),
        sheet=sheet.read_bytes() if sheet.is_file() else None,
    )


def _answers(bundle: Bundle, files: tuple[ModelFile, ...], recorded: Recorded) -> tuple[Answers, ...]:
    """The first fp32 file's answers, and those of what is least like it."""
    found = []
    for precisions in (("fp32",), ("int8", "fp16")):
        chosen = [file for name in precisions for file in files if file.precision == name][:1]
        for file in chosen:
            outputs = recorded.outputs.get(file.path)
            if outputs is None or outputs.shape != (len(recorded.pictures), len(recorded.labels)):
                where = bundle.folder / SELF_CHECK / EXPECTED
                raise DamagedInputError(f"{where}: no outputs of {file.path} for every class", EXPORT_AGAIN)
            found.append(Answers(file, outputs if recorded.spec.softmax else softmax(outputs)))
    return tuple(found)


def _read_curve(path: Path) -> LayerCurve | None:
    if not path.is_file():
        return None
    try:
        return curve_from_json(parse_json(path.read_bytes()))
    except _NOT_A_DOCUMENT as error:
        raise DamagedInputError(f"{path}: no layers: {_reason(error)}", EXPORT_AGAIN) from None


def _read_devices(folder: Path) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    devices, left_out = [], []
    for path in sorted(folder.glob("*.json")):
        try:
            devices.append(_read_device(path))
        except (*_NOT_A_DOCUMENT, OSError, MnxError) as error:
            left_out.append(f"{RESULTS}/{path.name} cannot be read: {_reason(error)}")
    return tuple(devices), tuple(left_out)


def _read_device(path: Path) -> Device:
    if path.stat().st_size > _MOST_DEVICE_BYTES:
        raise ValueError("it is too large")
    document = parse_json(path.read_bytes())
    name = document["host"]
    if not isinstance(name, str):
        raise TypeError("its host is no text")
    check = read_check(name, document["check"]) if document["check"] else None
    latency = read_latency(name, document["latency"]) if document["latency"] else None
    found = latency or check
    machine = found.document["machine"] if found else {}
    return Device(
        name=name,
        verdict=str(document["verdict"]),
        machine=_machine(machine),
        check=check,
        rows=tuple(_latency_row(row) for row in latency.document["rows"]) if latency else (),
        notes=latency.notes if latency else (),
    )


def _machine(table: Mapping[str, Any]) -> str:
    words = [str(table[name]) for name in ("board", "cpu", "architecture", "system") if table.get(name)]
    return ", ".join([*words, f"{int(table['cores'])} cores"]) if table.get("cores") else ", ".join(words)


def _latency_row(row: Mapping[str, Any]) -> LatencyRow:
    rounds = tuple(tuple(float(sample) for sample in samples) for samples in row["rounds_ms"])
    samples = np.array([sample for samples in rounds for sample in samples])
    if not samples.size or not (np.isfinite(samples) & (samples >= 0)).all():
        raise ValueError("a row has no samples")
    texts = {name: str(row[name]) for name in ("file", "precision", "runtime", "provider")}
    return LatencyRow(**texts, threads=int(row["threads"]), batch=int(row["batch"]), rounds_ms=rounds)  # type: ignore[arg-type]


def _reason(error: Exception) -> str:
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return " ".join(reason.split())[:200]
