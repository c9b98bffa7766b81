"""Our int8 files beside those of the quantizers that people use, in one table: `make compare DATA=DIR LABELS=CSV`.

All start from the same fp32 files and the same calibration images, and all are measured in one run: ONNX files in
ONNX Runtime, TFLite files in LiteRT, the original in torch's eager mode. The fp32 ONNX file is the reference of
quality. Latency is of one image in one thread, round by round (`mobilenet_export.latency`); speed is how many times
as fast as the fp32 file in the same runtime, with its 95 % interval, and of fp32 as fast as in ONNX Runtime.

Quality of ONNX files is measured twice: as this CPU computes, and with `session.x64quantprecision`, which is exact
on every CPU. On x86 without VNNI the two differ where sums of products saturate.

It runs in `.venv`; each peer quantizes in a process of its own, in `.venv-compare` (peers.py). One that fails is
a row that says why.
"""

import argparse
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
import torch
from peers import PEERS

from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.drift import Subject, measure_drift
from mobilenet_export.checks.latency import Contestant, Plan, race
from mobilenet_export.errors import DamagedInputError, MissingError, MnxError
from mobilenet_export.images import ImageSet
from mobilenet_export.latency import LatencyRow
from mobilenet_export.machine import this_machine
from mobilenet_export.pipeline.evidence import evidence_of, printable, values_of
from mobilenet_export.pipeline.export import ExportRequest, choose_images, export
from mobilenet_export.pipeline.reference import Origin, class_names, open_reference
from mobilenet_export.pipeline.validate import Target, ValidateRequest, find_images
from mobilenet_export.recipe import find_recipe, recipe_names
from mobilenet_export.report import DriftReport, DriftRow
from mobilenet_export.runtimes import USUAL, Session, Setup, runtime
from mobilenet_export.runtimes.onnxruntime import EXACT_ON_X64
from mobilenet_export.runtimes.torch import use_threads
from mobilenet_export.spec import ModelSpec, find_spec

PEERS_SCRIPT = Path(__file__).parent / "peers.py"
PATIENCE_S = 900
"""A peer that takes longer has failed."""
ENGINES = {"onnx": "onnxruntime", "tflite": "litert"}
SETUPS = {"none": (USUAL,), "onnx": (USUAL, EXACT_ON_X64), "tflite": (USUAL,)}
"""In which quality is measured."""
CORRECT_PERCENT = 90.0
"""A file is correct if it agrees with fp32 on so many images."""


# What is compared


