"""TFLite: a flatbuffer written straight from the graph, channel-last, batch 1.

Operator versions are the lowest that hold the types used, so that tflite-runtime 2.14 and current LiteRT load the
same file. int8 follows the TFLite 8-bit quantization specification: signed activations with one scale per tensor,
symmetric per-channel weights in [-127, 127], int32 biases with scale s_in·s_w. The integers are those of
`QuantizedGraph`; unsigned activations become signed by taking 128 off the zero point.
Padding that TensorFlow's SAME does not describe becomes a PAD operator.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobilenet_export.artifact import InputOutput, Normalization, Precision
from mobilenet_export.formats import Format, _tflite_metadata, checked_kernel, checked_scale, no_companions
from mobilenet_export.graph import (
    Activation,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Kernel,
    Node,
    Pads,
    PixelInput,
    Shape,
    Softmax,
)
from mobilenet_export.model_card import ModelCard
from mobilenet_export.quantized import QuantizedGraph, QuantizedKernel, TensorScale

_SCHEMA_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
"""Bytes; `force_align` of Buffer.data in the schema, which the generated Python code leaves out."""

_ACTIVATIONS = {
    Activation.NONE: schema.ActivationFunctionType.NONE,
    Activation.RELU: schema.ActivationFunctionType.RELU,
    Activation.RELU6: schema.ActivationFunctionType.RELU6,
}
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.float16): schema.TensorType.FLOAT16,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}
_FLOAT_VERSION = 1
_AS_THEY_ARE = TensorScale(1.0, 0)
"""Of pixels: the value that one stands for is itself."""
_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "ADD": 2, "MEAN": 2, "PAD": 2}


class _AlignedBuffer:
    """A constant's bytes; stands in for the schema's `BufferT` to align them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:  # noqa: N802 (the name that ModelT.Pack calls)
        builder.StartVector(1, len(self.data), _ALIGNMENT)
        builder.head -= len(self.data)
        builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


@dataclass
class _Writer:
    """Collects tensors, constants and operators of one file; tensors are found by name."""

    graph: Graph
    half: bool = False
    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: dict[tuple[str, int], int] = field(default_factory=dict)
    index: dict[str, int] = field(default_factory=dict)
    metadata: list[Any] = field(default_factory=list)

    def tensor(self, name: str, shape: Shape, kind: np.dtype[Any], scale: TensorScale | None = None) -> int:
        """Add an activation of `(1, …)`, or a constant's tensor; signed integers shift the zero point."""
        quantization = schema.QuantizationParametersT()
        if scale is not None:
            offset = 128 if kind == np.int8 else 0
            quantization.scale = np.array([scale.scale], np.float32)
            quantization.zeroPoint = np.array([scale.zero_point - offset], np.int64)
        tensor = schema.TensorT(
            shape=np.array(shape, np.int32), type=_TYPES[kind], name=name, quantization=quantization
        )
        self.tensors.append(tensor)
        self.index[name] = len(self.tensors) - 1
        return self.index[name]

    def constant(self, name: str, value: np.ndarray) -> int:
        if name in self.index:
            return self.index[name]
        self.buffers.append(_AlignedBuffer(value.tobytes()))
        index = self.tensor(name, value.shape, value.dtype)
        self.tensors[index].buffer = len(self.buffers) - 1
        return index

    def per_channel(self, name: str, value: np.ndarray, scale: np.ndarray, axis: int) -> int:
        """A constant with a scale per output channel, or one of all, and zero points of 0."""
        index = self.constant(name, value)
        self.tensors[index].quantization = schema.QuantizationParametersT(
            scale=scale, zeroPoint=np.zeros(len(scale), np.int64), quantizedDimension=axis
        )
        return index

    def operator(
        self, code: str, inputs: list[int], output: int, options: Any = None, version: int = 1
    ) -> None:
        kind = type(options).__name__.removesuffix("T") if options is not None else "NONE"
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=self.codes.setdefault((code, version), len(self.codes)),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([output], np.int32),
                builtinOptions=options,
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
            )
        )

    def describe(self, name: str, data: bytes) -> None:
        """Add an entry of metadata."""
        self.buffers.append(_AlignedBuffer(data))
        self.metadata.append(schema.MetadataT(name=name, buffer=len(self.buffers) - 1))

    def weight(self, node: Kernel) -> int:
        """A float weight; in fp16 files stored as float16 behind a DEQUANTIZE."""
        name, value = f"{node.name}.weight", _laid_out(node, node.weight)
        if not self.half:
            return self.constant(name, value)
        stored = self.constant(f"{name}/fp16", value.astype(np.float16))
        output = self.tensor(name, value.shape, np.dtype(np.float32))
        self.operator("DEQUANTIZE", [stored], output, schema.DequantizeOptionsT(), version=3)
        return output

    def bytes(self, taps: Sequence[int] = ()) -> bytes:
        """The file; `taps` are tensors that are outputs, too."""
        inputs, outputs = [self.index["input"]], [self.index["output"], *taps]
        subgraph = schema.SubGraphT(
            tensors=self.tensors,
            inputs=np.array(inputs, np.int32),
            outputs=np.array(outputs, np.int32),
            operators=self.operators,
            name=self.graph.name,
        )
        signature = schema.SignatureDefT(
            inputs=[schema.TensorMapT(name="input", tensorIndex=inputs[0])],
            outputs=[schema.TensorMapT(name="output", tensorIndex=outputs[0])],
            signatureKey="serving_default",
        )
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=[_operator_code(code, version) for code, version in self.codes],
            subgraphs=[subgraph],
            description="mobilenet-export",
            buffers=self.buffers,
            signatureDefs=[signature],
            metadata=self.metadata,
        )
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), _IDENTIFIER)
        return bytes(builder.Output())


