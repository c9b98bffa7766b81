"""Latency: rows take turns in rounds, so that a machine that slows down slows all of them alike."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from mobilenet_export.latency import Minute
from mobilenet_export.machine import Condition, condition
from mobilenet_export.runtimes import Session

_WARM_UP_RUNS = 5
_MOST_WARM_UPS = 20
_STABLE = 1.05
"""Warm once the median of the last runs is at most this times that of the runs before."""
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        runs: Inferences of each row.
        minutes: Instead of `runs`: until so many minutes are over.
        block: Inferences of a row in one round; one more before them is not counted, as it warms the caches.
        seed: Of the order in which rows take their turns.
    """

    runs: int = 100
    minutes: float | None = None
    block: int = 5
    seed: int = 0

    @property
    def rounds(self) -> int:
        """How often every row has its turn, of a run by number."""
        return max(-(-self.runs // self.inferences), 1)

    @property
    def inferences(self) -> int:
        """Of a row in one round: `block`, or all where there are fewer."""
        return min(self.block, self.runs) if self.minutes is None else self.block


@dataclass(slots=True)
class Contestant:
    """A loaded file with its input, and what was measured of it: milliseconds, by round."""

    session: Session
    feed: Any
    rounds_ms: list[tuple[float, ...]] = field(default_factory=list)


def race(
    contestants: Sequence[Contestant], plan: Plan, advance: Callable[[int], None] = lambda _rounds: None
) -> tuple[Minute, ...]:
    """Measure until the plan is done, and return the minutes of a run by time; samples are with the contestants."""
    for contestant in contestants:
        warm_up(contestant)
    order = list(contestants)
    shuffle = random.Random(plan.seed).shuffle
    if plan.minutes is None:
        for _ in range(plan.rounds):
            shuffle(order)
            _round(order, plan.inferences)
            advance(1)
        return ()
    minutes: list[Minute] = []
    end = time.monotonic() + plan.minutes * _MINUTE_S
    while time.monotonic() < end:
        minute_end, first = min(time.monotonic() + _MINUTE_S, end), len(contestants[0].rounds_ms)
        while True:
            shuffle(order)
            _round(order, plan.block)
            if time.monotonic() >= minute_end:
                break
        minutes.append(_minute(contestants, first, condition()))
        advance(1)
    return tuple(minutes)


def warm_up(contestant: Contestant) -> None:
    """Run until it gets no faster: first inferences allocate, and clocks rise."""
    before = median(_block(contestant, _WARM_UP_RUNS))
    for _ in range(_MOST_WARM_UPS):
        now = median(_block(contestant, _WARM_UP_RUNS))
        if before <= now * _STABLE:
            return
        before = now


def _round(order: Sequence[Contestant], block: int) -> None:
    for contestant in order:
        contestant.session.infer(contestant.feed)
        contestant.rounds_ms.append(_block(contestant, block))


def _block(contestant: Contestant, runs: int) -> tuple[float, ...]:
    infer, feed, clock = contestant.session.infer, contestant.feed, time.perf_counter_ns
    samples = []
    for _ in range(runs):
        start = clock()
        infer(feed)
        samples.append((clock() - start) / 1e6)
    return tuple(samples)


def _minute(contestants: Sequence[Contestant], first: int, state: Condition) -> Minute:
    medians = (median(x for samples in one.rounds_ms[first:] for x in samples) for one in contestants)
    return Minute(tuple(medians), state)
