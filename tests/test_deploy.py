"""`mnx deploy` to a real sshd on loopback: what is sent, what goes wrong, and what is left behind.

The device is a login with a home and a PATH of its own, so that it has only the tools and the Python that a test
gives it. What runs there is a stand-in for a bundle's own `run.py`.
"""

import contextlib
import ensurepip
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sshd import NEEDS, SSHD, Server, free_port, make_key, proxied, serve

from mobilenet_export import cli
from mobilenet_export.bundle import DEVICE, DOCUMENT, EQUALIZATION, LABELS, RUN, SCHEMA, read_bundle
from mobilenet_export.deployment.choose import RUNTIMES, Installation, Wishes, choose
from mobilenet_export.deployment.commands import printable
from mobilenet_export.deployment.probe import Interpreter, Probe
from mobilenet_export.devices import find_target
from mobilenet_export.errors import ExitCode, MissingError, MnxError, UsageError
from mobilenet_export.plugins import load_plugin, plugin_names

pytestmark = pytest.mark.slow
needs_sshd = pytest.mark.skipif(SSHD is None, reason=NEEDS)

TOOLS = (
    "sh env uname sed head grep tr df dirname cat mkdir mv rm ln cp find sha256sum wc ls touch rmdir readlink "
    "getconf sleep"
)
"""All that a device needs; each is there in Debian's essential packages and in busybox."""
BIG = 3_000_000
ONNX, TFLITE = "a net_fp32.onnx", "it's_int8.tflite"

STAND_IN = """\
import json, os, pathlib, sys, time
home, (command, *options) = pathlib.Path.home(), sys.argv[1:]
files = [entry["path"] for entry in json.load(open("mnx.json"))["files"]]
behaviour = home / "behaviour"
behaviour = behaviour.read_text() if behaviour.exists() else ""
(home / "log").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if behaviour == "sleep" and command == "bench":
    (home / "pid").write_text(str(os.getpid()))
    time.sleep(120)
if behaviour == "missing":
    sys.exit(sys.stderr.write("error: no numpy\\x1b[31m\\nhint: get it\\n") and 3)
if behaviour == "illegal":
    os.kill(os.getpid(), 4)
if behaviour == "garbage":
    print('{"kind": "check", "rows": [{"file": 3}], "failures": [], "verdict": "pass"}')
elif behaviour == "flood":
    while True:
        sys.stdout.write("x" * 100000)
elif command == "check":
    bad = files[-1:] if behaviour == "fail" else []
    rows = [dict(file=f, runtime="onnxruntime", provider="CPU", verdict="fail" if f in bad else "pass",
                 detail="bit-equal") for f in files]
    print(json.dumps(dict(kind="check", verdict="fail" if bad else "pass", rows=rows,
                          failures=[f"{f}: a flipped byte \\x1b[2J" for f in bad])))
    sys.exit(bool(bad))
else:
    rows = [dict(file=f, runtime="onnxruntime", provider="CPU", threads=1, p50_ms=9.0 - i, p90_ms=9.5, ratio=1 + i)
            for i, f in enumerate(files)]
    print(json.dumps(dict(kind="latency", rows=rows, notes=["noisy"])))
"""


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[tuple[str, str]]:
        """Every error with its hint."""
        lines = self.err.splitlines()
        assert "Traceback" not in self.err
        return [
            (line.removeprefix("error: "), lines[i + 1].removeprefix("hint: "))
            for i, line in enumerate(lines)
            if line.startswith("error: ")
        ]

    def sent_bytes(self) -> int:
        (device,) = json.loads(self.out)["devices"]
        return int(device["sent"]["sent_bytes"])


