"""What `mnx inspect` finds: the layers of a variant, a bundle or a model file, as a value."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from mobilenet_export import anatomy as rules
from mobilenet_export.anatomy import Anatomy, Block, Layer, Pair, Tensor

FP32_BYTES, INT8_BYTES = 4, 1
"""Of an activation."""


@dataclass(frozen=True, slots=True)
class FileAnatomy:
    """A model file, its size, and its layers."""

    file: str
    bytes: int
    anatomy: Anatomy

    @property
    def precisions(self) -> dict[str, int]:
        """How many layers have each precision, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.anatomy.layers).most_common())


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found.

    Attributes:
        kind: Of the target.
        anatomy: The variant's, the file's, or that of the bundle's first file.
        files: Of a bundle, or the one file.
        networks: V1 and V2 at the target's width, resolution and classes; empty where it is neither.
    """

    kind: Literal["variant", "bundle", "file"]
    anatomy: Anatomy
    files: tuple[FileAnatomy, ...] = ()
    networks: tuple[Anatomy, ...] = ()

    def peaks(self) -> dict[str, int]:
        """Return the peak activation memory in bytes: of a variant in fp32 and int8, else of every file."""
        if self.files:
            return {found.file: found.anatomy.peak_bytes() for found in self.files}
        return {
            "fp32": self.anatomy.peak_bytes(FP32_BYTES),
            "int8": self.anatomy.peak_bytes(INT8_BYTES),
        }

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON-able table."""
        found = self.anatomy
        live = found.live_bytes()
        return {
            "name": found.name,
            "kind": self.kind,
            "input": dataclasses.asdict(found.input),
            "macs": found.macs,
            "weights": found.weights,
            "parameters": found.parameters,
            "peak_activation_bytes": self.peaks(),
            "standard": {"macs": found.standard_macs, "weights": found.standard_weights},
            "layers": [_layer(layer, size) for layer, size in zip(found.layers, live, strict=True)],
            "separable": [_pair(pair) for pair in found.pairs()],
            "networks": [_network(network) for network in self.networks],
            "files": [_file(one) for one in self.files],
            "rules": (rules.__doc__ or "").strip(),
        }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    return {**dataclasses.asdict(tensor), "bytes": tensor.bytes}


def _layer(layer: Layer, live_bytes: int) -> dict[str, Any]:
    return {
        "name": layer.name,
        "operator": layer.operator,
        "precision": layer.precision,
        "inputs": [_tensor(tensor) for tensor in layer.inputs],
        "output": _tensor(layer.output),
        "weight": layer.weight,
        "stride": layer.stride,
        "activation": layer.activation,
        "weights": layer.weights,
        "parameters": layer.parameters,
        "macs": layer.macs,
        "live_bytes": live_bytes,
    }


def _pair(pair: Pair) -> dict[str, Any]:
    return {
        "depthwise": pair.depthwise.name,
        "pointwise": pair.pointwise.name,
        "weights": pair.weights,
        "macs": pair.macs,
        "standard_weights": pair.standard_weights,
        "standard_macs": pair.standard_macs,
        "ratio": pair.ratio,
    }


def _network(network: Anatomy) -> dict[str, Any]:
    return {
        "name": network.name,
        "macs": network.macs,
        "parameters": network.parameters,
        "blocks": [_block(block) for block in network.blocks()],
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "input": block.input.shape,
        "output": block.output.shape,
        "macs": block.macs,
        "parameters": block.parameters,
        "layers": [layer.name for layer in block.layers],
    }


def _file(found: FileAnatomy) -> dict[str, Any]:
    return {
        "file": found.file,
        "bytes": found.bytes,
        "macs": found.anatomy.macs,
        "parameters": found.anatomy.parameters,
        "peak_activation_bytes": found.anatomy.peak_bytes(),
        "precisions": found.precisions,
        "layers": [{"name": layer.name, "precision": layer.precision} for layer in found.anatomy.layers],
    }
