"""How other people name the same layers, and what their networks differ in.

All of these networks are one chain of convolution and BatchNorm pairs that ends in a linear layer. A layout
therefore is the list of its prefixes in the order of the network, laid beside ours in the same order.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from mobilenet_export.architectures import ARCHITECTURES, build
from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.architectures.checkpoint_file import is_counter
from mobilenet_export.architectures.plans import STAGES
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.spec import (
    LARGEST_WIDTH,
    SMALLEST_WIDTH,
    Given,
    ModelSpec,
    Padding,
    read_spec,
    resize_spec,
    spec_paths,
)

SMALLEST_OVERLAP = 0.5
"""Share of keys in common below which a checkpoint is said to be of another kind of network."""

Shapes = Mapping[str, tuple[int, ...]]
"""Key → shape of its tensor."""

PUBLISHED_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.1, 1.2, 1.25, 1.3, 1.4)
_WIDTH_STEP, _WIDTH_REACH = 0.01, 0.08
"""How finely, and how far around the ratio of channels, other widths are tried."""

_LINEAR_WEIGHT = "classifier.1.weight"

BACKGROUND_CLASSES = 1001
"""Of networks that count "background" as class 0 before ImageNet's 1000."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the layers in one family of checkpoints.

    Attributes:
        name: Of the layout.
        architectures: That are written in it.
        title: What people call such a network; `{percent}` stands for its width.
        prefixes: Of convolution, BatchNorm, …, linear layer, in the network's order; `None` for our own.
        padding: That its networks are trained with; `None` where the variant decides.
        batch_norm_eps: That its networks are trained with; `None` where the variant decides.
        normalization: Mean and std of all channels that they are trained with; `None` where the variant decides.
        background: Whether 1001 classes are ImageNet's 1000 after a class 0 that is none of them.
    """

    name: str
    architectures: tuple[str, ...]
    title: str
    prefixes: tuple[str, ...] | None = None
    padding: Padding | None = None
    batch_norm_eps: float | None = None
    normalization: float | None = None
    background: bool = False


def _timm_v1() -> Iterator[str]:
    yield from ("conv_stem", "bn1")
    for stage, repeats in enumerate((1, 2, 2, 6, 2)):
        for block in range(repeats):
            yield from _within(f"blocks.{stage}.{block}", "conv_dw", "bn1", "conv_pw", "bn2")
    yield "classifier"


def _timm_v2() -> Iterator[str]:
    yield from ("conv_stem", "bn1")
    for stage, (expansion, _, repeats, _) in enumerate(STAGES):
        for block in range(repeats):
            layers = ["conv_dw", "bn1", "conv_pw", "bn2"]
            if expansion != 1:
                layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
            yield from _within(f"blocks.{stage}.{block}", *layers)
    yield from ("conv_head", "bn2", "classifier")


def _tutorial_v1() -> Iterator[str]:
    yield from ("conv1", "bn1")
    for block in range(13):
        yield from _within(f"layers.{block}", "conv1", "bn1", "conv2", "bn2")
    yield "linear"


def _tutorial_v2() -> Iterator[str]:
    yield from _within("conv1", "0", "1")
    for block in range(17):
        for part in ("conv1x1_1", "conv3x3", "conv1x1_2"):
            yield from _within(f"layers.{block}.{part}", "0", "1")
    yield from (*_within("conv2", "0", "1"), "linear.0")


def _keras_v1() -> Iterator[str]:
    yield from ("conv1", "conv1_bn")
    for block in range(1, 14):
        for part in ("dw", "pw"):
            yield from (f"conv_{part}_{block}", f"conv_{part}_{block}_bn")
    yield LINEAR


def _keras_v2() -> Iterator[str]:
    yield from ("Conv1", "bn_Conv1")
    for block in range(17):
        name = f"block_{block}" if block else "expanded_conv"
        for part in ("expand", "depthwise", "project")[block == 0 :]:
            yield from (f"{name}_{part}", f"{name}_{part}_BN")
    yield from ("Conv_1", "Conv_1_bn", LINEAR)


def _slim_v1() -> Iterator[str]:
    yield from _slim("MobilenetV1/Conv2d_0")
    for block in range(1, 14):
        for part in ("depthwise", "pointwise"):
            yield from _slim(f"MobilenetV1/Conv2d_{block}_{part}")
    yield "MobilenetV1/Logits/Conv2d_1c_1x1"


def _slim_v2() -> Iterator[str]:
    yield from _slim("MobilenetV2/Conv")
    for block in range(17):
        name = f"MobilenetV2/expanded_conv_{block}" if block else "MobilenetV2/expanded_conv"
        for part in ("expand", "depthwise", "project")[block == 0 :]:
            yield from _slim(f"{name}/{part}")
    yield from (*_slim("MobilenetV2/Conv_1"), "MobilenetV2/Logits/Conv2d_1c_1x1")


def _slim(layer: str) -> tuple[str, str]:
    return layer, f"{layer}/BatchNorm"


def _onnx_v1(activation: str) -> Iterator[str]:
    kinds = ("dense3", *("depthwise3", "dense1") * 13)
    return _numbered((kind, activation) for kind in kinds)


def _onnx_v2(*, expand_by_one: bool) -> Iterator[str]:
    block = (("dense1", "relu6"), ("depthwise3", "relu6"), ("dense1", "none"))
    first = block if expand_by_one else block[1:]
    return _numbered((("dense3", "relu6"), *first, *block * 16, ("dense1", "relu6")))


def _numbered(kinds: Iterable[tuple[str, str]]) -> Iterator[str]:
    for index, kind in enumerate(kinds):
        yield from numbered_layer(index, *kind)
    yield LINEAR


def numbered_layer(index: int, kind: str, activation: str) -> tuple[str, str]:
    """Return the prefixes of a convolution and its BatchNorm in a file whose own names mean nothing."""
    return f"{index}.{kind}.{activation}", f"{index}.norm"


def _within(prefix: str, *names: str) -> Iterator[str]:
    return (f"{prefix}.{name}" for name in names)


LINEAR = "linear"
"""Of the linear layer, in files where its name means nothing."""

TORCHVISION = Layout("torchvision", ("mobilenet_v2",), "torchvision mobilenet_v2")
OWN = Layout("own", tuple(ARCHITECTURES), "our own form of {architecture}")
LAYOUTS = (
    dataclasses.replace(OWN, architectures=tuple(name for name in ARCHITECTURES if name != "mobilenet_v2")),
    TORCHVISION,
    Layout(
        "timm_v1",
        ("mobilenet_v1",),
        "timm mobilenetv1_{percent}",
        tuple(_timm_v1()),
        "symmetric",
        1e-5,
    ),
    Layout(
        "timm_v2",
        ("mobilenet_v2",),
        "timm mobilenetv2_{percent}",
        tuple(_timm_v2()),
        "symmetric",
        1e-5,
    ),
    Layout(
        "tutorial_v1",
        ("mobilenet_v1_tutorial",),
        "the tutorial's MobileNetV1",
        tuple(_tutorial_v1()),
        "symmetric",
        1e-5,
    ),
    Layout(
        "tutorial_v2",
        ("mobilenet_v2_tutorial", "mobilenet_v2_tutorial_as_coded"),
        "the tutorial's MobileNetV2",
        tuple(_tutorial_v2()),
        "symmetric",
        1e-5,
    ),
    Layout("keras_v1", ("mobilenet_v1",), "Keras MobileNet", tuple(_keras_v1()), "tensorflow", 1e-3, 0.5),
    Layout("keras_v2", ("mobilenet_v2",), "Keras MobileNetV2", tuple(_keras_v2()), "tensorflow", 1e-3, 0.5),
    Layout(
        "slim_v1", ("mobilenet_v1",), "TF-slim MobilenetV1", tuple(_slim_v1()), "tensorflow", 1e-3, 0.5, True
    ),
    Layout(
        "slim_v2", ("mobilenet_v2",), "TF-slim MobilenetV2", tuple(_slim_v2()), "tensorflow", 1e-3, 0.5, True
    ),
    Layout("onnx_v1", ("mobilenet_v1",), "a MobileNetV1 in ONNX", tuple(_onnx_v1("relu6")), None, 1e-5),
    Layout(
        "onnx_v2",
        ("mobilenet_v2",),
        "a MobileNetV2 in ONNX",
        tuple(_onnx_v2(expand_by_one=False)),
        None,
        1e-5,
    ),
    Layout(
        "onnx_tutorial_v1",
        ("mobilenet_v1_tutorial",),
        "the tutorial's MobileNetV1 in ONNX",
        tuple(_onnx_v1("relu")),
        None,
        1e-5,
    ),
    Layout(
        "onnx_tutorial_v2",
        ("mobilenet_v2_tutorial",),
        "the tutorial's MobileNetV2 in ONNX",
        tuple(_onnx_v2(expand_by_one=True)),
        None,
        1e-5,
    ),
)
"""Our own keys are torchvision's for MobileNetV2, and alike for the others.

