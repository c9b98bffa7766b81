"""`mnx pick`: the front, the budget, the sweep here and on a device, what is kept, and top-1 over Dask."""

import csv
import dataclasses
import importlib.util
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_IMAGES
from hypothesis import given
from hypothesis import strategies as st
from sshd import NEEDS, SSHD, serve

from mobilenet_export import cli, images
from mobilenet_export.artifact import Artifact
from mobilenet_export.candidate import Budget, Candidate, Measurement, Point, Top1, front, preference
from mobilenet_export.errors import ExitCode
from mobilenet_export.pipeline import accuracy
from mobilenet_export.pipeline.export import ExportRequest, export
from mobilenet_export.pipeline.figures import FigureCache
from mobilenet_export.pipeline.pick import Grid, PickRequest, _confirm, pick
from mobilenet_export.pipeline.reference import Origin, capture, open_reference
from mobilenet_export.pipeline.trial import Network, network_source
from mobilenet_export.published import read_published
from mobilenet_export.runtimes.onnxruntime import OnnxSession
from mobilenet_export.spec import find_spec, resize_spec, spec_paths

SMALL = ("--arch", "v2", "--widths", "0.35", "--resolutions", "96,128")
SMALLEST = ("--arch", "v2", "--widths", "0.35", "--resolutions", "96", "--runtime", "onnxruntime")
Mnx = Callable[..., "Printed"]


@dataclasses.dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def mnx(capfd: pytest.CaptureFixture[str]) -> Mnx:
    """Run `mnx pick` in this process."""

    def run(*arguments: object) -> Printed:
        capfd.readouterr()
        code = cli.run(["pick", *map(str, arguments)])
        return Printed(code, *capfd.readouterr())

    return run


def candidate(
    ms: float = 1.0, mb: float = 1.0, mib: float = 50.0, top1: float | None = 60.0, *, of_fp32: bool = False
) -> Candidate:
    point = Point(f"{ms} {mb} {mib} {top1}", "a.onnx", "int8" if of_fp32 else "fp32", "onnxruntime", "CPU")
    known = None if top1 is None else Top1(top1, "a paper", of_fp32, 0, top1, top1)
    return Candidate(point, Measurement(ms, 1.1 * ms, int(mb * 1e6), int(mib * 2**20)), known)


# Figures of few digits, so that ties are as common as in life.
CANDIDATES = st.lists(
    st.builds(
        candidate,
        st.floats(0.01, 20).map(lambda x: round(x, 1)),
        st.floats(0.1, 20).map(lambda x: round(x, 1)),
        st.integers(50, 60),
        st.none() | st.integers(40, 75),
        of_fp32=st.booleans(),
    ),
    max_size=30,
)


# The front and the budget


@given(CANDIDATES)
def test_a_dominated_point_is_never_returned_and_none_else_is_left_out(found: list[Candidate]) -> None:
    best = front(found)
    known = [one for one in found if one.top1 is not None]
    assert not [one for one in best for other in known if other.dominates(one)]
    for one in known:
        assert one in best or any(other.dominates(one) for other in best)
    assert bool(best) == bool(known)


@given(CANDIDATES)
def test_dominance_is_what_the_figures_say(found: list[Candidate]) -> None:
    for one in found:
        for other in found:
            if one.top1 is None or other.top1 is None:
                continue
            ours, theirs = one.measured, other.measured
            as_good = (
                round(ours.p50_ms, 2) <= round(theirs.p50_ms, 2)
                and round(ours.size_mb, 2) <= round(theirs.size_mb, 2)
                and round(ours.peak_mib) <= round(theirs.peak_mib)
                and one.top1.percent >= other.top1.percent
            )
            if one.dominates(other):
                assert as_good
                assert not other.dominates(one)
                assert not (one.top1.of_fp32 and not other.top1.of_fp32)


