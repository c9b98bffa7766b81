"""Which version this is, and of what beside it."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version

from mobilenet_export import __version__
from mobilenet_export.cli import terminal
from mobilenet_export.cli.settings import Setting
from mobilenet_export.errors import EXTRAS

_ALWAYS = ("numpy", "pillow", "rich", "typer")


def print_version(*, as_json: bool) -> None:
    """Print the version; as JSON with those of Python and of all libraries, null where one is not installed."""
    if as_json:
        terminal.print_json(
            {"mnx": __version__, "python": platform.python_version(), "platform": platform.platform()}
            | {"libraries": libraries()}
        )
    else:
        terminal.print_text(f"mnx {__version__}\n")


def libraries() -> Mapping[str, str | None]:
    """Return the versions of what this package can use, without importing it."""
    found: dict[str, str | None] = {}
    imported = (*_ALWAYS, *(package for packages in EXTRAS.values() for package in packages))
    for name in sorted(package.replace("_", "-") for package in imported):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def say_surroundings(settings: Sequence[Setting]) -> None:
    """Say which versions run, and which options are set elsewhere than in the command."""
    installed = ", ".join(f"{name} {number}" for name, number in libraries().items() if number)
    terminal.say_detail(f"mnx {__version__}, Python {platform.python_version()}, {installed}")
    for one in settings:
        terminal.say_detail(f"{' '.join(('mnx', *one.command, one.option))} = {one.value!r} ({one.source})")
