"""A model file in memory: bytes and what they are."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Precision = Literal["fp32", "fp16", "int8"]
InputOutput = Literal["float32", "int8", "uint8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")
INPUT_OUTPUTS: tuple[InputOutput, ...] = ("float32", "uint8", "int8")


@dataclass(frozen=True, slots=True)
class Normalization:
    """How pixels p, 0…255, become what a network reads: x = (p/255 − mean)/std; as it stands, x = p."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1 / 255, 1 / 255, 1 / 255)

    @property
    def gain(self) -> NDArray[np.float32]:
        """Float32 (C,): x = gain·p + shift."""
        return np.array([1 / (255 * std) for std in self.std], np.float32)

    @property
    def shift(self) -> NDArray[np.float32]:
        """Float32 (C,): x = gain·p + shift."""
        return np.array([-mean / std for mean, std in zip(self.mean, self.std, strict=True)], np.float32)

    def pixels(self, batch: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the pixels of normalized images, (N, 3, H, W); what lies between two goes to the nearer."""
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (self.mean, self.std))
        nearest = np.rint((batch * std + mean) * np.float32(255))
        return np.asarray(np.clip(nearest, 0, 255), np.uint8)


PIXELS = Normalization()


@dataclass(frozen=True, slots=True)
class Artifact:
    """One exported file.

    Attributes:
        file: File name, without a folder.
        format: Name of its module in `formats/`.
        precision: Of the weights; activations are integers only in int8.
        data: The file's bytes.
        io: Type of the input, and of the output but for uint8. Integers are pixels: uint8 as they are, in RGB,
            int8 less 128.
        normalization: Of the network, by which files that take pixels are fed from normalized values.
    """

    file: str
    format: str
    precision: Precision
    data: bytes
    io: InputOutput = "float32"
    normalization: Normalization = PIXELS

    @property
    def sha256(self) -> str:
        """Hash of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()
