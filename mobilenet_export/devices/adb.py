"""Android devices reached by the user's own adb: its server, keys, USB and wireless connections all hold.

Every command is an `adb shell` of its own, without a terminal; Android 7 and later pass on exit code, stderr and
the end of stdin. Home is /data/local/tmp, the one place where adb's user may write and run programs.
"""

import re
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilenet_export.devices import Settings, Target, checked_folder
from mobilenet_export.devices._processes import Processes, last_line
from mobilenet_export.errors import MissingError, MnxError, UsageError

HOME = "/data/local/tmp"
READY = "device"
"""The state of a device that obeys."""
_ANSWER_S = 30.0
_BROWSER = "`mnx phone BUNDLE` needs no adb"

_STATES: Mapping[str, tuple[str, str]] = {
    "unauthorized": (
        "it does not trust this computer yet",
        "unlock it and allow USB debugging; if it does not ask: Developer options, Revoke authorizations, replug",
    ),
    "authorizing": ("it is being asked whether it trusts this computer", "unlock it and allow USB debugging"),
    "offline": ("it does not answer adb", "replug it, or `adb reconnect offline`; a reboot of it helps too"),
    "connecting": ("it is still being connected", "try again in a moment"),
    "no permissions": (
        "this user may not open its USB device",
        "Debian, Ubuntu: `sudo apt install android-sdk-platform-tools-common`, then replug",
    ),
}
"""Of adb's own words for a device: what it means, and the next step."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A device that adb knows of: its serial number, its state in adb's words, and its model or nothing."""

    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        facts = ", ".join(part for part in (self.model, "" if self.state == READY else self.state) if part)
        return f"{self.serial} ({facts})" if facts else self.serial


class AdbConnection:
    """A device that adb reaches.

    Attributes:
        name: Of the device, with its serial number.
        by_hand: What shows more.
    """

    def __init__(self, serial: str, processes: Processes) -> None:
        self.name = f"adb:{serial}"
        self.by_hand = f"adb -s {serial} shell"
        self._serial, self._processes = serial, processes

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell command in /data/local/tmp."""
        return self._processes.start(["adb", "-s", self._serial, "shell", "-T", f"cd {HOME} && {command}"])

    def failure(self, code: int, talk: str) -> MnxError | None:
        """Return the error where the device is gone; adb's exit code does not tell, it may be 0."""
        answer = ask(["-s", self._serial, "get-state"], self._processes)
        if code >= 0 and answer.out.strip() == READY:
            return None
        reason = last_line(answer.talk) or last_line(talk) or "adb ended"
        return MissingError(
            f"{self.name}: the connection broke: {reason}", "the same command goes on where it stopped"
        )

    def close(self) -> None:
        """Leave adb's server as it is: it is the user's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a short adb command ended in."""

    code: int
    out: str
    talk: str


class AdbTransport:
    """The Android Debug Bridge."""

    name = "adb"
    folder = f"{HOME}/mnx"

    def target(self, text: str) -> Target:
        """Read `adb[:serial][:/dir or :~/dir]`; a serial number may be `host:port`.

        Raises:
            UsageError: It names no device.
        """
        found = re.fullmatch(r"adb(:(?P<serial>[^\s/:~-][^\s/]*?))?(:(?P<dir>[/~].*))?", text)
        if not found or not text.isprintable():
            raise UsageError(f"not a device: {text!r}", "write adb, adb:SERIAL or adb:SERIAL:/dir")
        serial = found["serial"] or ""
        folder = checked_folder(found["dir"]) if found["dir"] else None
        return Target(f"adb:{serial}" if serial else "adb", self.name, serial, folder)

    def open(self, target: Target, settings: Settings, processes: Processes) -> AdbConnection:  # noqa: ARG002
        """Find the device among those that adb knows of.

        Raises:
            MissingError: There is no adb, no such device, or it does not obey yet; the hint says what to do.
        """
        if shutil.which("adb") is None:
            raise MissingError(
                "adb is not on the PATH",
                f"install Android's platform-tools (Debian, Ubuntu: `sudo apt install adb`); {_BROWSER}",
            )
        answer = ask(["devices", "-l"], processes)
        if answer.code != 0:
            raise MissingError(f"adb failed: {last_line(answer.talk)}", "`adb devices` by hand shows more")
        serial = choose(attached(answer.out), target.address).serial
        if "shell_v2" not in ask(["-s", serial, "features"], processes).out.split():
            raise MissingError(
                f"adb:{serial}: older than Android 7", f"it passes on no exit codes; {_BROWSER}"
            )
        return AdbConnection(serial, processes)


def attached(listing: str) -> tuple[Attached, ...]:
    """Read what `adb devices -l` prints."""
    lines = (line for line in listing.splitlines() if not line.startswith(("List of devices", "*")))
    found = (re.match(r"(\S+)\s+(no permissions|\S+)(.*)", line) for line in lines)
    return tuple(Attached(m[1], m[2], _model(m[3])) for m in found if m)


def choose(devices: Sequence[Attached], serial: str) -> Attached:
    """Return the device that is meant: the named one, or the only one.

    Raises:
        MissingError: There is none, or not only one, or it does not obey yet.
    """
    fitting = [one for one in devices if serial in ("", one.serial)]
    if not devices:
        raise MissingError(
            f"adb:{serial}: no such device, and no other" if serial else "adb: no device",
            f"plug one in with USB debugging on (Developer options), or `adb connect HOST:PORT`; {_BROWSER}",
        )
    listing = ", ".join(map(str, devices))
    if not fitting:
        raise MissingError(f"adb:{serial}: no such device; there is {listing}", f"adb:{devices[0].serial}")
    if len(fitting) > 1:
        raise MissingError(f"adb: {len(devices)} devices: {listing}", f"name one: adb:{devices[0].serial}")
    (found,) = fitting
    if found.state != READY:
        meaning, hint = _STATES.get(found.state, (f"it is in {found.state}, not in Android", "`adb reboot`"))
        raise MissingError(f"adb:{found.serial}: {found.state}: {meaning}", hint)
    return found


def ask(options: Sequence[str], processes: Processes) -> Answer:
    """Run a short adb command; it starts adb's server where none runs.

    Raises:
        MissingError: It does not end.
    """
    process = processes.start(["adb", *options])
    clock = threading.Timer(_ANSWER_S, process.kill)
    clock.start()
    out, talk = process.communicate()
    late = not clock.is_alive()
    clock.cancel()
    if late:
        raise MissingError(
            f"adb {options[-1]}: no end within {_ANSWER_S:.0f} s", "`adb kill-server`, try again"
        )
    return Answer(process.returncode, out.decode("utf-8", "replace"), talk.decode("utf-8", "replace"))


def _model(facts: str) -> str:
    found = re.search(r"\bmodel:(\S+)", facts)
    return found[1].replace("_", " ") if found else ""


DEVICE = AdbTransport()
