"""Where candidates are measured: in a process of its own here, or on a device. Both run a bundle's benchmark."""

import json
import os
import posixpath
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import mobilenet_export
from mobilenet_export.agent.request import Engine, find_engines
from mobilenet_export.bundle import Bundle
from mobilenet_export.candidate import Measurement, Point
from mobilenet_export.deployment.choose import Wishes, choose, find_runtime
from mobilenet_export.deployment.commands import run
from mobilenet_export.deployment.measure import Installed, bench
from mobilenet_export.deployment.parcel import pack
from mobilenet_export.deployment.probe import probe_device
from mobilenet_export.deployment.send import send
from mobilenet_export.devices import Connection, Processes, Settings, find_target, transport
from mobilenet_export.errors import DamagedInputError, ExitCode, UsageError
from mobilenet_export.latency import median_high
from mobilenet_export.machine import this_machine
from mobilenet_export.plugins import load_plugin
from mobilenet_export.runtimes import Runtime, find_provider

_FOLDER = ".mnx-pick"
"""Of the device; it never takes the place of a bundle, and is removed at the end."""
_LONGEST_S = 1800.0
_BUSY = 1.0
"""Load average from which on measuring is disturbed."""


@dataclass(frozen=True, slots=True)
class RuntimeThere:
    """A runtime that measures.

    Attributes:
        runtime: Name of it.
        provider: Kernels of it.
        version: Of the runtime.
        formats: That it reads, its own first.
        asked: As it is named to a benchmark.
    """

    runtime: str
    provider: str
    version: str
    formats: tuple[str, ...]
    asked: str


class Meter(Protocol):
    """A place to measure at.

    Attributes:
        place: What it is, for people.
        identity: What its figures depend on.
        engines: Runtimes there.
        doubt: Why its figures are not what they could be, or None.
    """

    place: str
    identity: Mapping[str, Any]
    doubt: str | None
    engines: tuple[RuntimeThere, ...]

    def measure(self, bundle: Bundle, points: Sequence[Point], runs: int) -> Mapping[Point, Measurement]:
        """Measure some of a bundle's files side by side, in a process that does nothing else.

        Raises:
            MnxError: It cannot be done there.
        """
        ...


class LocalMeter:
    """This computer."""

    def __init__(self, runtimes: Sequence[str]) -> None:
        machine = this_machine()
        self.place = f"{machine.cpu}, {machine.cores} cores"
        self.identity: Mapping[str, Any] = {"local": asdict(machine)}
        self.doubt = _busy(machine.cores)
        self.engines = tuple(_engine(one) for one in find_engines(runtimes) if one.runtime.formats)

    def measure(self, bundle: Bundle, points: Sequence[Point], runs: int) -> Mapping[Point, Measurement]:
        """Run the bundle's benchmark in a new process."""
        asked = {(one.runtime, one.provider): one.asked for one in self.engines}
        options = ["bench", "--json", "--runs", str(runs), "--threads", str(points[0].threads)]
        for name in dict.fromkeys(asked[point.runtime, point.provider] for point in points):
            options += ["--runtime", name]
        for file in dict.fromkeys(point.file for point in points):
            options += ["--file", file]
        return read_measurements(self.place, _bench_here(bundle, options), bundle, points)


