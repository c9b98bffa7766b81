"""Integers of earlier exports, kept for the next one with the same inputs.

An entry is one safetensors file named by two hashes: of all that the quantizer looks at (network, pixels, recipe),
and of what computes (this package's source, the libraries, the CPU's architecture). Nothing that an entry says is
believed unchecked, and no trouble with the folder ever fails an export: what cannot be used is made anew.
"""

import dataclasses
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

import mobilenet_export
from mobilenet_export.documents import parse_json
from mobilenet_export.graph import Graph
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline.evidence import hash_images
from mobilenet_export.quantize.equalize import rescale
from mobilenet_export.quantize.splitting import place_copies, read_copies, shift_copies, spell_copies
from mobilenet_export.quantized import Decision, QuantizedGraph, QuantizedKernel, TensorScale
from mobilenet_export.recipe import QuantRecipe
from mobilenet_export.spec import ModelSpec

FORMAT = "mobilenet-export/quantized/2"
MOST_ENTRIES = 20
"""V2 at full width takes 4 MB, so about 80 MB."""

_ENTRY = re.compile(r"quantized-[0-9a-f]{32}-[0-9a-f]{16}\.safetensors")
"""Only files of this name are ever removed: the folder may be one that the user keeps other things in."""
_PARTIAL = ".quantized-"
_ABANDONED_S = 3600.0
_PARTS = ("weight", "scale", "bias")
_CHOOSES_IMAGES = ("name", "summary", "calibration_images", "check_images", "seed")
"""Fields of a recipe that do not matter once it is known which images there are."""
_RECALLED = "cache: int8 as in an earlier run on the same inputs; --no-cache computes it anew"
_LIBRARIES = ("numpy", "torch", "onnxruntime")

Arrays = Mapping[str, NDArray[Any]]
_Form = tuple[str, tuple[int, ...]]


class _UnusableError(Exception):
    """An entry that is there and cannot be used; says why."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that the quantizer looks at: a fused float graph and its variant, the images in order, the recipe."""

    graph: Graph
    spec: ModelSpec
    calibration: ImageSet
    recipe: QuantRecipe

    def entry_name(self) -> str:
        """Name of the file; reads every image once."""
        recipe = dataclasses.asdict(self.recipe)
        facts = {
            "graph": hash_graph(self.graph),
            "preprocess": dataclasses.asdict(self.spec.preprocess),
            "pixels": hash_images(self.calibration, self.spec),
            "drawn": bool(self.calibration.roles),
            "recipe": {name: value for name, value in recipe.items() if name not in _CHOOSES_IMAGES},
        }
        return f"quantized-{_hash_json(facts)[:32]}-{_hash_json(makers())[:16]}.safetensors"


def cache_folder() -> Path | None:
    """Return the user's folder of cached things: `MNX_CACHE`, or where the system keeps such; None without a home.

    Source: XDG Base Directory Specification 0.8 (a relative path is to be ignored).
    """
    own = os.environ.get("MNX_CACHE")
    if own:
        return Path(own)
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
    place = Path(os.environ.get(variable, ""))
    try:
        if sys.platform == "darwin":
            place = Path.home() / "Library" / "Caches"
        elif not place.is_absolute():
            place = Path.home() / (".cache" if sys.platform != "win32" else "AppData/Local")
    except RuntimeError:  # an account without a home, as in containers
        return None
    return place / "mobilenet-export"


def recall_or_make(
    folder: Path, inputs: Inputs, make: Callable[[], QuantizedGraph]
) -> tuple[QuantizedGraph, str | None]:
    """Return the integers of an earlier run on equal inputs; else make them and keep them.

    Args:
        folder: Of the cache; need not exist.
        inputs: What the quantizer looks at.
        make: Quantizes them.

    Returns:
        The integers, and a line that says what happened if it was not the ordinary.
    """
    path = folder / inputs.entry_name()
    note: str | None = None
    try:
        recalled = recall(path, inputs.graph)
        if recalled:
            return recalled, _RECALLED
        note = _note_of_others(path)
    except _UnusableError as error:
        note = f"cache: {path} {error}; rebuilt"
    quantized = make()
    try:
        keep(path, quantized)
    except OSError as error:
        note = f"cache: cannot write {path}: {error.strerror or error}; the next run computes it again"
    return quantized, note


def _note_of_others(path: Path) -> str | None:
    """Say so, if another version of us or of a library has an entry for the same inputs."""
    inputs = path.stem.rpartition("-")[0]
    if not any(path.parent.glob(f"{inputs}-*.safetensors")):
        return None
    return f"cache: the entry for these inputs is of another version of mnx, {', '.join(_LIBRARIES)}; rebuilt"


def recall(path: Path, graph: Graph) -> QuantizedGraph | None:
    """Read an entry; None where there is none.

    Raises:
        _UnusableError: It is damaged, of another format, or does not fit the graph.
    """
    try:
        if path.exists() and not path.is_file():
            raise _UnusableError("is no file")
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _UnusableError(f"cannot be read: {error.strerror}") from None
    quantized = _restore(*_parse(data), graph)
    with suppress(OSError):
        os.utime(path)  # the entries that go first are those that were not used for longest
    return quantized


def _parse(data: bytes) -> tuple[dict[str, Any], Arrays]:
    """Return the facts and the arrays of an entry that is whole."""
    damaged = _UnusableError("was cut short or altered")
    try:
        arrays = load(data)
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        entry = header.get("__metadata__", {})
        if entry.get("format") != FORMAT:
            raise _UnusableError("is of another format")
        if entry.get("sha256") != _hash_contents(entry["facts"], arrays):
            raise damaged
        facts: dict[str, Any] = parse_json(entry["facts"])
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError):
        raise damaged from None
    return facts, arrays


