"""Images and files, made ready to be compared."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilenet_export import images
from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.drift import Evidence, Subject
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import ImageSet
from mobilenet_export.runtimes import Runtime
from mobilenet_export.spec import ModelSpec

BATCH = 8


def values_of(image_set: ImageSet, spec: ModelSpec) -> FloatArray:
    """Preprocess all images of a small set at once, float32 (N, 3, H, W)."""
    return np.concatenate([batch for _, batch in images.batches(image_set, spec.preprocess, BATCH)])


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
        if engine.format == artifact.format
    )
    for subject in subjects:
        if subject.session.resolution_px not in (None, spec.resolution_px):
            raise UsageError(
                f"{subject.artifact.file} takes {subject.session.resolution_px} px, not {spec.resolution_px} px",
                "give the variant that it was exported from with --arch",
            )
    return subjects
