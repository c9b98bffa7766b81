"""Devices reached by the user's own OpenSSH client: its config, agents, keys, jump hosts and ports all hold.

One connection per device carries every command (ControlMaster). It runs `cat` on the device, so that it ends when
this process does, even if killed. Windows' OpenSSH cannot share connections: there each command makes its own.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mobilenet_export.devices import Settings, Target, checked_folder
from mobilenet_export.devices._processes import Processes, end, last_line
from mobilenet_export.errors import MissingError, MnxError, UsageError

_CONNECT_S = 15
_BATCH_S = 60.0
_ASK_S = 180.0
"""Most seconds until the connection stands; sshd gives a person 120 to type a password."""
_BROKEN = 255
"""What ssh exits with when it fails itself."""
_READY = b"mnx-ready"
_MOST_GREETING_BYTES = 1 << 16
_LONGEST_FOLDER = 70
"""A socket's path has 104 bytes at most (macOS), of which ssh takes 20 for its own."""

_COMMON = {
    "LogLevel": "ERROR",
    "ServerAliveInterval": "10",
    "ServerAliveCountMax": "3",
    "RemoteCommand": "none",
    "ClearAllForwardings": "yes",
    "ControlPersist": "no",
}
_ASKS = threading.Lock()
"""Held by the one connection that may ask for a password."""


class _DeniedError(MissingError):
    """No key that the device accepts; a password may do."""


_BY_HAND = "`ssh {host}` by hand shows more"
_EXPLANATIONS: tuple[tuple[str, str, str], ...] = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        "host key changed: it is not the device that was known by this name",
        "reinstalled? `ssh-keygen -R {address}`, then `ssh {host}` once; else someone may be in between",
    ),
    (
        "host key is known|Host key verification failed",
        "unknown host key: nobody has said yet that this is the device",
        "`ssh {host}` once by hand, and compare the fingerprint",
    ),
    (
        "Could not resolve hostname",
        "no such host name",
        "check the name, or give it an address in ~/.ssh/config",
    ),
    (
        "Connection refused",
        "connection refused: no ssh server at that address and port",
        "start one there (`sudo raspi-config`: Interface Options, SSH); a port belongs into ~/.ssh/config",
    ),
    (
        "timed out|No route to host|unreachable|Host is down|not responding",
        "unreachable: no answer",
        "is it switched on, and in the same network? " + _BY_HAND,
    ),
    (
        "Connection closed|Connection reset|closed by remote host",
        "the ssh server closed the connection before the login",
        _BY_HAND,
    ),
)
"""Of ssh's own words (English in every locale): a pattern, what it means, and the next step."""


