"""Folders to write in before something takes its place; what a killed process left is found and cleared away."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing tells there which folders are still in use, so all stay
    fcntl = None  # type: ignore[assignment]

_TRIES = 3


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty folder in `parent`, and remove it at the end; ones that nobody uses any more go first.

    A process holds a lock on its folder while it lives, however it ends.
    """
    for left in abandoned(parent, prefix):
        shutil.rmtree(left, ignore_errors=True)
    for _ in range(_TRIES):  # another process may have taken it for left before it was locked
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        handle = _lock(folder)
        if handle is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def abandoned(parent: Path, prefix: str) -> list[Path]:
    """Return the folders of that prefix whose processes ended without removing them."""
    found = []
    with suppress(OSError):
        for path in sorted(parent.iterdir()):
            if path.name.startswith(prefix) and path.is_dir() and not path.is_symlink():
                handle = _lock(path)
                if handle is not None:
                    os.close(handle)
                    found.append(path)
    return found


def _lock(folder: Path) -> int | None:
    """Return an open handle that holds the folder's lock; None where another process has it."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if handle is not None:
            os.close(handle)
        return None
    return handle
