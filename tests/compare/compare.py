"""Our int8 files beside those of the quantizers that people use, in one table: `make compare DATA=DIR LABELS=CSV`.

All start from the same fp32 ONNX file and the same calibration images, and all are measured in one run, in ONNX
Runtime. The fp32 file is the reference. With t₀ and t the times that it and another file take for one image in one
round, speed = median over rounds of t₀/t; above 1 is faster than fp32.

Quality is measured twice: as this CPU computes, and with `session.x64quantprecision`, which is exact on every CPU.
On x86 without VNNI the two differ where sums of products saturate.

It runs in `.venv`; each peer quantizes in a process of its own, in `.venv-compare` (peers.py). One that fails is
a row that says why.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from peers import PEERS

from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.drift import Subject, measure_drift
from mobilenet_export.errors import DamagedInputError, MissingError, MnxError
from mobilenet_export.graph import FloatArray
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline.evidence import evidence_of, printable, values_of
from mobilenet_export.pipeline.export import ExportRequest, choose_images, export
from mobilenet_export.pipeline.reference import class_names
from mobilenet_export.pipeline.validate import Target, ValidateRequest, find_images
from mobilenet_export.recipe import find_recipe, recipe_names
from mobilenet_export.report import DriftReport, DriftRow
from mobilenet_export.runtimes import USUAL
from mobilenet_export.runtimes.onnxruntime import EXACT_ON_X64, OnnxRuntime
from mobilenet_export.spec import ModelSpec, find_spec

PEERS_SCRIPT = Path(__file__).parent / "peers.py"
PATIENCE_S = 900
"""A peer that takes longer has failed."""
RUNS_PER_ROUND = 5
SAME_SPEED, SAME_SECONDS = 0.03, 0.2
"""Relative differences of speed, and of the time to quantize, that two runs of the same thing show as well."""

Times = NDArray[np.float64]
"""Seconds for one image."""


# What is compared


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to make an int8 file of the fp32 file.

    Attributes:
        name: In the table.
        ours: Whether `mnx` made it.
        data: The file's bytes; None where it failed.
        seconds: It took to quantize.
        failure: Why there is no file, on one line.
    """

    name: str
    ours: bool
    data: bytes | None = None
    seconds: float = 0.0
    failure: str = ""

    @property
    def artifact(self) -> Artifact:
        """The file, as the package knows files."""
        assert self.data is not None
        return Artifact(self.name, "onnx", "int8", self.data)


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
        rounds: Of timing.
    """

    spec: ModelSpec
    recipes: tuple[str, ...]
    calibration: Path | None
    data: Path | None
    labels: Path | None
    limit: int | None
    peers_python: Path
    folder: Path
    rounds: int


def make_ours(work: Work) -> tuple[Artifact, list[Candidate]]:
    """Export with every recipe; return the fp32 file and the int8 ones."""
    candidates = []
    for name in work.recipes:
        talk(f"{work.spec.name}: mnx {name}")
        out = work.folder / name
        request = ExportRequest(
            work.spec,
            out,
            ("fp32", "int8"),
            ("onnx",),
            find_recipe(name),
            calibration=work.calibration,
            force=True,
        )
        made = export(request)
        fp32, int8 = made.artifacts
        candidates.append(Candidate(f"mnx {name}", True, int8.data, made.seconds["quantize"]))
    return fp32, candidates


def make_peers(work: Work, fp32: Artifact) -> list[Candidate]:
    """Quantize with every peer, calibrated with the images of our first recipe."""
    fp32_path, images_path = work.folder / "fp32.onnx", work.folder / "calibration.npy"
    fp32_path.write_bytes(fp32.data)
    np.save(images_path, values_of(calibration_images(work, work.recipes[0]), work.spec))
    candidates = []
    for name in PEERS:
        talk(f"{work.spec.name}: {name}")
        out = work.folder / f"{name.replace(', ', '_').replace(' ', '_')}.onnx"
        out.unlink(missing_ok=True)
        command: list[str | Path] = [work.peers_python, PEERS_SCRIPT, name, fp32_path, images_path, out]
        candidates.append(run_peer(name, command, out))
    return candidates


def run_peer(name: str, command: Sequence[str | Path], out: Path) -> Candidate:
    """Run a peer's process; whatever goes wrong in it becomes the candidate's failure."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return Candidate(name, False, failure=f"gave up after {PATIENCE_S} s")
    if done.returncode != 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Candidate(name, False, failure=said[-1] if said else f"it ended with code {done.returncode}")
    if not out.is_file():
        return Candidate(name, False, failure="it wrote no file")
    return Candidate(name, False, out.read_bytes(), json.loads(done.stdout.splitlines()[-1])["seconds"])


