"""What files need, what releases of runtimes can, and what is known to go wrong with them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mobilenet_export.errors import UsageError

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a model file needs of a runtime.

    Attributes:
        stamps: Versions that the file states of itself: `opset`, `IR`, `schema`.
        operators: Name of each operator used → its version.
    """

    stamps: Mapping[str, int]
    operators: Mapping[str, int]

    @property
    def summary(self) -> str:
        """The stamps in words, such as `opset 13, IR 7, 6 operators`."""
        stamps = [f"{name} {value}" for name, value in self.stamps.items()]
        count = len(self.operators)
        return ", ".join([*stamps, f"{count} operator{'' if count == 1 else 's'}"])


ReadRequirements = Callable[[bytes], Requirements]
"""Reads a file of one format; each module in `requirements/` ends in one.

Raises:
    ValueError: It is not a file of that format; the message says why.
"""


@dataclass(frozen=True, slots=True)
class Wheels:
    """The wheels of a release for Linux.

    Attributes:
        architectures: As `uname -m` says them.
        oldest_python: Lowest version that has a wheel.
        newest_python: Highest; all between have one too.
        glibc: Lowest version that the wheel needs.
    """

    architectures: tuple[str, ...]
    oldest_python: Version
    newest_python: Version
    glibc: Version

    @property
    def pythons(self) -> str:
        """The range of versions in words."""
        return f"Python {version_text(self.oldest_python)}–{version_text(self.newest_python)}"


@dataclass(frozen=True, slots=True)
class Release:
    """A release of a runtime.

    Attributes:
        version: Of three parts.
        stamps: The highest of each that it accepts.
        operators: The highest version of each operator that it has; None where the stamps say all.
        wheels: On PyPI.
    """

    version: Version
    stamps: Mapping[str, int]
    operators: Mapping[str, int] | None
    wheels: tuple[Wheels, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something known to go wrong with releases that load the file.

    Attributes:
        first: The first release that has it.
        fixed: The first that has it no more; None where it was never fixed.
        label: In three words.
        happens: When and what.
        remedy: What to do.
        source: Address of a report.
        cpus: Where it strikes, always; empty where it depends on what else is installed.
    """

    first: Version
    fixed: Version | None
    label: str
    happens: str
    remedy: str
    source: str
    cpus: tuple[str, ...] = ()

    def concerns(self, version: Version) -> bool:
        """Whether a release has it."""
        return self.first <= version and (self.fixed is None or version < self.fixed)


@dataclass(frozen=True, slots=True)
class Package:
    """A runtime as pip installs it.

    Attributes:
        name: On PyPI.
        formats: Names of the formats that it reads, as in `formats/`.
        releases: Oldest first.
        problems: Known of any of them.
        usual: Releases to look at where none is asked for.
        aliases: Other names that users type.
    """

    name: str
    formats: tuple[str, ...]
    releases: tuple[Release, ...]
    problems: tuple[Problem, ...]
    usual: tuple[Version, ...]
    aliases: tuple[str, ...] = ()

    def nearest(self, version: Version) -> Release | None:
        """Return the release, or the newest one that is older; None where all are newer."""
        older = [release for release in self.releases if release.version <= version]
        return older[-1] if older else None


def version_text(version: Version) -> str:
    """Return `1.16.3` for (1, 16, 3)."""
    return ".".join(map(str, version))


def parse_version(text: str, parts: int) -> Version:
    """Return the first so many parts of a version; those left out are 0, as PEP 440 has it.

    Raises:
        UsageError: It is not one to three numbers with dots between.
    """
    numbers = text.split(".")
    plain = all(number.isascii() and number.isdecimal() and len(number) < 6 for number in numbers)
    if not plain or len(numbers) > 3:
        raise UsageError(
            f"{text or 'nothing'} is no version", "give numbers and dots, such as 1.16 or 1.16.3"
        )
    return tuple([*map(int, numbers), 0, 0][:parts])
