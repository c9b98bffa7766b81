"""The first use of a file, in a process of its own: what loading costs, and how much memory there has to be."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

import mobilenet_export
from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.latency import Cold
from mobilenet_export.runtimes import Setup, runtime

_LONGEST_S = 600


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What to load and how: everything that a new process has to be told."""

    file: str
    format: str
    runtime: str
    provider: str | None
    threads: int
    shape: tuple[int, ...]


def measure_cold(start: ColdStart, data: bytes) -> Cold:
    """Load a file and run it once in a new process.

    Raises:
        DamagedInputError: That process ended without an answer, as it does where a runtime crashes.
    """
    root = str(Path(mobilenet_export.__file__).parents[1])  # a folder, or the bundle's zip
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    code = "from mobilenet_export.agent.cold import answer; answer()"
    found = subprocess.run(
        [sys.executable, "-c", code, json.dumps(asdict(start))],
        input=data,
        capture_output=True,
        timeout=_LONGEST_S,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
    )
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {found.returncode}"
        raise DamagedInputError(
            f"{start.file}: {start.runtime} did not survive its first inference: {reason}",
            "try another version of the runtime; `mnx compat` knows the bad ones",
        )
    return Cold(**json.loads(found.stdout))


def answer() -> None:
    """Do what the argument asks with the file on stdin, and write the figures to stdout."""
    start = ColdStart(**json.loads(sys.argv[1]))
    artifact = Artifact(start.file, start.format, "fp32", sys.stdin.buffer.read())
    engine, batch = runtime(start.runtime), np.zeros(start.shape, np.float32)
    begun = time.perf_counter()
    session = engine.open(artifact, Setup(start.provider, start.threads))
    loaded = time.perf_counter()
    session.infer(session.prepare(batch))
    done = time.perf_counter()
    figures = Cold(1000 * (loaded - begun), 1000 * (done - loaded), _peak_rss_bytes())
    sys.stdout.write(json.dumps(asdict(figures)))


def _peak_rss_bytes() -> int:
    """Of this program alone; what getrusage tells on Linux began in the process that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
