"""Files to a folder on a device: only what changed, from where it stopped, and whole or not at all.

`dir.partial/` collects files under their sha256, so that any later deploy goes on with them. When all are there and
right, `dir.new` is put together of them and of what the old folder has, and takes its place by a rename.
`dir.lock` is held, and touched, by a shell on the device that ends with the connection.
"""

import posixpath
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mobilenet_export.deployment.commands import SHORT_S, Result, converse, printable, run
from mobilenet_export.deployment.parcel import Item, Parcel
from mobilenet_export.devices import Connection
from mobilenet_export.errors import DamagedInputError, MissingError, MnxError, UsageError

_HASHES_S = 600.0
_MOST_LIST_BYTES = 8 << 20
_BEAT_S = 10.0
"""Seconds between two touches of the lock; one that nobody touched for a minute is an orphan's."""
_SLACK_BYTES = 1 << 20

_LOCK = """\
{
LC_ALL=C; export LC_ALL
trap '' HUP PIPE
mkdir -p -- "$parent" || exit
if ! mkdir -- "$lock"; then
  [ -d "$lock" ] && [ -z "$(find "$lock" -prune -mmin +1)" ] && echo mnx-held && exit
  rmdir -- "$lock"; mkdir -- "$lock" || exit
fi
echo mnx-locked
while read -r beat; do touch -c -- "$lock"; done
rmdir -- "$lock"
exit
}
"""
"""Without the trap, `echo` to a computer that is gone would end the shell, and the lock would stay for a minute."""

_REPAIR = """\
[ -e "$folder" ] || [ ! -d "$folder.old" ] || mv -- "$folder.old" "$folder"
"""
"""The power may have gone between the two renames of `_SWAP`."""

_SURVEY = """\
command -v sha256sum >/dev/null || { echo "no sha256sum there" >&2; exit 1; }
if [ -h "$folder" ]; then echo "is a symbolic link"
elif [ -d "$folder" ]; then
  [ -f "$folder/$document" ] || [ -z "$(ls -A -- "$folder")" ] || echo "is there, and not a bundle"
elif [ -e "$folder" ]; then echo "is a file"
fi | sed 's/^/foreign /'
[ -d "$folder" ] && (cd -- "$folder" && find . -type f -exec sha256sum {} + | sed 's/^/have /')
[ -d "$folder.partial" ] && cd -- "$folder.partial" && for name in *; do
  [ -f "$name" ] && echo "part $name $(($(wc -c < "$name"))) $(sha256sum < "$name")"
done
true
"""

_SWAP = """\
rm -rf -- "$folder.old"
[ ! -e "$folder" ] || mv -- "$folder" "$folder.old"
mv -- "$folder.new" "$folder" || { mv -- "$folder.old" "$folder"; exit 1; }
rm -rf -- "$folder.old" "$folder.partial"
"""


@dataclass(frozen=True, slots=True)
class Survey:
    """What a folder on a device holds.

    Attributes:
        hashes: Path → sha256, of the folder's files.
        partial: sha256 that a file is to have → (bytes, sha256 of those), of what came before a connection broke.
        foreign: Why the folder is not one to replace, or None.
    """

    hashes: Mapping[str, str]
    partial: Mapping[str, tuple[int, str]]
    foreign: str | None

    def holds(self, parcel: Parcel) -> bool:
        """Whether nothing is to be done."""
        return all(self.hashes.get(item.path) == item.sha256 for item in parcel.items)

    def missing(self, parcel: Parcel) -> tuple[tuple[Item, int], ...]:
        """Return what has to be sent, and from which byte on."""
        there = set(self.hashes.values())
        wanted = {item.sha256: item for item in parcel.items if item.sha256 not in there}
        return tuple((item, self._offset(item)) for item in wanted.values())

    def _offset(self, item: Item) -> int:
        size, sha256 = self.partial.get(item.sha256, (0, ""))
        return size if 0 < size <= item.size and item.prefix_sha256(size) == sha256 else 0


@dataclass(frozen=True, slots=True)
class Sent:
    """What went over the line: bytes and the paths they were of, and what was there already.

    Attributes:
        sent_bytes: That went over the line.
        total_bytes: Of all files.
        files: Paths of those sent, whole or in part.
        kept: How many were there.
    """

    sent_bytes: int
    total_bytes: int
    files: tuple[str, ...]
    kept: int


