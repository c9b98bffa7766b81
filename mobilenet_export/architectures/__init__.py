"""The networks: the only `nn.Module`s of the project, chosen by a variant's `architecture`.

The table lists them without importing torch. A new architecture is a module with a `build(spec)`, and a row.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mobilenet_export.errors import unknown_name
from mobilenet_export.spec import ModelSpec

if TYPE_CHECKING:
    from mobilenet_export.architectures.blocks import Classifier

ARCHITECTURES = {
    "mobilenet_v1": "mobilenet_v1",
    "mobilenet_v1_tutorial": "mobilenet_v1",
    "mobilenet_v2": "mobilenet_v2",
    "mobilenet_v2_tutorial": "mobilenet_v2",
    "mobilenet_v2_tutorial_as_coded": "mobilenet_v2",
}
"""Architecture → the module of this folder that builds it."""


def build(spec: ModelSpec) -> Classifier:
    """Return the variant's network in eval mode, its weights still torch's random ones.

    It takes (N, 3, H, W) float32 images, already preprocessed, and returns (N, classes) logits, or
    probabilities where the variant ends in a softmax.

    Raises:
        UsageError: No such architecture; the hint names the nearest.
    """
    if spec.architecture not in ARCHITECTURES:
        raise unknown_name("architecture", spec.architecture, ARCHITECTURES)
    module = importlib.import_module(f"{__name__}.{ARCHITECTURES[spec.architecture]}")
    network: Classifier = module.build(spec)
    return network.eval()
