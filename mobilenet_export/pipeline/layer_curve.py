"""The error of int8 along the network, as every export measures it: the cheap part of `analyze`."""

import dataclasses
import math
from collections.abc import Callable, Sequence

from mobilenet_export.artifact import Artifact
from mobilenet_export.checks.layers import kind_of
from mobilenet_export.images import ImageSet
from mobilenet_export.pipeline.analyze import engines_of, files_by_runtime, watch_kernels
from mobilenet_export.pipeline.evidence import printable, values_of
from mobilenet_export.pipeline.reference import Source
from mobilenet_export.quantize.splitting import reference_graph
from mobilenet_export.quantized import QuantizedGraph
from mobilenet_export.report import LayerCurve, LayerError

CURVE_IMAGES = 8
"""As many as `mnx analyze` takes; they cost V2 a second."""


def measure_curve(
    source: Source,
    quantized: QuantizedGraph,
    artifacts: Sequence[Artifact],
    check: ImageSet,
    advance: Callable[[int], None],
) -> LayerCurve:
    """Run fp32 and every runtime's integer kernels side by side, on the first images to check with."""
    few = check.subset(check.names[:CURVE_IMAGES])
    files = files_by_runtime(artifacts)
    original = dataclasses.replace(quantized, graph=reference_graph(source.pixel_graph, quantized))
    images = values_of(few, source.spec)
    sums = watch_kernels(original, quantized.equalization, images, engines_of(files), advance)
    nodes = {node.name: node for node in original.graph.nodes}
    layers = []
    for name, found in sums.items():
        low, high = (float(f"{bound:.4g}") for bound in quantized.tensors[name].bounds)
        ratios = {runtime: _decibel(found.sqnr_db(runtime)) for runtime in files}
        kind = kind_of(nodes.get(name))
        layers.append(LayerError(name, kind, original.graph.shapes[name], low, high, ratios))
    names = {runtime: artifact.file for runtime, artifact in files.items()}
    return LayerCurve(printable(few.origin), len(few), names, tuple(layers))


def _decibel(value: float) -> float | None:
    """Round to what is meaningful; None of what is not finite."""
    return round(value, 2) if math.isfinite(value) else None
