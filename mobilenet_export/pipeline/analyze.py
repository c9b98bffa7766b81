"""`analyze`: where in a bundle's network int8 loses what it loses."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import COPIES, DOCUMENT, EQUALIZATION, EXPORT_AGAIN, Bundle, read_bundle
from mobilenet_export.checks.layer_noise import Factors, Noise, noise_alone
from mobilenet_export.checks.layer_statistics import TensorSums, tensor_sums
from mobilenet_export.checks.layers import LayerReport, activation_histogram, layer_rows, weight_histograms
from mobilenet_export.checks.metrics import decibel
from mobilenet_export.checks.referee import same_integers
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.graph import FloatArray, Graph
from mobilenet_export.pipeline.evidence import BATCH, printable, read_integers, values_of
from mobilenet_export.pipeline.reference import capture
from mobilenet_export.pipeline.stages import Progress, Stages, silent
from mobilenet_export.pipeline.validate import (
    Target,
    ValidateRequest,
    find_images,
    find_target,
    reopen_reference,
)
from mobilenet_export.quantize.splitting import read_copies, reference_graph
from mobilenet_export.quantized import Copies, Decision, QuantizedGraph
from mobilenet_export.runtimes import Runtime, available_runtimes
from mobilenet_export.runtimes.onnxruntime import suffix, watch


@dataclass(frozen=True, slots=True)
class AnalyzeRequest:
    """What to analyze.

    Attributes:
        bundle: Folder of it.
        checkpoint: The user's own weights or ONNX file that it was exported from.
        data: Images; else the shipped ones for checking.
        limit: Use this many images at most.
    """

    bundle: Path
    checkpoint: Path | None = None
    data: Path | None = None
    limit: int = 8


def analyze(request: AnalyzeRequest, progress: Progress = silent) -> LayerReport:
    """Measure the error of int8 at every layer of a bundle, in every runtime that reads its int8 files.

    Raises:
        UsageError, MissingError, DamagedInputError: What the user can mend.
    """
    bundle = read_bundle(request.bundle)
    validation = ValidateRequest(
        (request.bundle,), None, request.checkpoint, request.data, limit=request.limit
    )
    target = find_target(validation)
    files = int8_files(request.bundle, target)
    check, _ = find_images(validation, target)
    stages = Stages(progress)
    with stages("load torch and the network"):
        origin, reference = reopen_reference(validation, target)
    with stages("capture"):
        graph = capture(origin, reference).pixel_graph
    quantized, factors = as_exported(bundle, shared_integers(tuple(files.values()), graph))
    images = values_of(check, target.spec)
    report = measure_layers(quantized, factors, images, engines_of(files), stages)
    names = {name: artifact.file for name, artifact in files.items()}
    return dataclasses.replace(report, data=printable(check.origin), files=names)


def measure_layers(
    quantized: QuantizedGraph,
    factors: Factors,
    images: FloatArray,
    engines: tuple[Runtime, ...],
    stages: Stages,
) -> LayerReport:
    """Measure every layer of a network whose integers are known.

    Args:
        quantized: The integers, and the original float graph.
        factors: Of an equalized file: tensor name → what it is multiplied with per channel.
        images: Preprocessed, float32 (N, 3, H, W).
        engines: Runtimes whose kernels are watched.
        stages: Of the run.
    """
    graph = quantized.graph
    groups = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    with stages("noise of each layer alone", len(quantized.tensors) * len(groups)) as advance:
        signal, noise = sum_noise(quantized, factors, groups, advance)
    with stages("watch the kernels", len(images)) as advance:
        sums = watch_kernels(quantized, factors, images, engines, advance)
    return LayerReport(
        model=graph.name,
        data="images",
        images=len(images),
        files={engine.name: f"{graph.name} in {engine.formats[0]}" for engine in engines},
        logits=graph.logits,
        summed_db=decibel(signal, sum(one.together for one in noise.values())),
        rows=layer_rows(quantized, factors, signal, noise, sums),
        weights=weight_histograms(quantized, factors),
        activations={name: activation_histogram(found) for name, found in sums.items()},
    )


def sum_noise(
    quantized: QuantizedGraph, factors: Factors, groups: Sequence[FloatArray], advance: Callable[[int], None]
) -> tuple[float, dict[str, Noise]]:
    """Measure every layer's noise alone, over groups of images of which one is in memory at a time."""
    total, noise = 0.0, {name: Noise() for name in quantized.tensors}
    for images in groups:
        signal, found = noise_alone(
            quantized, factors, images, lambda start: suffix(quantized.graph, start), advance
        )
        total += signal
        for name, one in found.items():
            noise[name].include(one)
    return total, noise


