"""Bundles on the CPUs of Raspberry Pis, in the runtimes' own aarch64 wheels: `make test-arm`."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import arm
import pytest

from mobilenet_export.agent.check import FLOAT_TOLERANCE
from mobilenet_export.bundle import read_bundle

pytestmark = pytest.mark.slow

CPUS = {"cortex-a53": "Cortex-A53", "cortex-a72": "Cortex-A72", "cortex-a76": "Cortex-A76"}
"""Of a Pi 3, 4 and 5."""
RUNTIMES = ("onnxruntime", "litert", "tflite_runtime")
EXACT = ("onnxruntime", "litert")
"""tflite-runtime has no XNNPACK for int8."""


def on(pi: arm.Pi, *arguments: str) -> dict[str, Any]:
    """Run the bundle's own script in the home of a device."""
    done = pi.run("python3", "run.py", *arguments, "--json")
    assert done.returncode == 0, f"{done.stderr}{done.stdout}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("arch", ["v1", "v2"])
@pytest.mark.parametrize("has", RUNTIMES)
@pytest.mark.parametrize("cpu", CPUS)
def test_every_file_answers_as_on_the_pc(bundles: dict[str, Path], cpu: str, has: str, arch: str) -> None:
    """int8 to the bit, as the default session of this x86 recorded it; fp32 and fp16 but for the last digits."""
    report = on(arm.Pi(bundles[arch], cpu, has), "check")
    form = "onnx" if has == "onnxruntime" else "tflite"
    expected = {e["path"] for e in read_bundle(bundles[arch]).document["files"] if e["format"] == form}
    assert {row["file"] for row in report["rows"]} == expected
    assert report["verdict"] == "pass"
    assert report["machine"]["cpu"] == CPUS[cpu]
    assert report["machine"]["architecture"] == "aarch64"
    assert ("asimddp" in report["machine"]["features"]) == (cpu == "cortex-a76")
    for row in report["rows"]:
        if row["precision"] == "int8" and has in EXACT:
            assert row["detail"] == "bit-equal"
        elif row["precision"] != "int8":
            assert float(row["detail"].split()[0]) <= FLOAT_TOLERANCE


@pytest.mark.parametrize("arch", ["v1", "v2"])
def test_an_x86_without_vnni_answers_as_this_one(bundles: dict[str, Path], arch: str) -> None:
    """Its kernels add pairs of products in int16; ONNX Runtime's own per-channel V1 gives other logits there."""
    haswell = [str(arm.emulator().with_name("qemu-x86_64")), "-cpu", "Haswell"]
    ask = "from numpy._core._multiarray_umath import __cpu_features__ as has; print(has['AVX2'], has['AVX512F'])"
    seen = subprocess.run([*haswell, sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert seen.stdout.split() == ["True", "False"]
    command = [*haswell, sys.executable, "run.py", "check", "--json"]
    done = subprocess.run(command, cwd=bundles[arch], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}{done.stdout}"
    rows = json.loads(done.stdout)["rows"]
    assert {row["runtime"] for row in rows} >= set(EXACT)
    assert {row["detail"] for row in rows if row["precision"] == "int8"} == {"bit-equal"}


def test_a_device_measures_and_classifies(bundles: dict[str, Path]) -> None:
    pi = arm.Pi(bundles["v2"])
    report = on(pi, "bench", "--runs", "5", "--file", "mobilenet_v2_100_96_int8.onnx")
    assert report["rows"][0]["peak_rss_bytes"] > 0
    assert report["rows"][0]["unfused"] == []
    picture = sorted((bundles["v2"] / "self_check").glob("*.png"))[0].name
    found = on(pi, "classify", f"self_check/{picture}")
    assert len(found["images"][f"self_check/{picture}"]) == 5


def test_a_device_that_lacks_something_is_told_what(bundles: dict[str, Path]) -> None:
    done = arm.Pi(bundles["v2"], has="none").run("python3", "run.py", "check")
    assert done.returncode == 3
    assert "cannot import numpy" in done.stderr
    assert "hint: pip install numpy" in done.stderr


def test_onnxruntime_1_21_dies_on_a_pi_4_and_not_on_a_pi_5(bundles: dict[str, Path]) -> None:
    """The real bug that `mnx compat` knows; the kernels that an emulated CPU gets are those of the chip."""
    four, five = (arm.Pi(bundles["v2"], cpu, "onnxruntime 1.21") for cpu in ("cortex-a72", "cortex-a76"))
    assert four.run("python3", "run.py", "check").returncode in (-signal.SIGILL, 128 + signal.SIGILL)
    assert on(five, "check")["verdict"] == "pass"


def test_xnnpack_of_debian_13_runs_what_it_can_and_the_rest_is_named(bundles: dict[str, Path]) -> None:
    pi = arm.Pi(bundles["v2"], "cortex-a76", "its own", system="trixie")
    fp32, int8 = (f"mobilenet_v2_100_96_{precision}.onnx" for precision in ("fp32", "int8"))
    files = ("--file", fp32, "--file", int8)
    report = on(pi, "check", *files, "--runtime", "onnxruntime:xnnpack")
    assert {(row["provider"], row["verdict"]) for row in report["rows"]} == {("XNNPACK", "pass")}
    found = on(pi, "bench", *files, "--runtime", "onnxruntime:xnnpack", "--runs", "1")
    nodes = {row["file"]: (len(row["elsewhere"]), row["nodes"]) for row in found["rows"]}
    assert 0 < nodes[fp32][0] < nodes[fp32][1]
    assert nodes[int8][0] == nodes[int8][1]
    assert any("XNNPACK takes none of its" in note for note in found["notes"])


def test_a_flipped_byte_is_named_there_too(bundles: dict[str, Path], tmp_path: Path) -> None:
    place = Path(shutil.copytree(bundles["v2"], tmp_path / "home"))
    file = place / "mobilenet_v2_100_96_int8.tflite"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 16
    file.write_bytes(data)
    done = arm.Pi(place, has="litert").run("python3", "run.py", "check")
    assert done.returncode == 1
    assert "int8.tflite: changed since it was exported" in done.stdout
