"""Images and files, made ready to be compared."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilenet_export import images
from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.drift import Evidence, Subject
from mobilenet_export.checks.referee import same_integers
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.formats import Format
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.images import ImageSet
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.runtimes import Runtime
from mobilenet_export.spec import ModelSpec

BATCH = 8


def values_of(image_set: ImageSet, spec: ModelSpec) -> FloatArray:
    """Preprocess all images of a small set at once, float32 (N, 3, H, W)."""
    return np.concatenate([batch for _, batch in images.batches(image_set, spec.preprocess, BATCH)])


def hash_images(image_set: ImageSet, spec: ModelSpec) -> str:
    """Hash the preprocessed pixels, so that renamed copies of the same images count as the same."""
    digest = hashlib.sha256()
    for _, batch in images.batches(image_set, spec.preprocess, BATCH):
        digest.update(batch.tobytes())
    return digest.hexdigest()


def evidence_of(
    check: ImageSet, spec: ModelSpec, labels: Mapping[str, int], advance: Callable[[int], None]
) -> Evidence:
    """Return the images as a stream that tells how far it is."""

    def stream() -> Iterator[images.Batch]:
        for batch in images.batches(check, spec.preprocess, BATCH):
            yield batch
            advance(len(batch[0]))

    return Evidence(printable(check.origin), stream(), labels)


def printable(origin: str) -> str:
    """A path's last part, without what its encoding could not decode."""
    return Path(origin).name.encode("utf-8", "replace").decode()


def load_subjects(
    artifacts: Sequence[Artifact], engines: Sequence[Runtime], spec: ModelSpec
) -> tuple[Subject, ...]:
    """Load every file in every one of the runtimes that reads its format.

    Raises:
        UsageError: A file takes images of another size than the variant's.
    """
    subjects = tuple(
        Subject(artifact, engine.open(artifact))
        for artifact in artifacts
        for engine in engines
        if artifact.format in engine.formats
    )
    for subject in subjects:
        if subject.session.resolution_px not in (None, spec.resolution_px):
            raise UsageError(
                f"{subject.artifact.file} takes {subject.session.resolution_px} px, not {spec.resolution_px} px",
                "give the variant that it was exported from with --arch",
            )
    return subjects


def read_integers(artifact: Artifact, graph: Graph) -> QuantizedGraph:
    """Read the integers of an int8 file back.

    Raises:
        DamagedInputError: It holds none that fit the graph.
    """
    form: Format = load_plugin("formats", artifact.format)
    try:
        return form.read_int8(artifact.data, graph)
    except ValueError as error:
        raise DamagedInputError(
            f"{artifact.file}: not the integers of {graph.name}: {error}",
            "the file is damaged or not ours; export it again",
        ) from None


def appoint_referees(
    subjects: Sequence[Subject], graph: Graph, *, ours: bool
) -> tuple[tuple[Subject, ...], tuple[str, ...]]:
    """Give every int8 subject the integers of its file; files that hold the same ones share them.

    Args:
        subjects: To give them to.
        graph: That the files were exported from.
        ours: The files are a bundle's. Another tool's int8 file is measured without a referee, and a note says so.

    Returns:
        The subjects, and the notes.

    Raises:
        DamagedInputError: A file of ours holds no integers that fit the graph.
    """
    known: dict[str, QuantizedGraph] = {}
    notes = []
    for artifact in {subject.artifact.file: subject.artifact for subject in subjects}.values():
        if artifact.precision != "int8":
            continue
        try:
            found = read_integers(artifact, graph)
        except DamagedInputError as error:
            if ours:
                raise
            notes.append(f"no referee: {error.message}")
        else:
            known[artifact.file] = next((k for k in known.values() if same_integers(k, found)), found)
    appointed = (dataclasses.replace(one, integers=known.get(one.artifact.file)) for one in subjects)
    return tuple(appointed), tuple(notes)
