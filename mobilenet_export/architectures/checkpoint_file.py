"""Reads weights out of a file, whatever its name says it is, and never runs code that it holds."""

import argparse
import hashlib
import io
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mobilenet_export.errors import DamagedInputError, MissingError, UsageError
from mobilenet_export.graph import Graph

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "ema", "state_dict_ema", "model_ema")
"""Keys under which training scripts put the weights; the first that is there is taken."""

PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
"""What DataParallel, torch.compile and common wrappers put before every key."""

_MOST_WRAPPERS = 8
_MOST_UNPACKED_BYTES = 2**30

SAVE_AGAIN = 'save its tensors alone: safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
COPY_AGAIN = "copy or download it again and compare sizes"

_HARMLESS = re.compile(
    r"torch\.(_utils\._rebuild_|_tensor\._rebuild_)?\w+|collections\.OrderedDict|argparse\.Namespace"
)
"""A Namespace holds a training script's options, which many checkpoints have beside the weights."""
_OTHER_FILES = (
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "run `git lfs pull`"),
    (b"<", "a web page", "download the file itself, not its page"),
)


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        UsageError: There is no such file.
        MissingError: It may not be read.
        DamagedInputError: It is empty.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no such file: {path}", "check the path of the checkpoint") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder, not a checkpoint", "name the file inside it") from None
    except OSError as error:
        raise MissingError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    if not data:
        raise DamagedInputError(f"{path}: empty file", COPY_AGAIN)
    return data


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The weights in a file.

    Attributes:
        name: Of the file.
        tensors: Float32, by the file's own keys, without wrappers and prefixes.
        sha256: Of the file.
        graph: Of an ONNX file, the whole network.
        choice: Whose weights were taken, where the file has several, in words.
    """

    name: str
    tensors: Mapping[str, Tensor]
    sha256: str
    graph: Graph | None = None
    choice: str = ""


def load_checkpoint(path: Path, resolution_px: int | None = None) -> Checkpoint:
    """Read the weights in a file of any kind of `KINDS`, or in an ONNX file.

    The kind is told by the content. Only files of protobuf messages, which no content gives away, are told by name.

    Args:
        path: Of the file.
        resolution_px: Of an ONNX file that leaves it open.

    Raises:
        UsageError: There is no such file.
        MissingError: It may not be read, or what reads such files is not installed.
        DamagedInputError: It is empty, truncated, no checkpoint, wants to run code, or holds NaN or infinity.
    """
    data = read_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    if path.suffix.lower() != ".onnx":
        loaded = _load(data, path.name)
        return Checkpoint(path.name, _tensors(loaded, path.name), sha256, choice=_choice(loaded))
    from mobilenet_export.architectures.onnx_weights import weights_of  # noqa: PLC0415 (imports onnx)
    from mobilenet_export.capture import capture_onnx  # noqa: PLC0415

    graph = capture_onnx(path, resolution_px)
    return Checkpoint(path.name, weights_of(graph), sha256, graph)


def tensors_from_bytes(data: bytes, name: str) -> dict[str, Tensor]:
    """Return the float32 tensors of a checkpoint's bytes by key; `name` is for the messages.

    Raises:
        MissingError, DamagedInputError: As in `load_checkpoint`.
    """
    return _tensors(_load(data, name), name)


def is_counter(key: str) -> bool:
    """Whether a key is the batch counter of a BatchNorm or of averaged weights: it means nothing after training."""
    return key.endswith(("num_batches_tracked", "n_averaged"))


def _load(data: bytes, name: str) -> Any:
    """Whatever the file holds, weights among it."""
    kind = next((kind for kind in KINDS if kind.holds(data, name)), None)
    if kind is None:
        raise _not_a_checkpoint(data, name)
    return kind.read(data, name)


def _tensors(loaded: Any, name: str) -> dict[str, Tensor]:
    tensors = _strip_prefixes(_unwrap(loaded, name))
    return {key: _float32(tensor, key, name) for key, tensor in tensors.items()}


def _choice(loaded: Any) -> str:
    """Say which weights of several are taken; those of a moving average may be meant instead."""
    found = [key for key in WRAPPERS if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping)]
    return f"the weights under {found[0]}, not {' or '.join(found[1:])}" if len(found) > 1 else ""


def _read_safetensors(data: bytes, name: str) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise DamagedInputError(
            f"{name}: truncated or damaged safetensors file: {error}", COPY_AGAIN
        ) from None


def _read_torch(data: bytes, name: str) -> Any:
    if data.startswith(b"PK"):
        _refuse_bomb(data, name)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its parsers stumble on
        if "TorchScript" in str(error):
            raise DamagedInputError(f"{name}: a TorchScript program, not a state_dict", SAVE_AGAIN) from None
        wanted = list(dict.fromkeys(_code_wanted(data)))
        if wanted:
            message = f"{name}: refused, because loading it would run code: {', '.join(wanted[:5])}"
            raise DamagedInputError(message, SAVE_AGAIN) from None
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise DamagedInputError(
            f"{name}: truncated or damaged torch checkpoint: {reason}", COPY_AGAIN
        ) from None


def _refuse_bomb(data: bytes, name: str) -> None:
    """Refuse a zip that unpacks to far more than its size; torch.save does not compress."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            total = sum(info.file_size for info in archive.infolist())
    except Exception:  # zipfile raises errors of any type for damaged files; torch says what it makes of them
        return
    if total > max(_MOST_UNPACKED_BYTES, 20 * len(data)):
        raise DamagedInputError(f"{name}: {len(data):,} bytes that unpack to {total:,}", SAVE_AGAIN)


