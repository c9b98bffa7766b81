"""What both networks are made of: padded convolution, convolution + BatchNorm + activation, classifier."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobilenet_export.architectures.plans import Kernel, Plan
from mobilenet_export.graph import Activation
from mobilenet_export.spec import ModelSpec, Padding


@dataclass(frozen=True, slots=True)
class Design:
    """What all the convolutions of one network have in common.

    Attributes:
        padding: Of the stride-2 convolutions.
        batch_norm_eps: Added to the variance before the square root.
        activation: Class of the clamp after a BatchNorm.
        bias: Whether a convolution has a bias of its own besides its BatchNorm's.
    """

    padding: Padding
    batch_norm_eps: float
    activation: type[nn.Module] = nn.ReLU6
    bias: bool = False


_ACTIVATIONS: dict[Activation, type[nn.Module]] = {Activation.RELU: nn.ReLU, Activation.RELU6: nn.ReLU6}


def design_of(spec: ModelSpec, network: Plan) -> Design:
    """Return what all the convolutions of a variant's network have in common."""
    return Design(spec.padding, spec.batch_norm_eps, _ACTIVATIONS[network.activation], network.bias)


class TensorflowSameConv2d(nn.Conv2d):
    """A 3×3 convolution of stride 2 with TensorFlow's SAME padding: a row below, a column on the right.

    (N, C, H, W) → (N, O, H/2, W/2) for even H and W, as all sizes that `spec.check_resolution` lets through
    are down to the last stage. The padding is part of the layer, so that its weights have the keys of a plain
    convolution's.

    Source: TensorFlow API, `tf.nn`, "Padding": where the stride divides H, max(kernel - stride, 0) rows in
    total, the smaller half before.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Pad, then convolve."""
        return super().forward(functional.pad(input, (0, 1, 0, 1)))


def convolution(kernel: Kernel, design: Design) -> nn.Conv2d:
    """Return a convolution that keeps the size at stride 1 and halves it at stride 2."""
    same = kernel.stride == 2 and design.padding == "tensorflow"
    return (TensorflowSameConv2d if same else nn.Conv2d)(
        kernel.inputs,
        kernel.outputs,
        kernel.size,
        stride=kernel.stride,
        padding=0 if same else kernel.size // 2,
        groups=kernel.inputs if kernel.depthwise else 1,
        bias=design.bias,
    )


def batch_norm(channels: int, design: Design) -> nn.BatchNorm2d:
    """Return the BatchNorm of (N, channels, H, W)."""
    return nn.BatchNorm2d(channels, eps=design.batch_norm_eps)


def conv_norm_activation(kernel: Kernel, design: Design) -> nn.Sequential:
    """Return convolution (key 0), BatchNorm (key 1), activation."""
    return nn.Sequential(convolution(kernel, design), batch_norm(kernel.outputs, design), design.activation())


class Classifier(nn.Module):
    """Features, mean over the spatial axes, dropout, linear layer and, where the variant has one, softmax.

    (N, 3, H, W) float32 → (N, classes) float32.

    Attributes:
        spec: The variant that it was built from.
    """

    def __init__(self, spec: ModelSpec, features: nn.Sequential, channels: int, dropout: float) -> None:
        super().__init__()
        self.spec = spec
        self.features = features
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(channels, spec.classes))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, or probabilities where the variant ends in a softmax."""
        logits: Tensor = self.classifier(self.features(images).mean((2, 3)))
        return torch.softmax(logits, dim=1) if self.spec.softmax else logits
