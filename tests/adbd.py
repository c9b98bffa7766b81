"""Phones without one: adb's real daemon for arm64 beside toybox and mksh, Android's tools and shell, run by qemu.

adbd listens on all interfaces, so phones are in a network of their own, and so is a server of adb, which is reached
through a socket in a folder. What is not Android: the kernel, the C library, and `getprop`, which is a stand-in.
"""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import arm

NEEDS = "no adb or no iproute2 here: sh tests/setup_devices.sh, as root on Debian"
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.soc.model": "Tensor G3",
}
_PORT = 6000
"""Beyond those where adb looks for emulators by itself."""
_ENTER = f"""\
set -e
root=$1 bin=$2 data=$3 size=$4 emulator=$5; shift 5
{arm.REGISTER}
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
cd "$root"
mount -t tmpfs -o mode=755 tmpfs system
cp -a "$bin" system/bin
mount --bind usr/bin/mksh usr/bin/dash
mount --bind "$data" data/local/tmp
[ -z "$size" ] || mount -t tmpfs -o "size=$size" tmpfs data/local/tmp
{arm.FURNISH}exec unshare --root="$root" --wd=/ /usr/bin/env -i "$@" /usr/sbin/adbd
"""
_UNSURE = """\
import socket, struct
server = socket.create_server(("127.0.0.1", {port}))
while True:
    client, _ = server.accept()
    while (head := client.recv(24, socket.MSG_WAITALL)):
        _, kind, _, size, *_ = struct.unpack("<6I", head)
        client.recv(size, socket.MSG_WAITALL)
        auth, token = 0x48545541, bytes(20)
        if kind != 3:
            client.sendall(struct.pack("<6I", auth, 1, 0, len(token), sum(token), auth ^ 0xFFFFFFFF) + token)
"""
"""A device that accepts no signature, is told the public key, and waits for its owner to agree. It has a protocol's
header of six words; the second one says what an AUTH carries: 1 a token to sign, 2 a signature, 3 a key."""


def missing() -> str | None:
    """Why there can be no such phone here, or None."""
    found = all(map(shutil.which, ("adb", "ip")))
    return arm.missing() or (None if found else NEEDS)


@dataclass
class Phone:
    """A phone: its serial number, its /data/local/tmp, and the process that it is."""

    serial: str
    data: Path
    process: subprocess.Popen[bytes]

    def unplug(self) -> None:
        self.process.kill()
        self.process.wait()


class Desk:
    """A computer's adb, and the phones that are plugged in."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack, self._phones = folder, stack, 0
        self._sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adb-", dir="/tmp")))
        self.server = f"localfilesystem:{self._sockets}/s"
        alone = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
        serve = 'ip link set lo up && exec env HOME="$0" adb -L "$1" nodaemon server'
        self._adb = self._run([*alone, serve, str(self._sockets), self.server])
        _wait_for((self._sockets / "s").exists)

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return process

    def adb(self, *words: str) -> str:
        command = ["adb", "-L", self.server, *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout

    def _plug(self, command: list[str], state: str) -> Phone:
        port = _PORT + self._phones
        inside = ["nsenter", "--target", str(self._adb.pid), "--user", "--net", "--preserve-credentials"]
        data = self._folder / f"data {port}"
        data.mkdir()
        filled = [word.format(port=port, data=data) for word in command]
        phone = Phone(f"127.0.0.1:{port}", data, self._run([*inside, *filled]))
        self._phones += 1
        _wait_for(lambda: self.adb("connect", phone.serial) and state in self._state(phone.serial))
        return phone

    def _state(self, serial: str) -> str:
        lines = [line.split() for line in self.adb("devices").splitlines()]
        return next((words[1] for words in lines if words[:1] == [serial]), "")

    def phone(self, *, python: bool = False, size: str = "") -> Phone:
        """Plug in a phone, with Debian's Python and ONNX Runtime or without, and a small disk or a large one."""
        folder = self._bin(python=python)
        given = [str(arm.system("android")), str(folder), "{data}", size, str(arm.emulator())]
        settings = ["PATH=/system/bin", "ADBD_PORT={port}", "QEMU_CPU=cortex-a76", "HOME=/"]
        settings.append(f"LD_LIBRARY_PATH={arm.ALTERNATIVES}")
        return self._plug([*arm.unshare(), "sh", "-c", _ENTER, "sh", *given, *settings], "device")

    def undecided(self) -> Phone:
        """Plug in a device whose owner has not agreed to anything."""
        return self._plug(["python3", "-c", _UNSURE], "unauthorized")

    def _bin(self, *, python: bool) -> Path:
        """Make a /system/bin: links into the root, and getprop."""
        folder = self._folder / f"bin {self._phones}"
        folder.mkdir()
        links = dict.fromkeys(_toybox(), "toybox") | {"sh": "mksh", "getconf": "getconf"}
        for name, program in (links | ({"python3": "python3"} if python else {})).items():
            (folder / name).symlink_to(f"/usr/bin/{program}")
        cases = "".join(f"{name}) echo '{value}' ;;\n" for name, value in PROPERTIES.items())
        (folder / "getprop").write_text(f"#!/system/bin/sh\ncase $1 in\n{cases}esac\n")
        (folder / "getprop").chmod(0o755)
        return folder


def _toybox() -> list[str]:
    """Return the names of its tools; Android's has `tr`, too, which Debian's lacks."""
    root = arm.system("android")
    command = [str(arm.emulator()), "-L", str(root), str(root / "usr" / "bin" / "toybox")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@contextlib.contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """Start an adb that sees no device of this machine."""
    with ExitStack() as stack:
        yield Desk(folder, stack)


def _wait_for(true: Callable[[], object], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "adb does not see it"
        time.sleep(0.1)
