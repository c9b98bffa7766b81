"""The self-check of a bundle: every file, in every runtime here, from the photos to the answers recorded on the PC.

A failure names its cause: a file that changed, labels that moved, an engine too old, or one of the known mistakes
between photo and network (`checks.mistakes`).
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from mobilenet_export.agent.request import Engine, pairs
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import LABELS, SELF_CHECK, Bundle
from mobilenet_export.checks.mistakes import Run, distance, find_label_shift, find_mistake
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError, MnxError, UsageError
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import open_image, preprocess
from mobilenet_export.interpreter import softmax
from mobilenet_export.machine import Machine, this_machine
from mobilenet_export.runtimes import Session, Setup, find_provider
from mobilenet_export.spec import ModelSpec

EXPECTED = "expected.json"
FLOAT_TOLERANCE = 1e-5
"""Of fp32 and fp16, relative to the norm of the outputs: only the order of additions differs, by 2e-7."""
MOST_STEPS = 10
"""Of int8, in steps of the logits. Runtimes of today give the same bits; tflite-runtime has no XNNPACK for int8,
whose multipliers break ties differently, and was seen 7 steps away."""
_SMALLEST_PROBABILITY = 1e-7

Verdict = Literal["pass", "fail"]


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One file in one runtime; `top5` is of the first image: (class, label, score)."""

    file: str
    precision: str
    runtime: str
    provider: str
    verdict: Verdict
    detail: str
    top5: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a self-check found; a failure is one line with its cause."""

    machine: Machine
    runtimes: Mapping[str, str]
    images: int
    rows: tuple[CheckRow, ...]
    failures: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Whether all is as it was on the PC."""
        return "fail" if self.failures else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table."""
        return {"kind": "check", "verdict": self.verdict, **dataclasses.asdict(self)}


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a bundle says that its files make of its self-check images.

    Attributes:
        spec: Variant, with the preprocessing.
        pictures: The images, decoded.
        labels: Class names, as they are now.
        outputs: File → recorded outputs, float32 (N, K).
        steps: int8 file → step of its logits.
        named: Class → label, of every recorded top-5.
    """

    spec: ModelSpec
    pictures: tuple[Image.Image, ...]
    labels: tuple[str, ...]
    outputs: Mapping[str, FloatArray]
    steps: Mapping[str, float]
    named: Mapping[int, str]


def check(bundle: Bundle, files: Sequence[str], engines: Sequence[Engine]) -> CheckReport:
    """Check a bundle on this machine: `files`, or all.

    Raises:
        UsageError: No such file, or no runtime reads any.
        DamagedInputError: The bundle's own record of what is right cannot be read.
    """
    recorded = read_recorded(bundle)
    failures = [*changed_files(bundle), *moved_labels(recorded)]
    artifacts = _readable(bundle, files, failures)
    rows = []
    for artifact, engine in pairs(artifacts, engines) if artifacts else ():
        row, cause = check_file(artifact, engine, recorded)
        rows.append(row)
        if cause:
            failures.append(f"{row.file} in {row.runtime}:{row.provider}: {cause}")
    versions = {engine.runtime.name: engine.runtime.version() for engine in engines}
    return CheckReport(this_machine(), versions, len(recorded.pictures), tuple(rows), tuple(failures))


def read_recorded(bundle: Bundle) -> Recorded:
    """Read what the bundle's files made of its images when it was written.

    Raises:
        DamagedInputError: Something of it is missing or damaged, or an image is.
    """
    try:
        spec = bundle.spec()
        names = [entry["image"] for entry in bundle.document["self_check"]]
        table = parse_json((bundle.folder / SELF_CHECK / EXPECTED).read_bytes())
        outputs = {f: np.asarray([table[f][name]["output"] for name in names], np.float32) for f in table}
        best = [one for images in table.values() for image in images.values() for one in image["top5"]]
        named = {int(one["class"]): str(one["label"]) for one in best}
        steps = {e["path"]: float(e["step"]) for e in bundle.document["files"] if e.get("step")}
    except (OSError, LookupError, TypeError, ValueError, AttributeError, OverflowError, MnxError) as error:
        where = bundle.folder / SELF_CHECK / EXPECTED
        raise DamagedInputError(
            f"{where}: cannot be checked against: {error}", "send the bundle again"
        ) from None
    pictures = tuple(open_image(bundle.folder / SELF_CHECK / name, name) for name in names)
    return Recorded(spec, pictures, bundle.labels(), outputs, steps, named)


