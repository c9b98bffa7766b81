"""`pick`: measure what could be deployed, and return what is best within a budget.

grid of networks, or bundles ─▶ points ─▶ latency, size, memory (measured once, then recalled) ─┐
published top-1, or the user's labelled images ─────────────────────────────────────────────────┴─▶ front ─▶ winner
"""

import dataclasses
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobilenet_export.artifact import Precision
from mobilenet_export.bundle import Bundle, read_bundle
from mobilenet_export.candidate import Budget, Candidate, Measurement, Point, Top1, front, preference
from mobilenet_export.devices import Settings
from mobilenet_export.errors import UsageError
from mobilenet_export.formats import Format, artifact_name
from mobilenet_export.pipeline.accuracy import Labelled, measure_top1
from mobilenet_export.pipeline.cache import makers
from mobilenet_export.pipeline.figures import FigureCache
from mobilenet_export.pipeline.meter import Meter, RuntimeThere, open_meter
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.pipeline.trial import Network, make_artifacts, trial_bundle
from mobilenet_export.plugins import load_plugin
from mobilenet_export.published import Published, read_published
from mobilenet_export.spec import spec_to_table

SWEEP_RUNS, CONFIRM_RUNS = 50, 100
"""Inferences of each file in the sweep, and of a winner that is measured again."""
_NEAREST = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """Which networks: all that top-1 was published of, or those of them that fit.

    Attributes:
        archs: Short names; empty for all.
        widths: Width multipliers; empty for all.
        resolutions_px: Sizes; empty for all. With widths and sizes every combination counts, published or not.
        precisions: Of the files.
    """

    archs: tuple[str, ...] = ()
    widths: tuple[float, ...] = ()
    resolutions_px: tuple[int, ...] = ()
    precisions: tuple[Precision, ...] = ("fp32", "int8")


@dataclass(frozen=True, slots=True)
class PickRequest:
    """What to choose from, and by what.

    Attributes:
        budget: To be kept.
        grid: Networks to choose from; not looked at where there are bundles.
        bundles: The user's own, to choose from instead.
        labelled: Images that tell the bundles' top-1.
        runtimes: `NAME` or `NAME:PROVIDER`; else all that work there.
        threads: That the runtimes are given.
        device: To measure on; else here.
        settings: How to connect.
        cache: Folder that figures are kept in; None measures anew and keeps nothing.
    """

    budget: Budget
    grid: Grid = field(default_factory=Grid)
    bundles: tuple[Path, ...] = ()
    labelled: Labelled | None = None
    runtimes: tuple[str, ...] = ()
    threads: int = 1
    device: str | None = None
    settings: Settings = field(default_factory=Settings)
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class PickReport:
    """What was found.

    Attributes:
        place: That measured.
        budget: That was to be kept.
        candidates: All of them.
        winner: The most accurate within the budget, as measured again; None where nothing is.
        command: That builds it.
        missing_weights: Whether no weights ship that its top-1 is of.
        rejected: What would have won, and was over the budget when measured again, with the second figures.
        recalled: How many points were measured by an earlier run.
        doubt: Why the others' figures are not what they could be, or None.
    """

    place: str
    budget: Budget
    candidates: tuple[Candidate, ...]
    winner: Candidate | None
    command: str
    missing_weights: bool
    rejected: tuple[Candidate, ...]
    recalled: int
    doubt: str | None = None

    @property
    def front(self) -> tuple[Candidate, ...]:
        """Those that no other dominates."""
        return front(self.candidates)

    @property
    def nearest(self) -> tuple[Candidate, ...]:
        """Of the front, those that miss the budget least."""
        return tuple(sorted(self.front, key=self.budget.excess)[:_NEAREST])

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table."""
        best = self.front
        return {
            "kind": "pick",
            "place": self.place,
            "budget": dataclasses.asdict(self.budget),
            "winner": _row(self.winner, self.budget) if self.winner else None,
            "command": self.command or None,
            "front": [_row(one, self.budget) for one in best],
            "rejected": [_row(one, self.budget) for one in self.rejected],
            "nearest": [] if self.winner else [_row(one, self.budget) for one in self.nearest],
            "points": [_row(one, self.budget) | {"on_front": one in best} for one in self.candidates],
            "recalled": self.recalled,
            "doubt": self.doubt,
        }


def _row(candidate: Candidate, budget: Budget) -> dict[str, Any]:
    figures = {name: round(value, 4) for name, value in dataclasses.asdict(candidate.measured).items()}
    top1 = dataclasses.asdict(candidate.top1) if candidate.top1 else None
    fits = candidate.top1 is not None and budget.excess(candidate) <= 1
    return dataclasses.asdict(candidate.point) | figures | {"top1": top1, "within_budget": fits}


@dataclass(frozen=True, slots=True)
class _Shelf:
    """The files of one network: points, what they depend on, the top-1 of each, and how to get at the files."""

    points: tuple[Point, ...]
    content: Mapping[str, Any]
    top1: Callable[[Point], Top1 | None]
    open: Callable[[Sequence[Point]], AbstractContextManager[Bundle]]
    build: Callable[[Point], tuple[str, bool]]
    """The command that builds a point's file, and whether its weights have to be found elsewhere."""


