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
from mobilenet_export.runtimes import Runtime, Setup, runtime

_LONGEST_S = 600
_USUAL_PX = 224


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What to load and how: everything that a new process has to be told; without a shape one image is run."""

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
    found = _use_once(start, data)
    if found.returncode:
        said = found.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {found.returncode}"
        raise DamagedInputError(
            f"{start.file}: {start.runtime} did not survive its first inference: {reason}",
            "try another version of the runtime; `mnx compat` knows the bad ones",
        )
    return Cold(**json.loads(found.stdout))


def refuse_crashing(artifact: Artifact, engine: Runtime) -> None:
    """Run a file from anywhere once in a new process: runtimes may crash on damaged ones.

    Raises:
        DamagedInputError: It crashes. What the runtime refuses in order is not told here.
    """
    found = _use_once(ColdStart(artifact.file, artifact.format, engine.name, None, 1, ()), artifact.data)
    if found.returncode < 0:
        raise DamagedInputError(
            f"{artifact.file}: {engine.name} crashes on it (signal {-found.returncode})",
            "the file is damaged or not ours; export it again",
        )


def _use_once(start: ColdStart, data: bytes) -> "subprocess.CompletedProcess[bytes]":
    root = str(Path(mobilenet_export.__file__).parents[1])  # a folder, or the bundle's zip
    search = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    code = "from mobilenet_export.agent.cold import answer; answer()"
    return subprocess.run(
        [sys.executable, "-c", code, json.dumps(asdict(start))],
        input=data,
        capture_output=True,
        timeout=_LONGEST_S,
        env={**os.environ, "PYTHONPATH": search},
        check=False,
    )


def answer() -> None:
    """Do what the argument asks with the file on stdin, and write the figures to stdout."""
    start = ColdStart(**json.loads(sys.argv[1]))
    artifact = Artifact(start.file, start.format, "fp32", sys.stdin.buffer.read())
    engine = runtime(start.runtime)
    begun = time.perf_counter()
    session = engine.open(artifact, Setup(start.provider, start.threads))
    loaded = time.perf_counter()
    side_px = session.resolution_px or _USUAL_PX
    batch = np.zeros(start.shape or (1, 3, side_px, side_px), np.float32)
    ready = time.perf_counter()
    session.infer(session.prepare(batch))
    done = time.perf_counter()
    figures = Cold(1000 * (loaded - begun), 1000 * (done - ready), _peak_rss_bytes())
    sys.stdout.write(json.dumps(asdict(figures)))


def _peak_rss_bytes() -> int:
    """Of this program alone; what getrusage tells on Linux began in the process that started it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
