"""A variant with its weights: embedded, from a checkpoint, or seeded random ones."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from mobilenet_export.architectures import build
from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.architectures.checkpoint_file import (
    Checkpoint,
    is_counter,
    load_checkpoint,
    read_file,
    tensors_from_bytes,
)
from mobilenet_export.architectures.initialize import SEED, initialize
from mobilenet_export.architectures.layouts import (
    BACKGROUND_CLASSES,
    OWN,
    Layout,
    adapt_size,
    adapt_spec,
    check_fit,
    find_variant,
    key_map,
    linear_key,
    recognise,
    shipped_variant,
)
from mobilenet_export.architectures.onnx_weights import check_same_network, padding_of
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.graph import Graph, Softmax
from mobilenet_export.spec import OTHER_LIMITS, Given, ModelSpec, WeightsSpec, read_spec, spec_paths

NO_WEIGHTS = "none"
"""The name of no weights: seeded random ones."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A network with its weights.

    Attributes:
        spec: The variant, with the padding and BatchNorm eps of the weights' layout. Its `weights` are `None`
            unless they are the embedded ones.
        module: In eval mode, (N, 3, H, W) → (N, classes).
        origin: Where the weights are from, to print.
        sha256: Of the weights' file; of the tensors as safetensors where there is none.
        overrides: What differs from what networks of the checkpoint's layout are trained with, by field.
    """

    spec: ModelSpec
    module: Classifier
    origin: str
    sha256: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A checkpoint, and the variant that it was found to be.

    Attributes:
        spec: At the checkpoint's width, number of classes, padding, eps and normalization.
        checkpoint: With the tensors that the variant has.
        layout: Of its keys.
        background: Whether the first of its classes was dropped, because it is none of ImageNet's.
    """

    spec: ModelSpec
    checkpoint: Checkpoint
    layout: Layout
    background: bool

    @property
    def title(self) -> str:
        """Whose network it is."""
        percent = f"{round(self.spec.width * 100):03d}"
        return self.layout.title.format(percent=percent, architecture=self.spec.architecture)

    @property
    def description(self) -> str:
        """One line: whose network it is, its size, and what it is trained with."""
        spec = self.spec
        choice = f", {self.checkpoint.choice}" if self.checkpoint.choice else ""
        dropped = ", class 0 of 1001 (background) dropped" if self.background else ""
        return (
            f"{self.title}, width {spec.width:g}, {spec.classes} classes{dropped}, padding {spec.padding}, "
            f"eps {spec.batch_norm_eps:g}, mean {_numbers(spec.preprocess.mean)}, "
            f"std {_numbers(spec.preprocess.std)}{choice}"
        )

    @property
    def overrides(self) -> dict[str, Any]:
        """What differs from what networks of the layout are trained with, by the variant's field."""
        usual = adapt_spec(shipped_variant(self.spec.architecture), self.layout)
        chosen = {"padding": self.spec.padding, "batch_norm_eps": self.spec.batch_norm_eps}
        return {name: value for name, value in chosen.items() if value != getattr(usual, name)}


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def build_with_weights(
    spec: ModelSpec,
    checkpoint: Path | None = None,
    weights: str | None = None,
    given: Given | None = None,
) -> LoadedModel:
    """Return the variant's network with weights: a checkpoint's, the named or by default the variant's own.

    Args:
        spec: The variant.
        checkpoint: A file of any kind that `load_checkpoint` reads.
        weights: Name of the variant's weights, or `none` for seeded random ones.
        given: What the checkpoint may not change of the variant; by default its width and number of classes.

    Raises:
        UsageError: No embedded weights fit, the name is unknown, or the checkpoint is another variant's.
        MissingError: The checkpoint may not be read.
        DamagedInputError: The checkpoint, or an embedded file, is damaged.
    """
    if checkpoint is not None and weights is not None:
        raise UsageError("--checkpoint and --weights exclude each other", "leave one of them out")
    if checkpoint is not None:
        pinned = given or Given(width=spec.width, classes=spec.classes)
        return load_fitted(fit(load_checkpoint(checkpoint, spec.resolution_px), spec, pinned))
    if weights == NO_WEIGHTS:
        return _random(spec)
    known = [NO_WEIGHTS, *(found.weights.name for found in _specs_with_weights() if found.weights)]
    if spec.weights and spec.weights.name not in known:
        known.append(spec.weights.name)
    if weights is not None and weights not in known:
        raise unknown_name("weights", weights, known)
    return _embedded(spec, weights)