def pick(request: PickRequest, progress: Progress = silent) -> PickReport:
    """Measure every candidate that no earlier run has measured, and choose.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    if request.labelled is not None and not request.bundles:
        raise UsageError(
            "--data tells the top-1 of bundles, and none is named", "mnx pick BUNDLE… --data DIR"
        )
    published = () if request.bundles else read_published(request.grid.archs)
    networks = _networks(request.grid, published)
    stages, kept = Stages(progress), FigureCache(request.cache)
    with open_meter(request.device, request.runtimes, request.settings) as meter:
        if request.bundles:
            shelves = _bundle_shelves(request, meter, stages)
        else:
            shelves = [_network_shelf(one, published, request, meter) for one in networks]
        sweep = _Sweep(meter, kept)
        with stages("measure", sum(len(shelf.points) for shelf in shelves)) as advance:
            measured = sweep.measure(shelves, advance)
        kept.prune()
        candidates = tuple(
            Candidate(point, measured[point], shelf.top1(point))
            for shelf in shelves
            for point in shelf.points
        )
        home = {point: shelf for shelf in shelves for point in shelf.points}
        with stages("measure the best again"):
            winner, rejected = _confirm(request.budget, candidates, sweep, home)
    command, missing = home[winner.point].build(winner.point) if winner else ("", False)
    doubt = meter.doubt if sweep.recalled < len(candidates) else None
    return PickReport(
        meter.place, request.budget, candidates, winner, command, missing, rejected, sweep.recalled, doubt
    )


def _networks(grid: Grid, published: Sequence[Published]) -> list[Network]:
    """The networks of a grid.

    Raises:
        UsageError: There are none, or top-1 is known of none.
    """
    found, known = [], 0
    for one in published:
        pairs = list(one.top1_percent)
        if grid.widths and grid.resolutions_px:
            pairs = [(width, px) for width in grid.widths for px in grid.resolutions_px]
        for width, px in pairs:
            if width in (grid.widths or (width,)) and px in (grid.resolutions_px or (px,)):
                found.append(Network(one.arch, width, px))
                known += (width, px) in one.top1_percent
    if published and not known:
        told = "; ".join(
            f"{one.arch}: widths {', '.join(f'{width:g}' for width in sorted({w for w, _ in one.top1_percent}))}"
            f" at {', '.join(f'{px}' for px in sorted({px for _, px in one.top1_percent}))} px"
            for one in published
        )
        raise UsageError("no top-1 was published of any of these sizes", f"there are figures of {told}")
    return found


def _network_shelf(
    network: Network, published: Sequence[Published], request: PickRequest, meter: Meter
) -> _Shelf:
    spec = network.spec
    (figures,) = [one for one in published if one.arch == network.arch]
    points = {
        _point(str(network), spec.name, precision, engine, request.threads): engine.formats[0]
        for precision in request.grid.precisions
        for engine in meter.engines
    }

    def make(wanted: Sequence[Point]) -> AbstractContextManager[Bundle]:
        precisions = tuple(dict.fromkeys(point.precision for point in wanted))
        formats = tuple(dict.fromkeys(points[point] for point in wanted))
        return trial_bundle(spec, make_artifacts(network, precisions, formats))

    def build(point: Point) -> tuple[str, bool]:
        return _export_command(network, point, points[point]), not network.has_own_weights

    table = {name: value for name, value in spec_to_table(spec).items() if name != "limits"}
    return _Shelf(
        tuple(points), table, lambda point: _published_top1(network, figures, point.precision), make, build
    )


def _point(network: str, name: str, precision: Precision, engine: RuntimeThere, threads: int) -> Point:
    form: Format = load_plugin("formats", engine.formats[0])
    file = artifact_name(name, form, precision, "float32")
    return Point(network, file, precision, engine.runtime, engine.provider, threads)


def _published_top1(network: Network, figures: Published, precision: Precision) -> Top1 | None:
    """What was published: of the weights that ship, where some were trained at this size."""
    weights = network.spec.weights
    if network.has_own_weights and weights and weights.top1_percent is not None:
        percent, source = weights.top1_percent, weights.top1_source
    elif (key := (network.width, network.resolution_px)) in figures.top1_percent:
        percent, source = figures.top1_percent[key], figures.source
    else:
        return None
    return Top1(percent, source, precision != "fp32", 0, percent, percent)


def _export_command(network: Network, point: Point, form: str) -> str:
    words = ["mnx export --arch", network.arch]
    if not network.has_own_weights:
        words += ["--width", f"{network.width:g}", "--resolution", str(network.resolution_px)]
    words += ["--int8"] if point.precision == "int8" else []
    words += ["--formats", form]
    words += [] if network.has_own_weights else ["--checkpoint YOUR_WEIGHTS"]
    return " ".join(words)


def _bundle_shelves(request: PickRequest, meter: Meter, stages: Stages) -> list[_Shelf]:
    """Read the user's bundles, and measure their top-1.

    Raises:
        UsageError: There are no labelled images to measure it with, or no runtime reads any of the files.
    """
    if request.labelled is None:
        raise UsageError("the top-1 of your bundles is not known", "give --data DIR and --labels CSV")
    bundles = [read_bundle(folder) for folder in request.bundles]
    names = [bundle.folder.resolve().name for bundle in bundles]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two bundles are called {name}", "rename one")
    places = {
        _point_of(name, entry, engine, request.threads): bundle
        for bundle, name in zip(bundles, names, strict=True)
        for entry in bundle.document["files"]
        for engine in meter.engines
        if entry["precision"] in request.grid.precisions and entry["format"] in engine.formats
    }
    if not places:
        raise UsageError("no runtime there reads any of the files", "name another --runtime")
    top1 = measure_top1(request.labelled, places, stages, FigureCache(request.cache))
    return [
        _bundle_shelf(bundle, tuple(point for point in places if places[point] is bundle), top1)
        for bundle in bundles
    ]


def _point_of(name: str, entry: Mapping[str, Any], engine: RuntimeThere, threads: int) -> Point:
    return Point(name, entry["path"], entry["precision"], engine.runtime, engine.provider, threads)


def _bundle_shelf(bundle: Bundle, points: tuple[Point, ...], top1: Mapping[Point, Top1]) -> _Shelf:
    hashes = {entry["path"]: entry["sha256"] for entry in bundle.document["files"]}
    bundle.artifacts()  # are they what they were?
    folder = shlex.quote(str(bundle.folder))
    return _Shelf(
        points,
        hashes,
        top1.__getitem__,
        lambda _points: nullcontext(bundle),
        lambda point: (f"mnx deploy HOST {folder}   # {point.file}", False),
    )


class _Sweep:
    """Measures points, network by network, and keeps what it has measured."""

    def __init__(self, meter: Meter, kept: FigureCache) -> None:
        self._meter, self._kept, self._makers = meter, kept, makers()
        self._versions = {(one.runtime, one.provider): one.version for one in meter.engines}
        self.recalled = 0

    def measure(
        self, shelves: Sequence[_Shelf], advance: Callable[[int], None]
    ) -> Mapping[Point, Measurement]:
        """Measure all points that were not measured before."""
        found: dict[Point, Measurement] = {}
        for shelf in shelves:
            facts = {point: self._facts(shelf, point) for point in shelf.points}
            for point in shelf.points:
                if figures := self._kept.recall(facts[point]):
                    found[point] = _measurement(figures)
            missing = [point for point in shelf.points if point not in found]
            self.recalled += len(shelf.points) - len(missing)
            advance(len(shelf.points) - len(missing))
            for point, measured in self._measure_some(shelf, missing):
                self._kept.keep(facts[point], dataclasses.asdict(measured))
                found[point] = measured
                advance(1)
        return found

    def again(self, shelf: _Shelf, point: Point) -> Measurement:
        """Measure one point anew, whatever is known of it, and longer."""
        with shelf.open([point]) as bundle:
            return self._meter.measure(bundle, [point], CONFIRM_RUNS)[point]

    def _measure_some(self, shelf: _Shelf, points: Sequence[Point]) -> Iterator[tuple[Point, Measurement]]:
        if points:
            with shelf.open(points) as bundle:
                yield from self._meter.measure(bundle, points, SWEEP_RUNS).items()

    def _facts(self, shelf: _Shelf, point: Point) -> dict[str, Any]:
        return {
            "point": dataclasses.asdict(point),
            "content": shelf.content,
            "version": self._versions[point.runtime, point.provider],
            "runs": SWEEP_RUNS,
            "place": self._meter.identity,
            "makers": self._makers,
        }


def _measurement(figures: Mapping[str, float]) -> Measurement:
    return Measurement(
        figures["p50_ms"], figures["high_ms"], int(figures["size_bytes"]), int(figures["peak_bytes"])
    )


def _confirm(
    budget: Budget, candidates: Sequence[Candidate], sweep: _Sweep, home: Mapping[Point, _Shelf]
) -> tuple[Candidate | None, tuple[Candidate, ...]]:
    """Measure what would win again, alone in a new process; what is over the budget then, loses to the next."""
    rejected: list[Candidate] = []
    for one in sorted(front(candidates), key=preference):
        if budget.excess(one) > 1:
            continue
        again = dataclasses.replace(one, measured=sweep.again(home[one.point], one.point))
        if budget.excess(again) <= 1:
            return again, tuple(rejected)
        rejected.append(again)
    return None, tuple(rejected)
