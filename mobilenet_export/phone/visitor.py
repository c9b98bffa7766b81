"""What a browser sends, read with care: who it is, what the files answered, and how long they took."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobilenet_export.agent.check import CheckRow, Recorded, best_five, compare
from mobilenet_export.artifact import Artifact
from mobilenet_export.deployment.commands import printable
from mobilenet_export.documents import parse_json
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import FloatArray
from mobilenet_export.latency import LatencyRow
from mobilenet_export.machine import Machine

ARCHITECTURE = "wasm"
_MOST_TEXT = 300
_MOST_SAMPLES = 10_000
_BROWSERS = (
    (r"SamsungBrowser/(\d+)", "Samsung Internet"),
    (r"Edg(?:A|iOS)?/(\d+)", "Edge"),
    (r"OPR/(\d+)", "Opera"),
    (r"(?:Firefox|FxiOS)/(\d+)", "Firefox"),
    (r"CriOS/(\d+)", "Chrome"),
    (r"Chrom(?:e|ium)/(\d+)", "Chrome"),
    (r"Version/(\d+)[\d.]* .*Safari", "Safari"),
)
"""In the order in which they have to be tried: most of them also claim to be Chrome or Safari."""
_SYSTEMS = (
    (r"Android (\d+)", "Android"),
    (r"(?:iPhone|iPad|CPU).* OS (\d+)", "iOS"),
    (r"Windows NT", "Windows"),
    (r"Mac OS X", "macOS"),
    (r"CrOS", "ChromeOS"),
    (r"Linux", "Linux"),
)


@dataclass(frozen=True, slots=True)
class Key:
    """One file in one runtime of the browser."""

    file: str
    runtime: str
    provider: str


@dataclass(frozen=True, slots=True)
class Visit:
    """All that a browser reported.

    Attributes:
        machine: That it runs on, as far as it tells.
        page: Identity that the page drew when it was opened, so that a second phone is told from a second run.
        threads: That the runtimes were given.
        checks: Of every file in every runtime.
        rounds_ms: Of the files that were measured: milliseconds by round.
        notes: In the page's own words.
    """

    machine: Machine
    page: str
    threads: int
    checks: tuple[CheckRow, ...]
    rounds_ms: Mapping[Key, tuple[tuple[float, ...], ...]]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the device, such as `pixel-8-chrome-156-android-14`."""
        text = f"{self.machine.board} {self.machine.system}"
        return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:80] or "browser"

    def latency_rows(self, artifacts: Mapping[str, Artifact]) -> tuple[LatencyRow, ...]:
        """What was measured, as `mnx bench` has it."""
        return tuple(
            LatencyRow(
                file=key.file,
                precision=artifacts[key.file].precision,
                runtime=key.runtime,
                provider=key.provider,
                threads=self.threads,
                batch=1,
                rounds_ms=rounds,
            )
            for key, rounds in self.rounds_ms.items()
        )


def parse(body: bytes) -> dict[str, Any]:
    """Read a JSON object, without what a terminal obeys.

    Raises:
        DamagedInputError: It is none.
    """
    try:
        document = parse_json(body)
    except ValueError:
        raise _unreadable("it is not JSON") from None
    if not isinstance(document, dict):
        raise _unreadable("it is no object")
    return document


def judge(document: Mapping[str, Any], artifacts: Mapping[str, Artifact], recorded: Recorded) -> CheckRow:
    """Compare what a file answered in the browser with what was recorded on the PC.

    Raises:
        DamagedInputError: It is no answer of a file of this bundle.
    """
    key = _key(document, artifacts)
    artifact, target = artifacts[key.file], recorded.outputs[key.file]
    outputs = _outputs(document.get("outputs"), target.shape)
    detail, passed = compare(artifact, outputs, target, recorded)
    return CheckRow(
        key.file,
        artifact.precision,
        key.runtime,
        key.provider,
        "pass" if passed else "fail",
        detail,
        best_five(outputs[0], recorded.labels),
    )


