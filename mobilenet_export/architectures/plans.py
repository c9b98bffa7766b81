"""The networks as tables, without torch: what the modules are built from, and what `mnx inspect` counts.

V1: a stem and 13 pairs of depthwise 3×3 and pointwise 1×1 convolutions. V2: a stem, 17 inverted residuals (expand
1×1, depthwise 3×3, project 1×1 without activation), and a 1×1 head.

Source: Howard et al. 2017, "MobileNets", arXiv 1704.04861, table 1 (it prints the last depthwise stride as 2; its
own sizes and the authors' code say 1); Sandler et al. 2018, "MobileNetV2", arXiv 1801.04381, table 2 and figure 3.
"""

from dataclasses import dataclass

from mobilenet_export.errors import unknown_name
from mobilenet_export.graph import Activation
from mobilenet_export.spec import ModelSpec

STEM_CHANNELS, HEAD_CHANNELS = 32, 1280

# V1: channels, stride of the depthwise convolution, repeats.
BODY = (
    (64, 1, 1),
    (128, 2, 1),
    (128, 1, 1),
    (256, 2, 1),
    (256, 1, 1),
    (512, 2, 1),
    (512, 1, 5),
    (1024, 2, 1),
    (1024, 1, 1),
)

V1_ACTIVATIONS = {"mobilenet_v1": Activation.RELU6, "mobilenet_v1_tutorial": Activation.RELU}
"""The paper says ReLU; the authors' published weights were trained with ReLU6."""

# V2, table 2: expansion, channels, repeats, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

# The tutorial's code halves the size one stage later than the paper: at 96 channels, not at 64.
STAGES_AS_CODED = (*STAGES[:3], (6, 64, 4, 1), (6, 96, 3, 2), *STAGES[5:])


@dataclass(frozen=True, slots=True)
class Kernel:
    """One convolution: channels in and out, size and stride in px, one filter per channel or dense."""

    inputs: int
    outputs: int
    size: int = 1
    stride: int = 1
    depthwise: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Convolutions in a row, each followed by a BatchNorm.

    Attributes:
        kernels: In order.
        names: Path of each in the module.
        linear: Whether the last one goes without an activation.
        adds_input: Whether the block's input is added to what comes out.
    """

    kernels: tuple[Kernel, ...]
    names: tuple[str, ...]
    linear: bool = False
    adds_input: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A network up to the pool; a linear layer follows.

    Attributes:
        blocks: In order: `features.k` of the module is the k-th.
        activation: After every BatchNorm but that of a linear block's last convolution.
        bias: Whether a convolution has a bias of its own besides its BatchNorm's.
    """

    blocks: tuple[Block, ...]
    activation: Activation = Activation.RELU6
    bias: bool = False

    @property
    def channels(self) -> int:
        """That leave the last block."""
        return self.blocks[-1].kernels[-1].outputs


@dataclass(frozen=True, slots=True)
class BlockDesign:
    """How one V2 network's blocks are built.

    Attributes:
        stages: Expansion, channels, repeats, stride of the first.
        expand_by_one: Whether a block of expansion 1 keeps its (then square) 1×1 expansion.
        depthwise: Whether the 3×3 convolution is depthwise, not dense.
        linear: Whether the bottleneck is linear, without an activation after the projection.
        bias: Whether every convolution has a bias before its BatchNorm.
    """

    stages: tuple[tuple[int, int, int, int], ...] = STAGES
    expand_by_one: bool = False
    depthwise: bool = True
    linear: bool = True
    bias: bool = False


V2_DESIGNS = {
    "mobilenet_v2": BlockDesign(),
    "mobilenet_v2_tutorial": BlockDesign(expand_by_one=True),
    "mobilenet_v2_tutorial_as_coded": BlockDesign(
        STAGES_AS_CODED, expand_by_one=True, depthwise=False, linear=False, bias=True
    ),
}


def plan(spec: ModelSpec) -> Plan:
    """Return the variant's network as a table.

    Raises:
        UsageError: No such architecture; the hint names the nearest.
    """
    if spec.architecture in V1_ACTIVATIONS:
        return _plan_v1(spec)
    if spec.architecture in V2_DESIGNS:
        return _plan_v2(spec)
    raise unknown_name("architecture", spec.architecture, [*V1_ACTIVATIONS, *V2_DESIGNS])


def scaled_channels(channels: int, width: float) -> int:
    """Return the channels of a V1 layer at a width multiplier: cut off to a whole number, at least 8.

    Source: tensorflow/models, research/slim/nets/mobilenet_v1.py, `depth`.
    """
    return max(int(channels * width), 8)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple of the divisor, at least one of it and at least 90 % of the channels.

    Source: tensorflow/models, research/slim/nets/mobilenet/mobilenet.py, `_make_divisible`.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


def _single(index: int, kernel: Kernel) -> Block:
    """A convolution that is a block of its own: the stem or the head."""
    return Block((kernel,), (f"features.{index}.0",))


def _plan_v1(spec: ModelSpec) -> Plan:
    channels = scaled_channels(STEM_CHANNELS, spec.width)
    blocks = [_single(0, Kernel(3, channels, size=3, stride=2))]
    for wanted, stride, repeats in BODY:
        for _ in range(repeats):
            outputs = scaled_channels(wanted, spec.width)
            depthwise = Kernel(channels, channels, size=3, stride=stride, depthwise=True)
            names = tuple(f"features.{len(blocks)}.{part}.0" for part in (0, 1))
            blocks.append(Block((depthwise, Kernel(channels, outputs)), names))
            channels = outputs
    return Plan(tuple(blocks), V1_ACTIVATIONS[spec.architecture])


def _plan_v2(spec: ModelSpec) -> Plan:
    design = V2_DESIGNS[spec.architecture]
    channels = make_divisible(STEM_CHANNELS * spec.width)
    blocks = [_single(0, Kernel(3, channels, size=3, stride=2))]
    for expansion, wanted, repeats, first_stride in design.stages:
        outputs = make_divisible(wanted * spec.width)
        for stride in (first_stride, *(1,) * (repeats - 1)):
            shape = Kernel(channels, outputs, stride=stride)
            blocks.append(_inverted_residual(len(blocks), shape, expansion, design))
            channels = outputs
    head = max(HEAD_CHANNELS, make_divisible(HEAD_CHANNELS * spec.width))
    return Plan((*blocks, _single(len(blocks), Kernel(channels, head))), bias=design.bias)


def _inverted_residual(index: int, shape: Kernel, expansion: int, design: BlockDesign) -> Block:
    hidden = shape.inputs * expansion
    kernels = [
        Kernel(hidden, hidden, size=3, stride=shape.stride, depthwise=design.depthwise),
        Kernel(hidden, shape.outputs),
    ]
    if expansion != 1 or design.expand_by_one:
        kernels.insert(0, Kernel(shape.inputs, hidden))
    last = len(kernels) - 1
    names = (*(f"features.{index}.conv.{part}.0" for part in range(last)), f"features.{index}.conv.{last}")
    adds_input = shape.stride == 1 and shape.inputs == shape.outputs
    return Block(tuple(kernels), names, linear=design.linear, adds_input=adds_input)
