"""A Raspberry Pi without one: Debian for arm64 and the real wheels, run by qemu under the name of a real CPU.

`-cpu cortex-a53|a72|a76` gives the instructions of a Pi 3, 4 and 5, and so the kernels that runtimes choose there.
What is computed is what the chip would compute; the time it takes says nothing.

Everything is made once under build/device/, by names that hash what it is made of. A guest runs in namespaces of
its own: of users, so that its binfmt_misc, which starts arm64 programs, is not the host's; and of mounts.
"""

import functools
import hashlib
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
CACHE = CHECKOUT / "build" / "device"

_LOGIN = "python3-minimal,libstdc++6,libgcc-s1,coreutils,dash,findutils,grep,sed,mawk,libc-bin"
_TRIXIE = f"{_LOGIN},base-files,python3-onnxruntime,python3-numpy,python3-pil"
_SYSTEM = "mmdebstrap --quiet --arch=arm64 --variant=extract --include="
SYSTEMS = {
    "bookworm": f"{_SYSTEM}{_LOGIN},libpython3.11-stdlib bookworm",
    "trixie": f"{_SYSTEM}{_TRIXIE} trixie",
    "android": f"{_SYSTEM}{_TRIXIE},adbd,mksh,toybox trixie",
}
"""Debian 12 without, and 13 with its own build of ONNX Runtime, which has XNNPACK; and that with adb's daemon and
the shell and tools that Android has. No script of theirs has run."""
EMULATOR = "mmdebstrap --quiet --arch=amd64 --variant=extract --include=qemu-user trixie"
PYTHON = (
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
    "--abi",
    "abi3",
    "--abi",
    "none",
)
PLATFORMS = ("manylinux2014", *(f"manylinux_2_{minor}" for minor in (17, 24, 27, 28, 31, 34, 35, 36)))
PACKAGES = {
    "none": (),
    "its own": (),
    "onnxruntime": ("onnxruntime", "numpy", "pillow", "--constraint", "constraints.txt"),
    "litert": ("ai-edge-litert", "numpy", "pillow", "--constraint", "constraints.txt"),
    "tflite_runtime": ("tflite-runtime==2.14.0", "numpy==1.26.4", "pillow==13.0.0"),
    "onnxruntime 1.21": ("onnxruntime==1.21.0", "numpy==2.4.6", "pillow==13.0.0"),
}
"""What a device's Python has, by name."""

ALTERNATIVES = "/usr/lib/aarch64-linux-gnu/blas:/usr/lib/aarch64-linux-gnu/lapack"
"""Where Debian's numpy finds its BLAS as long as no script has set a link to it."""

_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
"""Of an arm64 program. Source: qemu, scripts/qemu-binfmt-conf.sh."""
REGISTER = f"""\
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf ':arm64:M::%s:%s:%s:F' '{_MAGIC}' '{_MASK}' "$emulator" > /proc/sys/fs/binfmt_misc/register
"""
"""Has arm64 programs run by the emulator."""
FURNISH = """\
mount -t proc proc proc || mount --rbind /proc proc
mount -t tmpfs -o mode=755 tmpfs sys
mkdir -p sys/devices/system/cpu
cp /sys/devices/system/cpu/possible /sys/devices/system/cpu/present sys/devices/system/cpu
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch "dev/$node"; mount --bind "/dev/$node" "dev/$node"; done
ln -s /proc/self/fd dev/fd
mkdir -m 1777 dev/shm
"""
"""Gives a root that is the current folder what a kernel and an init give."""
_ENTER = f"""\
set -e
root=$1 packages=$2 home=$3 python=$4 emulator=$5; shift 5
{REGISTER}
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
cd "$root"
mount --bind "$home" home/pi
[ "$python" = True ] || mount --bind /dev/null usr/bin/python3.11
[ -z "$packages" ] || mount -o bind,ro "$packages" usr/lib/python3/dist-packages
{FURNISH}unshare --user --map-user=1000 --map-group=1000 --root="$root" --wd=/ /usr/bin/env -i "$@"
exit $?
"""
"""The device's root is read-only, so that nothing that runs there alters what is kept under build/. Its user is an
ordinary one and sees no device and no /sys of this machine, even when root runs the tests. The shell stays: as
process 1 of its namespace a guest could not die of a signal such as SIGILL."""