class SshConnection:
    """A connection that other commands share.

    Attributes:
        name: Of the device.
        by_hand: What shows more.
        folder: Private, with the socket and what ssh said.
    """

    def __init__(self, target: Target, folder: Path, settings: Settings, processes: Processes) -> None:
        self.name = target.name
        self.by_hand = f"ssh {target.address}"
        self.folder = folder
        self._target, self._settings, self._processes = target, settings, processes
        self._master: subprocess.Popen[bytes] | None = None

    def connect(self, *, ask: bool) -> None:
        """Make the connection.

        Raises:
            MissingError: It cannot be made.
        """
        with (self.folder / "stderr").open("wb") as talk:
            options = {"ControlMaster": "yes", "BatchMode": "no" if ask else "yes"}
            options |= {"ConnectTimeout": str(_CONNECT_S)}
            command = self._command(options, f"echo {_READY.decode()}; cat > /dev/null")
            self._master = self._processes.start(command, stderr=talk, environment=_environment())
        clock = threading.Timer(_ASK_S if ask else _BATCH_S, self._master.kill)
        clock.start()
        greeting = _read_until(self._master, _READY)
        late = not clock.is_alive()
        clock.cancel()
        if _READY not in greeting:
            self._master.kill()
            self._master.wait()
            said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
            raise explain(self._target, "timed out" if late else said or greeting.decode(errors="replace"))

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command; without the connection it fails rather than make another."""
        options = {"ControlMaster": "no", "BatchMode": "yes"}
        if _shares():
            options["ProxyCommand"] = "false"
        return self._processes.start(self._command(options, command), environment=_environment())

    def failure(self, code: int, talk: str) -> MnxError | None:
        """Return the error where ssh itself failed or was ended: the connection broke."""
        if code not in (_BROKEN,) and code >= 0:
            return None
        said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace")
        reason = last_line(said) or last_line(talk) or "ssh ended"
        return MissingError(
            f"{self.name}: the connection broke: {reason}", "the same command goes on where it stopped"
        )

    def close(self) -> None:
        """End the connection."""
        if self._master is not None and self._master.stdin is not None:
            with suppress(OSError):
                self._master.stdin.close()  # `cat` ends, and with it the connection
            end(self._master)
        if self._master is not None and self._master.stdout is not None:
            self._master.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _command(self, options: dict[str, str], command: str) -> Sequence[str]:
        config = ["-F", str(self._settings.config)] if self._settings.config else []
        if _shares():
            options = {**options, "ControlPath": str(self.folder / "s")}
        pairs = [part for key, value in (_COMMON | options).items() for part in ("-o", f"{key}={value}")]
        return ["ssh", *config, "-T", "-a", "-x", *pairs, "--", self._target.address, command]


class SshTransport:
    """OpenSSH."""

    name = "ssh"
    folder = "mnx"

    def target(self, text: str) -> Target:
        """Read `[user@]host[:dir]`; an IPv6 address stands in brackets.

        Raises:
            UsageError: It names no host.
        """
        found = re.fullmatch(
            r"(?P<user>[^@:\s]+@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^:\s\[\]/\\@]+)(:(?P<dir>.*))?", text
        )
        if not found or text.startswith("-") or found["host"].startswith("-") or not text.isprintable():
            raise UsageError(f"not a device: {text!r}", "write user@host[:dir], or a Host of ~/.ssh/config")
        address = (found["user"] or "") + found["host"].strip("[]")
        folder = checked_folder(found["dir"]) if found["dir"] is not None else None
        return Target(address, self.name, address, folder)

    def open(self, target: Target, settings: Settings, processes: Processes) -> SshConnection:
        """Connect with keys; where they do not do and someone is there, ssh asks on the terminal.

        Raises:
            MissingError: The device cannot be reached; the hint says what to do.
        """
        try:
            return self._open(target, settings, processes, ask=False)
        except _DeniedError:
            if not settings.ask:
                raise
        with _ASKS:
            return self._open(target, settings, processes, ask=True)

    def _open(self, target: Target, settings: Settings, processes: Processes, *, ask: bool) -> SshConnection:
        connection = SshConnection(target, _private_folder(), settings, processes)
        try:
            connection.connect(ask=ask)
        except BaseException:
            connection.close()
            raise
        return connection


def explain(target: Target, said: str) -> MissingError:
    """Return the error that ssh's words stand for."""
    host = target.address
    names = {"host": host, "address": host.rpartition("@")[2]}
    denied = re.search(r"Permission denied \(([^)]*)\)", said)
    if denied:
        methods = denied[1]
        return _DeniedError(
            f"{target.name}: permission denied ({methods}): it accepts none of the keys",
            f"`ssh-copy-id {host}` puts yours there; to be asked for a password, run this on a terminal",
        )
    for pattern, meaning, hint in _EXPLANATIONS:
        if re.search(pattern, said):
            return MissingError(f"{target.name}: {meaning}", hint.format(**names))
    return MissingError(
        f"{target.name}: ssh failed: {last_line(said) or 'it said nothing'}", _BY_HAND.format(**names)
    )


def _read_until(process: subprocess.Popen[bytes], mark: bytes) -> bytes:
    """Read what a program prints, up to a mark, its end, or more than any greeting is."""
    seen = b""
    stream = process.stdout
    while stream is not None and mark not in seen and len(seen) < _MOST_GREETING_BYTES:
        part = os.read(stream.fileno(), 4096)
        if not part:
            break
        seen += part
    return seen


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="mnx-"))
    if len(str(folder)) > _LONGEST_FOLDER and _shares():
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="mnx-", dir="/tmp"))
    return folder


def _shares() -> bool:
    return sys.platform != "win32"


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


DEVICE = SshTransport()
