"""Figures that took time to measure, kept for the next run: one small JSON file each, named by what they are of.

Nothing that a file says is believed unchecked, and no trouble with the folder fails a run: what cannot be used is
measured anew.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobilenet_export.bundle import write_whole
from mobilenet_export.errors import MissingError

FORMAT = "mobilenet-export/figures/1"
MOST_ENTRIES = 20_000
"""Of about 0.4 kB each, so 8 MB."""

Figures = Mapping[str, float]


class FigureCache:
    """A folder of figures; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder / "figures" if folder else None

    def recall(self, facts: Mapping[str, Any]) -> Figures | None:
        """Return the figures of an earlier run on equal facts; None where there are none that can be used."""
        path = self._path(facts)
        try:
            entry = json.loads(path.read_bytes()) if path else {}
            figures: Figures = entry["figures"]
            whole = (entry["format"], entry["facts"]) == (FORMAT, _plain(facts))
            whole = whole and entry["sha256"] == _hash(figures)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return figures if whole else None

    def keep(self, facts: Mapping[str, Any], figures: Figures) -> None:
        """Write figures, whole or not at all; a folder that cannot be written to keeps none."""
        path = self._path(facts)
        if path is None:
            return
        entry = {"format": FORMAT, "facts": _plain(facts), "figures": figures, "sha256": _hash(figures)}
        with suppress(OSError, MissingError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, json.dumps(entry))

    def prune(self) -> None:
        """Remove the oldest beyond `MOST_ENTRIES`."""
        with suppress(OSError):
            files = list(self._folder.glob("*.json")) if self._folder else []
            if len(files) > MOST_ENTRIES:
                for old in sorted(files, key=lambda path: path.stat().st_mtime)[:-MOST_ENTRIES]:
                    old.unlink(missing_ok=True)

    def _path(self, facts: Mapping[str, Any]) -> Path | None:
        return self._folder / f"{_hash(facts)[:32]}.json" if self._folder else None


def _plain(facts: Mapping[str, Any]) -> Any:
    """The facts as JSON gives them back."""
    return json.loads(json.dumps(facts))


def _hash(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
