"""What the page is made of: its own files, and the runtimes, which npm brings at build time.

`python -m mobilenet_export.phone.assets NODE_MODULES` packs the runtimes; `make phone-assets` calls it. They are
kept compressed, as that is how they are served.
"""

import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mobilenet_export.errors import MissingError

_FOLDER = Path(__file__).parent
PAGE, ASSETS = _FOLDER / "page", _FOLDER / "assets"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".png": "image/png",
}
ONNXRUNTIME, LITERT = "onnxruntime-web", "@litertjs/core"
_LITERT_BUILDS = ("", "_compat", "_threaded")
"""Of LiteRT.js: the usual one, one for browsers without relaxed SIMD (Safari), and one with threads."""
PACKED: Mapping[str, str] = {
    "ort/ort.wasm.min.mjs": f"{ONNXRUNTIME}/dist/ort.wasm.min.mjs",
    "ort/ort-wasm-simd-threaded.mjs": f"{ONNXRUNTIME}/dist/ort-wasm-simd-threaded.mjs",
    "ort/ort-wasm-simd-threaded.wasm": f"{ONNXRUNTIME}/dist/ort-wasm-simd-threaded.wasm",
    "litert/index.js": f"{LITERT}/dist/index.js",
    "litert/wasm-utils.js": "@litertjs/wasm-utils/dist/index.js",
} | {
    f"litert/litert_wasm{build}_internal.{kind}": f"{LITERT}/wasm/litert_wasm{build}_internal.{kind}"
    for build in _LITERT_BUILDS
    for kind in ("js", "wasm")
}
"""Path under which it is served → path in `node_modules`."""


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that is served under one path.

    Attributes:
        path: Of the file.
        secret: Whether the token is needed.
        packed: Whether the file is compressed.
    """

    path: Path
    secret: bool = False
    packed: bool = False

    @property
    def content_type(self) -> str:
        """Of what is inside, where it is compressed."""
        suffix = self.path.with_suffix("").suffix if self.packed else self.path.suffix
        return _TYPES.get(suffix, "application/octet-stream")


def versions() -> Mapping[str, str]:
    """Return the versions of the runtimes, by the name of their package."""
    table = json.loads((_FOLDER / "package.json").read_text(encoding="utf-8"))
    found: dict[str, str] = table["dependencies"]
    return found


def find_resources() -> dict[str, Resource]:
    """Return the page and the runtimes by the path that they are served under.

    Raises:
        MissingError: The runtimes are not there.
    """
    return dict(_resources())


def _resources() -> Iterator[tuple[str, Resource]]:
    yield "/", Resource(PAGE / "index.html")
    for path in sorted(PAGE.iterdir()):
        yield f"/page/{path.name}", Resource(path)
    for name in PACKED:
        path = ASSETS / f"{name}.gz"
        if not path.is_file():
            raise MissingError(
                "the browser runtimes are not packed yet",
                "run `make phone-assets` (needs npm), or install a wheel",
            )
        yield f"/{name}", Resource(path, packed=True)


def pack(modules: Path) -> None:
    """Compress the runtimes from a `node_modules` folder; the same bytes make the same bytes."""
    for name, source in PACKED.items():
        target = ASSETS / f"{name}.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(gzip.compress((modules / source).read_bytes(), 9, mtime=0))


if __name__ == "__main__":
    pack(Path(sys.argv[1]))