@given(CANDIDATES, st.integers(1, 20), st.integers(1, 20), st.integers(40, 75))
def test_what_would_win_fits_and_none_that_fits_is_more_accurate(
    found: list[Candidate], ms: int, mb: int, top1: int
) -> None:
    budget = Budget(ms=ms, mb=mb, top1_percent=top1)
    fits = [one for one in front(found) if budget.excess(one) <= 1]
    for one in found:
        known = one.top1 is not None and one.top1.percent >= top1
        within = one.measured.high_ms <= ms and one.measured.size_mb <= mb
        assert (budget.excess(one) <= 1) == (known and within)
    if fits:
        winner = min(fits, key=preference)
        assert all(winner.top1.percent >= one.top1.percent for one in fits if winner.top1 and one.top1)


@given(CANDIDATES)
def test_the_budget_that_a_miss_needs_admits_it(found: list[Candidate]) -> None:
    tight = Budget(ms=0.005, mb=0.05, mib=10, top1_percent=90)
    for one in found:
        if one.top1 is not None:
            assert tight.widened(one).excess(one) <= 1


def test_memory_that_the_system_does_not_tell_is_within_no_budget() -> None:
    unknown = dataclasses.replace(candidate(), measured=Measurement(1, 1, 1, 0))
    assert Budget(mib=1000).excess(unknown) == np.inf
    assert Budget(ms=2).excess(unknown) <= 1


class Again:
    """Stands for the second measurement: figures by point."""

    def __init__(self, figures: dict[Point, Measurement]) -> None:
        self.figures = figures
        self.asked: list[Point] = []

    def again(self, _shelf: object, point: Point) -> Measurement:
        self.asked.append(point)
        return self.figures[point]


def test_what_is_over_the_budget_when_measured_again_loses_to_the_next() -> None:
    found = [candidate(9, 3, top1=70), candidate(5, 2, top1=65), candidate(2, 1, top1=60)]
    again = Again({one.point: one.measured for one in found})
    again.figures[found[0].point] = Measurement(9.9, 10.1, 3_000_000, 1)
    shelves: Any = dict.fromkeys(again.figures)
    winner, rejected = _confirm(Budget(ms=10), found, again, shelves)  # type: ignore[arg-type]
    assert winner == found[1]
    assert [one.point for one in rejected] == [found[0].point]
    assert again.asked == [found[0].point, found[1].point]


# What was published


def test_published_figures_are_of_networks_that_can_be_built() -> None:
    for published in read_published():
        spec = find_spec(published.arch)
        for (width, px), percent in published.top1_percent.items():
            resize_spec(spec, width, px, None)
            assert 30 < percent < 80
        assert spec.weights is not None
        assert published.top1_percent[1.0, 224] == pytest.approx(spec.weights.top1_percent, abs=0.1)
        ranked = sorted(published.top1_percent.items())
        for (width, px), percent in ranked:  # wider is better at each size, larger at each width
            assert all(
                p < percent for (w, r), p in ranked if (w < width and r == px) or (w == width and r < px)
            )


def test_published_figures_are_no_variants() -> None:
    assert not [path for path in spec_paths() if "published" in path.parts]


@pytest.mark.parametrize("network", [Network("v1", 0.25, 160), Network("v2", 0.35, 224)], ids=str)
def test_a_network_that_was_captured_small_is_the_one_captured_at_its_size(network: Network) -> None:
    origin = Origin(network.spec, weights="none")
    full, grown = capture(origin, open_reference(origin)).graph, network_source(network).graph
    assert grown.shapes == full.shapes
    assert grown.name == full.name
    for one, other in zip(grown.nodes, full.nodes, strict=True):
        for field in dataclasses.fields(one):
            ours, theirs = getattr(one, field.name), getattr(other, field.name)
            assert np.shape(ours) == np.shape(theirs) if field.name in ("weight", "bias") else ours == theirs


# The whole command


