"""One module per kind of app; each ends in `SNIPPET: Snippet`, and fills the template that lies beside it.

What a bundle says of a file becomes constants and the few lines that differ; nothing is left for an app to decide.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from mobilenet_export.bundle import EXPORT_AGAIN, LABELS, Bundle
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.plugins import load_plugin

__all__ = ["Facts", "Snippet", "choose_file", "fill", "read_facts", "snippet"]

Values = Literal["normalized", "uint8", "int8"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What an app has to know of a file.

    Attributes:
        file: Name in the bundle.
        format: Name of its module in `formats/`.
        resize_px: Of a photo's short side.
        crop_px: Of the square that is cut out of its middle.
        interpolation: Filter of the resize.
        mean: Of pixels in 0 to 1, per channel.
        std: Likewise.
        values: That the input takes: normalized float32, or pixels as uint8, or as int8 less 128.
        layout: Of the input, NCHW or NHWC.
        inputs: Name of the input.
        outputs: Name of the output.
        classes: Number of them.
        scale: Of an int8 output, else None: real = scale·(q − zero_point).
        zero_point: Likewise.
        softmax: Whether scores are probabilities; otherwise they are logits.
    """

    file: str
    format: str
    resize_px: int
    crop_px: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    values: Values
    layout: str
    inputs: str
    outputs: str
    classes: int
    scale: float | None
    zero_point: int | None
    softmax: bool

    def slots(self) -> dict[str, str]:
        """Return what every template may ask for."""
        return {
            "file": self.file,
            "stem": Path(self.file).stem,
            "format": self.format,
            "layout": self.layout,
            "labels": LABELS,
            "resize": str(self.resize_px),
            "crop": str(self.crop_px),
            "interpolation": self.interpolation,
            "input": self.inputs,
            "output": self.outputs,
            "classes": str(self.classes),
            "scores": "probability" if self.softmax else "logit",
            "scale": repr(self.scale),
            "zero": str(self.zero_point),
        }


class Snippet(Protocol):
    """Code for a kind of app; a new one is a new module in this folder.

    Attributes:
        name: Of its module.
        formats: That the code can run, the preferred one first.
    """

    name: str
    formats: tuple[str, ...]

    def write(self, facts: Facts) -> str:
        """Return the source of a file that classifies images."""
        ...


def snippet(name: str) -> Snippet:
    """Return a snippet by name."""
    found: Snippet = load_plugin("snippets", name)
    return found


def choose_file(bundle: Bundle, kind: Snippet, name: str | None) -> str:
    """Return the named file, or the one that suits such an app best: camera-ready, else of integers.

    Raises:
        UsageError: There is none, or the snippet cannot run it.
        DamagedInputError: The file is missing, or the bundle does not say what it takes.
    """
    files = {entry["path"]: entry for entry in bundle.document["files"]}
    if name is not None and name not in files:
        raise unknown_name("file of the bundle", name, files)
    usable = [entry for entry in files.values() if entry["format"] in kind.formats]
    if name is not None:
        usable = [entry for entry in usable if entry["path"] == name]
    if not usable:
        wanted = " or ".join(kind.formats)
        what = name or f"all in {bundle.folder}"
        raise UsageError(
            f"{what}: no file for {kind.name}, which takes {wanted}", f"export --formats {wanted}"
        )
    usable = [entry for entry in usable if (bundle.folder / str(entry["path"])).is_file()]
    if not usable:
        missing = name or f"every file for {kind.name}"
        raise DamagedInputError(f"{bundle.folder}: {missing} is missing", EXPORT_AGAIN)
    try:
        best = min(usable, key=lambda entry: _rank(entry, kind))
    except (KeyError, ValueError):
        raise DamagedInputError(
            f"{bundle.folder}: says of a file what this version does not know", EXPORT_AGAIN
        ) from None
    return str(best["path"])


def _rank(entry: Mapping[str, Any], kind: Snippet) -> tuple[int, int, int]:
    takes = ("uint8", "float32", "int8").index(entry["io"])
    return kind.formats.index(entry["format"]), takes, ("int8", "fp16", "fp32").index(entry["precision"])


def read_facts(bundle: Bundle, name: str) -> Facts:
    """Read what the bundle says of a file.

    Raises:
        DamagedInputError: It says too little.
    """
    (entry,) = (entry for entry in bundle.document["files"] if entry["path"] == name)
    try:
        given, output = bundle.document["model"]["preprocess"], entry["output"]
        return Facts(
            file=_word(entry["path"]),
            format=_word(entry["format"]),
            resize_px=int(given["resize_px"]),
            crop_px=int(given["crop_px"]),
            interpolation=_word(given["interpolation"]),
            mean=tuple(map(float, given["mean"])),
            std=tuple(map(float, given["std"])),
            values=_values(entry["input"]),
            layout=_word(entry["input"]["layout"]),
            inputs=_word(entry["input"]["name"]),
            outputs=_word(output["name"]),
            classes=int(output["shape"][-1]),
            scale=float(output["scale"]) if output["type"] == "int8" else None,
            zero_point=int(output["zero_point"]) if output["type"] == "int8" else None,
            softmax=bool(bundle.document["model"]["softmax"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DamagedInputError(
            f"{bundle.folder}: does not say how to feed {name}: {error}", EXPORT_AGAIN
        ) from None


def _word(text: Any) -> str:
    """Return text that is safe inside quotes and comments of any language."""
    if not isinstance(text, str) or not re.fullmatch(r"[\w .@+-]+", text):
        raise ValueError(f"{text!r} cannot stand in code")
    return text


def _values(given: Mapping[str, Any]) -> Values:
    match given["values"], given["type"]:
        case "normalized", "float32":
            return "normalized"
        case "rgb", "uint8":
            return "uint8"
        case "rgb", "int8":
            return "int8"
        case values, kind:
            raise ValueError(f"{values} as {kind}")


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Return a template of this folder with its «slots» filled."""
    text = (Path(__file__).parent / template).read_text(encoding="utf-8")
    return re.sub("«([a-z]+)»", lambda found: slots[found[1]], text)
