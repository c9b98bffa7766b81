"""Every reader of foreign bytes: right files made by the real writers, how to make them wrong, how they are read.

A reader is a function `bytes → None` that goes the way of the command that reads such files. What it raises has to
be an error with an exit code of its own: not 70, "a bug of ours".
"""

import hashlib
import io
import json
import shutil
import subprocess
import tempfile
import tomllib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import mutations as wrong
import numpy as np
import onnx
import safetensors.numpy
import safetensors.torch
import torch
from conftest import FEW_IMAGES, tiny_batch, tiny_graph
from PIL import Image

from mobilenet_export import images
from mobilenet_export.agent import check as device_check
from mobilenet_export.architectures import build, frozen_graph
from mobilenet_export.architectures.checkpoint import build_with_weights
from mobilenet_export.architectures.checkpoint_file import load_checkpoint
from mobilenet_export.bundle import DOCUMENT, Bundle, read_bundle
from mobilenet_export.capture import capture_onnx
from mobilenet_export.deployment import measure
from mobilenet_export.deployment.fleet import read_fleet
from mobilenet_export.deployment.measure import Installed
from mobilenet_export.deployment.parcel import check_bundle, pack
from mobilenet_export.deployment.probe import probe_device
from mobilenet_export.errors import DamagedInputError, MnxError
from mobilenet_export.formats import Format
from mobilenet_export.graph import Graph
from mobilenet_export.html_report.holdings import read_holdings
from mobilenet_export.passes.fold_normalization import fold_normalization
from mobilenet_export.pipeline import cache
from mobilenet_export.pipeline.analyze import read_equalization
from mobilenet_export.pipeline.compat import CompatRequest, compat
from mobilenet_export.pipeline.deploy import DeviceReport, write_results
from mobilenet_export.pipeline.export import ExportRequest, choose_images, export
from mobilenet_export.pipeline.figures import FigureCache
from mobilenet_export.pipeline.inspect import inspect
from mobilenet_export.pipeline.phone import PhoneRequest, _Job
from mobilenet_export.pipeline.reference import class_names
from mobilenet_export.pipeline.stages import silent
from mobilenet_export.pipeline.validate import ValidateRequest, bare_artifact, find_target
from mobilenet_export.plugins import load_plugin
from mobilenet_export.quantize.calibrate import calibrate
from mobilenet_export.quantize.post_training import quantize_graph
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.recipe import read_recipe, recipe_names
from mobilenet_export.runtimes.onnxruntime import watch
from mobilenet_export.shipped import shipped_path
from mobilenet_export.snippets import choose_file, read_facts, snippet
from mobilenet_export.spec import find_spec, resize_spec, spec_paths

Read = Callable[[bytes], object]
SPEC = resize_spec(find_spec("v2"), 0.25, 96, 12)
CROP_PX = 96
LAYERS = 262


@dataclass(frozen=True)
class Reader:
    """One way that foreign bytes come in.

    Attributes:
        mutate: Makes them wrong.
        open: From a folder of its own, and that of all seeds, to the function that reads.
    """

    mutate: wrong.Mutate
    open: Callable[[Path, Path], Read]


# Right files


