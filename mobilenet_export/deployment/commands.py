"""Shell commands on a device: bounded in time and in what they may answer, and ended when this process ends."""

import subprocess
import threading
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO

from mobilenet_export.devices import Connection
from mobilenet_export.errors import DamagedInputError, MissingError

SHORT_S = 60.0
MOST_ANSWER_BYTES = 1 << 20
_MOST_TALK_BYTES = 1 << 16
_BEGIN = b"mnx-begin\n"
"""Printed first, because a login may print something of its own (.bashrc)."""

_GUARDED = """\
{{
export LC_ALL=C
exec 3<&0
echo mnx-begin
(
{script}
) 3<&- </dev/null &
job=$!
{{ while read -r _; do :; done; kill $job; }} <&3 >/dev/null 2>&1 &
watcher=$!
wait $job
code=$?
kill -KILL $watcher 2>/dev/null
exit $code
}}
"""
"""Runs a script until stdin ends. A shell reads all of `{ … }` before it starts, so `read` eats none of it.
A program in its place would outlive the watcher, and adb, for which stdin and stdout are one, would wait for it.
It is killed rather than asked: mksh, Android's shell, may go to sleep in `read` on a signal that has just come."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command ended in: exit code, stdout, and the beginning of stderr as text."""

    code: int
    out: bytes
    talk: str

    def last_words(self) -> str:
        """Last line of stderr that says something."""
        lines = [line for line in map(str.strip, self.talk.splitlines()) if line]
        return printable(lines[-1]) if lines else f"exit code {self.code}"


def run(
    connection: Connection, script: str, *, limit_s: float = SHORT_S, most_bytes: int = MOST_ANSWER_BYTES
) -> Result:
    """Run a POSIX shell script; its last command may be an `exec` of something long.

    Raises:
        MissingError: The connection broke, or there was no end within the time.
        DamagedInputError: It answered more than `most_bytes`.
    """
    process = connection.start("sh -s")
    text = _GUARDED.format(script=script).encode("utf-8", "surrogateescape")
    result = converse(connection, process, [text], limit_s=limit_s, most_bytes=most_bytes, hold=True)
    return Result(result.code, result.out.partition(_BEGIN)[2], result.talk)


def converse(
    connection: Connection,
    process: subprocess.Popen[bytes],
    feed: Iterable[bytes],
    *,
    limit_s: float | None = None,
    most_bytes: int = MOST_ANSWER_BYTES,
    hold: bool = False,
) -> Result:
    """Feed a command and collect what it says.

    Args:
        connection: That it runs over.
        process: The command.
        feed: Its stdin, in pieces.
        limit_s: Most seconds, or None.
        most_bytes: Of its stdout.
        hold: Whether stdin stays open until the command ends.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    out = _Reader(process.stdout, most_bytes, process.kill)
    talk = _Reader(process.stderr, _MOST_TALK_BYTES)
    clock = threading.Timer(limit_s, process.kill) if limit_s else None
    if clock:
        clock.start()
    _feed(process.stdin, feed)
    if not hold:
        _close(process.stdin)
    code = process.wait()
    late = clock is not None and not clock.is_alive()
    if clock:
        clock.cancel()
    _close(process.stdin)
    result = Result(code, out.collect(), talk.collect().decode("utf-8", "replace"))
    if out.overflowed:
        raise DamagedInputError(
            f"{connection.name}: answered more than {most_bytes:,} bytes", "is it the device you mean?"
        )
    if late:
        raise MissingError(f"{connection.name}: no end within {limit_s:.0f} s", "is the device overloaded?")
    failure = connection.failure(code, result.talk)
    if failure is not None:
        raise failure
    return result


class _Reader(threading.Thread):
    """Collects a stream up to a size; what is beyond is dropped, and told once."""

    def __init__(
        self, stream: IO[bytes], most_bytes: int, on_overflow: Callable[[], None] | None = None
    ) -> None:
        super().__init__(daemon=True)
        self._stream, self._most_bytes, self._on_overflow = stream, most_bytes, on_overflow
        self._collected = bytearray()
        self.overflowed = False
        self.start()

    def run(self) -> None:
        """Read to the end."""
        while part := self._stream.read1(1 << 16):  # type: ignore[attr-defined]  # buffered: a pipe of Popen
            self._collected += part[: self._most_bytes - len(self._collected)]
            if len(part) and len(self._collected) >= self._most_bytes and not self.overflowed:
                self.overflowed = True
                if self._on_overflow:
                    self._on_overflow()
        self._stream.close()

    def collect(self) -> bytes:
        """Wait for the end, and return what was kept."""
        self.join()
        return bytes(self._collected)


def _feed(stream: IO[bytes], feed: Iterable[bytes]) -> None:
    """Write until the other side has had enough; why, its exit code says."""
    try:
        for piece in feed:
            stream.write(piece)
            stream.flush()
    except OSError:
        return


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except OSError:
        return


def printable(text: str) -> str:
    """Return text of a device without what a terminal obeys or UTF-8 cannot hold."""
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
