"""Published weights by name: downloaded once, checked against a pinned sha256, and kept in the cache.

A download goes on from where an earlier one stopped (RFC 9110, 14.2: Range). Nothing is believed that does not have
the pinned hash, so neither the server nor the connection has to be trusted.
"""

import hashlib
import http.client
import os
import re
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.pipeline.cache import cache_folder
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import WeightsSpec

MOST_BYTES = 512 * 2**20
TIMEOUT_S = 30
_CHUNK = 2**16
_KB = 1000
_FIELDS = {"name", "arch", "url", "sha256"}
_OPTIONAL = {"file", "licence", "source", "card", "top1_percent", "top1_source"}


@dataclass(frozen=True, slots=True)
class Download:
    """A file of weights that can be had.

    Attributes:
        arch: Variant that it is of.
        url: Where it is, http or https.
        weights: What is known of it.
    """

    arch: str
    url: str
    weights: WeightsSpec


def is_published(name: str) -> bool:
    """Whether a name is of weights that can be had, such as `torchvision:mobilenet_v2`, not of a file."""
    return ":" in name and not Path(name).exists()


def find_download(name: str) -> Download:
    """Return the entry of that name in the shipped list, or in the one that MNX_DOWNLOADS names.

    Raises:
        UsageError: There is none, or the user's list cannot be read.
    """
    lists = [shipped_path("models", "weights", "downloads.toml")]
    if own := os.environ.get("MNX_DOWNLOADS"):
        lists.append(Path(own))
    known = {entry.weights.name: entry for path in lists for entry in _read_list(path)}
    if name not in known:
        raise UsageError(
            f"no sha256 is pinned for {name}; known: {', '.join(known)}",
            "download the file and give it with --checkpoint, or pin it in a list of your own: MNX_DOWNLOADS",
        )
    return known[name]


def _read_list(path: Path) -> list[Download]:
    try:
        return [_entry(table) for table in tomllib.loads(path.read_text(encoding="utf-8"))["weights"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path}: not a list of weights: {error}", "compare models/weights/downloads.toml"
        ) from None


def _entry(table: dict[str, Any]) -> Download:
    if not _FIELDS <= set(table) <= _FIELDS | _OPTIONAL:
        raise ValueError(f"fields are {', '.join(sorted(_FIELDS | _OPTIONAL))}")
    url, rest = urlsplit(table["url"]), {name: table[name] for name in _OPTIONAL & set(table)}
    rest["file"] = Path(rest.get("file", url.path)).name
    if url.scheme not in ("http", "https") or not rest["file"]:
        raise ValueError(f"{table['url']} is no http or https address of a file")
    if not re.fullmatch(r"[0-9a-f]{64}", table["sha256"]):
        raise ValueError(f"the sha256 of {table['name']} is not 64 hexadecimal digits")
    weights = WeightsSpec(name=table["name"], sha256=table["sha256"], **rest)
    return Download(table["arch"], table["url"], weights)


def fetch(download: Download, progress: Progress = silent) -> Path:
    """Return the file in the cache, downloaded if it is not there.

    Raises:
        MissingError: It cannot be had: no network, no such file, a connection cut short, no place to keep it.
        DamagedInputError: What was sent is not the file that is pinned.
    """
    folder = cache_folder()
    if folder is None:
        raise MissingError("there is no home to keep downloads in", "name a folder: MNX_CACHE=DIR")
    weights, url = download.weights, _at_mirror(download)
    path = folder / "weights" / f"{weights.sha256[:16]}-{weights.file}"
    if path.is_file() and _sha256(path) == weights.sha256:
        return path
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    try:
        if not (partial.is_file() and _sha256(partial) == weights.sha256):  # whole, but for its name
            _receive(url, partial, progress)
    except urllib.error.HTTPError as error:
        raise MissingError(f"{url}: {error.code} {error.reason}", _elsewhere(url)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, partial, error) from None
    if _sha256(partial) != weights.sha256:
        partial.unlink()
        raise DamagedInputError(
            f"{url}: not the file that is pinned: its sha256 differs", "try again, or another MNX_MIRROR"
        )
    partial.replace(path)
    return path


def _at_mirror(download: Download) -> str:
    mirror = os.environ.get("MNX_MIRROR")
    return f"{mirror.rstrip('/')}/{download.weights.file}" if mirror else download.url


def _receive(url: str, partial: Path, progress: Progress) -> None:
    """Append to the partial file what it lacks; start anew where the server sends all."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        partial.unlink()  # it is as long as the file, or longer: what is there is not the file
        response = urllib.request.urlopen(url, timeout=TIMEOUT_S)
    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        left = int(response.headers.get("Content-Length") or 0)
        stages = Stages(progress)
        with (
            stages(f"download {urlsplit(url).path.rpartition('/')[2]} (kB)", left // _KB) as advance,
            partial.open("ab" if goes_on else "wb") as stream,
        ):
            received = _copy(response, stream.write, advance)
    if received < left:
        raise http.client.IncompleteRead(b"", left - received)


def _copy(response: Any, write: Callable[[bytes], Any], advance: Callable[[int], None]) -> int:
    received = 0
    while chunk := response.read(_CHUNK):
        received += len(chunk)
        if received > MOST_BYTES:
            raise http.client.HTTPException(f"more than {MOST_BYTES // 2**20} MB")
        write(chunk)
        advance(received // _KB - (received - len(chunk)) // _KB)
    return received


def _unreachable(url: str, partial: Path, error: Exception) -> MissingError:
    have = partial.stat().st_size if partial.is_file() else 0
    if have:
        return MissingError(
            f"{url}: the connection was cut after {have:,} bytes", "the same command goes on from there"
        )
    reason = getattr(error, "reason", None) or error
    return MissingError(f"{url} cannot be reached: {reason}", _elsewhere(url))


def _elsewhere(url: str) -> str:
    mirror = "take MNX_MIRROR away" if os.environ.get("MNX_MIRROR") else "set MNX_MIRROR=URL"
    return f"offline? download {url} elsewhere and give it with --checkpoint, or {mirror}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
