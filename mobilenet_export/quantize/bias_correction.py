"""Sequential bias correction.

Layer by layer, b ← b + (E[y] − E[ŷ]) with y the fp32 layer's output before its activation and ŷ the integer
layer's, each on its own network's input, so that a later layer sees the earlier ones corrected. The mean goes
over images and positions, per output channel.

The fp32 activations are clipped to the ranges of the integers first. Without that the correction also tries to
mend clipping, which only a few images suffer, with a shift that all of them get: on V2 calibrated with photos it
costs 6 dB instead of gaining 2.
Source: Nagel et al. 2019 (arXiv:1906.04721), section 4.2 and appendix D (empirical correction).
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import UNCLAMPED, Graph, Kernel
from mobilenet_export.quantize.calibrate import Activations
from mobilenet_export.quantized import QuantizedGraph

ChannelMeans = Mapping[str, NDArray[np.float64]]
"""Layer name → mean of its output before the activation, float64 (O,)."""


def channel_means(graph: Graph, images: Iterable[Activations]) -> ChannelMeans:
    """Return E[y] of every layer with weights over fp32 activations of one image after another, channel-first."""
    sums = {node.name: np.zeros(len(node.weight)) for node in graph.kernels()}
    count = 0
    for image in images:
        count += 1
        for name in sums:
            value = image.get(name + UNCLAMPED, image[name])
            sums[name] += value.reshape(value.shape[1], -1).mean(axis=1, dtype=np.float64)
    return {name: total / count for name, total in sums.items()}


def bias_shift(
    quantized: QuantizedGraph,
    node: Kernel,
    sums: Sequence[NDArray[np.floating]],
    expected: NDArray[np.float64],
) -> NDArray[np.int32]:
    """E[y] − E[ŷ] in steps of the bias."""
    means = np.mean(
        [image.reshape(-1, image.shape[-1]).mean(axis=0, dtype=np.float64) for image in sums], axis=0
    )
    step = quantized.tensors[node.input].scale * quantized.kernels[node.name].scale.astype(np.float64)
    return np.asarray(np.rint(expected / step - means), np.int32)