def _restore(facts: dict[str, Any], arrays: Arrays, graph: Graph) -> QuantizedGraph:
    """Put a quantized graph together; its float graph is the original with its channels copied and rescaled."""
    try:
        factors = {name: arrays[f"factors/{name}"] for name in facts["equalization"]}
        scaled = {name for name in graph.shapes if name == graph.logits or name != graph.output}
        fits = (
            _forms(arrays) == _expected(graph, factors, facts["copies"]) and facts["tensors"].keys() == scaled
        )
        if not fits:
            raise _UnusableError("does not fit the network")
        tensors = {name: TensorScale(*values) for name, values in facts["tensors"].items()}
        copies = read_copies(graph, {layer: arrays[f"copies/{layer}"] for layer in facts["copies"]})
        changed = place_copies(graph, copies)
        changed = shift_copies(rescale(changed, factors) if factors else changed, copies, tensors, {})
        if hash_graph(changed) != facts["graph"]:
            raise _UnusableError("does not fit the network")
        kernels = {
            node.name: QuantizedKernel(*(arrays[f"{part}/{node.name}"] for part in _PARTS))
            for node in graph.kernels()
        }
        decisions = tuple(Decision(**values) for values in facts["decisions"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _UnusableError("is of another format") from None
    return QuantizedGraph(changed, tensors, kernels, decisions, copies, factors)


def _forms(arrays: Arrays) -> dict[str, _Form]:
    return {name: (values.dtype.name, values.shape) for name, values in arrays.items()}


def _expected(graph: Graph, factors: Arrays, copied: list[str]) -> dict[str, _Form]:
    """Return type and shape of every array of a graph's entry."""
    found: dict[str, _Form] = {f"factors/{name}": ("float32", graph.shapes[name][:1]) for name in factors}
    found |= {f"copies/{layer}": ("int32", graph.shapes[layer][:1]) for layer in copied}
    for node in graph.kernels():
        found[f"weight/{node.name}"] = ("int8", node.weight.shape)
        found[f"scale/{node.name}"] = ("float32", node.bias.shape)
        found[f"bias/{node.name}"] = ("int32", node.bias.shape)
    return found


def keep(path: Path, quantized: QuantizedGraph) -> None:
    """Write an entry, whole or not at all, and remove the oldest beyond `MOST_ENTRIES`.

    Raises:
        OSError: The folder cannot be written to; nothing is left behind.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(prefix=_PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(_spell(quantized))
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    with suppress(OSError):  # another process may remove them at the same time
        for old in _superfluous(path.parent):
            old.unlink(missing_ok=True)


def _superfluous(folder: Path) -> Iterator[Path]:
    """Yield the oldest entries, and what killed processes left."""
    files = [found for found in folder.glob("*quantized-*") if found.is_file()]
    ages = {found: time.time() - found.stat().st_mtime for found in files}
    yield from sorted((f for f in ages if _ENTRY.fullmatch(f.name)), key=ages.__getitem__)[MOST_ENTRIES:]
    yield from (f for f in ages if f.name.startswith(_PARTIAL) and ages[f] > _ABANDONED_S)


def _spell(quantized: QuantizedGraph) -> bytes:
    """Return the bytes of an entry."""
    arrays: dict[str, NDArray[Any]] = {f"factors/{n}": values for n, values in quantized.equalization.items()}
    arrays |= {f"copies/{layer}": source for layer, source in spell_copies(quantized).items()}
    for name, kernel in quantized.kernels.items():
        arrays |= {f"{part}/{name}": getattr(kernel, part) for part in _PARTS}
    facts = {
        "made by": makers(),  # for whoever looks into the file
        "graph": hash_graph(quantized.graph),
        "tensors": {name: dataclasses.astuple(scale) for name, scale in quantized.tensors.items()},
        "decisions": [dataclasses.asdict(decision) for decision in quantized.decisions],
        "copies": list(quantized.copies),
        "equalization": list(quantized.equalization),
    }
    text = json.dumps(facts, allow_nan=False)
    # `save` writes arrays as they lie in memory, whatever their strides.
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    return save(arrays, {"format": FORMAT, "facts": text, "sha256": _hash_contents(text, arrays)})


def makers() -> dict[str, str]:
    """Return what the integers depend on beside the inputs: code, libraries and the kind of CPU."""
    root = Path(mobilenet_export.__file__).parent
    source = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(root.rglob("*.py"))))
    own = {"format": FORMAT, "mobilenet-export": mobilenet_export.__version__, "source": source.hexdigest()}
    return own | {name: version(name) for name in _LIBRARIES} | {"cpu": platform.machine()}


def hash_graph(graph: Graph) -> str:
    """Hash the structure, and all weights and biases byte for byte; not the name."""
    digest = hashlib.sha256(repr((graph.input, graph.input_shape, graph.pixels)).encode())
    for node in graph.nodes:
        digest.update(type(node).__name__.encode())
        for part in dataclasses.fields(node):
            _add(digest, part.name, getattr(node, part.name))
    return digest.hexdigest()


def _hash_contents(facts: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(facts.encode())
    for name in sorted(arrays):
        _add(digest, name, arrays[name])
    return digest.hexdigest()


def _add(digest: Any, name: str, value: object) -> None:
    if isinstance(value, np.ndarray):
        digest.update(repr((name, value.dtype.str, value.shape)).encode())
        digest.update(np.ascontiguousarray(value))
    else:
        digest.update(repr((name, value)).encode())


def _hash_json(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
