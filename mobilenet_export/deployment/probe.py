"""What a device is and has."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mobilenet_export.deployment.commands import printable, run
from mobilenet_export.devices import Connection
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError, MissingError

VENV = ".mnx-venv-"
"""Environments beside a bundle are named this and what is in them."""

_DISTRIBUTIONS = {
    "numpy": "numpy",
    "pillow": "PIL",
    "onnxruntime": "onnxruntime",
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
}
"""Distribution → the module it holds: distributions' own packages may come without metadata."""

_FACTS = f"""\
import json, platform, struct, sys
from importlib.util import find_spec
try:
    from importlib.metadata import version
except ImportError:
    version = None
packages = {{}}
for name, module in {_DISTRIBUTIONS!r}.items():
    try:
        packages[name] = version(name)
    except Exception:
        if find_spec(module):
            packages[name] = "unknown"
print(json.dumps(dict(path=sys.executable, version=list(sys.version_info[:3]), packages=packages,
    bits=8 * struct.calcsize("P"), libc=list(platform.libc_ver()),
    venv=find_spec("venv") is not None, ensurepip=find_spec("ensurepip") is not None)))
"""

_SCRIPT = """\
say() { printf '%s\\t%s\\n' "$1" "$2"; }
say machine "$(uname -m)"
say system "$(. /etc/os-release 2>/dev/null && printf %s "$PRETTY_NAME")"
if command -v getprop >/dev/null 2>&1; then
  say release "$(getprop ro.build.version.release)"
  say sdk "$(getprop ro.build.version.sdk)"
  say abi "$(getprop ro.product.cpu.abi)"
  say soc "$(getprop ro.soc.model)"
  say model "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
fi
say cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null || grep -c '^processor' /proc/cpuinfo 2>/dev/null)"
say cpu "$(sed -n -e 's/^model name[[:space:]]*: //p' -e 's/^CPU part[[:space:]]*: /part /p' \
  /proc/cpuinfo 2>/dev/null | head -n 1)"
say features "$(sed -n -e 's/^flags[[:space:]]*: //p' -e 's/^Features[[:space:]]*: //p' \
  /proc/cpuinfo 2>/dev/null | head -n 1)"
say model "$(tr -d '\\000' 2>/dev/null < /proc/device-tree/model)"
say memory "$(sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo 2>/dev/null)"
while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
[ -w "$place" ] && say writable yes
say free "$(df -Pk -- "$place" | sed -n '$s/.* \\([0-9][0-9]*\\)  *[0-9-]*%.*/\\1/p')"
for python in "$parent"/.mnx-venv-*/bin/python python3 python3.14 python3.13 python3.12 python3.11 \
  /data/data/com.termux/files/usr/bin/python3; do
  case $python in *.new/bin/python) continue ;; esac
  command -v "$python" >/dev/null 2>&1 && say python "$("$python" -c "$facts" 2>/dev/null)"
done
true
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python on a device.

    Attributes:
        path: Of its executable.
        version: As (3, 11, 2).
        packages: Distribution → version, of those that matter here.
        bits: Of its addresses: a 64-bit kernel may run a 32-bit system.
        glibc: Its version as (2, 36), or None where it is another C library.
        venv: Whether it can make environments.
        ensurepip: Whether it brings pip.
    """

    path: str
    version: tuple[int, int, int]
    packages: Mapping[str, str]
    bits: int
    glibc: tuple[int, int] | None
    venv: bool
    ensurepip: bool

    @property
    def own(self) -> bool:
        """Whether it is of an environment that an earlier deploy installed."""
        return VENV in self.path


