"""nn.Module or ONNX file → Graph.

The front door is ONNX for both: a module goes through `torch.onnx` and `onnxsim`, and the graph is read off the
result, so a user's own ONNX file enters by the same door.
"""

import io
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.graph import (
    Activation,
    Add,
    BatchNorm,
    Clamp,
    Conv2d,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Node,
    Pads,
    Softmax,
    ZeroPad,
)
from mobilenet_export.passes.simplify import simplify

if TYPE_CHECKING:
    import torch

_OPSET = 17


def capture_module(module: "torch.nn.Module", name: str, input_shape: tuple[int, int, int]) -> Graph:
    """Trace a classifier in eval mode into a simplified graph.

    The TorchScript exporter is used because it takes a tenth of the dynamo exporter's time for the same nodes;
    BatchNorm is kept out of its hands (`PRESERVE`) and folded here.

    Args:
        module: Takes float32 (N, C, H, W), returns (N, classes).
        name: Of the graph.
        input_shape: (C, H, W).
    """
    import torch  # noqa: PLC0415

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, *input_shape),),
            buffer,  # type: ignore[arg-type]  # any file-like object, whatever the annotation says
            dynamo=False,
            opset_version=_OPSET,
            input_names=["input"],
            output_names=["output"],
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return _read_graph(onnx.load_from_string(buffer.getvalue()), name, input_shape[1])


def capture_onnx(path: Path, resolution_px: int | None) -> Graph:
    """Read a classifier from a user's float32 ONNX file into a simplified graph named after the file.

    Args:
        path: Of the file; weights inside it or beside it.
        resolution_px: Height and width, needed where the file leaves them open.

    Raises:
        UsageError: No such file, or the input size is open or is not the one asked for.
        DamagedInputError: Not a valid ONNX model, or one with operators that are not ours.
    """
    if not path.is_file():
        raise UsageError(f"no such file: {path}", "give the path of an .onnx file")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except MemoryError:
        raise
    except Exception as error:  # onnx and protobuf raise a dozen unrelated types here
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedInputError(
            f"{path}: not a valid ONNX model: {reason}", "export the file again"
        ) from None
    return _read_graph(model, path.stem, resolution_px)


