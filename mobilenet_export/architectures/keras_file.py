"""Reads the weights of a Keras model: .keras, .weights.h5, and .h5 of Keras 2 and 3, with h5py alone.

Only datasets are read. No configuration is: Keras builds layers from it, and some of them run code.
"""

import io
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from mobilenet_export.architectures.layouts import LINEAR
from mobilenet_export.errors import DamagedInputError, MnxError

MOST_BYTES = 512 * 2**20
"""Of the weights in a file, unpacked; MobileNetV2 at its largest width takes 28 MB."""

_WEIGHTS = "model.weights.h5"
_HEADS = ("conv_preds", "predictions", "Logits")
_PARTS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_ORDERS = {1: ("kernel",), 2: ("kernel", "bias"), 4: ("gamma", "beta", "moving_mean", "moving_variance")}
"""How many variables a layer has → their order where they are numbered. Source: keras 3.15, the layers' `build`."""

SAVE_AGAIN = "save the model again: model.save('model.keras')"
COPY_AGAIN = "copy or download it again and compare sizes"


def read_archive(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a .keras file; see `read_h5`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if archive.getinfo(_WEIGHTS).file_size > MOST_BYTES:  # more than it says is never unpacked
                raise _too_large(name)
            weights = archive.read(_WEIGHTS)
    except DamagedInputError:
        raise
    except Exception as error:  # zipfile raises errors of any type for damaged files
        raise DamagedInputError(f"{name}: truncated or damaged Keras archive: {error}", COPY_AGAIN) from None
    return read_h5(weights, name)


def read_h5(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the tensors of a Keras HDF5 file as `layer.part`, in torch's order of axes and names of parts.

    The one linear layer is called `LINEAR`, whatever its name, so that a head of one's own is found.

    Raises:
        DamagedInputError: Truncated, too large, or not what Keras writes.
    """
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            layers = _layers(file, name)
            return dict(_tensors(layers, name))
    except MnxError:
        raise
    except Exception as error:  # h5py raises a dozen unrelated types on damage
        reason = str(error).partition("\n")[0]
        raise DamagedInputError(f"{name}: truncated or damaged HDF5 file: {reason}", COPY_AGAIN) from None


def _layers(file: Any, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return layer → variable → values. `visititems` follows no links out of the file."""
    datasets: list[Any] = []
    file.visititems(lambda _path, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
    chosen = [dataset for dataset in datasets if _is_weight(dataset, name)]
    if sum(dataset.size * dataset.dtype.itemsize for dataset in chosen) > MOST_BYTES:
        raise _too_large(name)
    layers: defaultdict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for dataset in chosen:
        path = dataset.name.split("/")
        numbered = path[-2] == "vars"
        layer = dataset.parent.attrs.get("name", path[-3]) if numbered else path[-2]
        layers[str(layer)][path[-1].removesuffix(":0")] = dataset[()]
    return layers


def _is_weight(dataset: Any, name: str) -> bool:
    if dataset.is_virtual or dataset.external:
        raise DamagedInputError(f"{name}: {dataset.name} lies in another file", SAVE_AGAIN)
    path = dataset.name.split("/")
    return len(path) > 2 and dataset.dtype.kind == "f" and not path[1].startswith(("optimizer", "top_level"))


def _tensors(layers: dict[str, dict[str, np.ndarray]], name: str) -> Iterator[tuple[str, Tensor]]:
    heads = [layer for layer, values in layers.items() if _is_head(layer, values)]
    if len(heads) > 1:
        raise DamagedInputError(
            f"{name}: {len(heads)} linear layers: {', '.join(heads)}", "a MobileNet ends in one linear layer"
        )
    for layer, values in layers.items():
        order = _ORDERS.get(len(values), ())
        for part, value in values.items():
            if part.isdigit():
                part = order[int(part)] if int(part) < len(order) else part  # noqa: PLW2901
            key = LINEAR if layer in heads else layer
            yield f"{key}.{_PARTS.get(part, part)}", in_torch_order(value)


def _is_head(layer: str, values: dict[str, np.ndarray]) -> bool:
    return layer in _HEADS or any(value.ndim == 2 for value in values.values())


def in_torch_order(value: np.ndarray) -> Tensor:
    """Return TensorFlow's (kh, kw, in, out) as (out, in, kh, kw), depthwise (kh, kw, C, 1) as (C, 1, kh, kw).

    (in, out) becomes (out, in); vectors stay.
    """
    if value.ndim == 4:
        depthwise = value.shape[3] == 1
        value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    elif value.ndim == 2:
        value = value.T
    return torch.from_numpy(np.array(value, order="C"))


def _too_large(name: str) -> DamagedInputError:
    return DamagedInputError(f"{name}: its weights are larger than {MOST_BYTES // 2**20} MB", SAVE_AGAIN)
