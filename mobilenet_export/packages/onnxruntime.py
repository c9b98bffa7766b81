"""ONNX Runtime's releases: highest opset and IR version, wheels, known problems.

Measured by loading one-node files of every opset and IR version in the wheels for x86-64 of 1.15.1, 1.16.3, 1.17.3,
1.18.1, 1.20.1, 1.21.0, 1.22.1, 1.23.2, 1.24.1, 1.25.1, 1.28.0, 1.30.0, 1.31.1 and 1.32.0 (2026-11-24); releases
between two that agree are the same, and patch releases as their minor release. A newer stamp is refused whatever
the operators are. An older one does not promise that every operator of it has a kernel.
Source: docs/Versioning.md of microsoft/onnxruntime (an opset of a release includes all from 7 on), and of onnx/onnx
(opset and IR version of each ONNX release), which agree with what was measured.
"""

from collections.abc import Iterator

from mobilenet_export.compat.facts import Package, Problem, Release, Wheels, parse_version

_ARCHITECTURES = ("aarch64", "x86_64")

_ABILITIES = (
    ("1.15.0 1.15.1", 19, 9, 5),
    ("1.16.0 1.16.1 1.16.2 1.16.3", 19, 9, 6),
    ("1.17.0 1.17.1 1.17.3", 20, 9, 6),
    ("1.18.0 1.18.1 1.19.0 1.19.2 1.20.0 1.20.1", 21, 10, 6),
    ("1.21.0 1.21.1 1.22.0 1.22.1", 22, 10, 6),
    ("1.23.0 1.23.1 1.23.2", 23, 11, 6),
    ("1.24.1 1.24.2 1.24.3 1.24.4", 25, 13, 6),
    ("1.25.0 1.25.1 1.26.0 1.27.0 1.28.0 1.29.0 1.30.0 1.31.0 1.31.1", 26, 13, 6),
    ("1.32.0", 28, 14, 6),
)
"""Releases, highest opset, IR version and version of ORT format (1.15.1 refuses 6; 1.16.3 and 1.18.1 load it)."""

_WHEELS = (
    ((1, 15), Wheels(_ARCHITECTURES, (3, 8), (3, 11), (2, 17))),
    ((1, 17), Wheels(_ARCHITECTURES, (3, 8), (3, 12), (2, 27))),
    ((1, 20), Wheels(_ARCHITECTURES, (3, 10), (3, 13), (2, 27))),
    ((1, 24), Wheels(_ARCHITECTURES, (3, 11), (3, 14), (2, 27))),
    ((1, 29), Wheels(_ARCHITECTURES, (3, 11), (3, 14), (2, 28))),
)
"""From that release on."""


def _releases() -> Iterator[Release]:
    for names, opset, ir_version, ort_format in _ABILITIES:
        for version in (parse_version(name, 3) for name in names.split()):
            (*_, wheels) = (wheels for first, wheels in _WHEELS if first <= version)
            stamps = {"opset": opset, "IR": ir_version, "ORT format": ort_format}
            yield Release(version, stamps, None, (wheels,))


PACKAGE = Package(
    name="onnxruntime",
    formats=("onnx", "ort"),
    releases=tuple(_releases()),
    problems=(
        Problem(
            first=(1, 21, 0),
            fixed=(1, 21, 1),
            label="dies on import",
            happens="on cores without Armv8.2 (Cortex-A53, A57, A72) `import onnxruntime` dies of an illegal "
            "instruction",  # seen under qemu too, with 1.20.1 and 1.21.1 to 1.32.0 well
            remedy="take 1.20.1, or 1.21.1 or later",
            source="https://github.com/microsoft/onnxruntime/issues/23957",
            cpus=("Cortex-A53", "Cortex-A57", "Cortex-A72"),
        ),
        Problem(
            first=(1, 15, 0),
            fixed=(1, 19, 0),
            label="needs numpy < 2",
            happens="with numpy 2 the import fails, and before 1.18.1 pip allows that",
            remedy="pip install 'numpy<2'",
            source="https://github.com/microsoft/onnxruntime/issues/21063",
        ),
    ),
    usual=((1, 16, 3), (1, 18, 1), (1, 21, 0), (1, 32, 0)),
)