def _operator_code(code: str, version: int) -> Any:
    number = getattr(schema.BuiltinOperator, code)
    return schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version)


def _laid_out(node: Kernel, weight: np.ndarray) -> np.ndarray:
    """(O, I, kh, kw) → (O, kh, kw, I); depthwise (C, 1, kh, kw) → (1, kh, kw, C)."""
    if isinstance(node, FullyConnected):
        return weight
    return np.ascontiguousarray(weight.transpose((1, 2, 3, 0) if node.is_depthwise else (0, 2, 3, 1)))


def _channel_first(node: Kernel, weight: np.ndarray) -> np.ndarray:
    """The inverse of `_laid_out`."""
    if isinstance(node, FullyConnected):
        return weight
    return np.ascontiguousarray(weight.transpose((3, 0, 1, 2) if node.is_depthwise else (0, 3, 1, 2)))


def _activation_shape(shape: Shape) -> Shape:
    """(C, H, W) → (1, H, W, C); (C,) → (1, C)."""
    return (1, *shape[1:], shape[0])


def _same_pads(shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Pads:
    """What TensorFlow's SAME pads on a (C, H, W) input: the odd pixel goes to the bottom and the right."""
    totals = [
        max((-(-size // step) - 1) * step + width - size, 0)
        for size, width, step in zip(shape[1:], kernel, stride, strict=True)
    ]
    (vertical, horizontal) = totals
    return Pads(vertical // 2, horizontal // 2, vertical - vertical // 2, horizontal - horizontal // 2)


@dataclass
class _LayerWriter:
    """Writes the layers of a graph whose activations all have one type."""

    writer: _Writer
    kind: np.dtype[Any]
    scales: dict[str, TensorScale] = field(default_factory=dict)

    def version(self, code: str) -> int:
        return _INT8_VERSIONS[code] if self.kind == np.int8 else _FLOAT_VERSION

    def activation(self, name: str, shape: Shape, tensor: str) -> int:
        """The tensor named `name` with the type and scale of the layer output `tensor`."""
        return self.writer.tensor(name, _activation_shape(shape), self.kind, self.scales.get(tensor))

    def layer(self, node: Node, inputs: list[int], constants: list[int], name: str) -> None:
        """Write one layer whose output tensor is called `name`."""
        shapes = self.writer.graph.shapes
        if isinstance(node, Conv2d):
            inputs, padding = self._padded(node, inputs)
            output = self.activation(name, shapes[node.name], node.name)
            self._convolution(node, [*inputs, *constants], output, padding)
            return
        output = self.activation(name, shapes[node.name], node.name)
        match node:
            case FullyConnected():
                self._operator(
                    "FULLY_CONNECTED", [*inputs, *constants], output, schema.FullyConnectedOptionsT()
                )
            case Add(activation=activation):
                options = schema.AddOptionsT(fusedActivationFunction=_ACTIVATIONS[activation])
                self._operator("ADD", inputs, output, options)
            case GlobalAveragePool():
                axes = self.writer.constant("spatial_axes", np.array([1, 2], np.int32))
                self._operator("MEAN", [*inputs, axes], output, schema.ReducerOptionsT(keepDims=False))
            case _:
                raise TypeError(f"{type(node).__name__} must be fused before it can be written")

    def _operator(self, code: str, inputs: list[int], output: int, options: Any) -> None:
        self.writer.operator(code, inputs, output, options, self.version(code))

    def _padded(self, node: Conv2d, inputs: list[int]) -> tuple[list[int], int]:
        """The convolution's input, padded by an operator of its own where no padding mode does it."""
        shape, pads = self.writer.graph.shapes[node.input], node.pads
        if pads == Pads():
            return inputs, schema.Padding.VALID
        kernel = (node.weight.shape[2], node.weight.shape[3])
        if pads == _same_pads(shape, kernel, node.stride):
            return inputs, schema.Padding.SAME
        amounts = np.array([[0, 0], [pads.top, pads.bottom], [pads.left, pads.right], [0, 0]], np.int32)
        name = f"pads_{pads.top}_{pads.left}_{pads.bottom}_{pads.right}"
        padded = (shape[0], shape[1] + pads.top + pads.bottom, shape[2] + pads.left + pads.right)
        output = self.activation(f"{node.name}/padded", padded, node.input)
        self._operator("PAD", [*inputs, self.writer.constant(name, amounts)], output, schema.PadOptionsT())
        return [output], schema.Padding.VALID

    def _convolution(self, node: Conv2d, inputs: list[int], output: int, padding: int) -> None:
        common = {
            "padding": padding,
            "strideH": node.stride[0],
            "strideW": node.stride[1],
            "fusedActivationFunction": _ACTIVATIONS[node.activation],
        }
        if node.is_depthwise:
            options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, **common)
            self._operator("DEPTHWISE_CONV_2D", inputs, output, options)
        else:
            self._operator("CONV_2D", inputs, output, schema.Conv2DOptionsT(**common))


def write_float(
    graph: Graph, precision: Precision, card: ModelCard | None = None, pixels: Normalization | None = None
) -> bytes:
    """Spell a fused float graph; `fp16` stores the weights as float16.

    With `pixels` it takes RGB pixels, uint8, and normalizes them so.
    """
    writer = _Writer(graph, half=precision == "fp16")
    layers = _LayerWriter(writer, np.dtype(np.float32))
    values = {
        graph.input: _write_float_input(writer) if pixels is None else _write_normalized(writer, pixels)
    }
    for node in graph.nodes:
        inputs = [values[name] for name in node.inputs]
        constants: list[int] = []
        if isinstance(node, Softmax):
            _write_softmax(writer, inputs)
            continue
        if isinstance(node, Conv2d | FullyConnected):
            constants = [writer.weight(node), writer.constant(f"{node.name}.bias", node.bias)]
        name = "output" if node.name == graph.output else node.name
        layers.layer(node, inputs, constants, name)
        values[node.name] = writer.index[name]
    return _with_card(writer, card, None if pixels is None else _AS_THEY_ARE)


def _with_card(writer: _Writer, card: ModelCard | None, taken: TensorScale | None = None) -> bytes:
    """The file, and in it what it says about itself; `taken` is the scale of pixels that it takes as integers.

    By the schema, integers are what normalization and then the input's scale make of pixels, so they are pixels
    where the one undoes the other.
    """
    if card is None:
        return writer.bytes()
    how = card.preprocess
    normalization = Normalization(how.mean, how.std)
    if taken is not None:
        normalization = Normalization((taken.zero_point / 255,) * 3, (1 / 255 / taken.scale,) * 3)
    probabilities = writer.graph.logits != writer.graph.output
    described = _tflite_metadata.describe(card, normalization, probabilities=probabilities)
    writer.describe(_tflite_metadata.ENTRY, described)
    return _tflite_metadata.append_labels(writer.bytes(), card)


def _write_softmax(writer: _Writer, inputs: list[int]) -> None:
    output = writer.tensor(
        "output", _activation_shape(writer.graph.shapes[writer.graph.output]), np.dtype(np.float32)
    )
    writer.operator("SOFTMAX", inputs, output, schema.SoftmaxOptionsT(beta=1.0))


def write_int8(quantized: QuantizedGraph, io: InputOutput, card: ModelCard | None = None) -> bytes:
    """Spell the integers.

    Args:
        quantized: To write.
        io: `float32` throughout, or the type of pixels taken: `uint8` and float32 logits, `int8` and int8 logits. A
            network that ends in a softmax always gives float32 probabilities, because 1/256 is too coarse a step
            for them.
        card: What the file says about itself.
    """
    graph, layers = quantized.graph, _int8_layers(quantized)
    if io == "float32":
        entry = _write_quantized(layers, _write_pixels(layers.writer, graph))
    elif graph.pixels is None:
        raise ValueError(f"{graph.name} was not quantized for pixels, so no file of it takes {io}")
    else:
        entry = layers.writer.tensor(
            "input", _activation_shape(graph.input_shape), np.dtype(io), layers.scales[graph.input]
        )
        entry = _write_quantized(layers, entry) if io == "uint8" else entry
    _write_int8_layers(layers, quantized, entry, io)
    taken = None if io == "float32" else layers.scales[graph.input]
    return _with_card(layers.writer, card, taken)


def write_int8_tapped(quantized: QuantizedGraph) -> tuple[bytes, tuple[str, ...]]:
    """Spell the integers with every int8 activation as an output, to watch the kernels run.

    The input is what the graph's own tensor holds, in float32.

    Returns:
        The file, and what its outputs after the first are: tensors of the graph.
    """
    layers = _int8_layers(quantized)
    entry = _write_quantized(layers, _write_float_input(layers.writer))
    values = _write_int8_layers(layers, quantized, entry, "float32")
    return layers.writer.bytes(tuple(values.values())), tuple(values)


def _int8_layers(quantized: QuantizedGraph) -> _LayerWriter:
    return _LayerWriter(_Writer(quantized.graph), np.dtype(np.int8), dict(quantized.tensors))


def _write_float_input(writer: _Writer) -> int:
    return writer.tensor("input", _activation_shape(writer.graph.input_shape), np.dtype(np.float32))


def _write_pixels(writer: _Writer, graph: Graph) -> int:
    """The float value that the graph's input tensor has, of a file that takes normalized values."""
    source = _write_float_input(writer)
    return source if graph.pixels is None else _write_affine(writer, source, graph.pixels)


def _write_normalized(writer: _Writer, pixels: Normalization) -> int:
    """The normalized values of a file that takes pixels."""
    shape = _activation_shape(writer.graph.input_shape)
    entry = writer.tensor("input", shape, np.dtype(np.uint8), _AS_THEY_ARE)
    values = writer.tensor("input/float", shape, np.dtype(np.float32))
    writer.operator("DEQUANTIZE", [entry], values, schema.DequantizeOptionsT())
    return _write_affine(writer, values, pixels)


def _write_affine(writer: _Writer, source: int, how: PixelInput | Normalization) -> int:
    """The input tensor, gain·x + shift per channel.

    The constants are as long as a row of pixels: XNNPACK works row by row then, and with three numbers pixel by
    pixel, which took a ninth of the time of an int8 V2.
    """
    shape = _activation_shape(writer.graph.input_shape)
    for code, factors, name, options in (
        ("MUL", how.gain, "scaled", schema.MulOptionsT()),
        ("ADD", how.shift, "shifted", schema.AddOptionsT()),
    ):
        row = np.tile(factors, (1, 1, shape[2], 1))
        constant = writer.constant(f"input/{'gain' if code == 'MUL' else 'shift'}", row)
        target = writer.tensor(f"input/{name}", shape, np.dtype(np.float32))
        writer.operator(code, [source, constant], target, options, version=_FLOAT_VERSION)
        source = target
    return source


def _write_quantized(layers: _LayerWriter, source: int) -> int:
    """The int8 tensor that the first layer reads."""
    graph = layers.writer.graph
    target = layers.activation("input/int8", graph.input_shape, graph.input)
    layers.writer.operator("QUANTIZE", [source], target, schema.QuantizeOptionsT())
    return target


def _write_int8_layers(
    layers: _LayerWriter, quantized: QuantizedGraph, entry: int, io: InputOutput
) -> dict[str, int]:
    """Write every layer, and return where each tensor of the graph is."""
    graph, writer = quantized.graph, layers.writer
    values = {graph.input: entry}
    for node in graph.nodes:
        if isinstance(node, Softmax):
            break
        constants: list[int] = []
        if isinstance(node, Conv2d | FullyConnected):
            constants = _integer_constants(writer, node, quantized)
        direct = io == "int8" and node.name == graph.output
        name = "output" if direct else f"{node.name}/int8" if node.name == graph.output else node.name
        layers.layer(node, [values[source] for source in node.inputs], constants, name)
        values[node.name] = writer.index[name]
    _write_output(layers, values[graph.logits], io)
    return values


def _integer_constants(writer: _Writer, node: Kernel, quantized: QuantizedGraph) -> list[int]:
    kernel = quantized.kernels[node.name]
    axis = 3 if isinstance(node, Conv2d) and node.is_depthwise else 0
    bias_scale = np.float32(quantized.tensors[node.input].scale) * kernel.stored_scale
    return [
        writer.per_channel(f"{node.name}.weight", _laid_out(node, kernel.weight), kernel.stored_scale, axis),
        writer.per_channel(f"{node.name}.bias", kernel.bias, bias_scale, 0),
    ]


def _write_output(layers: _LayerWriter, logits: int, io: InputOutput) -> None:
    """The file's output, made from the int8 logits."""
    graph, writer = layers.writer.graph, layers.writer
    shape = _activation_shape(graph.shapes[graph.logits])
    if graph.logits != graph.output:
        dequantized = writer.tensor(f"{graph.logits}/float", shape, np.dtype(np.float32))
        writer.operator("DEQUANTIZE", [logits], dequantized, schema.DequantizeOptionsT(), version=2)
        _write_softmax(writer, [dequantized])
    elif io != "int8":
        output = writer.tensor("output", shape, np.dtype(np.float32))
        writer.operator("DEQUANTIZE", [logits], output, schema.DequantizeOptionsT(), version=2)


@dataclass(frozen=True, slots=True)
class _Stored:
    """A tensor as a file holds it; values only of a constant."""

    kind: int
    scale: np.ndarray
    zero_point: np.ndarray
    values: np.ndarray | None


def read_int8(data: bytes, graph: Graph) -> QuantizedGraph:
    """Read the integers of an int8 file that `write_int8` has spelled, whatever its input and output.

    Raises:
        ValueError: A tensor is missing, or does not fit the graph.
    """
    stored = _read_tensors(data)
    quantized = [graph.input, *(node.name for node in graph.nodes if not isinstance(node, Softmax))]
    tensors = {tensor: _read_scale(stored, _integer_name(graph, tensor, stored)) for tensor in quantized}
    kernels = {node.name: _read_kernel(stored, node, tensors[node.input]) for node in graph.kernels()}
    return QuantizedGraph(graph, tensors, kernels)


def _integer_name(graph: Graph, tensor: str, stored: Mapping[str, _Stored]) -> str:
    """The file's name of an int8 tensor; integer input and output are the file's own, not ones beside them."""
    own = {graph.input: "input", graph.output: "output"}.get(tensor, tensor)
    beside = f"{'input' if tensor == graph.input else tensor}/int8"
    return beside if beside in stored else own


def _read_tensors(data: bytes) -> dict[str, _Stored]:
    """Every tensor of a file by name."""
    with _parsed(data) as model:
        subgraph = model.Subgraphs(0)
        tensors = [subgraph.Tensors(index) for index in range(subgraph.TensorsLength())]
        return {tensor.Name().decode(): _stored(model, tensor) for tensor in tensors}


def _stored(model: Any, tensor: Any) -> _Stored:
    kinds = {number: kind for kind, number in _TYPES.items()}
    quantization = tensor.Quantization()
    scales = quantization is not None and quantization.ScaleLength() > 0
    scale = quantization.ScaleAsNumpy() if scales else np.zeros(0, np.float32)
    zero_point = np.asarray(quantization.ZeroPointAsNumpy() if scales else (), np.int64).reshape(-1)
    buffer = model.Buffers(tensor.Buffer())
    values = None
    if buffer.DataLength() and tensor.Type() in kinds:
        values = buffer.DataAsNumpy().view(kinds[tensor.Type()]).reshape(tensor.ShapeAsNumpy())
    return _Stored(tensor.Type(), scale, zero_point, values)


def _read_scale(stored: Mapping[str, _Stored], tensor: str) -> TensorScale:
    found = stored.get(tensor)
    if found is None:
        raise ValueError(f"it holds no {tensor}")
    if found.kind != schema.TensorType.INT8 or not len(found.scale) == len(found.zero_point) == 1:
        raise ValueError(f"{tensor} is not int8 with one scale")
    return checked_scale(tensor, float(found.scale[0]), int(found.zero_point[0]) + 128)


def _read_kernel(stored: Mapping[str, _Stored], node: Kernel, source: TensorScale) -> QuantizedKernel:
    weight, bias = (stored.get(f"{node.name}.{part}") for part in ("weight", "bias"))
    if weight is None or weight.values is None or bias is None or bias.values is None:
        raise ValueError(f"it holds no weight and bias of {node.name}")
    if weight.zero_point.any():
        raise ValueError(f"the weights of {node.name} are not symmetric")
    values = _channel_first(node, weight.values) if weight.values.ndim == node.weight.ndim else weight.values
    return checked_kernel(node, QuantizedKernel(values, weight.scale, bias.values), source, bias.scale)


@contextmanager
def _parsed(data: bytes) -> Iterator[Any]:
    """The root of a file, whose parts are read as they are asked for.

    Raises:
        ValueError: It is not a TFLite model, or what is asked for within the block is cut off.
    """
    if data[4:8] != _IDENTIFIER:
        raise ValueError("not a TFLite model")
    try:
        yield schema.Model.GetRootAs(data)
    except (struct.error, IndexError, AttributeError, TypeError) as error:
        raise ValueError(f"not a TFLite model: {error}") from None


def read_precision(data: bytes) -> Precision:
    """Tell a file's precision from the types of its tensors.

    Raises:
        ValueError: It is not a TFLite model.
    """
    with _parsed(data) as model:
        subgraph = model.Subgraphs(0)
        kinds = {subgraph.Tensors(index).Type() for index in range(subgraph.TensorsLength())}
    int8, half = schema.TensorType.INT8 in kinds, schema.TensorType.FLOAT16 in kinds
    return "int8" if int8 else "fp16" if half else "fp32"


class _TfliteFormat:
    name = "tflite"
    extension = ".tflite"
    layout: Literal["NCHW", "NHWC"] = "NHWC"
    dynamic_batch = False
    io: tuple[InputOutput, ...] = ("float32", "int8", "uint8")
    write_float = staticmethod(write_float)
    write_int8 = staticmethod(write_int8)
    read_int8 = staticmethod(read_int8)
    read_precision = staticmethod(read_precision)
    companions = staticmethod(no_companions)


FORMAT: Format = _TfliteFormat()
