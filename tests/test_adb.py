"""`mnx deploy adb` to adb's real daemon for arm64: `make test-adb`."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import adbd
import pytest
from test_pi import Printed

from mobilenet_export import cli
from mobilenet_export.deployment.commands import run
from mobilenet_export.devices import Connection, Processes, Settings, StoppedError, find_target, transport
from mobilenet_export.errors import ExitCode, MissingError

pytestmark = pytest.mark.slow

Mnx = Callable[..., Printed]


@pytest.fixture(scope="module", autouse=True)
def phones_possible() -> None:
    if reason := adbd.missing():
        pytest.skip(reason)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[adbd.Desk]:
    folder = tmp_path / "phones"
    folder.mkdir()
    with adbd.desk(folder) as found:
        monkeypatch.setenv("ADB_SERVER_SOCKET", found.server)
        yield found


@pytest.fixture
def mnx(capfd: pytest.CaptureFixture[str]) -> Mnx:
    def run(*arguments: object) -> Printed:
        capfd.readouterr()
        code = cli.run(["deploy", *map(str, arguments)])
        return Printed(code, *capfd.readouterr())

    return run


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundles["v2"], tmp_path / "my net"))


def tflite_files(bundle: Path) -> set[str]:
    return {path.name for path in bundle.glob("*.tflite")}


def recorded(bundle: Path) -> dict[str, Any]:
    (path,) = (bundle / "devices").iterdir()
    return dict(json.loads(path.read_text()))


def connect(phone: adbd.Phone, processes: Processes) -> Connection:
    target = find_target(f"adb:{phone.serial}")
    return transport(target.transport).open(target, Settings(), processes)


def test_a_phone_without_python_gets_what_apps_read_and_is_told_so(
    desk: adbd.Desk, mnx: Mnx, bundle: Path
) -> None:
    phone = desk.phone()
    printed = mnx("adb", bundle)
    assert printed.code == 0, printed.err
    there = phone.data / "mnx" / "my net"
    assert {path.name for path in there.glob("*.*t*") if path.suffix in (".tflite", ".onnx")} == tflite_files(
        bundle
    )
    assert "Google Pixel 8, Android 14, aarch64" in printed.err
    assert "every sha256 as here; nothing ran: no python3 there" in printed.err
    report = recorded(bundle)
    assert (report["host"], report["verdict"]) == (f"adb:{phone.serial}", "sent")
    assert report["folder"] == "/data/local/tmp/mnx/my net"
    assert report["probe"]["android"] == {
        "release": "14", "sdk": "34", "abi": "arm64-v8a", "soc": "Tensor G3",
    }  # fmt: skip

    (there / "labels.txt").write_text("flipped")
    again = mnx("adb", bundle, "--json")
    assert again.device()["sent"]["files"] == ["labels.txt"]
    assert (there / "labels.txt").read_bytes() == (bundle / "labels.txt").read_bytes()
    assert mnx(f"adb:{phone.serial}", bundle, "--json").device()["sent"]["sent_bytes"] == 0
    assert {path.name for path in there.parent.iterdir()} == {"my net"}


def test_a_phone_with_python_checks_and_measures_the_files(desk: adbd.Desk, mnx: Mnx, bundle: Path) -> None:
    phone = desk.phone(python=True)
    printed = mnx(f"adb:{phone.serial}:~/a net", bundle, "--runs", "3")
    assert printed.code == 0, printed.err
    assert (phone.data / "a net" / "run.py").is_file()
    report = recorded(bundle)
    assert report["verdict"] == "pass"
    assert {row["runtime"] for row in report["check"]["rows"]} == {"onnxruntime"}
    assert "bit-equal" in {row["detail"] for row in report["check"]["rows"]}
    assert report["latency"]["rows"]
    assert "← fastest" in printed.out


def test_a_bundle_that_apps_cannot_read(desk: adbd.Desk, mnx: Mnx, bundle: Path) -> None:
    desk.phone()
    document = json.loads((bundle / "mnx.json").read_text())
    document["files"] = [entry for entry in document["files"] if entry["format"] == "onnx"]
    (bundle / "mnx.json").write_text(json.dumps(document))
    printed = mnx("adb", bundle)
    assert printed.code == ExitCode.USAGE
    assert "error: Android's apps read tflite; the bundle has only onnx\nhint: export it with" in printed.err
    asked = mnx("adb", bundle, "--runtime", "onnxruntime", "--json")
    assert asked.code == 0, asked.err
    assert asked.device()["choice"]["formats"] == ["onnx"]


def test_a_full_disk_is_seen_before_anything_is_sent(desk: adbd.Desk, mnx: Mnx, bundle: Path) -> None:
    desk.phone(size="9m")
    printed = mnx("adb", bundle)
    assert printed.code == ExitCode.MISSING
    assert " MB needed, 9.4 MB free\nhint: free some space there" in printed.err
    assert not (bundle / "devices").exists()


def test_a_device_has_to_be_there_and_willing(
    desk: adbd.Desk, mnx: Mnx, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*places: str) -> str:
        printed = mnx(*places, bundle)
        assert printed.code == ExitCode.MISSING
        assert not (bundle / "devices").exists()
        return printed.err.partition("error: ")[2]

    assert error("adb").startswith("adb: no device\nhint: plug one in with USB debugging on")
    undecided = desk.undecided()
    assert error("adb").startswith(
        f"adb:{undecided.serial}: unauthorized: it does not trust this computer yet"
    )
    phone = desk.phone()
    several = f"adb: 2 devices: {undecided.serial} (unauthorized), {phone.serial}\nhint: name one: adb:"
    assert error("adb").startswith(several)
    assert error("adb:R58M").startswith(f"adb:R58M: no such device; there is {undecided.serial}")
    phone.unplug()
    offline = error(f"adb:{phone.serial}")
    assert offline.startswith(f"adb:{phone.serial}: offline: it does not answer adb\nhint: replug it")
    monkeypatch.setenv("PATH", "/nowhere")
    assert error("adb").startswith("adb is not on the PATH\nhint: install Android's platform-tools")


def test_one_unwilling_phone_hides_no_other(desk: adbd.Desk, mnx: Mnx, bundle: Path) -> None:
    undecided, phone = desk.undecided(), desk.phone()
    printed = mnx(f"adb:{undecided.serial}", f"adb:{phone.serial}", bundle)
    assert printed.code == ExitCode.MISSING
    assert recorded(bundle)["host"] == f"adb:{phone.serial}"


def test_a_phone_that_goes_away_is_no_success(desk: adbd.Desk) -> None:
    phone = desk.phone()
    connection = connect(phone, Processes())
    assert run(connection, "exit 7").code == 7
    threading.Timer(1.0, phone.unplug).start()
    with pytest.raises(MissingError, match="the connection broke: error: device"):
        run(connection, "sleep 60")


def test_many_short_commands_all_end(desk: adbd.Desk) -> None:
    connection = connect(desk.phone(), Processes())
    assert {run(connection, "exit 7", limit_s=30).code for _ in range(40)} == {7}


def test_what_runs_there_ends_with_this_program(desk: adbd.Desk) -> None:
    phone, processes = desk.phone(), Processes()
    connection = connect(phone, processes)
    thread = threading.Thread(target=_run_until_ended, args=(connection, "exec sleep 4321"))
    thread.start()
    wait_until(lambda: running("4321"))
    processes.end()
    thread.join()
    wait_until(lambda: not running("4321"))


def test_adb_starts_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that keeps the pipes of whoever started it would never let `adb devices` end."""
    server = f"localfilesystem:{tmp_path}/s"
    monkeypatch.setenv("ADB_SERVER_SOCKET", server)
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["unshare", "--user", "--map-root-user", "--net", "python3", "-c", _OPEN]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=os.environ
        )
        assert "adb: no device" in done.stderr
    finally:
        subprocess.run(["adb", "-L", server, "kill-server"], capture_output=True, check=True)


_OPEN = "from mobilenet_export.devices import *; transport('adb').open(find_target('adb'), Settings(), Processes())"


def _run_until_ended(connection: Connection, script: str) -> None:
    with pytest.raises(StoppedError):
        run(connection, script, limit_s=100)


def running(word: str) -> bool:
    """Whether a program of an emulated phone has a word on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"qemu-aarch64") and word.encode() in words:
                return True
    return False


def wait_until(true: Callable[[], bool], limit_s: float = 15.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
