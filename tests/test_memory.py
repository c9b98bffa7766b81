"""Memory does not grow with the number of images: each test would fail if they were held.

Peaks measured on V2 at 96 px with 64 and with 5,000 images, the recipe using all of them: `mnx export --int8` 555
to 574 and 576 to 580 MB (two runs each), `mnx calibration lint` 491 and 501 MB, with `--no-ranges` 63 and 68 MB.
"""

import dataclasses
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import FEW_IMAGES, Exported
from PIL import Image

from mobilenet_export.graph import FloatArray
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline.export import quantize

PEAK = """
import resource, sys
from pathlib import Path
from mobilenet_export.pipeline import LintRequest, lint
from mobilenet_export.recipe import find_recipe
from mobilenet_export.spec import find_spec, resize_spec
spec = resize_spec(find_spec("v2"), None, 96, None)
report = lint(LintRequest(Path(sys.argv[1]), spec, find_recipe("int8"), ranges=False))
print(report.usable, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_kib(folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True, check=True
    )
    usable, peak = done.stdout.split()
    assert int(usable) == len(list(folder.iterdir()))
    return int(peak)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in other units elsewhere")
def test_lint_holds_no_images(tmp_path: Path) -> None:
    """400 preprocessed images of 96 px would be 42 MiB."""
    for name, count in (("few", 16), ("many", 400)):
        (tmp_path / name).mkdir()
        for index in range(count):
            pixels = np.random.default_rng(index).integers(0, 256, (14, 14, 3), np.uint8)
            Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(tmp_path / name / f"{index}.png")
    few, many = peak_kib(tmp_path / "few"), peak_kib(tmp_path / "many")
    assert many - few < 6 * 2**10


@pytest.mark.parametrize(("rounding", "slack_mib"), [(False, 8), (True, 20)])
def test_calibration_holds_no_images(small_v2: Exported, rounding: bool, slack_mib: int) -> None:
    """310 more preprocessed images of 96 px would be 33 MiB, and their activations far more."""

    def load(name: str) -> FloatArray:
        return np.random.default_rng(int(name)).uniform(-2, 2, (3, 96, 96)).astype(np.float32)

    def peak_mib(count: int) -> float:
        image_set = ImageSet("fake", tuple(map(str, range(count))), load)
        recipe = dataclasses.replace(
            FEW_IMAGES, calibration_images=count, bias_correction=False, rounding=rounding
        )
        tracemalloc.start()
        quantize(small_v2.source, image_set, recipe, lambda _steps: None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 2**20

    peak_mib(16)  # what is loaded once
    # Up to 64 images the extremes of each are kept, 5 MiB in all. Where weights are rounded, up to three moments of
    # 6 MiB more or less meet at the peak, by chance of the threads.
    assert peak_mib(400) < peak_mib(90) + slack_mib
