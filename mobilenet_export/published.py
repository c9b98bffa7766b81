"""Top-1 that others published, by width and resolution: `models/published/*.toml`. Nothing is interpolated."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass

from mobilenet_export.errors import unknown_name
from mobilenet_export.shipped import shipped_path


@dataclass(frozen=True, slots=True)
class Published:
    """What was published of one architecture.

    Attributes:
        arch: Short name of the variant that is resized, such as `v1`.
        source: Where the figures stand.
        trained_by: Whose weights they are of.
        top1_percent: (width, resolution in px) → top-1 of fp32 in percent.
    """

    arch: str
    source: str
    trained_by: str
    top1_percent: Mapping[tuple[float, int], float]


def read_published(archs: tuple[str, ...] = ()) -> tuple[Published, ...]:
    """Return what was published of some architectures; of all where none is named.

    Raises:
        UsageError: Nothing was published of one; the hint names the nearest.
    """
    paths = sorted(shipped_path("models", "published").glob("*.toml"))
    known = {found.arch: found for found in map(_read, [path.read_text(encoding="utf-8") for path in paths])}
    for arch in archs:
        if arch not in known:
            raise unknown_name("arch", arch, known)
    return tuple(known[arch] for arch in archs or known)


def _read(text: str) -> Published:
    table = tomllib.loads(text)
    figures = {
        (float(width), int(px)): float(percent)
        for width, row in table.pop("top1_percent").items()
        for px, percent in row.items()
    }
    return Published(**table, top1_percent=figures)