Source: timm 1.0.31, models/efficientnet.py, `mobilenetv1_100` and `mobilenetv2_100`; keras 3.15,
applications/mobilenet.py and mobilenet_v2.py; tensorflow/models, research/slim/nets/mobilenet_v1.py and
mobilenet/mobilenet_v2.py.
"""


def outline(spec: ModelSpec) -> Classifier:
    """Return the variant's network without memory for its weights: names and shapes only."""
    with torch.device("meta"):
        return build(spec)


def key_map(network: Classifier, layout: Layout) -> dict[str, str]:
    """Return the layout's keys → ours, for one network."""
    layers = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear)
    ]
    prefixes = layout.prefixes or tuple(name for name, _ in layers)
    return {
        f"{theirs}.{part}": f"{ours}.{part}"
        for theirs, (ours, module) in zip(prefixes, layers, strict=True)
        for part in module.state_dict()
        if not is_counter(part)
    }


def recognise(keys: Iterable[str], spec: ModelSpec) -> Layout:
    """Return the layout that a checkpoint's keys are written in, for the variant's architecture.

    Raises:
        UsageError: They are another architecture's; the hint names it.
        DamagedInputError: They are no MobileNet's.
    """
    found = _recognised(keys)
    if spec.architecture not in found:
        other = next(iter(found))
        message = f"the checkpoint is a {other} ({found[other].name} keys), {spec.architecture} was asked for"
        raise UsageError(message, f"--arch {_shortest_name(other)}")
    return found[spec.architecture]


