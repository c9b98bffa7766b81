"""Options that are several values in one text."""

from mobilenet_export.errors import UsageError


def three_numbers(option: str, text: str | None) -> tuple[float, float, float] | None:
    """Read an option of one number per channel; None where it is not given.

    Raises:
        UsageError: It is something else.
    """
    if text is None:
        return None
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: not three numbers", f"write {option} 0.485,0.456,0.406") from None
    return (red, green, blue)


def listed(text: str) -> tuple[str, ...]:
    """Read names with commas between."""
    return tuple(part.strip() for part in text.split(",") if part.strip())