@dataclass(frozen=True, slots=True)
class Candidate:
    """One file to measure, or the network in torch.

    Attributes:
        name: In the table.
        role: fp32, an int8 file that `mnx` made, or one that a peer made.
        format: `onnx`, `tflite`, or `none` of torch.
        data: The file's bytes.
        seconds: It took to quantize.
        failure: Why it cannot be measured, on one line.
    """

    name: str
    role: Literal["fp32", "ours", "peer"]
    format: str
    data: bytes = b""
    seconds: float = 0.0
    failure: str = ""

    def open(self, spec: ModelSpec, setup: Setup = USUAL) -> Session:
        """Load it in the runtime of its format."""
        if self.format == "none":
            return open_reference(Origin(spec)).session
        return runtime(ENGINES[self.format]).open(self.artifact, setup)

    @property
    def artifact(self) -> Artifact:
        """The file, as the package knows files."""
        return Artifact(self.name, self.format, "fp32" if self.role == "fp32" else "int8", self.data)


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be compared, and where.

    Attributes:
        spec: The network.
        recipes: Of ours; the first one's calibration images are the peers' too.
        calibration: Images to calibrate with; else the shipped ones.
        data: Photos to measure with; else the shipped images for checking.
        labels: CSV of their classes.
        limit: Use this many of them at most.
        peers_python: Interpreter that has the peers.
        folder: For the files that are made.
        runs: Inferences of each file that are timed.
    """

    spec: ModelSpec
    recipes: tuple[str, ...]
    calibration: Path | None
    data: Path | None
    labels: Path | None
    limit: int | None
    peers_python: Path
    folder: Path
    runs: int


def make_ours(work: Work) -> list[Candidate]:
    """Export with every recipe; return torch, the fp32 files and the int8 ones."""
    fp32, int8 = [Candidate("torch eager", "fp32", "none")], []
    for name in work.recipes:
        talk(f"{work.spec.name}: mnx {name}")
        request = ExportRequest(
            work.spec,
            work.folder / name,
            ("fp32", "int8"),
            tuple(ENGINES),
            find_recipe(name),
            calibration=work.calibration,
            io=("float32",),
            force=True,
        )
        made = export(request)
        for file in made.artifacts:
            if file.precision == "int8":
                int8.append(
                    Candidate(f"mnx {name}", "ours", file.format, file.data, made.seconds["quantize"])
                )
            elif name == work.recipes[0]:
                fp32.append(Candidate("fp32", "fp32", file.format, file.data))
    return [*fp32, *int8]


def make_peers(work: Work, fp32: Mapping[str, bytes]) -> list[Candidate]:
    """Quantize with every peer the file of its format, calibrated with the images of our first recipe."""
    images = work.folder / "calibration.npy"
    np.save(images, values_of(calibration_images(work, work.recipes[0]), work.spec))
    candidates = []
    for name, peer in PEERS.items():
        talk(f"{work.spec.name}: {name}")
        source, out = (
            work.folder / f"{stem}.{peer.format}" for stem in ("fp32", re.sub("[ ,-]+", "_", name))
        )
        source.write_bytes(fp32[peer.format])
        out.unlink(missing_ok=True)
        command: list[str | Path] = [work.peers_python, PEERS_SCRIPT, name, source, images, out]
        candidates.append(run_peer(Candidate(name, "peer", peer.format), command, out))
    return candidates


def run_peer(peer: Candidate, command: Sequence[str | Path], out: Path) -> Candidate:
    """Run a peer's process; whatever goes wrong in it becomes the candidate's failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return dataclasses.replace(peer, failure=f"gave up after {PATIENCE_S} s")
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return dataclasses.replace(
            peer, failure=said[-1] if said else f"it ended with code {done.returncode}"
        )
    if not out.is_file():
        return dataclasses.replace(peer, failure="it wrote no file")
    seconds = json.loads(done.stdout.splitlines()[-1])["seconds"]
    return dataclasses.replace(peer, data=out.read_bytes(), seconds=seconds)


# What is measured


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate, measured.

    Attributes:
        candidate: It.
        drift: From the fp32 ONNX file.
        exact: The same on a CPU that does not saturate; None where the runtime cannot compute so.
        convolutions: In ONNX Runtime's optimized graph, on integers and all.
        latency: In one thread.
        base: Latency that speed is relative to.
    """

    candidate: Candidate
    drift: DriftRow
    exact: DriftRow | None
    convolutions: tuple[int, int]
    latency: LatencyRow
    base: LatencyRow


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network's table.

    Attributes:
        spec: The network.
        drift: What the files were measured with.
        calibration: What they were calibrated with, in words.
        rows: Of those that could be measured.
        failed: The rest.
    """

    spec: ModelSpec
    drift: DriftReport
    calibration: str
    rows: list[Row]
    failed: tuple[Candidate, ...]


def compare(work: Work) -> Comparison:
    """Make all files and measure them."""
    work.folder.mkdir(parents=True, exist_ok=True)
    ours = make_ours(work)
    peers = make_peers(work, {one.format: one.data for one in ours if one.role == "fp32"})
    checked = [check_loads(candidate, work.spec) for candidate in (*ours, *peers)]
    runnable = [candidate for candidate in checked if not candidate.failure]
    talk(f"{work.spec.name}: quality")
    quality = measure_quality(work, runnable)
    talk(f"{work.spec.name}: latency")
    latency = measure_latency(runnable, work.spec, work.runs)
    fp32 = {c.format: one for c, one in zip(runnable, latency, strict=True) if c.role == "fp32"}
    drifts, rows = iter(quality.rows), []
    for candidate, one in zip(runnable, latency, strict=True):
        drift, *exact = islice(drifts, len(SETUPS[candidate.format]))
        base = fp32["onnx" if candidate.role == "fp32" else candidate.format]
        counted = count_convolutions(candidate, work.spec)
        rows.append(Row(candidate, drift, exact[0] if exact else None, counted, one, base))
    failed = tuple(candidate for candidate in checked if candidate.failure)
    return Comparison(work.spec, quality, calibration_words(work), rows, failed)


