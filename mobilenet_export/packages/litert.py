"""LiteRT's releases (`ai-edge-litert`): operators, wheels, known problems.

The glibc of 1.0 was measured with `strings`: it needs more than its file name says. 2.1.1 to 2.1.5 were not
measured and are not in the table.
"""

from collections.abc import Iterator

from mobilenet_export.compat.facts import Package, Problem, Release, Wheels, parse_version
from mobilenet_export.packages._tflite_operators import operators_of

_BOTH = ("aarch64", "x86_64")

_RELEASES = (
    ("1.0.0 1.0.1", "1.0.0", Wheels(("x86_64",), (3, 9), (3, 11), (2, 34))),
    ("1.1.0 1.1.1 1.1.2", "1.1.0", Wheels(_BOTH, (3, 9), (3, 12), (2, 17))),
    ("1.2.0", "1.2.0", Wheels(_BOTH, (3, 9), (3, 12), (2, 17))),
    ("1.3.0 1.4.0", "1.3.0", Wheels(_BOTH, (3, 9), (3, 12), (2, 17))),
    ("2.0.2 2.0.3", "2.0.2", Wheels(_BOTH, (3, 9), (3, 12), (2, 27))),
    ("2.1.0", "2.1.0", Wheels(_BOTH, (3, 9), (3, 13), (2, 27))),
    ("2.1.6", "2.1.6", Wheels(_BOTH, (3, 10), (3, 14), (2, 27))),
    ("2.2.0 2.3.0", "2.2.0", Wheels(_BOTH, (3, 10), (3, 14), (2, 27))),
)
"""Releases, the one among them that changed the operators, wheels."""


def _releases() -> Iterator[Release]:
    for names, changed, wheels in _RELEASES:
        operators = operators_of(f"ai-edge-litert {changed}")
        for name in names.split():
            yield Release(parse_version(name, 3), {"schema": 3}, operators, (wheels,))


PACKAGE = Package(
    name="ai-edge-litert",
    formats=("tflite",),
    releases=tuple(_releases()),
    problems=(
        Problem(
            first=(1, 0, 0),
            fixed=(1, 1, 0),
            label="needs numpy < 2",
            happens="with numpy 2 the import fails",
            remedy="pip install 'numpy<2', or take 1.1.0 or later",
            source="measured with 1.0.1 and 1.1.0 on 2026-11-24",
        ),
    ),
    usual=((2, 3, 0),),
    aliases=("litert",),
)
