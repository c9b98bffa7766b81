"""Errors a user can cause, each with the next step and the exit code it ends in."""

import difflib
from collections.abc import Iterable
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What `mnx` ends with; the one table of exit codes."""

    DONE = 0
    CHECK_FAILED = 1
    USAGE = 2
    MISSING = 3
    """Something the machine lacks: a dependency, a device, disk space, a permission."""
    DAMAGED = 4
    """An input file that cannot be read for what it claims to be."""
    INCONCLUSIVE = 5
    INTERNAL = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    """Whoever read the output closed it, as `| head -1` does."""


EXTRAS = {
    "export": (
        "ai_edge_litert",
        "flatbuffers",
        "matplotlib",
        "onnx",
        "onnxruntime",
        "onnxsim",
        "safetensors",
        "threadpoolctl",
        "torch",
    ),
    "dask": ("distributed",),
    "keras": ("h5py",),
    "phone": ("cryptography", "segno"),
}
"""What each extra brings, by the name that is imported; a device does without."""


class MnxError(Exception):
    """An error that a user can mend.

    Args:
        message: What is wrong, on one line.
        hint: The next step to take.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MnxError):
    """The command asks for what does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class MissingError(MnxError):
    """The machine lacks something: a dependency, a device, disk space, a permission."""

    exit_code = ExitCode.MISSING


class DamagedInputError(MnxError):
    """An input file cannot be read for what it claims to be."""

    exit_code = ExitCode.DAMAGED


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return the error for a name that is none of the known ones, with the nearest as the hint."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    listing = "known: " + ", ".join(names)
    hint = f"did you mean {near[0]}? ({listing})" if near else listing
    return UsageError(f"unknown {kind}: {name}", hint)


def explain_error(error: Exception) -> tuple[str, str, ExitCode]:
    """Return message, hint and exit code of any error."""
    match error:
        case MnxError(message=message, hint=hint):
            return message, hint, error.exit_code
        case ModuleNotFoundError(name=str(name)) if extra := _extra_of(name):
            package = name.split(".")[0].replace("_", "-")
            return f"{package} is not installed", f"pip install 'mobilenet-export[{extra}]'", ExitCode.MISSING
        case MemoryError():
            hint = "give a smaller input, or end other programs"
            return "there is not enough memory for this", hint, ExitCode.MISSING
        case OSError():
            where = error.filename or "the output"
            return f"cannot use {where}: {error.strerror}", "check space and permissions", ExitCode.MISSING
        case _:
            message = f"internal error: {type(error).__name__}: {error}"
            return message, "set MNX_TRACEBACK=1 and report what it prints", ExitCode.INTERNAL


def _extra_of(module: str) -> str | None:
    """The extra that brings a module."""
    package = module.split(".", maxsplit=1)[0]
    return next((extra for extra, packages in EXTRAS.items() if package in packages), None)
