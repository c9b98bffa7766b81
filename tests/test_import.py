"""Import: every layout in every wrapping gives its tensors back, and what does not fit is refused by name."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from test_cli import Printed, mnx  # noqa: F401 (a fixture)
from torch import Tensor

from mobilenet_export.architectures import build
from mobilenet_export.architectures.checkpoint import Fitted, fit, load_embedded, load_fitted
from mobilenet_export.architectures.checkpoint_file import is_counter, load_checkpoint
from mobilenet_export.architectures.initialize import initialize
from mobilenet_export.architectures.layouts import LAYOUTS, OWN, PUBLISHED_WIDTHS, Layout, key_map, outline
from mobilenet_export.capture import capture_module
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.formats.onnx import FORMAT
from mobilenet_export.spec import Given, ModelSpec, find_spec, read_spec, resize_spec

State = dict[str, Tensor]
NOTHING = Given()


def layout(name: str) -> Layout:
    (found,) = [one for one in LAYOUTS if one.name == name]
    return found


def small(arch: str, width: float = 0.25, classes: int = 12) -> ModelSpec:
    return resize_spec(find_spec(arch), width, None if "tutorial" in arch else 96, classes)


def own_state(spec: ModelSpec) -> State:
    """Seeded weights that are nothing like an initializer's, by our keys."""
    random = torch.Generator().manual_seed(1)
    shapes = {key: value.shape for key, value in outline(spec).state_dict().items() if not is_counter(key)}
    return {key: torch.rand(shape, generator=random) + 0.5 for key, shape in shapes.items()}


def renamed(state: State, spec: ModelSpec, form: Layout) -> State:
    """Our tensors under the keys of a layout."""
    return {theirs: state[ours].clone() for theirs, ours in key_map(outline(spec), form).items()}


def torch_file(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def fitted(path: Path, arch: str | None = None, given: Given = NOTHING) -> Fitted:
    return fit(load_checkpoint(path, given.resolution_px), find_spec(arch) if arch else None, given)


def assert_holds(found: Fitted, state: State, tolerance: float = 0.0) -> None:
    loaded = load_fitted(found).module.state_dict()
    for key, tensor in state.items():
        assert torch.allclose(loaded[key], tensor, rtol=tolerance, atol=0), key


# state_dicts


STATE_DICTS = {
    "torchvision": "v2",
    "timm_v1": "v1",
    "timm_v2": "v2",
    "tutorial_v1": "mobilenet_v1_tutorial",
    "tutorial_v2": "mobilenet_v2_tutorial",
}

WRAPPINGS: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 9, "state_dict": state, "optimizer": {}},
    "model": lambda state: {"model": state, "args": None},
    "model_state_dict": lambda state: {"model_state_dict": state},
    "ema": lambda state: {"ema": {f"module.{key}": value for key, value in state.items()}},
    "state_dict_ema": lambda state: {"state_dict_ema": state},
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}},
    "compiled": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "averaged": lambda state: {
        "n_averaged": torch.tensor(4),
        **{f"module.{key}": value for key, value in state.items()},
    },
    "counters": lambda state: {**state, "bn1.num_batches_tracked": torch.tensor(4)},
    "float16": lambda state: {key: value.half() for key, value in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("name", STATE_DICTS)
def test_every_layout_is_read_in_every_wrapping(name: str, wrapping: str, tmp_path: Path) -> None:
    spec = small(STATE_DICTS[name], width=0.25, classes=7)
    state = own_state(spec)
    path = torch_file(WRAPPINGS[wrapping](renamed(state, spec, layout(name))), tmp_path / "x.pth")
    found = fitted(path)
    assert (found.layout.name, found.spec.architecture) == (name, spec.architecture)
    assert (found.spec.width, found.spec.classes) == (0.25, 7)
    assert found.spec.padding == "symmetric"
    assert_holds(found, state, tolerance=2e-3 if wrapping == "float16" else 0.0)


def test_weights_averaged_by_torch_are_read(tmp_path: Path) -> None:
    module = build(small("v2"))
    averaged = torch.optim.swa_utils.AveragedModel(module)
    found = fitted(torch_file(averaged.state_dict(), tmp_path / "x.pth"))
    assert_holds(found, {key: value for key, value in module.state_dict().items() if not is_counter(key)})


def test_keys_that_two_architectures_share_need_a_name(tmp_path: Path) -> None:
    spec = small("v1")
    path = torch_file(own_state(spec), tmp_path / "x.pth")
    with pytest.raises(UsageError, match="those of mobilenet_v1 and mobilenet_v1_tutorial") as caught:
        fitted(path)
    assert caught.value.hint == "--arch v1 or --arch mobilenet_v1_tutorial"
    assert fitted(path, "v1").spec.padding == "tensorflow"


@pytest.mark.parametrize("width", [*PUBLISHED_WIDTHS, 0.6, 0.9])
@pytest.mark.parametrize("name", ["timm_v1", "timm_v2"])
def test_width_and_classes_follow_from_the_shapes(name: str, width: float) -> None:
    spec = small(STATE_DICTS[name], width, 3)
    shapes = {key: torch.empty(value.shape) for key, value in outline(spec).state_dict().items()}
    mapping = key_map(outline(spec), layout(name))
    tensors = {theirs: shapes[ours] for theirs, ours in mapping.items()}
    found = fit(checkpoint(tensors), None, NOTHING)
    expected = {k: v.shape for k, v in outline(found.spec).state_dict().items()}
    assert expected == {k: v.shape for k, v in outline(spec).state_dict().items()}
    assert found.spec.classes == 3
    assert found.spec.width == width or width not in PUBLISHED_WIDTHS


def checkpoint(tensors: State) -> Any:
    from mobilenet_export.architectures.checkpoint_file import Checkpoint  # noqa: PLC0415

    return Checkpoint("x.pth", tensors, "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Given(width=0.5), "the checkpoint is of width 0.25, not 0.5"),
        (Given(classes=1000), "the checkpoint has 12 classes, not 1000"),
        (Given(width=1.4, classes=12), "the checkpoint is of width 0.25, not 1.4"),
    ],
)
def test_what_contradicts_the_shapes_is_refused_with_both_figures(given: Given, message: str) -> None:
    tensors = renamed(own_state(small("v2")), small("v2"), layout("timm_v2"))
    with pytest.raises(UsageError) as caught:
        fit(checkpoint(tensors), None, given)
    assert caught.value.message == message


