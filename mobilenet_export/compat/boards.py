"""Boards and what runs on them: CPU, memory, and the Python and glibc of their operating systems.

Sources: CPUs and memory, raspberrypi.com/documentation/computers/processors.html and the products' pages;
features, Arm's reference manuals of the cores (dotprod and fp16 arithmetic came with Armv8.2, i8mm with 8.6);
Python and glibc, packages.debian.org (python3, libc6) and, of the Jetson, NVIDIA's JetPack 4.6 (Ubuntu 18.04).
"""

import dataclasses
from dataclasses import dataclass

from mobilenet_export.compat.facts import Version, version_text
from mobilenet_export.errors import unknown_name


@dataclass(frozen=True, slots=True)
class System:
    """An operating system: its name, its own Python, its glibc."""

    name: str
    python: Version
    glibc: Version


@dataclass(frozen=True, slots=True)
class Board:
    """A computer to deploy to.

    Attributes:
        name: As users type it.
        title: Its full name.
        cpu: Name of the core.
        architecture: As `uname -m` says it.
        features: Those of the CPU that matter for speed, of dotprod, i8mm and fp16.
        memory_mb: Of the smallest one sold.
        systems: The current one first.
    """

    name: str
    title: str
    cpu: str
    architecture: str
    features: tuple[str, ...]
    memory_mb: int
    systems: tuple[System, ...]

    def system(self, python: Version | None) -> System:
        """Return the system whose own Python that is, else the current one."""
        return next((system for system in self.systems if system.python == python), self.systems[0])

    def describe(self, python: Version | None) -> str:
        """Say what it is, on one line."""
        system = self.system(python)
        features = f" with {', '.join(self.features)}" if self.features else ""
        memory = f"{self.memory_mb // 1024} GB" if self.memory_mb >= 1024 else f"{self.memory_mb} MB"
        return (
            f"{self.name}: {self.title}, {self.cpu}{features}, {self.architecture}, {memory} or more; "
            f"{system.name}, glibc {version_text(system.glibc)}, Python {version_text(python or system.python)}"
        )


_RASPBERRY_PI_OS = (
    System("Raspberry Pi OS trixie", (3, 13), (2, 41)),
    System("Raspberry Pi OS bookworm", (3, 11), (2, 36)),
    System("Raspberry Pi OS bullseye", (3, 9), (2, 31)),
)
_JETPACK_4 = (System("JetPack 4.6", (3, 6), (2, 27)),)
_DESKTOP = (
    System("Debian 13", (3, 13), (2, 41)),
    System("Debian 12", (3, 11), (2, 36)),
    System("Ubuntu 24.04", (3, 12), (2, 39)),
    System("Ubuntu 22.04", (3, 10), (2, 35)),
)
_PIS = (
    Board("pi3", "Raspberry Pi 3", "Cortex-A53", "aarch64", (), 1024, _RASPBERRY_PI_OS),
    Board("pi4", "Raspberry Pi 4", "Cortex-A72", "aarch64", (), 1024, _RASPBERRY_PI_OS),
    Board("pi5", "Raspberry Pi 5", "Cortex-A76", "aarch64", ("dotprod", "fp16"), 1024, _RASPBERRY_PI_OS),
    Board("pi02w", "Raspberry Pi Zero 2 W", "Cortex-A53", "aarch64", (), 512, _RASPBERRY_PI_OS),
)
BOARDS = (
    *_PIS,
    *(dataclasses.replace(board, name=f"{board.name}-32bit", architecture="armv7l") for board in _PIS),
    Board("jetson-nano", "Jetson Nano", "Cortex-A57", "aarch64", (), 2048, _JETPACK_4),
    Board("pc", "PC", "x86-64", "x86_64", (), 1024, _DESKTOP),
)
"""A Pi with the 32-bit system is a board of its own: pip looks for armv7l wheels there."""


def find_board(name: str) -> Board:
    """Return a board by its name, in any case.

    Raises:
        UsageError: There is none of that name; the hint names the nearest.
    """
    for board in BOARDS:
        if board.name == name.lower():
            return board
    raise unknown_name("device", name, [board.name for board in BOARDS])
