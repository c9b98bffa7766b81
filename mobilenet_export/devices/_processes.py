"""Programs that run for one command, and end with it however it ends."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

from mobilenet_export.errors import ExitCode, MissingError, MnxError

_GRACE_S = 2.0


class StoppedError(MnxError):
    """The user has ended the command."""

    exit_code = ExitCode.INTERRUPTED


class Processes:
    """Starts programs, and ends those that still run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: list[subprocess.Popen[bytes]] = []
        self._stopped = False

    def start(
        self,
        command: Sequence[str],
        *,
        stdout: int = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program, with a pipe as its stdin.

        Raises:
            MissingError: There is no such program.
            StoppedError: `end` was called.
        """
        with self._lock:
            if self._stopped:
                raise StoppedError("interrupted", "the same command goes on where it stopped")
            try:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=stdout, stderr=stderr, env=environment
                )
            except OSError as error:
                raise MissingError(f"cannot start {command[0]}: {error.strerror}", "install it") from None
            self._running = [other for other in self._running if other.poll() is None]
            self._running.append(process)
        return process

    def end(self) -> None:
        """End all that still runs, and start nothing any more."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.terminate()
        for process in running:
            end(process)


def last_line(text: str) -> str:
    """Return the last line that says something, of what a program printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "".join(char for char in lines[-1] if char.isprintable()) if lines else ""


def end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a program that has been told to end; after a moment it is made to."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
        return
    process.kill()
    process.wait()