def test_flags_go_before_the_layout() -> None:
    spec = small("v2")
    tensors = renamed(own_state(spec), spec, layout("timm_v2"))
    found = fit(checkpoint(tensors), None, NOTHING)
    assert found.description == (
        "timm mobilenetv2_025, width 0.25, 12 classes, padding symmetric, eps 1e-05, "
        "mean 0.485,0.456,0.406, std 0.229,0.224,0.225"
    )
    assert found.overrides == {}
    half = (0.5, 0.5, 0.5)
    found = fit(
        checkpoint(tensors), None, Given(padding="tensorflow", batch_norm_eps=1e-3, mean=half, std=half)
    )
    assert (found.spec.padding, found.spec.batch_norm_eps, found.spec.preprocess.mean) == (
        "tensorflow",
        1e-3,
        half,
    )
    assert found.overrides == {"padding": "tensorflow", "batch_norm_eps": 1e-3}


# Keras


def keras_values(state: State, spec: ModelSpec) -> Iterator[tuple[str, str, np.ndarray]]:
    """Layer, variable and values, in Keras's names and order of axes."""
    form = layout("keras_v1" if spec.architecture == "mobilenet_v1" else "keras_v2")
    names = {"running_mean": "moving_mean", "running_var": "moving_variance"}
    for key, tensor in renamed(state, spec, form).items():
        layer, part = key.rsplit(".", 1)
        if layer == "linear":
            layer = "conv_preds" if form.name == "keras_v1" else "predictions"
        value = tensor.numpy()
        if value.ndim == 4:
            yield layer, "kernel", value.transpose((2, 3, 0, 1) if value.shape[1] == 1 else (2, 3, 1, 0))
        elif value.ndim == 2:
            yield layer, "kernel", value.T[np.newaxis, np.newaxis] if form.name == "keras_v1" else value.T
        elif layer.lower().endswith("bn") or layer.startswith("bn"):
            yield layer, names.get(part, {"weight": "gamma", "bias": "beta"}.get(part, part)), value
        else:
            yield layer, part, value


