"""`mnx deploy` to emulated Raspberry Pis behind a real sshd: `make test-ssh`."""

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import arm
import pytest
from sshd import free_port, serve

from mobilenet_export import cli
from mobilenet_export.errors import ExitCode

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Printed:
    code: int
    out: str
    err: str

    def device(self) -> dict[str, Any]:
        (found,) = json.loads(self.out)["devices"]
        return dict(found)


Mnx = Callable[..., Printed]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "ssh config"
    path.touch()
    return path


@pytest.fixture
def mnx(capfd: pytest.CaptureFixture[str], config: Path) -> Mnx:
    def run(*arguments: object) -> Printed:
        capfd.readouterr()
        code = cli.run(["deploy", "--ssh-config", str(config), *map(str, arguments)])
        return Printed(code, *capfd.readouterr())

    return run


@pytest.fixture
def plug(reachable: None, tmp_path: Path, config: Path) -> Iterator[Callable[..., Path]]:
    """Make a Pi reachable under a name; returns its home."""
    with ExitStack() as stack:

        def make(name: str, **properties: Any) -> Path:
            home = tmp_path / name
            home.mkdir(exist_ok=True)
            server = stack.enter_context(serve(tmp_path / f"{name}-etc", arm.Pi(home, **properties).login()))
            server.host(name)
            config.write_text(config.read_text() + server.config.read_text())
            return home

        yield make


@pytest.fixture
def bundle(bundles: dict[str, Path], tmp_path: Path) -> Path:
    import shutil  # noqa: PLC0415

    return Path(shutil.copytree(bundles["v2"], tmp_path / "my net"))


def test_a_bare_pi_is_sent_the_files_and_a_runtime_and_checks_itself(
    plug: Callable[..., Path], mnx: Mnx, bundle: Path
) -> None:
    home = plug("pi", has="none")
    printed = mnx("pi", bundle, "--install", "--runs", "5", "--json")
    assert printed.code == 0, printed.err
    report = json.loads((bundle / "devices" / "pi.json").read_text())
    assert report["check"]["verdict"] == "pass"
    assert report["check"]["machine"]["cpu"] == "Cortex-A72"
    assert {row["runtime"] for row in report["check"]["rows"]} == {"onnxruntime"}
    assert "bit-equal" in {row["detail"] for row in report["check"]["rows"]}
    assert len(report["latency"]["rows"]) == len(list(bundle.glob("*.onnx")))
    assert (home / "mnx" / "my net" / "run.py").is_file()
    assert not list((home / "mnx").glob("*.partial"))
    again = mnx("pi", bundle, "--install", "--no-bench", "--json")
    assert again.code == 0, again.err
    assert again.device()["sent"]["sent_bytes"] == 0


def test_a_fleet_of_different_pis_runs_side_by_side(
    plug: Callable[..., Path], mnx: Mnx, bundle: Path, config: Path
) -> None:
    plug("pi3", cpu="cortex-a53", has="litert")
    plug("pi5", cpu="cortex-a76", has="onnxruntime")
    plug("nopython", python=False)
    config.write_text(config.read_text() + f"Host dead\n  HostName 127.0.0.1\n  Port {free_port()}\n")
    printed = mnx("pi3", "pi5", "nopython", "dead", bundle, "--no-bench")
    assert printed.code == ExitCode.MISSING
    assert "error: dead: connection refused" in printed.err
    assert "error: nopython: no python3" in printed.err
    for name, runtime, cpu in (("pi3", "litert", "Cortex-A53"), ("pi5", "onnxruntime", "Cortex-A76")):
        report = json.loads((bundle / "devices" / f"{name}.json").read_text())
        assert report["check"]["verdict"] == "pass"
        assert report["check"]["machine"]["cpu"] == cpu
        assert {row["runtime"] for row in report["check"]["rows"]} == {runtime}


@contextlib.contextmanager
def small_disk(home: Path, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(home)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_leaves_nothing_half_installed(
    plug: Callable[..., Path], mnx: Mnx, bundle: Path, tmp_path: Path
) -> None:
    home = tmp_path / "pi"
    home.mkdir()
    with small_disk(home, "9m"):
        plug("pi")
        printed = mnx("pi", bundle, "--no-bench")
        assert printed.code == ExitCode.MISSING
        assert "disk" in printed.err
        assert not [path for path in home.rglob("*") if path.is_file()]
