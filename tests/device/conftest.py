"""What the tests on emulated devices share: bundles of networks with their own weights, small enough to emulate."""

from pathlib import Path

import arm
import pytest
from sshd import NEEDS, SSHD

from mobilenet_export.pipeline import ExportRequest, export
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import find_spec, resize_spec

SIDE_PX = 96


@pytest.fixture(scope="session")
def emulated() -> None:
    """Skip where there can be no emulated device."""
    if reason := arm.missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def reachable(emulated: None) -> None:
    """Skip where it cannot be reached by ssh, too."""
    if SSHD is None:
        pytest.skip(NEEDS)


@pytest.fixture(scope="session")
def bundles(emulated: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """V1 and V2 at 96 px, in every precision and format."""
    return {
        arch: make_bundle(arch, tmp_path_factory.mktemp("bundles") / f"{arch} 96 px") for arch in ("v1", "v2")
    }


def make_bundle(arch: str, out: Path) -> Path:
    spec = resize_spec(find_spec(arch), None, SIDE_PX, None)
    precisions = ("fp32", "fp16", "int8")
    export(ExportRequest(spec, out, precisions, ("onnx", "tflite"), find_recipe("int8-fast")))
    return out
