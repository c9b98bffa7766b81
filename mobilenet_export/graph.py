"""The network as data: what every pass, emitter and interpreter reads.

Activations are described channel-first, (C, H, W) for one image; the batch is left out. A tensor has the name
of the layer that makes it, and layers have the names of the torch modules they come from.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Shape = tuple[int, ...]

UNCLAMPED = "/unclamped"
"""Ends the name of a layer's output before its activation, where that is watched too."""


class Activation(Enum):
    """A clamp fused into the layer before it."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value that can leave it."""
        inf = float("inf")
        return {Activation.NONE: (-inf, inf), Activation.RELU: (0.0, inf), Activation.RELU6: (0.0, 6.0)}[self]


@dataclass(frozen=True, slots=True)
class Pads:
    """Zeros around the spatial axes, in px."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Conv2d:
    """Convolution: weight (O, I/groups, kh, kw), bias (O,), zero padding, optional fused activation."""

    name: str
    input: str
    weight: FloatArray
    bias: FloatArray
    stride: tuple[int, int] = (1, 1)
    pads: Pads = Pads()
    groups: int = 1
    activation: Activation = Activation.NONE

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)

    @property
    def is_depthwise(self) -> bool:
        """One filter per input channel."""
        return self.groups > 1 and self.groups == self.weight.shape[0] and self.weight.shape[1] == 1


@dataclass(frozen=True, slots=True, eq=False)
class FullyConnected:
    """Linear layer on (I,) features: weight (O, I), bias (O,)."""

    name: str
    input: str
    weight: FloatArray
    bias: FloatArray

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Add:
    """Elementwise sum of two tensors of one shape, optional fused activation."""

    name: str
    inputs: tuple[str, ...]
    activation: Activation = Activation.NONE


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """Mean over the spatial axes: (C, H, W) → (C,)."""

    name: str
    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Probabilities from logits, (K,) → (K,); always computed in float."""

    name: str
    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True, eq=False)
class BatchNorm:
    """Inference-time normalization as one affine map per channel, float64 (C,). Gone after folding."""

    name: str
    input: str
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Clamp:
    """An activation that is a layer of its own. Gone after fusing."""

    name: str
    input: str
    activation: Activation

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class ZeroPad:
    """Spatial zero padding that is a layer of its own. Gone after fusing."""

    name: str
    input: str
    pads: Pads

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class PixelInput:
    """How a graph takes its image as pixels instead of normalized values: its input tensor is p − zero_point.

    p is a pixel, 0…255 in RGB; normalized it is x = (p/255 − mean)/std. The zeros that the first layer pads with
    stand for pixels of `zero_point` in every channel.

    Attributes:
        mean: Per channel, of pixels in 0…1.
        std: Per channel, of pixels in 0…1.
        zero_point: 0…255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    zero_point: int

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value of the input tensor."""
        return (-self.zero_point, 255 - self.zero_point)

    @property
    def gain(self) -> FloatArray:
        """Float32 (C,): p − zero_point = gain·x + shift."""
        return np.array([255 * std for std in self.std], np.float32)

    @property
    def shift(self) -> FloatArray:
        """Float32 (C,): p − zero_point = gain·x + shift."""
        return np.array([255 * mean - self.zero_point for mean in self.mean], np.float32)


Kernel = Conv2d | FullyConnected
"""A layer with weights."""

Node = Conv2d | FullyConnected | Add | GlobalAveragePool | Softmax | BatchNorm | Clamp | ZeroPad


@dataclass(frozen=True, slots=True)
class Graph:
    """A classifier: nodes in an order in which they can run, one image in, one vector out.

    Attributes:
        name: Of the model.
        input: Name of the input tensor.
        input_shape: (C, H, W) of one image.
        nodes: In topological order; the last one makes the output.
        pixels: Where the input tensor holds pixels instead of normalized values.
    """

    name: str
    input: str
    input_shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    pixels: PixelInput | None = None
    shapes: dict[str, Shape] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shapes", _infer_shapes(self))

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        return self.nodes[-1].name

    @property
    def logits(self) -> str:
        """Name of the last tensor before a softmax, or of the output where there is none."""
        last = self.nodes[-1]
        return last.input if isinstance(last, Softmax) else last.name

    def feed(self, batch: FloatArray) -> FloatArray:
        """Return normalized images, float32 (N, C, H, W), as the input tensor holds them."""
        if self.pixels is None:
            return batch
        return batch * self.pixels.gain[:, None, None] + self.pixels.shift[:, None, None]

    def kernels(self) -> Iterator[Kernel]:
        """Yield the layers with weights."""
        for node in self.nodes:
            if isinstance(node, Conv2d | FullyConnected):
                yield node

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Return the nodes that read a tensor."""
        return tuple(node for node in self.nodes if tensor in node.inputs)


def activation_bounds(graph: Graph) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest value that can leave each tensor's fused activation."""
    open_ended = Activation.NONE.bounds
    activations = {node.name: node.activation for node in graph.nodes if isinstance(node, Conv2d | Add)}
    return {name: activations[name].bounds if name in activations else open_ended for name in graph.shapes}


def multiply_accumulates(graph: Graph) -> int:
    """Count multiply-accumulates of one image: convolutions and the linear layer, bias and activations left out."""
    total = 0
    for node in graph.kernels():
        positions = int(np.prod(graph.shapes[node.name][1:], dtype=np.int64))
        total += node.weight.size * positions
    return total


def _infer_shapes(graph: Graph) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {graph.input: graph.input_shape}
    for node in graph.nodes:
        shapes[node.name] = _output_shape(node, shapes)
    return shapes


def _output_shape(node: Node, shapes: dict[str, Shape]) -> Shape:
    source = shapes[node.inputs[0]]
    match node:
        case Conv2d(weight=weight, stride=stride, pads=pads):
            height = (source[1] + pads.top + pads.bottom - weight.shape[2]) // stride[0] + 1
            width = (source[2] + pads.left + pads.right - weight.shape[3]) // stride[1] + 1
            return (weight.shape[0], height, width)
        case FullyConnected(weight=weight):
            return (weight.shape[0],)
        case GlobalAveragePool():
            return source[:1]
        case ZeroPad(pads=pads):
            return (source[0], source[1] + pads.top + pads.bottom, source[2] + pads.left + pads.right)
        case _:
            return source
