"""Per-layer error of int8 against fp32, as values: what was measured at each layer, and what would help.

A remedy follows from measured facts, in this order, and is none that the quantizer has tried already:

1. The layer causes less than 2 % of the noise at the logits: *none*.
2. Its weights cause more of it than rounding its output does: *equalize* where weights of live input channels all
   round to 0; *per-channel* where all outputs share one scale; *GPTQ*, weights rounded so that errors cancel
   (Frantar et al. 2023, arXiv:2210.17323); else *train*.
3. It is the input, or makes the logits, whose 8 bits nothing changes: *none*.
4. Half of its output's channels span 32 of the 255 steps or fewer: *equalize*, the channels brought to like
   ranges by factors that the next layer undoes (Nagel et al. 2019, arXiv:1906.04721, section 4.1); not where the
   file has such factors already.
5. Half of the noise of rounding its output is clipping: *widen*, a range from more or more typical images.
6. Else nothing cheaper is left: *train*, ranges or weights learned with the rounding in place.
"""

import dataclasses
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from mobilenet_export.checks.layer_noise import Factors, Noise
from mobilenet_export.checks.layer_statistics import (
    ACTIVATION_EDGES,
    WEIGHT_EDGES,
    TensorSums,
    stored_weights,
    weights_in_steps,
)
from mobilenet_export.checks.metrics import decibel
from mobilenet_export.graph import Add, Conv2d, FloatArray, FullyConnected, GlobalAveragePool, Kernel, Node
from mobilenet_export.quantized import QuantizedGraph

SMALL_SHARE_PERCENT = 2.0
CLIPPED_PERCENT = 50.0
FEW_STEPS = 32


