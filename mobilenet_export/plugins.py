"""Folders that are their own registry: one module per entry, found by file name, imported on use."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from mobilenet_export.errors import unknown_name


def plugin_names(package: str) -> tuple[str, ...]:
    """Return the entries of a plugin folder, such as `formats`, without importing any of them."""
    folder = Path(__file__).resolve().parent / package
    return tuple(sorted(m.name for m in pkgutil.iter_modules([str(folder)]) if not m.name.startswith("_")))


def load_plugin(package: str, name: str) -> Any:
    """Return the object that the module `package/name.py` ends in (`FORMAT`, `RUNTIME`).

    Raises:
        UsageError: No such module; the hint names the nearest.
    """
    kind = package.removesuffix("s")
    if name not in plugin_names(package):
        raise unknown_name(kind, name, plugin_names(package))
    module = importlib.import_module(f"mobilenet_export.{package}.{name}")
    return getattr(module, kind.upper())
