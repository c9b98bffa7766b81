"""Stages of a long run: their progress, and the seconds that each took."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with a stage's title and its number of steps; yields a function to advance by some."""


def silent(_title: str, _total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show no progress."""
    return nullcontext(lambda _steps: None)


@dataclass(frozen=True, slots=True)
class Stages:
    """Times each stage while it shows its progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, title: str, total: int = 0) -> Iterator[Callable[[int], None]]:
        """Run one stage."""
        start = time.perf_counter()
        with self.progress(title, total) as advance:
            yield advance
        self.seconds[title] = round(time.perf_counter() - start, 3)
