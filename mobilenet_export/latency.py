"""How long inference takes, as values: rows that keep their raw samples, and the report that they make.

A row's samples come in rounds, in each of which every row had its turn, so that what slows the machine down slows
all rows alike. Speeds are therefore compared round by round: the ratio of row r to row s is the median over rounds
of median(s)/median(r), and its interval is the distribution-free one of a median, from the order statistics k and
n+1−k with k the largest for which P(Binomial(n, ½) < k) ≤ 2.5 %.
Source: Conover 1999, Practical Nonparametric Statistics, 3rd edition, section 3.2.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from mobilenet_export.artifact import Precision
from mobilenet_export.machine import Condition, Machine

FEWEST_ROUNDS = 6
"""Of fewer, not even the extremes hold a median in 95 of 100 cases: 2/2⁵ > 5 %."""


@dataclass(frozen=True, slots=True)
class Cold:
    """A file's first use, in a process of its own.

    Attributes:
        load_ms: From the file's bytes to a session that can run.
        first_ms: The first inference.
        peak_rss_bytes: Largest resident memory of the process, interpreter and libraries included; 0 where the
            system does not tell.
    """

    load_ms: float
    first_ms: float
    peak_rss_bytes: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one row is as another, with its 95 % interval and how many rounds it is of."""

    times: float
    low: float
    high: float
    rounds: int

    @property
    def has_interval(self) -> bool:
        """Whether so many rounds make a 95 % interval; of fewer, low and high are merely the extremes."""
        return self.rounds >= FEWEST_ROUNDS

    @property
    def is_clear(self) -> bool:
        """Whether the interval tells which of both is faster."""
        return self.has_interval and (self.low > 1 or self.high < 1)


