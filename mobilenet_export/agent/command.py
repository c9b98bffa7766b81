"""The command line on a device: `python3 run.py check|bench|classify`, or `mnx-device`. stdout is data."""

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_export.agent.bench import (
    LatencyRequest,
    bench,
    check_numbers,
    parse_threads,
    photo_of,
    select,
)
from mobilenet_export.agent.check import CheckReport, best_five, check, check_outputs, read_recorded
from mobilenet_export.agent.request import Engine, find_engines, pairs
from mobilenet_export.bundle import Bundle, read_bundle
from mobilenet_export.checks.latency import Plan
from mobilenet_export.errors import DamagedInputError, ExitCode, explain_error
from mobilenet_export.images import open_image, preprocess
from mobilenet_export.latency import LatencyReport, ranks
from mobilenet_export.runtimes import Setup
from mobilenet_export.spec import ModelSpec


def main(folder: str | None = None) -> int:
    """Run a command on the bundle in `folder`, or where --bundle says, and return the exit code."""
    options = _parser(folder).parse_args()
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return _fail("interrupted", "the same command starts again", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # whatever it is, it ends in one message and a documented code
        if os.environ.get("MNX_TRACEBACK"):
            traceback.print_exc()
        return _fail(*explain_error(error))


def _fail(message: str, hint: str, code: ExitCode) -> ExitCode:
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
    return code


def _parser(folder: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="run.py" if folder else "mnx-device", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="check|bench|classify")
    for name, command, words in (
        ("check", _check, "compare what the files answer here with what they answered where they were made"),
        ("bench", _bench, "measure latency"),
        ("classify", _classify, "name what photos show"),
    ):
        one = commands.add_parser(name, help=words, description=words)
        one.set_defaults(command=command)
        one.add_argument("--bundle", default=folder or ".", metavar="DIR", help="folder of the bundle")
        one.add_argument(
            "--runtime", action="append", default=[], metavar="NAME[:PROVIDER]", help="may be repeated"
        )
        one.add_argument(
            "--file", action="append", default=[], metavar="FILE", help="of the bundle; may be repeated"
        )
        one.add_argument("--json", action="store_true", help="print one JSON document")
        _OPTIONS[name](one)
    return parser


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--outputs", metavar="NPY|JSON", help="what your own app computed for self_check/, sorted by name"
    )


def _bench_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", default="1", metavar="N,…", help="numbers of threads to try")
    parser.add_argument("--runs", type=int, default=100, metavar="N", help="inferences of each file")
    parser.add_argument("--minutes", type=float, metavar="M", help="instead of --runs")
    parser.add_argument("--batch", type=int, default=1, metavar="B", help="images per inference")


def _classify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="+", metavar="IMAGE")


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "check": _check_options,
    "bench": _bench_options,
    "classify": _classify_options,
}


def _open(options: argparse.Namespace) -> tuple[Bundle, ModelSpec, tuple[Engine, ...]]:
    bundle = read_bundle(Path(options.bundle))
    return bundle, bundle.spec(), find_engines(options.runtime)


def _check(options: argparse.Namespace) -> int:
    bundle, _, engines = _open(options)
    if options.outputs:
        return _check_app(options, bundle, engines)
    report = check(bundle, options.file, engines)
    _print(options, report.to_json(), lambda: _check_lines(report))
    return ExitCode.DONE if report.verdict == "pass" else ExitCode.CHECK_FAILED


def _check_app(options: argparse.Namespace, bundle: Bundle, engines: tuple[Engine, ...]) -> int:
    artifacts = select(bundle.artifacts(), options.file)
    engine = next(pairs(artifacts, engines))[1]
    readable = [artifact for artifact in artifacts if artifact.format in engine.runtime.formats]
    row = check_outputs(Path(options.outputs), read_recorded(bundle), readable, engine)
    document = {
        "kind": "check",
        "verdict": row.verdict,
        "file": row.file,
        "detail": row.detail,
        "top5": row.top5,
    }
    _print(options, document, lambda: [f"{row.verdict}: {row.detail} ({row.file})"])
    return ExitCode.DONE if row.verdict == "pass" else ExitCode.CHECK_FAILED


def _check_lines(report: CheckReport) -> list[str]:
    best = [row.top5[0] if row.top5 else None for row in report.rows]
    cells = [
        (
            row.file,
            row.runtime,
            row.provider,
            row.verdict,
            row.detail,
            f"{one[1]} {one[2]:.4g}" if one else "",
        )
        for row, one in zip(report.rows, best, strict=True)
    ]
    failures = [f"failed: {failure}" for failure in report.failures]
    heading = ("file", "runtime", "provider", "verdict", "against the record", "first image shows")
    return [*table(heading, cells), *failures, f"verdict: {report.verdict}, {report.images} images"]


def _bench(options: argparse.Namespace) -> int:
    threads = parse_threads(options.threads)
    plan = Plan(options.runs, options.minutes)
    check_numbers(options.batch, plan)
    bundle, _, engines = _open(options)
    artifacts = select(bundle.artifacts(), options.file)
    photos = dict.fromkeys((artifact.file for artifact in artifacts), photo_of(bundle))
    report = bench(LatencyRequest(artifacts, photos, engines, threads, options.batch, plan))
    _print(options, report.to_json(), lambda: _bench_lines(report))
    return ExitCode.DONE


def _bench_lines(report: LatencyReport) -> list[str]:
    cells = []
    for row, rank in zip(report.rows, ranks(report.rows), strict=True):
        ratio = row.speed_over(report.rows[0])
        percentiles = [f"{row.percentile_ms(percent):.2f}" for percent in (50, 90, 99)]
        interval = f"({ratio.low:.2f} to {ratio.high:.2f})" if ratio.has_interval else "(too few runs)"
        speed = f"{ratio.times:.2f} {interval}"
        memory = f"{row.cold.peak_rss_bytes / 2**20:.0f}" if row.cold else ""
        cells.append(
            (row.file, f"{row.runtime}:{row.provider}", str(row.threads), *percentiles, speed, rank, memory)
        )
    heading = ("file", "runtime", "threads", "p50 ms", "p90", "p99", "times as fast as row 1", "rank", "MiB")
    return [*table(heading, cells), *(f"note: {note}" for note in report.notes)]


def _classify(options: argparse.Namespace) -> int:
    bundle, spec, engines = _open(options)
    artifact, engine = next(pairs(select(bundle.artifacts(), options.file), engines))
    session, labels = engine.runtime.open(artifact, Setup(engine.provider)), bundle.labels()
    found, code = {}, ExitCode.DONE
    for name in options.images:
        try:
            values = preprocess(open_image(Path(name), name), spec.preprocess)
        except DamagedInputError as error:  # one bad photo hides no other
            code = _fail(*explain_error(error))
        else:
            found[name] = best_five(session.run(values[np.newaxis])[0], labels)
    document = {"kind": "classify", "file": artifact.file, "images": found}
    if found:
        _print(options, document, lambda: [_answer(name, top5) for name, top5 in found.items()])
    return code


def _answer(name: str, top5: Sequence[tuple[int, str, float]]) -> str:
    return f"{name}: " + ", ".join(f"{label} {score:.4g}" for _, label, score in top5)


def _print(options: argparse.Namespace, document: dict[str, Any], lines: Callable[[], list[str]]) -> None:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False) if options.json else "\n".join(lines())
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with their columns below each other."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heading, *rows)
    )
    return [line.rstrip() for line in lines]


if __name__ == "__main__":
    sys.exit(main())
