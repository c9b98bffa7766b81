"""Top-1 of bundles' files on labelled images: chunk by chunk, here or spread over a Dask cluster.

Both run the same function on the same chunks, with one thread each, so that they give the same counts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilenet_export.bundle import Bundle
from mobilenet_export.candidate import Point, Top1
from mobilenet_export.pipeline.figures import FigureCache
from mobilenet_export.pipeline.stages import Stages


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labelled images.

    Attributes:
        data: Folder, zip or array.
        labels_csv: `file,label` rows; else folders name the classes.
        limit: Use this many at most.
        dask: Address of a Dask scheduler whose workers see `data` at the same path; else this computer.
    """

    data: Path
    labels_csv: Path | None = None
    limit: int | None = None
    dask: str | None = None


def measure_top1(
    labelled: Labelled, places: Mapping[Point, Bundle], stages: Stages, kept: FigureCache
) -> Mapping[Point, Top1]:
    """Measure the top-1 of files in runtimes."""
    return {}
