"""MobileNetV2: a stem, 17 inverted residuals with linear bottlenecks, a 1×1 head, from the table in `plans`."""

from torch import Tensor, nn

from mobilenet_export.architectures.blocks import (
    Classifier,
    Design,
    batch_norm,
    conv_norm_activation,
    convolution,
    design_of,
)
from mobilenet_export.architectures.plans import Block, plan
from mobilenet_export.spec import ModelSpec

DROPOUT = 0.2


class InvertedResidual(nn.Module):
    """Expand by 1×1, filter by 3×3, project by 1×1, and add the input where the shape is kept.

    (N, I, H, W) → (N, O, H/stride, W/stride); keys as in torchvision: `conv.0` … in the order above.
    """

    def __init__(self, block: Block, design: Design) -> None:
        super().__init__()
        *first, projection = block.kernels
        layers: list[nn.Module] = [conv_norm_activation(kernel, design) for kernel in first]
        layers += [convolution(projection, design), batch_norm(projection.outputs, design)]
        if not block.linear:
            layers.append(design.activation())
        self.conv = nn.Sequential(*layers)
        self.adds_input = block.adds_input

    def forward(self, features: Tensor) -> Tensor:
        """Return the block's output."""
        filtered: Tensor = self.conv(features)
        return features + filtered if self.adds_input else filtered


def build(spec: ModelSpec) -> Classifier:
    """Return the network, random.

    Keys are torchvision's: `features.0` (stem), `features.k.conv` for k = 1…17, `features.18` (head),
    `classifier.1`.
    """
    network = plan(spec)
    design = design_of(spec, network)
    stem, *body, head = network.blocks
    layers: list[nn.Module] = [conv_norm_activation(stem.kernels[0], design)]
    layers += [InvertedResidual(block, design) for block in body]
    layers.append(conv_norm_activation(head.kernels[0], design))
    return Classifier(spec, nn.Sequential(*layers), network.channels, DROPOUT)
