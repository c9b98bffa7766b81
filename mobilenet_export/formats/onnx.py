"""ONNX: opset 13, IR 7, one file, dynamic batch, channel-first.

int8 is spelled in QDQ form (ONNX operators QuantizeLinear and DequantizeLinear, opset 13): uint8 activations,
per-channel int8 weights, int32 biases. A ReLU or ReLU6 needs no operator of its own there: its range starts at
0 and ends at 6 or below, so the saturation of QuantizeLinear is the clamp. Files that take pixels take them as a
camera gives them, channel-last. Weights of fp16 files are stored as float16 and cast back when the file is loaded;
arithmetic stays float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model, uses_external_data

from mobilenet_export.artifact import InputOutput, Normalization, Precision
from mobilenet_export.formats import Format, checked_kernel, checked_scale, no_companions
from mobilenet_export.graph import (
    UNCLAMPED,
    Activation,
    Add,
    Conv2d,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Kernel,
    Node,
    Shape,
    Softmax,
)
from mobilenet_export.model_card import ModelCard
from mobilenet_export.quantized import QuantizedGraph, QuantizedKernel, TensorScale

OPSET = 13
"""The lowest with per-axis QuantizeLinear; runtimes of 2021 and later load it."""
IR_VERSION = 7


@dataclass
class _Writer:
    """Collects the nodes and initializers of one file.

    A layer's output tensor has the layer's name; what has to be put around it is named after it.
    """

    graph: Graph
    half: bool = False
    card: ModelCard | None = None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[TensorProto] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(operator, inputs, [output], name=f"{output}/{operator}", **attributes)
        )
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        if name not in self.known:
            self.known.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, value: np.ndarray) -> str:
        """A float weight; in fp16 files stored as float16 behind a Cast."""
        if not self.half:
            return self.constant(name, value)
        stored = self.constant(f"{name}/fp16", value.astype(np.float16))
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def affine(self, source: str, gain: NDArray[np.float32], shift: NDArray[np.float32]) -> str:
        """The input tensor, gain·x + shift per channel."""
        gain, shift = (values[:, None, None] for values in (gain, shift))
        self.node("Mul", [source, self.constant("input/gain", gain)], "input/scaled")
        return self.node("Add", ["input/scaled", self.constant("input/shift", shift)], "input/shifted")

    def layer(self, node: Node, inputs: list[str], output: str) -> None:
        """One operator for one layer, and one more for a flattened pool."""
        match node:
            case Conv2d():
                self.node("Conv", inputs, output, **_conv_attributes(node))
            case FullyConnected():
                self.node("Gemm", inputs, output, transB=1)
            case Add():
                self.node("Add", inputs, output)
            case GlobalAveragePool():
                self.node("GlobalAveragePool", inputs, output)
            case Softmax():
                self.node("Softmax", inputs, output, axis=1)
            case _:
                raise TypeError(f"{type(node).__name__} must be fused before it can be written")

    def bytes(
        self,
        taps: Mapping[str, str] | None = None,
        kind: int = TensorProto.FLOAT,
        inputs: Sequence[onnx.ValueInfoProto] = (),
    ) -> bytes:
        """The file.

        `taps` are more outputs of type `kind`, the tensor's name in the file → its name in the graph; `inputs` are
        those of the file, else the graph's own.
        """
        graph = self.graph
        proto = helper.make_graph(
            self.nodes,
            graph.name,
            inputs or [_value("input", graph.input_shape)],
            [
                _value("output", graph.shapes[graph.output]),
                *(_value(name, graph.shapes[tensor], kind) for name, tensor in (taps or {}).items()),
            ],
            self.initializers,
        )
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(proto, opset_imports=opset, producer_name="mobilenet-export")
        model.ir_version = IR_VERSION
        if self.card is not None:
            _describe(model, self.card)
        data: bytes = model.SerializeToString(deterministic=True)
        return data


def _describe(model: onnx.ModelProto, card: ModelCard) -> None:
    """Say what the model is; source of the keys: ONNX, docs/IR.md, "Optional Metadata"."""
    model.doc_string = card.description
    for key, value in (("model_author", card.author), ("model_license", card.licence)):
        if value:
            model.metadata_props.add(key=key, value=value)


def _value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["batch", *shape])


def _conv_attributes(node: Conv2d) -> dict[str, Any]:
    pads = node.pads
    return {
        "kernel_shape": list(node.weight.shape[2:]),
        "strides": list(node.stride),
        "pads": [pads.top, pads.left, pads.bottom, pads.right],
        "group": node.groups,
    }


def write_float(
    graph: Graph, precision: Precision, card: ModelCard | None = None, pixels: Normalization | None = None
) -> bytes:
    """Spell a fused float graph; `fp16` stores the weights as float16.

    With `pixels` it takes RGB pixels, uint8 (N, H, W, C), and normalizes them so.
    """
    writer = _Writer(graph, half=precision == "fp16", card=card)
    entry, inputs = "input", []
    if pixels is not None:
        writer.node("Transpose", ["input"], "input/pixels", perm=[0, 3, 1, 2])
        writer.node("Cast", ["input/pixels"], "input/float", to=TensorProto.FLOAT)
        entry, inputs = writer.affine("input/float", pixels.gain, pixels.shift), [_pixel_input(graph)]
    _write_float_layers(writer, graph.nodes, {graph.input: entry, graph.output: "output"}, {})
    return writer.bytes(inputs=inputs)


def _pixel_input(graph: Graph) -> onnx.ValueInfoProto:
    channels, *size = graph.input_shape
    return _value("input", (*size, channels), TensorProto.UINT8)


def write_suffix(graph: Graph, start: int) -> tuple[bytes, tuple[str, ...]]:
    """Spell the layers from `nodes[start]` to the logits as fp32, to run a network from its middle on.

    Returns:
        The file, and the names of its inputs: the tensors that those layers read and do not make.
    """
    nodes = [node for node in graph.nodes[start:] if not isinstance(node, Softmax)]
    made = {node.name for node in nodes}
    feeds = tuple(dict.fromkeys(name for node in nodes for name in node.inputs if name not in made))
    writer = _Writer(graph)
    _write_float_layers(writer, nodes, {graph.logits: "output"}, {})
    return writer.bytes(inputs=[_value(tensor, graph.shapes[tensor]) for tensor in feeds]), feeds


def write_tapped(graph: Graph, bounds: Mapping[str, tuple[float, float]]) -> tuple[bytes, tuple[str, ...]]:
    """Spell a float graph as fp32 with every activation as an output, to watch it run.

    Args:
        graph: Fused float graph.
        bounds: Tensor name → (low, high) to clip it to, within what its activation lets through.

    Returns:
        The file, and the names of its outputs after the first: the tensors of the graph, and for a clamped or
        clipped layer also `name + UNCLAMPED`, its value before that.
    """
    writer = _Writer(graph)
    _write_float_layers(writer, graph.nodes, {graph.input: "input", graph.output: "output"}, bounds)
    made = {output for node in writer.nodes for output in node.output}
    taps = {node.name: node.name for node in graph.nodes if node.name in made}
    taps |= {node.name + UNCLAMPED: node.name for node in graph.nodes if node.name + UNCLAMPED in made}
    return writer.bytes(taps), tuple(taps)


def _write_float_layers(
    writer: _Writer,
    nodes: Sequence[Node],
    names: Mapping[str, str],
    bounds: Mapping[str, tuple[float, float]],
) -> None:
    """Write layers; `names` are of tensors that the file names otherwise than the graph does."""
    for node in nodes:
        inputs = [names.get(name, name) for name in node.inputs]
        if isinstance(node, Conv2d | FullyConnected):
            inputs.append(writer.weight(f"{node.name}.weight", node.weight))
            inputs.append(writer.constant(f"{node.name}.bias", node.bias))
        activation = node.activation if isinstance(node, Conv2d | Add) else Activation.NONE
        clamp = bounds.get(node.name, activation.bounds)
        _write_float_layer(writer, node, inputs, names.get(node.name, node.name), clamp)


def _write_float_layer(
    writer: _Writer, node: Node, inputs: list[str], output: str, clamp: tuple[float, float]
) -> None:
    source = output if clamp == Activation.NONE.bounds else output + UNCLAMPED
    if isinstance(node, GlobalAveragePool):
        writer.layer(node, inputs, f"{output}/map")
        writer.node("Flatten", [f"{output}/map"], source)
    else:
        writer.layer(node, inputs, source)
    if clamp == Activation.RELU.bounds:
        writer.node("Relu", [source], output)
    elif source != output:
        limits = [writer.constant(f"clip_{bound!r}", np.float32(bound)) for bound in clamp]
        writer.node("Clip", [source, *limits], output)


@dataclass
class _QuantizedWriter(_Writer):
    """Writes a layer between the DequantizeLinears of its inputs and the QuantizeLinear of its output."""

    def scale_constants(self, tensor: str, scale: TensorScale) -> list[str]:
        return [
            self.constant(f"{tensor}/scale", np.float32(scale.scale)),
            self.constant(f"{tensor}/zero_point", np.uint8(scale.zero_point)),
        ]

    def quantize(self, source: str, tensor: str, scale: TensorScale) -> None:
        """Make the integers of `tensor` from a float value, and the float value that they stand for."""
        constants = self.scale_constants(tensor, scale)
        self.node("QuantizeLinear", [source, *constants], f"{tensor}/int")
        self.node("DequantizeLinear", [f"{tensor}/int", *constants], tensor)

    def kernel(self, name: str, quantized: QuantizedGraph, source: TensorScale) -> list[str]:
        """The weight and bias of a layer, dequantized per output channel, or at once where all share a scale."""
        kernel = quantized.kernels[name]
        stored = kernel.stored_scale.reshape(()) if kernel.stored_scale.size == 1 else kernel.stored_scale
        weight = self.constant(f"{name}.weight/int8", kernel.weight)
        scale = self.constant(f"{name}.weight/scale", stored)
        zero = self.constant(f"{name}.weight/zero_point", np.zeros(stored.shape, np.int8))
        bias = self.constant(f"{name}.bias/int32", kernel.bias)
        bias_scale = self.constant(f"{name}.bias/scale", np.float32(source.scale) * stored)
        return [
            self.node("DequantizeLinear", [weight, scale, zero], f"{name}.weight", axis=0),
            self.node("DequantizeLinear", [bias, bias_scale], f"{name}.bias", axis=0),
        ]


def write_int8(quantized: QuantizedGraph, io: InputOutput, card: ModelCard | None = None) -> bytes:
    """Spell the integers in QDQ form; the output is float32.

    Args:
        quantized: To write.
        io: `float32` or `uint8`, of the input.
        card: What the file says about itself.
    """
    graph, writer = quantized.graph, _QuantizedWriter(quantized.graph, card=card)
    tensor, scale = _integer_names(graph)[graph.input], quantized.tensors[graph.input]
    if io == "float32":
        writer.quantize(_write_pixels(writer, graph), tensor, scale)
        _write_int8_layers(writer, quantized)
        return writer.bytes()
    if io != "uint8" or graph.pixels is None:
        raise ValueError(f"no int8 ONNX file of {graph.name} takes {io}")
    writer.node("Transpose", ["input"], f"{tensor}/int", perm=[0, 3, 1, 2])
    writer.node("DequantizeLinear", [f"{tensor}/int", *writer.scale_constants(tensor, scale)], tensor)
    _write_int8_layers(writer, quantized)
    return writer.bytes(inputs=[_pixel_input(graph)])


def _write_pixels(writer: _Writer, graph: Graph) -> str:
    """The float value that the graph's input tensor has, of a file that takes normalized values."""
    if graph.pixels is None:
        return "input"
    return writer.affine("input", graph.pixels.gain, graph.pixels.shift)


