"""Weights: other people's checkpoints give other people's numbers, and damaged files are refused by name."""

import argparse
import dataclasses
import io
import json
import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from recorded.record import FOLDER, NETWORKS, recorded_image, recorded_weights
from torch import Tensor, nn
from torch.nn import functional

from mobilenet_export.architectures import build
from mobilenet_export.architectures.checkpoint import build_with_weights, fit, load_embedded, load_into
from mobilenet_export.architectures.checkpoint_file import load_checkpoint
from mobilenet_export.architectures.layouts import OWN, adapt_spec, recognise
from mobilenet_export.errors import DamagedInputError, ExitCode, MnxError, UsageError
from mobilenet_export.spec import Given, ModelSpec, find_spec, resize_spec

ARCH = {"torchvision_mobilenet_v2": "v2", "timm_mobilenetv2_100": "v2", "timm_mobilenetv1_100": "v1"}


def recorded_state(name: str) -> tuple[dict[str, Tensor], list[float]]:
    record = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    weights = recorded_weights(record["shapes"])
    return {key: torch.from_numpy(value) for key, value in weights.items()}, record["logits"]


def run(network: nn.Module, images: Tensor) -> Any:
    with torch.no_grad():
        return network(images).numpy()


def assert_same_logits(result: Any, reference: Any) -> None:
    assert np.abs(result - reference).max() < 1e-5 * np.abs(reference).max()


# Other people's networks


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_gives_the_logits_of_its_own_library(name: str, tmp_path: Path) -> None:
    state, logits = recorded_state(name)
    torch.save(state, tmp_path / "model.pth")
    loaded = build_with_weights(resize_spec(find_spec(ARCH[name]), None, 96, None), tmp_path / "model.pth")
    assert_same_logits(run(loaded.module, torch.from_numpy(recorded_image()))[0], np.array(logits))
    assert (loaded.spec.padding, loaded.spec.batch_norm_eps) == ("symmetric", 1e-5)
    assert loaded.spec.weights is None
    assert loaded.origin.startswith("model.pth (")


def test_a_layout_brings_its_padding_and_epsilon() -> None:
    state, _ = recorded_state("timm_mobilenetv1_100")
    spec = find_spec("v1")
    layout = recognise(state, spec)
    assert (layout.name, spec.padding, spec.batch_norm_eps) == ("timm_v1", "tensorflow", 1e-3)
    assert adapt_spec(spec, layout) == dataclasses.replace(spec, padding="symmetric", batch_norm_eps=1e-5)
    assert adapt_spec(spec, OWN) == spec


# The tutorial's networks, rewritten in clean form; their attribute names are the tutorial's.


class TutorialBlockV1(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv2 = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(x)))


class TutorialV1(nn.Module):
    OUTPUTS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        inputs = (32, *self.OUTPUTS)
        self.layers = nn.Sequential(*map(TutorialBlockV1, inputs, self.OUTPUTS, self.STRIDES))
        self.linear = nn.Linear(1024, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(functional.relu(self.bn1(self.conv1(x))))
        return functional.softmax(self.linear(functional.avg_pool2d(x, 7).flatten(1)), dim=1)


def conv_norm(inputs: int, outputs: int, corrected: bool, **options: Any) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, bias=not corrected, **options), nn.BatchNorm2d(outputs)]


class TutorialBlockV2(nn.Module):
    def __init__(self, row: tuple[int, int, int, int], corrected: bool) -> None:
        super().__init__()
        inputs, hidden, outputs, stride = row
        options = {"kernel_size": 3, "padding": 1, "stride": stride, "groups": hidden if corrected else 1}
        self.conv1x1_1 = nn.Sequential(*conv_norm(inputs, hidden, corrected, kernel_size=1), nn.ReLU6())
        self.conv3x3 = nn.Sequential(*conv_norm(hidden, hidden, corrected, **options), nn.ReLU6())
        self.conv1x1_2 = nn.Sequential(*conv_norm(hidden, outputs, corrected, kernel_size=1))
        if not corrected:
            self.conv1x1_2.append(nn.ReLU6())
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1x1_2(self.conv3x3(self.conv1x1_1(x)))
        return y + x if self.residual else y  # type: ignore[no-any-return]


