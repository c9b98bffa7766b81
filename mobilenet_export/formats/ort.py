"""ORT format: what ONNX Runtime's builds for phones and browsers load fastest, made by ONNX Runtime from our ONNX.

The graph inside is optimized already. Level "extended" fuses to integer convolutions, additions and a linear
layer, which every CPU has; "all" would also bake in the blocked layout of float convolutions of the CPU that
exports, and such a file runs nowhere else. Constants are not folded, or fp16 weights would be stored as float32;
equal ones are not shared, so that every constant keeps its name and the integers can be read back.

A build of ONNX Runtime that holds only some operators is made from `required_operators.config`, which goes beside
the files. Source: onnxruntime.ai, "ORT model format" and "Reduced operator config file".
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilenet_export.artifact import InputOutput, Normalization, Precision
from mobilenet_export.formats import Format, onnx
from mobilenet_export.formats._ort_flatbuffer import Fields, read, write
from mobilenet_export.graph import Graph
from mobilenet_export.model_card import ModelCard
from mobilenet_export.quantized import QuantizedGraph

OPERATORS = "required_operators.config"
_NOT_APPLIED = ("ConstantFolding", "ConstantSharing")
_ERRORS_ONLY = 3
_TYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16}
"""TensorDataType of the schema."""


def write_float(
    graph: Graph, precision: Precision, card: ModelCard | None = None, pixels: Normalization | None = None
) -> bytes:
    """Spell a fused float graph; `fp16` stores the weights as float16, and casts them at every inference."""
    return _converted(onnx.write_float(graph, precision, card, pixels))


def write_int8(quantized: QuantizedGraph, io: InputOutput, card: ModelCard | None = None) -> bytes:
    """Spell the integers, as operators that take integers."""
    return _converted(onnx.write_int8(quantized, io, card))


def _converted(model: bytes) -> bytes:
    """Have ONNX Runtime optimize an ONNX model and save it, and put in order what it saves in any."""
    import onnxruntime  # noqa: PLC0415 (slow to import)

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.ort"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(saved)
        options.add_session_config_entry("session.save_model_format", "ORT")
        onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(_NOT_APPLIED)
        )
        return write(read(saved.read_bytes()))


def read_int8(data: bytes, graph: Graph) -> QuantizedGraph:
    """Read the integers of an int8 file that `write_int8` has spelled.

    Raises:
        ValueError: A constant is missing, or does not fit the graph.
    """
    return onnx.integers_of(_constants(data), graph)


def _graph(data: bytes) -> Fields:
    graph = read(data).get("model", {}).get("graph", {})
    if not graph.get("nodes"):
        raise ValueError("not an ORT format model: it has no nodes")
    return dict(graph)


def _constants(data: bytes) -> dict[str, np.ndarray]:
    """Every constant of a known type by name."""
    return {
        held["name"]: held["raw_data"].view(_TYPES[held["data_type"]]).reshape(held.get("dims", ()))
        for held in _graph(data).get("initializers", [])
        if held.get("data_type") in _TYPES and "name" in held and "raw_data" in held
    }


def read_precision(data: bytes) -> Precision:
    """Tell a file's precision from the types of its constants.

    Raises:
        ValueError: It is not an ORT format model.
    """
    kinds = {held.dtype for held in _constants(data).values()}
    return "int8" if np.dtype(np.int8) in kinds else "fp16" if np.dtype(np.float16) in kinds else "fp32"


def required_operators(files: Sequence[bytes]) -> Mapping[str, bytes]:
    """Return the config file of a build that holds just the operators of these files, by its name."""
    found: dict[tuple[str, int], set[str]] = {}
    for data in files:
        for node in _graph(data)["nodes"]:
            domain = node.get("domain") or "ai.onnx"
            found.setdefault((domain, node["since_version"]), set()).add(node["op_type"])
    lines = [
        f"{domain};{since};{','.join(sorted(names))}" for (domain, since), names in sorted(found.items())
    ]
    return {OPERATORS: "".join(f"{line}\n" for line in lines).encode()}


class _OrtFormat:
    name = "ort"
    extension = ".ort"
    layout = onnx.FORMAT.layout
    dynamic_batch = True
    io: tuple[InputOutput, ...] = onnx.FORMAT.io
    write_float = staticmethod(write_float)
    write_int8 = staticmethod(write_int8)
    read_int8 = staticmethod(read_int8)
    read_precision = staticmethod(read_precision)
    companions = staticmethod(required_operators)


FORMAT: Format = _OrtFormat()
