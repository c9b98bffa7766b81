"""The int8 network as data: one set of integers that every format spells.

q = clamp(round(x / scale) + zero_point, 0, 255) for activations (unsigned, asymmetric, one scale per tensor);
q = clamp(round(w / scale), -127, 127) for weights (signed, symmetric, one scale per output channel);
bias is int32 with scale = input scale · weight scale.
Source: Jacob et al. 2018 (arXiv:1712.05877), eq. 1 and section 2.4; per-channel weights from
Krishnamoorthi 2018 (arXiv:1806.08342), section 3.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobilenet_export.graph import FloatArray, Graph

Copies = Mapping[str, Mapping[int, int]]
"""Depthwise layer → place of a dead channel → channel that is copied into it, before and after the layer."""


@dataclass(frozen=True, slots=True)
class TensorScale:
    """Scale and zero point of an activation, in the unsigned 0…255 convention.

    A format that stores signed activations subtracts 128 from `zero_point`; the stored values shift with it.
    """

    scale: float
    zero_point: int

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest real value that 0 and 255 stand for."""
        return (-self.zero_point * self.scale, (255 - self.zero_point) * self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class QuantizedKernel:
    """Integers of one layer: weight int8 in the float weight's shape, scale float32 (O,), bias int32 (O,)."""

    weight: NDArray[np.int8]
    scale: FloatArray
    bias: NDArray[np.int32]

    @property
    def stored_scale(self) -> FloatArray:
        """The scale as a file states it: (1,) where all channels share one, as some NPUs need it, else (O,)."""
        return self.scale[:1] if (self.scale == self.scale[0]).all() else self.scale


@dataclass(frozen=True, slots=True)
class Decision:
    """A step of the quantizer that was tried on held-out images, and whether it was kept.

    `before_db` and `after_db` are the mean over images of the logits' SQNR against fp32 without and with the step.
    """

    step: str
    before_db: float
    after_db: float
    kept: bool
    images: int

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Decision":
        """Read one back from a bundle's document.

        Raises:
            KeyError, TypeError, ValueError: It is none.
        """
        before, after = float(table["before_db"]), float(table["after_db"])
        return cls(str(table["step"]), before, after, bool(table["kept"]), int(table["images"]))


@dataclass(frozen=True, slots=True)
class QuantizedGraph:
    """A graph with its integers.

    Attributes:
        graph: The float graph that was quantized; its structure is the quantized one's.
        tensors: Scale of every activation up to the logits, by tensor name.
        kernels: Integers of every layer with weights, by layer name.
        decisions: What the quantizer tried, in order.
        copies: Channels that were copied into the places of dead ones before.
        equalization: Factors by which channels were multiplied before, by tensor name, float32 (C,): the tensor is
            the original's times these.
    """

    graph: Graph
    tensors: Mapping[str, TensorScale]
    kernels: Mapping[str, QuantizedKernel]
    decisions: tuple[Decision, ...] = ()
    copies: Copies = field(default_factory=dict)
    equalization: Mapping[str, FloatArray] = field(default_factory=dict)
