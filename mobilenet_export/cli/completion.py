"""What the shell offers after Tab: names of variants, recipes, runtimes, hosts, and so on.

Each is looked up without numpy or a runtime. Where nothing fits,
the shell offers files.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import typer

_KEYWORD = re.compile(r"\s*(host|include)(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
_DEEPEST_INCLUDE = 3


def variants() -> list[str]:
    """Return the variants and their short names."""
    import tomllib  # noqa: PLC0415 (only here)

    from mobilenet_export.shipped import shipped_path  # noqa: PLC0415

    paths = sorted(shipped_path("models").glob("*.toml"))
    tables = [tomllib.loads(path.read_text(encoding="utf-8")) for path in paths]
    return [table[key] for key in ("alias", "name") for table in tables if key in table]


def recipes() -> list[str]:
    """Return the shipped recipes."""
    from mobilenet_export.recipe import recipe_names  # noqa: PLC0415

    return list(recipe_names())


def runtimes() -> list[str]:
    """Return the runtimes of this computer, torch among them."""
    return _plugins("runtimes")


def file_runtimes() -> list[str]:
    """Return the runtimes that read files."""
    return [name for name in _plugins("runtimes") if name != "torch"]


def packages() -> list[str]:
    """Return the runtimes that `mnx compat` knows releases of."""
    return _plugins("packages")


def apps() -> list[str]:
    """Return the kinds of apps that there is code for."""
    return _plugins("snippets")


def formats() -> list[str]:
    """Return the file formats."""
    return _plugins("formats")


def inputs() -> list[str]:
    """Return what files take and give."""
    return ["float32", "uint8", "int8"]


def paddings() -> list[str]:
    """Return how layers of stride 2 are padded."""
    return ["symmetric", "tensorflow"]


def precisions() -> list[str]:
    """Return the precisions that networks are compared in."""
    return ["fp32", "int8"]


def published() -> list[str]:
    """Return the networks that figures were published of, by width and resolution."""
    from mobilenet_export.published import read_published  # noqa: PLC0415

    return [one.arch for one in read_published()]


def reports() -> list[str]:
    """Return the forms of a report for CI."""
    return ["md", "junit"]


def _plugins(package: str) -> list[str]:
    from mobilenet_export.plugins import plugin_names  # noqa: PLC0415

    return list(plugin_names(package))


def boards() -> list[str]:
    """Return the devices that `mnx compat` knows."""
    from mobilenet_export.compat.boards import BOARDS  # noqa: PLC0415

    return [board.name for board in BOARDS]


def hosts(context: typer.Context, incomplete: str) -> list[str]:
    """Return the hosts of ssh's config, and the devices that bundles here were sent to.

    Shells differ in whether `user@` is part of the word, so a host is also offered behind it.
    """
    config = context.params.get("ssh_config") or os.environ.get("MNX_SSH_CONFIG") or "~/.ssh/config"
    known = dict.fromkeys([*_configured(Path(config).expanduser(), 0), *_devices(Path())])
    if any(host.startswith(incomplete) for host in known):
        return list(known)
    user, at, _ = incomplete.rpartition("@")
    return [user + at + part for host in known for part in re.split("[@:]", host)[1 if not at else 0 :]]


def _configured(config: Path, depth: int) -> Iterator[str]:
    """Yield the `Host` names without wildcards of an ssh config, and of the files that it includes."""
    try:
        lines = config.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for keyword, words in (found.groups() for found in map(_KEYWORD.fullmatch, lines) if found):
        for word in words.split():
            if keyword.lower() == "host" and not set(word) & set("*?!"):
                yield word
            if keyword.lower() == "include" and depth < _DEEPEST_INCLUDE:
                included = Path("~/.ssh").expanduser() / Path(word).expanduser()
                for path in sorted(included.parent.glob(included.name)):
                    yield from _configured(path, depth + 1)


def _devices(folder: Path) -> Iterator[str]:
    """Yield the devices that the bundles in a folder, or it itself, have reports of."""
    for pattern in ("devices/*.json", "*/devices/*.json"):
        for path in sorted(folder.glob(pattern)):
            try:
                host = json.loads(path.read_text(encoding="utf-8"))["host"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if isinstance(host, str):
                yield host
