"""A fleet: many devices in one TOML file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenet_export.devices import Target, checked_folder, find_target
from mobilenet_export.documents import parse_toml
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name

_FIELDS = ("host", "dir", "runtime")


@dataclass(frozen=True, slots=True)
class Member:
    """A device, and the runtime that it is to use; None: any."""

    target: Target
    runtime: str | None = None


def read_fleet(path: Path) -> tuple[Member, ...]:
    """Read `[[device]]` tables of `host`, and optionally `dir` and `runtime`.

    Raises:
        UsageError: There is no such file, or a field is unknown or does not fit.
        DamagedInputError: It is not TOML.
    """
    try:
        table = parse_toml(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give a TOML file of [[device]] tables") from None
    except ValueError as error:
        raise DamagedInputError(f"{path}: not TOML: {error}", "mend the file") from None
    for name in table.keys() - {"device"}:
        raise unknown_name(f"table of {path}", name, ("device",))
    devices = table.get("device")
    if not isinstance(devices, list) or not devices:
        raise UsageError(f"{path}: no [[device]] in it", 'write [[device]] and host = "pi@pi1"')
    return tuple(_member(path, device) for device in devices)


def _member(path: Path, device: Any) -> Member:
    if not isinstance(device, dict):
        raise UsageError(f"{path}: a device is no table", "write [[device]], then its fields")
    for name, value in device.items():
        if name not in _FIELDS:
            raise unknown_name(f"field of a device in {path}", name, _FIELDS)
        if not isinstance(value, str):
            raise UsageError(f"{path}: {name} = {value!r} is no text", f'write {name} = "…"')
    if "host" not in device:
        raise UsageError(f"{path}: a device without a host", 'write host = "pi@pi1"')
    target = find_target(device["host"])
    if "dir" in device:
        checked = checked_folder(device["dir"])
        target = Target(target.name, target.transport, target.address, checked)
    return Member(target, device.get("runtime"))