def _busy(cores: int) -> str | None:
    """Say so, if other programs use the computer; Windows does not tell."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _BUSY:
        return None
    return f"the load was {load:.1f} on {cores} cores, so latencies are too high: --no-cache when it is quiet"


def _engine(found: Engine) -> RuntimeThere:
    engine, provider = found.runtime, find_provider(found.runtime, found.provider).name
    asked = f"{engine.name}:{found.provider}" if found.provider else engine.name
    return RuntimeThere(engine.name, provider, engine.version(), engine.formats, asked)


def _bench_here(bundle: Bundle, options: Sequence[str]) -> Mapping[str, Any]:
    root = str(Path(mobilenet_export.__file__).parents[1])
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    code = "import sys; from mobilenet_export.agent.command import main; sys.exit(main(sys.argv.pop(1)))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle.folder), *options],
        capture_output=True,
        timeout=_LONGEST_S,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
        encoding="utf-8",
    )
    if done.returncode == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or [
            "error: it died"
        ]
        raise DamagedInputError(
            f"{bundle.folder.name} could not be measured: {lines[0].removeprefix('error: ')}",
            "`mnx doctor` says which runtimes work",
        )
    document: Mapping[str, Any] = json.loads(done.stdout)
    return document


def read_measurements(
    place: str, document: Mapping[str, Any], bundle: Bundle, points: Sequence[Point]
) -> Mapping[Point, Measurement]:
    """Read a benchmark's report.

    Raises:
        DamagedInputError: It has no figures of a point, or they are none.
    """
    try:
        rows = {
            (row["file"], row["runtime"], row["provider"], row["threads"]): row for row in document["rows"]
        }
        found = {point: _measurement(rows, bundle, point) for point in points}
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedInputError(
            f"{place}: its benchmark cannot be read: {error}", "measure again; is it your device?"
        ) from None
    return found


def _measurement(rows: Mapping[Any, Any], bundle: Bundle, point: Point) -> Measurement:
    row = rows[point.file, point.runtime, point.provider, point.threads]
    medians = [median(float(sample) for sample in samples) for samples in row["rounds_ms"]]
    p50, peak = median(medians), int(row["peak_rss_bytes"] or 0)
    if not (medians and 0 < p50 < 1e9 and 0 <= peak < 1e15):
        raise ValueError(f"{point.file} takes {p50} ms and {peak} bytes")
    size = (bundle.folder / point.file).stat().st_size
    return Measurement(p50, max(median_high(medians), p50), size, peak)


class DeviceMeter:
    """A device with a shell, reached by ssh or adb."""

    def __init__(self, connection: Connection, folder: str, runtimes: Sequence[str]) -> None:
        self._connection, self._folder = connection, folder
        probe = probe_device(connection, folder)
        choice = choose(connection.name, probe, ("onnx", "tflite"), Wishes(None))
        if choice.python is None:
            raise UsageError(
                f"{connection.name}: nothing can be measured there: {choice.lack}", "pick without --device"
            )
        self._free_bytes, self._python = probe.free_bytes, choice.python
        self.place = f"{connection.name}: {probe.summary()}"
        facts = (probe.machine, probe.cpu, probe.cores, probe.memory_bytes, probe.system)
        self.identity: Mapping[str, Any] = {"device": connection.name, "facts": list(map(str, facts))}
        self.doubt: str | None = None
        self.engines = tuple(_device_engines(connection.name, choice.runtimes, runtimes))

    def measure(self, bundle: Bundle, points: Sequence[Point], runs: int) -> Mapping[Point, Measurement]:
        """Send the bundle, and run its benchmark there."""
        files = {point.file for point in points}
        formats = {entry["format"] for entry in bundle.document["files"] if entry["path"] in files}
        send(self._connection, pack(bundle, formats), self._folder, self._free_bytes)
        names = {point.runtime for point in points}
        installed = Installed(self._folder, self._python, names.pop() if len(names) == 1 else None)
        latency = bench(self._connection, installed, runs, (points[0].threads,))
        return read_measurements(self.place, latency.document, bundle, points)


def _device_engines(host: str, there: Sequence[str], wanted: Sequence[str]) -> Iterator[RuntimeThere]:
    """Yield the runtimes there, of those that are wanted.

    Raises:
        UsageError: One that is wanted is not there, or a provider is asked for.
    """
    known = dict(text.split(" ", maxsplit=1) for text in there)
    for name in wanted or known:
        runtime = find_runtime(name)
        if runtime.name not in known:
            raise UsageError(
                f"{host}: {name} is not there", f"it has {', '.join(known)}; `mnx deploy --install` adds one"
            )
        provider = _default_provider(runtime.name)
        yield RuntimeThere(runtime.name, provider, known[runtime.name], runtime.formats, runtime.name)


def _default_provider(name: str) -> str:
    found: Runtime = load_plugin("runtimes", name)
    return found.providers[0].name


@contextmanager
def open_meter(device: str | None, runtimes: Sequence[str], settings: Settings) -> Iterator[Meter]:
    """Yield the place to measure at; on a device nothing is left behind.

    Raises:
        UsageError, MissingError: It cannot be reached, or has no runtime.
    """
    if device is None:
        yield LocalMeter(runtimes)
        return
    target, processes = find_target(device), Processes()
    way = transport(target.transport)
    folder = posixpath.join(target.folder or way.folder, _FOLDER)
    connection = way.open(target, settings, processes)
    try:
        try:
            yield DeviceMeter(connection, folder, runtimes)
        finally:
            run(connection, f"rm -rf -- {shlex.quote(folder)} {shlex.quote(folder + '.partial')}")
    finally:
        processes.end()
        connection.close()