def load_embedded(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the weights that the variant comes with, by our keys.

    Raises:
        UsageError: It comes with none.
        DamagedInputError: The file is not the one that the variant names.
    """
    weights = _weights_of(spec, None)
    data = read_file(weights.path)
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        message = f"{weights.file} is not the file that {spec.name} names: its sha256 differs"
        restore = "reinstall mobilenet-export, or restore models/weights from git"
        raise DamagedInputError(message, "import the checkpoint again" if weights.home else restore)
    return tensors_from_bytes(data, weights.file)


def load_into(module: Classifier, state_dict: Mapping[str, Tensor], layout: Layout) -> None:
    """Copy a checkpoint's tensors into a network; every key and every shape has to fit.

    Raises:
        UsageError: The checkpoint has another number of classes.
        DamagedInputError: Keys are missing, unexpected or of another shape.
    """
    tensors = {key: tensor for key, tensor in state_dict.items() if not is_counter(key)}
    check_fit(module, {key: tuple(tensor.shape) for key, tensor in tensors.items()}, layout)
    own = module.state_dict()
    with torch.no_grad():
        for theirs, ours in key_map(module, layout).items():
            own[ours].copy_(tensors[theirs])


def fit(checkpoint: Checkpoint, spec: ModelSpec | None, given: Given) -> Fitted:
    """Find out which variant a checkpoint is.

    Args:
        checkpoint: As read.
        spec: The variant that it is said to be, at any size; None takes the shipped one of its architecture.
        given: What the user says of it.

    Raises:
        UsageError: It is another architecture, width or number of classes than was said.
        DamagedInputError: It is no MobileNet.
    """
    spec = spec or find_variant(checkpoint.tensors)
    layout = recognise(checkpoint.tensors, spec)
    if checkpoint.graph is not None:
        spec, layout, given = _as_in_graph(checkpoint.graph, spec, layout, given)
    tensors, background = _drop_background(checkpoint.tensors, linear_key(spec, layout), layout, given)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    sized = _without_published(adapt_size(spec, shapes, layout, given))
    published = spec.weights if spec.weights and spec.weights.sha256 == checkpoint.sha256 else None
    adapted = dataclasses.replace(adapt_spec(sized, layout, given), weights=published)
    return Fitted(adapted, dataclasses.replace(checkpoint, tensors=tensors), layout, background)


def _as_in_graph(
    graph: Graph, spec: ModelSpec, layout: Layout, given: Given
) -> tuple[ModelSpec, Layout, Given]:
    """Take padding, resolution and a softmax at the end from an ONNX file, which says them."""
    spec = dataclasses.replace(spec, softmax=isinstance(graph.nodes[-1], Softmax))
    layout = dataclasses.replace(layout, padding=padding_of(graph))
    return spec, layout, dataclasses.replace(given, resolution_px=graph.input_shape[1])


def _drop_background(
    tensors: Mapping[str, Tensor], linear: str, layout: Layout, given: Given
) -> tuple[Mapping[str, Tensor], bool]:
    """Return the tensors with a flat linear layer, and without the class that is none, unless it is asked for."""
    weight, bias = linear, linear.replace(".weight", ".bias")
    head = {key: tensors[key] for key in (weight, bias) if key in tensors}
    if weight in head and head[weight].shape[2:] == (1, 1):
        head[weight] = head[weight][:, :, 0, 0]
    counts = {len(tensor) for tensor in head.values() if tensor.ndim}
    drop = layout.background and counts == {BACKGROUND_CLASSES} and given.classes != BACKGROUND_CLASSES
    return {**tensors, **{key: tensor[1:] if drop else tensor for key, tensor in head.items()}}, drop


def load_fitted(fitted: Fitted) -> LoadedModel:
    """Return the variant's network with the checkpoint's weights.

    Raises:
        DamagedInputError: A tensor is missing, unexpected or of another shape; an ONNX file is another network.
    """
    checkpoint = fitted.checkpoint
    module = build(fitted.spec)
    load_into(module, checkpoint.tensors, fitted.layout)
    if checkpoint.graph is not None:
        check_same_network(checkpoint.graph, module)
    origin = f"{checkpoint.name} ({fitted.layout.name} keys)"
    return LoadedModel(fitted.spec, module, origin, checkpoint.sha256, fitted.overrides)


def spell(module: Classifier) -> bytes:
    """Return a network's weights in our own form: safetensors by our keys."""
    state = module.state_dict()
    return safetensors.torch.save({key: tensor for key, tensor in state.items() if not is_counter(key)})


def _embedded(spec: ModelSpec, name: str | None) -> LoadedModel:
    weights = _weights_of(spec, name)
    module = build(spec)
    load_into(module, load_embedded(spec), OWN)
    origin = weights.file if weights.home else f"embedded {weights.name} ({weights.licence})"
    return LoadedModel(spec, module, origin, weights.sha256)


def _random(spec: ModelSpec) -> LoadedModel:
    spec = _without_published(spec)
    module = build(spec)
    initialize(module, SEED)
    data = safetensors.torch.save(module.state_dict())
    return LoadedModel(spec, module, f"random weights, seed {SEED}", hashlib.sha256(data).hexdigest())


def _without_published(spec: ModelSpec) -> ModelSpec:
    return dataclasses.replace(spec, weights=None, limits=OTHER_LIMITS)


def _specs_with_weights() -> list[ModelSpec]:
    return [spec for spec in map(read_spec, spec_paths()) if spec.weights]


def _weights_of(spec: ModelSpec, name: str | None) -> WeightsSpec:
    if spec.weights and name in (None, spec.weights.name):
        return spec.weights
    shipped = _specs_with_weights()
    names = ", ".join(found.name for found in shipped)
    what = f"no embedded weights for {_difference(spec, shipped)}"
    if spec.weights:
        what = f"the weights {name} are not {spec.name}'s, which are {spec.weights.name}"
    raise UsageError(f"{what}; {names} have them", "--weights none for random weights, or --checkpoint FILE")


def _difference(spec: ModelSpec, shipped: list[ModelSpec]) -> str:
    same = [found for found in shipped if found.architecture == spec.architecture]
    if not same:
        return spec.architecture
    if spec.width not in {found.width for found in same}:
        return f"width {spec.width:g}"
    return f"{spec.classes} classes"