def changed_files(bundle: Bundle) -> list[str]:
    """Return one line for each file of the bundle that is not there or has other bytes, model files aside."""
    entries = [(e["path"], e["sha256"]) for e in bundle.document.get("parts", ())]
    entries += [(f"{SELF_CHECK}/{e['image']}", e["sha256"]) for e in bundle.document.get("self_check", ())]
    lines = []
    for name, sha256 in entries:
        path = bundle.folder / name
        if not path.is_file():
            lines.append(f"{name} is missing: send the bundle again")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            lines.append(f"{name} has changed since the export: its sha256 differs")
    return lines


def moved_labels(recorded: Recorded) -> list[str]:
    """Return a line if the class names are not where they were."""
    shift = find_label_shift(recorded.labels, recorded.named)
    if shift == 0:
        return []
    if shift is None:
        return [f"{LABELS} does not name the classes that were recorded: it is another model's"]
    lines = "1 line" if abs(shift) == 1 else f"{abs(shift)} lines"
    where = "below" if shift > 0 else "above"
    return [f"labels are shifted: each name in {LABELS} stands {lines} {where} its place"]


def _readable(bundle: Bundle, files: Sequence[str], failures: list[str]) -> list[Artifact]:
    """Read the model files one by one, so that a damaged one hides no other."""
    known = [entry["path"] for entry in bundle.document["files"]]
    for name in files:
        if name not in known:
            raise UsageError(f"{name} is not a file of this bundle", "its files: " + ", ".join(known))
    found = []
    for name in files or known:
        try:
            found.append(bundle.artifact(name))
        except DamagedInputError as error:
            failures.append(error.message)
    return found


def check_file(artifact: Artifact, engine: Engine, recorded: Recorded) -> tuple[CheckRow, str | None]:
    """Run one file in one runtime on the images; also the cause, if it fails."""
    provider = find_provider(engine.runtime, engine.provider).name
    row = CheckRow(artifact.file, artifact.precision, engine.runtime.name, provider, "fail", "does not load")
    try:
        session = engine.runtime.open(artifact, Setup(engine.provider))
        outputs = _run(session, [preprocess(p, recorded.spec.preprocess) for p in recorded.pictures])
    except MnxError as error:
        return row, explain_refusal(error, engine)
    target = recorded.outputs.get(artifact.file)
    if target is None or target.shape != outputs.shape:
        return row, f"{SELF_CHECK}/{EXPECTED} holds no outputs of this file"
    top5 = best_five(outputs[0], recorded.labels)
    detail, passed = compare(artifact, outputs, target, recorded)
    row = dataclasses.replace(row, detail=detail, top5=top5, verdict="pass" if passed else "fail")
    return (row, None) if passed else (row, f"{detail}; {explain(session, recorded, outputs, target)}")


def _run(session: Session, images: Sequence[FloatArray]) -> FloatArray:
    return np.concatenate([session.run(image[np.newaxis]) for image in images])


def _runner(session: Session) -> Run:
    return lambda batch: _run(session, list(batch))


def best_five(scores: FloatArray, labels: Sequence[str]) -> tuple[tuple[int, str, float], ...]:
    """Return (class, label, score) of the five best; of none where scores are NaN or infinite."""
    if not np.isfinite(scores).all():
        return ()
    best = np.argsort(-scores, kind="stable")[:5]
    return tuple((int(i), labels[i] if i < len(labels) else "?", float(f"{scores[i]:.6g}")) for i in best)


def compare(
    artifact: Artifact, outputs: FloatArray, target: FloatArray, recorded: Recorded
) -> tuple[str, bool]:
    """Return how far outputs are from the recorded ones, in words, and whether that is near enough."""
    if not np.isfinite(outputs).all():
        return "outputs hold NaN or infinity", False
    step = recorded.steps.get(artifact.file)
    if step is None:
        relative = distance(outputs, target)
        return f"{relative:.1e} of the norm away", relative <= FLOAT_TOLERANCE
    if recorded.spec.softmax:  # a step of the logits is a factor of the probabilities
        outputs, target = _log(outputs), _log(target)
        outputs, target = (values - values.max(axis=1, keepdims=True) for values in (outputs, target))
    steps = float(np.abs(outputs - target).max()) / step
    if steps < 0.01:  # recorded to 8 digits
        return "bit-equal", True
    return f"{steps:.0f} steps of int8 (LSB) away at most", steps <= MOST_STEPS + 0.01


def _log(probabilities: FloatArray) -> FloatArray:
    return np.asarray(np.log(np.maximum(probabilities, _SMALLEST_PROBABILITY)))


def explain(session: Session, recorded: Recorded, outputs: FloatArray, target: FloatArray) -> str:
    """Name the cause of outputs that are not as recorded."""
    how = recorded.spec.preprocess
    mistake = find_mistake([_runner(session)], recorded.pictures, how, target)
    if mistake:
        return f"they were recorded as if {mistake}: the preprocessing in mnx.json is not that of this file"
    if distance(outputs, target) > 0.5:
        return "it is another network's file, or its preprocessing in mnx.json was changed"
    return "this runtime computes something else; try another version of it"


