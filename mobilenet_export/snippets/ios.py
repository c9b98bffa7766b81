"""iOS: Swift, LiteRT's or ONNX Runtime's pod.

Source: developers.google.com/edge/litert/ios/quickstart; onnxruntime.ai/docs/api/objectivec (ORTSession, ORTValue).
"""

from collections.abc import Mapping

from mobilenet_export.snippets import Facts, Values, fill

_ENGINE = {"onnx": "ios_onnx.txt", "ort": "ios_onnx.txt", "tflite": "ios_tflite.txt"}

_CONVERT: Mapping[Values, tuple[str, str, str]] = {
    "normalized": ("Float", "(Float(channel) / 255 - mean[i]) / std[i]", "float"),
    "uint8": ("UInt8", "channel", "uInt8"),
    "int8": ("Int8", "Int8(Int(channel) - 128)", "int8"),
}
"""Type of an input value, how a colour becomes one, and what ONNX Runtime calls the type."""


class IosSnippet:
    """A class that classifies images."""

    name = "ios"
    formats = ("tflite", "onnx", "ort")

    def write(self, facts: Facts) -> str:
        """Return the Swift file."""
        kind, convert, element = _CONVERT[facts.values]
        mean, std = (", ".join(map(str, values)) for values in (facts.mean, facts.std))
        constants = f"private let mean: [Float] = [{mean}]\nprivate let std: [Float] = [{std}]\n"
        planar = facts.layout == "NCHW"
        shape = "[1, 3, cropPx, cropPx]" if planar else "[1, cropPx, cropPx, 3]"
        slots = facts.slots() | {
            "kind": kind,
            "convert": convert,
            "element": element,
            "shape": shape,
            "index": "i * cropPx * cropPx + pixel" if planar else "3 * pixel + i",
            "constants": constants if facts.values == "normalized" else "",
            "result": "Float" if facts.scale is None else "Int8",
            "dequantize": "$0"
            if facts.scale is None
            else f"{facts.scale} * Float(Int($0) - ({facts.zero_point}))",
        }
        return fill("ios.txt", slots | {"engine": fill(_ENGINE[facts.format], slots)})


SNIPPET = IosSnippet()
