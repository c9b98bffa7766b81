"""A model file in memory: bytes and what they are."""

import hashlib
from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8"]
InputOutput = Literal["float32", "int8", "uint8"]

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True)
class Artifact:
    """One exported file.

    Attributes:
        file: File name, without a folder.
        format: Name of its module in `formats/`.
        precision: Of the weights; activations are integers only in int8.
        data: The file's bytes.
        io: Type of the input and output tensors.
    """

    file: str
    format: str
    precision: Precision
    data: bytes
    io: InputOutput = "float32"

    @property
    def sha256(self) -> str:
        """Hash of the bytes, in hex."""
        return hashlib.sha256(self.data).hexdigest()
