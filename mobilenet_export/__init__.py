"""MobileNetV1/V2 from PyTorch to ONNX and TFLite, quantized once and checked everywhere.

`export`, `validate` and `bench` are the Python API; they are imported on use, so that `import mobilenet_export` is
light. It imports nothing at all: `mnx` cannot say that it was interrupted before this is loaded.
"""

TYPE_CHECKING = False  # for whoever checks types it is true, as typing's is

__version__ = "0.1.0"
__all__ = ["__version__", "bench", "export", "validate"]

if TYPE_CHECKING:
    from typing import Any

    from mobilenet_export.api import bench, export, validate
else:

    def __getattr__(name: str) -> "Any":
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mobilenet_export import api  # noqa: PLC0415

        return getattr(api, name)
