"""The flatbuffer of ORT format files: read as nested dicts, and written again with everything in order.

ONNX Runtime writes initializers, values and attributes in the order of hash tables, which differs with every run.
Here what has no order of its own is sorted, so that the same network is the same bytes. Constants are aligned to 16
bytes, for builds that use them where they lie.

Source: microsoft/onnxruntime, onnxruntime/core/flatbuffers/schema/ort.fbs, of which only what occurs in networks
without subgraphs, sparse tensors and saved optimizations is read; a field of the rest is refused.
"""

import struct
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

Fields = dict[str, Any]
"""A table: the fields that are there by name, as numbers, text, arrays, `Fields`, or lists of text or `Fields`."""

_IDENTIFIER = b"ORTM"
_ALIGNMENT = 16
_REFUSED = "refused"
_SCHEMA = {
    "InferenceSession": "ort_version:string model:Model session_state:refused resolver:KernelTypeStrResolver",
    "Model": "ir_version:int64 opset_import:[OperatorSetId] producer_name:string producer_version:string"
    " domain:string model_version:int64 doc_string:string graph:Graph graph_doc_string:string"
    " metadata_props:[StringStringEntry]",
    "OperatorSetId": "domain:string version:int64",
    "StringStringEntry": "key:string value:string",
    "Graph": "initializers:[Tensor] node_args:[ValueInfo] nodes:[Node] max_node_index:uint32"
    " node_edges:[NodeEdge] inputs:[string] outputs:[string] sparse_initializers:[refused]"
    " runtime_optimizations:RuntimeOptimizations",
    "RuntimeOptimizations": "records:[refused]",
    "Tensor": "name:string doc_string:string dims:[int64] data_type:int32 raw_data:[uint8]",
    "ValueInfo": "name:string doc_string:string type:TypeInfo",
    "TypeInfo": "denotation:string value_type:uint8 value:TensorTypeAndShape",
    "TensorTypeAndShape": "elem_type:int32 shape:Shape",
    "Shape": "dim:[Dimension]",
    "Dimension": "value:DimensionValue denotation:string",
    "DimensionValue": "dim_type:int8 dim_value:int64 dim_param:string",
    "Node": "name:string doc_string:string domain:string since_version:int32 index:uint32 op_type:string"
    " type:int32 execution_provider_type:string inputs:[string] outputs:[string] attributes:[Attribute]"
    " input_arg_counts:[int32] implicit_inputs:[string]",
    "Attribute": "name:string doc_string:string type:int32 f:float32 i:int64 s:string t:Tensor g:refused"
    " floats:[float32] ints:[int64] strings:[string] tensors:[Tensor] graphs:[refused]",
    "NodeEdge": "node_index:uint32 input_edges:[EdgeEnd] output_edges:[EdgeEnd]",
    "KernelTypeStrResolver": "op_kernel_type_str_args:[OpIdKernelTypeStrArgsEntry]",
    "OpIdKernelTypeStrArgsEntry": "op_id:string kernel_type_str_args:[KernelTypeStrArgsEntry]",
    "KernelTypeStrArgsEntry": "kernel_type_str:string args:[ArgTypeAndIndex]",
    "ArgTypeAndIndex": "arg_type:int8 index:uint32",
}
_TABLES = {table: dict(field.split(":") for field in fields.split()) for table, fields in _SCHEMA.items()}
_EDGE_END = np.dtype([("node_index", "<u4"), ("src_arg_index", "<i4"), ("dst_arg_index", "<i4")])
_SCALARS = {
    "int8": number_types.Int8Flags,
    "uint8": number_types.Uint8Flags,
    "int32": number_types.Int32Flags,
    "uint32": number_types.Uint32Flags,
    "int64": number_types.Int64Flags,
    "float32": number_types.Float32Flags,
}
_UNORDERED = {
    "opset_import": "domain",
    "metadata_props": "key",
    "initializers": "name",
    "node_args": "name",
    "node_edges": "node_index",
    "attributes": "name",
    "op_kernel_type_str_args": "op_id",
    "kernel_type_str_args": "kernel_type_str",
}
"""Lists that ONNX Runtime looks up by that field; it is left out where it is 0 or empty."""