@pytest.mark.slow
def test_a_pick_and_the_command_that_builds_it(mnx: Mnx, tmp_path: Path) -> None:
    plot = tmp_path / "pick.png"
    printed = mnx(*SMALL, "--max-ms", 500, "--max-mb", 3, "--json", "--plot", plot)
    assert printed.code == 0, printed.err
    document = printed.document
    assert len(document["points"]) == 2 * 2 * 2
    assert document["recalled"] == 0
    assert plot.stat().st_size > 10_000
    winner = document["winner"]
    assert (winner["network"], winner["precision"]) == ("v2 0.35 128", "int8")
    assert winner["top1"]["percent"] == 50.8
    assert winner["top1"]["of_fp32"]
    assert winner["within_budget"]
    assert f"next: {document['command']}" in printed.err

    again = mnx(*SMALL, "--max-ms", 500, "--max-mb", 3, "--json")
    assert again.document["recalled"] == 8
    assert again.document["points"] == document["points"]

    command = shlex.split(document["command"].replace("--checkpoint YOUR_WEIGHTS", "--weights none"))
    assert command.pop(0) == "mnx"
    assert cli.run([*command, "--recipe", "int8-fast", "--out", str(tmp_path / "built")]) == 0
    assert (tmp_path / "built" / winner["file"]).stat().st_size == winner["size_bytes"]


@pytest.mark.slow
def test_every_size_is_that_of_an_exports_file(tmp_path: Path) -> None:
    grid = Grid(("v1",), (0.25,), (128,))
    report = pick(PickRequest(Budget(), grid))
    request = ExportRequest(
        Network("v1", 0.25, 128).spec,
        tmp_path / "v1",
        ("fp32", "int8"),
        ("onnx", "tflite"),
        FEW_IMAGES,
        weights="none",
    )
    written = {artifact.file: len(artifact.data) for artifact in export(request).artifacts}
    sizes = {one.point.file: one.measured.size_bytes for one in report.candidates}
    assert sizes == {name: written[name] for name in sizes}
    assert len(sizes) == 4


def test_nothing_within_the_budget_names_what_would_be(mnx: Mnx) -> None:
    printed = mnx(*SMALLEST, "--max-mb", 1, "--min-top1", 50)
    assert printed.code == ExitCode.CHECK_FAILED
    assert "failed: nothing is within the budget; the nearest:" in printed.err
    (line,) = [line for line in printed.err.splitlines() if "v2 0.35 96 int8 in onnxruntime: needs " in line]
    options = line.partition("needs ")[2].split()
    assert mnx(*SMALLEST, *options).code == 0


def test_a_damaged_entry_is_measured_anew(mnx: Mnx, cache: Path) -> None:
    small = (*SMALLEST, "--json")
    assert mnx(*small).document["recalled"] == 0
    first, second = sorted((cache / "figures").glob("*.json"))
    first.write_bytes(first.read_bytes()[:40])
    assert mnx(*small).document["recalled"] == 1
    second.write_text(second.read_text().replace('"p50_ms": ', '"p50_ms": 1'))
    assert mnx(*small).document["recalled"] == 1
    assert mnx(*small).document["recalled"] == 2
    assert mnx(*small, "--no-cache").document["recalled"] == 0


