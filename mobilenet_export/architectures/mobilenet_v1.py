"""MobileNetV1: a stem and 13 pairs of depthwise 3×3 and pointwise 1×1 convolutions, from the table in `plans`."""

from torch import nn

from mobilenet_export.architectures.blocks import Classifier, conv_norm_activation, design_of
from mobilenet_export.architectures.plans import plan
from mobilenet_export.spec import ModelSpec

DROPOUT = 0.001


def build(spec: ModelSpec) -> Classifier:
    """Return the network, random.

    Keys: `features.0` (stem), `features.k.0` (depthwise) and `features.k.1` (pointwise) for k = 1…13, each
    with 0 for the convolution and 1 for its BatchNorm, and `classifier.1`.
    """
    network = plan(spec)
    design = design_of(spec, network)
    (stem,), *pairs = (block.kernels for block in network.blocks)
    layers = [conv_norm_activation(stem, design)]
    layers += [nn.Sequential(*(conv_norm_activation(kernel, design) for kernel in pair)) for pair in pairs]
    return Classifier(spec, nn.Sequential(*layers), network.channels, DROPOUT)
