"""An installed wheel finds its data without the checkout: `make test-wheel`."""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


def pip(*arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, capture_output=True)


def test_models_and_calibration_come_with_the_wheel(tmp_path: Path) -> None:
    pip("wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", CHECKOUT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
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
