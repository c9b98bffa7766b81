"""What a device gets: a whole bundle of fewer files."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenet_export.bundle import (
    CALIBRATION,
    DEVICE,
    DOCUMENT,
    EQUALIZATION,
    EXPORT_AGAIN,
    LAYERS,
    REPORT,
    RESULTS,
    RUN,
    Bundle,
)
from mobilenet_export.errors import DamagedInputError, UsageError

_STAYS = (RESULTS, REPORT, LAYERS, CALIBRATION, EQUALIZATION, DOCUMENT)
"""What only the computer that exported has a use for, and the document, of which the device gets its own."""
_PIECE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Item:
    """One file to send.

    Attributes:
        path: In the folder on the device, with `/`.
        sha256: Of its bytes.
        size: In bytes.
        source: The file here, or its bytes.
    """

    path: str
    sha256: str
    size: int
    source: Path | bytes

    def pieces(self, offset: int, end: int | None = None) -> Iterator[bytes]:
        """Yield the bytes from `offset` on, up to `end`."""
        end = self.size if end is None else end
        if isinstance(self.source, bytes):
            yield from (self.source[i : min(i + _PIECE_BYTES, end)] for i in range(offset, end, _PIECE_BYTES))
            return
        with self.source.open("rb") as stream:
            stream.seek(offset)
            while piece := stream.read(min(_PIECE_BYTES, end - stream.tell())):
                yield piece

    def prefix_sha256(self, size: int) -> str:
        """Hash of the first `size` bytes."""
        digest = hashlib.sha256()
        for piece in self.pieces(0, size):
            digest.update(piece)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Parcel:
    """The files of one folder on a device, and the one by which the folder is known as ours."""

    items: tuple[Item, ...]
    document: str


def check_bundle(bundle: Bundle) -> None:
    """Refuse a bundle that a device could not use, before anything is sent.

    Raises:
        DamagedInputError: A file is missing, or is not the one that was written.
        UsageError: It is of a version that did not run on devices.
    """
    bundle.artifacts()
    for name in (RUN, DEVICE):
        if not (bundle.folder / name).is_file():
            raise UsageError(f"{bundle.folder} does not run on devices: it has no {name}", EXPORT_AGAIN)


def pack(bundle: Bundle, formats: Collection[str]) -> Parcel:
    """Return the files of some formats, all that belongs to them, and a document that lists only these."""
    entries = [entry for entry in bundle.document["files"] if entry["format"] in formats]
    left_out = {entry["path"] for entry in bundle.document["files"] if entry not in entries}
    others = [
        item_of(path, path.relative_to(bundle.folder).as_posix())
        for path in sorted(bundle.folder.rglob("*"))
        if path.is_file() and not _stays(path.relative_to(bundle.folder), left_out)
    ]
    document: dict[str, Any] = {**bundle.document, "files": entries, "equalization_sha256": None}
    if "parts" in document:
        sent = {item.path for item in others}
        document["parts"] = [part for part in document["parts"] if part["path"] in sent]
    data = (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    return Parcel((*others, _item_of_bytes(data, DOCUMENT)), DOCUMENT)


def _stays(path: Path, left_out: Collection[str]) -> bool:
    return path.parts[0] in _STAYS or path.as_posix() in left_out or "__pycache__" in path.parts


def item_of(path: Path, name: str) -> Item:
    """Return a file to be sent as `name`.

    Raises:
        DamagedInputError: It cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
    except OSError as error:
        raise DamagedInputError(f"{path}: {error.strerror}", EXPORT_AGAIN) from None
    return Item(name, digest.hexdigest(), size, path)


def _item_of_bytes(data: bytes, name: str) -> Item:
    return Item(name, hashlib.sha256(data).hexdigest(), len(data), data)
