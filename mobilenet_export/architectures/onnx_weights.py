"""Reads the weights of a MobileNet out of an ONNX file, whatever its layers are called.

The file is read as `mnx export model.onnx` reads it: checked, simplified, and every BatchNorm folded. A layer is
known by its place in the network, its kernel and its activation; its BatchNorm becomes one that passes on what it
gets, and adds the bias.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mobilenet_export.architectures.blocks import Classifier
from mobilenet_export.architectures.layouts import LINEAR, numbered_layer
from mobilenet_export.capture import capture_module
from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import Conv2d, FullyConnected, Graph, Node, Pads
from mobilenet_export.spec import Padding

FOLDED_EPS = 1e-5
"""Of a BatchNorm whose variance and eps add up to one."""

_PADDINGS: dict[Pads, Padding] = {Pads(1, 1, 1, 1): "symmetric", Pads(0, 0, 1, 1): "tensorflow"}


def weights_of(graph: Graph) -> dict[str, Tensor]:
    """Return the tensors of a simplified graph by keys that name place, kernel and activation."""
    return {key: torch.from_numpy(value.copy()) for key, value in _weights(graph)}


def _weights(graph: Graph) -> Iterator[tuple[str, np.ndarray]]:
    convolutions = [node for node in graph.nodes if isinstance(node, Conv2d)]
    for index, conv in enumerate(convolutions):
        kind = f"{'depthwise' if conv.is_depthwise else 'dense'}{conv.weight.shape[2]}"
        layer, norm = numbered_layer(index, kind, conv.activation.value)
        one = np.ones_like(conv.bias)
        yield f"{layer}.weight", conv.weight
        yield f"{norm}.weight", one
        yield f"{norm}.bias", conv.bias
        yield f"{norm}.running_mean", np.zeros_like(one)
        yield f"{norm}.running_var", one - np.float32(FOLDED_EPS)
    for node in graph.nodes:
        if isinstance(node, FullyConnected):
            yield f"{LINEAR}.weight", node.weight
            yield f"{LINEAR}.bias", node.bias


def padding_of(graph: Graph) -> Padding | None:
    """Return how the 3×3 convolutions of stride 2 pad; None where there are none, or not all alike."""
    halving = {node.pads for node in graph.nodes if isinstance(node, Conv2d) and node.stride == (2, 2)}
    return _PADDINGS.get(halving.pop()) if len(halving) == 1 else None


def check_same_network(graph: Graph, network: Classifier) -> None:
    """Refuse an ONNX file whose layers are a MobileNet's, but are joined, padded or clamped in another way.

    Raises:
        DamagedInputError: The first layer that differs is named.
    """
    spec = network.spec
    ours = capture_module(network, spec.name, spec.input_shape)
    pairs = zip(_structure(graph), _structure(ours), strict=False)
    for node, (found, expected) in zip(graph.nodes, pairs, strict=False):
        if found != expected:
            raise _another_network(graph, f"{node.name} is {found}, not {expected}")
    if len(graph.nodes) != len(ours.nodes):
        raise _another_network(graph, f"{len(graph.nodes)} layers, not {len(ours.nodes)}")


def _another_network(graph: Graph, difference: str) -> DamagedInputError:
    return DamagedInputError(
        f"{graph.name}: not the MobileNet that its weights are those of: {difference}",
        "export the file as it is: mnx export FILE.onnx --mean R,G,B --std R,G,B",
    )


def _structure(graph: Graph) -> Iterator[str]:
    """Yield what each layer does and which layers it reads, by number, but for its numbers."""
    places = {graph.input: 0} | {node.name: place for place, node in enumerate(graph.nodes, 1)}
    for node in graph.nodes:
        reads = ", ".join(str(place) for place in sorted(places[name] for name in node.inputs))
        yield f"{type(node).__name__} of {reads}{_details(node)}"


def _details(node: Node) -> str:
    if not isinstance(node, Conv2d):
        return ""
    pads = node.pads
    around = f"{pads.top},{pads.left},{pads.bottom},{pads.right}"
    return f" stride {node.stride[0]},{node.stride[1]} pads {around} groups {node.groups} {node.activation.value}"
