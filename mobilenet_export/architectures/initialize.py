"""Seeded random weights for a network that nobody has trained, conditioned like a trained one.

He-normal weights alone make a chaotic network: a rounding step grows from layer to layer, and a drift
measured on such a network says nothing. Three things calm it: BatchNorm statistics of its own activations;
activations that mostly pass their clamp, y = (x - mean)/std + SHIFT; depthwise kernels with a heavy centre,
which keep what is there instead of amplifying the grain. Plain int8 rounding then leaves 10 to 16 dB of the
logits, about what it leaves of the trained networks'.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.spec import ModelSpec

SEED = 0
IMAGES = 16
SHIFT = 1.0
"""Of the activations before a clamp, in their own standard deviations."""
CENTRE = 3.0
"""Added to the middle of a depthwise kernel, in standard deviations of its weights."""
LOGITS_STD = 2.0


def initialize(network: Classifier, seed: int) -> None:
    """Fill a network with well-conditioned random weights; on one machine, a seed gives the same bytes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                _draw_convolution(module, generator)
            elif isinstance(module, nn.Linear):
                module.weight.normal_(0, 1 / math.sqrt(module.in_features), generator=generator)
        _shift_activations(network)
        images = mosaics(network.spec, generator)
        _scale_head(network, _estimate_statistics(network, images))


def mosaics(spec: ModelSpec, generator: torch.Generator) -> Tensor:
    """Return preprocessed (IMAGES, 3, H, W) images: coloured tiles of three sizes, and grain."""
    size_px = (spec.resolution_px, spec.resolution_px)
    images = 0.03 * torch.randn(IMAGES, 3, *size_px, generator=generator)
    for tiles, weight in ((2, 0.5), (5, 0.3), (13, 0.2)):
        colours = torch.rand(IMAGES, 3, tiles, tiles, generator=generator)
        images += weight * functional.interpolate(colours, size_px, mode="nearest")
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (spec.preprocess.mean, spec.preprocess.std)
    )
    return (images.clamp(0, 1) - mean) / std


def _draw_convolution(module: nn.Conv2d, generator: torch.Generator) -> None:
    std = math.sqrt(2 / module.weight[0].numel())
    module.weight.normal_(0, std, generator=generator)
    if module.groups > 1:
        module.weight[:, :, 1, 1] += CENTRE * std
    if module.bias is not None:
        module.bias.zero_()


def _shift_activations(network: Classifier) -> None:
    for module, following in pairwise(network.modules()):
        if isinstance(module, nn.BatchNorm2d) and isinstance(following, nn.ReLU | nn.ReLU6):
            module.bias.fill_(SHIFT)


def _estimate_statistics(network: Classifier, images: Tensor) -> Tensor:
    """Set every BatchNorm to the statistics of its input; return the (IMAGES, C) pooled features."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain average, here of one batch
    network.features.train()
    features: Tensor = network.features(images).mean((2, 3))
    network.eval()
    return features


def _scale_head(network: Classifier, features: Tensor) -> None:
    """Scale and centre the logits, so that they differ between images by LOGITS_STD, not between classes."""
    head = network.classifier[1]
    assert isinstance(head, nn.Linear)
    logits = features @ head.weight.T
    centre = logits.mean(dim=0)
    scale = LOGITS_STD / (logits - centre).std()
    head.weight.mul_(scale)
    head.bias.copy_(-centre * scale)