@dataclass(frozen=True, slots=True)
class LatencyRow:
    """One file in one runtime.

    Attributes:
        file: Name of it.
        precision: Of its weights.
        runtime: That ran it.
        provider: Execution provider or kernel set.
        threads: That the runtime was given.
        batch: Images per inference.
        rounds_ms: Milliseconds of every inference, by round.
        cold: Of its first use.
        elsewhere: Nodes that another provider ran, as `operator name`.
        nodes: How many there are; 0 where the engine does not tell.
        unfused: Of an int8 file, nodes that ran in float.
    """

    file: str
    precision: Precision
    runtime: str
    provider: str
    threads: int
    batch: int
    rounds_ms: tuple[tuple[float, ...], ...]
    cold: Cold | None = None
    elsewhere: tuple[str, ...] = ()
    nodes: int = 0
    unfused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tells it from other rows."""
        return (
            f"{self.file} in {self.runtime}:{self.provider}, {self.threads} thread{'s'[: self.threads > 1]}"
        )

    @property
    def samples_ms(self) -> list[float]:
        """Every inference."""
        return [sample for samples in self.rounds_ms for sample in samples]

    def percentile_ms(self, percent: float) -> float:
        """Return the smallest sample that at least `percent` of all do not exceed (nearest rank)."""
        ordered = sorted(self.samples_ms)
        return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]

    def speed_over(self, other: "LatencyRow") -> Ratio:
        """Return how many times as fast this is as a row of the same rounds."""
        pairs = zip(other.rounds_ms, self.rounds_ms, strict=True)
        ratios = sorted(median(theirs) / median(ours) for theirs, ours in pairs)
        cut = _cut(len(ratios))
        return Ratio(median(ratios), ratios[cut], ratios[-1 - cut], len(ratios))

    def to_json(self, first: "LatencyRow") -> dict[str, Any]:
        """Return the row as a JSON-able table, with every sample."""
        ratio = self.speed_over(first)
        return {
            "file": self.file,
            "precision": self.precision,
            "runtime": self.runtime,
            "provider": self.provider,
            "threads": self.threads,
            "batch": self.batch,
            "p50_ms": _short(self.percentile_ms(50)),
            "p90_ms": _short(self.percentile_ms(90)),
            "p99_ms": _short(self.percentile_ms(99)),
            "min_ms": _short(min(self.samples_ms)),
            "ratio": _short(ratio.times),
            "ratio_interval": [_short(ratio.low), _short(ratio.high)] if ratio.has_interval else None,
            "load_ms": _short(self.cold.load_ms) if self.cold else None,
            "first_ms": _short(self.cold.first_ms) if self.cold else None,
            "peak_rss_bytes": self.cold.peak_rss_bytes if self.cold else None,
            "elsewhere": list(self.elsewhere),
            "nodes": self.nodes,
            "unfused": list(self.unfused),
            "rounds_ms": [[_short(sample) for sample in samples] for samples in self.rounds_ms],
        }


def median_high(medians: Sequence[float]) -> float:
    """Return the upper end of the 95 % interval of a median, from the medians of rounds; of few, their maximum."""
    return sorted(medians)[-1 - _cut(len(medians))]


def _cut(rounds: int) -> int:
    """How many of the ordered ratios lie below the 95 % interval of their median; none of fewer than 6 rounds."""
    total, cut = 0.0, 0
    for below in range(rounds // 2):
        total += math.comb(rounds, below) / 2**rounds
        if total > 0.025:
            break
        cut = below
    return cut


def _short(value: float) -> float:
    return float(f"{value:.5g}")


@dataclass(frozen=True, slots=True)
class Split:
    """Median milliseconds of one image from file to answer, with the first row's file."""

    decode_ms: float
    preprocess_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class Minute:
    """One minute of a long run: the median of each row, and the machine at its end."""

    medians_ms: tuple[float, ...]
    condition: Condition


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """Files in runtimes, measured side by side.

    Attributes:
        machine: That ran them.
        rows: In the order asked for; ratios are to the first.
        split: From file to answer; None without a bundle's images.
        minutes: Of a run by time; else empty.
        notes: What the reader has to know.
    """

    machine: Machine
    rows: tuple[LatencyRow, ...]
    split: Split | None = None
    minutes: tuple[Minute, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table, with every sample."""
        return {
            "kind": "latency",
            "machine": dataclasses.asdict(self.machine),
            "rows": [
                {"rank": rank, **row.to_json(self.rows[0])}
                for rank, row in zip(ranks(self.rows), self.rows, strict=True)
            ],
            "split": dataclasses.asdict(self.split) if self.split else None,
            "minutes": [dataclasses.asdict(minute) for minute in self.minutes],
            "notes": list(self.notes),
        }


def ranks(rows: Sequence[LatencyRow]) -> list[str]:
    """Return each row's place by p50, 1 the fastest; rows share `2–4` where no interval tells neighbours apart."""
    order = sorted(range(len(rows)), key=lambda index: rows[index].percentile_ms(50))
    groups = [[order[0]]]
    for before, index in pairwise(order):
        if rows[before].speed_over(rows[index]).is_clear:
            groups.append([])
        groups[-1].append(index)
    places, first = [""] * len(rows), 1
    for group in groups:
        last = first + len(group) - 1
        for index in group:
            places[index] = f"{first}" if first == last else f"{first}–{last}"
        first = last + 1
    return places


def explain(rows: Sequence[LatencyRow], machine: Machine) -> tuple[str, ...]:
    """Return what has to be known of rows: whether some cannot be ranked, and where int8 is slower, and why."""
    notes = [*_slow_int8(rows, machine), *_fallen_back(rows)]
    if any("–" in place for place in ranks(rows)):
        notes.append("rows that share a rank cannot be told apart here: more --runs, or a quieter machine")
    if len(rows) > 1 and len(rows[0].rounds_ms) < FEWEST_ROUNDS:
        notes.append(f"fewer than {FEWEST_ROUNDS} rounds tell no interval: give --runs 100")
    crowded = sorted({row.threads for row in rows if row.threads > machine.cores})
    if crowded:
        told = ", ".join(map(str, crowded))
        notes.append(f"{told} threads on {machine.cores} cores wait for each other")
    return tuple(notes)


def _slow_int8(rows: Sequence[LatencyRow], machine: Machine) -> list[str]:
    notes = []
    for row in rows:
        peer = next((one for one in rows if row.precision == "int8" and _is_fp32_of(one, row)), None)
        if peer is None:
            continue
        ratio = row.speed_over(peer)
        if ratio.high < 1:
            reasons = [machine.int8] if row.threads <= machine.cores else ["more threads than cores"]
            if row.unfused:
                reasons.append(f"{len(row.unfused)} nodes run in float: {', '.join(row.unfused[:5])}")
            notes.append(f"{row.name} is slower than fp32, {ratio.times:.2f}×: {'; '.join(reasons)}")
    return notes


def _is_fp32_of(one: LatencyRow, row: LatencyRow) -> bool:
    """Whether a row is of the same export in fp32, run in the same way."""
    places = [(r.runtime, r.provider, r.threads, r.batch) for r in (one, row)]
    return one.file == row.file.replace(row.precision, "fp32") and places[0] == places[1]


def _fallen_back(rows: Sequence[LatencyRow]) -> list[str]:
    notes = []
    for row in rows:
        if row.elsewhere and len(row.elsewhere) == row.nodes:
            notes.append(
                f"{row.name}: {row.provider} takes none of its {row.nodes} nodes; the CPU ran them all"
            )
        elif row.elsewhere:
            first = ", ".join(row.elsewhere[:5])
            notes.append(
                f"{row.name}: {len(row.elsewhere)} of {row.nodes} nodes fell back to the CPU: {first}"
            )
    return notes
