"""What was measured, as values: rows, the limits they were held against, and the verdict."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mobilenet_export.artifact import Precision


@dataclass(frozen=True, slots=True)
class Referee:
    """A runtime's int8 logits against the exact arithmetic of the file's own integers.

    Attributes:
        largest_lsb: Largest difference of any output, in steps of the logits.
        equal_percent: Share of outputs that are equal to the bit.
        images: Number of images; the first of the run.
    """

    largest_lsb: int
    equal_percent: float
    images: int

    @property
    def words(self) -> str:
        """How far the logits are from exact arithmetic, such as `≤ 2 LSB, 63 % =`."""
        if self.largest_lsb == 0:
            return "bit-equal"
        share = math.floor(self.equal_percent * 10) / 10  # never 100 where one is not equal
        return f"≤ {self.largest_lsb} LSB, {share:.1f} % ="


@dataclass(frozen=True, slots=True)
class DriftRow:
    """One file in one runtime against the reference; `None` where it needs labels and there are none.

    Attributes:
        file: Name of the file.
        format: Name of its format.
        precision: Of its weights.
        runtime: That ran it.
        provider: Execution provider or kernel set of the runtime.
        top1_percent: Share of labelled images whose best class is the label.
        top5_percent: Share of labelled images whose label is among the best five.
        top1_drop_points: The reference's top-1 minus this one's, in percentage points.
        top1_drop_interval_points: 95 % confidence interval of that, from the same images.
        agreement_percent: Share of images whose best class is the reference's.
        sqnr_db: Signal-to-quantization-noise ratio of the outputs; infinite where they are equal,
            minus infinity where an output is NaN or infinite.
        cosine: Mean cosine similarity of the outputs.
        max_abs: Largest difference of any output.
        kl: Mean Kullback–Leibler divergence of the class probabilities, in nats.
        referee: Of an int8 file of ours that ends in logits; None of any other. A file that ends in a softmax
            has none: its probabilities are floats, and no longer steps.
    """

    file: str
    format: str
    precision: Precision
    runtime: str
    provider: str
    top1_percent: float | None
    top5_percent: float | None
    top1_drop_points: float | None
    top1_drop_interval_points: tuple[float, float] | None
    agreement_percent: float
    sqnr_db: float
    cosine: float
    max_abs: float
    kl: float
    referee: Referee | None = None


@dataclass(frozen=True, slots=True)
class DriftReport:
    """Every file in every runtime against one reference.

    Attributes:
        reference: Runtime that set the truth, such as `torch`.
        data: Where the images are from.
        images: Number of images.
        labelled: How many of them had a label.
        reference_top1_percent: Of the reference on the labelled images.
        rows: One per file and runtime.
        failures: One line per limit that was not met.
        doubts: One line per limit that so few images cannot decide.
        warnings: One line per thing that the user may not have meant, or that could not be measured.
    """

    reference: str
    data: str
    images: int
    labelled: int
    reference_top1_percent: float | None
    rows: tuple[DriftRow, ...]
    failures: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def verdict(self) -> Literal["pass", "fail", "inconclusive"]:
        """Whether every limit was met."""
        return "fail" if self.failures else "inconclusive" if self.doubts else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table; an infinite ratio becomes null."""
        table = dataclasses.asdict(self)
        table["rows"] = [_json_row(row) for row in self.rows]
        return {
            **table,
            "failures": list(self.failures),
            "doubts": list(self.doubts),
            "warnings": list(self.warnings),
            "verdict": self.verdict,
        }


def _json_row(row: DriftRow) -> dict[str, Any]:
    """Round to what is meaningful, so that the same run writes the same bytes."""
    table = dataclasses.asdict(row)
    for name, value in table.items():
        if isinstance(value, float):
            table[name] = None if math.isinf(value) else float(f"{value:.6g}")
    if row.referee is not None:
        table["referee"]["equal_percent"] = float(f"{row.referee.equal_percent:.6g}")
    if row.top1_drop_interval_points is not None:
        table["top1_drop_interval_points"] = [
            float(f"{bound:.6g}") for bound in row.top1_drop_interval_points
        ]
    return table


def drift_from_json(table: Mapping[str, Any]) -> DriftReport:
    """Read a report back from what `DriftReport.to_json` made of it.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    lines = {name: tuple(map(str, table[name])) for name in ("failures", "doubts", "warnings")}
    if int(table["images"]) < 1:
        raise ValueError("drift on no images")
    return DriftReport(
        reference=str(table["reference"]),
        data=str(table["data"]),
        images=int(table["images"]),
        labelled=int(table["labelled"]),
        reference_top1_percent=_number(table["reference_top1_percent"]),
        rows=tuple(_drift_row(row) for row in table["rows"]),
        **lines,
    )


def _drift_row(table: Mapping[str, Any]) -> DriftRow:
    referee, interval = table["referee"], table["top1_drop_interval_points"]
    ratio, largest = _number(table["sqnr_db"]), _or_infinite(table["max_abs"])
    if ratio is None:
        ratio = math.inf if largest == 0 else -math.inf
    texts = {name: str(table[name]) for name in ("file", "format", "precision", "runtime", "provider")}
    return DriftRow(
        **texts,  # type: ignore[arg-type]
        top1_percent=_number(table["top1_percent"]),
        top5_percent=_number(table["top5_percent"]),
        top1_drop_points=_number(table["top1_drop_points"]),
        top1_drop_interval_points=(float(interval[0]), float(interval[1])) if interval else None,
        agreement_percent=float(table["agreement_percent"]),
        sqnr_db=ratio,
        cosine=float(table["cosine"]),
        max_abs=largest,
        kl=_or_infinite(table["kl"]),
        referee=_referee(referee) if referee else None,
    )


def _referee(table: Mapping[str, Any]) -> Referee:
    return Referee(int(table["largest_lsb"]), float(table["equal_percent"]), int(table["images"]))


def _or_infinite(value: Any) -> float:
    return math.inf if value is None else float(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class LayerError:
    """What int8 makes of one layer's output, or of the input.

    Attributes:
        layer: Its name.
        kind: Such as `1×1 conv`.
        shape: Of its output, (C, H, W) or (C,).
        low: The real value that the integer 0 stands for.
        high: The real value that 255 stands for.
        sqnr_db: Against fp32, by runtime, with all layers before it in int8, too; None where it is not finite.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    low: float
    high: float
    sqnr_db: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class LayerCurve:
    """The error of int8 along a network, in the order in which its layers run.

    Attributes:
        data: Where the images are from.
        images: How many.
        files: Runtime → the file whose integers it ran.
        layers: The input, and every layer up to the logits.
    """

    data: str
    images: int
    files: Mapping[str, str]
    layers: tuple[LayerError, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the curve as a JSON-able table."""
        return dataclasses.asdict(self)


def curve_from_json(table: Mapping[str, Any]) -> LayerCurve:
    """Read a curve back from what `LayerCurve.to_json` made of it.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    files = {str(name): str(file) for name, file in table["files"].items()}
    layers = []
    for row in table["layers"]:
        ratios = {name: row["sqnr_db"][name] for name in files}
        layers.append(
            LayerError(
                layer=str(row["layer"]),
                kind=str(row["kind"]),
                shape=tuple(map(int, row["shape"])),
                low=float(row["low"]),
                high=float(row["high"]),
                sqnr_db={name: None if x is None else float(x) for name, x in ratios.items()},
            )
        )
    if len(layers) < 2 or not files:
        raise ValueError("there are none")
    return LayerCurve(str(table["data"]), int(table["images"]), files, tuple(layers))
