"""Part of `make test-kill`: exports killed at random moments, two at once, and disks that are full or read-only.

What is killed is `mnx export` in a process of its own, forked from one that has torch loaded. KILL_SEED=N chooses
other moments.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mobilenet_export.agent.check import changed_files, read_recorded
from mobilenet_export.bundle import DOCUMENT, new_bundle, read_bundle
from mobilenet_export.errors import ExitCode, MnxError

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("KILL_SEED", "0"))
NETWORK = (
    "--arch v2 --width 0.25 --resolution 96 --classes 12 --weights none --int8 --formats onnx --io float32"
)
RECIPE = """
name = "few"
summary = "few images and no search, so that the moments of writing weigh more"
calibration_images = 12
held_out_images = 4
check_images = 8
bias_correction = false
channel_splitting = false
equalization = false
range_search = false
rounding = false
"""


class Mnx:
    """A server of processes that run `mnx`."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        names = {"SAID": str(self.said), "TMPDIR": str(self.temporary), "MNX_CACHE": str(folder / "cache")}
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fork_server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | names,
            text=True,
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()

    def start(self, *arguments: object) -> int:
        """Start a process, and return its id."""
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
        self._server.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Wait for the exit code of the process that was started last."""
        return int(self._line())

    def end(self) -> None:
        self._server.kill()
        self._server.communicate()


@pytest.fixture
def mnx(tmp_path: Path) -> Iterator[Mnx]:
    server = Mnx(tmp_path)
    yield server
    server.end()


def export(folder: Path) -> list[str]:
    """The command but for --out."""
    recipe = folder / "few.toml"
    recipe.write_text(RECIPE)
    return ["export", *NETWORK.split(), "--recipe", str(recipe)]


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def assert_whole(folder: Path) -> None:
    bundle = read_bundle(folder)
    assert bundle.artifacts()
    assert changed_files(bundle) == []
    assert read_recorded(bundle).outputs


def writing(place: Path) -> bool:
    """Whether an export has begun to write beside its place."""
    return any(path.name.startswith(".") for path in place.parent.iterdir())


def kill_while_writing(place: Path, process: int, after_s: float) -> None:
    for _ in range(6000):
        if writing(place):
            break
        time.sleep(0.01)
    time.sleep(after_s)
    kill(process)


def kill(process: int) -> None:
    with suppress(ProcessLookupError):  # it was faster than the first one
        os.kill(process, signal.SIGKILL)


def clear(place: Path) -> None:
    for path in [place, *place.parent.glob(".*")]:
        subprocess.run(["rm", "-rf", path], check=True)


def test_a_killed_export_leaves_no_half_bundle_and_the_next_one_works(
    mnx: Mnx, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the kills at any moment, half while files are written; half where a bundle is to be replaced."""
    place, rng, hits = (
        tmp_path / "out" / "bundle",
        random.Random(SEED),
        {"killed": 0, "writing": 0, "whole": 0},
    )
    place.parent.mkdir()
    begun = time.perf_counter()
    mnx.start(*export(tmp_path), "--out", place)
    while not writing(place):
        time.sleep(0.005)
    wrote = time.perf_counter()
    assert mnx.wait() == ExitCode.DONE, mnx.said.read_text()
    lasts_s, writes_s = time.perf_counter() - begun, time.perf_counter() - wrote
    expected = hashes(place)
    for number in range(KILLS):
        if number < KILLS / 2:
            clear(place)
        process = mnx.start(*export(tmp_path), "--out", place, "--force")
        if number % 2:
            kill_while_writing(place, process, rng.uniform(0, writes_s))
        else:
            time.sleep(rng.uniform(0, lasts_s))
            kill(process)
        hits["killed"] += mnx.wait() == -signal.SIGKILL
        hits["writing"] += writing(place)
        if place.exists():
            hits["whole"] += 1
            assert_whole(place)
        if number % 10 == 9:
            mnx.start(*export(tmp_path), "--out", place, "--force")
            assert mnx.wait() == ExitCode.DONE, mnx.said.read_text()
            assert hashes(place) == expected
            assert list(place.parent.iterdir()) == [place]
    assert not [path for path in mnx.temporary.iterdir() if path.is_dir()]
    kept = [path.name for path in (tmp_path / "cache").iterdir()]
    assert len([name for name in kept if not name.startswith(".")]) == 1
    with capsys.disabled():
        print(f"\n{hits['killed']} exports killed, {hits['writing']} while writing; ", end="")  # noqa: T201
        print(f"{hits['whole']} times a bundle was there, whole; seed {SEED}", end="")  # noqa: T201
    assert hits["killed"] >= 0.5 * KILLS