def write_seeds(folder: Path) -> None:
    """Write the right files of every reader, `folder/<reader>/<number>`, and a bundle."""
    bundle = folder / "bundle"
    request = ExportRequest(
        SPEC, bundle, ("fp32", "int8"), ("onnx", "tflite"), FEW_IMAGES, weights="none", io=("float32",)
    )
    export(request)
    found: dict[str, list[bytes]] = {
        "checkpoint safetensors": [safetensors.torch.save(_state(classes)) for classes in (12, 3)],
        "checkpoint keras h5": [_keras_file()],
        "checkpoint keras": [_keras_archive()],
        "checkpoint frozen graph": [_frozen_graph()],
        "checkpoint pth": [
            _torch_file(state, old=old) for state in (_state(12), {"model": _state(3)}) for old in (0, 1)
        ],
        "onnx": [_written("onnx", "fp32"), _written("onnx", "fp16"), _foreign_onnx()],
        **{f"{name} file": _spellings(name) for name in ("onnx", "tflite", "ort")},
        "variant": [json.dumps(_toml_of(path)).encode() for path in spec_paths()],
        "recipe": [
            json.dumps(_toml_of(shipped_path("calibration", "recipes", f"{name}.toml"))).encode()
            for name in recipe_names()
        ],
        "fleet": [
            json.dumps(
                {"device": [{"host": "pi@pi1"}, {"host": "adb:x:/data", "runtime": "litert"}]}
            ).encode()
        ],
        "manifest": [json.dumps(_manifest()).encode()],
        "mnx.json": [(bundle / DOCUMENT).read_bytes()],
        "expected.json": [(bundle / "self_check" / "expected.json").read_bytes()],
        "equalization": [_factors()],
        "labels": [(bundle / "labels.txt").read_bytes()],
        "labels csv": [b"file,label\n0.png,1\n1.png,2\n", "\ufeff0.png,3\r\n".encode()],
        "image": [_image(kind) for kind in ("png", "jpeg", "webp", "tiff", "bmp", "gif", "ppm")],
        "zip": [_zip(), _zip(prefix="a/b/")],
        "npy": [_npy(np.uint8), _npy(np.float32)],
        "npz": [_npz(np.uint8), _npz(np.float32)],
        "app outputs npy": [_saved(np.zeros((4, 12), np.float32))],
        "app outputs json": [json.dumps(np.zeros((4, 12)).tolist()).encode()],
        "device file": [json.dumps(_device_file()).encode()],
        "figures": [_figures()],
        "cache": [cache._spell(quantized_tiny())],
        "device probe": [_probe_answer()],
        "device check": [json.dumps(_check_report()).encode()],
        "device latency": [json.dumps(_latency_report()).encode()],
        "phone report": [json.dumps(_visit(bundle)).encode(), json.dumps(_visit(bundle)["rows"][0]).encode()],
    }
    for name, seeds in found.items():
        (folder / name).mkdir()
        for index, seed in enumerate(seeds):
            (folder / name / str(index)).write_bytes(seed)


def quantized_tiny() -> QuantizedGraph:
    graph = fold_normalization(tiny_graph(), (0.5,) * 3, (0.25,) * 3)
    assert graph.pixels is not None
    ranges = calibrate(graph, watch(graph, iter([tiny_batch(8)])), graph.pixels.bounds)
    return quantize_graph(graph, ranges, saturation_safe=True)


def _state(classes: int) -> dict[str, torch.Tensor]:
    return build(resize_spec(SPEC, None, None, classes)).state_dict()


def _torch_file(state: Any, *, old: int) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=not old)
    return stream.getvalue()


def _keras_file() -> bytes:
    stream = io.BytesIO()
    layers = {"conv1/conv1": (3, 3, 3, 8), "conv_pw_1/conv_pw_1": (1, 1, 8, 16), "top/top": (16, 5)}
    with h5py.File(stream, "w") as file:
        for layer, shape in layers.items():
            file.create_dataset(f"{layer}/kernel:0", data=np.ones(shape, np.float32), compression="gzip")
            file.create_dataset(f"{layer}/bias:0", data=np.zeros(shape[-1], np.float32))
    return stream.getvalue()


def _keras_archive() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zipfile.ZipInfo("metadata.json"), "{}")
        archive.writestr(zipfile.ZipInfo("model.weights.h5"), _keras_file())
    return stream.getvalue()


