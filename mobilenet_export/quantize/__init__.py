"""Graph + calibration images → QuantizedGraph, by post-training quantization."""