def check_loads(candidate: Candidate, spec: ModelSpec) -> Candidate:
    """Return a file that its runtime refuses to load or run as a failure."""
    if candidate.failure:
        return candidate
    try:
        candidate.open(spec).run(np.zeros((1, *spec.input_shape), np.float32))
    except DamagedInputError as error:
        return dataclasses.replace(candidate, failure=error.message)
    except Exception as error:  # the engines' exception types are private and many
        said = str(error).strip() or type(error).__name__
        return dataclasses.replace(candidate, failure=said.splitlines()[0])
    return candidate


def measure_quality(work: Work, candidates: Sequence[Candidate]) -> DriftReport:
    """Compare each with the fp32 ONNX file; its rows are one for each of the setups of a candidate's format."""
    spec = work.spec
    subjects = [Subject(c.artifact, c.open(spec, setup)) for c in candidates for setup in SETUPS[c.format]]
    reference = next(c for c in candidates if c.role == "fp32" and c.format == "onnx").open(spec)
    evidence = evidence_of(*images_to_measure(work), lambda _steps: None)
    return measure_drift(reference, subjects, evidence, probabilities=spec.softmax)


def images_to_measure(work: Work) -> tuple[ImageSet, ModelSpec, Mapping[str, int]]:
    """Return the images and their labels, without those that were calibrated with where both are of one folder."""
    used: set[str] = set()
    if work.data and work.calibration and work.data.resolve() == work.calibration.resolve():
        used.update(*(calibration_images(work, recipe).names for recipe in work.recipes))
    most = work.limit and work.limit + len(used)
    request = ValidateRequest((), data=work.data, labels_csv=work.labels, limit=most)
    found, labels = find_images(request, Target((), work.spec, class_names(work.spec, None), None))
    names = [name for name in found.names if name not in used]
    return found.subset(names[: work.limit]), work.spec, labels


def calibration_images(work: Work, recipe: str) -> ImageSet:
    """Return the images that a recipe calibrates with."""
    return choose_images(work.calibration, find_recipe(recipe)).calibrate


def measure_latency(candidates: Sequence[Candidate], spec: ModelSpec, runs: int) -> list[LatencyRow]:
    """Have all take turns in one thread."""
    threads = torch.get_num_threads()
    use_threads(1)
    image = np.random.default_rng(0).uniform(-1, 1, (1, *spec.input_shape)).astype(np.float32)
    sessions = [candidate.open(spec, Setup(threads=1)) for candidate in candidates]
    contestants = [Contestant(session, session.prepare(image)) for session in sessions]
    race(contestants, Plan(runs))
    use_threads(threads)
    return [
        LatencyRow(
            candidate.name,
            candidate.artifact.precision,
            one.session.runtime,
            one.session.provider,
            threads=1,
            batch=1,
            rounds_ms=tuple(one.rounds_ms),
        )
        for candidate, one in zip(candidates, contestants, strict=True)
    ]


def count_convolutions(candidate: Candidate, spec: ModelSpec) -> tuple[int, int]:
    """Count the convolutions of ONNX Runtime's optimized graph: those on integers, and all; none of others."""
    if candidate.format != "onnx":
        return 0, 0
    image = np.zeros((1, *spec.input_shape), np.float32)
    placed = runtime("onnxruntime").placements(candidate.artifact, USUAL, image)
    kinds = [one.operator for one in placed if "Conv" in one.operator]
    return sum(kind in ("QLinearConv", "ConvInteger") for kind in kinds), len(kinds)


# The table


