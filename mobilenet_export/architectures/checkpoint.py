"""A variant with its weights: embedded, from a checkpoint, or seeded random ones."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from mobilenet_export.architectures import build
from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.architectures.checkpoint_file import is_counter, read_file, tensors_from_bytes
from mobilenet_export.architectures.initialize import SEED, initialize
from mobilenet_export.architectures.layouts import OWN, Layout, adapt_spec, check_fit, key_map, recognise
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name
from mobilenet_export.shipped import shipped_path
from mobilenet_export.spec import OTHER_LIMITS, ModelSpec, WeightsSpec, read_spec, spec_paths

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
    """

    spec: ModelSpec
    module: Classifier
    origin: str
    sha256: str


def build_with_weights(
    spec: ModelSpec, checkpoint: Path | None = None, weights: str | None = None
) -> LoadedModel:
    """Return the variant's network with weights: a checkpoint's, the named or by default the embedded ones.

    Args:
        spec: The variant.
        checkpoint: A safetensors or torch file.
        weights: Name of the embedded weights, or `none` for seeded random ones.

    Raises:
        UsageError: No embedded weights fit, the name is unknown, or the checkpoint is another variant's.
        MissingError: The checkpoint may not be read.
        DamagedInputError: The checkpoint, or an embedded file, is damaged.
    """
    if checkpoint is not None and weights is not None:
        raise UsageError("--checkpoint and --weights exclude each other", "leave one of them out")
    if checkpoint is not None:
        return _from_checkpoint(spec, checkpoint)
    if weights == NO_WEIGHTS:
        return _random(spec)
    known = [NO_WEIGHTS, *(found.weights.name for found in _specs_with_weights() if found.weights)]
    if spec.weights and spec.weights.name not in known:
        known.append(spec.weights.name)
    if weights is not None and weights not in known:
        raise unknown_name("weights", weights, known)
    return _embedded(spec, weights)


def load_embedded(spec: ModelSpec) -> dict[str, Tensor]:
    """Return the weights that ship with the variant, by our keys.

    Raises:
        UsageError: None ship with it.
        DamagedInputError: The file is not the one that was shipped.
    """
    weights = _weights_of(spec, None)
    data = read_file(shipped_path("models", "weights", weights.file))
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        message = f"{weights.file} is not the file that was shipped: its sha256 differs"
        raise DamagedInputError(message, "reinstall mobilenet-export, or restore models/weights from git")
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


def _from_checkpoint(spec: ModelSpec, path: Path) -> LoadedModel:
    data = read_file(path)
    tensors = tensors_from_bytes(data, path.name)
    layout = recognise(tensors, spec)
    adapted = _without_published(adapt_spec(spec, layout))
    module = build(adapted)
    load_into(module, tensors, layout)
    return LoadedModel(adapted, module, f"{path.name} ({layout.name} keys)", hashlib.sha256(data).hexdigest())


def _embedded(spec: ModelSpec, name: str | None) -> LoadedModel:
    weights = _weights_of(spec, name)
    module = build(spec)
    load_into(module, load_embedded(spec), OWN)
    return LoadedModel(spec, module, f"embedded {weights.name} ({weights.licence})", weights.sha256)


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
