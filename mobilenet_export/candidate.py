"""What could be deployed, as values: candidates with what was measured of them, a budget, and the Pareto front.

Candidate a dominates b where a is at least as good in latency, size, memory and top-1, and better in one. Figures
count as they are shown, so that the eye can check it: 0.01 ms, 0.01 MB, 1 MiB, 0.1 %. A top-1 that is of the fp32
network is an upper bound of int8's: an int8 candidate with such a figure never dominates one whose own it is.
Source: Deb 2001, Multi-Objective Optimization using Evolutionary Algorithms, section 2.4.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mobilenet_export.artifact import Precision

_MB, _MIB = 1e6, 2**20


@dataclass(frozen=True, slots=True)
class Point:
    """A file in a runtime.

    Attributes:
        network: What the file is made of, as tables show it, such as `v2 0.75 160`.
        file: Its name.
        precision: Of its weights.
        runtime: That runs it.
        provider: Kernels of the runtime.
        threads: That the runtime is given.
    """

    network: str
    file: str
    precision: Precision
    runtime: str
    provider: str
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of a point.

    Attributes:
        p50_ms: Median of all inferences.
        high_ms: Upper end of the 95 % interval of the median.
        size_bytes: Of the file.
        peak_bytes: Largest resident memory of a process that loads the file and runs it once; 0 where the system
            does not tell.
    """

    p50_ms: float
    high_ms: float
    size_bytes: int
    peak_bytes: int

    @property
    def size_mb(self) -> float:
        """Size in MB of 10⁶ bytes."""
        return self.size_bytes / _MB

    @property
    def peak_mib(self) -> float:
        """Peak memory in MiB."""
        return self.peak_bytes / _MIB


@dataclass(frozen=True, slots=True)
class Top1:
    """A top-1 accuracy.

    Attributes:
        percent: The figure.
        source: Who says so.
        of_fp32: Whether it is the fp32 network's, and the file is int8.
        images: How many it was measured on here; 0 where it was published.
        low: Lower end of its 95 % interval; the figure itself where it was published.
        high: Upper end.
    """

    percent: float
    source: str
    of_fp32: bool
    images: int
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A point, what was measured of it, and its top-1 where that is known."""

    point: Point
    measured: Measurement
    top1: Top1 | None

    def objectives(self) -> tuple[float, ...]:
        """Return what is to be small, as it is shown."""
        assert self.top1 is not None
        return (
            round(self.measured.p50_ms, 2),
            round(self.measured.size_mb, 2),
            round(self.measured.peak_mib),
            -round(self.top1.percent, 1),
            float(self.top1.of_fp32),
        )

    def dominates(self, other: "Candidate") -> bool:
        """Whether this one is as good in everything and better in something."""
        ours, theirs = self.objectives(), other.objectives()
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that may be spent and the least top-1; None where it does not matter.

    Attributes:
        ms: Latency: the upper end of its interval has to be within.
        mb: Size of the file, in MB of 10⁶ bytes.
        mib: Peak memory.
        top1_percent: Least top-1: the lower end of its interval where it was measured.
    """

    ms: float | None = None
    mb: float | None = None
    mib: float | None = None
    top1_percent: float | None = None

    def excess(self, candidate: Candidate) -> float:
        """Return by what factor the worst figure misses the budget; 1 or less is within."""
        return max((needs / has for needs, has in self._ratios(candidate)), default=0.0)

    def _ratios(self, candidate: Candidate) -> Iterable[tuple[float, float]]:
        measured, top1 = candidate.measured, candidate.top1
        if self.ms is not None:
            yield measured.high_ms, self.ms
        if self.mb is not None:
            yield measured.size_mb, self.mb
        if self.mib is not None:
            yield measured.peak_mib or math.inf, self.mib
        if self.top1_percent is not None:
            yield self.top1_percent, (top1.low if top1 else 0.0) or 1e-9

    def widened(self, candidate: Candidate) -> "Budget":
        """Return the budget that would just admit a candidate, in the figures that are shown."""
        measured, top1 = candidate.measured, candidate.top1
        return Budget(
            None if self.ms is None else max(self.ms, _above(measured.high_ms, 2)),
            None if self.mb is None else max(self.mb, _above(measured.size_mb, 2)),
            None if self.mib is None else max(self.mib, _above(measured.peak_mib, 0)),
            None
            if self.top1_percent is None
            else min(self.top1_percent, -_above(-top1.low if top1 else 0, 1)),
        )


def _above(value: float, digits: int) -> float:
    """Round up; the product may have been rounded down to a whole number."""
    steps: int = math.ceil(value * 10**digits)
    return float(steps + (steps / 10**digits < value)) / 10.0**digits


def front(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those of known top-1 that no other dominates, the most accurate first, then the fastest."""
    known = [one for one in candidates if one.top1 is not None]
    best = [one for one in known if not any(other.dominates(one) for other in known)]
    return tuple(sorted(best, key=preference))


def preference(candidate: Candidate) -> tuple[Any, ...]:
    """Sort key of candidates that fit a budget: the most accurate first, then the fastest, the smallest."""
    ms, mb, mib, top1, of_fp32 = candidate.objectives()
    return (
        top1,
        of_fp32,
        ms,
        mb,
        mib,
        candidate.point.network,
        candidate.point.file,
        candidate.point.runtime,
    )
