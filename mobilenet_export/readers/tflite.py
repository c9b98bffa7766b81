"""The layers of a TFLite file: its first subgraph, shapes brought from channel-last to channel-first."""

import math
import struct
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mobilenet_export.anatomy import Anatomy, Tensor
from mobilenet_export.graph import Shape
from mobilenet_export.readers import ReadAnatomy
from mobilenet_export.readers._nodes import (
    DEQUANTIZE,
    MOST_NODES,
    QUANTIZE,
    VIEW,
    Constant,
    Listing,
    Node,
    add_computed,
    anatomy_of,
    one_image,
)

_IDENTIFIER = b"TFL3"
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_KINDS = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_WORDS = {
    "AVERAGE_POOL_2D": "pool",
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "conv",
    "DEQUANTIZE": DEQUANTIZE,
    "FULLY_CONNECTED": "linear",
    "MEAN": "pool",
    "QUANTIZE": QUANTIZE,
    "RESHAPE": VIEW,
    "SQUEEZE": VIEW,
}
_OPTIONS = {
    "ADD": schema.AddOptions,
    "CONV_2D": schema.Conv2DOptions,
    "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptions,
    "FULLY_CONNECTED": schema.FullyConnectedOptions,
}
_ACTIVATIONS = {
    schema.ActivationFunctionType.NONE: "none",
    schema.ActivationFunctionType.RELU: "relu",
    schema.ActivationFunctionType.RELU6: "relu6",
}
_SCALING = ("ADD", "MUL", "SUB", "DIV", "PRELU")


def read_anatomy(data: bytes, name: str, _resolution_px: int | None) -> Anatomy:
    """Read a TFLite file; see `ReadAnatomy`. Its input size is fixed."""
    if data[4:8] != _IDENTIFIER:
        raise ValueError("not a TFLite model")
    try:
        return anatomy_of(_listing(schema.Model.GetRootAs(data), name))
    except (struct.error, IndexError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a TFLite model: {error}") from None


def _listing(model: Any, name: str) -> Listing:
    graph = model.Subgraphs(0)
    if max(graph.TensorsLength(), graph.OperatorsLength()) > MOST_NODES:
        raise ValueError(f"more than {MOST_NODES:,} tensors or operators")
    held = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    plain = [(tensor.Name() or b"").decode() for tensor in held]
    counts = Counter(plain)
    names = [text if text and counts[text] == 1 else f"{text}:{index}" for index, text in enumerate(plain)]
    constants = {
        key: Constant(_shape(tensor), _KINDS.get(tensor.Type(), "unknown"))
        for key, tensor in zip(names, held, strict=True)
        if model.Buffers(tensor.Buffer()).DataLength()
    }
    operators = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    add_computed(
        constants, ((_named(names, one, "Inputs"), _named(names, one, "Outputs")) for one in operators)
    )
    inputs = [names[graph.Inputs(index)] for index in range(graph.InputsLength())]
    if len(inputs) != 1:
        raise ValueError(f"it takes {len(inputs)} inputs; networks of one image can be inspected")
    return Listing(
        name,
        tuple(_node(model, one, names, constants) for one in operators),
        {key: _activation(key, tensor) for key, tensor in zip(names, held, strict=True)},
        constants,
        inputs[0],
        tuple(names[graph.Outputs(index)] for index in range(graph.OutputsLength())),
    )


def _named(names: list[str], operator: Any, which: str) -> tuple[str, ...]:
    """The operator's inputs or outputs by name; an input that is left out is empty."""
    count = getattr(operator, f"{which}Length")()
    indices = [getattr(operator, which)(index) for index in range(count)]
    return tuple(names[index] if index >= 0 else "" for index in indices)


def _shape(tensor: Any) -> Shape:
    return tuple(int(tensor.Shape(axis)) for axis in range(tensor.ShapeLength()))


def _activation(name: str, tensor: Any) -> Tensor:
    """(N, H, W, C) is (C, H, W) of one image."""
    shape = one_image(_shape(tensor))
    if len(shape) == 3:
        shape = one_image((1, shape[2], *shape[:2]))
    return Tensor(name, shape, _KINDS.get(tensor.Type(), "unknown"))


def _node(model: Any, operator: Any, names: list[str], constants: Mapping[str, Constant]) -> Node:
    code = model.OperatorCodes(operator.OpcodeIndex())
    kind = _NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "unknown")
    inputs, outputs = _named(names, operator, "Inputs"), _named(names, operator, "Outputs")
    word, options = _WORDS.get(kind, kind.lower()), _options(operator, kind)
    activation = "none" if options is None else _ACTIVATIONS.get(options.FusedActivationFunction(), "")
    if word in ("conv", "linear"):
        weight, bias = inputs[1], inputs[2] if len(inputs) > 2 else ""
        shape = _kernel_shape(kind, constants[weight].shape if weight in constants else ())
        stride = (options.StrideH(), options.StrideW()) if options and word == "conv" else (1, 1)
        biases = math.prod(constants[bias].shape) if bias in constants else 0
        return Node(word, inputs, outputs, weight, shape, biases, stride, activation)
    biases = sum(math.prod(constants[name].shape) for name in inputs if name in constants)
    return Node(word, inputs, outputs, biases=biases if kind in _SCALING else 0, activation=activation)


def _options(operator: Any, kind: str) -> Any:
    table = operator.BuiltinOptions()
    if kind not in _OPTIONS or table is None:
        return None
    options = _OPTIONS[kind]()
    options.Init(table.Bytes, table.Pos)
    return options


def _kernel_shape(kind: str, shape: Shape) -> Shape:
    """(O, kh, kw, I), or of a depthwise convolution (1, kh, kw, C), as (O, I/groups, kh, kw)."""
    if len(shape) != 4:
        return shape
    order = (3, 0, 1, 2) if kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
    return tuple(shape[axis] for axis in order)


READER: ReadAnatomy = read_anatomy