def write_int8_tapped(quantized: QuantizedGraph) -> tuple[bytes, tuple[str, ...]]:
    """Spell the integers with the uint8 value of every activation as an output, to watch the kernels run.

    The input is what the graph's own tensor holds, in float32.

    Returns:
        The file, and what its outputs after the first are: tensors of the graph.
    """
    graph, writer = quantized.graph, _QuantizedWriter(quantized.graph)
    names = _integer_names(graph)
    writer.quantize("input", names[graph.input], quantized.tensors[graph.input])
    _write_int8_layers(writer, quantized)
    taps = {f"{names.get(tensor, tensor)}/int": tensor for tensor in quantized.tensors}
    return writer.bytes(taps, TensorProto.UINT8), tuple(taps.values())


def _write_int8_layers(writer: _QuantizedWriter, quantized: QuantizedGraph) -> None:
    graph = quantized.graph
    names = _integer_names(graph)
    for node in graph.nodes:
        inputs = [names.get(name, name) for name in node.inputs]
        if isinstance(node, Softmax):
            writer.layer(node, inputs, "output")
            continue
        if isinstance(node, Conv2d | FullyConnected):
            inputs += writer.kernel(node.name, quantized, quantized.tensors[node.input])
        tensor = names.get(node.name, node.name)
        writer.layer(node, inputs, f"{tensor}/float")
        source = f"{tensor}/float"
        if isinstance(node, GlobalAveragePool):
            writer.quantize(source, f"{tensor}/map", quantized.tensors[node.name])
            writer.node("Flatten", [f"{tensor}/map"], f"{tensor}/flat")
            source = f"{tensor}/flat"
        writer.quantize(source, tensor, quantized.tensors[node.name])


