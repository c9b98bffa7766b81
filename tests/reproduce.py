"""`make reproduce`: two clean checkouts of HEAD, under other names, export the same bytes.

The second one runs with another hash seed, umask, time zone, language and number of threads of torch, in another
folder, and neither with a cache. They share the virtual environment: what is compared is our code, not pip.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXPORTS = {"v1": "v1 of reproduce", "v2": "v2 of reproduce"}
OPTIONS = ["--int8", "--fp16", "--formats", "onnx,tflite,ort", "--io", "float32,uint8,int8", "--no-cache"]
WORLDS = (
    ("checkout", {"PYTHONHASHSEED": "1", "TZ": "UTC", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}, 0o022),
    (
        "a second, other one",
        {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kathmandu", "LANG": "C", "LC_ALL": "C"},
        0o077,
    ),
)


def export(folder: Path, environment: dict[str, str], umask: int) -> dict[str, str]:
    """Clone HEAD to a folder, export both networks there, and return the hash of every file."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
    names = environment | {"PYTHONPATH": str(folder), "MNX_CACHE": str(folder / "cache")}
    found = {}
    for arch, name in EXPORTS.items():
        command = [
            sys.executable,
            "-c",
            "from mobilenet_export.cli import main; main()",
            "export",
            "--arch",
            arch,
        ]
        out = folder / "build" / name
        done = subprocess.run(
            [*command, *OPTIONS, "--out", out],
            cwd=folder,
            env=os.environ | names,
            umask=umask,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{done.stderr}\nerror: the export of {arch} in {folder} failed\nhint: see above")
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[f"{arch}/{path.relative_to(out).as_posix()}"] = digest
    return found


def main() -> int:
    """Compare, list the hashes, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="mnx-reproduce-") as place:
        first, second = (
            export(Path(place) / name, environment, umask) for name, environment, umask in WORLDS
        )
    different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    for name, digest in first.items():
        print(digest, name, "← differs" if name in different else "")  # noqa: T201
    if different:
        sys.exit(f"error: {len(different)} of {len(first)} files differ\nhint: compare what they are made of")
    print(f"{len(first)} files of {len(EXPORTS)} bundles from two checkouts are the same, byte for byte")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
