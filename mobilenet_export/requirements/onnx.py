"""What an ONNX file needs: its IR version, the opset of each domain, and its operators.

An operator's version is the opset that it last changed in, up to the file's. Source: ONNX, docs/Versioning.md.
"""

from collections.abc import Iterable, Iterator

import onnx

from mobilenet_export.compat.facts import ReadRequirements, Requirements
from mobilenet_export.formats.onnx import parse


def read_requirements(data: bytes) -> Requirements:
    """Read what an ONNX file needs.

    Raises:
        ValueError: It is not an ONNX model, or does not state the opset of a domain that it uses.
    """
    model = parse(data)
    local = {(function.domain, function.name) for function in model.functions}
    imports = {_standard(entry.domain): entry.version for entry in model.opset_import}
    stamps, operators = dict[str, int](), dict[str, int]()
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in _every(nodes):
            domain = _standard(node.domain)
            if (node.domain, node.op_type) in local:
                continue
            if domain not in imports:
                raise ValueError(f"it states no opset of {domain or 'ai.onnx'}, which {node.op_type} is of")
            stamps[f"{domain} opset".strip()] = imports[domain]
            operators[f"{domain}.{node.op_type}".strip(".")] = _since(node.op_type, imports[domain], domain)
    return Requirements(stamps | {"IR": model.ir_version}, operators)


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _every(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes and those of the graphs inside them."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _every(graph.node)


def _since(operator: str, opset: int, domain: str) -> int:
    """The opset that an operator last changed in; the file's own where onnx here does not know the operator."""
    try:
        return int(onnx.defs.get_schema(operator, opset, domain).since_version)
    except (onnx.defs.SchemaError, TypeError):  # or no name or version at all
        return opset


REQUIREMENT: ReadRequirements = read_requirements