def h5(write: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        write(file)
    return buffer.getvalue()


def legacy_h5(state: State, spec: ModelSpec, *, root: str = "model_weights/", end: str = ":0") -> bytes:
    def write(file: Any) -> None:
        file.attrs["keras_version"] = "2.15.0"
        for layer, part, value in keras_values(state, spec):
            depthwise = part == "kernel" and value.ndim == 4 and value.shape[3] == 1
            file[f"{root}{layer}/{layer}/{'depthwise_' if depthwise else ''}{part}{end}"] = value
        file["optimizer_weights/iter"] = np.float32(3)

    return h5(write)


def numbered_h5(state: State, spec: ModelSpec) -> bytes:
    order = ("gamma", "beta", "moving_mean", "moving_variance")

    def write(file: Any) -> None:
        layers: dict[str, int] = {}
        for layer, part, value in keras_values(state, spec):
            number = layers.setdefault(layer, len(layers))
            index = order.index(part) if part in order else int(part == "bias")
            group = file.require_group(f"layers/some_layer_{number}/vars")
            group.attrs["name"] = layer
            group[str(index)] = value
        file["optimizer/vars/0"] = np.zeros((4, 4), np.float32)
        file["layers/dropout/seed_generator/vars/0"] = np.zeros(2, np.uint32)

    return h5(write)


def keras_archive(weights: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", weights)
    return buffer.getvalue()


KERAS: dict[str, tuple[str, Callable[[State, ModelSpec], bytes]]] = {
    "Keras 2": ("x.h5", legacy_h5),
    "Keras 3 legacy": ("x.h5", lambda state, spec: legacy_h5(state, spec, end="")),
    "weights alone": ("x.h5", lambda state, spec: legacy_h5(state, spec, root="")),
    "weights.h5": ("x.weights.h5", numbered_h5),
    "archive": ("x.keras", lambda state, spec: keras_archive(numbered_h5(state, spec))),
    "another suffix": ("x.bin", lambda state, spec: keras_archive(numbered_h5(state, spec))),
}


@pytest.mark.parametrize("kind", KERAS)
@pytest.mark.parametrize("arch", ["v1", "v2"])
def test_keras_files_are_read(arch: str, kind: str, tmp_path: Path) -> None:
    name, write = KERAS[kind]
    spec = small(arch, 0.5)
    state = own_state(spec)
    (tmp_path / name).write_bytes(write(state, spec))
    found = fitted(tmp_path / name)
    assert found.layout.name == f"keras_{arch}"
    assert (found.spec.width, found.spec.classes) == (0.5, 12)
    assert (found.spec.padding, found.spec.batch_norm_eps) == ("tensorflow", 1e-3)
    assert found.spec.preprocess.mean == found.spec.preprocess.std == (0.5, 0.5, 0.5)
    assert_holds(found, state)


# Frozen graphs, in a few lines of protobuf's wire format


def varint(number: int) -> bytes:
    more, low = number >> 7, number & 127
    return bytes([low | 128]) + varint(more) if more else bytes([low])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def constant(name: str, value: np.ndarray, *, as_list: bool = False) -> bytes:
    dims = b"".join(message(2, varint(1 << 3) + varint(size)) for size in value.shape)
    content = np.ascontiguousarray(value, "<f4").tobytes()
    tensor = varint(1 << 3) + varint(1) + message(2, dims) + message(5 if as_list else 4, content)
    attribute = message(1, b"value") + message(2, message(8, tensor))
    return message(1, message(1, name.encode()) + message(2, b"Const") + message(5, attribute))


def slim_graph(state: State, spec: ModelSpec, *, extra: bytes = b"") -> bytes:
    form = layout("slim_v1" if spec.architecture == "mobilenet_v1" else "slim_v2")
    norms = {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }
    nodes = [message(1, message(1, b"input") + message(2, b"Placeholder"))]
    for key, tensor in renamed(state, spec, form).items():
        layer, part = key.rsplit(".", 1)
        value = tensor.numpy()
        if layer.endswith("BatchNorm"):
            name = norms[part]
        elif part == "bias":
            name = "biases"
        else:
            depthwise = value.ndim == 4 and value.shape[1] == 1
            name = "depthwise_weights" if depthwise else "weights"
            value = value[:, :, np.newaxis, np.newaxis] if value.ndim == 2 else value
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        nodes.append(constant(f"{layer}/{name}", value, as_list=value.size < 20))
    return b"".join(nodes) + extra


@pytest.mark.parametrize("arch", ["v1", "v2"])
def test_frozen_graphs_are_read(arch: str, tmp_path: Path) -> None:
    spec = small(arch, 0.75)
    state = own_state(spec)
    (tmp_path / "frozen.pb").write_bytes(slim_graph(state, spec))
    found = fitted(tmp_path / "frozen.pb")
    assert (found.layout.name, found.spec.width, found.spec.classes) == (f"slim_{arch}", 0.75, 12)
    assert (found.spec.padding, found.spec.batch_norm_eps) == ("tensorflow", 1e-3)
    assert_holds(found, state)


def test_googles_graph_is_what_ships_once_its_background_is_dropped(tmp_path: Path) -> None:
    spec, state = find_spec("v1"), load_embedded(find_spec("v1"))
    full = dict(state)
    for key in ("classifier.1.weight", "classifier.1.bias"):
        full[key] = torch.cat([torch.full_like(state[key][:1], 9.0), state[key]])
    (tmp_path / "frozen.pb").write_bytes(slim_graph(full, resize_spec(spec, None, None, 1001)))
    found = fitted(tmp_path / "frozen.pb")
    assert found.spec.classes == 1000
    assert "1000 classes, class 0 of 1001 (background) dropped" in found.description
    assert found.spec.labels == spec.labels
    assert_holds(found, state)
    kept = fitted(tmp_path / "frozen.pb", given=Given(classes=1001))
    assert (kept.spec.classes, kept.spec.labels, kept.background) == (1001, None, False)
    assert_holds(kept, full)


def test_one_value_stands_for_all_of_a_constant(tmp_path: Path) -> None:
    spec = small("v1")
    state = own_state(spec)
    state["features.0.1.weight"] = torch.ones_like(state["features.0.1.weight"])
    data = slim_graph(state, spec)
    whole = constant("MobilenetV1/Conv2d_0/BatchNorm/gamma", np.ones(8, np.float32), as_list=True)
    assert data.count(whole) == 1
    one = np.ones(1, np.float32).tobytes()
    tensor = varint(8) + varint(1) + message(2, message(2, varint(8) + varint(8))) + message(5, one)
    short = message(1, b"MobilenetV1/Conv2d_0/BatchNorm/gamma") + message(2, b"Const")
    short = message(1, short + message(5, message(1, b"value") + message(2, message(8, tensor))))
    (tmp_path / "x.pb").write_bytes(data.replace(whole, short))
    assert_holds(fitted(tmp_path / "x.pb"), state)


# ONNX


def onnx_file(module: torch.nn.Module, spec: ModelSpec, path: Path, *, folded: bool) -> Path:
    if folded:
        path.write_bytes(FORMAT.write_float(capture_module(module, spec.name, spec.input_shape), "fp32"))
        return path
    torch.onnx.export(
        module,
        (torch.zeros(1, *spec.input_shape),),
        str(path),
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    return path


@pytest.mark.filterwarnings("ignore")  # of torch.onnx
@pytest.mark.parametrize("folded", [True, False], ids=["folded", "with BatchNorm"])
@pytest.mark.parametrize("arch", ["v1", "v2"])
def test_an_onnx_file_gives_the_same_network(arch: str, folded: bool, tmp_path: Path) -> None:
    spec = small(arch, 0.35)
    module = build(spec)
    initialize(module, 5)
    path = onnx_file(module, spec, tmp_path / "x.onnx", folded=folded)
    found = fitted(path, arch)
    assert (found.layout.name, found.spec.width, found.spec.classes) == (f"onnx_{arch}", 0.35, 12)
    assert (found.spec.padding, found.spec.resolution_px) == (spec.padding, 96)
    images = torch.randn(2, *spec.input_shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours, theirs = load_fitted(found).module(images), module(images)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.filterwarnings("ignore")  # of torch.onnx
def test_an_onnx_file_that_joins_its_layers_otherwise_is_refused(tmp_path: Path) -> None:
    spec = small("v2")
    module = build(spec)
    initialize(module, 5)
    for block in module.features[4:6]:
        block.adds_input = False
    path = onnx_file(module, spec, tmp_path / "x.onnx", folded=True)
    with pytest.raises(DamagedInputError, match="not the MobileNet that its weights are those of") as caught:
        load_fitted(fitted(path, "v2"))
    assert "mnx export FILE.onnx" in caught.value.hint


# What is damaged


def without(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != key}


def linked_h5(tmp: Path) -> bytes:
    """A file whose one dataset lies in another file: whoever reads it reads that."""
    (tmp / "secret").write_bytes(bytes(64))

    def write(file: Any) -> None:
        file.create_dataset("a/b/kernel", (16,), "f4", external=[(str(tmp / "secret"), 0, 64)])

    return h5(write)


def virtual_h5(_tmp: Path) -> bytes:
    virtual = h5py.VirtualLayout((4,), "f4")
    virtual[:] = h5py.VirtualSource("/etc/hostname", "x", (4,))
    return h5(lambda file: file.create_virtual_dataset("a/b/kernel", virtual))


def two_heads(_tmp: Path) -> bytes:
    def write(file: Any) -> None:
        file["model_weights/first/first/kernel"] = np.zeros((2, 3), np.float32)
        file["model_weights/second/second/kernel"] = np.zeros((3, 4), np.float32)

    return h5(write)


def huge_h5(_tmp: Path) -> bytes:
    def write(file: Any) -> None:
        file.create_dataset("a/b/kernel", (2**20, 2**20), "f4", chunks=(64, 64), compression="gzip")

    return h5(write)


def bomb(_tmp: Path) -> bytes:
    """An archive that says to hold a gigabyte, as one that holds it would."""
    data = bytearray(keras_archive(bytes(2**20)))
    place = data.rindex(b"PK\x01\x02") + 24  # uncompressed size in the last entry of the central directory
    data[place : place + 4] = (2**30).to_bytes(4, "little")
    return bytes(data)


def good_h5() -> bytes:
    return legacy_h5(own_state(small("v2")), small("v2"))


def far_driver() -> bytes:
    """A file whose driver's block lies further off than any file reaches."""
    data = bytearray(good_h5())
    data[48:56] = (2**63 + 5).to_bytes(8, "little")  # the superblock's address of it
    return bytes(data)


def good_pb() -> bytes:
    return slim_graph(own_state(small("v2")), small("v2"))


def poisoned(state: State) -> State:
    state["features.0.0.weight"][0, 0, 0, 0] = math.nan
    return state


DAMAGED: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "h5 cut": ("x.h5", lambda _: good_h5()[:-9000], "truncated or damaged HDF5 file"),
    "h5 head": ("x.h5", lambda _: good_h5()[:20], "truncated or damaged HDF5 file"),
    "h5 far driver": ("x.h5", lambda _: far_driver(), "truncated or damaged HDF5 file"),
    "h5 of others": ("x.h5", lambda _: h5(lambda f: f.update({"a/b/c": 1.5})), "no known MobileNet's"),
    "h5 empty": ("x.h5", lambda _: h5(lambda _f: None), "holds no tensors"),
    "h5 external": ("x.h5", linked_h5, "lies in another file"),
    "h5 virtual": ("x.h5", virtual_h5, "lies in another file"),
    "h5 huge": ("x.h5", huge_h5, "larger than 512 MB"),
    "h5 two heads": ("x.h5", two_heads, "2 linear layers: first, second"),
    "h5 nan": ("x.h5", lambda _: legacy_h5(poisoned(own_state(small("v2"))), small("v2")), "NaN or infinite"),
    "keras cut": (
        "x.keras",
        lambda _: keras_archive(good_h5())[:-90],
        "truncated or damaged torch checkpoint",
    ),
    "keras bomb": ("x.keras", bomb, "larger than 512 MB"),
    "keras damaged": (
        "x.keras",
        lambda _: keras_archive(good_h5()[:-9000]),
        "truncated or damaged HDF5 file",
    ),
    "pb cut": ("x.pb", lambda _: good_pb()[:-100], "truncated, or not a frozen TensorFlow graph"),
    "pb text": ("x.pb", lambda _: b"node { name: 'x' }", "truncated, or not a frozen TensorFlow graph"),
    "pb without weights": ("x.pb", lambda _: message(1, message(1, b"input")), "without float weights"),
    "pb of others": ("x.pb", lambda _: constant("a/weights", np.zeros((2, 2))), "no known MobileNet's"),
    "pb fake quantized": (
        "x.pb",
        lambda _: good_pb() + message(1, message(1, b"q") + message(2, b"FakeQuantWithMinMaxVars")),
        "a graph trained for quantization",
    ),
    "onnx": ("x.onnx", lambda _: b"no onnx at all", "not a valid ONNX model"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_ends_in_4(case: str, mnx: Callable[..., Printed], tmp_path: Path) -> None:  # noqa: F811
    name, write, reason = DAMAGED[case]
    (tmp_path / name).write_bytes(write(tmp_path))
    printed = mnx("import", name, "--out", "y.safetensors")
    assert printed.code == 4
    assert reason in printed.error
    assert not list(tmp_path.glob("y.*"))


def test_a_constant_with_too_few_values_is_refused(tmp_path: Path) -> None:
    tensor = varint(8) + varint(1) + message(2, message(2, varint(8) + varint(5))) + message(4, bytes(8))
    node = message(1, b"a/weights") + message(2, b"Const")
    node += message(5, message(1, b"value") + message(2, message(8, tensor)))
    (tmp_path / "x.pb").write_bytes(message(1, node))
    with pytest.raises(DamagedInputError, match=r"a/weights: 2 values for a tensor of shape \[5\]"):
        load_checkpoint(tmp_path / "x.pb")


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda state: without(state, "features.0.0.weight"), "missing: Conv1.weight"),
        (
            lambda state: {**state, "features.0.0.weight": torch.zeros(8, 3, 5, 5)},
            "of another shape: Conv1.weight",
        ),
    ],
    ids=["missing", "misshapen"],
)
def test_a_keras_file_with_wrong_layers_names_them(
    change: Callable[[State], State], fault: str, tmp_path: Path
) -> None:
    spec = small("v2")
    form = layout("keras_v2")
    state = change(own_state(spec))
    mapping = {theirs: ours for theirs, ours in key_map(outline(spec), form).items() if ours in state}
    tensors = {theirs: state[ours] for theirs, ours in mapping.items()}
    with pytest.raises(DamagedInputError, match=f"keras_v2 keys.*{fault}"):
        load_fitted(fit(checkpoint(tensors), None, NOTHING))


# The command


@pytest.fixture(scope="module")
def trained() -> State:
    """Weights well-conditioned enough to be exported."""
    module = build(small("v2"))
    initialize(module, 1)
    return {key: value for key, value in module.state_dict().items() if not is_counter(key)}


@pytest.fixture
def keras_file(trained: State, tmp_path: Path) -> Path:
    path = tmp_path / "trained.keras"
    path.write_bytes(keras_archive(numbered_h5(trained, small("v2"))))
    return path


def test_import_writes_weights_a_variant_and_a_card(
    keras_file: Path,
    trained: State,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    printed = mnx(
        "import", keras_file, "--out", "mine.safetensors", "--card", "--licence", "MIT", "--resolution", 96
    )
    assert printed.code == 0, printed.err
    assert (
        "recognised: Keras MobileNetV2, width 0.25, 12 classes, padding tensorflow, eps 0.001" in printed.err
    )
    assert "next: mnx export --arch mine.toml --int8" in printed.err
    assert [line.split()[0] for line in printed.out.splitlines()] == [
        "mine.safetensors",
        "mine.md",
        "mine.toml",
    ]
    state = safetensors.torch.load_file(tmp_path / "mine.safetensors")
    assert state.keys() == trained.keys()
    assert all(torch.equal(state[key], trained[key]) for key in trained)
    spec = read_spec(tmp_path / "mine.toml")
    assert (spec.name, spec.width, spec.classes, spec.resolution_px) == ("mine", 0.25, 12, 96)
    assert spec.weights
    assert (spec.weights.licence, spec.weights.home) == ("MIT", tmp_path)
    card = (tmp_path / "mine.md").read_text(encoding="utf-8")
    assert "trained.keras" in card
    assert spec.weights.sha256 in card
    assert str(tmp_path) not in card + (tmp_path / "mine.toml").read_text(encoding="utf-8")


def test_an_imported_variant_is_exported_and_validated(
    keras_file: Path,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    assert mnx("import", keras_file, "--out", "in/mine.safetensors", "--card", "--resolution", 96).code == 0
    printed = mnx("export", "--arch", "in/mine.toml", "--formats", "onnx", "--out", "made")
    assert printed.code == 0, printed.err
    assert "next: mnx validate made --checkpoint in/mine.safetensors" in printed.err
    document = json.loads((tmp_path / "made" / "mnx.json").read_text(encoding="utf-8"))
    assert document["source"]["kind"] == "checkpoint"
    assert document["model"]["padding"] == "tensorflow"
    assert str(tmp_path) not in json.dumps(document)
    assert (tmp_path / "made" / "WEIGHTS.md").read_bytes() == (tmp_path / "in" / "mine.md").read_bytes()
    assert mnx("validate", "made", "--checkpoint", "in/mine.safetensors", "--limit", 4).code == 0
    direct = mnx(
        "export", "--checkpoint", keras_file, "--resolution", 96, "--formats", "onnx", "--out", "direct"
    )
    assert direct.code == 0, direct.err
    (file,) = (tmp_path / "made").glob("*.onnx")
    (other,) = (tmp_path / "direct").glob("*.onnx")
    ours, theirs = (load_checkpoint(path).tensors for path in (file, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    (tmp_path / "in" / "mine.safetensors").write_bytes(b"changed")
    printed = mnx("export", "--arch", "in/mine.toml", "--out", "again")
    assert printed.code == 4
    assert printed.error == "mine.safetensors is not the file that mine names: its sha256 differs"


def test_labels_go_with_an_import(
    keras_file: Path,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    names = [f"leaf {index}" for index in range(12)]
    (tmp_path / "names.txt").write_text("\r\n".join(names), encoding="utf-8")
    command = ["import", keras_file, "--out", "in/mine.safetensors", "--resolution", 96]
    printed = mnx(*command, "--labels", "names.txt")
    assert printed.code == 0, printed.err
    assert (tmp_path / "in" / "mine.txt").read_text(encoding="utf-8").splitlines() == names
    exported = mnx("export", "--arch", "in/mine.toml", "--formats", "onnx", "--out", "made")
    assert exported.code == 0, exported.err
    assert (tmp_path / "made" / "labels.txt").read_text(encoding="utf-8").splitlines() == names
    assert str(tmp_path) not in (tmp_path / "made" / "mnx.json").read_text(encoding="utf-8")
    # of the variant, they are not where another import lies
    again = mnx("import", keras_file, "--out", "new/mine.safetensors", "--arch", "in/mine.toml")
    assert again.code == 0, again.err
    assert read_spec(tmp_path / "new" / "mine.toml").labels is None


def test_labels_that_do_not_fit_leave_nothing(
    keras_file: Path,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.txt").write_text("a\nb\n", encoding="utf-8")
    printed = mnx("import", keras_file, "--out", "in/x.safetensors", "--labels", "mine.txt")
    assert printed.code == 2
    assert printed.error == "mine.txt: 2 class names, but the network has 12 classes"
    printed = mnx("import", keras_file, "--out", "in/x.safetensors", "--labels", "nowhere.txt")
    assert printed.code == 2
    assert printed.error == "nowhere.txt: No such file or directory"
    assert not (tmp_path / "in").exists()
    printed = mnx("import", keras_file, "--out", "mine.safetensors", "--labels", "mine.txt", "--force")
    assert printed.code == 2
    assert printed.error == "mine.txt is the labels itself"


def test_an_override_is_in_the_bundles_provenance_and_holds_when_it_is_validated(
    trained: State,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    torch_file(renamed(trained, small("v2"), layout("timm_v2")), tmp_path / "x.pth")
    options = ["--checkpoint", "x.pth", "--resolution", 96, "--formats", "onnx"]
    made = mnx("export", *options, "--padding", "tensorflow", "--eps", 0.001, "--out", "made")
    assert made.code == 0, made.err
    assert "padding tensorflow, eps 0.001" in made.err
    document = json.loads((tmp_path / "made" / "mnx.json").read_text(encoding="utf-8"))
    assert document["source"]["overrides"] == {"padding": "tensorflow", "batch_norm_eps": 0.001}
    assert mnx("validate", "made", "--checkpoint", "x.pth", "--limit", 4).code == 0
    assert mnx("export", *options, "--out", "plain").code == 0
    document = json.loads((tmp_path / "plain" / "mnx.json").read_text(encoding="utf-8"))
    assert "overrides" not in document["source"]
    assert document["model"]["name"] == "mobilenet_v2_025_96"


def test_an_import_twice_gives_the_same_bytes_and_replaces_only_by_force(
    keras_file: Path,
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    command = ["import", keras_file, "--out", "mine.safetensors", "--card"]
    assert mnx(*command).code == 0
    first = {path.name: path.read_bytes() for path in tmp_path.glob("mine.*")}
    again = mnx(*command)
    assert (again.code, again.error) == (2, "mine.safetensors exists")
    assert mnx(*command, "--force", "--json").code == 0
    assert {path.name: path.read_bytes() for path in tmp_path.glob("mine.*")} == first
    assert {path.name for path in tmp_path.iterdir()} == {*first, "trained.keras"}


USAGE: dict[str, tuple[list[object], str]] = {
    "suffix": (["--out", "x.pth"], "does not end in .safetensors"),
    "hidden": (["--out", ".x.safetensors"], "no name for a variant"),
    "itself": (["--out", "x.safetensors", "--force"], "is the checkpoint itself"),
    "padding": (["--out", "y.safetensors", "--padding", "same"], "unknown padding: same"),
    "eps": (["--out", "y.safetensors", "--eps", 0], "--eps 0: not within 0 to 1"),
    "mean": (["--out", "y.safetensors", "--mean", "1,2"], "not three numbers"),
    "width": (["--out", "y.safetensors", "--width", 0.5], "the checkpoint is of width 0.25, not 0.5"),
    "arch": (["--out", "y.safetensors", "--arch", "v1"], "mobilenet_v1 was asked for"),
}


@pytest.mark.parametrize("case", USAGE)
def test_what_an_import_cannot_mean_ends_in_2(case: str, mnx: Callable[..., Printed], tmp_path: Path) -> None:  # noqa: F811
    options, reason = USAGE[case]
    safetensors.torch.save_file(own_state(small("v2")), tmp_path / "x.safetensors")
    printed = mnx("import", "x.safetensors", *options)
    assert printed.code == 2
    assert reason in printed.error
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.filterwarnings("ignore")  # of torch.onnx
def test_an_onnx_file_needs_to_be_told_its_preprocessing(
    mnx: Callable[..., Printed],  # noqa: F811
    tmp_path: Path,
) -> None:
    spec = small("v2")
    module = build(spec)
    initialize(module, 5)
    onnx_file(module, spec, tmp_path / "x.onnx", folded=True)
    printed = mnx("import", "x.onnx", "--out", "y.safetensors")
    assert printed.code == 2
    assert "does not say how images are preprocessed" in printed.error
    half = "0.5,0.5,0.5"
    assert mnx("import", "x.onnx", "--out", "y.safetensors", "--mean", half, "--std", half).code == 0
    assert read_spec(tmp_path / "y.toml").preprocess.mean == (0.5, 0.5, 0.5)


def test_a_flag_of_a_checkpoint_without_one_is_refused(mnx: Callable[..., Printed]) -> None:  # noqa: F811
    printed = mnx("export", "--arch", "v2", "--padding", "tensorflow")
    assert (printed.code, printed.error) == (2, "--padding is of a checkpoint, and none is given")


def test_our_own_form_is_a_layout() -> None:
    assert OWN.name in {one.name for one in LAYOUTS}
