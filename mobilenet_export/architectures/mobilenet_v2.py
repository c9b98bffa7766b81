"""MobileNetV2: a stem, 17 inverted residuals with linear bottlenecks, a 1×1 head.

Source: Sandler et al. 2018, "MobileNetV2", arXiv 1801.04381, table 2 (stages) and figure 3 (block).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from mobilenet_export.architectures.blocks import (
    Classifier,
    Design,
    Kernel,
    batch_norm,
    conv_norm_activation,
    convolution,
)
from mobilenet_export.spec import ModelSpec

STEM_CHANNELS, HEAD_CHANNELS, DROPOUT = 32, 1280, 0.2

# Table 2: expansion, channels, repeats, stride of the first.
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
class BlockDesign:
    """How one network's blocks are built.

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


DESIGNS = {
    "mobilenet_v2": BlockDesign(),
    "mobilenet_v2_tutorial": BlockDesign(expand_by_one=True),
    "mobilenet_v2_tutorial_as_coded": BlockDesign(
        STAGES_AS_CODED, expand_by_one=True, depthwise=False, linear=False, bias=True
    ),
}


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple of the divisor, at least one of it and at least 90 % of the channels.

    Source: tensorflow/models, research/slim/nets/mobilenet/mobilenet.py, `_make_divisible`.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class InvertedResidual(nn.Module):
    """Expand by 1×1, filter by 3×3, project by 1×1, and add the input where the shape is kept.

    (N, I, H, W) → (N, O, H/stride, W/stride); keys as in torchvision: `conv.0` … in the order above.
    """

    def __init__(self, shape: Kernel, expansion: int, blocks: BlockDesign, design: Design) -> None:
        super().__init__()
        hidden = shape.inputs * expansion
        middle = Kernel(hidden, hidden, size=3, stride=shape.stride, depthwise=blocks.depthwise)
        layers: list[nn.Module] = []
        if expansion != 1 or blocks.expand_by_one:
            layers.append(conv_norm_activation(Kernel(shape.inputs, hidden), design))
        layers.append(conv_norm_activation(middle, design))
        layers += [convolution(Kernel(hidden, shape.outputs), design), batch_norm(shape.outputs, design)]
        if not blocks.linear:
            layers.append(design.activation())
        self.conv = nn.Sequential(*layers)
        self.adds_input = shape.stride == 1 and shape.inputs == shape.outputs

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output."""
        filtered: Tensor = self.conv(features)
        return features + filtered if self.adds_input else filtered


def build(spec: ModelSpec) -> Classifier:
    """Return the network, random.

    Keys are torchvision's: `features.0` (stem), `features.k.conv` for k = 1…17, `features.18` (head),
    `classifier.1`.
    """
    blocks = DESIGNS[spec.architecture]
    design = Design(spec.padding, spec.batch_norm_eps, bias=blocks.bias)
    channels = make_divisible(STEM_CHANNELS * spec.width)
    layers: list[nn.Module] = [conv_norm_activation(Kernel(3, channels, size=3, stride=2), design)]
    for expansion, wanted, repeats, first_stride in blocks.stages:
        outputs = make_divisible(wanted * spec.width)
        for stride in (first_stride, *(1,) * (repeats - 1)):
            layers.append(
                InvertedResidual(Kernel(channels, outputs, stride=stride), expansion, blocks, design)
            )
            channels = outputs
    head = max(HEAD_CHANNELS, make_divisible(HEAD_CHANNELS * spec.width))
    layers.append(conv_norm_activation(Kernel(channels, head), design))
    return Classifier(spec, nn.Sequential(*layers), head, DROPOUT)
