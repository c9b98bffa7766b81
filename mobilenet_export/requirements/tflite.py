"""What a TFLite file needs: its schema version, and its operators with their versions.

A converter writes the lowest operator version that knows the types and options used; a runtime refuses versions
above the highest that it registers. Source: TensorFlow, lite/tools/versioning/README.md and schema.fbs.
"""

import struct
from collections.abc import Iterator
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from mobilenet_export.compat.facts import ReadRequirements, Requirements

_IDENTIFIER = b"TFL3"
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def read_requirements(data: bytes) -> Requirements:
    """Read what a TFLite file needs.

    Raises:
        ValueError: It is not a TFLite model, or is cut off.
    """
    if data[4:8] != _IDENTIFIER:
        raise ValueError("not a TFLite model")
    try:
        model = schema.Model.GetRootAs(data)
        stamps, operators = {"schema": model.Version()}, dict[str, int]()
        for name, version in _operators(model):
            operators[name] = max(version, operators.get(name, 0))
    except (struct.error, IndexError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"not a TFLite model: {error}") from None
    if not operators:
        raise ValueError("a TFLite model without operators")
    return Requirements(stamps, operators)


def _operators(model: Any) -> Iterator[tuple[str, int]]:
    """Yield name and version of every operator; a code above 126 stands in a second field of the schema."""
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            kind = model.OperatorCodes(operator.OpcodeIndex())
            code = max(kind.BuiltinCode(), kind.DeprecatedBuiltinCode())
            name = _NAMES.get(code, f"operator {code}")
            if code == schema.BuiltinOperator.CUSTOM:
                name = f"custom operator {(kind.CustomCode() or b'?').decode(errors='replace')}"
            yield name, kind.Version()


REQUIREMENT: ReadRequirements = read_requirements
