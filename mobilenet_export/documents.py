"""JSON and TOML that others wrote: whatever is wrong with it is a ValueError."""

import json
import math
import re
import tomllib
from typing import Any

_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: str | bytes) -> Any:
    """Read a JSON document that can be written again: numbers are finite, text is Unicode.

    Raises:
        ValueError: It is none.
    """
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        document = json.loads(text, parse_constant=_finite, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if _HALF_CHARACTER.search(text):
        json.dumps(document, ensure_ascii=False).encode("utf-8")  # a UnicodeEncodeError is a ValueError
    return document


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number")
    return number


def parse_toml(data: bytes) -> dict[str, Any]:
    """Read a TOML document.

    Raises:
        ValueError: It is none.
    """
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