# What is measured


@dataclass(frozen=True, slots=True)
class Convolutions:
    """Of a file in ONNX Runtime's optimized graph."""

    on_integers: int
    all: int


@dataclass(frozen=True, slots=True)
class Speed:
    """Times faster than fp32: the median over rounds, and half the distance between the quartiles."""

    median: float
    spread: float


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate, measured; `exact` is its drift on a CPU that does not saturate."""

    candidate: Candidate
    bytes: int
    drift: DriftRow
    exact: DriftRow
    convolutions: Convolutions
    speed: Speed


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network's table.

    Attributes:
        spec: The network.
        fp32_bytes: Size of the fp32 file.
        fp32_ms: Its median time for one image.
        drift: What the files were measured with.
        calibration: What they were calibrated with, in words.
        rows: Of those that could be measured.
        failed: The rest.
    """

    spec: ModelSpec
    fp32_bytes: int
    fp32_ms: float
    drift: DriftReport
    calibration: str
    rows: tuple[Row, ...]
    failed: tuple[Candidate, ...]


def compare(work: Work) -> Comparison:
    """Make all files and measure them."""
    work.folder.mkdir(parents=True, exist_ok=True)
    fp32, ours = make_ours(work)
    checked = [check_loads(candidate, work.spec) for candidate in (*ours, *make_peers(work, fp32))]
    runnable = [candidate for candidate in checked if candidate.data is not None]
    talk(f"{work.spec.name}: drift")
    drift = measure_quality(work, fp32, runnable)
    talk(f"{work.spec.name}: speed")
    times = interleaved_times([fp32.data, *(c.artifact.data for c in runnable)], work.spec, work.rounds)
    rows = tuple(
        Row(
            candidate,
            len(candidate.artifact.data),
            drift.rows[2 * index],
            drift.rows[2 * index + 1],
            count_convolutions(candidate.artifact.data),
            speed_of(times[:, 0], times[:, index + 1]),
        )
        for index, candidate in enumerate(runnable)
    )
    failed = tuple(candidate for candidate in checked if candidate.data is None)
    fp32_ms = 1000 * float(np.median(times[:, 0]))
    return Comparison(work.spec, len(fp32.data), fp32_ms, drift, calibration_words(work), rows, failed)


def check_loads(candidate: Candidate, spec: ModelSpec) -> Candidate:
    """Return a file that ONNX Runtime refuses to load or run as a failure."""
    if candidate.data is None:
        return candidate
    try:
        OnnxRuntime().open(candidate.artifact).run(np.zeros((1, *spec.input_shape), np.float32))
    except DamagedInputError as error:
        return Candidate(candidate.name, candidate.ours, failure=error.message)
    except Exception as error:  # ONNX Runtime's exception types are private and many
        said = str(error).strip() or type(error).__name__
        return Candidate(candidate.name, candidate.ours, failure=said.splitlines()[0])
    return candidate


def measure_quality(work: Work, fp32: Artifact, candidates: Sequence[Candidate]) -> DriftReport:
    """Compare each file with fp32; each has two rows: as this CPU computes, and exactly."""
    engine, spec = OnnxRuntime(), work.spec
    subjects = [
        Subject(candidate.artifact, engine.open(candidate.artifact, setup))
        for candidate in candidates
        for setup in (USUAL, EXACT_ON_X64)
    ]
    evidence = evidence_of(*images_to_measure(work), lambda _steps: None)
    return measure_drift(engine.open(fp32), subjects, evidence, probabilities=spec.softmax)


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