def plan(parcel: Parcel, found: Survey) -> Sent:
    """Return what `send` will have sent."""
    missing = () if found.holds(parcel) else found.missing(parcel)
    return Sent(
        sent_bytes=sum(item.size - offset for item, offset in missing),
        total_bytes=sum(item.size for item in parcel.items),
        files=tuple(item.path for item, _ in missing),
        kept=len(parcel.items) - len(missing),
    )


def send(
    connection: Connection,
    parcel: Parcel,
    folder: str,
    free_bytes: int | None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Sent:
    """Make a folder on a device hold a parcel, and nothing else.

    Args:
        connection: To the device.
        parcel: The files.
        folder: There.
        free_bytes: Of its disk, where known.
        advance: Is told how many bytes have gone, of how many.

    Raises:
        UsageError: The folder is not ours to replace.
        MissingError: The disk is full, another deploy is at work, or the connection broke. What was there before
            is still there, and what came is kept for the next time.
    """
    with hold(connection, folder):
        _checked(connection, run(connection, _script(folder, parcel.document, _REPAIR)), folder)
        found = survey(connection, parcel, folder)
        sent = plan(parcel, found)
        if found.holds(parcel):
            return sent
        check_space(connection.name, sent.sent_bytes, free_bytes)
        _checked(connection, run(connection, f"mkdir -p -- {shlex.quote(folder + '.partial')}"), folder)
        done = 0

        def count(size: int) -> None:
            nonlocal done
            done += size
            advance(done, sent.sent_bytes)

        for item, offset in found.missing(parcel):
            _upload(connection, item, folder, offset, count)
        _assemble(connection, parcel, folder, found)
    return sent


def survey(connection: Connection, parcel: Parcel, folder: str) -> Survey:
    """Ask what a folder holds; changes nothing there.

    Raises:
        UsageError: The folder is not ours to replace.
    """
    script = _script(folder, parcel.document, _SURVEY)
    result = run(connection, script, limit_s=_HASHES_S, most_bytes=_MOST_LIST_BYTES)
    _checked(connection, result, folder)
    lines = result.out.decode("utf-8", "surrogateescape").split("\n")
    hashes = {m[2]: m[1] for m in _matches(r"have ([0-9a-f]{64})  \./(.+)", lines)}
    partial = {
        m[1]: (int(m[2]), m[3])
        for m in _matches(r"part ([0-9a-f]{64}) ([0-9]{1,15}) ([0-9a-f]{64})  -", lines)
    }
    foreign = next((line.removeprefix("foreign ") for line in lines if line.startswith("foreign ")), None)
    if foreign:
        raise UsageError(
            f"{connection.name}: {folder} {printable(foreign)}", f"name another: {connection.name}:~/DIR"
        )
    return Survey(hashes, partial, None)


@contextmanager
def hold(connection: Connection, folder: str) -> Iterator[None]:
    """Keep other deploys away from a folder.

    Raises:
        MissingError: Another one has it, or nothing can be written there.
    """
    keeper, over = connection.start("sh -s"), threading.Event()
    try:
        _lock(connection, keeper, folder)
        threading.Thread(target=_beat, args=(keeper, over), daemon=True).start()
        yield
    finally:
        over.set()
        _release(keeper)


def _lock(connection: Connection, keeper: subprocess.Popen[bytes], folder: str) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    settings = {"lock": folder + ".lock", "parent": posixpath.dirname(folder) or "."}
    clock = threading.Timer(SHORT_S, keeper.kill)
    clock.start()
    with suppress(OSError):
        keeper.stdin.write(_encode(_assign(settings) + _LOCK))
        keeper.stdin.flush()
    known = (b"mnx-locked\n", b"mnx-held\n")
    answer = next((line for line in iter(keeper.stdout.readline, b"") if line in known), b"")
    clock.cancel()
    if answer == known[1]:
        raise MissingError(
            f"{connection.name}: another deploy to {folder} is at work",
            f"wait for it; if there is none: `rmdir {shlex.quote(folder + '.lock')}` there",
        )
    if answer != known[0]:
        _checked(connection, converse(connection, keeper, []), folder)
        raise MissingError(f"{connection.name}: the connection broke", "the same command goes on from there")


def _beat(keeper: subprocess.Popen[bytes], over: threading.Event) -> None:
    """Have the lock touched now and then."""
    assert keeper.stdin is not None
    with suppress(OSError, ValueError):  # the connection broke, or the lock was released
        while not over.wait(_BEAT_S):
            keeper.stdin.write(b"\n")
            keeper.stdin.flush()


def _release(keeper: subprocess.Popen[bytes]) -> None:
    """Let the shell that holds the lock end, which gives it back."""
    try:
        with suppress(OSError):
            keeper.communicate(timeout=_BEAT_S)
    except (subprocess.TimeoutExpired, ValueError):  # silent, or all has been read already
        keeper.kill()
        keeper.wait()


def _upload(
    connection: Connection, item: Item, folder: str, offset: int, count: Callable[[int], None]
) -> None:
    """Send a file's bytes from an offset on, to be appended to those that are there."""
    path = shlex.quote(f"{folder}.partial/{item.sha256}")
    script = "LC_ALL=C; export LC_ALL; exec cat " + (">>" if offset else ">") + ' "$1"'
    process = connection.start(f"sh -c {shlex.quote(script)} sh {path}")
    result = converse(connection, process, _counted(item.pieces(offset), count))
    if result.code != 0 and _FULL.search(result.talk):
        run(
            connection, f"rm -rf -- {shlex.quote(folder + '.partial')}"
        )  # a full system disk is no place to stay
    _checked(connection, result, folder)


def _counted(pieces: Iterator[bytes], count: Callable[[int], None]) -> Iterator[bytes]:
    """Count each piece once the next is asked for: by then it has gone."""
    for piece in pieces:
        yield piece
        count(len(piece))


def _assemble(connection: Connection, parcel: Parcel, folder: str, found: Survey) -> None:
    """Put the new folder together, check it, and let it take the old one's place."""
    old = {sha256: path for path, sha256 in found.hashes.items()}
    new = f"{folder}.new"
    lines = ["set -e", 'put() { ln -- "$1" "$2" 2>/dev/null || cp -- "$1" "$2"; }']
    lines.append(_words("rm", "-rf", "--", new))
    places = {posixpath.dirname(f"{new}/{item.path}") for item in parcel.items}
    lines.append(_words("mkdir", "-p", "--", *sorted(places)))
    for item in parcel.items:
        source = f"{folder}/{old[item.sha256]}" if item.sha256 in old else f"{folder}.partial/{item.sha256}"
        lines.append(_words("put", source, f"{new}/{item.path}"))
    _checked(connection, run(connection, "\n".join(lines), limit_s=_HASHES_S), folder)
    assembled = survey(connection, parcel, new)
    if not assembled.holds(parcel):
        run(connection, _words("rm", "-rf", "--", new, f"{folder}.partial"))
        raise DamagedInputError(
            f"{connection.name}: what arrived is not what was sent: a sha256 differs",
            "try again; if it stays, the disk there is failing, or a file here changes",
        )
    _checked(connection, run(connection, _script(folder, parcel.document, _SWAP)), folder)


_FULL = re.compile("No space left|Disk quota exceeded|File too large")


def _checked(connection: Connection, result: Result, folder: str) -> None:
    """Raise what a command's failure means."""
    if result.code != 0:
        raise _complaint(connection, result, folder)


def _complaint(connection: Connection, result: Result, folder: str) -> MnxError:
    host = connection.name
    if _FULL.search(result.talk):
        return MissingError(
            f"{host}: the disk ran full; what was in {folder} before is still there",
            "free some space there; the same command starts again",
        )
    if re.search("Permission denied|Read-only file system|Operation not permitted", result.talk):
        return MissingError(
            f"{host}: cannot write {folder}: {result.last_words()}", f"name another folder: {host}:~/DIR"
        )
    return MissingError(f"{host}: {result.last_words()}", f"`{connection.by_hand}` by hand shows more")


def check_space(host: str, needed_bytes: int, free_bytes: int | None) -> None:
    """Refuse what will not fit, before anything is sent.

    Raises:
        MissingError: It will not.
    """
    if free_bytes is not None and needed_bytes + _SLACK_BYTES > free_bytes:
        raise MissingError(
            f"{host}: {needed_bytes / 1e6:.1f} MB needed, {free_bytes / 1e6:.1f} MB free",
            f"free some space there, or name a folder on another disk: {host}:~/DIR",
        )


def _script(folder: str, document: str, script: str) -> str:
    return _assign({"folder": folder, "document": document}) + script


def _assign(settings: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())


def _words(*words: str) -> str:
    return " ".join(map(shlex.quote, words))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _matches(pattern: str, lines: Sequence[str]) -> Iterator[re.Match[str]]:
    return (found for line in lines if (found := re.fullmatch(pattern, line)))
