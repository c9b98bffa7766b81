"""Finds the data shipped beside the code, from a checkout as well as from an installed wheel."""

from pathlib import Path

from mobilenet_export.errors import MissingError

_PACKAGE = Path(__file__).resolve().parent


def shipped_path(*parts: str) -> Path:
    """Return the path of a shipped file or folder, such as `shipped_path("models", "weights")`.

    Raises:
        MissingError: The file is not there, so the installation is incomplete.
    """
    for root in (_PACKAGE / "_shipped", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    wanted = "/".join(parts)
    raise MissingError(
        f"shipped file not found: {wanted}", "reinstall mobilenet-export; its data is incomplete"
    )
