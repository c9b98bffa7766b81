"""What a file of a format is made of, layer by layer: one module per format, each ends in `READER: ReadAnatomy`."""

from collections.abc import Callable

from mobilenet_export.anatomy import Anatomy

ReadAnatomy = Callable[[bytes, str, int | None], Anatomy]
"""Reads a file's bytes, under a name, at an input size in px where the file leaves it open.

Raises:
    ValueError: It is not a file of that format, or says too little of its tensors; the message says which.
    UsageError: The file leaves its input size open and none is given.
"""
