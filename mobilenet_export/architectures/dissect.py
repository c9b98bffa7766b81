"""A variant's layers from its table, in milliseconds and without torch."""

from collections.abc import Iterator

from mobilenet_export.anatomy import Anatomy, Layer, Tensor
from mobilenet_export.architectures.plans import Block, Kernel, plan
from mobilenet_export.graph import Activation
from mobilenet_export.inspection import Inspection
from mobilenet_export.spec import ModelSpec, find_spec, resize_spec


def dissect(spec: ModelSpec) -> Anatomy:
    """Return what the variant's network is made of: the layers, names and shapes that `capture` finds in torch.

    Raises:
        UsageError: No such architecture; the hint names the nearest.
    """
    image = Tensor("input", spec.input_shape)
    return Anatomy(spec.name, image, tuple(_layers(spec, image)))


def trainable(spec: ModelSpec) -> int:
    """Return how many numbers the variant's training adjusts.

    Files hold one bias a channel, into which BatchNorm's two numbers, and a bias before it, are folded.

    Raises:
        UsageError: No such architecture; the hint names the nearest.
    """
    found = dissect(spec)
    channels = sum(layer.biases for layer in found.layers if layer.operator != "linear")
    return found.parameters + channels * (2 if plan(spec).bias else 1)


def inspect_variant(spec: ModelSpec) -> Inspection:
    """Return the variant's layers, and both networks at its size.

    Raises:
        UsageError: No such architecture; the hint names the nearest.
    """
    found = dissect(spec)
    return Inspection("variant", found, networks=side_by_side(spec, found))


def side_by_side(spec: ModelSpec, found: Anatomy) -> tuple[Anatomy, Anatomy]:
    """Return V1 and V2: the one that `found` is of as it is, the other as published, at the variant's size."""
    first, second = (
        resize_spec(find_spec(name), spec.width, spec.resolution_px, spec.classes) for name in ("v1", "v2")
    )
    if spec.architecture.startswith(first.architecture):
        return found, dissect(second)
    return dissect(first), found


def _layers(spec: ModelSpec, source: Tensor) -> Iterator[Layer]:
    network = plan(spec)
    for index, block in enumerate(network.blocks):
        entry = source
        for layer in _convolutions(block, network.activation, source):
            yield layer
            source = layer.output
        if block.adds_input:
            name = f"features.{index}.add"
            yield Layer(name, "add", (entry, source), Tensor(name, source.shape))
            source = Tensor(name, source.shape)
    pooled = Tensor("pool", (network.channels,))
    yield Layer("pool", "pool", (source,), pooled)
    logits = Tensor("classifier.1", (spec.classes,))
    weight = (spec.classes, network.channels)
    yield Layer("classifier.1", "linear", (pooled,), logits, weight, biases=spec.classes)
    if spec.softmax:
        yield Layer("softmax", "softmax", (logits,), Tensor("softmax", (spec.classes,)))


def _convolutions(block: Block, activation: Activation, source: Tensor) -> Iterator[Layer]:
    for kernel, name in zip(block.kernels, block.names, strict=True):
        linear = block.linear and kernel is block.kernels[-1]
        layer = _convolution(kernel, name, Activation.NONE if linear else activation, source)
        yield layer
        source = layer.output


def _convolution(kernel: Kernel, name: str, activation: Activation, source: Tensor) -> Layer:
    """A convolution that keeps the size at stride 1 and halves it at stride 2, rounded up."""
    height, width = (-(-size // kernel.stride) for size in source.shape[1:])
    return Layer(
        name,
        "depthwise" if kernel.depthwise else "conv",
        (source,),
        Tensor(name, (kernel.outputs, height, width)),
        (kernel.outputs, 1 if kernel.depthwise else kernel.inputs, kernel.size, kernel.size),
        biases=kernel.outputs,
        stride=(kernel.stride, kernel.stride),
        activation=activation.value,
    )