def missing() -> str | None:
    """Why there can be no such Pi here, or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "arm64 is emulated on Linux x86-64 only"
    if shutil.which("mmdebstrap") is None:
        return "no mmdebstrap here: sh tests/setup_devices.sh, as root on Debian"
    probe = "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc"
    found = subprocess.run([*unshare(), "sh", "-c", probe], capture_output=True, text=True, check=False)
    return (
        f"no binfmt_misc in a user namespace (Linux 6.7): {found.stderr.strip()}"
        if found.returncode
        else None
    )


def unshare() -> list[str]:
    """Return the command that runs another one in namespaces of its own, in which it is root."""
    return ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]


def _made(name: str, recipe: Sequence[str]) -> Path:
    """Run a command that fills a folder, once; the folder is there whole or not at all."""
    digest = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:12]
    place = CACHE / f"{name.replace(' ', '-')}-{digest}"
    if not place.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=CACHE))
        command = [*recipe, str(partial)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(partial)
            raise RuntimeError(f"{recipe[0]}: {done.stderr.strip()}")
        partial.chmod(0o755)  # not only for whoever made it
        partial.rename(place)
    return place


@functools.cache
def system(name: str) -> Path:
    """Return the root of one of `SYSTEMS` for arm64, with Python and what a login needs."""
    root = _made(name, SYSTEMS[name].split())
    for folder in (
        "home/pi",
        "data/local/tmp",
        "system",
        "usr/lib/python3/dist-packages",
        "proc",
        "dev",
        "sys",
        "tmp",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    return root


@functools.cache
def emulator() -> Path:
    """Return the static qemu of Debian 13; that of Debian 12 crashes on `import onnxruntime`."""
    return _made("emulator", EMULATOR.split()) / "usr" / "bin" / "qemu-aarch64"


@functools.cache
def packages(name: str) -> Path:
    """Return a folder with the aarch64 wheels of one of `PACKAGES`, unpacked."""
    if not PACKAGES[name]:
        return _made("none", ["true"])
    platforms = [word for tag in PLATFORMS for word in ("--platform", f"{tag}_aarch64")]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:"]
    return _made(name, [*command, *PYTHON, *platforms, *PACKAGES[name], "--target"])


@dataclass(frozen=True)
class Pi:
    """A device: its CPU, what its Python has, and a folder of this machine as its home.

    Attributes:
        home: Of the only user, /home/pi there.
        cpu: As qemu calls it.
        has: Of `PACKAGES`.
        system: Of `SYSTEMS`.
        python: Whether there is one.
    """

    home: Path
    cpu: str = "cortex-a72"
    has: str = "onnxruntime"
    system: str = "bookworm"
    python: bool = True

    def command(self, *words: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """Return the command of this machine that runs one of the device's in its home."""
        settings = {
            "HOME": "/home/pi",
            "LANG": "C.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "QEMU_CPU": self.cpu,
            "LD_LIBRARY_PATH": ALTERNATIVES if self.has == "its own" else "",
            **(environment or {}),
        }
        there = "" if self.has == "its own" else str(packages(self.has))
        given = [str(system(self.system)), there, str(self.home), str(self.python), str(emulator())]
        variables = [f"{name}={value}" for name, value in settings.items()]
        inside = ["/bin/sh", "-c", 'cd && exec "$@"', "sh", *words]
        return [*unshare(), "sh", "-c", _ENTER, "sh", *given, *variables, *inside]

    def login(self) -> str:
        """Return the script of this machine that runs SSH_ORIGINAL_COMMAND there."""
        return f'exec {shlex.join(self.command("sh", "-c"))} "$SSH_ORIGINAL_COMMAND"\n'

    def run(self, *words: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
        )