@dataclass(frozen=True, slots=True)
class Column:
    """What the table says of a row.

    Attributes:
        title: Heading.
        words: The cell.
        value: Where rows are contrasted by it, a number that is better when larger.
    """

    title: str
    words: Callable[[Row], str]
    value: Callable[[Row], float] | None = None


def speed(row: LatencyRow, other: LatencyRow) -> str:
    """How many times as fast one is as the other, with the interval."""
    ratio = row.speed_over(other)
    return f"{ratio.times:.2f}× ({ratio.low:.2f} to {ratio.high:.2f})"


def drop_words(drift: DriftRow) -> str:
    """The drop of top-1 in points, with its interval; a dash where there are no labels."""
    if drift.top1_drop_points is None or drift.top1_drop_interval_points is None:
        return "–"
    low, high = drift.top1_drop_interval_points
    return f"{drift.top1_drop_points:.1f} ({low:.1f} to {high:.1f})"


def _quality(title: str, get: Callable[[Row], DriftRow | None], figure: str, unit: str) -> Column:
    def value(row: Row) -> float:
        drift = get(row)
        return getattr(drift, figure) if drift else 0.0

    def words(row: Row) -> str:
        return f"{value(row):.1f} {unit}".replace("inf", "∞") if get(row) else "–"

    return Column(title, words, value)


COLUMNS = (
    Column("", lambda row: row.candidate.name),
    Column("runtime", lambda row: row.latency.runtime),
    Column(
        "bytes",
        lambda row: f"{len(row.candidate.data):,}" if row.candidate.data else "–",
        lambda row: -len(row.candidate.data),
    ),
    _quality("agree", lambda row: row.drift, "agreement_percent", "%"),
    _quality("SQNR", lambda row: row.drift, "sqnr_db", "dB"),
    Column("top-1 drop (95 %)", lambda row: drop_words(row.drift)),
    _quality("exact agree", lambda row: row.exact, "agreement_percent", "%"),
    _quality("exact SQNR", lambda row: row.exact, "sqnr_db", "dB"),
    Column("p50", lambda row: f"{row.latency.percentile_ms(50):.2f} ms"),
    Column("speed (95 %)", lambda row: speed(row.latency, row.base)),
    Column(
        "integer convs",
        lambda row: "{} of {}".format(*row.convolutions) if row.convolutions[1] else "–",
        lambda row: row.convolutions[0],
    ),
    Column(
        "quantize",
        lambda row: f"{row.candidate.seconds:.1f} s" if row.candidate.seconds else "–",
        lambda row: -row.candidate.seconds,
    ),
)


def table_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the cells, row by row: headings, what was measured, what failed."""
    titles = tuple(column.title for column in COLUMNS)
    blank = ("",) * (len(COLUMNS) - 2)
    failed = [(candidate.name, "failed", *blank) for candidate in comparison.failed]
    rows = [tuple(column.words(row) for column in COLUMNS) for row in comparison.rows]
    return [titles, *rows, *failed]


def plain(cells: Sequence[Sequence[str]]) -> list[str]:
    """Align the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in cells
    ]


def markdown(cells: Sequence[Sequence[str]]) -> list[str]:
    """Spell the cells as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


def report(comparison: Comparison, spell: Callable[[Sequence[Sequence[str]]], list[str]]) -> Iterator[str]:
    """Yield the lines of one network's report."""
    drift = comparison.drift
    yield f"{comparison.spec.name}, {comparison.calibration}"
    labels = f"{drift.labelled} labelled" if drift.labelled else "without labels"
    yield f"measured on {drift.images} images of {drift.data}, {labels}"
    yield ""
    yield from spell(table_of(comparison))
    yield ""
    yield from (f"{candidate.name}: {candidate.failure}" for candidate in comparison.failed)
    for form in ENGINES:
        yield from verdict([row for row in comparison.rows if row.candidate.format == form])


