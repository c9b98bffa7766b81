"""`phone`: a page on the network that runs a bundle in any browser, and the reports that come back."""

import dataclasses
import json
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mobilenet_export import images
from mobilenet_export.agent.check import CheckReport, CheckRow, Recorded, changed_files, read_recorded
from mobilenet_export.agent.request import find_engines
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import EXPORT_AGAIN, SELF_CHECK, Bundle
from mobilenet_export.checks.latency import Contestant, Plan, race
from mobilenet_export.deployment.measure import read_check, read_latency
from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.latency import LatencyReport, LatencyRow, explain, ranks
from mobilenet_export.phone.address import LOOPBACK, lan_address
from mobilenet_export.phone.assets import LITERT, ONNXRUNTIME, Resource, find_resources, versions
from mobilenet_export.phone.server import Answer, PageServer, Site
from mobilenet_export.phone.visitor import Visit, judge, parse, read_visit
from mobilenet_export.pipeline.deploy import DeviceReport, write_results
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.runtimes import Setup

PORT = 8765
_TOKEN_BYTES = 16
_LISTENS_S = 0.5
_MOST_RUNS_HERE = 20
_BYTES_OF_A_NUMBER, _BYTES_OF_THE_REST = 32, 1 << 20
_BROWSER_RUNTIMES = {"onnx": "onnxruntime-web", "ort": "onnxruntime-web", "tflite": "litert.js"}
"""Format → the runtime that reads it in a browser."""


class Watcher(Protocol):
    """Is told how it goes, from several threads."""

    def checked(self, row: CheckRow) -> None:
        """A browser ran a file."""
        ...


@dataclass(frozen=True, slots=True)
class PhoneRequest:
    """What to serve.

    Attributes:
        bundle: To run.
        host: Address or name of this computer, as phones reach it; None: its address in the local network.
        port: To listen at; 0 takes a free one.
        tls: Whether to encrypt, with a certificate made for this run.
        runs: Inferences of each file.
        threads: That the browser's runtimes are given, where it has threads.
    """

    bundle: Bundle
    host: str | None = None
    port: int = PORT
    tls: bool = False
    runs: int = 50
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Service:
    """A page that is served.

    Attributes:
        url: To open, with the token.
        is_local: Whether only this computer can reach it.
        fingerprint: SHA-256 of the certificate; None without TLS.
        arrived: Reports of browsers.
    """

    url: str
    is_local: bool
    fingerprint: str | None
    arrived: queue.Queue[DeviceReport]

    def reports(self) -> Iterator[DeviceReport]:
        """Wait for reports, for ever."""
        while True:
            try:
                yield self.arrived.get(timeout=_LISTENS_S)
            except queue.Empty:  # Windows hears Ctrl-C only between two waits
                continue


_EVERYWHERE = ("0.0.0.0", "::", "*")


@contextmanager
def serve(request: PhoneRequest, watcher: Watcher, progress: Progress = silent) -> Iterator[Service]:
    """Serve a bundle's page while the block runs.

    Raises:
        UsageError: The bundle holds nothing that a browser runs, threads without TLS, or no address of a computer.
        DamagedInputError: A file of it is not the one that was written.
        MissingError: The runtimes are not packed, or the port is taken.
    """
    resources = find_resources()
    host = (request.host or lan_address() or LOOPBACK).lower()  # as browsers send it
    if host in _EVERYWHERE:
        raise UsageError(
            f"{host} is no address that a phone can open", "leave --host out, or give this computer's"
        )
    if request.threads > 1 and not request.tls:
        raise UsageError("browsers give threads to https alone", "give --tls too, or leave --threads out")
    context, fingerprint = None, None
    if request.tls:
        from mobilenet_export.phone.certificate import server_context  # noqa: PLC0415 (the extra `phone`)

        context, fingerprint = server_context(host)
    job = _Job(request, watcher, progress)
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    outputs = next(iter(job.recorded.outputs.values()))
    most_bytes = _BYTES_OF_THE_REST + 8 * len(job.artifacts) * outputs.size * _BYTES_OF_A_NUMBER
    posts = {"/check": job.check, "/report": job.report}
    site = Site(resources | job.resources(), {"/job.json": job.document()}, posts, token, most_bytes)
    server = PageServer(host, request.port, site, context)
    job.origin = server.origin
    server.start()
    try:
        yield Service(f"{server.origin}/#{token}", host == LOOPBACK, fingerprint, job.arrived)
    finally:
        server.stop()


