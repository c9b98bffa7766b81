"""A bundle: the files of one export and all that is known about them, in one folder.

`mnx.json` is its table of contents. A bundle appears whole or not at all, and the same inputs make the same
bytes: no dates, no absolute paths.
"""

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenet_export.artifact import Artifact, Normalization
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.scratch import abandoned, scratch_folder
from mobilenet_export.spec import ModelSpec, channels, is_inside, spec_from_table

DOCUMENT = "mnx.json"
SCHEMA = 1
LABELS = "labels.txt"
SELF_CHECK = "self_check"
OLD = "old"
"""Where the folder that is to be replaced stands for a moment, in the new one's scratch folder."""
RUN, DEVICE = "run.py", "device.zip"
"""What checks and runs the files where this package is not installed."""
LAYERS = "layers.json"
"""Of int8 files: the error and the range of every layer."""
CALIBRATION = "calibration.jpg"
"""Some of the images that calibrated, where they may be shown."""
RESULTS = "devices"
"""Folder of what came back of devices."""
REPORT = "report.html"
"""All of it as a page; written anew by `mnx report`, so no hash of it is kept."""
EQUALIZATION = "equalization.safetensors"
"""Where int8 files hold tensors multiplied per channel: the factors by tensor name, float32 (C,)."""
COPIES = "copies/"
"""Begins the names in it of arrays that say which channel each is a copy of."""
EXPORT_AGAIN = "export it again, with --force to replace it"
"""The next step where a bundle is damaged."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: Of the bundle.
        document: `mnx.json`, parsed.
    """

    folder: Path
    document: Mapping[str, Any]

    def artifacts(self) -> tuple[Artifact, ...]:
        """Read every model file, and compare its hash.

        Raises:
            DamagedInputError: A file is missing or is not the one that was written.
        """
        return tuple(self.artifact(entry["path"]) for entry in self.document["files"])

    def artifact(self, name: str) -> Artifact:
        """Read one model file of those listed, and compare its hash.

        Raises:
            DamagedInputError: It is missing or is not the one that was written.
        """
        (entry,) = (entry for entry in self.document["files"] if entry["path"] == name)
        path = self.folder / name
        try:
            data = path.read_bytes()
        except OSError:
            raise DamagedInputError(f"{path}: listed in {DOCUMENT} but not there", EXPORT_AGAIN) from None
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DamagedInputError(
                f"{path}: changed since it was exported: its sha256 differs", EXPORT_AGAIN
            )
        return Artifact(name, entry["format"], entry["precision"], data, entry["io"], self._normalization)

    @property
    def _normalization(self) -> Normalization:
        how = self.document["model"]["preprocess"]
        return Normalization(tuple(how["mean"]), tuple(how["std"]))

    def spec(self) -> ModelSpec:
        """The variant that was exported.

        Raises:
            DamagedInputError: What is there is none.
        """
        try:
            return spec_from_table(dict(self.document["model"]))
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise DamagedInputError(
                f"{self.folder}: its model cannot be read: {error}", EXPORT_AGAIN
            ) from None

    def equalization(self) -> bytes | None:
        """Read what was done to the channels of int8 files, as safetensors; None where nothing was.

        Raises:
            DamagedInputError: The file is missing or is not the one that was written.
        """
        expected = self.document.get("equalization_sha256")
        path = self.folder / EQUALIZATION
        if expected is None:
            return None
        if not path.is_file() or hashlib.sha256(data := path.read_bytes()).hexdigest() != expected:
            raise DamagedInputError(f"{path}: missing, or changed since it was exported", EXPORT_AGAIN)
        return data

    def labels(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs.

        Raises:
            DamagedInputError: The file is missing or not UTF-8 text.
        """
        path = self.folder / LABELS
        try:
            return tuple(path.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError):
            raise DamagedInputError(f"{path}: missing or not UTF-8 text", EXPORT_AGAIN) from None


def read_bundle(folder: Path) -> Bundle:
    """Open a bundle.

    Raises:
        UsageError: The folder is not a bundle.
        DamagedInputError: Its `mnx.json` cannot be read, or is of a newer schema.
    """
    path = folder / DOCUMENT
    if not path.is_file():
        raise UsageError(f"{folder} is not a bundle: it has no {DOCUMENT}", "`mnx export` writes one")
    try:
        document = parse_json(path.read_bytes())
        schema = document["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise _no_document(path, error) from None
    if schema != SCHEMA:
        raise DamagedInputError(
            f"{path}: schema {schema}; this version reads {SCHEMA}", "update mobilenet-export"
        )
    try:
        names = [_entry(entry, _FILE)["path"] for entry in document["files"]]
        parts = [_entry(entry, ("path", "sha256"))["path"] for entry in document.get("parts", ())]
        parts += [_entry(entry, ("image", "sha256"))["image"] for entry in document.get("self_check", ())]
        for name in ("mean", "std"):
            channels(name, document["model"]["preprocess"][name])
        _entry(document["source"], ("kind", "origin", "sha256"))
    except (KeyError, TypeError, ValueError) as error:
        raise _no_document(path, error) from None
    if len(set(names)) < len(names):
        raise DamagedInputError(f"{path}: lists a file twice", EXPORT_AGAIN)
    if not all(is_inside(name) for name in parts) or any(
        not is_inside(name) or Path(name).name != name for name in names
    ):
        raise DamagedInputError(f"{path}: a file lies outside the bundle", EXPORT_AGAIN)
    return Bundle(folder, document)


def _no_document(path: Path, error: Exception) -> DamagedInputError:
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return DamagedInputError(f"{path}: not a bundle's document: {reason}", EXPORT_AGAIN)


_FILE = ("path", "format", "precision", "io", "sha256")


def _entry(entry: Mapping[str, Any], names: Sequence[str]) -> Mapping[str, str]:
    """Return an entry once all that is read of it is there and text."""
    for name in names:
        if not isinstance(entry[name], str):
            raise TypeError(f"{name} of a file is not text")
    return entry


@contextmanager
def new_bundle(folder: Path, *, force: bool) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes the bundle's place when the block ends without an error.

    Raises:
        UsageError: The place is taken and `force` is not given, or what is there is not a bundle.
        MissingError: The place cannot be written to, or the disk is full.
    """
    check_place(folder, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder.parent, _scratch_prefix(folder)) as scratch:
            partial = scratch / folder.name
            partial.mkdir()
            yield partial
            replace_folder(folder, partial, force=force)
    except OSError as error:
        raise _unwritable(folder, error) from None


def _scratch_prefix(folder: Path) -> str:
    return f".{folder.name}.partial-"


def _bring_back(folder: Path) -> None:
    """Put an old bundle back that a killed process had moved aside, before it put the new one in its place."""
    for scratch in abandoned(folder.parent, _scratch_prefix(folder)):
        if not folder.exists():
            with suppress(OSError):
                (scratch / OLD).rename(folder)


def check_place(folder: Path, *, force: bool) -> None:
    """Refuse a place that is taken or cannot be written to, before any work is done.

    Raises:
        UsageError: Something is there and `force` is not given, or it is not a bundle and so not ours to delete.
        MissingError: The place cannot be written to.
    """
    try:
        nearest = folder.absolute().parent
        while not nearest.exists():
            nearest = nearest.parent
        _refuse_taken(folder, force=force)
        with scratch_folder(nearest, _scratch_prefix(folder)):
            pass  # only trying tells: by the permissions root may write everywhere, but not into /proc
    except OSError as error:
        raise _unwritable(folder, error) from None


def _refuse_taken(folder: Path, *, force: bool) -> None:
    if folder.is_symlink():
        raise UsageError(f"{folder} is a symbolic link", "give the folder itself as --out")
    _bring_back(folder)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not force:
        raise UsageError(f"{folder} exists", "give --force to replace it, or another --out")
    if not (folder / DOCUMENT).is_file():
        raise UsageError(f"{folder} is not a bundle, so --force does not delete it", "give another --out")


def replace_folder(folder: Path, partial: Path, *, force: bool) -> None:
    """Put the new folder in place; the old one is deleted only once the new one is there."""
    old = partial.parent / OLD
    if force and folder.exists():
        with suppress(FileNotFoundError):  # another process has just moved it aside
            folder.rename(old)
    try:
        partial.rename(folder)  # takes the place of an empty folder too
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(
                f"{folder} exists by now: another process has put it there",
                "give --force to replace it, or another --out",
            ) from None
        if old.exists():
            old.rename(folder)
        raise


def _unwritable(folder: Path, error: OSError) -> MissingError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MissingError(
            f"the disk ran full while {folder} was written", "free some space; nothing was left behind"
        )
    return MissingError(f"cannot write {folder}: {error.strerror}", "give an --out that you may write to")


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all, and its folder where there is none.

    Raises:
        MissingError: It cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with scratch_folder(path.parent, ".partial-") as scratch:
            (scratch / path.name).write_text(text, encoding="utf-8")
            (scratch / path.name).replace(path)
    except OSError as error:
        raise MissingError(f"cannot write {path}: {error.strerror}", "check space and permissions") from None


def write_document(folder: Path, document: Mapping[str, Any]) -> None:
    """Write `mnx.json`: keys in the order given, numbers as they are."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / DOCUMENT).write_text(text + "\n", encoding="utf-8")
