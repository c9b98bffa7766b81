"""tflite-runtime's releases: operators, wheels, known problems. It ends with 2.14 of 2023; LiteRT follows it.

The glibc is what the wheels need, measured with `strings` on 2.11 to 2.14 (the older ones are taken to need what
2.11 does): several need more than their file names say. Source: tensorflow/tensorflow issues 60738 and 62581.
"""

from mobilenet_export.compat.facts import Package, Problem, Release, Version, Wheels, version_text
from mobilenet_export.packages._tflite_operators import operators_of

_ALL = ("aarch64", "armv7l", "x86_64")


def _release(version: Version, *wheels: Wheels) -> Release:
    name = f"tflite-runtime {version_text(version)}"
    return Release(version, {"schema": 3}, operators_of(name), wheels)


PACKAGE = Package(
    name="tflite-runtime",
    formats=("tflite",),
    releases=(
        _release((2, 7, 0), Wheels(_ALL, (3, 7), (3, 9), (2, 27))),
        _release((2, 8, 0), Wheels(_ALL, (3, 7), (3, 9), (2, 27))),
        _release((2, 9, 1), Wheels(_ALL, (3, 7), (3, 9), (2, 27))),
        _release((2, 10, 0), Wheels(_ALL, (3, 7), (3, 9), (2, 27))),
        _release((2, 11, 0), Wheels(_ALL, (3, 7), (3, 9), (2, 27))),
        _release((2, 12, 0), Wheels(_ALL, (3, 8), (3, 9), (2, 34))),
        _release((2, 13, 0), Wheels(_ALL, (3, 8), (3, 10), (2, 29))),
        _release(
            (2, 14, 0),
            Wheels(("aarch64", "armv7l"), (3, 8), (3, 11), (2, 34)),
            Wheels(("x86_64",), (3, 8), (3, 11), (2, 31)),
        ),
    ),
    problems=(
        Problem(
            first=(2, 7, 0),
            fixed=None,
            label="needs numpy < 2",
            happens="with numpy 2 making an interpreter fails, and pip allows that",
            remedy="pip install 'numpy<2', or take ai-edge-litert",
            source="https://github.com/rhasspy/wyoming-addons/pull/4",
        ),
    ),
    usual=((2, 14, 0),),
)