def _integer_names(graph: Graph) -> dict[str, str]:
    """The tensors that an int8 file names otherwise than the graph does."""
    return {graph.input: f"{graph.input}/pixels", graph.output: "output"}


def read_int8(data: bytes, graph: Graph) -> QuantizedGraph:
    """Read the integers of an int8 file that `write_int8` has spelled, whatever its input.

    Raises:
        ValueError: A constant is missing, or does not fit the graph.
    """
    stored = [held for held in parse(data).graph.initializer if held.data_location == TensorProto.DEFAULT]
    return integers_of({held.name: array_of(held) for held in stored}, graph)


def array_of(held: TensorProto) -> NDArray[Any]:
    """Return a constant's values.

    Raises:
        ValueError: It is malformed.
    """
    try:
        return np.asarray(numpy_helper.to_array(held))
    except Exception as error:  # onnx raises errors of any type for damaged tensors
        raise ValueError(f"the constant {held.name!r:.80} is malformed: {error}") from None


def integers_of(constants: Mapping[str, NDArray[Any]], graph: Graph) -> QuantizedGraph:
    """Find the integers of a graph among a file's constants.

    Raises:
        ValueError: A constant is missing, or does not fit the graph.
    """
    names = _integer_names(graph)
    quantized = [graph.input, *(node.name for node in graph.nodes if not isinstance(node, Softmax))]
    tensors = {tensor: _read_scale(constants, names.get(tensor, tensor)) for tensor in quantized}
    kernels = {node.name: _read_kernel(constants, node, tensors[node.input]) for node in graph.kernels()}
    return QuantizedGraph(graph, tensors, kernels)


