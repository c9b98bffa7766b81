"""The networks: sizes against published ones, paddings, and random weights that are worth a measurement."""

import dataclasses
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from mobilenet_export.architectures import ARCHITECTURES, build
from mobilenet_export.architectures.blocks import Design, convolution
from mobilenet_export.architectures.dissect import dissect, trainable
from mobilenet_export.architectures.initialize import LOGITS_STD, initialize, mosaics
from mobilenet_export.architectures.layouts import outline
from mobilenet_export.architectures.plans import Kernel, make_divisible, scaled_channels
from mobilenet_export.errors import UsageError
from mobilenet_export.spec import ModelSpec, Padding, find_spec, read_spec, resize_spec, spec_paths

SHIPPED = [read_spec(path) for path in spec_paths()]


def count_parameters(spec: ModelSpec) -> int:
    return sum(parameter.numel() for parameter in outline(spec).parameters())


def count_macs(spec: ModelSpec) -> int:
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        counts.append(module.weight.numel() * output[0, 0].numel())

    network = outline(spec)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    network(torch.empty(1, *spec.input_shape, device="meta"))
    return sum(counts)


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_parameters_and_macs_are_the_networks(spec: ModelSpec) -> None:
    assert (count_parameters(spec), count_macs(spec)) == (spec.parameters, spec.macs)


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
@pytest.mark.parametrize(("width", "resolution_px", "classes"), [(None, None, None), (0.35, 128, 7)])
def test_both_are_counted_without_torch(
    spec: ModelSpec, width: float | None, resolution_px: int | None, classes: int | None
) -> None:
    px = None if spec.fixed_resolution else resolution_px
    resized = resize_spec(spec, width, px, classes)
    assert (trainable(resized), dissect(resized).macs) == (count_parameters(resized), count_macs(resized))


@pytest.mark.parametrize(
    ("width", "million_macs", "million_parameters"),
    [(1.0, 569, 4.2), (0.75, 325, 2.6), (0.5, 149, 1.3), (0.25, 41, 0.5)],
)
def test_v1_has_the_published_sizes(width: float, million_macs: int, million_parameters: float) -> None:
    """Source: Howard et al. 2017, table 6."""
    spec = resize_spec(find_spec("v1"), width, None, 1001)
    assert round(count_parameters(spec) / 1e6, 1) == million_parameters
    assert round(count_macs(spec) / 1e6) == pytest.approx(million_macs, abs=1)


@pytest.mark.parametrize(
    ("width", "parameters"),
    [
        (0.25, 1519112),
        (0.35, 1677128),
        (0.5, 1968680),
        (0.75, 2636424),
        (1.0, 3504872),
        (1.3, 5386792),
        (1.4, 6108776),
    ],
)
def test_v2_has_torchvisions_sizes(width: float, parameters: int) -> None:
    """Recorded from torchvision 0.29.1, `mobilenet_v2(width_mult=width)`."""
    assert count_parameters(resize_spec(find_spec("v2"), width, None, None)) == parameters


def test_channels_are_rounded_as_published() -> None:
    assert [make_divisible(c) for c in (1, 8, 11.2, 12, 18, 33.6, 44.8)] == [8, 8, 16, 16, 24, 32, 48]
    assert [scaled_channels(32, width) for width in (0.2, 0.35, 0.5, 1.4)] == [8, 11, 16, 44]


@pytest.mark.parametrize("spec", SHIPPED, ids=lambda spec: spec.name)
def test_one_row_of_scores_per_image_in_eval_mode(spec: ModelSpec) -> None:
    network = outline(spec)
    assert not network.training
    assert network(torch.empty(2, *spec.input_shape, device="meta")).shape == (2, spec.classes)


@pytest.mark.parametrize("name", ["v1", "v2"])
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
@pytest.mark.parametrize("resolution_px", [96, 224, 320])
def test_five_halvings_at_every_resolution(name: str, padding: Padding, resolution_px: int) -> None:
    spec = dataclasses.replace(resize_spec(find_spec(name), None, resolution_px, None), padding=padding)
    features = outline(spec).features(torch.empty(1, *spec.input_shape, device="meta"))
    assert features.shape[2:] == (resolution_px // 32, resolution_px // 32)


def test_the_paddings_look_at_other_pixels() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    seen = {}
    paddings: tuple[Padding, Padding] = ("symmetric", "tensorflow")
    for padding in paddings:
        layer = convolution(Kernel(1, 1, size=3, stride=2), Design(padding, 1e-5))
        with torch.no_grad():
            layer.weight.zero_()
            layer.weight[0, 0, 0, 0] = 1  # the top left pixel under the kernel
            seen[padding] = layer(image)[0, 0]
    assert torch.equal(seen["tensorflow"], image[0, 0, ::2, ::2])
    assert torch.equal(seen["symmetric"][1:, 1:], image[0, 0, 1:-1:2, 1:-1:2])
    assert not seen["symmetric"][0].any()


def test_the_padding_leaves_the_keys_alone() -> None:
    spec = find_spec("v1")
    keys = [
        list(outline(dataclasses.replace(spec, padding=p)).state_dict()) for p in ("symmetric", "tensorflow")
    ]
    assert keys[0] == keys[1]


def test_the_specs_epsilon_is_in_every_batch_norm() -> None:
    network = outline(dataclasses.replace(find_spec("v2"), batch_norm_eps=0.5))
    assert {module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)} == {0.5}


def test_an_unknown_architecture_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="unknown architecture: mobilenet_v3") as caught:
        build(dataclasses.replace(find_spec("v2"), architecture="mobilenet_v3"))
    assert "did you mean mobilenet_v" in caught.value.hint


def test_every_variant_has_a_known_architecture_and_the_names_need_no_torch() -> None:
    assert {spec.architecture for spec in SHIPPED} == set(ARCHITECTURES)
    code = "import sys, mobilenet_export.architectures; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


SMALL = ["v1", "v2", "mobilenet_v1_tutorial"]


def small_spec(name: str) -> ModelSpec:
    spec = dataclasses.replace(find_spec(name), fixed_resolution=False, softmax=False)
    return resize_spec(spec, 0.25, 96, 20)


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_are_the_seeds(name: str) -> None:
    first, again, other = (build(small_spec(name)) for _ in range(3))
    for network, seed in ((first, 7), (again, 7), (other, 8)):
        initialize(network, seed)
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    )
    key = "features.0.0.weight"
    assert not torch.equal(first.state_dict()[key], other.state_dict()[key])
    assert not first.training


@pytest.mark.parametrize("name", SMALL)
def test_random_weights_are_well_conditioned(name: str) -> None:
    """Grain of 0.01 moves trained logits by 0.05 to 0.1 of their std, plain He-normal ones by 0.7 to 1.1."""
    spec = small_spec(name)
    network = build(spec)
    initialize(network, 0)
    images = mosaics(spec, torch.Generator().manual_seed(99))
    noise = 0.01 * torch.randn(images.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        logits, noisy = network(images), network(images + noise)
    assert float(logits.std()) == pytest.approx(LOGITS_STD, rel=0.4)
    assert float((noisy - logits).std() / logits.std()) < 0.3
    assert len(logits.argmax(1).unique()) > 5, "different images have different classes"
