"""The passes in the order that each relies on."""

from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import BatchNorm, Clamp, Graph, ZeroPad
from mobilenet_export.passes.fold_batch_norm import fold_batch_norm
from mobilenet_export.passes.fuse_activation import fuse_activation
from mobilenet_export.passes.fuse_padding import fuse_padding

PASSES = (fuse_padding, fold_batch_norm, fuse_activation)


def simplify(graph: Graph) -> Graph:
    """Return the graph with nothing left but convolutions, Adds, one pool, linear layers and a softmax.

    Raises:
        DamagedInputError: A BatchNorm, a clamp or a padding has no layer to go into.
    """
    for step in PASSES:
        graph = step(graph)
    for node in graph.nodes:
        if isinstance(node, BatchNorm | Clamp | ZeroPad):
            raise DamagedInputError(
                f"{node.name}: this {type(node).__name__} does not follow a convolution of its own",
                "mobilenet-export takes MobileNet-like graphs: conv → BatchNorm → ReLU/ReLU6",
            )
    return graph
