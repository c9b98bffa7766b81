"""`deploy`: a bundle to devices; each is probed, sent what it can run, checked and measured, side by side."""

import dataclasses
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from mobilenet_export.bundle import Bundle
from mobilenet_export.deployment.choose import Choice, Wishes, candidates, choose, find_runtime
from mobilenet_export.deployment.fleet import Member
from mobilenet_export.deployment.install import download, install
from mobilenet_export.deployment.measure import Check, Installed, Latency, LatencyRow, bench, check
from mobilenet_export.deployment.parcel import check_bundle, pack
from mobilenet_export.deployment.probe import Probe, probe_device
from mobilenet_export.deployment.send import Sent, plan, send, survey
from mobilenet_export.devices import Connection, Processes, Settings, Target, transport
from mobilenet_export.errors import ExitCode, MissingError, MnxError, UsageError, explain_error
from mobilenet_export.pipeline.cache import cache_folder
from mobilenet_export.scratch import scratch_folder

RESULTS = "devices"
"""Folder of the bundle that results come back to."""
_MOST_AT_ONCE = 32
_LISTENS_S = 0.5
"""Windows hears Ctrl-C only between two waits."""


class Watcher(Protocol):
    """Is told how it goes, from several threads."""

    def stage(self, host: str, text: str) -> None:
        """Something begins or has been found."""
        ...

    def sent(self, host: str, done_bytes: int, total_bytes: int) -> None:
        """Bytes have gone."""
        ...