@dataclass
class Device:
    """A login of its own on this machine, reached by ssh."""

    server: Server
    home: Path
    bare: Path

    @property
    def config(self) -> Path:
        return self.server.config

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def known_hosts(self) -> Path:
        return self.server.known_hosts

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    def host(self, name: str, **options: object) -> str:
        """Add a Host to the ssh config."""
        return self.server.host(name, **options)

    def python(self, **packages: str) -> None:
        """Give it a Python that has packages."""
        shutil.rmtree(self.home / "site", ignore_errors=True)
        for name, version in packages.items():
            info = self.home / "site" / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        executable = self.bin / "python3"
        executable.unlink(missing_ok=True)
        executable.write_text(f'#!/bin/sh\nexec "{self.bare}" "$@"\n')
        executable.chmod(0o755)

    def files(self) -> set[str]:
        """All that deploys have left in the home."""
        return {str(path.relative_to(self.home)) for path in (self.home / "mnx").rglob("*") if path.is_file()}

    def tree(self) -> set[str]:
        return {str(path.relative_to(self.home)) for path in self.home.rglob("*") if "bin" not in path.parts}


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python without any packages."""
    folder = tmp_path_factory.mktemp("python") / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


@pytest.fixture
def device(tmp_path: Path, bare: Path) -> Iterator[Device]:
    home = tmp_path / "ho me"
    (home / "bin").mkdir(parents=True)
    for tool in TOOLS.split():
        (home / "bin" / tool).symlink_to(str(shutil.which(tool)))
    login = (
        f'cd "{home}"; echo "Welcome to the Pi"\n'
        f'exec env -i HOME="{home}" PATH="{home}/bin" PYTHONPATH="{home}/site" sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    with serve(tmp_path / "etc", login) as server:
        found = Device(server, home, bare)
        found.host("pi")
        found.python(numpy="2.2", pillow="11.0", onnxruntime="1.32.0")
        yield found


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle of two files of random bytes, whose run.py is the stand-in."""
    folder = tmp_path / "my net"
    (folder / "self_check").mkdir(parents=True)
    (folder / "devices").mkdir()
    (folder / "devices" / "old.json").write_text("{}")
    (folder / EQUALIZATION).write_bytes(b"factors")
    (folder / RUN).write_text(STAND_IN)
    (folder / DEVICE).write_bytes(b"zip")
    (folder / LABELS).write_text("cat\n")
    (folder / "self_check" / "a picture.png").write_bytes(b"png")
    entries = []
    for name, form in ((ONNX, "onnx"), (TFLITE, "tflite")):
        data = os.urandom(BIG)
        (folder / name).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        entries.append({"path": name, "format": form, "precision": "fp32", "io": "float32", "sha256": sha256})
    source = {"kind": "random", "origin": "a test", "sha256": "0"}
    model = {"preprocess": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    document = {
        "schema": SCHEMA,
        "model": model,
        "source": source,
        "files": entries,
        "equalization_sha256": "1",
    }
    (folder / DOCUMENT).write_text(json.dumps(document))
    return folder


Mnx = Callable[..., Printed]


@pytest.fixture
def mnx(capfd: pytest.CaptureFixture[str], device: Device) -> Mnx:
    """Run `mnx deploy` in this process."""

    def run(*arguments: object) -> Printed:
        capfd.readouterr()
        code = cli.run(["deploy", "--ssh-config", str(device.config), *map(str, arguments)])
        return Printed(code, *capfd.readouterr())

    return run


def ssh_processes(config: Path) -> list[str]:
    """Command lines of the ssh that a test has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0] == b"ssh" and str(config).encode() in words:
                found.append(b" ".join(words).decode())
    return found


# What is sent


@needs_sshd
def test_a_deploy_sends_what_the_device_can_run_and_checks_and_measures_it(
    mnx: Mnx, device: Device, bundle: Path
) -> None:
    printed = mnx("pi", bundle, "--threads", "1,2", "--runs", "7")
    assert printed.code == 0, printed.err
    sent = {RUN, DEVICE, LABELS, DOCUMENT, ONNX, "self_check/a picture.png"}
    assert device.files() == {f"mnx/my net/{name}" for name in sent}
    there = read_bundle(device.home / "mnx" / "my net")
    assert [artifact.file for artifact in there.artifacts()] == [ONNX]
    assert there.equalization() is None
    assert (device.home / "log").read_text() == "check --json\nbench --json --runs 7 --threads 1,2\n"
    (row,) = [line for line in printed.out.splitlines() if ONNX in line]
    assert row.split()[-5:] == ["9.00", "9.50", "1.00×", "←", "fastest"]
    assert "pi: noisy" in printed.out
    result = json.loads((bundle / "devices" / "pi.json").read_text())
    assert result["verdict"] == "pass"
    assert result["probe"]["cores"] == len(os.sched_getaffinity(0)) or result["probe"]["cores"] > 0
    assert result["latency"]["rows"][0]["p50_ms"] == 9.0
    assert not ssh_processes(device.config)


@needs_sshd
def test_a_second_deploy_sends_nothing_and_a_changed_file_alone(
    mnx: Mnx, device: Device, bundle: Path
) -> None:
    assert mnx("pi", bundle, "--json").sent_bytes() > BIG
    before = (device.home / "mnx" / "my net" / ONNX).stat().st_ino
    again = mnx("pi", bundle, "--json")
    assert again.sent_bytes() == 0
    assert "sent 0 bytes" in again.err
    (bundle / LABELS).write_text("dog\n")
    assert mnx("pi", bundle, "--json").sent_bytes() == len("dog\n")
    there = device.home / "mnx" / "my net"
    assert (there / LABELS).read_text() == "dog\n"
    assert (there / ONNX).stat().st_ino == before  # not even copied
    assert [path.name for path in (device.home / "mnx").iterdir()] == ["my net"]


@needs_sshd
def test_a_file_damaged_on_the_device_is_sent_again(mnx: Mnx, device: Device, bundle: Path) -> None:
    mnx("pi", bundle)
    (device.home / "mnx" / "my net" / ONNX).write_bytes(b"flipped")
    assert mnx("pi", bundle, "--json").sent_bytes() == BIG
    assert (device.home / "mnx" / "my net" / ONNX).read_bytes() == (bundle / ONNX).read_bytes()


@needs_sshd
def test_a_transfer_that_was_cut_goes_on_where_it_stopped(mnx: Mnx, device: Device, bundle: Path) -> None:
    with proxied(device.port, cut_after=BIG // 2, pause_s=0.005) as proxy:
        cut = mnx(device.host("far", HostKeyAlias=f"[127.0.0.1]:{device.port}", Port=proxy.port), bundle)
    ((message, hint),) = cut.errors
    assert cut.code == ExitCode.MISSING
    assert message.startswith("far: the connection broke")
    assert "goes on where it stopped" in hint
    assert not (device.home / "mnx" / "my net").exists()
    again = mnx("pi", bundle, "--json")
    assert again.code == 0, again.err
    assert 0 < again.sent_bytes() < BIG * 0.9
    assert read_bundle(device.home / "mnx" / "my net").artifacts()


@needs_sshd
def test_a_partial_file_with_other_bytes_is_sent_anew(mnx: Mnx, device: Device, bundle: Path) -> None:
    partial = device.home / "mnx" / "my net.partial"
    partial.mkdir(parents=True)
    (partial / hashlib.sha256((bundle / ONNX).read_bytes()).hexdigest()).write_bytes(b"other")
    assert mnx("pi", bundle, "--json").sent_bytes() > BIG
    assert not partial.exists()


@needs_sshd
def test_a_dry_run_says_what_it_would_send_and_changes_nothing(
    mnx: Mnx, device: Device, bundle: Path
) -> None:
    before = device.tree()
    printed = mnx("pi", bundle, "--dry-run")
    assert printed.code == 0, printed.err
    assert ONNX in printed.out
    assert TFLITE not in printed.out
    assert device.tree() == before
    assert not (bundle / "devices" / "pi.json").exists()


@needs_sshd
def test_a_folder_may_be_named(mnx: Mnx, device: Device, bundle: Path) -> None:
    assert mnx("pi:some where/it's", bundle, "--no-bench").code == 0
    assert (device.home / "some where" / "it's" / DOCUMENT).is_file()


@needs_sshd
def test_a_folder_that_is_not_a_bundle_is_left_alone(mnx: Mnx, device: Device, bundle: Path) -> None:
    (device.home / "photos").mkdir()
    (device.home / "photos" / "one.jpg").touch()
    printed = mnx("pi:photos", bundle)
    ((message, _),) = printed.errors
    assert printed.code == ExitCode.USAGE
    assert message == "pi: photos is there, and not a bundle"
    assert (device.home / "photos" / "one.jpg").exists()


@needs_sshd
def test_one_deploy_at_a_time_and_an_orphaned_lock_is_taken(mnx: Mnx, device: Device, bundle: Path) -> None:
    lock = device.home / "mnx" / "my net.lock"
    lock.mkdir(parents=True)
    held = mnx("pi", bundle)
    ((message, hint),) = held.errors
    assert held.code == ExitCode.MISSING
    assert "another deploy" in message
    assert "rmdir 'mnx/my net.lock'" in hint
    os.utime(lock, (0, time.time() - 200))
    assert mnx("pi", bundle).code == 0
    assert not lock.exists()


# Installing


def fake_wheel(folder: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr({"pillow": "PIL"}.get(name, name) + "/__init__.py", "")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels that stand in for a package index, and pip's own."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name, version in (("numpy", "2.2"), ("pillow", "11.0"), ("onnxruntime", "1.32.0")):
        fake_wheel(folder, name, version)
    (pip,) = (Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl")
    shutil.copy(pip, folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("MNX_CACHE", str(tmp_path / "cache"))
    return folder


@needs_sshd
def test_a_runtime_is_installed_once_and_offline(mnx: Mnx, device: Device, bundle: Path, index: Path) -> None:
    device.python()
    refused = mnx("pi", bundle)
    assert "--install" in refused.errors[0][1]
    planned = mnx("pi", bundle, "--install", "--dry-run")
    assert "would install onnxruntime, numpy, pillow and send" in planned.out
    first = mnx("pi", bundle, "--install")
    assert first.code == 0, first.err
    (venv,) = (device.home / "mnx").glob(".mnx-venv-*")
    assert (venv / "bin" / "python").exists()
    assert sorted(path.name for path in (device.home / "mnx").iterdir()) == [venv.name, "my net"]
    made = venv.stat().st_ctime_ns
    shutil.rmtree(index)
    second = mnx("pi", bundle, "--install", "--json")
    assert second.code == 0, second.err
    assert second.sent_bytes() == 0
    assert venv.stat().st_ctime_ns == made
    (found,) = json.loads(second.out)["devices"]
    assert venv.name in found["choice"]["python"]


@needs_sshd
def test_wheels_that_cannot_be_had_leave_nothing(mnx: Mnx, device: Device, bundle: Path, index: Path) -> None:
    device.python()
    next(index.glob("onnxruntime-*")).unlink()
    printed = mnx("pi", bundle, "--install")
    ((message, _),) = printed.errors
    assert printed.code == ExitCode.MISSING
    assert "no wheels for onnxruntime" in message
    assert not device.files()
    assert not list((index.parent / "cache" / "wheels").iterdir())


@needs_sshd
def test_an_installation_that_fails_leaves_nothing(
    mnx: Mnx, device: Device, bundle: Path, index: Path
) -> None:
    device.python()
    (wheel,) = index.glob("onnxruntime-*")
    with zipfile.ZipFile(wheel, "a") as stream:
        stream.writestr("../outside", "")  # pip downloads it, and refuses to install it
    broken = mnx("pi", bundle, "--install")
    ((message, _),) = broken.errors
    assert broken.code == ExitCode.MISSING
    assert message.startswith("pi: the runtime could not be installed: ")
    (wheels,) = (device.home / "mnx").iterdir()  # kept for the next attempt; no environment, no lock
    assert wheels.suffix == ".wheels"


# What goes wrong on the way


@needs_sshd
def test_what_hinders_a_connection_is_told_apart(
    mnx: Mnx, device: Device, bundle: Path, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other")
    (tmp_path / "none").touch()
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{device.port} {other}")
    silent = socket.create_server(("127.0.0.1", 0))
    cases = {
        device.host("stranger", UserKnownHostsFile=tmp_path / "none"): ("unknown host key", "once by hand"),
        device.host("impostor", UserKnownHostsFile=tmp_path / "changed"): (
            "host key changed",
            "ssh-keygen -R",
        ),
        device.host("locked", IdentityFile=tmp_path / "other"): ("permission denied", "ssh-copy-id locked"),
        device.host("closed", Port=free_port()): ("connection refused", "raspi-config"),
        device.host("nobody", HostName="nowhere.invalid"): ("no such host name", "check the name"),
        device.host("mute", Port=silent.getsockname()[1]): ("unreachable: no answer", "switched on"),
    }
    with silent:
        silent.setblocking(False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mobilenet_export.devices.ssh._CONNECT_S", 1)
            printed = mnx(*cases, bundle)
    assert printed.code == ExitCode.MISSING
    assert len(printed.errors) == len(cases)
    for (message, hint), (host, (meaning, step)) in zip(printed.errors, cases.items(), strict=True):
        assert message.startswith(f"{host}: {meaning}"), message
        assert step in hint
    assert not ssh_processes(device.config)


@needs_sshd
def test_one_failing_host_hides_no_other(mnx: Mnx, device: Device, bundle: Path) -> None:
    printed = mnx(device.host("dead", Port=free_port()), "pi", bundle)
    assert printed.code == ExitCode.MISSING
    ((message, _),) = printed.errors
    assert message.startswith("dead: connection refused")
    rows = [line.split() for line in printed.out.splitlines()]
    assert ["dead", "–", "–", "error"] in rows
    assert any(row[:1] == ["pi"] and "pass:" in row for row in rows)


@needs_sshd
def test_a_full_disk_leaves_what_was_there(mnx: Mnx, device: Device, bundle: Path) -> None:
    mnx("pi", bundle)
    before = device.files()
    (device.bin / "cat").unlink()
    (device.bin / "cat").write_text(
        '#!/bin/sh\ncase $(readlink /proc/$$/fd/1) in *.partial/*) exec /bin/cat "$@" > /dev/full ;; esac\n'
        'exec /bin/cat "$@"\n'
    )
    (device.bin / "cat").chmod(0o755)
    (bundle / LABELS).write_text("dog\n" * 100_000)
    printed = mnx("pi", bundle)
    ((message, _),) = printed.errors
    assert printed.code == ExitCode.MISSING
    assert message.startswith("pi: the disk ran full")
    assert device.files() == before
    assert (device.home / "mnx" / "my net" / LABELS).read_text() == "cat\n"


@needs_sshd
def test_what_will_not_fit_is_not_sent(mnx: Mnx, device: Device, bundle: Path) -> None:
    (device.bin / "df").unlink()
    (device.bin / "df").write_text("#!/bin/sh\necho x\necho '/dev/my disk 9 5 2000 99% /mnt/my disk'\n")
    (device.bin / "df").chmod(0o755)
    ((message, _),) = mnx("pi", bundle).errors
    assert message == "pi: 3.0 MB needed, 2.0 MB free"
    assert not device.files()


@needs_sshd
def test_a_device_without_python_or_with_an_old_one(mnx: Mnx, device: Device, bundle: Path) -> None:
    (device.bin / "python3").unlink()
    ((message, hint),) = mnx("pi", bundle).errors
    assert message == "pi: no python3 there"
    assert "apt install python3" in hint
    facts = {"path": "/usr/bin/python3", "version": [3, 9, 2], "packages": {}, "bits": 64}
    facts |= {"libc": ["glibc", "2.31"], "venv": True, "ensurepip": True}
    (device.bin / "python3").write_text(f"#!/bin/sh\necho '{json.dumps(facts)}'\n")
    (device.bin / "python3").chmod(0o755)
    printed = mnx("pi", bundle, "--install")
    assert printed.code == ExitCode.MISSING
    assert printed.errors[0][0] == "pi: Python 3.9.2 there; 3.11 or later is needed"
    assert not device.files()


@needs_sshd
@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ("fail", ExitCode.CHECK_FAILED, "failed: pi: a net_fp32.onnx: a flipped byte [2J"),
        ("missing", ExitCode.MISSING, "error: pi: no numpy[31m\nhint: get it\n"),
        ("illegal", ExitCode.MISSING, "uses instructions that this CPU lacks"),
        ("garbage", ExitCode.DAMAGED, "error: pi: its check report cannot be read: 3 is no text"),
        ("flood", ExitCode.DAMAGED, "error: pi: answered more than"),
    ],
)
def test_what_a_device_answers_is_not_believed(
    behaviour: str, code: int, words: str, mnx: Mnx, device: Device, bundle: Path
) -> None:
    (device.home / "behaviour").write_text(behaviour)
    printed = mnx("pi", bundle)
    assert printed.code == code
    assert words in printed.err
    assert "\x1b" not in printed.err + printed.out
    assert (bundle / "devices" / "pi.json").exists() == (behaviour == "fail")


def deploy_process(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from mobilenet_export.cli import main; main()", "deploy"]
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(true: Callable[[], bool], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@needs_sshd
def test_ctrl_c_while_measuring_ends_it_here_and_there(device: Device, bundle: Path) -> None:
    (device.home / "behaviour").write_text("sleep")
    process = deploy_process("--ssh-config", device.config, "pi", bundle)
    pid = device.home / "pid"
    wait_until(lambda: pid.exists() and bool(pid.read_text()))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == ExitCode.INTERRUPTED, err
    assert "error: interrupted\nhint: the same command goes on where it stopped\n" in err
    assert "Traceback" not in err
    assert not ssh_processes(device.config)
    wait_until(lambda: not alive(int(pid.read_text())), 5)


@needs_sshd
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ending_a_transfer_leaves_no_process_and_keeps_what_came(
    how: signal.Signals, mnx: Mnx, device: Device, bundle: Path
) -> None:
    partial = device.home / "mnx" / "my net.partial"
    with proxied(device.port, pause_s=0.02) as proxy:
        slow = device.host("slow", HostKeyAlias=f"[127.0.0.1]:{device.port}", Port=proxy.port)
        process = deploy_process("--ssh-config", device.config, slow, bundle)
        wait_until(lambda: any(path.stat().st_size > BIG // 10 for path in partial.glob("*")))
        process.send_signal(how)
        _, err = process.communicate(timeout=10)
        wait_until(lambda: not ssh_processes(device.config), 10)
    assert process.returncode == (ExitCode.INTERRUPTED if how == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in err
    wait_until(lambda: not partial.with_suffix(".lock").exists(), 5)
    again = mnx("pi", bundle, "--json")
    assert again.code == 0, again.err
    assert again.sent_bytes() < BIG


def exchange(bundle: Path) -> None:
    """Put another file in place of a bundle's ONNX file, as a new export would."""
    data, document = os.urandom(BIG), json.loads((bundle / DOCUMENT).read_text())
    document["files"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    (bundle / ONNX).write_bytes(data)
    (bundle / DOCUMENT).write_text(json.dumps(document))


@needs_sshd
def test_a_deploy_killed_at_any_moment_leaves_a_whole_folder_and_the_next_one_works(
    mnx: Mnx, device: Device, bundle: Path
) -> None:
    """25 times, each time with other files, so that every one has all to send and to exchange."""
    rng, there = random.Random(0), device.home / "mnx" / "my net"
    deploy_process("--ssh-config", device.config, "pi", bundle).communicate()
    exchange(bundle)
    begun = time.perf_counter()
    deploy_process("--ssh-config", device.config, "pi", bundle).communicate()
    lasts_s = time.perf_counter() - begun
    killed = whole = 0
    for _ in range(25):
        exchange(bundle)
        process = deploy_process("--ssh-config", device.config, "pi", bundle)
        time.sleep(rng.uniform(0.1, 0.9) * lasts_s)
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        wait_until(lambda: not there.with_suffix(".lock").exists(), 60)
        if there.exists():
            whole += 1
            assert read_bundle(there).artifacts()
        for path in (bundle / "devices").glob("*.json"):
            assert json.loads(path.read_text()) is not None
    assert killed >= 10
    assert whole
    again = mnx("pi", bundle, "--json")
    assert again.code == 0, again.err
    assert (there / ONNX).read_bytes() == (bundle / ONNX).read_bytes()
    assert [path.name for path in (device.home / "mnx").iterdir()] == ["my net"]
    assert {path.name for path in (bundle / "devices").iterdir()} == {"old.json", "pi.json"}


@needs_sshd
def test_a_secret_is_asked_for_on_a_terminal_alone(mnx: Mnx, device: Device, bundle: Path) -> None:
    secret = device.server.key.with_name("secret")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "sesame", "-f", str(secret)]
    subprocess.run(command, check=True)
    device.server.key.with_name("authorized").write_text(secret.with_suffix(".pub").read_text())
    host = device.host("secret", IdentityFile=secret)
    assert "run this on a terminal" in mnx(host, bundle).errors[0][1]
    spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    main = "from mobilenet_export.cli import main; main()"
    options = ["deploy", "--ssh-config", str(device.config), host, str(bundle), "--no-bench"]
    process = subprocess.Popen(
        [sys.executable, "-c", spawn, sys.executable, "-c", main, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    said = b""
    while b"passphrase" not in said and (part := os.read(process.stdout.fileno(), 4096)):
        said += part
    process.stdin.write(b"sesame\n")
    process.stdin.flush()
    rest, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said + rest


# What the user writes


@needs_sshd
def test_an_altered_bundle_is_refused_before_anyone_is_asked(mnx: Mnx, bundle: Path) -> None:
    (bundle / TFLITE).write_bytes(b"altered")
    printed = mnx("nobody.invalid", bundle)
    assert printed.code == ExitCode.DAMAGED
    assert "changed since it was exported" in printed.errors[0][0]
    (bundle / RUN).unlink()


@needs_sshd
def test_a_fleet(mnx: Mnx, device: Device, bundle: Path, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.toml"
    device.host("pi2")
    fleet.write_text(
        '[[device]]\nhost = "pi"\ndir = "one"\n[[device]]\nhost = "pi2:two"\nruntime = "onnxruntime"\n'
    )
    printed = mnx("--fleet", fleet, bundle, "--no-bench")
    assert printed.code == 0, printed.err
    assert (device.home / "one" / DOCUMENT).exists()
    assert (device.home / "two" / DOCUMENT).exists()
    assert sorted((device.home / "log").read_text().splitlines()) == [
        "check --json",
        "check --json --runtime onnxruntime",
    ]
    fleet.write_text('[[device]]\nhots = "pi"\n')
    printed = mnx("--fleet", fleet, bundle)
    assert printed.code == ExitCode.USAGE
    assert "did you mean host?" in printed.errors[0][1]


@needs_sshd
def test_arguments_that_make_no_sense(mnx: Mnx, bundle: Path) -> None:
    for arguments, words in (
        ([bundle], "no device named"),
        ([bundle, "pi"], "no folder"),
        (["pi", "pi", bundle], "named twice"),
        (["-oProxyCommand=x", bundle], ""),
        (["pi:", bundle], "not a folder"),
        (["pi:.", bundle], "takes the place of the whole folder"),
        (["pi:../x", bundle], "takes the place of the whole folder"),
        (["pi", bundle, "--threads", "0"], "--threads 0"),
        (["pi", bundle, "--runtime", "onnxruntim"], "unknown runtime"),
    ):
        printed = mnx(*arguments)
        assert printed.code == ExitCode.USAGE, arguments
        assert words in printed.errors[0][0]


@pytest.mark.parametrize(
    ("text", "address", "folder"),
    [
        ("pi@raspberrypi.local", "pi@raspberrypi.local", None),
        ("pi1:/srv/net", "pi1", "/srv/net"),
        ("pi1:~/a b/", "pi1", "a b"),
        ("root@[fe80::1%eth0]:net", "root@fe80::1%eth0", "net"),
    ],
)
def test_a_device_is_named_as_for_scp(text: str, address: str, folder: str | None) -> None:
    target = find_target(text)
    assert (target.transport, target.address, target.folder) == ("ssh", address, folder)


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "pi@-x", "a b", "a\nb", "C:\\bundle", "pi@", "pi:~x/y"]
)
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        find_target(text)


# What a device gets


def an_interpreter(**changes: Any) -> Interpreter:
    facts: dict[str, Any] = {
        "path": "/usr/bin/python3", "version": (3, 11, 2), "packages": {}, "bits": 64, "glibc": (2, 36),
        "venv": True, "ensurepip": True,
    }  # fmt: skip
    return Interpreter(**facts | changes)


def a_probe(*interpreters: Interpreter, machine: str = "aarch64") -> Probe:
    return Probe(machine, "Debian", "Pi", "", (), 4, 1 << 30, None, True, interpreters)


BOTH = ("onnx", "tflite")
TFLITE_RUNTIME = {"tflite-runtime": "2.14.0", "pillow": "11"}


def test_what_is_chosen() -> None:
    old = an_interpreter(packages={**TFLITE_RUNTIME, "numpy": "1.26"})
    assert choose("pi", a_probe(old), BOTH, Wishes()).formats == ("tflite",)
    new = an_interpreter(packages={"numpy": "2", "pillow": "11", "onnxruntime": "1", "ai-edge-litert": "2"})
    assert choose("pi", a_probe(new), BOTH, Wishes()).formats == BOTH
    assert choose("pi", a_probe(new), BOTH, Wishes("litert")).formats == ("tflite",)
    installation = choose("pi", a_probe(an_interpreter()), BOTH, Wishes("litert", install=True)).installation
    assert isinstance(installation, Installation)
    assert installation.requirements == ("ai-edge-litert", "numpy", "pillow", "pip")
    assert installation.platforms[0] == "manylinux_2_36_aarch64"
    assert installation.platforms[-1] == "manylinux2014_aarch64"


@pytest.mark.parametrize(
    ("interpreter", "machine", "wishes", "words"),
    [
        (
            an_interpreter(packages={**TFLITE_RUNTIME, "numpy": "2.1"}),
            "aarch64",
            Wishes(),
            "crashes with numpy 2.1",
        ),
        (an_interpreter(packages={"onnxruntime": "1"}), "aarch64", Wishes(), "needs numpy and pillow"),
        (an_interpreter(bits=32), "armv7l", Wishes(install=True), "32-bit system"),
        (an_interpreter(bits=32), "aarch64", Wishes(), "32-bit system"),
        (an_interpreter(glibc=None), "aarch64", Wishes(install=True), "without glibc"),
        (an_interpreter(venv=False), "aarch64", Wishes(install=True), "has no venv"),
        (
            an_interpreter(version=(3, 13, 1)),
            "aarch64",
            Wishes("tflite-runtime", install=True),
            "only up to 3.11",
        ),
    ],
)
def test_what_cannot_be_chosen(interpreter: Interpreter, machine: str, wishes: Wishes, words: str) -> None:
    with pytest.raises(MissingError, match=words):
        choose("pi", a_probe(interpreter, machine=machine), BOTH, wishes)


def test_the_runtimes_of_devices_are_those_of_the_package() -> None:
    for found in RUNTIMES:
        engine = load_plugin("runtimes", found.name)
        assert engine.formats == found.formats


def test_every_transport_is_one() -> None:
    for name in plugin_names("devices"):
        assert load_plugin("devices", name).name == name


def test_words_of_a_device_cannot_command_a_terminal() -> None:
    assert printable("a\x1b[2Jb\u202ec\ud800\n") == "a[2Jbc"
    assert issubclass(MissingError, MnxError)