class _Job:
    """What browsers are to do, and what came back of it."""

    def __init__(self, request: PhoneRequest, watcher: Watcher, progress: Progress) -> None:
        self.request, self._watcher = request, watcher
        bundle = request.bundle
        self.recorded = read_recorded(bundle)
        if changed := changed_files(bundle):
            raise DamagedInputError(changed[0], EXPORT_AGAIN)
        readable = [a for a in bundle.artifacts() if a.format in _BROWSER_RUNTIMES]
        self.artifacts = {artifact.file: artifact for artifact in readable}
        if not self.artifacts:
            raise UsageError(f"{bundle.folder} has no ONNX, ORT or TFLite file", "export it with one")
        for name in self.artifacts.keys() - self.recorded.outputs.keys():
            raise DamagedInputError(f"{name}: no outputs of it are recorded", EXPORT_AGAIN)
        with Stages(progress)("measure here"):
            self.here_ms = _measure_here(self.recorded, tuple(self.artifacts.values()), request)
        self.arrived: queue.Queue[DeviceReport] = queue.Queue()
        self.origin = ""
        self._names: dict[str, str] = {}
        self._lock = threading.Lock()

    def resources(self) -> dict[str, Resource]:
        """The model files and images, by path."""
        folder = self.request.bundle.folder
        found = {
            f"/files/{index}": Resource(folder / name, secret=True)
            for index, name in enumerate(self.artifacts)
        }
        for index, entry in enumerate(self.request.bundle.document["self_check"]):
            found[f"/images/{index}"] = Resource(folder / SELF_CHECK / entry["image"], secret=True)
        return found

    def document(self) -> dict[str, Any]:
        """What the page has to know."""
        document, spec = self.request.bundle.document, self.recorded.spec
        entries = {entry["path"]: entry for entry in document["files"]}
        return {
            "title": spec.name,
            "images": len(self.recorded.pictures),
            "files": [self._file(index, entries[name]) for index, name in enumerate(self.artifacts)],
            "labels": list(self.recorded.labels),
            "softmax": spec.softmax,
            "preprocess": dataclasses.asdict(spec.preprocess),
            "limits": {
                "most_pixels": images.MOST_PIXELS,
                "shortest_side_px": images.SHORTEST_SIDE_PX,
                "largest_aspect_ratio": images.LARGEST_ASPECT_RATIO,
            },
            "plan": {"rounds": Plan(self.request.runs).rounds, "block": Plan(self.request.runs).inferences},
            "threads": self.request.threads,
            "versions": {"onnxruntime-web": versions()[ONNXRUNTIME], "litert.js": versions()[LITERT]},
        }

    def _file(self, index: int, entry: Mapping[str, Any]) -> dict[str, Any]:
        names = ("path", "format", "precision", "bytes", "input", "output")
        for name in names:
            if name not in entry:
                folder = self.request.bundle.folder
                message = f"{folder}: does not say the {name} of {entry['path']}"
                raise DamagedInputError(message, EXPORT_AGAIN)
        return {name: entry[name] for name in names} | {
            "url": f"/files/{index}",
            "runtime": _BROWSER_RUNTIMES[entry["format"]],
            "here_ms": self.here_ms.get(entry["path"]),
        }

    def check(self, body: bytes) -> Answer:
        """Judge what one file answered."""
        row = judge(parse(body), self.artifacts, self.recorded)
        return Answer(dataclasses.asdict(row), lambda: self._watcher.checked(row))

    def report(self, body: bytes) -> Answer:
        """Take a browser's report, keep it in the bundle, and say what follows from it."""
        visit = read_visit(parse(body), self.artifacts, self.recorded)
        if not visit.checks:
            raise DamagedInputError("the browser ran no file", "open the page again")
        report, rows = self._device_report(visit)
        write_results(self.request.bundle, report)
        best = report.recommended()
        document = {
            "name": report.host,
            "verdict": report.verdict,
            "rows": [
                self._timed(row, rank) for row, rank in zip(rows, ranks(rows) if rows else (), strict=True)
            ],
            "recommended": dataclasses.asdict(best) if best else None,
            "notes": list(report.latency.notes) if report.latency else [],
        }
        return Answer(document, lambda: self.arrived.put(report))

    def _timed(self, row: LatencyRow, rank: str) -> dict[str, Any]:
        times = {"p50_ms": row.percentile_ms(50), "p90_ms": row.percentile_ms(90)}
        names = {"file": row.file, "runtime": row.runtime, "provider": row.provider}
        return names | times | {"rank": rank, "here_ms": self.here_ms.get(row.file)}

    def _device_report(self, visit: Visit) -> tuple[DeviceReport, tuple[LatencyRow, ...]]:
        name = self._name(visit)
        failures = tuple(
            f"{r.file} in {r.runtime}:{r.provider}: {r.detail}" for r in visit.checks if r.verdict == "fail"
        )
        used = {"onnxruntime-web": versions()[ONNXRUNTIME], "litert.js": versions()[LITERT]}
        checked = CheckReport(visit.machine, used, len(self.recorded.pictures), visit.checks, failures)
        report = DeviceReport(name, f"{self.origin}/", check=read_check(name, _plain(checked.to_json())))
        rows = visit.latency_rows(self.artifacts)
        if not rows:
            return report, ()
        notes = (*explain(rows, visit.machine), *_compare_int8(rows, self.artifacts), *visit.notes)
        measured = LatencyReport(visit.machine, rows, notes=notes).to_json() | {"pc_p50_ms": self.here_ms}
        return dataclasses.replace(report, latency=read_latency(name, _plain(measured))), rows

    def _name(self, visit: Visit) -> str:
        """Name a device: a second one of a kind gets a number, a page that measures again keeps its name."""
        with self._lock:
            taken = [name for page, name in self._names.items() if page != visit.page]
            if visit.page not in self._names:
                numbered = (f"{visit.name}-{number}" for number in range(2, len(taken) + 3))
                self._names[visit.page] = next(n for n in (visit.name, *numbered) if n not in taken)
            return self._names[visit.page]


