"""A network layer by layer, without its weights: what each costs, and what depthwise-separable convolution saves.

MACs: multiply-accumulates of one image in convolutions and the linear layer; a weight (O, I/groups, kh, kw) is used
once at each of the output's H·W positions. Biases, activations, additions and the pool are left out. So count the
papers: V1 1.0-224 569 M, V2 1.0-224 300 M.
Weights: those of convolutions and the linear layer; parameters: these and one bias per output channel, into which
BatchNorm is folded, as files hold it. V1 has 4.21 M and 4.22 M, V2 3.47 M and 3.49 M; the papers say 4.2 M and (cut
off) 3.4 M.
Live memory: at each layer, in the order in which they run, the batch being 1: its inputs, its output, and whatever
a later layer still reads. An activation takes no memory of its own. The peak is the greatest of these sums.

A pair of a depthwise k×k and a pointwise convolution to N channels stands for one dense k×k convolution of the same
input and output; of its weights and MACs it takes 1/N + 1/k².
Source: Howard et al. 2017, arXiv 1704.04861, section 3.1, equation 5.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from mobilenet_export.graph import Shape

BYTES = {
    "float64": 8,
    "int64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Of one element, by kind."""

INTEGERS = ("int8", "uint8")
"""Kinds that int8 files compute with."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An activation of one image: shape (C, H, W), or (C,) behind the pool; `kind` is what an element is."""

    name: str
    shape: Shape
    kind: str = "float32"

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """That it takes; an element of an unknown kind counts as 4."""
        return self.elements * BYTES.get(self.kind, 4)


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer.

    Attributes:
        name: Path in the torch module where it is known, else of its output.
        operator: `conv`, `depthwise`, `linear`, `add`, `pool`, `softmax`, or a file's own word.
        inputs: Activations that it reads.
        output: Activation that it makes.
        weight: Shape (O, I/groups, kh, kw) of a convolution's, (O, I) of a linear layer's; else empty.
        biases: How many.
        stride: In px, vertically and horizontally.
        activation: `relu`, `relu6`, or `none`; empty where a file does not say.
        weight_kind: What a weight is as the file stores it.
    """

    name: str
    operator: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    weight: Shape = ()
    biases: int = 0
    stride: tuple[int, int] = (1, 1)
    activation: str = "none"
    weight_kind: str = "float32"

    @property
    def weights(self) -> int:
        """How many numbers its kernel has."""
        return math.prod(self.weight) if self.weight else 0

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.weights * math.prod(self.output.shape[1:])

    @property
    def label(self) -> str:
        """Operator with kernel and stride, such as `depthwise 3×3 /2`."""
        size = f" {self.weight[2]}×{self.weight[3]}" if len(self.weight) == 4 else ""
        return f"{self.operator}{size}" + (f" /{self.stride[0]}" if self.stride != (1, 1) else "")

    @property
    def precision(self) -> str:
        """`int8` where it computes with integers; else by its weights `fp32`, `fp16` or `int8 weights`."""
        if all(tensor.kind in INTEGERS for tensor in (*self.inputs, self.output)):
            return "int8"
        if self.weight and self.weight_kind != "float32":
            return {"float16": "fp16"}.get(self.weight_kind, f"{self.weight_kind} weights")
        return "fp32"


@dataclass(frozen=True, slots=True)
class Pair:
    """A depthwise convolution and the pointwise one that reads it, beside the dense one that they stand for."""

    depthwise: Layer
    pointwise: Layer

    @property
    def weights(self) -> int:
        """Of both."""
        return self.depthwise.weights + self.pointwise.weights

    @property
    def macs(self) -> int:
        """Of both."""
        return self.depthwise.macs + self.pointwise.macs

    @property
    def standard_weights(self) -> int:
        """Of a dense k×k convolution of the same input and output."""
        return math.prod(self.depthwise.weight[2:]) * self.pointwise.weights

    @property
    def standard_macs(self) -> int:
        """Of a dense k×k convolution of the same input and output."""
        return math.prod(self.depthwise.weight[2:]) * self.pointwise.macs

    @property
    def ratio(self) -> float:
        """1/N + 1/k²: the share of the dense convolution's weights and MACs that the pair takes."""
        return 1 / self.pointwise.output.shape[0] + 1 / math.prod(self.depthwise.weight[2:])


@dataclass(frozen=True, slots=True)
class Block:
    """Layers that the torch module keeps together: V1's pair, or V2's inverted residual."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def input(self) -> Tensor:
        """What it reads."""
        return self.layers[0].inputs[0]

    @property
    def output(self) -> Tensor:
        """What it makes."""
        return self.layers[-1].output

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def keeps_shape(self) -> bool:
        """Whether what it makes has the shape of what it reads."""
        return self.input.shape == self.output.shape


@dataclass(frozen=True, slots=True)
class Anatomy:
    """A network layer by layer.

    Attributes:
        name: Of the variant, or of the file.
        input: One image.
        layers: In the order in which they run; the last one makes the output.
    """

    name: str
    input: Tensor
    layers: tuple[Layer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return sum(layer.macs for layer in self.layers)

    @property
    def weights(self) -> int:
        """Of convolutions and the linear layer."""
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Weights and biases, BatchNorm folded."""
        return sum(layer.parameters for layer in self.layers)

    def live_bytes(self, element_bytes: int | None = None) -> tuple[int, ...]:
        """Return the live memory at each layer; `element_bytes` replaces what the tensors' kinds take."""
        last_read = {tensor.name: index for index, layer in enumerate(self.layers) for tensor in layer.inputs}
        sizes = {
            tensor.name: tensor.bytes if element_bytes is None else tensor.elements * element_bytes
            for tensor in (self.input, *(layer.output for layer in self.layers))
        }
        live, sums = {self.input.name}, list[int]()
        for index, layer in enumerate(self.layers):
            live.add(layer.output.name)
            sums.append(sum(sizes[name] for name in live))
            live = {name for name in live if last_read.get(name, -1) > index}
        return tuple(sums)

    def peak_bytes(self, element_bytes: int | None = None) -> int:
        """Return the greatest live memory; of a variant 4 bytes an element is fp32, 1 is int8."""
        return max(self.live_bytes(element_bytes), default=0)

    def pairs(self) -> tuple[Pair, ...]:
        """Return the depthwise-separable convolutions."""
        return tuple(self._pairs())

    def _pairs(self) -> Iterator[Pair]:
        for first, second in pairwise(self.layers):
            follows = first.operator == "depthwise" and first.output in second.inputs
            if follows and second.operator == "conv" and second.weight[2:] == (1, 1):
                yield Pair(first, second)

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks of several layers, told by the modules' paths `features.k`."""
        named: dict[str, list[Layer]] = {}
        for layer in self.layers:
            head, *parts = layer.name.split(".")
            if head == "features" and parts and layer.operator != "pad":
                named.setdefault(f"{head}.{parts[0]}", []).append(layer)
        return tuple(Block(name, tuple(layers)) for name, layers in named.items() if len(layers) > 1)

    @property
    def standard_macs(self) -> int:
        """Of the network with a dense convolution in the place of every pair."""
        return self.macs + sum(pair.standard_macs - pair.macs for pair in self.pairs())

    @property
    def standard_weights(self) -> int:
        """Of the network with a dense convolution in the place of every pair."""
        return self.weights + sum(pair.standard_weights - pair.weights for pair in self.pairs())