def find_variant(keys: Iterable[str]) -> ModelSpec:
    """Return the shipped variant whose architecture a checkpoint's keys are of.

    Raises:
        UsageError: They are those of several; the hint names them.
        DamagedInputError: They are no MobileNet's.
    """
    architectures = list(_recognised(keys))
    if len(architectures) > 1:
        raise UsageError(
            f"the checkpoint's keys are those of {' and '.join(architectures)}",
            " or ".join(f"--arch {_shortest_name(name)}" for name in architectures),
        )
    return shipped_variant(architectures[0])


def _recognised(keys: Iterable[str]) -> dict[str, Layout]:
    """Return the architectures that share the most keys with a checkpoint, with their layouts."""
    found = {key for key in keys if not is_counter(key)}
    overlaps = {
        (layout, architecture): _overlap(found, _expected_keys(layout, architecture))
        for layout in LAYOUTS
        for architecture in layout.architectures
    }
    best = max(overlaps.values())
    if best < SMALLEST_OVERLAP:
        raise DamagedInputError(
            f"the checkpoint's keys are no known MobileNet's: {_first(found)}",
            f"known layouts: {', '.join(layout.name for layout in LAYOUTS)}",
        )
    return {architecture: layout for (layout, architecture), share in overlaps.items() if share == best}


@functools.cache
def _expected_keys(layout: Layout, architecture: str) -> frozenset[str]:
    return frozenset(key_map(outline(shipped_variant(architecture)), layout))


def _overlap(found: set[str], expected: frozenset[str]) -> float:
    return len(found & expected) / len(found | expected)


def _first(keys: Iterable[str], count: int = 3) -> str:
    names = sorted(keys)
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


@functools.cache
def shipped_variant(architecture: str) -> ModelSpec:
    """Return the first shipped variant of an architecture."""
    return next(spec for spec in map(read_spec, spec_paths()) if spec.architecture == architecture)


def _shortest_name(architecture: str) -> str:
    spec = shipped_variant(architecture)
    return spec.alias or spec.name


def adapt_spec(spec: ModelSpec, layout: Layout, given: Given = Given()) -> ModelSpec:  # noqa: B008 (frozen)
    """Return the variant with the padding, BatchNorm eps and normalization that the layout's networks have.

    What the user has given goes before the layout's.
    """
    usual = layout.normalization
    mean = given.mean or ((usual, usual, usual) if usual else spec.preprocess.mean)
    std = given.std or ((usual, usual, usual) if usual else spec.preprocess.std)
    return dataclasses.replace(
        spec,
        padding=given.padding or layout.padding or spec.padding,
        batch_norm_eps=given.batch_norm_eps or layout.batch_norm_eps or spec.batch_norm_eps,
        preprocess=dataclasses.replace(spec.preprocess, mean=mean, std=std),
    )