def explain_refusal(error: MnxError, engine: Engine) -> str:
    """Name the cause of a file that does not load, as far as the engine's words tell."""
    words = error.message.lower()
    old = ("opset", "ir version", "ir_version", "didn't find op", "not supported by", "unsupported model")
    if any(word in words for word in old):
        version = engine.runtime.version()
        return f"{engine.runtime.name} {version} is too old for this file ({error.message}); update it"
    return f"{error.message}; {error.hint}"


def check_outputs(path: Path, recorded: Recorded, artifacts: Sequence[Artifact], engine: Engine) -> CheckRow:
    """Compare outputs that an app computed for the self-check images with the recorded ones, and name the mistake.

    Args:
        path: .npy or JSON of (N, K) numbers, in the order of the images' names.
        recorded: Of the bundle.
        artifacts: That the app may have run.
        engine: To try mistakes in.

    Raises:
        DamagedInputError: The file holds no such numbers.
    """
    found = _read_outputs(path)
    images, classes = next(iter(recorded.outputs.values())).shape
    if found.shape != (images, classes):
        background = found.shape[1:] == (classes + 1,)
        more = "; the class more is TensorFlow's background, class 0: leave it out" if background else ""
        raise DamagedInputError(
            f"{path}: shape {found.shape}, not {images} images × {classes} classes{more}",
            "give the outputs for the images of self_check/, sorted by name",
        )
    nearest = min(artifacts, key=lambda one: distance(found, recorded.outputs[one.file]))
    detail, passed = compare(nearest, found, recorded.outputs[nearest.file], recorded)
    if not passed and _is_softmax_of(found, recorded, artifacts):
        detail, passed = "as recorded, after a softmax", True
    if not passed:
        unknown = f"no known mistake explains it; closest to this file, {detail}"
        detail = _explain_app(found, recorded, artifacts, engine) or unknown
    top5 = best_five(found[0], recorded.labels)
    verdict: Verdict = "pass" if passed else "fail"
    return CheckRow(nearest.file, nearest.precision, "your app", "", verdict, detail, top5)


def _is_softmax_of(found: FloatArray, recorded: Recorded, artifacts: Sequence[Artifact]) -> bool:
    """Whether an app that does softmax itself had a file's logits before it."""
    targets = (softmax(recorded.outputs[artifact.file]) for artifact in artifacts)
    return not recorded.spec.softmax and min(distance(found, target) for target in targets) <= 1e-3


def _explain_app(
    found: FloatArray, recorded: Recorded, artifacts: Sequence[Artifact], engine: Engine
) -> str | None:
    if not np.isfinite(found).all():
        return "they hold NaN or infinity"
    if len(found) > 1 and np.ptp(found, axis=0).max() == 0:
        return "they are the same for every image: the images do not reach the network"
    for artifact in artifacts:
        target = recorded.outputs[artifact.file]
        if (order := _order(found, target)) is not None:
            return f"the images are in another order: {', '.join(map(str, order))} instead of 0, 1, …"
    for shift in (-1, 1):
        targets = (np.roll(recorded.outputs[artifact.file], shift, axis=1) for artifact in artifacts)
        if min(distance(target, found) for target in targets) < 0.1:
            return f"classes are shifted by {shift:+d}"
    runs = [_runner(engine.runtime.open(artifact)) for artifact in artifacts]
    mistake = find_mistake(runs, recorded.pictures, recorded.spec.preprocess, found)
    return f"in the app {mistake}" if mistake else None


def _order(found: FloatArray, target: FloatArray) -> list[int] | None:
    """Return which recorded image each row is of, where every row is of another and they are only out of order."""
    order = [int(np.linalg.norm(target - row, axis=1).argmin()) for row in found]
    is_moved = sorted(order) == list(range(len(found))) and order != list(range(len(found)))
    return order if is_moved and distance(found, target[order]) < 0.1 else None


def _read_outputs(path: Path) -> FloatArray:
    readers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: np.load(path, allow_pickle=False),
        ".json": lambda: parse_json(path.read_bytes()),
    }
    if path.suffix not in readers:
        raise UsageError(f"{path}: not .npy or .json", "save the outputs of all images as one (N, K) array")
    try:
        values = np.asarray(readers[path.suffix](), np.float32)
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", "save the outputs of all images as .npy or .json") from None
    except Exception as error:  # numpy raises errors of any type for damaged files
        raise DamagedInputError(f"{path}: no array of numbers: {error}", "save (N, K) numbers") from None
    return values
