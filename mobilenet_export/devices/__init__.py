"""One module per way to reach a device; each ends in `DEVICE: Transport`.

A transport only starts shell commands. What is asked, sent and run there is the same for all, in `deployment/`.
"""

import posixpath
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mobilenet_export.devices._processes import Processes, StoppedError
from mobilenet_export.errors import MnxError, UsageError
from mobilenet_export.plugins import load_plugin, plugin_names

__all__ = [
    "Connection",
    "Processes",
    "Settings",
    "StoppedError",
    "Target",
    "Transport",
    "checked_folder",
    "find_target",
    "transport",
]

DEFAULT = "ssh"


@dataclass(frozen=True, slots=True)
class Target:
    """A device as the user named it.

    Attributes:
        name: That messages and results are about.
        transport: Name of its module in this folder.
        address: That the transport understands.
        folder: For the bundle; relative ones are under the home folder. None: where bundles go by default.
    """

    name: str
    transport: str
    address: str
    folder: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """How to connect.

    Attributes:
        config: Of the transport's program, in place of the user's own.
        ask: Whether someone is there to type a password.
    """

    config: Path | None = None
    ask: bool = False


class Connection(Protocol):
    """An open way to a device with a POSIX shell.

    Attributes:
        name: Of the device.
        by_hand: The command by which a person can look around there.
    """

    name: str
    by_hand: str

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command in the home folder; its stdin, stdout and stderr are pipes.

        The end of stdin reaches the command even if this computer vanishes.
        """
        ...

    def failure(self, code: int, talk: str) -> MnxError | None:
        """Return the error that an exit code of the transport itself stands for, or None: it is the command's."""
        ...

    def close(self) -> None:
        """End the connection, and with it all that runs over it."""
        ...


class Transport(Protocol):
    """A way to reach devices; a new one is a new module in this folder.

    Attributes:
        name: Of its module.
        folder: That bundles go to by default.
    """

    name: str
    folder: str

    def target(self, text: str) -> Target:
        """Read what the user wrote.

        Raises:
            UsageError: It names no device.
        """
        ...

    def open(self, target: Target, settings: Settings, processes: Processes) -> Connection:
        """Connect; never waits for an answer unless someone is there to give it.

        Raises:
            MissingError: The device cannot be reached; the hint says what to do.
        """
        ...


def transport(name: str) -> Transport:
    """Return a transport by name."""
    found: Transport = load_plugin("devices", name)
    return found


def find_target(text: str) -> Target:
    """Read a device: `user@host[:dir]`, or the name of another transport and what it understands.

    Raises:
        UsageError: It names no device.
    """
    scheme = text.partition(":")[0]
    return transport(scheme if scheme in plugin_names("devices") else DEFAULT).target(text)


def checked_folder(text: str) -> str:
    """Return a folder on a device in its plainest spelling.

    Raises:
        UsageError: It is the home folder, the root, above either, or cannot be printed.
    """
    folder = posixpath.normpath(text.removeprefix("~/"))
    if (
        not text
        or not text.isprintable()
        or "\\" in text
        or (text.startswith("~") and not text.startswith("~/"))
    ):
        raise UsageError(f"not a folder on a device: {text!r}", "relative ones are under the home folder")
    if folder in (".", "/", "//") or ".." in folder.split("/"):
        raise UsageError(f"{text}: a bundle takes the place of the whole folder", "give one of its own")
    return folder