def _frozen_graph() -> bytes:
    graph = frozen_graph._graph_class()()
    layers = {"MobilenetV1/Conv2d_0": (3, 3, 3, 8), "MobilenetV1/Logits/Conv2d_1c_1x1": (1, 1, 8, 5)}
    for layer, shape in layers.items():
        node = graph.node.add(name=f"{layer}/weights", op="Const")
        tensor = node.attr.add(key="value").value.tensor
        tensor.dtype = 1
        for size in shape:
            tensor.shape.dim.add(size=size)
        tensor.content = np.ones(shape, np.float32).tobytes()
    return bytes(graph.SerializeToString())


def _device_file() -> dict[str, Any]:
    """What `write_results` keeps, and a report reads."""
    kept = {"host": "pi", "folder": "mnx/net", "verdict": "pass", "error": None, "probe": None}
    latency = _latency_report() | {"machine": {"cores": 4, "board": "Raspberry Pi 5"}}
    latency["rows"] = [row | {"precision": "int8", "batch": 1} for row in latency["rows"]]
    return kept | {"check": _check_report(), "latency": latency}


_FACTS = {"what": "latency", "of": "a1", "runs": 10}


def _figures() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        FigureCache(Path(folder)).keep(_FACTS, {"p50_ms": 1.5})
        (path,) = (Path(folder) / "figures").iterdir()
        return path.read_bytes()


def _written(form: str, precision: str) -> bytes:
    return bytes(load_plugin("formats", form).write_float(tiny_graph(softmax=precision == "fp16"), precision))