def _plain(document: Any) -> Any:
    """Return a document as it is read back from JSON."""
    return json.loads(json.dumps(document))


def _measure_here(
    recorded: Recorded, artifacts: Sequence[Artifact], request: PhoneRequest
) -> Mapping[str, float]:
    """Median milliseconds of every file on this computer, in the first runtime that reads it; none without any."""
    try:
        engines = find_engines(())
    except MissingError:
        return {}
    batch = images.preprocess(recorded.pictures[0], recorded.spec.preprocess)[np.newaxis]
    contestants = {}
    for artifact in artifacts:
        engine = next((e for e in engines if artifact.format in e.runtime.formats), None)
        if engine is not None:
            session = engine.runtime.open(artifact, Setup(engine.provider, request.threads))
            contestants[artifact.file] = Contestant(session, session.prepare(batch))
    race(list(contestants.values()), Plan(min(request.runs, _MOST_RUNS_HERE)))
    samples = {file: [x for samples in one.rounds_ms for x in samples] for file, one in contestants.items()}
    return {file: float(np.median(values)) for file, values in samples.items()}


def _compare_int8(rows: Sequence[LatencyRow], artifacts: Mapping[str, Artifact]) -> list[str]:
    """Say which of both int8 files to take in browsers, where one is clearly faster."""
    int8 = [row for row in rows if row.precision == "int8" and artifacts[row.file].io == "float32"]
    tflite = next((row for row in int8 if artifacts[row.file].format == "tflite"), None)
    onnx = next((row for row in int8 if artifacts[row.file].format == "onnx"), None)
    if tflite is None or onnx is None:
        return []
    ratio = tflite.speed_over(onnx)
    if not ratio.is_clear:
        return []
    better, worse, times = (
        ("TFLite", "ONNX", ratio.times) if ratio.times > 1 else ("ONNX", "TFLite", 1 / ratio.times)
    )
    return [
        f"int8 in this browser: take the {better} file, which is {times:.1f} times as fast as the {worse} file"
    ]
