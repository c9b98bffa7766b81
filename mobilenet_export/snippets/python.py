"""Python: numpy, Pillow, and onnxruntime or LiteRT."""

from collections.abc import Mapping

from mobilenet_export.snippets import Facts, Values, fill

_ENGINE = {"onnx": "python_onnx.txt", "ort": "python_onnx.txt", "tflite": "python_tflite.txt"}

_CONVERT: Mapping[Values, str] = {
    "normalized": "((pixels / np.float32(255) - MEAN) / STD).astype(np.float32)",
    "uint8": "pixels  # the network normalizes them itself",
    "int8": "(pixels.astype(np.int16) - 128).astype(np.int8)",
}


class PythonSnippet:
    """A script that classifies images."""

    name = "python"
    formats = ("onnx", "tflite", "ort")

    def write(self, facts: Facts) -> str:
        """Return the script."""
        constants = f"MEAN = np.array({facts.mean}, np.float32)\nSTD = np.array({facts.std}, np.float32)\n"
        dequantized = f"{facts.scale} * (outputs.astype(np.float32) - {facts.zero_point})"
        slots = facts.slots() | {
            "constants": constants if facts.values == "normalized" else "",
            "filter": facts.interpolation.upper(),
            "convert": _CONVERT[facts.values],
            "transpose": ".transpose(2, 0, 1)" if facts.layout == "NCHW" else "",
            "dequantize": "outputs" if facts.scale is None else dequantized,
        }
        return fill("python.txt", slots | {"run": fill(_ENGINE[facts.format], slots)})


SNIPPET = PythonSnippet()
