"""One module per file format; each ends in `FORMAT: Format`."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from mobilenet_export.artifact import InputOutput, Normalization, Precision
from mobilenet_export.errors import UsageError
from mobilenet_export.graph import FloatArray, Graph, Kernel
from mobilenet_export.model_card import ModelCard
from mobilenet_export.plugins import load_plugin, plugin_names
from mobilenet_export.quantized import QuantizedGraph, QuantizedKernel, TensorScale


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

    def write_float(
        self,
        graph: Graph,
        precision: Precision,
        card: ModelCard | None = None,
        pixels: Normalization | None = None,
    ) -> bytes:
        """Spell a fused float graph as fp32, or with weights stored as fp16.

        Args:
            graph: To write.
            precision: `fp32` or `fp16`.
            card: Goes into the file.
            pixels: How RGB pixels, taken as uint8 and channel-last, become the graph's input; None takes that.
        """
        ...

    def write_int8(self, quantized: QuantizedGraph, io: InputOutput, card: ModelCard | None = None) -> bytes:
        """Spell the integers.

        Args:
            quantized: To write.
            io: `float32` takes normalized values and gives float32; `uint8` takes RGB pixels, channel-last, and
                gives float32; `int8` takes such pixels less 128 and gives integers.
            card: Goes into the file.

        Raises:
            ValueError: Integers are to be taken by a graph that was not quantized for pixels.
        """
        ...

    def read_int8(self, data: bytes, graph: Graph) -> QuantizedGraph:
        """Read the integers back from an int8 file that `write_int8` has spelled, whatever its input and output.

        Args:
            data: Of the file.
            graph: That it was exported from: layers are found by its names, and the structure is taken from it.

        Raises:
            ValueError: The file holds no integers that fit the graph; the message says which.
        """
        ...

    def read_precision(self, data: bytes) -> Precision:
        """Tell a file's precision from the types of its constants.

        Raises:
            ValueError: It is not a file of this format.
        """
        ...

    def companions(self, files: Sequence[bytes]) -> Mapping[str, bytes]:
        """Return what goes beside the files of this format in a bundle, by name."""
        ...


def no_companions(_files: Sequence[bytes]) -> Mapping[str, bytes]:
    """Return nothing: the `companions` of a format whose files stand alone."""
    return {}


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
    ending = f"no format ends in {path.suffix}" if path.suffix else "a name without an ending tells no format"
    raise UsageError(f"{path}: {ending}", f"known: {known}")


def checked_scale(tensor: str, scale: float, zero_point: int) -> TensorScale:
    """Return the scale of an activation that was read, in the unsigned 0…255 convention.

    Raises:
        ValueError: It stands for no range that holds 0.
    """
    if not (np.isfinite(scale) and scale > 0 and 0 <= zero_point <= 255):
        raise ValueError(f"the scale of {tensor} is {scale:g} with zero point {zero_point}")
    return TensorScale(scale, zero_point)


def checked_kernel(
    node: Kernel, kernel: QuantizedKernel, source: TensorScale, bias_scale: FloatArray
) -> QuantizedKernel:
    """Return the integers of a layer that were read, once they fit it.

    Args:
        node: The layer.
        kernel: That was read, of any shapes and types; a single scale is of all channels.
        source: Scale of the layer's input.
        bias_scale: The scale of the bias that the file states, float32 (O,) or a single one.

    Raises:
        ValueError: Shapes or types are not the layer's, or the bias is not in steps of input · weight scale.
    """
    outputs = (len(node.weight),)
    if kernel.scale.size == bias_scale.size == 1:
        single, bias_scale = kernel.scale.reshape(1), bias_scale.reshape(1).repeat(len(node.weight))
        kernel = dataclasses.replace(kernel, scale=single.repeat(len(node.weight)))
    for part, value, kind, shape in (
        ("weight", kernel.weight, np.int8, node.weight.shape),
        ("weight scale", kernel.scale, np.float32, outputs),
        ("bias", kernel.bias, np.int32, outputs),
        ("bias scale", bias_scale, np.float32, outputs),
    ):
        if value.dtype != kind or value.shape != shape:
            found = f"{value.dtype} {value.shape}"
            raise ValueError(f"the {part} of {node.name} is {found}, not {np.dtype(kind)} {shape}")
    if not np.allclose(bias_scale, np.float32(source.scale) * kernel.scale, rtol=1e-6, atol=0):
        raise ValueError(f"the bias of {node.name} is not in steps of input scale times weight scale")
    return kernel


def io_types(form: Format, precision: Precision, wanted: Sequence[InputOutput]) -> tuple[InputOutput, ...]:
    """Return those types of input and output that a file can have, or the default where it can have none of them.

    Float files take pixels as a camera gives them; int8 pixels are for integer hardware.
    """
    possible = form.io if precision == "int8" else tuple(io for io in form.io if io != "int8")
    return tuple(io for io in wanted if io in possible) or form.io[:1]


def artifact_name(model: str, form: Format, precision: Precision, io: InputOutput) -> str:
    """Name a file, such as `mobilenet_v2_100_224_int8.tflite`; integer input and output are named too."""
    suffix = "" if io == "float32" else f"_io_{io}"
    return f"{model}_{precision}{suffix}{form.extension}"
