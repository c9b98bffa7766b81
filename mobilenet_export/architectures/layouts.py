"""How other people name the same layers, and what their networks differ in.

All of these networks are one chain of convolution and BatchNorm pairs that ends in a linear layer. A layout
therefore is the list of its prefixes in the order of the network, laid beside ours in the same order.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mobilenet_export.architectures import ARCHITECTURES, build
from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.architectures.checkpoint_file import is_counter
from mobilenet_export.architectures.plans import STAGES
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.spec import ModelSpec, Padding, read_spec, spec_paths

SMALLEST_OVERLAP = 0.5
"""Share of keys in common below which a checkpoint is said to be of another kind of network."""

Shapes = dict[str, tuple[int, ...]]
"""Key → shape of its tensor."""

PUBLISHED_WIDTHS = (0.25, 0.35, 0.5, 0.75, 1.0, 1.1, 1.2, 1.25, 1.3, 1.4)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the layers in one family of checkpoints.

    Attributes:
        name: Of the layout.
        architectures: That are written in it.
        prefixes: Of convolution, BatchNorm, …, linear layer, in the network's order; `None` for our own.
        padding: That its networks are trained with; `None` where the variant decides.
        batch_norm_eps: That its networks are trained with; `None` where the variant decides.
    """

    name: str
    architectures: tuple[str, ...]
    prefixes: tuple[str, ...] | None = None
    padding: Padding | None = None
    batch_norm_eps: float | None = None


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


def _within(prefix: str, *names: str) -> Iterator[str]:
    return (f"{prefix}.{name}" for name in names)


OWN = Layout("own", tuple(ARCHITECTURES))
LAYOUTS = (
    OWN,
    Layout("timm_v1", ("mobilenet_v1",), tuple(_timm_v1()), "symmetric", 1e-5),
    Layout("timm_v2", ("mobilenet_v2",), tuple(_timm_v2()), "symmetric", 1e-5),
    Layout("tutorial_v1", ("mobilenet_v1_tutorial",), tuple(_tutorial_v1()), "symmetric", 1e-5),
    Layout(
        "tutorial_v2",
        ("mobilenet_v2_tutorial", "mobilenet_v2_tutorial_as_coded"),
        tuple(_tutorial_v2()),
        "symmetric",
        1e-5,
    ),
)
"""`own` is torchvision's for MobileNetV2 and the README's of the weights for MobileNetV1.

Source: timm 1.0.31, models/efficientnet.py, `mobilenetv1_100` and `mobilenetv2_100`.
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
    """Return the layout that a checkpoint's keys are written in.

    Raises:
        UsageError: They are another architecture's; the hint names it.
        DamagedInputError: They are no MobileNet's.
    """
    found = {key for key in keys if not is_counter(key)}
    overlaps = {
        (layout, architecture): _overlap(found, layout, architecture, spec)
        for layout in LAYOUTS
        for architecture in layout.architectures
    }
    best = max(overlaps.values())
    if best < SMALLEST_OVERLAP:
        raise DamagedInputError(
            f"the checkpoint's keys are no known MobileNet's: {_first(found)}",
            f"known layouts: {', '.join(layout.name for layout in LAYOUTS)}",
        )
    winners = {architecture: layout for (layout, architecture), share in overlaps.items() if share == best}
    if spec.architecture not in winners:
        other = next(iter(winners))
        message = (
            f"the checkpoint is a {other} ({winners[other].name} keys), {spec.architecture} was asked for"
        )
        raise UsageError(message, f"--arch {_shortest_name(other)}")
    return winners[spec.architecture]


def _overlap(found: set[str], layout: Layout, architecture: str, spec: ModelSpec) -> float:
    expected = set(key_map(outline(dataclasses.replace(spec, architecture=architecture)), layout))
    return len(found & expected) / len(found | expected)


def _first(keys: Iterable[str], count: int = 3) -> str:
    names = sorted(keys)
    rest = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + rest


def _shortest_name(architecture: str) -> str:
    for spec in map(read_spec, spec_paths()):
        if spec.architecture == architecture:
            return spec.alias or spec.name
    return architecture


def adapt_spec(spec: ModelSpec, layout: Layout) -> ModelSpec:
    """Return the variant with the padding and BatchNorm eps that the layout's networks are trained with."""
    return dataclasses.replace(
        spec,
        padding=layout.padding or spec.padding,
        batch_norm_eps=layout.batch_norm_eps or spec.batch_norm_eps,
    )


def check_fit(network: Classifier, shapes: Shapes, layout: Layout) -> None:
    """Refuse a checkpoint whose keys and shapes are not exactly the network's.

    Args:
        network: That the weights are for.
        shapes: Of the checkpoint's tensors, by the layout's keys.
        layout: Of the keys.

    Raises:
        UsageError: It has another number of classes.
        DamagedInputError: Keys are missing, unexpected or of another shape; the hint names what would fit.
    """
    expected, head = _expected_shapes(network, layout)
    wrong = {key for key in expected.keys() & shapes.keys() if expected[key] != shapes[key]}
    kinds = {
        "missing": expected.keys() - shapes.keys(),
        "unexpected": shapes.keys() - expected.keys(),
        "of another shape": wrong,
    }
    faults = "; ".join(f"{kind}: {_first(keys)}" for kind, keys in kinds.items() if keys)
    if not faults:
        return
    classes = _class_count(shapes, expected, head)
    if classes and expected.keys() == shapes.keys() and wrong <= head:
        message = f"checkpoint has {classes} classes, the variant has {network.spec.classes}"
        raise UsageError(message, f"--classes {classes}")
    message = f"the checkpoint does not fit {network.spec.architecture} ({layout.name} keys): {faults}"
    raise DamagedInputError(message, _what_fits(network.spec, shapes, layout))


def _expected_shapes(network: Classifier, layout: Layout) -> tuple[Shapes, set[str]]:
    """Return the shapes by the layout's keys, and which of the keys are the linear layer's."""
    state = network.state_dict()
    mapping = key_map(network, layout)
    head = {theirs for theirs, ours in mapping.items() if ours.startswith("classifier.")}
    return {theirs: tuple(state[ours].shape) for theirs, ours in mapping.items()}, head


def _class_count(shapes: Shapes, expected: Shapes, head: set[str]) -> int | None:
    """Return for how many classes the linear layer's shapes are, if that is all that differs in them."""
    found = {key: shapes.get(key, ()) for key in head}
    alike = all(shape and shape[1:] == expected[key][1:] for key, shape in found.items())
    counts = {shape[0] for shape in found.values() if shape}
    return counts.pop() if alike and len(counts) == 1 else None


def _what_fits(spec: ModelSpec, shapes: Shapes, layout: Layout) -> str:
    """Return the hint: the published width, if any, at which all shapes but the class count would fit."""
    for width in PUBLISHED_WIDTHS:
        expected, head = _expected_shapes(outline(dataclasses.replace(spec, width=width)), layout)
        if expected.keys() != shapes.keys():
            break
        classes = _class_count(shapes, expected, head)
        if classes and all(expected[key] == shapes[key] for key in expected.keys() - head):
            return f"--width {width}" + (f" --classes {classes}" if classes != spec.classes else "")
    return (
        f"nearest: {spec.architecture} at width {spec.width}; check --arch and --width, or the training code"
    )