def interleaved_times(files: Sequence[bytes], spec: ModelSpec, rounds: int) -> Times:
    """Return seconds per image, (rounds, files): in each round every file runs a few times in one thread."""
    image = np.random.default_rng(0).uniform(-1, 1, (1, *spec.input_shape)).astype(np.float32)
    runs = [single_threaded(data, image) for data in files]
    times = np.empty((rounds, len(runs)))
    for index in range(rounds):
        for column, run in enumerate(runs):
            run()
            start = time.perf_counter()
            for _ in range(RUNS_PER_ROUND):
                run()
            times[index, column] = (time.perf_counter() - start) / RUNS_PER_ROUND
    return times


def single_threaded(data: bytes, image: FloatArray) -> Callable[[], Any]:
    """Load a file to run with one thread, and without threads that spin beside it."""
    options = quiet_options()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {session.get_inputs()[0].name: image})


def speed_of(reference: Times, times: Times) -> Speed:
    """Times faster than the reference, from the seconds of both in each round."""
    low, median, high = np.quantile(reference / times, (0.25, 0.5, 0.75))
    return Speed(float(median), float(high - low) / 2)


def count_convolutions(data: bytes) -> Convolutions:
    """Count the convolutions of ONNX Runtime's optimized graph."""
    options = quiet_options()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(path).graph.node if "Conv" in node.op_type]
    return Convolutions(sum(kind in ("QLinearConv", "ConvInteger") for kind in kinds), len(kinds))


def quiet_options() -> Any:
    """Session options that report errors only."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return options


# The table

COLUMNS = (
    "",
    "bytes",
    "agree",
    "SQNR",
    "top-1 drop (95 %)",
    "exact: agree",
    "SQNR",
    "speed",
    "integer convs",
    "quantize",
)


def table_of(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return the cells, row by row: headings, the fp32 file, what was measured, what failed."""
    blank = ("",) * (len(COLUMNS) - 2)
    fp32 = ("fp32", f"{comparison.fp32_bytes:,}", *blank)
    failed = [(candidate.name, "failed", *blank) for candidate in comparison.failed]
    return [COLUMNS, fp32, *(cells_of(row) for row in comparison.rows), *failed]


def cells_of(row: Row) -> tuple[str, ...]:
    """One row in words."""
    cells = (
        row.candidate.name,
        f"{row.bytes:,}",
        f"{row.drift.agreement_percent:.1f} %",
        f"{row.drift.sqnr_db:.1f} dB",
        drop_words(row.drift),
        f"{row.exact.agreement_percent:.1f} %",
        f"{row.exact.sqnr_db:.1f} dB",
        f"{row.speed.median:.2f}× ±{row.speed.spread:.2f}",
        f"{row.convolutions.on_integers} of {row.convolutions.all}",
        f"{row.candidate.seconds:.1f} s",
    )
    return tuple(re.sub(r"^-|(?<=[ (])-(?=\d)", "−", cell) for cell in cells)


def drop_words(drift: DriftRow) -> str:
    """The drop of top-1 in points, with its interval; a dash where there are no labels."""
    if drift.top1_drop_points is None or drift.top1_drop_interval_points is None:
        return "–"
    low, high = drift.top1_drop_interval_points
    return f"{drift.top1_drop_points:.1f} ({low:.1f} … {high:.1f})"


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
    yield f"measured on {drift.images} images of {drift.data}, {labels}; fp32 takes {comparison.fp32_ms:.1f} ms"
    yield ""
    yield from spell(table_of(comparison))
    yield ""
    yield from (f"{candidate.name}: {candidate.failure}" for candidate in comparison.failed)
    yield from verdict(comparison.rows)