class TutorialV2(nn.Module):
    """As the tutorial codes it, or `corrected` to what its text explains."""

    CHANNELS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)

    def __init__(self, corrected: bool) -> None:
        super().__init__()
        halving = (1, 3, 6, 13) if corrected else (1, 3, 10, 13)
        inputs = (32, *self.CHANNELS[:-1])
        rows = [
            (i, i * 6 if block else i, o, 2 if block in halving else 1)
            for block, (i, o) in enumerate(zip(inputs, self.CHANNELS, strict=True))
        ]
        self.conv1 = nn.Sequential(
            *conv_norm(3, 32, corrected, kernel_size=3, padding=1, stride=2), nn.ReLU6()
        )
        self.layers = nn.Sequential(*(TutorialBlockV2(row, corrected) for row in rows))
        self.conv2 = nn.Sequential(*conv_norm(320, 1280, corrected, kernel_size=1), nn.ReLU6())
        self.pool = nn.AvgPool2d(7)
        self.linear = nn.Sequential(nn.Linear(1280, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.pool(self.conv2(self.layers(self.conv1(x)))).flatten(1))  # type: ignore[no-any-return]


def filled(network: nn.Module) -> nn.Module:
    shapes = {key: list(value.shape) for key, value in network.state_dict().items() if value.ndim}
    weights = {key: torch.from_numpy(value) for key, value in recorded_weights(shapes).items()}
    network.load_state_dict(weights, strict=False)
    return network.eval()


TUTORIALS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1_tutorial": TutorialV1,
    "mobilenet_v2_tutorial": lambda: TutorialV2(corrected=True),
    "mobilenet_v2_tutorial_as_coded": lambda: TutorialV2(corrected=False),
}


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_checkpoint_gives_the_tutorials_scores(name: str, tmp_path: Path) -> None:
    reference = filled(TUTORIALS[name]())
    torch.save(reference.state_dict(), tmp_path / "tutorial.pth")
    loaded = build_with_weights(find_spec(name), tmp_path / "tutorial.pth")
    (tmp_path / "tutorial.pth").unlink()  # 170 MB as coded
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert_same_logits(run(loaded.module, image), run(reference, image))


def test_a_tutorial_checkpoint_is_not_taken_for_the_papers_network() -> None:
    with pytest.raises(UsageError, match="is a mobilenet_v1_tutorial") as caught:
        recognise(TutorialV1().state_dict(), find_spec("v1"))
    assert caught.value.hint == "--arch mobilenet_v1_tutorial"
    with pytest.raises(UsageError) as caught:
        recognise(TutorialV2(corrected=True).state_dict(), find_spec("mobilenet_v2_tutorial_as_coded"))
    assert caught.value.hint == "--arch mobilenet_v2_tutorial"


# Embedded and random weights


@pytest.mark.parametrize(("name", "licence"), [("v1", "Apache-2.0"), ("v2", "BSD-3-Clause")])
def test_the_embedded_weights_load(name: str, licence: str) -> None:
    spec = find_spec(name)
    loaded = build_with_weights(spec)
    assert loaded.spec == spec
    assert spec.weights
    assert (loaded.sha256, loaded.origin) == (
        spec.weights.sha256,
        f"embedded {spec.weights.name} ({licence})",
    )
    assert not loaded.module.training
    state = load_embedded(spec)
    assert torch.equal(loaded.module.state_dict()["features.0.0.weight"], state["features.0.0.weight"])
    assert build_with_weights(spec, weights=spec.weights.name).sha256 == loaded.sha256