class Remedy(Enum):
    """What would lower a layer's noise; the value is its short name."""

    NONE = "none"
    GPTQ = "GPTQ"
    EQUALIZE = "equalize"
    PER_CHANNEL = "per-channel"
    WIDEN = "widen"
    TRAIN = "train"

    @property
    def advice(self) -> str:
        """The remedy in words."""
        return {
            Remedy.NONE: "its share is small, or nothing changes it",
            Remedy.GPTQ: "round the weights so that errors cancel (recipe int8, GPTQ)",
            Remedy.EQUALIZE: "bring the channels to like ranges (recipe int8, equalization)",
            Remedy.PER_CHANNEL: "one scale per output channel (recipe int8), where the target can do so",
            Remedy.WIDEN: "a wider range: more, or more typical, calibration images",
            Remedy.TRAIN: "nothing cheaper is left: learn ranges or weights with the rounding in place",
        }[self]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of fp32 values and of integers over the same bins.

    Attributes:
        edges: In steps of the integers, one more than there are bins.
        fp32: Values in steps, unrounded; those beyond the edges are in no bin.
        int8: Integers.
    """

    edges: tuple[float, ...]
    fp32: tuple[int, ...]
    int8: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """What a remedy follows from.

    Attributes:
        share_percent: Of the noise that all layers, each alone, put on the logits.
        weights_percent: Part of the share by its weights.
        activations_percent: Part of the share by rounding its output.
        clipped_percent: Share of its fp32 output that lies beyond the integers' range.
        clipping_percent: Share of the noise of rounding its output that is clipping.
        median_steps: Steps of 255 that the median channel of its output spans.
        weight_spread: Largest weight of the widest output channel over that of the median one; None without
            weights.
        lost_inputs: Input channels that are not constant, but whose weights all round to 0.
        dead_channels: Output channels that had one and the same of several values.
        equalized: The file's tensor has factors per channel.
        is_end: The input, or the logits: no neighbour can undo factors of theirs.
        one_scale: All its output channels' weights share one scale.
    """

    share_percent: float
    weights_percent: float
    activations_percent: float
    clipped_percent: float
    clipping_percent: float
    median_steps: float
    weight_spread: float | None
    lost_inputs: int
    dead_channels: int
    equalized: bool = False
    is_end: bool = False
    one_scale: bool = False


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer, or the input.

    Attributes:
        layer: Its name, and that of its output.
        kind: Such as `1×1 conv`.
        shape: Of its output, (C, H, W) or (C,).
        sqnr_db: Of its output by runtime, with all layers before it in int8, too.
        alone_db: SQNR of the logits where this layer alone is int8.
        facts: What was measured of it.
        remedy: What would help.
        reason: The facts that say so.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    sqnr_db: Mapping[str, float]
    alone_db: float
    facts: LayerFacts
    remedy: Remedy
    reason: str


@dataclass(frozen=True, slots=True)
class LayerReport:
    """Every layer of a network, in the order in which they run.

    Attributes:
        model: Name of the network.
        data: Where the images are from.
        images: How many.
        files: Runtime → the file that it ran.
        logits: Name of the tensor that errors are measured at in the end.
        summed_db: SQNR of the logits if every layer's noise alone is added up; near the file's own.
        rows: The input, and every layer up to the logits.
        weights: Histogram of the weights, of every layer that has some.
        activations: Histogram of each output.
    """

    model: str
    data: str
    images: int
    files: Mapping[str, str]
    logits: str
    summed_db: float
    rows: tuple[LayerRow, ...]
    weights: Mapping[str, Histogram]
    activations: Mapping[str, Histogram]

    def worst(self, count: int) -> tuple[LayerRow, ...]:
        """Return the rows with the largest share, the largest first."""
        return tuple(sorted(self.rows, key=lambda row: -row.facts.share_percent)[:count])

    def final_db(self) -> dict[str, float]:
        """SQNR of the logits by runtime, with everything in int8."""
        (last,) = [row for row in self.rows if row.layer == self.logits]
        return dict(last.sqnr_db)

    def to_json(self, worst: int) -> dict[str, Any]:
        """Return the report as a JSON-able table, with the histograms of the `worst` layers; infinite is null."""
        ranks = {row.layer: rank for rank, row in enumerate(self.worst(len(self.rows)), start=1)}
        chosen = [row.layer for row in self.worst(worst)]
        return {
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "files": dict(self.files),
            "sqnr_db": {runtime: _number(value) for runtime, value in self.final_db().items()},
            "summed_sqnr_db": _number(self.summed_db),
            "layers": [_json_row(row, ranks[row.layer]) for row in self.rows],
            "histograms": [
                {"layer": name, "weights": _json_histogram(self.weights.get(name))}
                | {"activations": _json_histogram(self.activations[name])}
                for name in chosen
            ],
        }


def _json_row(row: LayerRow, rank: int) -> dict[str, Any]:
    facts = {
        name: _number(value) if isinstance(value, float) else value
        for name, value in dataclasses.asdict(row.facts).items()
    }
    return {
        "layer": row.layer,
        "kind": row.kind,
        "shape": list(row.shape),
        "rank": rank,
        "sqnr_db": {runtime: _number(value) for runtime, value in row.sqnr_db.items()},
        "alone_sqnr_db": _number(row.alone_db),
        **facts,
        "remedy": row.remedy.value,
        "reason": row.reason,
    }


def _json_histogram(histogram: Histogram | None) -> dict[str, list[float]] | None:
    if histogram is None:
        return None
    return {name: list(values) for name, values in dataclasses.asdict(histogram).items()}


def _number(value: float) -> float | None:
    """Round to what is meaningful."""
    return None if math.isinf(value) else float(f"{value:.6g}")


def layer_rows(
    quantized: QuantizedGraph,
    factors: Factors,
    signal: float,
    noise: Mapping[str, Noise],
    sums: Mapping[str, TensorSums],
) -> tuple[LayerRow, ...]:
    """Put together what was measured.

    Args:
        quantized: The integers, and the original float graph.
        factors: Of an equalized file.
        signal: Σr² of the fp32 logits.
        noise: Of each layer alone, from `noise_alone`.
        sums: Of each tensor, over the images.
    """
    nodes: dict[str, Node] = {node.name: node for node in quantized.graph.nodes}
    total = sum(one.together for one in noise.values()) or 1.0
    tried = {decision.step for decision in quantized.decisions}
    rows = []
    for name, found in sums.items():
        node = nodes.get(name)
        spread, lost, one_scale = None, 0, False
        if isinstance(node, Conv2d | FullyConnected):
            spread = weight_spread(stored_weights(quantized, factors, node))
            lost = lost_inputs(quantized, node, sums[node.input])
            one_scale = len(quantized.kernels[name].stored_scale) < len(node.weight)
        facts = dataclasses.replace(
            _facts(noise[name], total, found, spread, lost),
            equalized=name in factors,
            is_end=name in (quantized.graph.input, quantized.graph.logits),
            one_scale=one_scale,
        )
        remedy = choose_remedy(facts, tried)
        rows.append(
            LayerRow(
                layer=name,
                kind=kind_of(node),
                shape=quantized.graph.shapes[name],
                sqnr_db={runtime: found.sqnr_db(runtime) for runtime in found.noise},
                alone_db=decibel(signal, noise[name].together),
                facts=facts,
                remedy=remedy,
                reason=explain(remedy, facts),
            )
        )
    return tuple(rows)


def _facts(noise: Noise, total: float, sums: TensorSums, spread: float | None, lost: int) -> LayerFacts:
    share = 100 * noise.together / total
    parts = noise.weights + noise.activations or 1.0
    return LayerFacts(
        share_percent=share,
        weights_percent=share * noise.weights / parts,
        activations_percent=share * noise.activations / parts,
        clipped_percent=100 * sums.clipped / sums.values,
        clipping_percent=100 * sums.clipping / sums.rounding if sums.rounding else 0.0,
        median_steps=float(np.median(sums.channel_steps)),
        weight_spread=spread,
        lost_inputs=lost,
        dead_channels=sums.dead_channels,
    )


def weight_spread(weight: FloatArray) -> float:
    """Largest |w| of the widest output channel over that of the median one, of weights (O, …)."""
    peaks = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return float(peaks.max() / max(float(np.median(peaks)), 1e-30))


def lost_inputs(quantized: QuantizedGraph, node: Kernel, source: TensorSums) -> int:
    """Count the input channels that are not constant, but whose integers are all 0 though their weights are not."""
    if isinstance(node, Conv2d) and node.is_depthwise:
        return 0
    integers = quantized.kernels[node.name].weight
    axes = (0, *range(2, integers.ndim))
    lost = ~integers.any(axis=axes) & node.weight.any(axis=axes)
    return int(np.count_nonzero(lost & (source.highest > source.lowest)))


def choose_remedy(facts: LayerFacts, tried: Container[str] = ()) -> Remedy:
    """Return what would help a layer; the module's head says how it is chosen.

    Args:
        facts: What was measured.
        tried: Steps of the quantizer that are in the file, or did not pay.
    """
    if facts.share_percent < SMALL_SHARE_PERCENT:
        return Remedy.NONE
    if facts.weights_percent > facts.activations_percent:
        return _choose_for_weights(facts, tried)
    if facts.is_end:
        return Remedy.NONE
    if facts.median_steps <= FEW_STEPS and "equalize_all" not in tried and not facts.equalized:
        return Remedy.EQUALIZE
    return Remedy.WIDEN if facts.clipping_percent >= CLIPPED_PERCENT else Remedy.TRAIN


def _choose_for_weights(facts: LayerFacts, tried: Container[str]) -> Remedy:
    if facts.lost_inputs and "equalize_all" not in tried:
        return Remedy.EQUALIZE
    if facts.one_scale:
        return Remedy.PER_CHANNEL
    return Remedy.TRAIN if "rounding" in tried else Remedy.GPTQ


def explain(remedy: Remedy, facts: LayerFacts) -> str:
    """Return the fact behind a remedy, short; `median channel 3/255` is how many steps its values span."""
    if remedy is Remedy.NONE:
        at_end = facts.is_end and facts.share_percent >= SMALL_SHARE_PERCENT
        return "8 bits cost this" if at_end else ""
    if facts.weights_percent > facts.activations_percent:
        if remedy is Remedy.EQUALIZE:
            return f"{facts.lost_inputs} inputs round to 0"
        return f"{100 * facts.weights_percent / facts.share_percent:.0f} % by weights"
    if remedy is Remedy.WIDEN:
        return f"{facts.clipping_percent:.0f} % by clipping"
    return f"median channel {facts.median_steps:.0f}/255"


def kind_of(node: Node | None) -> str:
    """Name what a layer does, such as `3×3 depthwise /2`."""
    match node:
        case None:
            return "input"
        case Conv2d():
            height, width = node.weight.shape[2:]
            kind = "depthwise" if node.is_depthwise else "conv"
            return f"{height}×{width} {kind}" + (f" /{node.stride[0]}" if node.stride != (1, 1) else "")
        case FullyConnected():
            return "linear"
        case Add():
            return "add"
        case GlobalAveragePool():
            return "pool"
        case _:
            return type(node).__name__


def weight_histograms(quantized: QuantizedGraph, factors: Factors) -> dict[str, Histogram]:
    """Return the histogram of each layer's weights, in steps −127…127."""
    found = {}
    for node in quantized.graph.kernels():
        steps = weights_in_steps(quantized, factors, node)
        fp32, _ = np.histogram(steps, WEIGHT_EDGES)
        int8, _ = np.histogram(quantized.kernels[node.name].weight, WEIGHT_EDGES)
        found[node.name] = Histogram(WEIGHT_EDGES, tuple(fp32.tolist()), tuple(int8.tolist()))
    return found


def activation_histogram(sums: TensorSums) -> Histogram:
    """Return the histogram of a tensor, in steps 0…255."""
    return Histogram(ACTIVATION_EDGES, tuple(sums.fp32.tolist()), tuple(sums.int8.tolist()))
