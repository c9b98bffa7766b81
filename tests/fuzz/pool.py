"""Processes that read wrong files: bounded in memory and time, and watched from outside."""

import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from readers import READERS, Read, seeds_of

from mobilenet_export.errors import ExitCode, explain_error

MOST_MORE_BYTES = 3 << 30
"""Of address space, beyond what a process has once everything is imported."""
MOST_S = 20.0


@dataclass(frozen=True)
class Case:
    """One wrong file, made again by the same three."""

    reader: str
    number: int
    seed: int = 0


@dataclass(frozen=True)
class Ending:
    """What became of a case: an exit code, or a finding and how it looks."""

    code: int
    finding: str = ""


def wrong_bytes(case: Case, seeds: Path) -> bytes:
    """Return the file of a case."""
    right = seeds_of(case.reader, seeds)
    rng = random.Random(f"{case.seed} {case.reader} {case.number}")
    return READERS[case.reader].mutate(rng, right)


def work(pipe: Connection, seeds: Path) -> None:
    """Take cases until there are no more, and say what each ended in."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what Pillow, torch and LiteRT say on their own
    folder = Path(tempfile.mkdtemp(prefix="mnx-fuzz-"))
    os.environ["MNX_CACHE"] = str(folder)
    opened = {}
    limit = _address_space() + MOST_MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    pipe.send("ready")
    try:
        while (case := pipe.recv()) is not None:
            if case.reader not in opened:
                own = folder / case.reader
                own.mkdir()
                opened[case.reader] = READERS[case.reader].open(own, seeds)
            pipe.send(_try(opened[case.reader], wrong_bytes(case, seeds)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _try(read: Read, data: bytes) -> Ending:
    try:
        read(data)
    except BaseException as error:  # what a user would see of it
        _, _, code = explain_error(error) if isinstance(error, Exception) else ("", "", ExitCode.INTERNAL)
        return Ending(code, "" if code != ExitCode.INTERNAL else traceback.format_exc())
    return Ending(ExitCode.DONE)


def _address_space() -> int:
    pages = Path("/proc/self/statm").read_text().split()[0]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Worker:
    """One process; a new one where it died or hung."""

    def __init__(self, seeds: Path) -> None:
        self._seeds = seeds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._seeds), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()  # everything is imported

    def give(self, case: Case) -> None:
        """Have a wrong file read."""
        self._pipe.send(case)

    def take(self) -> Ending:
        """Wait for what became of it."""
        try:
            if self._pipe.poll(MOST_S):
                ending: Ending = self._pipe.recv()
                return ending
            finding = f"no end within {MOST_S:.0f} s"
        except EOFError:
            self._process.join()
            finding = f"the process ended with exit code {self._process.exitcode}"
        self.end()
        self._start()
        return Ending(ExitCode.INTERNAL, finding)

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.join()
