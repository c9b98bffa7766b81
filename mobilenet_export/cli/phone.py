"""`mnx phone`."""

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import terminal
from mobilenet_export.errors import ExitCode

if TYPE_CHECKING:
    from mobilenet_export.agent.check import CheckRow
    from mobilenet_export.cli.tables import Table
    from mobilenet_export.pipeline.deploy import DeviceReport
    from mobilenet_export.pipeline.phone import Service

_QUIET_ZONE = 2
"""Modules around the code; the standard asks for 4, every reader does with 2."""
_DARK_ON_LIGHT, _PLAIN = "\x1b[30;107m", "\x1b[0m"


def phone_command(
    folder: Annotated[Path, typer.Argument(help="The bundle.", metavar="BUNDLE")],
    host: Annotated[
        str | None,
        typer.Option(help="This computer, as phones reach it; default its address.", metavar="ADDRESS"),
    ] = None,
    port: Annotated[int, typer.Option(help="0 takes a free one.", metavar="N", min=0, max=65535)] = 8765,
    tls: Annotated[
        bool, typer.Option("--tls", help="https with a certificate of its own: camera, threads, WebGPU.")
    ] = False,
    once: Annotated[bool, typer.Option("--once", help="End after the first report.")] = False,
    runs: Annotated[int, typer.Option(help="Inferences of each file.", metavar="N", min=1, max=1000)] = 50,
    threads: Annotated[
        int,
        typer.Option(help="Of the browser's runtimes; more than 1 needs --tls.", metavar="N", min=1, max=64),
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Serve a page that runs the bundle in the browser of a phone.

    Prints an address and its QR code. Whoever opens it runs the bundle's files, checks them against what they
    answered on this computer, measures them, and classifies photos; nothing is installed, and photos stay on the
    phone. Reports come back to BUNDLE/devices/. Ctrl-C ends it; exit code 1 where a check failed.

    \b
    Examples:
      mnx phone mobilenet_v2_100_224
      mnx phone mobilenet_v2_100_224 --tls --threads 4
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.bundle import read_bundle  # noqa: PLC0415
    from mobilenet_export.pipeline.phone import PhoneRequest, serve  # noqa: PLC0415 (numpy, slow)

    request = PhoneRequest(read_bundle(folder), host, port, tls, runs, threads)
    reports: list[DeviceReport] = []
    try:
        with serve(request, _Talk(), terminal.progress) as service:
            _introduce(service)
            for report in service.reports():
                reports.append(report)
                _tell(report, folder, as_table=not as_json)
                if once:
                    break
    except KeyboardInterrupt:
        if not reports:
            raise
    if as_json:
        devices = [report.to_json() for report in reports]
        terminal.print_json({"kind": "phone", "bundle": str(folder), "devices": devices})
    else:
        terminal.say_next("mnx snippet %s --for android", folder)
    if any(report.verdict == "fail" for report in reports):
        raise typer.Exit(ExitCode.CHECK_FAILED)


class _Talk:
    """One line on stderr for each file that a browser ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def checked(self, row: "CheckRow") -> None:
        """Say how a file fared."""
        with self._lock:
            terminal.say(f"{row.file} in {row.runtime}:{row.provider}: {row.verdict}: {row.detail}")


def _introduce(service: "Service") -> None:
    """Print the address, its code, and what the phone will say to it."""
    if sys.stderr.isatty():
        terminal.say(_code(service.url), always=True)
    terminal.say(f"open on a phone in the same network: {service.url}", always=True)
    if service.is_local:
        terminal.say(
            "no network: only this computer can open it; --host ADDRESS names another address", always=True
        )
    if service.fingerprint:
        terminal.say("the browser will warn, as the certificate is this run's own: Advanced, then Proceed")
        terminal.say(f"its SHA-256: {service.fingerprint}")
    terminal.say("Ctrl-C ends it")


def _code(text: str) -> str:
    """Draw a QR code, two modules to a character; dark on light whatever the terminal's colours."""
    import segno  # noqa: PLC0415 (the extra `phone`)

    rows = [list(row) for row in segno.make(text, error="l", micro=False).matrix_iter(border=_QUIET_ZONE)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    shapes = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    pairs = zip(rows[::2], rows[1::2], strict=True)
    lines = ("".join(shapes[bool(up), bool(down)] for up, down in zip(*pair, strict=True)) for pair in pairs)
    return "\n".join(f"{_DARK_ON_LIGHT}{line}{_PLAIN}" for line in lines)


def _tell(report: "DeviceReport", folder: Path, *, as_table: bool) -> None:
    if as_table:
        from mobilenet_export.cli.tables import print_table  # noqa: PLC0415 (imports rich)

        screen = terminal.console()
        print_table(screen, _table(report))
        for note in report.latency.notes if report.latency else ():
            screen.print(note, markup=False, style="dim")
    for failure in report.check.failures if report.check else ():
        terminal.say(f"failed: {report.host}: {failure}")
    terminal.say(f"report of {report.host}: {folder}/devices/")


def _table(report: "DeviceReport") -> "Table":
    """Return one row per file and runtime of the browser; this computer's p50 beside its own."""
    from mobilenet_export.cli.tables import Column, Table  # noqa: PLC0415 (imports rich)

    here_ms = report.latency.document["pc_p50_ms"] if report.latency else {}
    times = {
        (one.file, one.runtime, one.provider): one for one in (report.latency.rows if report.latency else ())
    }
    best = report.recommended()
    rows = report.check.rows if report.check else ()
    found = []
    for row in rows:
        one = times.get((row.file, row.runtime, row.provider))
        figures = [f"{one.p50_ms:.1f}", f"{one.p90_ms:.1f}"] if one else ["", ""]
        here = f"{here_ms[row.file]:.1f}" if row.file in here_ms else "–"
        last = "← fastest" if one is not None and one is best else ""
        where = f"{row.runtime}:{row.provider}"
        found.append((row.file, where, f"{row.verdict}: {row.detail}", *figures, here, last))
    columns = [Column("file"), Column("in the browser"), Column("check"), Column("p50 ms", right=True)]
    columns += [Column("p90 ms", right=True, spare=1), Column("PC p50 ms", right=True), Column("")]
    return Table(tuple(columns), tuple(found))
