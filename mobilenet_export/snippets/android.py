"""Android: Kotlin, LiteRT's CompiledModel or Interpreter.

Source: ai.google.dev/edge/litert/next/android_kotlin; LiteRT's TensorBuffer.kt, which has no call for uint8:
`writeInt8` copies bytes as they are. The artifact holds org.tensorflow.lite.Interpreter, too.
"""

from collections.abc import Mapping

from mobilenet_export.snippets import Facts, Values, fill

_CONVERT: Mapping[Values, tuple[str, str, str]] = {
    "normalized": ("Float", "(channel / 255f - MEAN[i % 3]) / STD[i % 3]", "asFloatBuffer().put(values)"),
    "uint8": ("Byte", "channel.toByte()", "put(values)"),
    "int8": ("Byte", "(channel - 128).toByte()", "put(values)"),
}
"""Type of an input value, how a colour becomes one, and how they get into a buffer."""


class AndroidSnippet:
    """A class that classifies bitmaps."""

    name = "android"
    formats = ("tflite",)

    def write(self, facts: Facts) -> str:
        """Return the Kotlin file."""
        kind, convert, put = _CONVERT[facts.values]
        mean, std = (", ".join(f"{value}f" for value in values) for values in (facts.mean, facts.std))
        constants = f"private val MEAN = floatArrayOf({mean})\nprivate val STD = floatArrayOf({std})\n"
        real, dequantized = facts.scale is None, f".map {{ {facts.scale}f * (it - {facts.zero_point}) }}"
        slots = facts.slots() | {
            "kind": kind,
            "convert": convert,
            "put": put,
            "write": "writeFloat" if kind == "Float" else "writeInt8",
            "bytes": "4" if kind == "Float" else "1",
            "constants": constants if facts.values == "normalized" else "",
            "read": "readFloat" if real else "readInt8",
            "result": "Float" if real else "Byte",
            "dequantize": ".asList()" if real else dequantized,
        }
        return fill("android.txt", slots)


SNIPPET = AndroidSnippet()