def verdict(rows: Sequence[Row]) -> Iterator[str]:
    """Set the first of ours in a runtime beside fp32, beside the fastest correct peer there, and beside each."""
    ours = next(row for row in rows if row.candidate.role == "ours")
    peers = [row for row in rows if row.candidate.role == "peer"]
    yield f"{ours.candidate.name} in {ours.latency.runtime}: {speed(ours.latency, ours.base)} as fast as fp32"
    correct = [row for row in peers if row.drift.agreement_percent >= CORRECT_PERCENT]
    best = min(correct, key=lambda row: row.latency.percentile_ms(50), default=None)
    for peer in peers:
        fastest = f" (the fastest that agrees on {CORRECT_PERCENT:g} % or more)" if peer is best else ""
        yield (
            f"  {speed(ours.latency, peer.latency)} as fast as {peer.candidate.name}{fastest}; "
            f"ahead in {lead(ours, peer)}; behind in {lead(peer, ours)}"
        )


def lead(row: Row, other: Row) -> str:
    """Name what a row is better in than another, with the figures of both."""
    found = [column for column in COLUMNS if column.value and column.value(row) > column.value(other)]
    return ", ".join(f"{one.title} ({one.words(row)} to {one.words(other)})" for one in found) or "nothing"


def calibration_words(work: Work) -> str:
    """How many images of what all files were calibrated with."""
    chosen = calibration_images(work, work.recipes[0])
    return f"calibrated with {len(chosen)} images of {printable(chosen.origin)}"


def machine_words(peers_python: Path) -> str:
    """The CPU's kind, and the versions of what is compared.

    Raises:
        MissingError: The peers are not installed.
    """
    names = "onnxruntime", "nncf", "ai-edge-quantizer"
    script = f"import importlib.metadata as m; print(*(m.version(n) for n in {names}))"
    hint = "`make compare` installs the peers"
    try:
        done = subprocess.run([peers_python, "-c", script], capture_output=True, text=True, check=True)
    except OSError:
        raise MissingError(f"{peers_python}: no such interpreter", hint) from None
    except subprocess.CalledProcessError:
        raise MissingError(f"{peers_python}: it does not have {', '.join(names)}", hint) from None
    ort, nncf, aeq = done.stdout.split()
    machine = this_machine()
    return (
        f"{machine.cpu} ({', '.join(machine.features)}); onnxruntime {onnxruntime.__version__}, "
        f"LiteRT {runtime('litert').version()}, torch {torch.__version__}, one thread; "
        f"peers: quantize_static of {ort}, NNCF {nncf}, ai-edge-quantizer (AEQ) {aeq}"
    )


# The command


def talk(line: str) -> None:
    """Say on stderr how far it is."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="photos to measure with; else 32 images that ship")
    parser.add_argument("--labels", type=Path, help="CSV of file,label")
    parser.add_argument("--limit", type=int, help="use this many photos at most")
    parser.add_argument("--calibration", type=Path, help="images to calibrate all with; else those that ship")
    parser.add_argument("--arch", nargs="+", default=["v1", "v2"], help="variants")
    parser.add_argument("--recipe", nargs="+", default=list(recipe_names()), help="of ours")
    parser.add_argument("--runs", type=int, default=200, help="inferences of each file that are timed")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-compare/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("build/compare"), help="folder for what is made")
    parser.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    return parser.parse_args()


def main() -> int:
    """Print a table per network; return the exit code."""
    given = arguments()
    spell = markdown if given.markdown else plain
    if given.data is None:
        talk("no DATA: measured on the procedural images that ship, which have no labels")
    try:
        print(machine_words(given.peers_python))  # noqa: T201 (the table is what this is for)
        for arch in given.arch:
            spec = find_spec(arch)
            work = Work(
                spec,
                tuple(given.recipe),
                given.calibration,
                given.data,
                given.labels,
                given.limit,
                given.peers_python,
                given.out / spec.name,
                given.runs,
            )
            lines = (re.sub(r"(?<=[ (])-(?=\d)", "−", line) for line in report(compare(work), spell))
            print("", *lines, sep="\n", flush=True)  # noqa: T201
    except MnxError as error:
        talk(f"error: {error.message}\nhint: {error.hint}")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
