"""A bundle's own check and benchmark, run on a device, and what they answer."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mobilenet_export.bundle import RUN
from mobilenet_export.deployment.commands import Result, printable, run
from mobilenet_export.devices import Connection
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError, ExitCode, MissingError, MnxError, UsageError

MOST_BYTES = 64 << 20
_CHECK_S = 1800.0
_BENCH_S = 6 * 3600.0
_ILLEGAL_INSTRUCTION = 132
_ERRORS: Mapping[int, type[MnxError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.MISSING: MissingError,
    ExitCode.DAMAGED: DamagedInputError,
}


@dataclass(frozen=True, slots=True)
class CheckRow:
    """One file in one runtime, against what was recorded when it was exported."""

    file: str
    runtime: str
    provider: str
    verdict: Literal["pass", "fail"]
    detail: str


@dataclass(frozen=True, slots=True)
class Check:
    """What the self-check found; `document` is all of it."""

    verdict: Literal["pass", "fail"]
    rows: tuple[CheckRow, ...]
    failures: tuple[str, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One file in one runtime: milliseconds, and how many times as fast as the first row."""

    file: str
    runtime: str
    provider: str
    threads: int
    p50_ms: float
    p90_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Latency:
    """What the benchmark measured; `document` is all of it, with every sample."""

    rows: tuple[LatencyRow, ...]
    notes: tuple[str, ...]
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Installed:
    """A bundle on a device: its folder, the Python that runs it, and in which runtime; None: in all."""

    folder: str
    python: str
    runtime: str | None = None


def check(connection: Connection, installed: Installed) -> Check:
    """Compare what the files answer on a device with what was recorded.

    Raises:
        MnxError: It could not be done; the error is the device's.
        DamagedInputError: The answer is none.
    """
    result = _run(connection, installed, ["check", "--json"], _CHECK_S)
    return read_check(connection.name, _document(connection.name, result, "check"))


def read_check(host: str, document: Mapping[str, Any]) -> Check:
    """Read a device's report of its self-check.

    Raises:
        DamagedInputError: It is none.
    """
    try:
        rows = tuple(_check_row(row) for row in _list(document, "rows"))
        failures = tuple(_text(text) for text in _list(document, "failures"))
        return Check(_verdict(document["verdict"]), rows, failures, document)
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong_shape(host, "check", error) from None


def bench(connection: Connection, installed: Installed, runs: int, threads: tuple[int, ...]) -> Latency:
    """Measure the files on a device.

    Raises:
        MnxError: It could not be done; the error is the device's.
        DamagedInputError: The answer is none.
    """
    options = ["bench", "--json", "--runs", str(runs), "--threads", ",".join(map(str, threads))]
    result = _run(connection, installed, options, _BENCH_S)
    return read_latency(connection.name, _document(connection.name, result, "latency"))


def read_latency(host: str, document: Mapping[str, Any]) -> Latency:
    """Read a device's report of its benchmark.

    Raises:
        DamagedInputError: It is none.
    """
    try:
        rows = tuple(_latency_row(row) for row in _list(document, "rows"))
        return Latency(rows, tuple(_text(text) for text in _list(document, "notes")), document)
    except (KeyError, TypeError, ValueError) as error:
        raise _wrong_shape(host, "benchmark", error) from None


def _run(connection: Connection, installed: Installed, options: list[str], limit_s: float) -> Result:
    wish = ["--runtime", installed.runtime] if installed.runtime else []
    command = " ".join(map(shlex.quote, [installed.python, RUN, *options, *wish]))
    script = f"export PYTHONUTF8=1\ncd -- {shlex.quote(installed.folder)} && exec {command}"
    result = run(connection, script, limit_s=limit_s, most_bytes=MOST_BYTES)
    if result.code not in (ExitCode.DONE, ExitCode.CHECK_FAILED):
        raise _failure(connection.name, result, options[0])
    return result


def _failure(host: str, result: Result, command: str) -> MnxError:
    """Return the error that ended a command on a device: in its own words, where it has some."""
    lines = [printable(line) for line in result.talk.splitlines()]
    said = {
        name: line.removeprefix(name)
        for name in ("error: ", "hint: ")
        for line in lines
        if line.startswith(name)
    }
    if result.code in _ERRORS and said.keys() == {"error: ", "hint: "}:
        return _ERRORS[result.code](f"{host}: {said['error: ']}", said["hint: "])
    if result.code == _ILLEGAL_INSTRUCTION:
        return MissingError(
            f"{host}: {command}: the runtime uses instructions that this CPU lacks",
            "another version or runtime may not: --runtime, --install",
        )
    if result.code > 128:
        return MissingError(
            f"{host}: {command} was ended by signal {result.code - 128}", "out of memory? `dmesg` there says"
        )
    return DamagedInputError(
        f"{host}: {command} failed: {result.last_words()}", f"run it there by hand: python3 {RUN} {command}"
    )


def _document(host: str, result: Result, kind: str) -> dict[str, Any]:
    """Read the one JSON document that a device printed."""
    try:
        document = _clean(parse_json(result.out))
        if not isinstance(document, dict) or document.get("kind") != kind:
            raise TypeError("it is of another kind")
    except (ValueError, TypeError, RecursionError) as error:
        raise _wrong_shape(host, kind, error) from None
    return document


def _wrong_shape(host: str, what: str, error: Exception) -> DamagedInputError:
    reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    return DamagedInputError(
        f"{host}: its {what} report cannot be read: {printable(reason)[:200]}",
        "deploy again; is it your device?",
    )


def _clean(value: Any) -> Any:
    """Return a document without characters that a terminal obeys or UTF-8 cannot hold."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        return {printable(key): _clean(one) for key, one in value.items()}
    return value


def _check_row(row: Any) -> CheckRow:
    names = ("file", "runtime", "provider")
    texts = {name: _text(row[name]) for name in names}
    return CheckRow(**texts, verdict=_verdict(row["verdict"]), detail=_text(row["detail"]))


def _latency_row(row: Any) -> LatencyRow:
    return LatencyRow(
        file=_text(row["file"]),
        runtime=_text(row["runtime"]),
        provider=_text(row["provider"]),
        threads=int(_number(row["threads"])),
        p50_ms=_number(row["p50_ms"]),
        p90_ms=_number(row["p90_ms"]),
        ratio=_number(row["ratio"]),
    )


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(document[name], list):
        raise TypeError(f"{name} is no list")
    return list(document[name])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is no text")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise TypeError(f"{value!r:.80} is no number")
    return value


def _verdict(value: Any) -> Literal["pass", "fail"]:
    if value not in ("pass", "fail"):
        raise TypeError(f"{value!r:.80} is no verdict")
    return "pass" if value == "pass" else "fail"
