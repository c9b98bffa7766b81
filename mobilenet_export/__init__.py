"""MobileNetV1/V2 from PyTorch to ONNX and TFLite, quantized once and checked everywhere."""

__version__ = "0.1.0"
