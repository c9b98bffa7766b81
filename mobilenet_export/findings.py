"""What is wrong with a set of images, as values: findings, and the report that they make."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]
SHOWN_FILES = 5
"""Names on one line; of more, the number."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or suspected to be.

    Attributes:
        severity: An error is wrong in any case; a warning may be meant so.
        kind: Short name, for scripts: `unreadable`, `duplicate`.
        problem: What is wrong, without the files.
        hint: The next step.
        files: Where; all of them.
    """

    severity: Severity
    kind: str
    problem: str
    hint: str
    files: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The problem and the first files, on one line."""
        return f"{self.problem}: {listing(self.files)}" if self.files else self.problem

    def to_json(self) -> dict[str, Any]:
        """Return the finding as a JSON-able table, with all files."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "problem": self.problem,
            "hint": self.hint,
            "files": list(self.files),
        }


def listing(names: Iterable[str]) -> str:
    """Join the first `SHOWN_FILES` names, and say how many more there are."""
    every = list(names)
    more = f" and {len(every) - SHOWN_FILES:,} more" if len(every) > SHOWN_FILES else ""
    return ", ".join(every[:SHOWN_FILES]) + more


@dataclass(frozen=True, slots=True)
class RangeStability:
    """How far apart the ranges of activations are that two halves of the images give.

    A tensor's difference is that of its bound that differs most, over the mean width of its two ranges.

    Attributes:
        images: In both halves together.
        tensors: That were compared.
        median_percent: Of the tensors' differences.
        worst_percent: Largest difference.
        worst_layer: Where that is.
    """

    images: int
    tensors: int
    median_percent: float
    worst_percent: float
    worst_layer: str

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able table, rounded to what is meaningful."""
        return {
            "images": self.images,
            "tensors": self.tensors,
            "median_percent": round(self.median_percent, 2),
            "worst_percent": round(self.worst_percent, 2),
            "worst_layer": self.worst_layer,
        }


@dataclass(frozen=True, slots=True)
class LintReport:
    """What is known of a set of images.

    Attributes:
        data: Where they are from.
        images: Number of them.
        usable: How many can be read.
        findings: Errors first.
        ranges: Stability of activations; None where no network looked at the images.
        strict: Warnings fail too.
    """

    data: str
    images: int
    usable: int
    findings: tuple[Finding, ...]
    ranges: RangeStability | None
    strict: bool = False

    def count(self, severity: Severity) -> int:
        """Return how many findings are that severe."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def verdict(self) -> Literal["pass", "fail"]:
        """Whether there is no error (and no warning, if strict)."""
        return "fail" if self.count("error") or (self.strict and self.count("warning")) else "pass"

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON-able table."""
        return {
            "data": self.data,
            "images": self.images,
            "usable": self.usable,
            "findings": [finding.to_json() for finding in self.findings],
            "ranges": self.ranges.to_json() if self.ranges else None,
            "strict": self.strict,
            "verdict": self.verdict,
        }
