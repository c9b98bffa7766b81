"""`inspect`: a variant, a bundle or a model file layer by layer; nothing is run."""

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mobilenet_export import anatomy as rules
from mobilenet_export.anatomy import Anatomy, Block, Layer, Pair, Tensor
from mobilenet_export.architectures import ARCHITECTURES
from mobilenet_export.architectures.dissect import dissect
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import read_bundle
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.formats import format_of
from mobilenet_export.pipeline.reference import read_file
from mobilenet_export.plugins import load_plugin
from mobilenet_export.readers import ReadAnatomy
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec, spec_from_table

_FILES = (".onnx", ".ort", ".tflite")
_NETWORKS = ("v1", "v2")
FP32_BYTES, INT8_BYTES = 4, 1
"""Of an activation."""


@dataclass(frozen=True, slots=True)
class InspectRequest:
    """What to look into.

    Attributes:
        target: Name or TOML of a variant, folder of a bundle, or a model file.
        width: Of a variant.
        resolution_px: Of a variant, or of a file that leaves it open.
        classes: Of a variant.
    """

    target: str
    width: float | None = None
    resolution_px: int | None = None
    classes: int | None = None


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


def inspect(request: InspectRequest) -> Inspection:
    """Look into a variant, a bundle or a model file; a folder comes before a variant of the same name.

    Raises:
        UsageError: No such target, or options that do not go with it.
        DamagedInputError: A file cannot be read for what it claims to be, or a bundle lacks one.
    """
    path = Path(request.target)
    if path.suffix != ".toml" and path.exists():
        _refuse_sizes(request)
        return _inspect_bundle(path, request) if path.is_dir() else _inspect_file(path, request)
    if path.suffix.lower() in _FILES or (len(path.parts) > 1 and path.suffix != ".toml"):
        raise UsageError(f"no such file or folder: {path}", "give a variant, a bundle, or a model file")
    spec = resize_spec(find_spec(request.target), request.width, request.resolution_px, request.classes)
    found = dissect(spec)
    return Inspection("variant", found, networks=_networks(spec, found))


def _refuse_sizes(request: InspectRequest) -> None:
    for option, value in (("--width", request.width), ("--classes", request.classes)):
        if value is not None:
            raise UsageError(f"{option} does not go with {request.target}, which has its own", "leave it out")


def _networks(spec: ModelSpec, found: Anatomy) -> tuple[Anatomy, ...]:
    """V1 and V2 side by side; the one that is looked into as it is, the other as published, of the same size."""
    others = {
        name: resize_spec(find_spec(name), spec.width, spec.resolution_px, spec.classes) for name in _NETWORKS
    }
    return tuple(
        found if spec.architecture.startswith(other.architecture) else dissect(other)
        for other in others.values()
    )


def _inspect_bundle(folder: Path, request: InspectRequest) -> Inspection:
    bundle = read_bundle(folder)
    files = tuple(_read(artifact, request.resolution_px) for artifact in bundle.artifacts())
    if not files:
        raise DamagedInputError(f"{folder}: it lists no model files", "export the bundle again")
    try:
        spec = spec_from_table(dict(bundle.document["model"]))
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise DamagedInputError(f"{folder}: its model cannot be read: {error}", "export it again") from None
    networks = _networks(spec, files[0].anatomy) if spec.architecture in ARCHITECTURES else ()
    return Inspection("bundle", files[0].anatomy, files, networks)


def _inspect_file(path: Path, request: InspectRequest) -> Inspection:
    artifact = Artifact(path.name, format_of(path).name, "fp32", read_file(path))
    found = _read(artifact, request.resolution_px)
    return Inspection("file", found.anatomy, (found,))


def _read(artifact: Artifact, resolution_px: int | None) -> FileAnatomy:
    read: ReadAnatomy = load_plugin("readers", artifact.format)
    try:
        found = read(artifact.data, artifact.file, resolution_px)
    except ValueError as error:
        raise DamagedInputError(f"{artifact.file}: {error}", "export the file again") from None
    if resolution_px is not None and resolution_px not in found.input.shape:
        size = "×".join(map(str, found.input.shape))
        raise UsageError(
            f"{artifact.file}: the file is fixed at {size}, not {resolution_px} px", "leave --resolution out"
        )
    return FileAnatomy(artifact.file, len(artifact.data), found)


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
