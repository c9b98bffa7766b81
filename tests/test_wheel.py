"""An installed wheel finds its data without the checkout: `make test-wheel`."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    pip("wheel", "--no-deps", "--wheel-dir", dist, CHECKOUT)
    (found,) = dist.glob("*.whl")
    return found


def test_models_and_calibration_come_with_the_wheel(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--no-deps", "--target", tmp_path / "site", wheel)
    code = (
        "import mobilenet_export, mobilenet_export.cli as cli, mobilenet_export.images as images;"
        "print(mobilenet_export.__file__);"
        "assert [len(part) for part in images.default_set()] == [64, 32];"
        "raise SystemExit(cli.run(['export', '--arch', 'v2', '--resolution', '96', '--out', 'bundle']))"
    )
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith(str(tmp_path / "site"))
    assert (tmp_path / "bundle" / "WEIGHTS.md").is_file()
    licences = {path.name for path in (tmp_path / "site").rglob("*") if "licenses" in path.parts}
    assert licences >= {"LICENSE", *(card.name for card in (CHECKOUT / "models" / "cards").iterdir())}


def test_a_device_needs_no_torch(wheel: Path, tmp_path: Path) -> None:
    """The extra `device` in an environment of its own: what a bundle does, and words for what it cannot."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    bin_folder, bundle = tmp_path / "venv" / "bin", tmp_path / "bundle"
    install = [bin_folder / "pip", "install", "--quiet", "--constraint", CHECKOUT / "constraints.txt"]
    subprocess.run([*install, f"{wheel}[device]"], check=True, capture_output=True)
    mnx = Path(sys.executable).parent / "mnx"
    options = ["--arch", "v2", "--resolution", "96", "--width", "0.25", "--weights", "none", "--int8"]
    subprocess.run([mnx, "export", *options, "--out", bundle], check=True, capture_output=True)

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command], cwd=bundle, capture_output=True, text=True, check=False)

    assert run(bin_folder / "python", "-c", "import torch").returncode != 0
    for command in ([bin_folder / "python", "run.py"], [bin_folder / "mnx-device"]):
        checked = run(*command, "check")
        assert checked.returncode == 0, checked.stderr + checked.stdout
        assert "verdict: pass" in checked.stdout
        assert run(*command, "bench", "--runs", "5").returncode == 0
    refused = run(bin_folder / "mnx", "export", "--arch", "v2")
    assert refused.returncode == 3
    assert "is not installed\nhint: pip install 'mobilenet-export[export]'" in refused.stderr
