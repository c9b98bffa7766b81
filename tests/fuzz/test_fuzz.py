"""Part of `make fuzz`: every reader gets 1,000 wrong files (FUZZ=N: so many), each of which it reads or refuses.

Never a traceback, never a hang (20 s), never more than 3 GiB, never another end of the process. A file that shows
otherwise is kept in build/fuzz. FUZZ_SEED=N makes other files.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pool import Case, Worker, wrong_bytes
from readers import READERS, right_files, write_seeds

pytestmark = pytest.mark.slow

FILES = int(os.environ.get("FUZZ", "1000"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
KEPT = Path(__file__).parents[2] / "build" / "fuzz"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    write_seeds(folder)
    return folder


@pytest.fixture(scope="module")
def workers(seeds: Path) -> Iterator[tuple[Worker, Worker]]:
    pair = Worker(seeds), Worker(seeds)
    yield pair
    for worker in pair:
        worker.end()


@pytest.mark.parametrize("name", READERS)
def test_right_files_are_read(name: str, seeds: Path, tmp_path: Path) -> None:
    """Else wrong ones would be refused for no reason."""
    read = READERS[name].open(tmp_path, seeds)
    for data in right_files(name, seeds):
        read(data)


@pytest.mark.parametrize("name", READERS)
def test_wrong_files_are_read_or_refused(
    name: str, seeds: Path, workers: tuple[Worker, Worker], capsys: pytest.CaptureFixture[str]
) -> None:
    begun, codes, findings = time.perf_counter(), Counter[int](), []
    for number in range(0, FILES, len(workers)):
        cases = [Case(name, number + index, SEED) for index in range(len(workers))]
        for worker, case in zip(workers, cases, strict=True):
            worker.give(case)
        for worker, case in zip(workers, cases, strict=True):
            ending = worker.take()
            codes[ending.code] += 1
            if ending.finding:
                KEPT.mkdir(parents=True, exist_ok=True)
                path = KEPT / f"{name.replace(' ', '-')}-{case.seed}-{case.number}"
                path.write_bytes(wrong_bytes(case, seeds))
                findings.append(f"{path}:\n{ending.finding}")
    read, refused = codes[0], sum(codes.values()) - codes[0] - len(findings)
    with capsys.disabled():
        took = f"{time.perf_counter() - begun:.0f} s, seed {SEED}"
        print(f"\n{name}: {read} read, {refused} refused, {len(findings)} findings; {took}", end="")  # noqa: T201
    assert not findings, "\n".join(findings[:5])