def _foreign_onnx() -> bytes:
    """As another exporter would spell it: BatchNorm, Clip, a pad of its own, a Gemm."""
    kind, weights = onnx.TensorProto.FLOAT, np.random.default_rng(0)

    def constant(name: str, *shape: int) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(weights.uniform(0.5, 1, shape).astype(np.float32), name)

    nodes = [
        onnx.helper.make_node("Pad", ["image", "pads"], ["a"]),
        onnx.helper.make_node("Conv", ["a", "w"], ["b"], strides=[2, 2], kernel_shape=[3, 3]),
        onnx.helper.make_node("BatchNormalization", ["b", "g", "h", "m", "v"], ["c"]),
        onnx.helper.make_node("Clip", ["c", "low", "high"], ["d"]),
        onnx.helper.make_node("AveragePool", ["d"], ["e"], kernel_shape=[8, 8]),
        onnx.helper.make_node("Flatten", ["e"], ["f"]),
        onnx.helper.make_node("Gemm", ["f", "fc", "bias"], ["scores"], transB=1),
    ]
    held = [constant("w", 8, 3, 3, 3), *(constant(name, 8) for name in "ghmv")]
    held += [constant("fc", 5, 8), constant("bias", 5), constant("low"), constant("high")]
    held[-2:] = [
        onnx.numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 6))
    ]
    held.append(onnx.numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 0, 0]), "pads"))
    graph = onnx.helper.make_graph(
        nodes,
        "own",
        [onnx.helper.make_tensor_value_info("image", kind, [1, 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("scores", kind, [1, 5])],
        held,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


def _spellings(form: str) -> list[bytes]:
    writer: Format = load_plugin("formats", form)
    int8 = [writer.write_int8(quantized_tiny(), io) for io in writer.io]
    return [writer.write_float(tiny_graph(), "fp32"), writer.write_float(tiny_graph(), "fp16"), *int8]


def _toml_of(path: Path) -> Any:
    return tomllib.loads(path.read_text("utf-8"))


def _pixels(seed: int, side: int = 40) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def _image(kind: str, seed: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(_pixels(seed)).save(stream, kind)
    return stream.getvalue()


def _manifest() -> dict[str, Any]:
    entries = [
        {
            "file": f"{index}.png",
            "sha256": hashlib.sha256(_image("png", index)).hexdigest(),
            "role": ("calibrate", "check")[index % 2],
        }
        for index in range(16)
    ]
    return {"schema": images.MANIFEST_SCHEMA, "images": entries}


def _zip(prefix: str = "") -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index in range(12):
            archive.writestr(zipfile.ZipInfo(f"{prefix}{index}.png"), _image("png", index))
    return stream.getvalue()


def _array(kind: Any) -> np.ndarray:
    if kind == np.uint8:
        return np.stack([_pixels(index) for index in range(12)])
    return np.random.default_rng(0).uniform(-1, 1, (12, 3, CROP_PX, CROP_PX)).astype(np.float32)


def _saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _npy(kind: Any) -> bytes:
    return _saved(_array(kind))


def _npz(kind: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, images=_array(kind))
    return stream.getvalue()


def _factors() -> bytes:
    return safetensors.numpy.save({"stem": np.ones(8, np.float32), "pointwise": np.ones(8, np.float32)})


def _probe_answer() -> bytes:
    """What the real script answers of this computer."""
    found = probe_device(_Here(None), "mnx/net")
    interpreter = {
        "path": "/usr/bin/python3",
        "version": [3, 11, 2],
        "packages": {"numpy": "2.0", "pillow": "11"},
        "bits": 64,
        "libc": ["glibc", "2.36"],
        "venv": True,
        "ensurepip": True,
    }
    lines = {"machine": found.machine, "system": found.system, "cores": found.cores, "free": 10**6}
    lines |= {"features": " ".join(found.features), "writable": "yes", "python": json.dumps(interpreter)}
    return "".join(f"{name}\t{value}\n" for name, value in lines.items()).encode()


def _check_report() -> dict[str, Any]:
    row = {
        "file": "a.onnx",
        "runtime": "onnxruntime",
        "provider": "CPU",
        "verdict": "pass",
        "detail": "bit-equal",
    }
    return {
        "kind": "check",
        "verdict": "pass",
        "rows": [row, row],
        "failures": ["none"],
        "machine": {"cores": 4},
    }


def _latency_report() -> dict[str, Any]:
    times = {"threads": 1, "p50_ms": 9.0, "p90_ms": 9.5, "ratio": 1.0}
    row = {"file": "a.onnx", "runtime": "onnxruntime", "provider": "CPU", "rounds_ms": [[9.0, 9.5]], **times}
    return {"kind": "latency", "rows": [row, row], "notes": ["noisy"]}


def _visit(bundle: Path) -> dict[str, Any]:
    table = json.loads((bundle / "self_check" / "expected.json").read_text("utf-8"))
    rows = [
        {
            "file": name,
            "runtime": "onnxruntime-web",
            "provider": "wasm",
            "outputs": [image["output"] for image in found.values()],
            "rounds_ms": [[10.0, 10.5] for _ in range(8)],
        }
        for name, found in list(table.items())[:2]
    ]
    agent = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 Chrome/126.0 Mobile Safari/537.36"
    told = {"page": "a1", "notes": ["hot"], "features": ["threads"], "threads": 1, "userAgent": agent}
    return {"rows": rows, **told, "platform": "Android 14", "model": "Pixel 8", "cores": 8, "memory_gb": 8}


# How they are read


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, Path], Read]:
    """Write the bytes to a file of that name, and read it."""

    def opened(folder: Path, _seeds: Path) -> Read:
        path = folder / name

        def one(data: bytes) -> object:
            path.write_bytes(data)
            return read(path)

        return one

    return opened


def _read_image_set(path: Path) -> None:
    choice = choose_images(path, FEW_IMAGES)
    for _ in images.batches(choice.calibrate, SPEC.preprocess, 8):
        pass


def _read_image(path: Path) -> None:
    images.preprocess(images.open_image(path, path.name), SPEC.preprocess)


def _read_onnx(path: Path) -> None:
    graph = capture_onnx(path, None)
    assert graph.shapes


def _read_variant(path: Path) -> None:
    spec = find_spec(str(path))
    class_names(spec, None)
    build_with_weights(resize_spec(spec, None, None, None), weights="none") if spec.width < 0.3 else None


def _read_format(name: str) -> Callable[[Path, Path], Read]:
    """What a file says of itself, and the integers in it."""
    form: Format = load_plugin("formats", name)
    graph: Graph = quantized_tiny().graph

    def read(path: Path) -> None:
        _each((lambda: compat(CompatRequest((path,))), lambda: inspect(path), lambda: integers(path)))

    def integers(path: Path) -> None:
        try:
            form.read_int8(bare_artifact(path).data, graph)
        except ValueError as error:  # what it is said to raise
            raise DamagedInputError(str(error), "") from None

    return _file(f"model{form.extension}", read)


def _open_manifest(folder: Path, _seeds: Path) -> Read:
    for index in range(16):
        (folder / f"{index}.png").write_bytes(_image("png", index))

    def read(data: bytes) -> None:
        (folder / images.MANIFEST).write_bytes(data)
        _read_image_set(folder)

    return read


def _open_folder(folder: Path, _seeds: Path) -> Read:
    for index in range(12):
        (folder / f"{index}.png").write_bytes(_image("png", index))

    def read(data: bytes) -> None:
        (folder / "3.png").write_bytes(data)
        _read_image_set(folder)

    return read


def _in_bundle(name: str, read: Callable[[Path], object]) -> Callable[[Path, Path], Read]:
    """Exchange one file of a whole bundle."""

    def opened(folder: Path, seeds: Path) -> Read:
        shutil.copytree(seeds / "bundle", folder / "bundle")
        (folder / "bundle" / "devices").mkdir()

        def one(data: bytes) -> object:
            (folder / "bundle" / name).write_bytes(data)
            return read(folder / "bundle")

        return one

    return opened


def _read_bundle(folder: Path) -> None:
    """Every command's way into a bundle."""
    ways: tuple[Callable[[], object], ...] = (
        lambda: find_target(ValidateRequest((folder,))),
        lambda: device_check.read_recorded(read_bundle(folder)),
        lambda: device_check.changed_files(read_bundle(folder)),
        lambda: _pack(read_bundle(folder)),
        lambda: _job(folder).document(),
        *((lambda kind=kind: _facts(read_bundle(folder), kind)) for kind in ("android", "ios", "python")),  # type: ignore[misc]
        lambda: compat(CompatRequest((folder,))),
        lambda: inspect(folder),
        lambda: read_holdings(read_bundle(folder)),
    )
    _each(ways)


def _each(ways: Sequence[Callable[[], object]]) -> None:
    """Go every way for itself: one that refuses must not hide the others."""
    errors = []
    for way in ways:
        try:
            way()
        except (MnxError, OSError) as error:
            errors.append(error)
    for error in sorted(errors, key=lambda one: getattr(one, "exit_code", 0), reverse=True):
        raise error


def _pack(bundle: Bundle) -> None:
    check_bundle(bundle)
    pack(bundle, ("onnx", "tflite"))


def _facts(bundle: Bundle, kind: str) -> None:
    found = snippet(kind)
    found.write(read_facts(bundle, choose_file(bundle, found, None)))


def _job(folder: Path) -> _Job:
    watcher = SimpleNamespace(checked=lambda _row: None)
    return _Job(PhoneRequest(read_bundle(folder), runs=1), watcher, silent)


def _read_app_outputs(name: str) -> Callable[[Path, Path], Read]:
    def opened(folder: Path, seeds: Path) -> Read:
        bundle = read_bundle(seeds / "bundle")
        recorded, artifacts = device_check.read_recorded(bundle), bundle.artifacts()[:1]
        engine = device_check.Engine(load_plugin("runtimes", "onnxruntime"))

        def one(data: bytes) -> None:
            (folder / name).write_bytes(data)
            found = device_check._read_outputs(folder / name)
            if found.shape != (4, 12):  # else mistakes are tried, for a second each
                device_check.check_outputs(folder / name, recorded, artifacts, engine)

        return one

    return opened


def _read_equalization(folder: Path) -> None:
    data = (folder / "factors").read_bytes()
    bundle = SimpleNamespace(folder=folder, equalization=lambda: data)
    read_equalization(bundle, tiny_graph())  # type: ignore[arg-type]


def _open_figures(folder: Path, _seeds: Path) -> Read:
    cached = FigureCache(folder)
    cached.keep(_FACTS, {"p50_ms": 1.5})
    (path,) = (folder / "figures").iterdir()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        cached.recall(_FACTS)

    return read


def _read_device_file(folder: Path) -> None:
    if read_holdings(read_bundle(folder)).left_out:  # which the page says
        raise DamagedInputError("left out", "")


def _read_cache(path: Path) -> None:
    try:
        cache.recall(path, quantized_tiny_graph())
    except cache._UnusableError as error:  # ends in a note, and is made anew
        raise DamagedInputError(str(error), "") from None


def quantized_tiny_graph() -> Graph:
    return fold_normalization(tiny_graph(), (0.5,) * 3, (0.25,) * 3)


@dataclass
class _Here:
    """A connection to this computer; or to a device that answers what a file holds, whatever it is told."""

    answer: Path | None
    name: str = "pi"
    by_hand: str = "sh"

    def start(self, command: str) -> subprocess.Popen[bytes]:
        told = f"cat {str(self.answer)!r}; exec cat >/dev/null" if self.answer else command
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", told], stdin=pipe, stdout=pipe, stderr=pipe)

    def failure(self, _code: int, _talk: str) -> None:
        return None

    def close(self) -> None:
        pass


def _answered(read: Callable[[Any], object]) -> Callable[[Path, Path], Read]:
    """A device whose program prints the bytes."""

    def opened(folder: Path, _seeds: Path) -> Read:
        class Answering(_Here):
            def start(self, _command: str) -> subprocess.Popen[bytes]:
                pipe = subprocess.PIPE
                return subprocess.Popen(
                    ["sh", "-c", f"echo mnx-begin; cat {str(self.answer)!r}"],
                    stdin=pipe,
                    stdout=pipe,
                    stderr=pipe,
                )

        def one(data: bytes) -> None:
            (folder / "answer").write_bytes(data)
            (folder / "devices").mkdir(exist_ok=True)
            found = read(Answering(folder / "answer"))
            write_results(Bundle(folder, {}), DeviceReport("pi", "mnx/net", **found))

        return one

    return opened


_INSTALLED = Installed("mnx/net", "python3")


def _open_phone(folder: Path, seeds: Path) -> Read:
    """A browser's answer of one file where it is one, else its report."""
    shutil.copytree(seeds / "bundle", folder / "bundle")
    job = _job(folder / "bundle")

    def read(data: bytes) -> None:
        answer = (job.report if b'"rows"' in data else job.check)(data)
        json.dumps(answer.document, allow_nan=False)
        answer.then()

    return read


def _checkpoint(path: Path) -> None:
    """Where layers are missing it takes a second to find whose it is, so that one file in eight gets there."""
    tensors = load_checkpoint(path).tensors
    if path.suffix == ".safetensors" and (len(tensors) == LAYERS or sum(path.read_bytes()[:200]) % 8 == 0):
        build_with_weights(SPEC, path)


READERS: Mapping[str, Reader] = {
    "checkpoint safetensors": Reader(wrong.safetensors_of, _file("x.safetensors", _checkpoint)),
    "checkpoint keras h5": Reader(wrong.bytes_of, _file("x.h5", _checkpoint)),
    "checkpoint keras": Reader(wrong.zip_of, _file("x.keras", _checkpoint)),
    "checkpoint frozen graph": Reader(wrong.bytes_of, _file("x.pb", _checkpoint)),
    "checkpoint pth": Reader(
        lambda rng, seeds: (
            wrong.zip_of(rng, [s for s in seeds if s[:2] == b"PK"])
            if rng.random() < 0.6
            else wrong.pickle_of(rng, [s for s in seeds if s[:2] != b"PK"])
        ),
        _file("x.pth", _checkpoint),
    ),
    "onnx": Reader(wrong.onnx_of, _file("own.onnx", _read_onnx)),
    "onnx file": Reader(wrong.onnx_of, _read_format("onnx")),
    "tflite file": Reader(wrong.bytes_of, _read_format("tflite")),
    "ort file": Reader(wrong.bytes_of, _read_format("ort")),
    "variant": Reader(wrong.toml_of, _file("own.toml", _read_variant)),
    "recipe": Reader(wrong.toml_of, _file("own.toml", read_recipe)),
    "fleet": Reader(wrong.toml_of, _file("fleet.toml", read_fleet)),
    "manifest": Reader(wrong.toml_of, _open_manifest),
    "mnx.json": Reader(wrong.json_of, _in_bundle(DOCUMENT, _read_bundle)),
    "expected.json": Reader(
        wrong.json_of,
        _in_bundle("self_check/expected.json", lambda folder: _recorded(read_bundle(folder))),
    ),
    "equalization": Reader(
        wrong.safetensors_of, _file("factors", lambda path: _read_equalization(path.parent))
    ),
    "labels": Reader(wrong.bytes_of, _file("labels.txt", lambda path: class_names(SPEC, path))),
    "labels csv": Reader(wrong.bytes_of, _file("labels.csv", images.read_labels_csv)),
    "image": Reader(wrong.bytes_of, _file("photo.jpg", _read_image)),
    "folder": Reader(wrong.bytes_of, _open_folder),
    "zip": Reader(wrong.zip_of, _file("photos.zip", _read_image_set)),
    "npy": Reader(wrong.npy_of, _file("photos.npy", _read_image_set)),
    "npz": Reader(wrong.zip_of, _file("photos.npz", _read_image_set)),
    "app outputs npy": Reader(wrong.npy_of, _read_app_outputs("outputs.npy")),
    "app outputs json": Reader(wrong.json_of, _read_app_outputs("outputs.json")),
    "cache": Reader(wrong.safetensors_of, _file("entry.safetensors", _read_cache)),
    "device file": Reader(wrong.json_of, _in_bundle("devices/pi.json", _read_device_file)),
    "figures": Reader(wrong.json_of, _open_figures),
    "device probe": Reader(
        wrong.bytes_of, _answered(lambda there: {"probe": probe_device(there, "mnx/net")})
    ),
    "device check": Reader(
        wrong.json_of, _answered(lambda there: {"check": measure.check(there, _INSTALLED)})
    ),
    "device latency": Reader(
        wrong.json_of, _answered(lambda there: {"latency": measure.bench(there, _INSTALLED, 10, (1,))})
    ),
    "phone report": Reader(wrong.json_of, _open_phone),
}
"""By name; `folder` takes the seeds of `image`."""


def seeds_of(name: str, seeds: Path) -> list[bytes]:
    """What a reader's wrong files are made of: right files, of TOML the tables as JSON."""
    folder = seeds / ("image" if name == "folder" else name)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def right_files(name: str, seeds: Path) -> list[bytes]:
    """Files that a reader has to take; of model files the int8 ones, as their integers are read."""
    found = seeds_of(name, seeds)
    if READERS[name].mutate is wrong.toml_of:
        return [wrong.toml(json.loads(seed)).encode() for seed in found]
    if name.endswith(" file"):
        return found[2:]
    return (
        found[::2] if name == "checkpoint safetensors" else found[:2] if name == "checkpoint pth" else found
    )


def _recorded(bundle: Bundle) -> None:
    recorded = device_check.read_recorded(bundle)
    device_check.moved_labels(recorded)
    for artifact in bundle.artifacts():
        if (target := recorded.outputs.get(artifact.file)) is not None:
            device_check.compare(artifact, target, target, recorded)
