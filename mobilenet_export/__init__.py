"""MobileNetV1/V2 from PyTorch to ONNX and TFLite, quantized once and checked everywhere.

`export`, `validate` and `bench` are the Python API; they are imported on use, so that `import mobilenet_export` is
light.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "export", "validate"]

if TYPE_CHECKING:
    from mobilenet_export.api import bench, export, validate
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.api"), name)