def read(data: bytes) -> Fields:
    """Return the root table.

    Raises:
        ValueError: It is not an ORT format file, is cut off, or holds what ours do not.
    """
    if data[4:8] != _IDENTIFIER:
        raise ValueError("not an ORT format model")
    try:
        return _Reader(4 * len(data)).table(
            Table(data, struct.unpack_from("<I", data)[0]), "InferenceSession"
        )
    except (struct.error, IndexError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"not an ORT format model: {error}") from None


@dataclass
class _Reader:
    """Reads tables, as long as `left` lasts: parts may be shared, and a small file could stand for a huge one."""

    left: int

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise ValueError("an ORT format model that refers to the same parts too often")

    def table(self, table: Table, kind: str) -> Fields:
        self.spend(4)
        fields = {}
        for slot, (name, form) in enumerate(_TABLES[kind].items()):
            offset = table.Offset(4 + 2 * slot)
            if offset:
                fields[name] = self.field(table, offset, form)
        return fields

    def field(self, table: Table, offset: int, form: str) -> Any:
        element, place = form.strip("[]"), table.Pos + offset
        if element == _REFUSED and (form == _REFUSED or table.VectorLen(offset)):
            raise ValueError("an ORT format model with subgraphs, sparse tensors or saved optimizations")
        if form in _SCALARS:
            return table.Get(_SCALARS[form], place)
        if not form.startswith("["):
            return self.element(table, place, form)
        start, count = table.Vector(offset), table.VectorLen(offset)
        if element in _SCALARS or element == "EdgeEnd":
            return np.frombuffer(table.Bytes, _element_type(element), count, start)
        return [self.element(table, start + 4 * index, element) for index in range(count)]

    def element(self, table: Table, place: int, form: str) -> Any:
        """A text or a table that is referred to from a place."""
        if form != "string":
            return self.table(Table(table.Bytes, table.Indirect(place)), form)
        text = table.String(place)
        self.spend(4 + len(text))
        return text.decode()


def _element_type(element: str) -> np.dtype[Any]:
    return _EDGE_END if element == "EdgeEnd" else np.dtype(element).newbyteorder("<")


def write(root: Fields) -> bytes:
    """Return the file of a root table, the same bytes for the same contents."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(_write_table(builder, root, "InferenceSession"), _IDENTIFIER)
    return bytes(builder.Output())


def _write_table(builder: Any, fields: Fields, kind: str) -> int:
    forms = _TABLES[kind]
    offsets = {
        name: _write_field(builder, name, value, forms[name])
        for name, value in fields.items()
        if forms[name] not in _SCALARS
    }
    builder.StartObject(len(forms))
    for slot, (name, form) in enumerate(forms.items()):
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        elif name in fields:
            builder.Prepend(_SCALARS[form], fields[name])
            builder.Slot(slot)
    return int(builder.EndObject())


def _write_field(builder: Any, name: str, value: Any, form: str) -> int:
    """Write what a table only refers to, and return where it is."""
    if form == "string":
        return int(builder.CreateSharedString(value))
    if form in _TABLES:
        return _write_table(builder, value, form)
    if isinstance(value, np.ndarray):
        return _write_array(builder, value)
    if name in _UNORDERED:
        key = _UNORDERED[name]
        value = sorted(value, key=lambda fields: (key in fields, fields.get(key)))
    element = form.strip("[]")
    offsets = [_write_field(builder, "", one, element) for one in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _write_array(builder: Any, value: np.ndarray) -> int:
    data = value.tobytes()
    builder.StartVector(value.itemsize, len(value), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())
