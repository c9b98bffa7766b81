"""What a user says of a checkpoint on the command line, and what it is found to be."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mobilenet_export.cli import terminal
from mobilenet_export.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from mobilenet_export.pipeline.download import Download
    from mobilenet_export.spec import Given, ModelSpec, WeightsSpec


@dataclass(frozen=True, slots=True)
class Size:
    """Options of a network's size; None where they are not given."""

    width: float | None = None
    resolution: int | None = None
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """Options of what a network is trained with; None where they are not given."""

    padding: str | None = None
    eps: float | None = None
    mean: str | None = None
    std: str | None = None


def recognise(
    checkpoint: Path,
    name: str | None,
    size: Size,
    trained: Trained,
    published: "WeightsSpec | None" = None,
) -> "ModelSpec":
    """Return the variant that a checkpoint is, and say on stderr what it was recognised as.

    Args:
        checkpoint: The file.
        name: Of the variant that it is said to be; None finds it.
        size: Options that it has to fit.
        trained: Options that go before what its layout is trained with.
        published: What is known of the very file.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    from mobilenet_export.pipeline import open_checkpoint  # noqa: PLC0415 (imports numpy)

    spec, given = said_of_it(name, size, trained)
    if spec and published:
        spec = dataclasses.replace(spec, weights=published)
    with terminal.progress("load torch and the checkpoint", 0):
        fitted = open_checkpoint(checkpoint, spec, given)
    terminal.say(f"recognised: {fitted.description}")
    return fitted.spec


def download(name: str) -> "tuple[Download, Path]":
    """Return published weights by name, such as torchvision:mobilenet_v2, and their file, downloaded if need be.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    from mobilenet_export.pipeline import fetch, find_download  # noqa: PLC0415

    found = find_download(name)
    return found, fetch(found, terminal.progress)


def said_of_it(name: str | None, size: Size, trained: Trained) -> "tuple[ModelSpec | None, Given]":
    """Return the variant that a checkpoint is said to be, if any, and what else the options say of it.

    Raises:
        UsageError: An option is out of range.
    """
    from mobilenet_export.spec import find_spec  # noqa: PLC0415

    spec = find_spec(name) if name else None
    own = spec if name and name.endswith(".toml") else None  # its author means the size that it says
    return spec, _given(size, trained, own)


def _given(size: Size, trained: Trained, own: "ModelSpec | None") -> "Given":
    from mobilenet_export.spec import Given, Padding  # noqa: PLC0415

    if trained.padding not in (None, *get_args(Padding)):
        raise unknown_name("padding", str(trained.padding), get_args(Padding))
    if trained.eps is not None and not 0 < trained.eps < 1:
        raise UsageError(f"--eps {trained.eps:g}: not within 0 to 1", "torch uses 1e-5, TensorFlow 1e-3")
    return Given(
        width=own.width if own and size.width is None else size.width,
        resolution_px=own.resolution_px if own and size.resolution is None else size.resolution,
        classes=own.classes if own and size.classes is None else size.classes,
        padding=trained.padding,  # type: ignore[arg-type]  # one of them, as was just checked
        batch_norm_eps=trained.eps,
        mean=three_numbers("--mean", trained.mean) if trained.mean else None,
        std=three_numbers("--std", trained.std) if trained.std else None,
    )


def three_numbers(option: str, text: str) -> tuple[float, float, float]:
    """Read an option of one number per channel, of pixels in 0 to 1.

    Raises:
        UsageError: It is something else.
    """
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: not three numbers", f"write {option} 0.485,0.456,0.406") from None
    least = 0.0 if option == "--mean" else 1e-6
    if not all(least <= value <= 1 for value in (red, green, blue)):
        raise UsageError(f"{option} {text}: not within 0 to 1", "pixels count as 0 to 1 here: divide by 255")
    return (red, green, blue)
