"""`compat`: model files against releases of runtimes and a board, from tables; nothing is run."""

import re
from dataclasses import dataclass
from pathlib import Path

from mobilenet_export.bundle import read_bundle
from mobilenet_export.compat.boards import find_board
from mobilenet_export.compat.facts import Package, ReadRequirements, Requirements, Version, parse_version
from mobilenet_export.compat.judge import CompatReport, Target, judge
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.formats import format_of
from mobilenet_export.pipeline.reference import read_file
from mobilenet_export.plugins import load_plugin, plugin_names


@dataclass(frozen=True, slots=True)
class CompatRequest:
    """What to judge.

    Attributes:
        targets: Bundles and model files.
        runtimes: Such as `onnxruntime==1.16`; the newest release where no version is given; else the usual ones.
        device: Name of a board.
        python: Version of it, such as `3.11`.
    """

    targets: tuple[Path, ...]
    runtimes: tuple[str, ...] = ()
    device: str | None = None
    python: str | None = None


def compat(request: CompatRequest) -> CompatReport:
    """Judge every file in every release that reads its format.

    Raises:
        UsageError: A file, runtime, device or version that does not exist, or no runtime reads any of the files.
        DamagedInputError: A file cannot be read for what it claims to be.
    """
    board = find_board(request.device) if request.device else None
    target = Target(board, parse_version(request.python, 2) if request.python else None)
    asked = [find_release(text) for text in dict.fromkeys(request.runtimes)]
    releases = asked or [(package, version) for package in _packages() for version in package.usual]
    alone = len(request.targets) == 1
    files = [file for path in dict.fromkeys(request.targets) for file in _files(path, alone=alone)]
    needs = {file.name: _requirements(file) for file in files}
    judgements = tuple(
        judge(file.name, needs[file.name], package, version, target)
        for file in files
        for package, version in releases
        if file.format in package.formats
    )
    if not judgements:
        raise UsageError(
            "none of the runtimes reads any of the files", "leave --runtime out for those that do"
        )
    return CompatReport(target, needs, judgements, asked=bool(asked))


def find_release(text: str) -> tuple[Package, Version]:
    """Return the runtime and the version that `onnxruntime==1.16` names; it need not be in our table.

    Raises:
        UsageError: No such runtime, or no version; the hint names the nearest.
    """
    name, _, version = text.partition("==")
    packages = {known: package for package in _packages() for known in (package.name, *package.aliases)}
    wanted = name.strip().lower().replace("_", "-")
    if wanted not in packages:
        if any(sign in name for sign in "=<>~!"):
            near = re.sub("[=<>~! ]+", "==", text)
            raise UsageError(f"{text} is no release", f"did you mean {near}?")
        raise unknown_name("runtime", name, packages)
    package = packages[wanted]
    newest = package.releases[-1].version
    return package, parse_version(version.strip(), 3) if "==" in text else newest


def _packages() -> list[Package]:
    return [load_plugin("packages", name) for name in plugin_names("packages")]


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    format: str
    data: bytes


def _files(path: Path, *, alone: bool) -> list[_File]:
    """A file, or every file of a bundle; named with the path given where there are several."""
    if path.is_dir():
        found = read_bundle(path).artifacts()
        return [_File(one.file if alone else str(path / one.file), one.format, one.data) for one in found]
    if not path.exists():
        raise UsageError(f"no such file or folder: {path}", "give a bundle, or model files")
    return [_File(path.name if alone else str(path), format_of(path).name, read_file(path))]


def _requirements(file: _File) -> Requirements:
    read: ReadRequirements = load_plugin("requirements", file.format)
    try:
        return read(file.data)
    except ValueError as error:
        raise DamagedInputError(f"{file.name}: {error}", "export the file again") from None