@pytest.mark.parametrize("kind", [None, "null", "[]", '{"format": 1}', "\x00"])
def test_what_lies_in_an_entrys_place_is_not_believed(tmp_path: Path, kind: str | None) -> None:
    cache, facts = FigureCache(tmp_path), {"a": (1, 2)}
    cache.keep(facts, {"right": 3})
    assert cache.recall(facts) == {"right": 3}
    (entry,) = (tmp_path / "figures").iterdir()
    if kind is None:
        entry.unlink()
        entry.mkdir()
    else:
        entry.write_text(kind)
    assert cache.recall(facts) is None
    cache.keep(facts, {"right": 3})
    assert FigureCache(None).recall(facts) is None


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_there(mnx: Mnx, cache: Path) -> None:
    arguments = (*SMALL, "--runtime", "onnxruntime", "--json")
    code = "import sys; from mobilenet_export.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "pick", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 120
        while not list((cache / "figures").glob("*.json")):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    printed = mnx(*arguments)
    assert printed.code == 0, printed.err
    assert 1 <= printed.document["recalled"] <= 4
    assert len(printed.document["points"]) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (("--arch", "v3"), 2, "unknown arch: v3", "did you mean v"),
        (("--widths", "0.3"), 2, "no top-1 was published of any of these sizes", "0.25, 0.5, 0.75, 1"),
        (
            ("--widths", "0.25", "--resolutions", "100"),
            2,
            "no top-1 was published",
            "widths 0.35, 0.5, 0.75, 1, 1.3, 1.4",
        ),
        (("--widths", "x"), 2, "--widths x: not numbers", "--widths 0.5,1"),
        (("--widths", ","), 2, "--widths names none", "--widths 0.5,1"),
        (
            ("--resolutions", "100"),
            2,
            "no top-1 was published of any of these sizes",
            "at 128, 160, 192, 224 px",
        ),
        (("--max-ms", "0"), 2, "--max-ms 0: must be above 0", "--max-ms 15"),
        (("--max-ms", "nan"), 2, "--max-ms nan: must be above 0", "--max-ms 15"),
        (("--precision", "int4"), 2, "unknown precision: int4", "did you mean int8"),
        (("--runtime", "onx"), 2, "unknown runtime", "onnxruntime"),
        (("--data", "."), 2, "--data tells the top-1 of bundles", "mnx pick BUNDLE"),
        (("--dask", "tcp://x"), 2, "are of --data", "--data DIR"),
        (("no-such-bundle", "--data", "."), 2, "is not a bundle", "mnx export"),
        (("no-such-bundle",), 2, "the top-1 of your bundles is not known", "--data DIR"),
        (("--plot", "a.pdf"), 2, "neither .png nor .svg", "name it a.png or a.svg"),
        (("--device", "/"), 2, "", ""),
    ],
)
def test_errors_and_hints(mnx: Mnx, arguments: tuple[str, ...], code: int, error: str, hint: str) -> None:
    printed = mnx(*arguments)
    assert printed.code == code
    said, told = printed.err.splitlines()
    assert said.startswith("error: ")
    assert error in said
    assert told.startswith("hint: ")
    assert hint in told