def adapt_size(spec: ModelSpec, shapes: Shapes, layout: Layout, given: Given) -> ModelSpec:
    """Return the variant at the width and number of classes that a checkpoint's shapes are of.

    Raises:
        UsageError: They are not those that the user has given, or the resolution is out of range.
    """
    width, fits = _nearest_width(spec, shapes, layout, given.width)
    if fits and given.width not in (None, width):
        raise UsageError(
            f"the checkpoint is of width {width:g}, not {given.width:g}",
            f"--width {width:g}, or leave it out",
        )
    linear = linear_key(spec, layout)
    classes = (shapes.get(linear) or (spec.classes,))[0]
    if given.classes not in (None, classes):
        raise UsageError(
            f"the checkpoint has {classes} classes, not {given.classes}",
            f"--classes {classes}, or leave it out",
        )
    return resize_spec(spec, width if fits else given.width or width, given.resolution_px, classes)


def linear_key(spec: ModelSpec, layout: Layout) -> str:
    """Return the key of the linear layer's weight, (classes, features)."""
    return next(theirs for theirs, ours in key_map(outline(spec), layout).items() if ours == _LINEAR_WEIGHT)


def _nearest_width(
    spec: ModelSpec, shapes: Shapes, layout: Layout, given: float | None
) -> tuple[float, bool]:
    """Return the width whose network has most of the checkpoint's channels, and whether it has all.

    Of widths that fit alike, such as 0.99 and 1 on narrow layers, the one given goes first, then the variant's.
    """
    best, most = spec.width, -1
    for width in _widths(spec, shapes, layout, given):
        expected = _channels(dataclasses.replace(spec, width=width), layout)
        fitting = sum(shapes.get(key) == shape for key, shape in expected.items())
        if fitting == len(expected):
            return width, True
        if fitting > most:
            best, most = width, fitting
    return best, False


def _widths(spec: ModelSpec, shapes: Shapes, layout: Layout, given: float | None) -> Iterator[float]:
    """Yield widths to try: the one given, the variant's, the usual ones, and then those around the channels'."""
    yield from dict.fromkeys(width for width in (given, spec.width, *PUBLISHED_WIDTHS) if width)
    full = _channels(dataclasses.replace(spec, width=1.0), layout)
    near = median(shapes[key][0] / full[key][0] for key in full if shapes.get(key))
    for step in range(round(SMALLEST_WIDTH / _WIDTH_STEP), round(LARGEST_WIDTH / _WIDTH_STEP) + 1):
        if abs(step * _WIDTH_STEP - near) <= _WIDTH_REACH:
            yield round(step * _WIDTH_STEP, 2)


def _channels(spec: ModelSpec, layout: Layout) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all but the linear layer by the layout's keys."""
    network = outline(spec)
    state = network.state_dict()
    return {
        theirs: tuple(state[ours].shape)
        for theirs, ours in key_map(network, layout).items()
        if not ours.startswith("classifier.")
    }


def check_fit(network: Classifier, shapes: Shapes, layout: Layout) -> None:
    """Refuse a checkpoint whose keys and shapes are not exactly the network's.

    Args:
        network: That the weights are for.
        shapes: Of the checkpoint's tensors, by the layout's keys.
        layout: Of the keys.

    Raises:
        DamagedInputError: Keys are missing, unexpected or of another shape.
    """
    state = network.state_dict()
    expected = {theirs: tuple(state[ours].shape) for theirs, ours in key_map(network, layout).items()}
    kinds = {
        "missing": expected.keys() - shapes.keys(),
        "unexpected": shapes.keys() - expected.keys(),
        "of another shape": {
            f"{key}, {shapes[key]} where the network has {expected[key]}"
            for key in expected.keys() & shapes.keys()
            if expected[key] != shapes[key]
        },
    }
    faults = {kind: _first(keys) for kind, keys in kinds.items() if keys}
    if faults:
        spec = network.spec
        hint = f"compared with width {spec.width:g}; check the training code, or --arch and --width"
        if list(faults) == ["unexpected"]:
            hint = "the rest fits: save the checkpoint without these, if the network does without them"
        found = "; ".join(f"{kind}: {keys}" for kind, keys in faults.items())
        raise DamagedInputError(
            f"the checkpoint does not fit {spec.architecture} ({layout.name} keys): {found}", hint
        )