def _read_scale(constants: Mapping[str, NDArray[Any]], tensor: str) -> TensorScale:
    scale, zero_point = (_constant(constants, f"{tensor}/{part}") for part in ("scale", "zero_point"))
    if scale.size != 1 or zero_point.size != 1 or zero_point.dtype != np.uint8:
        raise ValueError(f"{tensor} has not one scale and one uint8 zero point")
    return checked_scale(tensor, float(scale.item()), int(zero_point.item()))


def _read_kernel(constants: Mapping[str, NDArray[Any]], node: Kernel, source: TensorScale) -> QuantizedKernel:
    weight, scale, zero_point, bias = (
        _constant(constants, f"{node.name}.{part}")
        for part in ("weight/int8", "weight/scale", "weight/zero_point", "bias/int32")
    )
    implied = np.float32(source.scale) * scale  # of integer operators, which state none
    bias_scale = constants.get(f"{node.name}.bias/scale", implied)
    if zero_point.any():
        raise ValueError(f"the weights of {node.name} are not symmetric")
    return checked_kernel(node, QuantizedKernel(weight, scale, bias), source, bias_scale)


def _constant(constants: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in constants:
        raise ValueError(f"it holds no {name}")
    return constants[name]


def parse(data: bytes) -> onnx.ModelProto:
    """Parse a file.

    Raises:
        ValueError: It is not an ONNX model.
    """
    try:
        model = onnx.load_from_string(data)
    except DecodeError:
        raise ValueError("not an ONNX model") from None
    if not model.graph.node:  # no bytes at all are a valid message without a graph
        raise ValueError("not an ONNX model")
    return model


def put_weights_inside(data: bytes, folder: Path) -> bytes:
    """Return a file with the weights in it that lie in a file of their own, as torch.onnx.export writes large ones.

    Args:
        data: Of the .onnx file, which is returned as it is where it holds all its weights.
        folder: That it lies in.

    Raises:
        ValueError: The other file is missing, too short or in another folder.
    """
    try:
        model = parse(data)
    except ValueError:
        return data  # whoever reads it next says what is wrong with it
    if not any(uses_external_data(constant) for constant in model.graph.initializer):
        return data
    try:
        load_external_data_for_model(model, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ValueError(f"its weights lie in another file, which cannot be read: {error}") from None
    whole: bytes = model.SerializeToString(deterministic=True)
    return whole


def read_precision(data: bytes) -> Precision:
    """Tell a file's precision from the types of its constants.

    Raises:
        ValueError: It is not an ONNX model.
    """
    kinds = {constant.data_type for constant in parse(data).graph.initializer}
    return "int8" if TensorProto.INT8 in kinds else "fp16" if TensorProto.FLOAT16 in kinds else "fp32"


class _OnnxFormat:
    name = "onnx"
    extension = ".onnx"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dynamic_batch = True
    io: tuple[InputOutput, ...] = ("float32", "uint8")
    write_float = staticmethod(write_float)
    write_int8 = staticmethod(write_int8)
    read_int8 = staticmethod(read_int8)
    read_precision = staticmethod(read_precision)
    companions = staticmethod(no_companions)


FORMAT: Format = _OnnxFormat()
