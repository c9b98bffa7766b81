"""Reads the weights of a frozen TensorFlow graph (.pb) without TensorFlow.

The few fields of a GraphDef that hold constants are declared here, and protobuf skips all others.

Source: tensorflow/core/framework: graph.proto, node_def.proto, attr_value.proto, tensor.proto, tensor_shape.proto,
types.proto.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from torch import Tensor

from mobilenet_export.architectures.keras_file import in_torch_order
from mobilenet_export.errors import DamagedInputError

_FLOAT = 1  # DT_FLOAT
_PARTS = {
    "weights": "weight",
    "depthwise_weights": "weight",
    "biases": "bias",
    "BatchNorm/gamma": "BatchNorm.weight",
    "BatchNorm/beta": "BatchNorm.bias",
    "BatchNorm/moving_mean": "BatchNorm.running_mean",
    "BatchNorm/moving_variance": "BatchNorm.running_var",
}

_MESSAGES = {
    "Dim": (("size", 1, "int64"),),
    "Shape": (("dim", 2, "*Dim"),),
    "Tensor": (
        ("dtype", 1, "int32"),
        ("shape", 2, "Shape"),
        ("content", 4, "bytes"),
        ("float_val", 5, "*float"),
    ),
    "Value": (("tensor", 8, "Tensor"),),
    "Attr": (("key", 1, "string"), ("value", 2, "Value")),
    "Node": (("name", 1, "string"), ("op", 2, "string"), ("attr", 5, "*Attr")),
    "Graph": (("node", 1, "*Node"),),
}
"""Message → name, number and type of its fields; a star is a repeated one."""

_TYPES = {
    kind: getattr(descriptor_pb2.FieldDescriptorProto, f"TYPE_{kind.upper()}")
    for kind in ("int32", "int64", "float", "bytes", "string")
}

_HINT = "give a frozen_graph.pb of Google's MobileNets: all its variables are constants"


def read_frozen_graph(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the float constants of a frozen graph as `layer.part`, in torch's order of axes and names of parts.

    Raises:
        DamagedInputError: It is no GraphDef, or one without such constants, or one with quantized layers.
    """
    graph = _graph_class()()
    try:
        graph.ParseFromString(data)
    except DecodeError:
        raise DamagedInputError(f"{name}: truncated, or not a frozen TensorFlow graph", _HINT) from None
    fake = next((node.name for node in graph.node if node.op.startswith("FakeQuant")), None)
    if fake:
        raise DamagedInputError(
            f"{name}: {fake}: a graph trained for quantization",
            "give the float graph; mnx quantizes it itself",
        )
    tensors = dict(_constants(graph, name))
    if not tensors:
        raise DamagedInputError(f"{name}: a graph without float weights as constants", _HINT)
    return tensors


def _graph_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="frozen_graph.proto", package="mnx", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            base = kind.removeprefix("*")
            entry = message.field.add(name=field, number=number, label=3 if kind.startswith("*") else 1)
            if base in _TYPES:
                entry.type = _TYPES[base]
            else:
                entry.type, entry.type_name = entry.TYPE_MESSAGE, f".mnx.{base}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("mnx.Graph"))


def _constants(graph: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    for node in graph.node:
        layer, part = _layer_and_part(node.name)
        if node.op != "Const" or part is None:
            continue
        value = next((attr.value.tensor for attr in node.attr if attr.key == "value"), None)
        if value is not None and value.dtype == _FLOAT:
            yield f"{layer}{part}", in_torch_order(_values(value, node.name, name))


def _layer_and_part(node: str) -> tuple[str, str | None]:
    """Split a constant's name into its layer and what torch calls the part; None where it is no weight."""
    for suffix, part in _PARTS.items():
        if node.endswith(f"/{suffix}"):
            separator = "/" if "." in part else "."
            return node.removesuffix(f"/{suffix}"), separator + part
    return node, None


def _values(value: Any, node: str, name: str) -> np.ndarray:
    """Return a tensor's float32 values; of a list that is too short the last one fills the rest."""
    shape = [dim.size for dim in value.shape.dim]
    count = math.prod(shape)
    found = np.frombuffer(value.content, "<f4") if value.content else np.array(value.float_val, "<f4")
    fits = len(found) == count or (not value.content and 0 < len(found) < count <= 2**24)
    if min(shape, default=1) < 0 or not fits:
        raise DamagedInputError(f"{name}: {node}: {len(found)} values for a tensor of shape {shape}", _HINT)
    fill = np.full(count - len(found), found[-1] if len(found) else 0, "<f4")
    return np.concatenate([found, fill]).astype(np.float32).reshape(shape)
