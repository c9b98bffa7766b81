"""The layers of an ORT format file, as ONNX Runtime has fused them; the file states all shapes."""

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from mobilenet_export.anatomy import Anatomy, Tensor
from mobilenet_export.formats._ort_flatbuffer import Fields, read
from mobilenet_export.readers import ReadAnatomy
from mobilenet_export.readers._nodes import Constant, Listing, Node, add_computed, anatomy_of, one_image
from mobilenet_export.readers._onnx_operators import read_node

_KINDS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
"""TensorDataType of the schema."""


def read_anatomy(data: bytes, name: str, _resolution_px: int | None) -> Anatomy:
    """Read an ORT format file; see `ReadAnatomy`. Its input size is fixed."""
    graph = read(data).get("model", {}).get("graph", {})
    if not graph.get("nodes"):
        raise ValueError("not an ORT format model: it has no nodes")
    try:
        constants = {held["name"]: _constant(held) for held in graph.get("initializers", [])}
        add_computed(constants, ((node.get("inputs", ()), node["outputs"]) for node in graph["nodes"]))
        nodes = tuple(_in_order([_node(node, constants) for node in graph["nodes"]]))
        tensors = [_tensor(value) for value in graph.get("node_args", [])]
        image, *others = (held for held in graph["inputs"] if held not in constants)
        outputs = tuple(graph["outputs"])
    except KeyError as error:
        raise ValueError(f"not an ORT format model: it has no {error.args[0]}") from None
    if others:
        raise ValueError(f"it takes {len(others) + 1} inputs; networks of one image can be inspected")
    known = {tensor.name: tensor for tensor in tensors if tensor}
    return anatomy_of(Listing(name, nodes, known, constants, image, outputs))


def _in_order(nodes: list[Node]) -> Iterator[Node]:
    """Yield nodes after those that they read from, which the file does not; those in a circle are left out."""
    makers = {output: index for index, node in enumerate(nodes) for output in node.outputs}
    waits = [{makers[name] for name in node.inputs if name in makers} for node in nodes]
    followers: dict[int, list[int]] = {}
    for index, sources in enumerate(waits):
        for source in sources:
            followers.setdefault(source, []).append(index)
    ready = [index for index, sources in enumerate(waits) if not sources]
    while ready:
        index = heappop(ready)
        yield nodes[index]
        for follower in followers.get(index, []):
            waits[follower].discard(index)
            if not waits[follower]:
                heappush(ready, follower)


def _constant(held: Fields) -> Constant:
    shape = tuple(map(int, held.get("dims", ())))
    value = None
    if not shape and held.get("data_type") == 1 and held.get("raw_data") is not None:
        value = float(held["raw_data"].view("<f4")[0])
    return Constant(shape, _KINDS.get(held.get("data_type", 0), "unknown"), value)


def _tensor(value: Fields) -> Tensor | None:
    """The activation, where its shape is known but for the batch."""
    kind = value.get("type", {}).get("value", {})
    dims = [dim.get("value", {}).get("dim_value", 0) for dim in kind.get("shape", {}).get("dim", [])]
    if "name" not in value or "shape" not in kind or any(size <= 0 for size in dims[1:]):
        return None
    return Tensor(value["name"], one_image(dims), _KINDS.get(kind.get("elem_type", 0), "unknown"))


def _node(node: Fields, constants: dict[str, Constant]) -> Node:
    attributes = {held["name"]: _attribute(held) for held in node.get("attributes", [])}
    return read_node(
        node["op_type"], tuple(node.get("inputs", ())), tuple(node["outputs"]), attributes, constants
    )


def _attribute(held: Fields) -> Any:
    """The one value that it has; a number that is 0 is left out of the file."""
    found = [held[form] for form in ("ints", "floats", "strings", "s", "i", "f") if form in held]
    return found[0] if found else 0


READER: ReadAnatomy = read_anatomy