@dataclass(frozen=True, slots=True)
class Android:
    """What an Android says of itself: its release, API level, first ABI of its apps, and chip or nothing."""

    release: str
    sdk: str
    abi: str
    soc: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A device.

    Attributes:
        machine: As `uname -m` says.
        system: Name and version of the system.
        model: Name of the board, or empty.
        cpu: Name of the CPU, or its part number.
        features: Of the CPU, as the kernel names them.
        cores: That are online; 0 where unknown.
        memory_bytes: In all; 0 where unknown.
        free_bytes: Of the disk that the bundle goes to; None where unknown.
        writable: Whether the bundle's folder can be made or replaced.
        interpreters: Environments of earlier deploys first.
        android: Where it is one.
    """

    machine: str
    system: str
    model: str
    cpu: str
    features: tuple[str, ...]
    cores: int
    memory_bytes: int
    free_bytes: int | None
    writable: bool
    interpreters: tuple[Interpreter, ...]
    android: Android | None = None

    def summary(self) -> str:
        """The device in a few words."""
        names = (self.model, self.system) if self.android else (self.model or self.system,)
        parts = (*names, self.machine, f"{self.cores} cores" if self.cores else "")
        return ", ".join(part for part in parts if part)


def probe_device(connection: Connection, folder: str) -> Probe:
    """Ask a device what it is and has; changes nothing there.

    Raises:
        MissingError: It has no POSIX shell.
        DamagedInputError: What it answers makes no sense.
    """
    parent = folder.rpartition("/")[0] or ("/" if folder.startswith("/") else ".")
    settings = {"place": parent, "parent": parent, "facts": _FACTS}
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    result = run(connection, "\n".join([*lines, _SCRIPT]))
    if result.code != 0:
        raise MissingError(
            f"{connection.name}: cannot be probed: {result.last_words()}", "it needs a POSIX shell"
        )
    answers: dict[str, list[str]] = {}
    for line in result.out.decode("utf-8", "replace").splitlines():
        name, tab, value = line.partition("\t")
        if tab:
            answers.setdefault(name, []).append(printable(value).strip())
    return _read(connection.name, answers)


def _read(host: str, answers: Mapping[str, list[str]]) -> Probe:
    first = {name: next(filter(None, values), "") for name, values in answers.items()}
    if not first.get("machine"):
        raise DamagedInputError(f"{host}: does not say what it is", "is it the device you mean?")
    found = {i.path: i for text in answers.get("python", []) for i in _interpreter(host, text)}
    kilobytes = _count(first.get("free", ""))
    android = Android(*(first.get(name, "") for name in ("release", "sdk", "abi", "soc")))
    return Probe(
        machine=first["machine"],
        system=f"Android {android.release}" if android.sdk else first.get("system", ""),
        model=first.get("model", ""),
        cpu=first.get("cpu", ""),
        features=tuple(first.get("features", "").split()),
        cores=_count(first.get("cores", "")) or 0,
        memory_bytes=1024 * (_count(first.get("memory", "")) or 0),
        free_bytes=None if kilobytes is None else 1024 * kilobytes,
        writable="writable" in first,
        interpreters=tuple(found.values()),
        android=android if android.sdk else None,
    )


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,15}", text) else None


def _interpreter(host: str, text: str) -> list[Interpreter]:
    """Read one Python's facts; one that does not start says nothing."""
    if not text:
        return []
    try:
        facts: dict[str, Any] = parse_json(text)
        major, minor, patch = map(int, facts["version"])
        packages = {name: str(value) for name, value in facts["packages"].items() if name in _DISTRIBUTIONS}
        return [
            Interpreter(
                path=str(facts["path"]),
                version=(major, minor, patch),
                packages=packages,
                bits=int(facts["bits"]),
                glibc=_glibc(*map(str, facts["libc"])),
                venv=facts["venv"] is True,
                ensurepip=facts["ensurepip"] is True,
            )
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DamagedInputError(
            f"{host}: its Python does not say what it has", "try `python3 -V` there"
        ) from None


def _glibc(name: str, version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d{1,3})\.(\d{1,3})", version) if name == "glibc" else None
    return (int(found[1]), int(found[2])) if found else None