@dataclass(frozen=True, slots=True)
class DeployRequest:
    """What to deploy, to where.

    Attributes:
        bundle: To deploy.
        members: The devices.
        install: Whether to install a runtime where none works.
        dry_run: Whether to change nothing there.
        bench: Whether to measure, too.
        runs: Inferences of each file.
        threads: Numbers of threads to measure with.
        settings: How to connect.
    """

    bundle: Bundle
    members: tuple[Member, ...]
    install: bool = False
    dry_run: bool = False
    bench: bool = True
    runs: int = 100
    threads: tuple[int, ...] = (1,)
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """What became of a bundle on one device; what was not reached is None.

    Attributes:
        host: As the user named it.
        folder: Of the bundle there.
        probe: What the device is.
        choice: What it gets.
        sent: What went over the line, or in a dry run would.
        check: Its self-check.
        latency: Its benchmark.
        error: What ended it.
        unchecked: Why nothing was run, though everything was sent.
    """

    host: str
    folder: str
    probe: Probe | None = None
    choice: Choice | None = None
    sent: Sent | None = None
    check: Check | None = None
    latency: Latency | None = None
    error: MnxError | None = None
    unchecked: str | None = None

    @property
    def verdict(self) -> Literal["pass", "fail", "error", "sent", "planned"]:
        """How it ended."""
        if self.error is not None:
            return "error"
        if self.check is not None:
            return self.check.verdict
        return "sent" if self.unchecked else "planned"

    def recommended(self) -> LatencyRow | None:
        """The fastest of what passes, where that was measured."""
        if self.check is None or self.latency is None:
            return None
        passing = {(row.file, row.runtime, row.provider) for row in self.check.rows if row.verdict == "pass"}
        timed = [row for row in self.latency.rows if (row.file, row.runtime, row.provider) in passing]
        return min(timed, key=lambda row: row.p50_ms, default=None)

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table."""
        best, error = self.recommended(), self.error
        return {
            "host": self.host,
            "folder": self.folder,
            "verdict": self.verdict,
            "error": {"message": error.message, "hint": error.hint, "code": int(error.exit_code)}
            if error
            else None,
            "unchecked": self.unchecked,
            "probe": dataclasses.asdict(self.probe) if self.probe else None,
            "choice": dataclasses.asdict(self.choice) if self.choice else None,
            "sent": dataclasses.asdict(self.sent) if self.sent else None,
            "recommended": dataclasses.asdict(best) if best else None,
            "check": self.check.document if self.check else None,
            "latency": self.latency.document if self.latency else None,
        }


def deploy(request: DeployRequest, watcher: Watcher) -> tuple[DeviceReport, ...]:
    """Deploy a bundle to devices, side by side; what goes wrong with one stands in its report.

    Raises:
        UsageError, DamagedInputError: The request or the bundle is wrong, whatever the devices are.
    """
    _check_request(request)
    processes = Processes()
    pool = ThreadPoolExecutor(min(len(request.members), _MOST_AT_ONCE), thread_name_prefix="deploy")
    try:
        running = [pool.submit(_deploy_to, request, member, processes, watcher) for member in request.members]
        while wait(running, timeout=_LISTENS_S).not_done:
            pass
        return tuple(one.result() for one in running)
    finally:
        processes.end()  # after Ctrl-C: connections break, and every thread ends with an error that nobody reads
        pool.shutdown(cancel_futures=True)


def _check_request(request: DeployRequest) -> None:
    check_bundle(request.bundle)
    names = [member.target.name for member in request.members]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{name} is named twice", "one bundle goes to a device at a time")
    for member in request.members:
        candidates(_formats(request.bundle), member.runtime)


def _deploy_to(
    request: DeployRequest, member: Member, processes: Processes, watcher: Watcher
) -> DeviceReport:
    """Deploy to one device; whatever goes wrong ends only this one."""
    target = member.target
    report = DeviceReport(target.name, target.folder or _default_folder(target, request.bundle))
    try:
        watcher.stage(report.host, "connect")
        with _connected(target, request.settings, processes) as connection:
            report = dataclasses.replace(report, host=connection.name)
            device = _Device(connection, request, Wishes(member.runtime, request.install), processes, watcher)
            report = device.plan(report) if request.dry_run else device.deploy(report)
        if not request.dry_run:
            write_results(request.bundle, report)
    except MnxError as error:
        return dataclasses.replace(report, error=error)
    except Exception as error:
        return dataclasses.replace(report, error=_unexpected(report.host, error))
    return report


@dataclass(frozen=True, slots=True)
class _Device:
    """A device that is connected, and what is wanted of it."""

    connection: Connection
    request: DeployRequest
    wishes: Wishes
    processes: Processes
    watcher: Watcher

    def plan(self, report: DeviceReport) -> DeviceReport:
        """Say what would be done; nothing on the device changes."""
        report = self._choose(report)
        parcel = pack(self.request.bundle, _chosen(report).formats)
        return dataclasses.replace(report, sent=plan(parcel, survey(self.connection, parcel, report.folder)))

    def deploy(self, report: DeviceReport) -> DeviceReport:
        """Send what the device can run, then check and measure it there."""
        report = self._choose(report)
        if _chosen(report).installation is not None:
            report = self._install(report)
        report = self._send(report)
        if _chosen(report).lack is not None:
            return dataclasses.replace(report, unchecked=_chosen(report).lack)
        self._say("check")
        installed = Installed(report.folder, _chosen(report).python or "python3", self._runtime())
        report = dataclasses.replace(report, check=check(self.connection, installed))
        if self.request.bench and report.verdict == "pass":
            self._say("measure")
            request = self.request
            try:
                latency = bench(self.connection, installed, request.runs, request.threads)
            except MnxError as error:  # what was checked stays known
                return dataclasses.replace(report, error=error)
            report = dataclasses.replace(report, latency=latency)
        return report

    def _choose(self, report: DeviceReport, *, install: bool = True) -> DeviceReport:
        self._say("probe")
        probe = probe_device(self.connection, report.folder)
        wishes = self.wishes if install else dataclasses.replace(self.wishes, install=False)
        choice = choose(report.host, probe, _formats(self.request.bundle), wishes)
        self._say(f"{probe.summary()}; {', '.join(choice.runtimes) or choice.lack}")
        return dataclasses.replace(report, probe=probe, choice=choice)

    def _install(self, report: DeviceReport) -> DeviceReport:
        """Make the environment that was chosen, and look at the device again."""
        installation, probe = _chosen(report).installation, report.probe
        assert installation is not None
        assert probe is not None
        self._say(f"install {', '.join(installation.requirements[:-1])}")
        parcel = download(installation, cache_folder(), self.processes)
        folder = posixpath.join(posixpath.dirname(report.folder), installation.folder)
        install(self.connection, installation, parcel, folder, probe.free_bytes, self._advance)
        return self._choose(report, install=False)

    def _send(self, report: DeviceReport) -> DeviceReport:
        assert report.probe is not None
        parcel = pack(self.request.bundle, _chosen(report).formats)
        sent = send(self.connection, parcel, report.folder, report.probe.free_bytes, self._advance)
        self._say(
            f"sent {sent.sent_bytes:,} bytes of {sent.total_bytes:,}; {sent.kept} of "
            f"{sent.kept + len(sent.files)} files were there"
        )
        return dataclasses.replace(report, sent=sent)

    def _runtime(self) -> str | None:
        return find_runtime(self.wishes.runtime).name if self.wishes.runtime else None

    def _say(self, text: str) -> None:
        self.watcher.stage(self.connection.name, text)

    def _advance(self, done_bytes: int, total_bytes: int) -> None:
        self.watcher.sent(self.connection.name, done_bytes, total_bytes)


@contextmanager
def _connected(target: Target, settings: Settings, processes: Processes) -> Iterator[Connection]:
    connection = transport(target.transport).open(target, settings, processes)
    try:
        yield connection
    finally:
        connection.close()


def write_results(bundle: Bundle, report: DeviceReport) -> Path:
    """Write a report into the bundle, whole or not at all, and return where.

    Raises:
        MissingError: It cannot be written.
    """
    path = bundle.folder / RESULTS / f"{_file_name(report.host)}.json"
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(exist_ok=True)
        with scratch_folder(path.parent, ".partial-") as scratch:
            (scratch / path.name).write_text(text, encoding="utf-8")
            (scratch / path.name).replace(path)
    except OSError as error:
        raise MissingError(f"cannot write {path}: {error.strerror}", "check space and permissions") from None
    return path


def _file_name(host: str) -> str:
    """A host's name where it can be a file's, else as near as can be and told apart by a hash."""
    plain = re.sub(r"[^A-Za-z0-9._@-]", "_", host).lstrip(".")
    return plain if plain == host else f"{plain}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def _default_folder(target: Target, bundle: Bundle) -> str:
    return f"{transport(target.transport).folder}/{bundle.folder.resolve().name}"


def _formats(bundle: Bundle) -> tuple[str, ...]:
    return tuple(dict.fromkeys(entry["format"] for entry in bundle.document["files"]))


def _chosen(report: DeviceReport) -> Choice:
    assert report.choice is not None
    return report.choice


def _unexpected(host: str, error: Exception) -> MnxError:
    message, hint, code = explain_error(error)
    kind = MissingError if code == ExitCode.MISSING else MnxError
    return kind(f"{host}: {message}", hint)


def exit_code(reports: Sequence[DeviceReport]) -> int:
    """Return 1 where a check failed, else the first error's code, else 0."""
    if any(report.verdict == "fail" for report in reports):
        return ExitCode.CHECK_FAILED
    return next((report.error.exit_code for report in reports if report.error), ExitCode.DONE)
