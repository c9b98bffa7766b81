"""From a file's nodes to layers: what only renames, stores or scales its neighbours' values is no layer.

* A node whose inputs are all constants makes a constant, such as float16 weights behind a cast.
* A view (flatten, reshape, identity) is the tensor that it looks at.
* A clamp behind a layer that nobody else reads is that layer's activation.
* In QDQ form (Dequantize → layer → Quantize) a layer computes with integers: its tensors are the integers.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mobilenet_export.anatomy import INTEGERS, Anatomy, Layer, Tensor
from mobilenet_export.graph import Shape

QUANTIZE, DEQUANTIZE, VIEW, CLAMP = "quantize", "dequantize", "view", "clamp"
MOST_NODES = 100_000
_ENDINGS = ("/unclamped", "/float", "/int8", "/int", "/flat", "/map")
"""Of tensors that our own files put around a layer's output."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant's shape and kind as it is stored, and its value where it is a single float."""

    shape: Shape
    kind: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An operator of a file.

    Attributes:
        operator: `conv`, `linear`, `add`, … or one of the four above; else the file's word.
        inputs: Names of tensors that it reads, constants too.
        outputs: Names of tensors that it makes.
        weight: Name of its kernel among them, where it has one.
        weight_shape: (O, I/groups, kh, kw) or (O, I).
        biases: How many numbers it adds or multiplies with besides.
        stride: In px.
        activation: Fused, or what a clamp is; empty where the file does not say.
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight: str = ""
    weight_shape: Shape = ()
    biases: int = 0
    stride: tuple[int, int] = (1, 1)
    activation: str = "none"


@dataclass(frozen=True, slots=True)
class Listing:
    """A file's graph, its parts under their own names.

    Attributes:
        name: Of the file.
        nodes: In the order in which they run.
        tensors: All that is computed, by its name in the file; shapes without the batch, channel first.
        constants: By name; none of them is computed from an activation.
        input: Name of the image.
        outputs: Names.
    """

    name: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    constants: Mapping[str, Constant]
    input: str
    outputs: tuple[str, ...]


def one_image(dims: Sequence[int]) -> Shape:
    """Return a shape without its batch; a map of one position is a vector."""
    shape = tuple(dims[1:]) if len(dims) > 1 else tuple(dims)
    return shape[:1] if len(shape) == 3 and shape[1:] == (1, 1) else shape


def add_computed(
    constants: dict[str, Constant], nodes: Iterable[tuple[Sequence[str], Sequence[str]]]
) -> None:
    """Add what (inputs, outputs) of nodes make of constants alone; each is what it is made of, as it is stored."""
    for inputs, outputs in nodes:
        stored = [constants.get(name) for name in inputs if name]
        if stored and stored[0] is not None and all(stored):
            constants.update(dict.fromkeys(outputs, stored[0]))


def anatomy_of(listing: Listing) -> Anatomy:
    """Return the layers.

    Raises:
        ValueError: A node reads what nobody makes, or the shape of a tensor is not known.
    """
    if len(listing.nodes) > MOST_NODES:
        raise ValueError(f"more than {MOST_NODES:,} operators")
    walk = _Walk(listing)
    walk.known[listing.input] = image = walk.tensor(listing.input)
    walk.taken.add(image.name)
    for node in listing.nodes:
        walk.visit(node)
    if not walk.layers:
        raise ValueError("it computes nothing")
    return Anatomy(listing.name, image, tuple(walk.layers))


@dataclass
class _Walk:
    listing: Listing
    known: dict[str, Tensor] = field(default_factory=dict)
    """Name in the file → the activation that it is."""
    layers: list[Layer] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    readers: dict[str, list[Node]] = field(init=False)
    uses: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.readers = {}
        for node in self.listing.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.uses = Counter(name for node in self.listing.nodes for name in node.inputs)
        self.uses.update(self.listing.outputs)

    def tensor(self, name: str) -> Tensor:
        if name not in self.listing.tensors:
            raise ValueError(f"the shape of {name} is not known")
        return self.listing.tensors[name]

    def visit(self, node: Node) -> None:
        reads = [name for name in node.inputs if name and name not in self.listing.constants]
        if not reads or not node.outputs:
            return
        for name in reads:
            if name not in self.known:
                raise ValueError(f"nothing makes {name}, of which {node.outputs[0]} is made")
        source = self.known[reads[0]]
        if node.operator == VIEW or self.is_alias(node, source):
            self.known.update(dict.fromkeys(node.outputs, source))
        elif node.operator == CLAMP and self.fuse(node, source, reads[0]):
            self.known[node.outputs[0]] = source
        else:
            self.add(node, tuple(self.known[name] for name in reads))

    def is_alias(self, node: Node, source: Tensor) -> bool:
        """Whether a quantize or dequantize only says how integers are meant that a layer reads or makes."""
        if node.operator == QUANTIZE:
            return source.kind == self.tensor(node.outputs[0]).kind
        return node.operator == DEQUANTIZE and all(
            self.ends_in_integers(reader, output)
            for output in node.outputs
            for reader in (self.readers.get(output) or [node])
        )

    def ends_in_integers(self, node: Node, source: str) -> bool:
        """Whether all that a node makes of a tensor is quantized, so that it can compute with integers."""
        if node.operator == QUANTIZE:
            return True
        if node.operator == DEQUANTIZE or source in self.listing.outputs:
            return False
        return all(self.becomes_integers(output) for output in node.outputs)

    def becomes_integers(self, tensor: str) -> bool:
        """Whether a tensor is read by nothing but a quantize, at most behind clamps and views."""
        readers = self.readers.get(tensor, [])
        return (
            bool(readers)
            and tensor not in self.listing.outputs
            and all(
                reader.operator == QUANTIZE
                or (
                    reader.operator in (CLAMP, VIEW)
                    and all(self.becomes_integers(output) for output in reader.outputs)
                )
                for reader in readers
            )
        )

    def integer_kind(self, tensor: str) -> str:
        """The kind that a tensor is quantized to."""
        for reader in self.readers[tensor]:
            output = reader.outputs[0]
            return self.tensor(output).kind if reader.operator == QUANTIZE else self.integer_kind(output)
        return "float32"

    def fuse(self, node: Node, source: Tensor, read: str) -> bool:
        """Make a clamp the activation of the layer before it, where nobody reads that one's output without it."""
        last = self.layers[-1] if self.layers else None
        if last is None or last.output != source or self.uses[read] > 1 or last.activation != "none":
            return False
        self.layers[-1] = dataclasses.replace(last, activation=node.activation)
        return True

    def add(self, node: Node, inputs: tuple[Tensor, ...]) -> None:
        integers = node.operator not in (QUANTIZE, DEQUANTIZE) and all(
            tensor.kind in INTEGERS for tensor in inputs
        )
        used = [name for name in node.outputs if self.uses[name]] or list(node.outputs[:1])
        for index, output in enumerate(used):
            tensor = self.tensor(output)
            if integers and self.becomes_integers(output):
                tensor = dataclasses.replace(tensor, kind=self.integer_kind(output))
                node = dataclasses.replace(
                    node, activation=node.activation if node.activation != "none" else ""
                )
            name = self.name(node, output)
            self.known[output] = tensor = dataclasses.replace(tensor, name=name)
            kernel = node if index == 0 else Node(node.operator, node.inputs, node.outputs)
            self.layers.append(self.layer(kernel, name, inputs, tensor))

    def layer(self, node: Node, name: str, inputs: tuple[Tensor, ...], output: Tensor) -> Layer:
        weight, constants = node.weight_shape, self.listing.constants
        depthwise = (
            node.operator == "conv" and len(weight) == 4 and weight[1] == 1 and inputs[0].shape[:1] > (1,)
        )
        return Layer(
            name,
            "depthwise" if depthwise else node.operator,
            inputs,
            output,
            weight,
            node.biases,
            node.stride,
            node.activation,
            constants[node.weight].kind if node.weight in constants else "float32",
        )

    def name(self, node: Node, output: str) -> str:
        """The path of the torch module, where the weight has it; else the output's name, always unique."""
        name = next(_names(node.weight), "") or _plain(output)
        if name in self.taken:
            name = output if output not in self.taken else f"{output}_{len(self.layers)}"
        self.taken.add(name)
        return name


def _names(weight: str) -> Iterator[str]:
    for part in (".weight", "/weight"):
        head, found, _ = weight.partition(part)
        if found and head:
            yield head


def _plain(name: str) -> str:
    for ending in _ENDINGS:
        if len(name) > len(ending):
            name = name.removesuffix(ending)
    return name