def _read_graph(model: onnx.ModelProto, name: str, resolution_px: int | None) -> Graph:
    weights = {initializer.name for initializer in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise DamagedInputError(
            f"{name}: {len(inputs)} inputs and {len(model.graph.output)} outputs; one of each is supported",
            "export the classifier alone",
        )
    dims = _input_dims(inputs[0], name, resolution_px)
    _refuse_foreign(model, name)
    reader = _Reader(name, _simplified(model, inputs[0].name, dims, name), inputs[0].name, dims)
    graph = simplify(reader.read())
    for node in graph.kernels():
        if not (np.isfinite(node.weight).all() and np.isfinite(node.bias).all()):
            raise DamagedInputError(
                f"{name}: {node.name}: its weights overflow float32 once the BatchNorm after it is folded in",
                "check that BatchNorm's variance and weight; a training that diverged leaves such",
            )
    return graph


def _input_dims(value: onnx.ValueInfoProto, name: str, resolution_px: int | None) -> list[int]:
    """Return the input's shape with a batch of 1; open spatial axes get the resolution asked for."""
    dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if len(dims) != 4 or 3 not in (dims[1], dims[3]):
        raise DamagedInputError(
            f"{name}: input shape {dims or '?'} is not (N, 3, H, W) or (N, H, W, 3)",
            "export with an RGB image as input",
        )
    if dims[0] > 1:
        raise DamagedInputError(
            f"{name}: the file is fixed at batches of {dims[0]} images",
            "export it with a batch of 1, or an open one",
        )
    spatial = (2, 3) if dims[1] == 3 else (1, 2)
    for axis in spatial:
        if not dims[axis] and resolution_px is None:
            raise UsageError(f"{name}: the file leaves the image size open", "give it with --resolution")
        if dims[axis] and resolution_px not in (None, dims[axis]):
            raise UsageError(
                f"{name}: the file is fixed at {dims[axis]} px, not {resolution_px}", "leave --resolution out"
            )
        dims[axis] = dims[axis] or int(resolution_px or 0)
    return [1, *dims[1:]]


def _refuse_foreign(model: onnx.ModelProto, name: str) -> None:
    """Refuse what no simplification can turn into ours, before a slow simplification is tried."""
    foreign = sorted({node.op_type for node in model.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise _unsupported(name, foreign)


def _unsupported(name: str, operators: list[str]) -> DamagedInputError:
    return DamagedInputError(
        f"{name}: operators that are not supported: {', '.join(operators)}",
        "supported: " + ", ".join(sorted(_READERS)),
    )


def _simplified(model: onnx.ModelProto, input_name: str, dims: list[int], name: str) -> onnx.ModelProto:
    try:
        import onnxsim  # noqa: PLC0415
    except ImportError:
        raise MissingError("onnxsim is not installed", "pip install onnxsim") from None
    try:
        # BatchNorm is folded here, in float64; onnxsim would round twice in float32
        simplified, _ = onnxsim.simplify(model, overwrite_input_shapes={input_name: dims}, skip_fuse_bn=True)
    except Exception as error:  # onnxsim raises RuntimeError, ValueError and protobuf's own types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DamagedInputError(
            f"{name}: onnxsim cannot simplify it: {reason}", "export the file again"
        ) from None
    assert isinstance(simplified, onnx.ModelProto)
    return simplified


@dataclass
class _Reader:
    """Reads the nodes of a simplified model in order; `alias` follows tensors through no-ops."""

    name: str
    model: onnx.ModelProto
    input: str
    dims: list[int]
    nodes: list[Node] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    vectors: set[str] = field(default_factory=set)
    """Tensors that are (C,) in our graph: pooled, or made from pooled ones."""

    def read(self) -> Graph:
        graph = self.model.graph
        try:
            self.constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
            constants = [node for node in graph.node if node.op_type == "Constant"]
            self.constants |= {node.output[0]: _constant_value(node) for node in constants}
        except Exception as error:  # onnx raises errors of any type for damaged tensors
            raise DamagedInputError(
                f"{self.name}: a constant is malformed: {error}", "export the file again"
            ) from None
        foreign = sorted({node.op_type for node in graph.node} - set(_READERS))
        if foreign:
            raise _unsupported(self.name, foreign)
        self.alias[self.input] = "input"
        for node in graph.node:
            try:
                _READERS[node.op_type](self, node)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                raise self.refuse(node, f"malformed: {error or type(error).__name__}") from None
        return self._finish()

    def graph(self) -> Graph:
        """The layers read so far."""
        height, width = self.dims[2:] if self.dims[1] == 3 else self.dims[1:3]
        return Graph(self.name, "input", (3, height, width), tuple(self.nodes))

    def _finish(self) -> Graph:
        last = self.alias.get(self.model.graph.output[0].name)
        if not self.nodes or last != self.nodes[-1].name or last not in self.vectors:
            raise DamagedInputError(
                f"{self.name}: the output is not a vector of class scores",
                "export a classifier: … → pool → linear",
            )
        return self.graph()

    def tensor(self, node: onnx.NodeProto, position: int = 0) -> str:
        """Name in our graph of a tensor that a node reads."""
        name = node.input[position]
        if name not in self.alias:
            raise self.refuse(node, f"reads {name}, which is not an activation")
        return self.alias[name]

    def constant(self, node: onnx.NodeProto, position: int) -> np.ndarray | None:
        """A constant that a node reads; None where the node leaves it out."""
        if position >= len(node.input) or not node.input[position]:
            return None
        if node.input[position] not in self.constants:
            raise self.refuse(node, f"input {position} is computed, not constant")
        return self.constants[node.input[position]]

    def bias(self, node: onnx.NodeProto, outputs: int) -> np.ndarray:
        """The float32 (O,) at position 2 of a layer with weights; zeros where the node leaves it out."""
        if self.constant(node, 2) is None:
            return np.zeros(outputs, np.float32)
        value = self.weight(node, 2)
        if value.size not in (1, outputs):
            raise self.refuse(node, f"a bias of shape {value.shape} for {outputs} outputs")
        return np.array(np.broadcast_to(value.reshape(-1), (outputs,)))

    def weight(self, node: onnx.NodeProto, position: int) -> np.ndarray:
        """A float32 constant that a node needs."""
        value = self.constant(node, position)
        if value is None or value.dtype != np.float32:
            kind = "missing" if value is None else str(value.dtype)
            raise self.refuse(node, f"its weights are {kind}, not float32")
        if not np.isfinite(value).all():
            raise self.refuse(node, "its weights hold NaN or infinity")
        return value

    def setting(self, node: onnx.NodeProto, attribute: str, position: int) -> np.ndarray | None:
        """What newer opsets pass as an input and older ones as an attribute."""
        value = _attributes(node).get(attribute)
        return self.constant(node, position) if value is None else np.asarray(value)

    def add(self, node: onnx.NodeProto, layer: Node, *, vector: bool = False) -> None:
        """Append a layer that makes the node's output."""
        self.nodes.append(layer)
        self.alias[node.output[0]] = layer.name
        if vector:
            self.vectors.add(layer.name)

    def layer_name(self, node: onnx.NodeProto, kind: str = "") -> str:
        """The torch module's path where the exporter recorded it, else the node's own name; always unique.

        `kind` is appended to the path for what is no module of its own, such as a block's `add`.
        """
        if node.name.startswith("/"):
            name = ".".join(part for part in (_module_path(node.name), kind) if part)
        else:
            name = node.name
        name = name or node.output[0]
        taken = {layer.name for layer in self.nodes} | {"input"}
        return name if name not in taken else f"{name}_{len(self.nodes)}"

    def refuse(self, node: onnx.NodeProto, reason: str) -> DamagedInputError:
        return DamagedInputError(
            f"{self.name}: {node.op_type} {node.name or node.output[0]}: {reason}",
            "mobilenet-export takes MobileNet-like classifiers in float32",
        )


def _module_path(scope: str) -> str:
    """Turn the exporter's `/features/features.1/conv/conv.0/Conv` into the module path `features.1.conv.0`."""
    parts: list[str] = []
    for segment in scope.strip("/").split("/")[:-1]:
        if parts and segment.startswith(parts[-1] + "."):
            parts[-1] = segment
        else:
            parts.append(segment)
    return ".".join(parts)


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def _constant_value(node: onnx.NodeProto) -> np.ndarray:
    (value,) = _attributes(node).values()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _read_conv(reader: _Reader, node: onnx.NodeProto) -> None:
    attributes = _attributes(node)
    weight = reader.weight(node, 1)
    outputs, groups = weight.shape[0], int(attributes.get("group", 1))
    if weight.ndim != 4 or set(attributes.get("dilations", [1])) != {1}:
        raise reader.refuse(node, "only 2-D convolutions without dilation are supported")
    if groups not in (1, outputs) or (groups > 1 and weight.shape[1] != 1):
        raise reader.refuse(node, f"{groups} groups; dense and depthwise convolutions are supported")
    bias = reader.bias(node, outputs)
    source, name = reader.tensor(node), reader.layer_name(node)
    if source in reader.vectors:  # a 1×1 convolution of the pooled map is a linear layer
        if weight.shape[2:] != (1, 1) or groups != 1:
            raise reader.refuse(node, "a spatial convolution after the pool")
        reader.add(node, FullyConnected(name, source, weight[:, :, 0, 0], bias), vector=True)
        return
    stride = tuple(attributes.get("strides", (1, 1)))
    pads = _conv_pads(reader, node, attributes)
    reader.add(node, Conv2d(name, source, weight, bias, (stride[0], stride[1]), pads, groups))


def _conv_pads(reader: _Reader, node: onnx.NodeProto, attributes: Mapping[str, Any]) -> Pads:
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode not in (b"NOTSET", b"VALID"):
        raise reader.refuse(node, f"auto_pad {mode.decode()}; write the pads out")
    return Pads(*attributes.get("pads", (0, 0, 0, 0)))


def _read_batch_norm(reader: _Reader, node: onnx.NodeProto) -> None:
    gamma, beta, mean, variance = (reader.weight(node, i).astype(np.float64) for i in range(1, 5))
    variance += _attributes(node).get("epsilon", 1e-5)
    if variance.min() <= 0:
        raise reader.refuse(node, "a variance below 0")
    scale = gamma / np.sqrt(variance)
    shift = beta - mean * scale
    name = reader.layer_name(node)
    reader.add(node, BatchNorm(name, reader.tensor(node), scale, shift))


def _read_clip(reader: _Reader, node: onnx.NodeProto) -> None:
    low, high = reader.setting(node, "min", 1), reader.setting(node, "max", 2)
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    kinds = {kind.bounds: kind for kind in Activation}
    kinds[0.0, float(np.finfo(np.float32).max)] = Activation.RELU
    if bounds not in kinds:
        raise reader.refuse(node, f"clamps to {bounds}; ReLU (0, ∞) and ReLU6 (0, 6) are supported")
    _refuse_in_head(reader, node)
    reader.add(node, Clamp(reader.layer_name(node), reader.tensor(node), kinds[bounds]))


def _refuse_in_head(reader: _Reader, node: onnx.NodeProto) -> None:
    if reader.tensor(node) in reader.vectors:
        raise reader.refuse(node, "an activation after the pool; one linear layer is supported there")


def _read_relu(reader: _Reader, node: onnx.NodeProto) -> None:
    _refuse_in_head(reader, node)
    reader.add(node, Clamp(reader.layer_name(node), reader.tensor(node), Activation.RELU))


def _read_add(reader: _Reader, node: onnx.NodeProto) -> None:
    constants = [position for position in (0, 1) if node.input[position] in reader.constants]
    if constants:
        _read_bias(reader, node, constants[0])
        return
    a, b = reader.tensor(node, 0), reader.tensor(node, 1)
    shapes = reader.graph().shapes
    if shapes[a] != shapes[b]:
        raise reader.refuse(node, f"adds tensors of shapes {shapes[a]} and {shapes[b]}")
    reader.add(node, Add(reader.layer_name(node, "add"), (a, b)))


def _read_bias(reader: _Reader, node: onnx.NodeProto, position: int) -> None:
    """MatMul + Add of a constant is a linear layer with a bias."""
    source, bias = reader.tensor(node, 1 - position), reader.weight(node, position)
    last = reader.nodes[-1]
    if not isinstance(last, FullyConnected) or last.name != source or bias.size != last.bias.size:
        raise reader.refuse(node, "adds a constant to something that is not a linear layer")
    reader.nodes[-1] = FullyConnected(last.name, last.input, last.weight, last.bias + bias.reshape(-1))
    reader.alias[node.output[0]] = last.name


def _read_pool(reader: _Reader, node: onnx.NodeProto) -> None:
    reader.add(node, GlobalAveragePool(reader.layer_name(node, "pool"), reader.tensor(node)), vector=True)


def _read_reduce_mean(reader: _Reader, node: onnx.NodeProto) -> None:
    axes = reader.setting(node, "axes", 1)
    if axes is None or sorted(int(axis) % 4 for axis in axes.reshape(-1)) != [2, 3]:
        raise reader.refuse(node, f"means over axes {axes}; the spatial axes (2, 3) are supported")
    _read_pool(reader, node)


def _read_average_pool(reader: _Reader, node: onnx.NodeProto) -> None:
    """A pool whose window is the whole map is a global one."""
    attributes, source = _attributes(node), reader.tensor(node)
    channels = reader.graph().shapes[source]
    if list(channels[1:]) != list(attributes["kernel_shape"]) or any(attributes.get("pads", [])):
        raise reader.refuse(
            node, f"window {attributes['kernel_shape']} on a {channels[1:]} map is not global"
        )
    _read_pool(reader, node)


def _read_gemm(reader: _Reader, node: onnx.NodeProto) -> None:
    attributes, source = _attributes(node), reader.tensor(node)
    weight = reader.weight(node, 1)
    if source not in reader.vectors or attributes.get("transA"):
        raise reader.refuse(node, "a linear layer must read the pooled features")
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        raise reader.refuse(node, "alpha and beta other than 1")
    weight = weight if attributes.get("transB") else weight.T
    bias = reader.bias(node, len(weight))
    layer = FullyConnected(reader.layer_name(node), source, np.ascontiguousarray(weight), bias)
    reader.add(node, layer, vector=True)


def _read_softmax(reader: _Reader, node: onnx.NodeProto) -> None:
    source = reader.tensor(node)
    if source not in reader.vectors:
        raise reader.refuse(node, "a softmax over a feature map")
    reader.add(node, Softmax(reader.layer_name(node, "softmax"), source), vector=True)


def _read_pad(reader: _Reader, node: onnx.NodeProto) -> None:
    pads, value = reader.setting(node, "pads", 1), reader.setting(node, "value", 2)
    mode = _attributes(node).get("mode", b"constant")
    if pads is None or mode != b"constant" or (value is not None and float(value) != 0.0):
        raise reader.refuse(node, "only constant zero padding is supported")
    _, channel, top, left, _, channel_end, bottom, right = (int(pad) for pad in pads)
    if channel or channel_end or min(top, left, bottom, right) < 0:
        raise reader.refuse(node, "pads other than the spatial axes")
    reader.add(
        node, ZeroPad(reader.layer_name(node, "pad"), reader.tensor(node), Pads(top, left, bottom, right))
    )


def _read_flatten(reader: _Reader, node: onnx.NodeProto) -> None:
    source = reader.tensor(node)
    if source not in reader.vectors:
        raise reader.refuse(node, "reshapes a feature map; only the pooled features can be flattened")
    reader.alias[node.output[0]] = source


def _read_transpose(reader: _Reader, node: onnx.NodeProto) -> None:
    """Channel-last input: the first node may bring it to channel-first, as our graphs have it."""
    if (
        reader.tensor(node) != "input"
        or list(_attributes(node)["perm"]) != [0, 3, 1, 2]
        or reader.dims[3] != 3
    ):
        raise reader.refuse(node, "only the input may be transposed, from (N, H, W, 3)")
    reader.alias[node.output[0]] = "input"


def _read_identity(reader: _Reader, node: onnx.NodeProto) -> None:
    reader.alias[node.output[0]] = reader.tensor(node)


def _skip(reader: _Reader, node: onnx.NodeProto) -> None:
    """Constants were read before."""


_READERS: dict[str, Callable[[_Reader, onnx.NodeProto], None]] = {
    "Add": _read_add,
    "AveragePool": _read_average_pool,
    "BatchNormalization": _read_batch_norm,
    "Clip": _read_clip,
    "Constant": _skip,
    "Conv": _read_conv,
    "Dropout": _read_identity,
    "Flatten": _read_flatten,
    "Gemm": _read_gemm,
    "GlobalAveragePool": _read_pool,
    "Identity": _read_identity,
    "MatMul": _read_gemm,
    "Pad": _read_pad,
    "ReduceMean": _read_reduce_mean,
    "Relu": _read_relu,
    "Reshape": _read_flatten,
    "Softmax": _read_softmax,
    "Squeeze": _read_flatten,
    "Transpose": _read_transpose,
}
