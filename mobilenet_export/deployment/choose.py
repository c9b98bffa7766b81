"""Which Python, runtimes and files a device gets."""

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mobilenet_export.deployment.probe import VENV, Interpreter, Probe
from mobilenet_export.errors import MissingError, UsageError, unknown_name

OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class DeviceRuntime:
    """What a device needs to run files of a format.

    Attributes:
        name: As in `runtimes/`.
        distribution: That pip installs.
        formats: That it reads.
        numpy: What it needs of numpy.
        newest_python: That there are wheels for, or None.
    """

    name: str
    distribution: str
    formats: tuple[str, ...]
    numpy: str = "numpy"
    newest_python: tuple[int, int] | None = None


RUNTIMES = (
    DeviceRuntime("onnxruntime", "onnxruntime", ("onnx", "ort")),
    DeviceRuntime("litert", "ai-edge-litert", ("tflite",)),
    DeviceRuntime("tflite_runtime", "tflite-runtime", ("tflite",), "numpy<2", (3, 11)),
)
"""In the order in which they are installed where the user names none."""
APPS = "litert"
"""What Android's apps run files in where the user names nothing."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user asked for of a device: a runtime by name or None, and whether to install one."""

    runtime: str | None = None
    install: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """An environment to make.

    Attributes:
        python: Executable on the device that makes it.
        version: Of that Python.
        platforms: Tags of wheels that it loads, best first.
        requirements: For pip.
    """

    python: str
    version: tuple[int, int]
    platforms: tuple[str, ...]
    requirements: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names what is in it."""
        facts = [self.version, self.platforms, self.requirements]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Name of its folder, beside the bundle."""
        return VENV + self.key


@dataclass(frozen=True, slots=True)
class Choice:
    """What a device gets.

    Attributes:
        python: Executable there that runs the bundle; None until `installation` is made, or where nothing does.
        runtimes: Names and versions of those that it has or gets.
        formats: Of the files to send.
        installation: To make first, or None.
        lack: Why nothing can run the bundle there: it is sent for the device's apps, and not checked.
    """

    python: str | None
    runtimes: tuple[str, ...]
    formats: tuple[str, ...]
    installation: Installation | None = None
    lack: str | None = None


def find_runtime(name: str) -> DeviceRuntime:
    """Return a runtime by its name, or by its distribution's.

    Raises:
        UsageError: There is none; the hint names the nearest.
    """
    for found in RUNTIMES:
        if name in (found.name, found.distribution):
            return found
    raise unknown_name("runtime", name, (found.name for found in RUNTIMES))


def candidates(formats: Iterable[str], wish: str | None) -> tuple[DeviceRuntime, ...]:
    """Return the runtimes that may be used for files of some formats.

    Raises:
        UsageError: The one wished for reads none of them.
    """
    present = set(formats)
    found = (find_runtime(wish),) if wish else RUNTIMES
    fitting = tuple(runtime for runtime in found if present.intersection(runtime.formats))
    if not fitting:
        names = ", ".join(sorted(present))
        raise UsageError(
            f"{found[0].name} reads {', '.join(found[0].formats)}; the bundle has only {names}",
            "choose another --runtime",
        )
    return fitting


def _formats(runtimes: Sequence[DeviceRuntime], present: Collection[str]) -> tuple[str, ...]:
    """What these runtimes read of the formats present, each once."""
    read = (name for runtime in runtimes for name in runtime.formats if name in present)
    return tuple(dict.fromkeys(read))


def choose(host: str, probe: Probe, formats: Sequence[str], wishes: Wishes) -> Choice:
    """Choose what a device gets: what it can run now, or with a runtime installed if that is wished.

    Raises:
        MissingError: It can run nothing; the hint says what to do.
    """
    runtimes = candidates(formats, wishes.runtime)
    if not probe.writable:
        raise MissingError(f"{host}: no permission to write there", f"name another folder: {host}:~/DIR")
    for interpreter in probe.interpreters:
        usable = [r for r in runtimes if interpreter.version >= OLDEST_PYTHON and not lack(interpreter, r)]
        if usable:
            names = tuple(f"{r.name} {interpreter.packages[r.distribution]}" for r in usable)
            return Choice(interpreter.path, names, _formats(usable, formats))
    if probe.android and not wishes.install:
        return _for_apps(probe, formats, wishes)
    if probe.android:
        raise MissingError(
            f"{host}: runtimes cannot be installed on Android: there are no wheels for it",
            "without --install its apps get the files",
        )
    interpreter = _system_python(host, probe)
    if wishes.install:
        installation = _plan(host, probe, interpreter, runtimes[0])
        return Choice(None, (runtimes[0].name,), _formats(runtimes[:1], formats), installation)
    reasons = "; ".join(f"{runtime.name}: {lack(interpreter, runtime)}" for runtime in runtimes)
    raise MissingError(
        f"{host}: no runtime that works: {reasons}",
        "`--install` puts one into an environment of its own there; nothing else on it changes",
    )


