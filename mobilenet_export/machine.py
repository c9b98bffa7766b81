"""What a machine is and how it is doing, read from the files that Linux shows; elsewhere less is known."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd49": "Neoverse-N2",
}
"""Name of an Arm core by its part number. Source: Linux, `arch/arm64/include/asm/cputype.h`."""

INT8_FEATURES = {
    "amx_int8": "multiplies tiles of int8",
    "avx512_vnni": "multiplies and adds 64 bytes at once",
    "avx_vnni": "multiplies and adds 32 bytes at once",
    "i8mm": "multiplies matrices of int8",
    "asimddp": "adds dot products of int8 (dotprod)",
}
"""CPU features, as Linux calls them, that make int8 faster than float32; best first of each architecture."""
_OTHER_FEATURES = ("avx2", "avx512f", "asimdhp", "sve")
_MHZ, _MILLIDEGREES = 1000, 1000


@dataclass(frozen=True, slots=True)
class Machine:
    """A computer.

    Attributes:
        system: Such as `Linux 6.6`.
        architecture: Such as `aarch64`.
        board: Of a single-board computer, what it calls itself; else empty.
        cpu: Name of it.
        cores: That this process may use.
        features: Those of the CPU that matter here, as Linux calls them.
        memory_bytes: 0 where it is not known.
        python: Version.
    """

    system: str
    architecture: str
    board: str
    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_bytes: int
    python: str

    @property
    def int8(self) -> str:
        """What the CPU's features mean for int8, in words."""
        for name, meaning in INT8_FEATURES.items():
            if name in self.features:
                return f"{name}: {meaning}, so int8 should be faster than fp32"
        if self.architecture in ("x86_64", "AMD64"):
            return "no VNNI: int8 needs three instructions where fp32 needs one, and is not always faster"
        if self.architecture in ("aarch64", "arm64"):
            return "no dotprod: int8 is multiplied in 16 bits, and gains less"
        if self.architecture == "wasm":
            return "in wasm LiteRT.js has fast kernels for int8, and ONNX Runtime has not"
        return "unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """How a machine is doing; None where the system does not tell.

    Attributes:
        temperature_c: Of the hottest zone.
        mhz: Of the fastest core.
        governor: Of the first core's frequency.
        throttled: Whether a Raspberry Pi's firmware holds the clock down now.
    """

    temperature_c: float | None
    mhz: float | None
    governor: str | None
    throttled: bool | None


def this_machine() -> Machine:
    """Return what is known of this computer."""
    cpuinfo = _text("/proc/cpuinfo") or ""
    flags = set((_entry(cpuinfo, "flags") or _entry(cpuinfo, "Features")).split())
    known = (*INT8_FEATURES, *_OTHER_FEATURES)
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        board=(_text("/proc/device-tree/model") or "").strip("\0\n"),
        cpu=_cpu_name(cpuinfo),
        cores=_usable_cores(),
        features=tuple(name for name in known if name in flags),
        memory_bytes=_memory_bytes(),
        python=platform.python_version(),
    )


def condition() -> Condition:
    """Return how this computer is doing now."""
    zones = [_number(path) for path in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    clocks = [_number(path) for path in _cpus().glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    degrees, kilohertz = [one for one in zones if one], [one for one in clocks if one]
    governor = _text(_cpus() / "cpu0/cpufreq/scaling_governor")
    throttled = _text("/sys/devices/platform/soc/soc:firmware/get_throttled")
    return Condition(
        temperature_c=max(degrees) / _MILLIDEGREES if degrees else None,
        mhz=max(kilohertz) / _MHZ if kilohertz else None,
        governor=governor.strip() if governor else None,
        throttled=bool(int(throttled, 16) & 0xF) if throttled else None,
    )


def _cpus() -> Path:
    return Path("/sys/devices/system/cpu")


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name(cpuinfo: str) -> str:
    part = _entry(cpuinfo, "CPU part")
    return _CORES.get(part) or _entry(cpuinfo, "model name") or part or platform.processor() or "unknown"


def _memory_bytes() -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo") or "", re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _entry(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _number(path: Path) -> float | None:
    text = (_text(path) or "").strip()
    return float(text) if text.lstrip("-").isdigit() else None
