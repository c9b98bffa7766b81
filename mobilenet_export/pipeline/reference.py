"""The original network: opened to run, read as a graph, and named class by class."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_export.artifact import Artifact
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.graph import Graph, Softmax
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.runtimes import Session, runtime
from mobilenet_export.spec import Given, ModelSpec

if TYPE_CHECKING:
    from mobilenet_export.architectures.checkpoint import Fitted


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a network comes from.

    Attributes:
        spec: The variant.
        onnx: The user's own ONNX file, whose size and classes replace the spec's; else the network is built.
        resolution_px: Of an ONNX file that leaves it open.
        checkpoint: The user's own weights; else `weights`.
        weights: Name of embedded weights, `none` for random ones, None for the spec's own.
        given: What the checkpoint may not change of the spec; by default its width and number of classes.
    """

    spec: ModelSpec
    onnx: Path | None = None
    resolution_px: int | None = None
    checkpoint: Path | None = None
    weights: str | None = None
    given: Given | None = None

    @property
    def kind(self) -> str:
        """Of what the user has to bring to open the network again: his own file, or nothing."""
        if self.onnx is not None:
            return "onnx"
        if self.weights == "none":
            return "random"
        own = self.checkpoint or (self.spec.weights and self.spec.weights.home)
        return "checkpoint" if own else "embedded"


@dataclass(frozen=True, slots=True)
class Reference:
    """The original network, loaded."""

    spec: ModelSpec
    session: Session
    module: Any
    provenance: Mapping[str, Any]


def open_checkpoint(path: Path, spec: ModelSpec | None, given: Given) -> "Fitted":
    """Find out which variant a checkpoint is.

    Args:
        path: Of the file.
        spec: The variant that it is said to be, at any size; None finds it.
        given: What the user says of it.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    from mobilenet_export.architectures.checkpoint import fit  # noqa: PLC0415 (imports torch)
    from mobilenet_export.architectures.checkpoint_file import load_checkpoint  # noqa: PLC0415

    checkpoint = load_checkpoint(path, given.resolution_px)
    if checkpoint.graph is not None and spec is None and not (given.mean and given.std):
        raise unknown_preprocessing(path)
    return fit(checkpoint, spec, given)


def unknown_preprocessing(path: Path) -> UsageError:
    """Return the error for an ONNX file of a network that takes who knows what."""
    return UsageError(
        f"{path}: an .onnx file does not say how images are preprocessed",
        "give --mean R,G,B and --std R,G,B, or a variant that shares it: --arch v2 or a path.toml",
    )


def open_reference(origin: Origin) -> Reference:
    """Load the original: the user's ONNX file in ONNX Runtime, or the network with its weights in torch."""
    if origin.onnx is not None:
        data = read_file(origin.onnx)
        artifact = Artifact(origin.onnx.name, "onnx", "fp32", data)
        provenance = {"kind": origin.kind, "origin": origin.onnx.name, "sha256": artifact.sha256}
        return Reference(origin.spec, runtime("onnxruntime").open(artifact), None, provenance)
    from mobilenet_export.architectures.checkpoint import build_with_weights  # noqa: PLC0415 (imports torch)
    from mobilenet_export.runtimes.torch import TorchSession  # noqa: PLC0415

    model = build_with_weights(origin.spec, origin.checkpoint, origin.weights, origin.given)
    facts = {"kind": origin.kind, "origin": model.origin, "sha256": model.sha256}
    overrides = {"overrides": dict(model.overrides)} if model.overrides else {}
    return Reference(model.spec, TorchSession(model.module), model.module, facts | overrides)


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that the user named; of an .onnx file with all its weights.

    Raises:
        UsageError: It cannot be read.
        DamagedInputError: Weights that lie in another file cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give the path of a file that you may read") from None
    if path.suffix.lower() != ".onnx":
        return data
    from mobilenet_export.formats.onnx import put_weights_inside  # noqa: PLC0415 (imports onnx)

    try:
        return put_weights_inside(data, path.parent)
    except ValueError as error:
        raise DamagedInputError(f"{path}: {error}", "copy that file too, into the same folder") from None


@dataclass(frozen=True, slots=True)
class Source:
    """The network to export and the session that says what is true of it.

    Attributes:
        spec: With the padding and BatchNorm eps that the weights were trained with.
        graph: Fused float graph.
        reference: Runs the original.
        provenance: Kind, origin and hash of the weights, for the bundle.
    """

    spec: ModelSpec
    graph: Graph
    reference: Session
    provenance: Mapping[str, Any]

    @property
    def pixel_graph(self) -> Graph:
        """The graph that int8 is made of: it takes pixels.

        Raises:
            UsageError: Its first layer cannot take the normalization in.
        """
        how = self.spec.preprocess
        return fold_normalization(self.graph, how.mean, how.std)


def capture(origin: Origin, reference: Reference) -> Source:
    """Read the graph off the original."""
    from mobilenet_export.capture import capture_module, capture_onnx  # noqa: PLC0415 (imports onnx)

    spec = reference.spec
    if origin.onnx is None:
        graph = capture_module(reference.module, spec.name, spec.input_shape)
    else:
        graph = capture_onnx(origin.onnx, origin.resolution_px)
        spec = adopt(spec, graph)
    return Source(spec, graph, reference.session, reference.provenance)


def adopt(spec: ModelSpec, graph: Graph) -> ModelSpec:
    """Return the spec with the size, the classes and the output of a user's own graph.

    Raises:
        UsageError: The image is not square.
    """
    _, height, width = graph.input_shape
    if height != width:
        raise UsageError(
            f"{graph.name}: images of {height}×{width} px; square ones are supported", "export it square"
        )
    (classes,) = graph.shapes[graph.output]
    crop = spec.preprocess
    return dataclasses.replace(
        spec,
        name=graph.name,
        resolution_px=height,
        classes=classes,
        labels=spec.labels if classes == spec.classes else None,
        softmax=isinstance(graph.nodes[-1], Softmax),
        preprocess=dataclasses.replace(
            crop, resize_px=round(height * crop.resize_px / crop.crop_px), crop_px=height
        ),
    )


def class_names(spec: ModelSpec, labels: Path | None) -> tuple[str, ...]:
    """Return the class names, in the order of the outputs; `class 0`, `class 1`, … where none are known.

    Raises:
        UsageError: There is no such file, or it names another number of classes.
        DamagedInputError: The file is not UTF-8 text.
    """
    path = labels or spec.labels_path
    if path is None:
        return tuple(f"class {index}" for index in range(spec.classes))
    try:
        names = tuple(path.read_text(encoding="utf-8").rstrip().splitlines())
    except UnicodeDecodeError:
        raise DamagedInputError(
            f"{path}: not UTF-8 text", "give a text file with one class name a line"
        ) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "give a text file with one class name a line") from None
    if len(names) != spec.classes:
        raise UsageError(
            f"{path}: {len(names)} class names, but the network has {spec.classes} classes",
            "give one name a line, in the order of the outputs, without a background class",
        )
    return names
