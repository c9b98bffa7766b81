"""Measures of what export and quantization changed."""
