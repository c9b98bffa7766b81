"""The layers of an ONNX file, at a batch of 1; shapes are those that onnx infers."""

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import numpy_helper

from mobilenet_export.anatomy import Anatomy, Tensor
from mobilenet_export.errors import UsageError
from mobilenet_export.formats.onnx import parse
from mobilenet_export.readers import ReadAnatomy
from mobilenet_export.readers._nodes import Constant, Listing, Node, add_computed, anatomy_of, one_image
from mobilenet_export.readers._onnx_operators import read_node


def read_anatomy(data: bytes, name: str, resolution_px: int | None) -> Anatomy:
    """Read an ONNX file; see `ReadAnatomy`."""
    model = parse(data)
    constants = {held.name: _constant(held) for held in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise ValueError(f"it takes {len(inputs)} inputs; networks of one image can be inspected")
    _close(inputs[0], name, resolution_px)
    graph = _with_shapes(model)
    _refuse_bytes(graph)
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            constants[node.output[0]] = _constant(node.attribute[0].t)
    add_computed(constants, ((node.input, node.output) for node in graph.node))
    nodes = [_node(node, constants) for node in graph.node]
    values = [*graph.value_info, *graph.input, *graph.output]
    return anatomy_of(
        Listing(
            name,
            tuple(nodes),
            {value.name: tensor for value in values if (tensor := _tensor(value)) is not None},
            constants,
            inputs[0].name,
            tuple(value.name for value in graph.output),
        )
    )


def _refuse_bytes(graph: onnx.GraphProto) -> None:
    """Refuse names that are not text: protobuf hands them out as bytes."""
    for node in graph.node:
        for name in (node.op_type, *node.input, *node.output, *(one.name for one in node.attribute)):
            if not isinstance(name, str):
                raise ValueError("not an ONNX model: a name is not UTF-8")


def _close(value: onnx.ValueInfoProto, name: str, resolution_px: int | None) -> None:
    """Set the batch to 1, and open spatial axes to the size asked for."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ValueError(f"its input has {len(dims)} axes, not those of an image: 4")
    dims[0].dim_value = 1
    spatial = (1, 2) if dims[3].dim_value in (1, 3) and dims[1].dim_value not in (1, 3) else (2, 3)
    for axis in spatial:
        if not dims[axis].dim_value and resolution_px is None:
            raise UsageError(f"{name}: the file leaves the image size open", "give it with --resolution")
        dims[axis].dim_value = dims[axis].dim_value or int(resolution_px or 0)


def _with_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    """Infer shapes anew: those that the file states may be of another batch."""
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"not a valid ONNX model: {reason}") from None


def _constant(held: onnx.TensorProto) -> Constant:
    kind, shape = _kind(held.data_type), tuple(held.dims)
    value = None
    if not shape and held.data_location == onnx.TensorProto.DEFAULT and kind in ("float32", "float16"):
        value = float(numpy_helper.to_array(held))
    return Constant(shape, kind, value)


def _kind(number: int) -> str:
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, TypeError):
        raise ValueError(f"a tensor of type {number}, which is none") from None


def _tensor(value: onnx.ValueInfoProto) -> Tensor | None:
    """The activation, where its shape is known to the last axis."""
    kind, dims = value.type.tensor_type, value.type.tensor_type.shape.dim
    if not kind.HasField("shape") or any(not dim.HasField("dim_value") for dim in dims):
        return None
    return Tensor(value.name, one_image([dim.dim_value for dim in dims]), _kind(kind.elem_type))


def _node(node: onnx.NodeProto, constants: Mapping[str, Constant]) -> Node:
    attributes = {one.name: _attribute(one) for one in node.attribute}
    return read_node(node.op_type, tuple(node.input), tuple(node.output), attributes, constants)


def _attribute(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode(errors="replace") if isinstance(value, bytes) else value


READER: ReadAnatomy = read_anatomy
