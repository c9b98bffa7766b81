"""MobileNetV1: a stem and 13 pairs of depthwise 3×3 and pointwise 1×1 convolutions.

Source: Howard et al. 2017, "MobileNets", arXiv 1704.04861, table 1. (It prints the last
depthwise stride as 2; its own sizes and the authors' code say 1.)
"""

from torch import nn

from mobilenet_export.architectures.blocks import Classifier, Design, Kernel, conv_norm_activation
from mobilenet_export.spec import ModelSpec

STEM_CHANNELS = 32

# Channels, stride of the depthwise convolution, repeats.
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

ACTIVATIONS: dict[str, type[nn.Module]] = {"mobilenet_v1": nn.ReLU6, "mobilenet_v1_tutorial": nn.ReLU}
"""Architecture → activation. The paper says ReLU; the authors' published weights were trained with ReLU6."""

DROPOUT = 0.001


def scaled_channels(channels: int, width: float) -> int:
    """Return the channels of a layer at a width multiplier: cut off to a whole number, at least 8.

    Source: tensorflow/models, research/slim/nets/mobilenet_v1.py, `depth`.
    """
    return max(int(channels * width), 8)


def build(spec: ModelSpec) -> Classifier:
    """Return the network, random.

    Keys: `features.0` (stem), `features.k.0` (depthwise) and `features.k.1` (pointwise) for k = 1…13, each
    with 0 for the convolution and 1 for its BatchNorm, and `classifier.1`.
    """
    design = Design(spec.padding, spec.batch_norm_eps, ACTIVATIONS[spec.architecture])
    channels = scaled_channels(STEM_CHANNELS, spec.width)
    layers = [conv_norm_activation(Kernel(3, channels, size=3, stride=2), design)]
    for wanted, stride, repeats in BODY:
        for _ in range(repeats):
            outputs = scaled_channels(wanted, spec.width)
            layers.append(_separable(Kernel(channels, outputs, stride=stride), design))
            channels = outputs
    return Classifier(spec, nn.Sequential(*layers), channels, DROPOUT)


def _separable(shape: Kernel, design: Design) -> nn.Sequential:
    depthwise = Kernel(shape.inputs, shape.inputs, size=3, stride=shape.stride, depthwise=True)
    pointwise = Kernel(shape.inputs, shape.outputs)
    return nn.Sequential(conv_norm_activation(depthwise, design), conv_norm_activation(pointwise, design))
