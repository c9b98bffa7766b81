"""How figures are written."""

import math

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def millions(count: int) -> str:
    """Write a large number short."""
    return f"{count / 1e6:.2f} M" if count < 10e6 else f"{count / 1e6:.0f} M"


def megabytes(size: int) -> str:
    """Write a size in decimal megabytes."""
    return f"{size / 1e6:.2f} MB"


def two_digits(value: float) -> str:
    """Write a number that may be tiny with two digits, such as `1.7·10⁻⁵`."""
    if value == 0 or value >= 0.001:
        return f"{value:.2g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}·10{str(int(power)).translate(_RAISED)}"


def decibels(ratio: float) -> str:
    """Write a ratio of energies."""
    return "equal" if ratio == math.inf else f"{ratio:.1f} dB"


def signed(difference: float) -> str:
    """Write a difference with its sign."""
    return f"{difference:+.2f}".replace("-", "−")


def tone(precision: str) -> str:
    """Return the colour of a precision, by its name in the style sheet."""
    return {"fp32": "two", "fp16": "three"}.get(precision, "one")
