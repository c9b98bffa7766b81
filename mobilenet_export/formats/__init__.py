"""One module per file format; each ends in `FORMAT: Format`."""

from pathlib import Path
from typing import Literal, Protocol

from mobilenet_export.artifact import InputOutput, Precision
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import Graph
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.quantized import QuantizedGraph


class Format(Protocol):
    """What is true of a file format, and what it can do; a new one is a new module in this folder."""

    name: str
    extension: str
    layout: Literal["NCHW", "NHWC"]
    """Order of the axes of the input."""
    dynamic_batch: bool
    """Whether one file takes any number of images at once, or one."""
    io: tuple[InputOutput, ...]
    """Types of input and output that an int8 file can have; the first is the default."""

    def write_float(self, graph: Graph, precision: Precision) -> bytes:
        """Spell a fused float graph as fp32, or with weights stored as fp16."""
        ...

    def write_int8(self, quantized: QuantizedGraph, io: InputOutput) -> bytes:
        """Spell the integers."""
        ...

    def read_precision(self, data: bytes) -> Precision:
        """Tell a file's precision from the types of its constants.

        Raises:
            ValueError: It is not a file of this format.
        """
        ...


def format_of(path: Path) -> Format:
    """Return the format that a file name's extension stands for.

    Raises:
        UsageError: It stands for none.
    """
    formats: list[Format] = [load_plugin("formats", name) for name in plugin_names("formats")]
    for found in formats:
        if path.suffix.lower() == found.extension:
            return found
    known = ", ".join(found.extension for found in formats)
    raise UsageError(f"{path}: no format ends in {path.suffix or 'nothing'}", f"known: {known}")


def io_types(form: Format, io: InputOutput) -> InputOutput:
    """Return the type of input and output asked for, or the format's own where it has no such files."""
    return io if io in form.io else form.io[0]


def artifact_name(model: str, form: Format, precision: Precision, io: InputOutput) -> str:
    """Name a file, such as `mobilenet_v2_100_224_int8.tflite`; integer input and output are named too."""
    suffix = "" if io == "float32" else f"_io_{io}"
    return f"{model}_{precision}{suffix}{form.extension}"
