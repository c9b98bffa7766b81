"""A runtime for a device without internet: wheels are downloaded here, sent, and installed there.

The environment is made under another name and renamed when it is whole, so that a half-made one is never used.
"""

import hashlib
import json
import os
import shlex
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

from mobilenet_export.deployment.choose import Installation
from mobilenet_export.deployment.commands import printable, run
from mobilenet_export.deployment.parcel import Item, Parcel, item_of
from mobilenet_export.deployment.send import Sent, check_space, hold, send
from mobilenet_export.devices import Connection, Processes
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import MissingError
from mobilenet_export.scratch import scratch_folder

_LIST = "wheels.json"
_INSTALL_S = 3600.0
_ONE_DOWNLOADS = threading.Lock()
"""Devices of one kind share their wheels: the second waits for the first's."""

_MAKE = """\
[ -x "$venv/bin/python" ] && exit
rm -rf -- "$venv.new" && exec "$python" -m venv --without-pip -- "$venv.new"
"""
_FILL = """\
[ -x "$venv/bin/python" ] && exit
set -- "$wheels"/pip-*.whl
exec "$venv.new/bin/python" "$1/pip" install --quiet --no-index --no-compile --no-cache-dir \
  --disable-pip-version-check --find-links "$wheels" -- """
_TAKE = """\
set -e
[ -x "$venv/bin/python" ] || mv -- "$venv.new" "$venv"
rm -rf -- "$wheels"
"""


def download(installation: Installation, cache: Path | None, processes: Processes) -> Parcel:
    """Return the wheels of an environment, from the cache or the package index.

    Args:
        installation: To make.
        cache: The user's folder of cached things.
        processes: That pip runs among.

    Raises:
        MissingError: They cannot be had; says what pip says.
    """
    if cache is None:
        raise MissingError("no home folder to keep wheels in", "name one: MNX_CACHE=DIR")
    folder = cache / "wheels" / installation.key
    with _ONE_DOWNLOADS:
        parcel = _cached(folder)
        if parcel is None:
            _download(installation, folder, processes)
            parcel = _cached(folder)
    if parcel is None:
        raise MissingError(f"{folder}: the wheels in it are damaged", "delete that folder")
    return parcel


def install(
    connection: Connection,
    installation: Installation,
    parcel: Parcel,
    folder: str,
    free_bytes: int | None,
    advance: Callable[[int, int], None],
) -> Sent:
    """Make an environment on a device.

    Args:
        connection: To the device.
        installation: What to make.
        parcel: Its wheels.
        folder: Of the environment, there.
        free_bytes: Of its disk, where known.
        advance: As of `send`.

    Raises:
        MissingError: It cannot be made; nothing half-made is left.
    """
    check_space(connection.name, sum(item.size + _unpacked(item) for item in parcel.items), free_bytes)
    settings = {"venv": folder, "wheels": folder + ".wheels", "python": installation.python}
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    wanted = " ".join(map(shlex.quote, installation.requirements[:-1]))
    sent = send(connection, parcel, folder + ".wheels", free_bytes, advance)
    with hold(connection, folder):
        for script in (_MAKE, _FILL + wanted, _TAKE):
            result = run(connection, lines + script, limit_s=_INSTALL_S)
            if result.code != 0:
                run(connection, lines + 'rm -rf -- "$venv.new"')
                raise MissingError(
                    f"{connection.name}: the runtime could not be installed: {result.last_words()}",
                    "the same command tries again; --runtime chooses another",
                )
    return sent


def _cached(folder: Path) -> Parcel | None:
    """Read the wheels of an earlier download, if they are all there and as they were."""
    try:
        listed = parse_json((folder / _LIST).read_bytes())
        items = [item_of(folder / name, name) for name in sorted(listed)]
    except Exception:
        return None
    if {item.path: item.sha256 for item in items} != listed:
        return None
    return Parcel((*items, item_of(folder / _LIST, _LIST)), _LIST)


def _download(installation: Installation, folder: Path, processes: Processes) -> None:
    """Have pip download wheels for a device into a folder; it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder.parent, ".partial-") as scratch:
        partial = scratch / folder.name
        partial.mkdir()
        _run_pip(installation, partial, processes)
        hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in partial.glob("*.whl")}
        (partial / _LIST).write_text(json.dumps(hashes, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def _run_pip(installation: Installation, folder: Path, processes: Processes) -> None:
    major, minor = installation.version
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--dest", str(folder), "--only-binary=:all:", "--implementation", "cp"]
    command += ["--python-version", f"{major}.{minor}"]
    command += [part for abi in (f"cp{major}{minor}", "abi3", "none") for part in ("--abi", abi)]
    command += [part for tag in installation.platforms for part in ("--platform", tag)]
    process = processes.start(
        [*command, *installation.requirements], environment={**os.environ, "LC_ALL": "C"}
    )
    _, talk = process.communicate()
    lines = [line for line in talk.decode("utf-8", "replace").splitlines() if line.startswith("ERROR:")]
    if process.returncode != 0:
        said = printable(lines[-1].removeprefix("ERROR:").strip()) if lines else _no_pip(talk)
        raise MissingError(
            f"no wheels for {installation.requirements[0]}, Python {major}.{minor}: {said}",
            "is this computer online? the device need not be; once downloaded, they are kept",
        )


def _no_pip(talk: bytes) -> str:
    return f"{sys.executable} has no pip" if b"No module named pip" in talk else "pip failed"


def _unpacked(item: Item) -> int:
    if not isinstance(item.source, Path) or not item.path.endswith(".whl"):
        return 0
    with zipfile.ZipFile(item.source) as wheel:
        return sum(entry.file_size for entry in wheel.infolist())