Measure = Callable[[Row], float]
METRICS: Mapping[str, tuple[int, Measure, Measure]] = {
    "agree": (2, lambda row: row.drift.agreement_percent, lambda _: 0.0),
    "SQNR": (3, lambda row: row.drift.sqnr_db, lambda _: 0.0),
    "exact agree": (5, lambda row: row.exact.agreement_percent, lambda _: 0.0),
    "exact SQNR": (6, lambda row: row.exact.sqnr_db, lambda _: 0.0),
    "speed": (
        7,
        lambda row: row.speed.median,
        lambda row: max(row.speed.spread, SAME_SPEED * row.speed.median),
    ),
    "integer convs": (8, lambda row: row.convolutions.on_integers, lambda _: 0.0),
    "bytes": (1, lambda row: -row.bytes, lambda _: 0.0),
    "quantize": (9, lambda row: -row.candidate.seconds, lambda row: SAME_SECONDS * row.candidate.seconds),
}
"""Column, the number in it that is better when larger, and the difference that is none."""


def verdict(rows: Sequence[Row]) -> Iterator[str]:
    """Say of each peer where ours is behind it and where ahead; of several of ours, the one least behind."""
    ours = [row for row in rows if row.candidate.ours]
    for peer in (row for row in rows if not row.candidate.ours and ours):
        best = min(ours, key=lambda row: len(ahead(peer, row)))
        behind, before = contrast(best, peer, ahead(peer, best)), ", ".join(ahead(best, peer)) or "nothing"
        yield f"{best.candidate.name} against {peer.candidate.name}: behind in {behind}; ahead in {before}"


def ahead(row: Row, other: Row) -> list[str]:
    """Name the metrics in which a row is better than another, by more than is none."""
    return [
        name
        for name, (_, value, none) in METRICS.items()
        if value(row) - value(other) > max(none(row), none(other))
    ]


def contrast(row: Row, other: Row, metrics: Sequence[str]) -> str:
    """Set the figures of two rows side by side."""
    first, second = cells_of(row), cells_of(other)
    columns = {name: METRICS[name][0] for name in metrics}
    return (
        ", ".join(f"{name} ({first[column]} to {second[column]})" for name, column in columns.items())
        or "nothing"
    )


def calibration_words(work: Work) -> str:
    """How many images of what all files were calibrated with."""
    chosen = calibration_images(work, work.recipes[0])
    return f"calibrated with {len(chosen)} images of {printable(chosen.origin)}"


def machine_words(peers_python: Path) -> str:
    """The CPU's kind, and the versions of what is compared.

    Raises:
        MissingError: The peers are not installed.
    """
    script = "import importlib.metadata as m; print(*(m.version(n) for n in ('onnxruntime', 'nncf')))"
    hint = "`make compare` installs the peers"
    try:
        done = subprocess.run([peers_python, "-c", script], capture_output=True, text=True, check=True)
    except OSError:
        raise MissingError(f"{peers_python}: no such interpreter", hint) from None
    except subprocess.CalledProcessError:
        raise MissingError(f"{peers_python}: it does not have onnxruntime and nncf", hint) from None
    quantizer, nncf = done.stdout.split()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    vnni = "" if "flags" not in flags else ", VNNI" if "vnni" in flags else ", without VNNI"
    return (
        f"{platform.machine()}{vnni}; measured in onnxruntime {onnxruntime.__version__}, one thread; "
        f"peers: quantize_static of {quantizer}, NNCF {nncf}"
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
    parser.add_argument("--rounds", type=int, default=40, help="of timing")
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-compare/bin/python"))
    parser.add_argument("--out", type=Path, default=Path("build/compare"), help="folder for what is made")
    parser.add_argument("--markdown", action="store_true", help="print the table as the README shows it")
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
                given.rounds,
            )
            print("", *report(compare(work), spell), sep="\n", flush=True)  # noqa: T201
    except MnxError as error:
        talk(f"error: {error.message}\nhint: {error.hint}")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