def int8_files(bundle: Path, target: Target) -> dict[str, Artifact]:
    """Return the first int8 file that each runtime here reads, by the runtime's name.

    Raises:
        UsageError: There is none.
    """
    found = files_by_runtime(target.artifacts)
    if not found:
        raise UsageError(f"{bundle} holds no int8 file", "export it with --int8")
    return found


def files_by_runtime(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """Return the first int8 file that each runtime here reads, by the runtime's name."""
    return {
        engine.name: artifact
        for engine in available_runtimes()
        for form in reversed(engine.formats)  # so that its own stays
        for artifact in reversed(artifacts)
        if artifact.precision == "int8" and artifact.format == form
    }


def engines_of(files: dict[str, Artifact]) -> tuple[Runtime, ...]:
    """Return the runtimes of those files."""
    return tuple(engine for engine in available_runtimes() if engine.name in files)


def shared_integers(artifacts: tuple[Artifact, ...], graph: Graph) -> QuantizedGraph:
    """Return the integers that all files hold.

    Raises:
        DamagedInputError: A file holds none that fit the graph, or others than the first.
    """
    first, *others = artifacts
    quantized = read_integers(first, graph)
    for artifact in others:
        if not same_integers(quantized, read_integers(artifact, graph)):
            raise DamagedInputError(
                f"{artifact.file} holds other integers than {first.file}",
                "they are not of one export; export the bundle again",
            )
    return quantized


def as_exported(bundle: Bundle, quantized: QuantizedGraph) -> tuple[QuantizedGraph, Factors]:
    """Return integers with the float graph whose tensors theirs are, and the factors by which they are larger.

    Raises:
        DamagedInputError: What the bundle says of its channels is not what was written, or does not fit the graph.
    """
    factors, copies = read_equalization(bundle, quantized.graph)
    quantized = dataclasses.replace(
        quantized, copies=copies, equalization=factors, decisions=read_decisions(bundle)
    )
    return dataclasses.replace(quantized, graph=reference_graph(quantized.graph, quantized)), factors


def read_decisions(bundle: Bundle) -> tuple[Decision, ...]:
    """Return what the quantizer tried.

    Raises:
        DamagedInputError: The document does not say so in the form that was written.
    """
    try:
        return tuple(map(Decision.from_table, bundle.document["decisions"]))
    except (KeyError, TypeError, ValueError):
        raise DamagedInputError(f"{bundle.folder / DOCUMENT}: no decisions", EXPORT_AGAIN) from None


def read_equalization(bundle: Bundle, graph: Graph) -> tuple[Factors, Copies]:
    """Return the factors of a bundle whose int8 files are equalized, and which of their channels are copies.

    Raises:
        DamagedInputError: The file is not the one that was written, or does not fit the graph.
    """
    data, path = bundle.equalization(), bundle.folder / EQUALIZATION
    if data is None:
        return {}, {}
    try:
        arrays = load(data)
        layers = {name.removeprefix(COPIES): name for name in arrays if name.startswith(COPIES)}
        copies = read_copies(graph, {layer: arrays.pop(name) for layer, name in layers.items()})
    except (SafetensorError, ValueError) as error:
        raise DamagedInputError(f"{path}: {error}", EXPORT_AGAIN) from None
    for name, values in arrays.items():
        fits = name in graph.shapes and values.shape == graph.shapes[name][:1]
        if not fits or values.dtype != np.float32 or not (np.isfinite(values) & (values > 0)).all():
            raise DamagedInputError(f"{path}: no factors of {name}", EXPORT_AGAIN)
    return arrays, copies


def watch_kernels(
    quantized: QuantizedGraph,
    factors: Factors,
    images: FloatArray,
    engines: tuple[Runtime, ...],
    advance: Callable[[int], None],
) -> dict[str, TensorSums]:
    """Run fp32 and every runtime's integer kernels side by side, an image at a time, and sum up every tensor."""
    sums = tensor_sums(quantized, factors)
    truths = watch(quantized.graph, [images])
    watched = zip(*(engine.watch_int8(quantized, images) for engine in engines), strict=True)
    for truth, found in zip(truths, watched, strict=True):
        for name, total in sums.items():
            integers = {engine.name: one[name] for engine, one in zip(engines, found, strict=True)}
            total.add(truth[name], integers)
        advance(1)
    return sums