# The user's own bundles


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bundles, and images that the larger network's fp32 file labels, but for a quarter of them."""
    folder = tmp_path_factory.mktemp("own")
    for name, width in (("small", 0.25), ("large", 0.35)):
        spec = resize_spec(find_spec("v2"), width, 96, None)
        export(
            ExportRequest(
                spec,
                folder / name,
                ("fp32", "int8"),
                ("onnx", "tflite"),
                FEW_IMAGES,
                weights="none",
                io=("float32",),
            )
        )
    _, check = images.default_set()
    (folder / "data").mkdir()
    for name in check.names:
        images.save_crop(check, name, (0, 0, 256, 200), folder / "data" / f"{Path(name).stem}.png")
    shown = images.ImageSet.open(folder / "data")
    (fp32,) = (folder / "large").glob("*fp32.onnx")
    session = OnnxSession(Artifact(fp32.name, "onnx", "fp32", fp32.read_bytes()))
    ((names, batch),) = images.batches(shown, spec.preprocess, len(shown))
    best = session.run(batch).argmax(axis=1)
    with (folder / "labels.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("file", "label"))
        rows.writerows(
            (n, (int(c) + (i % 4 == 0)) % 1000) for i, (n, c) in enumerate(zip(names, best, strict=True))
        )
    return {name: folder / name for name in ("small", "large", "data", "labels.csv")}


def of_own(own: dict[str, Path]) -> tuple[object, ...]:
    return own["small"], own["large"], "--data", own["data"], "--labels", own["labels.csv"]


@pytest.mark.slow
def test_own_bundles_are_judged_by_their_own_top1(
    mnx: Mnx, own: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = mnx(*of_own(own), "--json")
    assert printed.code == 0, printed.err
    document = printed.document
    assert len(document["points"]) == 8
    fp32 = [one for one in document["points"] if one["network"] == "large" and one["precision"] == "fp32"]
    for one in fp32:
        count = one["top1"]["images"]
        assert one["top1"]["percent"] == pytest.approx(100 * (count - -(-count // 4)) / count)
        assert one["top1"]["low"] < one["top1"]["percent"] < one["top1"]["high"]
        assert one["top1"]["source"] == f"measured on {count} images of data"
        assert not one["top1"]["of_fp32"]
    assert document["winner"]["network"] == "large"
    assert document["command"].startswith("mnx deploy HOST ")
    monkeypatch.setattr(accuracy, "CHUNK", 7)
    again = mnx(*of_own(own), "--json")
    assert again.document["points"] == document["points"]
    strict = mnx(*of_own(own), "--min-top1", 74)  # of so few images the interval reaches far below
    assert strict.code == ExitCode.CHECK_FAILED


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="pip install distributed")
def test_a_dask_cluster_counts_what_this_computer_counts(
    own: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own: a cluster's threads and sockets end when they like."""
    script = tmp_path / "cluster.py"
    script.write_text(
        "import sys\n"
        "from distributed import LocalCluster\n"
        "from mobilenet_export import cli\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:\n"
        "        arguments = sys.argv[1:] + ['--dask', cluster.scheduler_address]\n"
        "        code = cli.run(arguments)\n"
        "        with cluster.get_client() as client:\n"
        "            ran = client.run(lambda dask_worker: dask_worker.state.executed_count)\n"
        "        print(min(ran.values()), len(ran), file=sys.stderr)\n"
        "    sys.exit(code)\n"
    )
    arguments = ["pick", *map(str, of_own(own)), "--json"]
    root = str(Path(cli.__file__).parents[2])
    points = {}
    for name, command in (
        ("here", ["-c", "from mobilenet_export.cli import main; main()"]),
        ("dask", [str(script)]),
    ):
        environment = {**os.environ, "PYTHONPATH": root, "MNX_CACHE": str(tmp_path / name)}
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)["points"]
        if name == "dask":
            least, workers = map(int, done.stderr.splitlines()[-1].split())
            assert workers == 2
            assert least > 0
        points[name] = {(one["file"], one["runtime"]): one["top1"] for one in found}
    assert points["here"] == points["dask"]
    assert len(points["dask"]) == 8


@pytest.mark.skipif(importlib.util.find_spec("distributed") is None, reason="pip install distributed")
def test_a_scheduler_that_does_not_answer(own: dict[str, Path], tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    code = "from mobilenet_export.cli import main; main()"
    arguments = ["pick", *map(str, of_own(own)), "--dask", f"tcp://127.0.0.1:{port}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == ExitCode.MISSING
    assert f"error: no Dask scheduler at tcp://127.0.0.1:{port}" in done.stderr
    assert done.stderr.splitlines()[-1] == "hint: `dask scheduler` prints its address"


def test_dask_that_is_not_installed_is_said(
    mnx: Mnx, own: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    printed = mnx(*of_own(own), "--dask", "tcp://127.0.0.1:1")
    assert printed.code == ExitCode.MISSING
    assert printed.err == "error: distributed is not installed\nhint: pip install 'mobilenet-export[dask]'\n"


# On a device


@pytest.mark.slow
@pytest.mark.skipif(SSHD is None, reason=NEEDS)
def test_a_pick_on_a_device_leaves_nothing_there(mnx: Mnx, tmp_path: Path) -> None:
    home = tmp_path / "ho me"
    (home / "bin").mkdir(parents=True)
    python = home / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    path = f"{home}/bin:/usr/bin:/bin"
    login = f'cd "{home}"; exec env -i HOME="{home}" PATH="{path}" sh -c "$SSH_ORIGINAL_COMMAND"\n'
    with serve(tmp_path / "etc", login) as server:
        server.host("pi")
        options = ("--device", "pi", "--ssh-config", server.config, *SMALL, "--json")
        printed = mnx(*options)
        assert printed.code == 0, printed.err
        assert printed.document["place"].startswith("pi: ")
        assert {one["runtime"] for one in printed.document["points"]} == {"onnxruntime", "litert"}
        assert mnx(*options).document["recalled"] == 8
        assert mnx(*options, "--runtime", "litert").document["recalled"] == 4
        missing = mnx(*options, "--runtime", "tflite_runtime")
        assert missing.code == ExitCode.USAGE
        assert "error: pi: tflite_runtime is not there" in missing.err
        assert not [path for path in (home / "mnx").rglob("*") if path.is_file()]
