"""`mnx deploy`."""

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import UsageError

if TYPE_CHECKING:
    from mobilenet_export.cli.tables import Table
    from mobilenet_export.deployment.fleet import Member
    from mobilenet_export.pipeline.deploy import DeployRequest, DeviceReport

_BETWEEN_LINES_S = 2.0


def deploy_command(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Devices (user@host[:dir], adb[:serial][:/dir]), then the bundle.",
            metavar="HOST… BUNDLE",
            autocompletion=completion.hosts,
        ),
    ],
    fleet: Annotated[
        Path | None, typer.Option(help="TOML of [[device]] host, dir, runtime.", metavar="FILE")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install a runtime there where none works.")
    ] = False,
    runtime: Annotated[
        str | None,
        typer.Option(
            help="onnxruntime, litert or tflite_runtime; default what is there.",
            metavar="NAME",
            autocompletion=completion.file_runtimes,
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Inferences of each file.", metavar="N", min=1)] = 100,
    threads: Annotated[str, typer.Option(help="Comma-separated.", metavar="N,…")] = "1",
    no_bench: Annotated[bool, typer.Option("--no-bench", help="Only check.")] = False,
    ssh_config: Annotated[
        Path | None,
        typer.Option(help="In place of ~/.ssh/config.", metavar="FILE", envvar="MNX_SSH_CONFIG"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Send a bundle to devices over ssh or adb; check and measure it there.

    Only what a device can run is sent, only what changed, and from where it stopped. Results go to
    BUNDLE/devices/. Exit code 1 where a check fails, else that of the first error.

    \b
    Examples:
      mnx deploy pi@raspberrypi.local mobilenet_v2_100_224 --install
      mnx deploy pi1 pi2 pi3 mobilenet_v2_100_224 --threads 1,4
      mnx deploy adb mobilenet_v2_100_224
      mnx deploy --fleet fleet.toml mobilenet_v2_100_224
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.bundle import read_bundle  # noqa: PLC0415
    from mobilenet_export.devices import Settings, StoppedError  # noqa: PLC0415
    from mobilenet_export.pipeline.deploy import DeployRequest, deploy, exit_code  # noqa: PLC0415 (numpy, onnx)

    if ssh_config is not None and not ssh_config.is_file():
        raise UsageError(f"no such file: {ssh_config}", "give --ssh-config a file")
    *hosts, folder = places
    request = DeployRequest(
        bundle=read_bundle(_bundle_folder(hosts, folder)),
        members=_members(hosts, fleet, runtime),
        install=install,
        dry_run=dry_run,
        bench=not no_bench,
        runs=runs,
        threads=_threads(threads),
        settings=Settings(ssh_config, ask=sys.stdin.isatty() and sys.stderr.isatty()),
    )
    try:
        reports = deploy(request, _Talk())
    except KeyboardInterrupt:
        raise StoppedError("interrupted", "the same command goes on where it stopped") from None
    if as_json:
        terminal.print_json(_json(request, reports))
    else:
        _print(reports)
    for report in reports:
        _say_problems(report, request.bundle.folder)
    if code := exit_code(reports):
        raise typer.Exit(code)
    if not (as_json or dry_run or any(report.unchecked for report in reports)):
        terminal.say_next("mnx snippet %s --for python", folder)


def _bundle_folder(hosts: list[str], last: str) -> Path:
    folder = Path(last)
    if not folder.is_dir() and any(Path(host).is_dir() for host in hosts):
        raise UsageError(f"{last} is no folder", "the bundle comes last: mnx deploy HOST… BUNDLE")
    return folder


def _members(hosts: list[str], fleet: Path | None, runtime: str | None) -> tuple["Member", ...]:
    from mobilenet_export.deployment.choose import find_runtime  # noqa: PLC0415
    from mobilenet_export.deployment.fleet import Member, read_fleet  # noqa: PLC0415
    from mobilenet_export.devices import find_target  # noqa: PLC0415

    named = [Member(find_target(host)) for host in hosts]
    members = [*named, *(read_fleet(fleet) if fleet else ())]
    if not members:
        raise UsageError("no device named", "mnx deploy user@host BUNDLE, or --fleet FILE BUNDLE")
    for name in filter(None, (runtime, *(member.runtime for member in members))):
        find_runtime(name)
    return tuple(Member(member.target, member.runtime or runtime) for member in members)


def _threads(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--threads {text}: not numbers of 1 or more", "for example --threads 1,2")
    return found


class _Talk:
    """One line on stderr for each step of each device."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[str, int], float] = {}

    def stage(self, host: str, text: str) -> None:
        """Say what begins or was found."""
        with self._lock:
            terminal.say(f"{host}: {text}")

    def sent(self, host: str, done_bytes: int, total_bytes: int) -> None:
        """Say how far sending has come, now and then."""
        with self._lock:
            now = time.monotonic()
            transfer = (host, total_bytes)
            if now - self._last.setdefault(transfer, now) >= _BETWEEN_LINES_S:
                self._last[transfer] = now
                percent = 100 * done_bytes // max(total_bytes, 1)
                terminal.say(
                    f"{host}: send {done_bytes / 1e6:.1f} of {total_bytes / 1e6:.1f} MB, {percent} %"
                )


def _json(request: "DeployRequest", reports: tuple["DeviceReport", ...]) -> dict[str, Any]:
    devices = [report.to_json() for report in reports]
    return {"kind": "deploy", "bundle": str(request.bundle.folder), "devices": devices}


def _print(reports: tuple["DeviceReport", ...]) -> None:
    from mobilenet_export.cli.tables import print_table  # noqa: PLC0415 (imports rich)

    screen = terminal.console()
    if any(report.check or report.unchecked for report in reports):
        print_table(screen, _table(reports))
    for report in reports:
        if report.latency:
            for note in report.latency.notes:
                screen.print(f"{report.host}: {note}", markup=False, style="dim")
        if report.verdict == "planned" and report.sent and report.choice:
            wheels = report.choice.installation
            plan = f"would install {', '.join(wheels.requirements[:-1])} and " if wheels else "would "
            text = f"{report.host}: {plan}send {report.sent.sent_bytes:,} bytes to {report.folder}/"
            screen.print(text, markup=False)
            for name in report.sent.files:
                screen.print(f"  {name}", markup=False)


def _table(reports: tuple["DeviceReport", ...]) -> "Table":
    """Return one row per device, file, runtime and number of threads."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)

    columns = [Column(name) for name in ("device", "file", "runtime", "check")]
    columns += [Column("threads", right=True), Column("p50 ms", right=True)]
    columns += [Column("p90 ms", right=True, spare=1), Column("speed", right=True), Column("")]
    rows = (tuple(cells) for report in reports for cells in _rows(report))
    return Table(tuple(columns), tuple(rows), names=2)


def _rows(report: "DeviceReport") -> list[list[str]]:
    if report.check is None:
        return [[report.host, "–", "–", report.verdict, "", "", "", "", ""]]
    best, rows = report.recommended(), []
    for row in report.check.rows:
        cells = [report.host, row.file, row.runtime, f"{row.verdict}: {row.detail}"]
        key = (row.file, row.runtime, row.provider)
        timed = report.latency.rows if report.latency else ()
        times = [one for one in timed if (one.file, one.runtime, one.provider) == key]
        for one in times:
            figures = [str(one.threads), f"{one.p50_ms:.2f}", f"{one.p90_ms:.2f}", f"{one.ratio:.2f}×"]
            rows.append([*cells, *figures, "← fastest" if one is best else ""])
        if not times:
            rows.append([*cells, "", "", "", "", ""])
    return rows


def _say_problems(report: "DeviceReport", folder: Path) -> None:
    """Say what failed on a device, what ended it, or what could not be done there."""
    if report.error is not None:
        terminal.say_error(report.error.message, report.error.hint)
    if report.unchecked is not None:
        terminal.say(
            f"{report.host}: {report.folder} is there, every sha256 as here; nothing ran: {report.unchecked}",
            always=True,
        )
        terminal.say(
            f"next: mnx phone {folder}, in its browser; mnx snippet {folder} --for android, for an app"
        )
    for failure in report.check.failures if report.check else ():
        terminal.say(f"failed: {report.host}: {failure}")