def read_visit(document: Mapping[str, Any], artifacts: Mapping[str, Artifact], recorded: Recorded) -> Visit:
    """Read a report: the outputs of every file that ran, the reasons of those that did not, and the times.

    Raises:
        DamagedInputError: It is no report of this page.
    """
    rows = _list(document, "rows", 8 * len(artifacts))
    checks, rounds = [], {}
    for row in rows:
        key = _key(row, artifacts)
        if row.get("refusal"):
            precision = artifacts[key.file].precision
            checks.append(
                CheckRow(key.file, precision, key.runtime, key.provider, "fail", _text(row, "refusal"))
            )
            continue
        checks.append(judge(row, artifacts, recorded))
        if row.get("rounds_ms"):
            rounds[key] = _rounds(row)
    if len({len(samples) for samples in rounds.values()}) > 1:
        raise _unreadable("files had different numbers of rounds")
    notes = tuple(_printable(note) for note in _list(document, "notes", 50))
    threads = _whole(document.get("threads"), 1, 256)
    return Visit(_machine(document), _text(document, "page"), threads, tuple(checks), rounds, notes)


def _machine(document: Mapping[str, Any]) -> Machine:
    agent = _text(document, "userAgent")
    browser = _first(_BROWSERS, agent) or "unknown browser"
    system = _text(document, "platform") or _first(_SYSTEMS, agent) or "unknown system"
    gigabytes = document.get("memory_gb")
    memory = int(gigabytes * 2**30) if gigabytes is not None and _is_number(gigabytes) else 0
    return Machine(
        system=f"{browser}, {system}",
        architecture=ARCHITECTURE,
        board=_text(document, "model"),
        cpu="",
        cores=_whole(document.get("cores"), 1, 4096),
        features=tuple(_printable(one) for one in _list(document, "features", 20)),
        memory_bytes=memory,
        python="",
    )


def _first(patterns: Sequence[tuple[str, str]], agent: str) -> str:
    for pattern, name in patterns:
        if found := re.search(pattern, agent):
            return " ".join([name, *found.groups()])
    return ""


def _key(row: Any, artifacts: Mapping[str, Artifact]) -> Key:
    if not isinstance(row, dict):
        raise _unreadable("a row is no object")
    key = Key(*(_text(row, name) for name in ("file", "runtime", "provider")))
    if key.file not in artifacts:
        raise _unreadable(f"{key.file} is no file of this bundle")
    return key


def _outputs(values: Any, shape: tuple[int, ...]) -> FloatArray:
    """Read the outputs of all images; JSON has no NaN, so null stands for it."""
    try:
        outputs = np.asarray(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise _unreadable("the outputs are no numbers") from None
    if outputs.shape != shape:
        raise _unreadable(f"outputs {outputs.shape} where {shape} were recorded")
    return outputs


def _rounds(row: Mapping[str, Any]) -> tuple[tuple[float, ...], ...]:
    rounds = _list(row, "rounds_ms", _MOST_SAMPLES)
    for samples in rounds:
        if (
            not isinstance(samples, list)
            or not 0 < len(samples) <= _MOST_SAMPLES
            or not all(map(_is_time, samples))
        ):
            raise _unreadable("the times are no milliseconds")
    return tuple(tuple(map(float, samples)) for samples in rounds)


def _is_time(value: Any) -> bool:
    return _is_number(value) and value > 0


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -1e9 < value < 1e9  # false of NaN, too
    )


def _whole(value: Any, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _unreadable(f"{value!r:.40} is no number of {low} to {high}")
    return value


def _list(table: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = table.get(name)
    if not isinstance(found, list) or len(found) > most:
        raise _unreadable(f"{name} is no list of at most {most}")
    return found


def _text(table: Mapping[str, Any], name: str) -> str:
    return _printable(table.get(name))


def _printable(text: Any) -> str:
    if not isinstance(text, str):
        raise _unreadable(f"{text!r:.40} is no text")
    return printable(text)[:_MOST_TEXT]


def _unreadable(reason: str) -> DamagedInputError:
    return DamagedInputError(f"what the browser sent cannot be read: {reason}", "open the page again")
