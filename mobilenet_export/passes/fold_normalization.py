"""Folds the normalization of pixels into the first layer, so that it reads the camera's integers.

With p the pixels 0…255 of channel c and x = (p/255 − m_c)/s_c, Σw·x + b over a window is Σw'·(p − z) + b' with
w' = w/(255·s_c) and b' = b + Σ w'·(z − 255·m_c), for any zero point z. They are equal but at the border: a layer
pads with zeros, which stand for the mean colour before, and for the grey p = z after. There an output is off by
Σ w'·(z − 255·m_c) over the padded taps, and z is the integer with the least square of that over all sides. What is
left lies 70 dB below the logits of MobileNetV1, whose means are all 127.5, and 51 dB below those of V2.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.errors import UsageError
from mobilenet_export.graph import Conv2d, Graph, PixelInput


def fold_normalization(graph: Graph, mean: tuple[float, ...], std: tuple[float, ...]) -> Graph:
    """Return the graph reading pixels less a zero point.

    Args:
        graph: Fused float graph.
        mean: Per channel, of pixels in 0…1.
        std: Per channel, of pixels in 0…1.

    Raises:
        UsageError: Something else than one convolution reads the image.
    """
    readers = graph.consumers(graph.input)
    if len(readers) != 1 or not isinstance(stem := readers[0], Conv2d) or stem.groups != 1:
        raise UsageError(
            f"{graph.name}: {', '.join(node.name for node in readers)} cannot take the normalization in",
            "int8 files need a network that starts with one convolution; export it without --int8",
        )
    offset = 255 * np.array(mean)
    weight = stem.weight / (255 * np.array(std))[:, None, None]
    zero_point = _zero_point(stem, weight, offset)
    bias = stem.bias + np.einsum("ochw,c->o", weight, zero_point - offset)
    folded = dataclasses.replace(stem, weight=weight.astype(np.float32), bias=bias.astype(np.float32))
    nodes = tuple(folded if node is stem else node for node in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes, pixels=PixelInput(mean, std, zero_point))


def _zero_point(stem: Conv2d, weight: NDArray[np.float64], offset: NDArray[np.float64]) -> int:
    """The pixel that pads with the least error: on each side, taps Σw'·z are to be Σw'·offset."""
    pads, (height, width) = stem.pads, weight.shape[2:]
    sides = (
        weight[:, :, : pads.top],
        weight[:, :, height - pads.bottom :],
        weight[:, :, :, : pads.left],
        weight[:, :, :, width - pads.right :],
    )
    taps = np.concatenate([side.sum(axis=(2, 3)) for side in sides])
    grey, wanted = taps.sum(axis=1), taps @ offset
    best = grey @ wanted / (grey @ grey) if grey.any() else offset.mean()
    return int(np.clip(np.rint(best), 0, 255))