def test_an_old_bundle_that_was_moved_aside_comes_back(tmp_path: Path) -> None:
    """Killed between the two renames of a replacement."""
    code = """
import os, signal, sys
from pathlib import Path
from mobilenet_export.bundle import new_bundle
rename = Path.rename
def once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
with new_bundle(Path(sys.argv[1]), force=True) as folder:
    (folder / "mnx.json").write_text("new")
"""
    place = tmp_path / "bundle"
    place.mkdir()
    (place / DOCUMENT).write_text("old")
    done = subprocess.run([sys.executable, "-c", code, place], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not place.exists()
    with pytest.raises(MnxError, match="exists"), new_bundle(place, force=False):
        pytest.fail("the block must not run")
    assert (place / DOCUMENT).read_text() == "old"
    with new_bundle(place, force=True) as folder:
        (folder / DOCUMENT).write_text("newer")
    assert list(tmp_path.iterdir()) == [place]


# Two at once

PAIR = """
import sys, time
from pathlib import Path
from mobilenet_export.bundle import new_bundle
from mobilenet_export.errors import explain_error
try:
    with new_bundle(Path(sys.argv[1]), force=sys.argv[2] == "force") as folder:
        (folder / "mnx.json").write_text(sys.argv[3])
        (folder / "model").write_text(sys.argv[3])
        sys.stdout.write("ready"); sys.stdout.flush()
        sys.stdin.readline()
except Exception as error:
    message, hint, code = explain_error(error)
    sys.stderr.write(message)
    sys.exit(code)
"""


@pytest.mark.parametrize("force", ["force", "keep"])
def test_of_two_that_write_one_place_at_once_one_wins_or_both_are_told(force: str, tmp_path: Path) -> None:
    """20 times to the instant; what stands there in the end is of one of them."""
    place = tmp_path / "bundle"
    for number in range(20):
        clear(place)
        if force == "force":
            place.mkdir()
            (place / DOCUMENT).write_text("old")
        names = ["one", "two"]
        pipe = subprocess.PIPE
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", PAIR, place, force, name], stdin=pipe, stdout=pipe, stderr=pipe
            )
            for name in names
        ]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.read(5) == b"ready"
        for process in pair:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
        said = [process.communicate(timeout=60)[1].decode() for process in pair]
        codes = [process.returncode for process in pair]
        assert set(codes) <= {ExitCode.DONE, ExitCode.USAGE}, said
        winners = [name for name, code in zip(names, codes, strict=True) if code == ExitCode.DONE]
        assert len(winners) == 1 or force == "force", (number, codes)
        assert all("exists by now" in words for words, code in zip(said, codes, strict=True) if code)
        assert (place / "model").read_text() == (place / DOCUMENT).read_text()
        assert (place / "model").read_text() in winners
        assert list(tmp_path.iterdir()) == [place]


def test_of_two_exports_into_one_place_one_wins(tmp_path: Path, mnx: Mnx) -> None:
    place = tmp_path / "out" / "bundle"
    place.parent.mkdir()
    command = [
        sys.executable,
        "-c",
        "from mobilenet_export.cli import main; main()",
        *export(tmp_path),
        "--out",
        place,
    ]
    pipe = subprocess.PIPE
    pair = [subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[1] for process in pair]
    assert sorted(process.returncode for process in pair) == [ExitCode.DONE, ExitCode.USAGE], said
    assert any("exists" in words for words in said)
    assert_whole(place)
    assert list(place.parent.iterdir()) == [place]


# Disks


@contextmanager
def disk(folder: Path, options: str) -> Iterator[Path]:
    """A real file system; skips where it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root and the right to")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kib", [16, 200, 900, 1400])
def test_a_full_disk_is_said_and_leaves_nothing(kib: int, mnx: Mnx, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", f"size={kib}k") as folder:
        mnx.start(*export(tmp_path), "--out", folder / "bundle")
        assert mnx.wait() == ExitCode.MISSING
        assert "error: the disk ran full" in mnx.said.read_text()
        assert "Traceback" not in mnx.said.read_text()
        assert list(folder.iterdir()) == []


def test_a_read_only_disk_is_said_before_any_work(mnx: Mnx, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "ro") as folder:
        begun = time.perf_counter()
        mnx.start(*export(tmp_path), "--out", folder / "bundle")
        assert mnx.wait() == ExitCode.MISSING
        assert time.perf_counter() - begun < 5
        assert "error: cannot write" in mnx.said.read_text()


@pytest.mark.parametrize("options", ["ro", "size=8k"])
def test_a_cache_on_a_bad_disk_is_one_line_and_no_failure(options: str, tmp_path: Path) -> None:
    with disk(tmp_path / "cache", options):
        server = Mnx(tmp_path)
        server.start(*export(tmp_path), "--out", tmp_path / "bundle")
        assert server.wait() == ExitCode.DONE
        server.end()
        assert "cache: cannot write" in server.said.read_text()
        assert list((tmp_path / "cache").iterdir()) == []
    assert_whole(tmp_path / "bundle")


@pytest.mark.parametrize("options", ["ro", "size=8k"])
def test_images_drawn_to_a_bad_disk_are_none(options: str, mnx: Mnx, tmp_path: Path) -> None:
    with disk(tmp_path / "disk", options) as folder:
        mnx.start("calibration", "synth", "--n", "16", "--out", folder / "set")
        assert mnx.wait() == ExitCode.MISSING, mnx.said.read_text()
        assert "Traceback" not in mnx.said.read_text()
        assert list(folder.iterdir()) == []