def _not_a_checkpoint(data: bytes, name: str) -> DamagedInputError:
    for start, what, hint in _OTHER_FILES:
        if data.startswith(start):
            return DamagedInputError(f"{name}: {what}", hint)
    *others, last = (kind.name for kind in KINDS)
    return DamagedInputError(
        f"{name}: no {', '.join(others)} or {last}",
        "give a .safetensors file or a state_dict saved by torch.save",
    )


def _is_safetensors(data: bytes, _name: str) -> bool:
    return data[8:9] == b"{" and data[:2] not in (b"PK", b"\x80\x02")


def _is_torch(data: bytes, _name: str) -> bool:
    return data.startswith((b"PK\x03\x04", b"\x80"))


def _is_h5(data: bytes, _name: str) -> bool:
    return data.startswith(b"\x89HDF")


def _is_keras(data: bytes, _name: str) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "model.weights.h5" in archive.namelist()
    except Exception:  # zipfile raises errors of any type for damaged files
        return False


def _is_frozen_graph(_data: bytes, name: str) -> bool:
    return name.lower().endswith(".pb")


def _read_h5(data: bytes, name: str) -> dict[str, Tensor]:
    from mobilenet_export.architectures.keras_file import read_h5  # noqa: PLC0415 (imports h5py, an extra)

    return read_h5(data, name)


def _read_keras(data: bytes, name: str) -> dict[str, Tensor]:
    from mobilenet_export.architectures.keras_file import read_archive  # noqa: PLC0415 (imports h5py, an extra)

    return read_archive(data, name)


def _read_frozen_graph(data: bytes, name: str) -> dict[str, Tensor]:
    from mobilenet_export.architectures.frozen_graph import read_frozen_graph  # noqa: PLC0415 (imports protobuf)

    return read_frozen_graph(data, name)


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file that holds weights: how to tell it by content and name, and what reads it."""

    name: str
    holds: Callable[[bytes, str], bool]
    read: Callable[[bytes, str], Any]


KINDS = (
    FileKind("frozen TensorFlow graph", _is_frozen_graph, _read_frozen_graph),
    FileKind("safetensors file", _is_safetensors, _read_safetensors),
    FileKind("Keras archive", _is_keras, _read_keras),
    FileKind("torch checkpoint", _is_torch, _read_torch),
    FileKind("Keras HDF5 file", _is_h5, _read_h5),
)
"""Of a file, the first that fits is taken."""


def _code_wanted(data: bytes) -> Iterator[str]:
    """Yield the functions and classes that unpickling would import, found without unpickling."""
    texts: list[str] = []
    for operation, argument in _pickle_operations(data):
        wanted = ""
        if operation == "GLOBAL":
            wanted = str(argument).replace(" ", ".")
        elif operation == "STACK_GLOBAL":
            wanted = ".".join(texts[-2:])
        elif isinstance(argument, str):
            texts.append(argument)
        if wanted and not _HARMLESS.fullmatch(wanted):
            yield wanted


def _pickle_operations(data: bytes) -> Iterator[tuple[str, Any]]:
    for stream in _pickle_streams(data):
        try:
            while True:  # a legacy checkpoint is several pickles, then raw numbers
                for operation, argument, _ in pickletools.genops(stream):
                    yield operation.name, argument
        except Exception:  # a damaged pickle may end in errors of any type
            continue


def _pickle_streams(data: bytes) -> Iterator[io.BytesIO]:
    if not data.startswith(b"PK"):
        yield io.BytesIO(data)
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.namelist():
                if entry.endswith(".pkl"):
                    yield io.BytesIO(archive.read(entry))
    except Exception:  # zipfile raises errors of any type for damaged files
        return


def _unwrap(loaded: Any, name: str) -> dict[str, Tensor]:
    for _ in range(_MOST_WRAPPERS):  # a dict may hold itself
        if not isinstance(loaded, Mapping):
            break
        wrapper = next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if wrapper is None:
            break
        loaded = loaded[wrapper]
    if isinstance(loaded, Mapping) and not loaded:
        raise DamagedInputError(f"{name}: holds no tensors", SAVE_AGAIN)
    if not isinstance(loaded, Mapping):
        raise DamagedInputError(
            f"{name}: holds a {type(loaded).__name__}, not a state_dict with tensors", SAVE_AGAIN
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            what = f"its entry {key!r} is a {type(value).__name__}, not a tensor"
            raise DamagedInputError(f"{name}: not a state_dict: {what}", SAVE_AGAIN)
    return dict(loaded)


def _strip_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    tensors = {key: tensor for key, tensor in tensors.items() if not is_counter(key)}
    while True:
        common = next((prefix for prefix in PREFIXES if all(key.startswith(prefix) for key in tensors)), None)
        if common is None:
            return tensors
        tensors = {key.removeprefix(common): tensor for key, tensor in tensors.items()}


def _float32(tensor: Tensor, key: str, name: str) -> Tensor:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise DamagedInputError(f"{name}: {key} is no plain tensor", SAVE_AGAIN)
    if (
        tensor.nbytes > tensor.untyped_storage().nbytes()
    ):  # repeats its numbers: a few bytes could stand for any size
        raise DamagedInputError(f"{name}: {key} is larger than what is stored of it", SAVE_AGAIN)
    if not tensor.is_floating_point():
        what = f"{key} is {str(tensor.dtype).removeprefix('torch.')}, not floating point"
        raise DamagedInputError(f"{name}: {what}", "give the float checkpoint from before any quantization")
    tensor = tensor.detach().to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        values = "1 value that is" if count == 1 else f"{count} values that are"
        message = f"{name}: {key} holds {values} NaN or infinite"
        raise DamagedInputError(message, "take an earlier checkpoint: this training has diverged")
    if key.endswith("running_var") and bool((tensor < 0).any()):
        raise DamagedInputError(f"{name}: {key} holds a negative variance", COPY_AGAIN)
    return tensor
