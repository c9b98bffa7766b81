"""Names the image, where a layer gives NaN or infinity."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from mobilenet_export.errors import DamagedInputError
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.quantize.calibrate import Activations, NotFiniteError, refuse_not_finite
from mobilenet_export.runtimes.onnxruntime import watch


@contextmanager
def naming_images(names: Sequence[str]) -> Iterator[None]:
    """Say which image it was that gives NaN or infinity, where the steps know only its number.

    Raises:
        DamagedInputError: Names the image and the layer.
    """
    try:
        yield
    except NotFiniteError as error:
        message = f"{names[error.image]}: layer {error.layer} gives NaN or infinity for this image"
        raise DamagedInputError(message, error.hint) from None


def finite(graph: Graph, images: Iterable[Activations]) -> Iterator[Activations]:
    """Pass activations of one image after another on, if they are finite.

    Raises:
        NotFiniteError: A layer gives NaN or infinity.
    """
    for index, image in enumerate(images):
        refuse_not_finite(graph, image, index)
        yield image


def refuse_not_finite_outputs(
    graph: Graph, names: Sequence[str], batch: FloatArray, outputs: FloatArray
) -> None:
    """Refuse images whose outputs are NaN or infinite.

    Args:
        graph: Fused float graph.
        names: Of n images.
        batch: float32 (n, C, H, W).
        outputs: Of the graph for them, float32 (n, classes).

    Raises:
        DamagedInputError: Names the first such image, and the first layer.
    """
    bad = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
    if len(bad):
        index = int(bad[0])
        with naming_images([names[index]]):
            list(finite(graph, watch(graph, [batch[index : index + 1]])))