def test_embedded_weights_that_were_changed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = find_spec("v2")
    assert spec.weights
    source = Path(__file__).parent.parent / "models" / "weights" / spec.weights.file
    data = bytearray(source.read_bytes())
    data[-1] ^= 1
    (tmp_path / spec.weights.file).write_bytes(data)
    monkeypatch.setattr("mobilenet_export.spec.shipped_path", lambda *parts: tmp_path / parts[-1])
    with pytest.raises(DamagedInputError, match="sha256 differs") as caught:
        build_with_weights(spec)
    assert "reinstall" in caught.value.hint


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (resize_spec(find_spec("v2"), 0.5, None, None), "width 0.5"),
        (resize_spec(find_spec("v2"), None, None, 10), "10 classes"),
        (find_spec("mobilenet_v1_tutorial"), "mobilenet_v1_tutorial"),
    ],
    ids=["width", "classes", "tutorial"],
)
def test_a_variant_without_weights_says_which_have_some(spec: ModelSpec, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_with_weights(spec)
    assert caught.value.message == (
        f"no embedded weights for {reason}; mobilenet_v1_100_224, mobilenet_v2_100_224 have them"
    )
    assert caught.value.hint == "--weights none for random weights, or --checkpoint FILE"


@pytest.mark.parametrize(
    ("weights", "message", "hint"),
    [
        (
            "imagenet1k_torchvisoin",
            "unknown weights: imagenet1k_torchvisoin",
            "did you mean imagenet1k_torchvision?",
        ),
        ("imagenet1k_google", "are not mobilenet_v2_100_224's", "--weights none"),
    ],
)
def test_a_wrong_name_of_weights(weights: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        build_with_weights(find_spec("v2"), weights=weights)
    assert hint in caught.value.hint


def test_weights_and_a_checkpoint_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        build_with_weights(find_spec("v2"), tmp_path / "x.pth", "none")


def test_random_weights_have_a_name_and_a_hash() -> None:
    spec = small_spec()
    first, again = (build_with_weights(spec, weights="none") for _ in range(2))
    assert first.origin == "random weights, seed 0"
    assert first.sha256 == again.sha256
    assert first.spec.weights is None


# Files


def small_spec(classes: int = 10) -> ModelSpec:
    return resize_spec(find_spec("v2"), 0.25, 96, classes)


@pytest.fixture(scope="module")
def small_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build(small_spec()).state_dict()


def torch_bytes(content: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_the_content_tells_the_format(
    name: str, kind: str, small_state: dict[str, Tensor], tmp_path: Path
) -> None:
    if kind == "safetensors":
        data = safetensors.torch.save(small_state)
    else:
        data = torch_bytes(small_state, _use_new_zipfile_serialization=kind == "zip")
    (tmp_path / name).write_bytes(data)
    tensors = load_checkpoint(tmp_path / name).tensors
    assert all(torch.equal(tensors[key], small_state[key]) for key in tensors)
    assert len(tensors) == 262


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"ema": {"state_dict": state}},
        lambda state: {"net": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {
            key: value.half().float().double() if value.ndim else value for key, value in state.items()
        },
    ],
    ids=["state_dict", "model", "ema", "net", "prefixes", "float64"],
)
def test_wrappers_and_prefixes_are_taken_off(
    wrap: Any, small_state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(wrap(small_state), tmp_path / "x.pth")
    loaded = build_with_weights(small_spec(), tmp_path / "x.pth")
    for key, tensor in loaded.module.state_dict().items():
        assert torch.allclose(tensor, small_state[key], atol=1e-3)
        assert tensor.dtype == small_state[key].dtype


class Malicious:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("kind", ["zip", "legacy", "protocol 2", "protocol 4", "hidden"])
def test_a_checkpoint_never_runs_code(kind: str, small_state: dict[str, Tensor], tmp_path: Path) -> None:
    trap = Malicious(str(tmp_path / "executed"))
    if kind.startswith("protocol"):
        data = pickle.dumps({"state_dict": trap}, protocol=int(kind[-1]))
    else:
        content = {"state_dict": small_state, "args": trap} if kind == "hidden" else trap
        data = torch_bytes(content, _use_new_zipfile_serialization=kind != "legacy")
    (tmp_path / "evil.safetensors").write_bytes(data)
    with pytest.raises(
        DamagedInputError, match=r"evil\.safetensors: refused, .* run code: posix\.mkdir"
    ) as caught:
        build_with_weights(small_spec(), tmp_path / "evil.safetensors")
    assert "save_file(model.state_dict()" in caught.value.hint
    assert caught.value.exit_code is ExitCode.DAMAGED
    assert not (tmp_path / "executed").exists()


def test_a_whole_pickled_module_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save(TutorialV1(), tmp_path / "module.pth")
    with pytest.raises(DamagedInputError, match=r"test_checkpoint\.TutorialV1"):
        load_checkpoint(tmp_path / "module.pth")


def poisoned(state: dict[str, Tensor], key: str, value: float) -> dict[str, Tensor]:
    tensor = state[key].clone()
    tensor.view(-1)[0] = value
    return {**state, key: tensor}


DAMAGED: dict[str, tuple[Any, str]] = {
    "empty": (b"", "empty file"),
    "text": (
        b"hello, I am a text file",
        "no frozen TensorFlow graph, safetensors file, Keras archive, torch checkpoint or Keras",
    ),
    "page": (b"<!DOCTYPE html><html>", "a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "a git-lfs pointer"),
    "cut safetensors": (
        lambda state: safetensors.torch.save(state)[:5000],
        "truncated or damaged safetensors file",
    ),
    "cut in the data": (
        lambda state: safetensors.torch.save(state)[:-100],
        "truncated or damaged safetensors file",
    ),
    "cut zip": (lambda state: torch_bytes(state)[:-5000], "truncated or damaged torch checkpoint"),
    "cut legacy": (
        lambda state: torch_bytes(state, _use_new_zipfile_serialization=False)[:-5000],
        "truncated or damaged torch checkpoint",
    ),
    "other zip": (b"PK\x03\x04" + bytes(200), "truncated or damaged torch checkpoint"),
    "list": (torch_bytes([1, 2]), "holds a list"),
    "no tensors": (torch_bytes({}), "holds no tensors"),
    "a number": (lambda state: torch_bytes({**state, "epoch": 3}), "'epoch' is a int"),
    "nan": (
        lambda state: torch_bytes(poisoned(state, "features.3.conv.2.weight", float("nan"))),
        "features.3.conv.2.weight holds 1 value that is NaN or infinite",
    ),
    "infinity": (
        lambda state: safetensors.torch.save(poisoned(state, "classifier.1.bias", float("inf"))),
        "classifier.1.bias holds 1 value that is NaN",
    ),
    "variance": (
        lambda state: torch_bytes(poisoned(state, "features.0.1.running_var", -1.0)),
        "features.0.1.running_var holds a negative variance",
    ),
    "integers": (
        lambda state: torch_bytes({**state, "classifier.1.weight": torch.ones(10, 1280, dtype=torch.int8)}),
        "classifier.1.weight is int8",
    ),
    "other network": (
        torch_bytes({f"layer{i}.0.weight": torch.ones(1) for i in range(9)}),
        "no known MobileNet's: layer0.0.weight, layer1.0.weight, layer2.0.weight and 6 more",
    ),
    "missing": (
        lambda state: torch_bytes(
            {key: value for key, value in state.items() if key != "features.18.0.weight"}
        ),
        "does not fit mobilenet_v2 (torchvision keys): missing: features.18.0.weight",
    ),
    "unexpected": (
        lambda state: torch_bytes({**state, "features.19.0.weight": torch.ones(1)}),
        "unexpected: features.19.0.weight",
    ),
    "misshapen": (
        lambda state: torch_bytes({**state, "features.0.0.weight": torch.ones(8, 1, 3, 3)}),
        "of another shape: features.0.0.weight, (8, 1, 3, 3) where the network has (8, 3, 3, 3)",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused(case: str, small_state: dict[str, Tensor], tmp_path: Path) -> None:
    content, message = DAMAGED[case]
    (tmp_path / "x.pth").write_bytes(content if isinstance(content, bytes) else content(small_state))
    with pytest.raises(DamagedInputError) as caught:
        build_with_weights(small_spec(), tmp_path / "x.pth")
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code is ExitCode.DAMAGED


def test_a_zip_whose_names_are_no_text_is_refused(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    """zipfile raises a UnicodeDecodeError of it; found by fuzzing."""
    torch.save(small_state, tmp_path / "x.pth")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 9] |= 0x08  # names are UTF-8
    data[entry + 46] = 0x80
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(DamagedInputError):
        load_checkpoint(tmp_path / "x.pth")


def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    class Archive(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        torch.jit.trace(Archive(), torch.ones(1)).save(tmp_path / "x.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(DamagedInputError, match="a TorchScript program"):
        load_checkpoint(tmp_path / "x.pt")


def wrong_path(tmp_path: Path) -> MnxError:
    with pytest.raises(UsageError) as caught:
        load_checkpoint(tmp_path)
    return caught.value


def test_a_path_that_is_no_file_is_a_usage_error(tmp_path: Path) -> None:
    assert "is a folder" in wrong_path(tmp_path).message
    error = wrong_path(tmp_path / "missing.pth")
    assert error.message == f"no such file: {tmp_path / 'missing.pth'}"
    assert error.exit_code is ExitCode.USAGE


# What does not fit


def test_another_number_of_classes_is_said_with_the_option(
    small_state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(small_state, tmp_path / "x.pth")
    with pytest.raises(UsageError) as caught:
        build_with_weights(small_spec(1000), tmp_path / "x.pth")
    assert caught.value.message == "the checkpoint has 10 classes, not 1000"
    assert caught.value.hint == "--classes 10, or leave it out"


def test_what_is_too_much_is_said_to_be_all(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**small_state, "head.weight": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(DamagedInputError, match=r"unexpected: head\.weight$") as caught:
        build_with_weights(small_spec(), tmp_path / "x.pth")
    assert caught.value.hint.startswith("the rest fits")


def test_a_checkpoint_with_a_moving_average_tells_which_weights_are_taken(
    small_state: dict[str, Tensor], tmp_path: Path
) -> None:
    averaged = {key: tensor * 2 for key, tensor in small_state.items()}
    torch.save({"model": small_state, "model_ema": averaged, "epoch": 3}, tmp_path / "x.pth")
    checkpoint = load_checkpoint(tmp_path / "x.pth")
    assert torch.equal(checkpoint.tensors["classifier.1.bias"], small_state["classifier.1.bias"])
    fitted = fit(checkpoint, small_spec(), Given(classes=10))
    assert fitted.description.endswith(", the weights under model, not model_ema")


def test_the_options_of_a_training_script_may_lie_beside_the_weights(
    small_state: dict[str, Tensor], tmp_path: Path
) -> None:
    """As timm and many others save them; a Namespace runs no code."""
    torch.save({"state_dict": small_state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    assert load_checkpoint(tmp_path / "x.pth").tensors.keys() == {
        key for key in small_state if "num_batches" not in key
    }


def test_another_width_is_said_with_the_option(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(small_state, tmp_path / "x.pth")
    with pytest.raises(UsageError) as caught:
        build_with_weights(resize_spec(find_spec("v2"), 0.5, 96, 10), tmp_path / "x.pth")
    assert caught.value.message == "the checkpoint is of width 0.25, not 0.5"
    assert caught.value.hint == "--width 0.25, or leave it out"


def test_a_head_of_no_sane_shape_is_damaged(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**small_state, "classifier.1.bias": torch.tensor(1.0)}, tmp_path / "x.pth")
    with pytest.raises(DamagedInputError, match=r"of another shape: classifier\.1\.bias"):
        build_with_weights(small_spec(), tmp_path / "x.pth")


def test_another_architecture_is_said_with_the_option(small_state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(small_state, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=r"is a mobilenet_v2 .* mobilenet_v1 was asked for") as caught:
        build_with_weights(resize_spec(find_spec("v1"), 0.25, 96, 10), tmp_path / "x.pth")
    assert caught.value.hint == "--arch v2"


def test_loading_ignores_the_batch_counters(small_state: dict[str, Tensor]) -> None:
    counters = {key: torch.tensor(5) for key in small_state if key.endswith("num_batches_tracked")}
    network = build(small_spec())
    load_into(network, {**small_state, **counters}, OWN)
    assert torch.equal(network.state_dict()["classifier.1.weight"], small_state["classifier.1.weight"])
    assert network.state_dict()["features.0.1.num_batches_tracked"] == 0
