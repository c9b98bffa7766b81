"""Latency: the statistics, the turns that rows take, and what `mnx bench` and `mnx doctor` say."""

import dataclasses
import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import FEW_IMAGES

from mobilenet_export.artifact import Precision
from mobilenet_export.checks.latency import Contestant, Plan, race
from mobilenet_export.cli import run
from mobilenet_export.cli.bench import print_latency
from mobilenet_export.errors import ExitCode
from mobilenet_export.latency import Cold, LatencyReport, LatencyRow, Minute, explain, ranks
from mobilenet_export.machine import Condition, Machine, condition, this_machine
from mobilenet_export.pipeline import ExportRequest, diagnose, export
from mobilenet_export.spec import find_spec, resize_spec

X86 = Machine("Linux", "x86_64", "", "x86", 2, ("avx2",), 0, "3.11")


def row(
    file: str, rounds: Sequence[Sequence[float]], precision: Precision = "fp32", **more: Any
) -> LatencyRow:
    samples = tuple(tuple(one) for one in rounds)
    return LatencyRow(file, precision, "onnxruntime", "CPU", 1, 1, samples, **more)


# Statistics


def test_percentiles_are_the_nearest_rank() -> None:
    hundred = row("a", [[float(n) for n in range(1, 101)]])
    assert [hundred.percentile_ms(percent) for percent in (0, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]
    assert row("a", [[7.0]]).percentile_ms(50) == 7


@pytest.mark.parametrize(("rounds", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (25, 8, 18)])
def test_the_interval_of_a_median_is_that_of_the_tables(rounds: int, low: int, high: int) -> None:
    """Order statistics of the 95 % interval. Source: Conover 1999, table A3 and section 3.2."""
    ratio = row("ours", [[1.0]] * rounds).speed_over(
        row("theirs", [[float(n)] for n in range(1, rounds + 1)])
    )
    assert (ratio.low, ratio.high) == (low, high)


def test_the_interval_holds_the_true_ratio_as_often_as_it_says() -> None:
    """1.1 in 20 rounds of noise that is skewed as latency is; 95 % of 400 are 380, with a deviation of 4.4."""
    source, held = random.Random(0), 0
    for _ in range(400):
        slow = [[1.1 * math.exp(abs(source.gauss(0, 0.1)))] for _ in range(20)]
        fast = [[math.exp(abs(source.gauss(0, 0.1)))] for _ in range(20)]
        ratio = row("fast", fast).speed_over(row("slow", slow))
        held += ratio.low <= 1.1 <= ratio.high
    assert held >= 366


def test_rows_are_compared_round_by_round() -> None:
    """A machine that gets three times slower half-way slows both, and changes nothing between them."""
    drift = [1.0] * 10 + [3.0] * 10
    first = row("first", [[2 * factor] * 5 for factor in drift])
    second = row("second", [[1.9 * factor] * 5 for factor in drift])
    ratio = second.speed_over(first)
    assert ratio.times == pytest.approx(2 / 1.9)
    assert ratio.is_clear


def test_rows_that_cannot_be_told_apart_share_a_rank() -> None:
    noisy = [[0.8], [1.2]] * 10
    rows = [
        row("slow", [[3.0]] * 20),
        row("a", noisy),
        row("fast", [[0.1]] * 20),
        row("b", noisy[1:] + noisy[:1]),
    ]
    assert ranks(rows) == ["4", "2–3", "1", "2–3"]
    assert "cannot be told apart" in explain(rows, X86)[-1]
    assert explain([rows[0], rows[2]], X86) == ()


def test_int8_that_is_slower_than_its_fp32_is_explained() -> None:
    fp32, other = row("a_fp32.onnx", [[1.0]] * 20), row("b_fp32.onnx", [[9.0]] * 20)
    slow = row("a_int8.onnx", [[1.5]] * 20, "int8", unfused=("Conv stem",))
    (note,) = explain([fp32, other, slow], X86)
    assert "a_int8.onnx in onnxruntime:CPU, 1 thread is slower than fp32, 0.67×: no VNNI" in note
    assert "1 nodes run in float: Conv stem" in note
    assert explain([fp32, row("a_int8.onnx", [[0.5]] * 20, "int8")], X86) == ()


def test_nodes_that_fell_back_are_named() -> None:
    some = row("a.onnx", [[1.0]], elsewhere=("Softmax probabilities",), nodes=2)
    (note,) = explain([some], X86)
    assert "1 of 2 nodes fell back to the CPU: Softmax probabilities" in note
    (note,) = explain([dataclasses.replace(some, nodes=1)], X86)
    assert "CPU takes none of its 1 nodes" in note


def test_a_report_keeps_every_sample() -> None:
    first = row("a.onnx", [[1.0, 2.0], [3.0, 4.0]], cold=Cold(10, 20, 2**20))
    report = LatencyReport(X86, (first, row("b.onnx", [[2.0, 4.0], [6.0, 8.0]])))
    table = json.loads(json.dumps(report.to_json()))
    assert table["rows"][0]["rounds_ms"] == [[1, 2], [3, 4]]
    assert table["rows"][1]["ratio"] == 0.5
    assert table["rows"][0]["peak_rss_bytes"] == 2**20
    assert table["rows"][1]["load_ms"] is None


# Turns


class Recorder:
    """A session that keeps the order in which it and others run."""

    runtime, provider, resolution_px = "none", "none", None

    def __init__(self, name: str, turns: list[str]) -> None:
        self.name, self.turns = name, turns

    def prepare(self, batch: np.ndarray) -> np.ndarray:
        return batch

    def infer(self, _feed: np.ndarray) -> None:
        self.turns.append(self.name)

    def run(self, batch: np.ndarray) -> np.ndarray:
        return batch


def test_rows_take_turns_in_an_order_that_changes() -> None:
    turns: list[str] = []
    rows = [Contestant(Recorder(name, turns), None) for name in "abc"]
    warm: list[int] = []
    race(rows, Plan(runs=20, block=2), lambda _rounds: warm.append(len(turns)))
    assert [len(one.rounds_ms) for one in rows] == [10, 10, 10]
    assert all(len(samples) == 2 for one in rows for samples in one.rounds_ms)
    measured = "".join(turns[-10 * 3 * 3 :])  # one that warms the caches, two that count
    orders = {measured[start : start + 9 : 3] for start in range(0, len(measured), 9)}
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 1
    assert len(warm) == 10


def test_a_run_by_time_keeps_a_median_of_each_minute() -> None:
    rows = [Contestant(Recorder(name, []), None) for name in "ab"]
    minutes = race(rows, Plan(minutes=0.002))
    assert [len(minute.medians_ms) for minute in minutes] == [2]
    assert len(rows[0].rounds_ms) == len(rows[1].rounds_ms) > 1


# Machines


def test_this_machine_is_known() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.architecture
    assert machine.int8
    condition()


@pytest.mark.parametrize(
    ("architecture", "features", "words"),
    [
        ("x86_64", ("avx2",), "no VNNI"),
        ("x86_64", ("avx2", "avx512_vnni"), "avx512_vnni"),
        ("aarch64", (), "no dotprod"),
        ("aarch64", ("asimddp",), "dotprod"),
        ("aarch64", ("asimddp", "i8mm"), "i8mm: multiplies matrices"),
        ("riscv64", (), "unknown"),
    ],
)
def test_what_a_cpu_means_for_int8(architecture: str, features: tuple[str, ...], words: str) -> None:
    assert words in Machine("Linux", architecture, "", "", 4, features, 0, "3.11").int8


# Commands


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bench") / "small"
    spec = resize_spec(find_spec("v2"), 0.25, 96, None)
    export(ExportRequest(spec, out, ("fp32", "int8"), ("onnx", "tflite"), FEW_IMAGES, weights="none"))
    return out


def bench(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run(["bench", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_files_of_two_bundles_and_torch_are_measured_in_one_run(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other")
    names = ("--runtime", "onnxruntime", "--runtime", "torch", "--runs", 10)
    rows = bench(capsys, bundle, other, *names)["rows"]
    assert [row["file"] for row in rows] == [
        *(
            f"{folder}/mobilenet_v2_025_96_{p}.onnx"
            for folder in ("small", "other")
            for p in ("fp32", "int8", "int8_io_uint8")
        ),
        "(eager)",
    ]
    assert rows[-1]["runtime"] == "torch"


def test_a_single_file_in_a_bundle_or_in_none_is_measured(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bundle / "mobilenet_v2_025_96_int8.onnx"
    found = bench(capsys, file, "--runs", 5, "--batch", 3)
    assert found["rows"][0]["batch"] == 3
    assert found["split"]
    alone = shutil.copy(file, tmp_path / "alone_int8.onnx")
    found = bench(capsys, alone, "--runs", 5)
    assert found["split"] is None
    assert found["rows"][0]["precision"] == "int8"


def test_the_tables_can_be_read(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(bundle), "--runs", "10", "--threads", "1,2"]) == 0
    out = capsys.readouterr().out
    assert "from photo to answer, first row: decode " in out
    assert all(len(line) <= 120 for line in out.splitlines())
    assert run(["bench", str(bundle / "mobilenet_v2_025_96_int8.tflite"), "--minutes", "0.01"]) == 0
    assert "inferences of each" in capsys.readouterr().out


def test_a_run_by_time_shows_the_first_minute_beside_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    cool, hot = Condition(50, 1800, "ondemand", False), Condition(81, 1200, "ondemand", True)
    minutes = (Minute((10.0,), cool), Minute((12.0,), hot), Minute((15.0,), hot))
    print_latency(LatencyReport(X86, (row("a.onnx", [[10.0]] * 20),), minutes=minutes))
    out = capsys.readouterr().out
    assert "10.00 ms" in out
    assert "15.00 ms  +50.0 %" in out
    assert "▁" in out
    assert "throttled in minutes 2, 3" in out


def test_few_rounds_rank_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("fast", [[1.0]] * 5), row("slow", [[2.0]] * 5)]
    assert ranks(rows) == ["1–2", "1–2"]
    assert any("fewer than 6 rounds" in note for note in explain(rows, X86))
    assert rows[1].to_json(rows[0])["ratio_interval"] is None


def test_more_threads_than_cores_are_remarked_upon() -> None:
    crowded = dataclasses.replace(row("a.onnx", [[1.0]] * 20), threads=5)
    assert explain([crowded], X86) == ("5 threads on 2 cores wait for each other",)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--threads", "0"], ExitCode.USAGE, "--threads 0: must be 1 or more"),
        (["--threads", "9999"], ExitCode.USAGE, "this machine has"),
        (["--threads", "1,x"], ExitCode.USAGE, "not whole numbers"),
        (["--runs", "0"], ExitCode.USAGE, "must be above 0"),
        (["--minutes", "-1"], ExitCode.USAGE, "must be above 0"),
        (["--minutes", "nan"], ExitCode.USAGE, "must be above 0"),
        (["--batch", "0"], ExitCode.USAGE, "must be above 0"),
        (["--runtime", "onnxrt"], ExitCode.USAGE, "did you mean onnxruntime?"),
        (["--runtime", "litert:xnpack"], ExitCode.USAGE, "did you mean xnnpack?"),
        (["--runtime", "onnxruntime:qnn"], ExitCode.MISSING, "built without it"),
        (["--runtime", "tflite-runtime"], ExitCode.MISSING, "pip install tflite-runtime"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bundle: Path, arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", str(bundle), *arguments]) == code
    assert words in capsys.readouterr().err


def test_files_that_are_gone_changed_or_foreign_are_named(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(bundle, tmp_path / "spoilt")
    assert run(["bench", str(tmp_path / "nothing")]) == ExitCode.USAGE
    (place / "mobilenet_v2_025_96_fp32.onnx").write_bytes(b"foreign")
    assert run(["bench", str(place)]) == ExitCode.DAMAGED
    (place / "mobilenet_v2_025_96_fp32.onnx").unlink()
    assert run(["bench", str(place)]) == ExitCode.DAMAGED
    (tmp_path / "own.onnx").write_bytes(b"foreign")
    assert run(["bench", str(tmp_path / "own.onnx")]) == ExitCode.DAMAGED
    assert run(["bench", str(bundle / "labels.txt")]) == ExitCode.USAGE
    said = capsys.readouterr().err
    for words in ("no such file or folder", "its sha256 differs", "not there", "own.onnx", "labels.txt"):
        assert words in said


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 32, 48), (1, 10)])
def test_a_model_of_another_input_is_named(
    shape: tuple[int, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from onnx import TensorProto, helper, save  # noqa: PLC0415

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    save(model, tmp_path / "other_fp32.onnx")
    assert run(["bench", str(tmp_path / "other_fp32.onnx")]) == ExitCode.USAGE
    assert "other_fp32.onnx does not take images" in capsys.readouterr().err


def test_an_interrupted_measurement_ends_at_once(bundle: Path) -> None:
    command = [str(Path(sys.executable).parent / "mnx"), "bench", str(bundle), "--minutes", "5"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(6)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "error: interrupted" in said
    assert "Traceback" not in said


def test_torch_needs_a_bundle(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = shutil.copy(bundle / "mobilenet_v2_025_96_fp32.onnx", tmp_path / "alone_fp32.onnx")
    assert run(["bench", str(alone), "--runtime", "torch", "--runtime", "onnxruntime"]) == ExitCode.USAGE
    assert "lies in no bundle, so torch has no original" in capsys.readouterr().err


def test_the_doctor_tries_everything(capsys: pytest.CaptureFixture[str]) -> None:
    found = {(one.runtime, one.provider): one for one in diagnose().findings}
    for name in (("onnxruntime", "CPU"), ("litert", "XNNPACK"), ("litert", "builtin"), ("torch", "CPU")):
        assert found[name].works, name
        assert found[name].version
    assert not found["onnxruntime", "ACL"].works
    assert "gone" in found["onnxruntime", "ACL"].hint
    assert run(["doctor"]) == 0
    assert "CPU features" in capsys.readouterr().out
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machine"]["cores"] >= 1