def _for_apps(probe: Probe, formats: Sequence[str], wishes: Wishes) -> Choice:
    """What an Android without a Python that can run it gets: the files that its apps read.

    Raises:
        UsageError: There are none.
    """
    runtime = find_runtime(wishes.runtime or APPS)
    wanted = _formats([runtime], formats)
    if not wanted:
        own = runtime.formats[0]
        raise UsageError(
            f"Android's apps read {own}; the bundle has only {', '.join(formats)}",
            f"export it with `--formats {own}`, or send what it has: --runtime onnxruntime",
        )
    found = [interpreter for interpreter in probe.interpreters if not interpreter.own]
    version = ".".join(map(str, found[0].version)) if found else ""
    reason = f"Python {version} there has no runtime that works" if found else "no python3 there"
    return Choice(None, (), wanted, lack=reason)


def lack(interpreter: Interpreter, runtime: DeviceRuntime) -> str | None:
    """Say why a Python cannot use a runtime, or None."""
    packages = interpreter.packages
    if runtime.distribution not in packages:
        return "not installed"
    missing = [name for name in ("numpy", "pillow") if name not in packages]
    if missing:
        return f"needs {' and '.join(missing)}"
    if runtime.numpy == "numpy<2" and not packages["numpy"].startswith("1."):
        return f"crashes with numpy {packages['numpy']}"
    return None


def _system_python(host: str, probe: Probe) -> Interpreter:
    """The newest Python that is not of an earlier deploy.

    Raises:
        MissingError: There is none, it is too old, or it is of a 32-bit system.
    """
    found = [interpreter for interpreter in probe.interpreters if not interpreter.own]
    if not found:
        raise MissingError(
            f"{host}: no python3 there", "on it: `sudo apt install python3`; 3.11 or later is needed"
        )
    best = next((i for i in found if i.version >= OLDEST_PYTHON), found[0])
    version = ".".join(map(str, best.version))
    if best.version < OLDEST_PYTHON:
        raise MissingError(
            f"{host}: Python {version} there; 3.11 or later is needed",
            "Raspberry Pi OS 12 (bookworm) and Debian 12 have 3.11; python3.11 beside the old one is found too",
        )
    if best.bits != 64:
        raise MissingError(
            f"{host}: a 32-bit system ({probe.machine}): onnxruntime and LiteRT have no wheels for it",
            "install the 64-bit Raspberry Pi OS; or by hand there tflite-runtime, numpy<2 and Pillow, Python 3.11",
        )
    return best


def _plan(host: str, probe: Probe, interpreter: Interpreter, runtime: DeviceRuntime) -> Installation:
    version = interpreter.version[:2]
    if not interpreter.venv:
        raise MissingError(f"{host}: its Python has no venv", "on it: `sudo apt install python3-venv`")
    if runtime.newest_python and version > runtime.newest_python:
        newest = ".".join(map(str, runtime.newest_python))
        raise MissingError(
            f"{host}: {runtime.name} has no wheels for Python {version[0]}.{version[1]}, only up to {newest}",
            "--runtime litert reads the same files",
        )
    if interpreter.glibc is None or probe.machine not in ("aarch64", "x86_64"):
        raise MissingError(
            f"{host}: no wheels of {runtime.name} for {probe.machine} without glibc"
            if interpreter.glibc is None
            else f"{host}: no wheels of {runtime.name} for {probe.machine}",
            "there are for aarch64 and x86_64 with glibc: Raspberry Pi OS (64-bit), Debian, Ubuntu",
        )
    requirements = (runtime.distribution, runtime.numpy, "pillow", "pip")
    return Installation(interpreter.path, version, _platforms(probe.machine, interpreter.glibc), requirements)


def _platforms(machine: str, glibc: tuple[int, int]) -> tuple[str, ...]:
    """Tags of the wheels that a C library can load, newest first.

    Source: PEP 600; manylinux2014 is its older name of 2.17.
    """
    minors = range(glibc[1], 16, -1) if glibc[0] == 2 else range(0)
    return (*(f"manylinux_2_{minor}_{machine}" for minor in minors), f"manylinux2014_{machine}")
