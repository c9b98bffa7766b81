"""`inspect`: a bundle or a model file layer by layer; nothing is run."""

from pathlib import Path

from mobilenet_export.architectures import ARCHITECTURES
from mobilenet_export.architectures.dissect import side_by_side
from mobilenet_export.artifact import Artifact
from mobilenet_export.bundle import EXPORT_AGAIN, read_bundle
from mobilenet_export.errors import DamagedInputError, UsageError
from mobilenet_export.formats import format_of
from mobilenet_export.inspection import FileAnatomy, Inspection
from mobilenet_export.pipeline.reference import read_file
from mobilenet_export.plugins import load_plugin
from mobilenet_export.readers import ReadAnatomy


def inspect(path: Path, resolution_px: int | None = None) -> Inspection:
    """Look into a bundle or a model file; `resolution_px` is of a file that leaves its input size open.

    Raises:
        UsageError: No such file, not a bundle, not a format of ours, or another size than the file's.
        DamagedInputError: A file cannot be read for what it claims to be, or a bundle lacks one.
    """
    if path.is_dir():
        return _inspect_bundle(path, resolution_px)
    artifact = Artifact(path.name, format_of(path).name, "fp32", read_file(path))
    found = _read(artifact, resolution_px)
    return Inspection("file", found.anatomy, (found,))


def _inspect_bundle(folder: Path, resolution_px: int | None) -> Inspection:
    bundle = read_bundle(folder)
    files = tuple(_read(artifact, resolution_px) for artifact in bundle.artifacts())
    if not files:
        raise DamagedInputError(f"{folder}: it lists no model files", EXPORT_AGAIN)
    spec = bundle.spec()
    networks = side_by_side(spec, files[0].anatomy) if spec.architecture in ARCHITECTURES else ()
    return Inspection("bundle", files[0].anatomy, files, networks)


def _read(artifact: Artifact, resolution_px: int | None) -> FileAnatomy:
    read: ReadAnatomy = load_plugin("readers", artifact.format)
    try:
        found = read(artifact.data, artifact.file, resolution_px)
    except ValueError as error:
        raise DamagedInputError(f"{artifact.file}: {error}", "export the file again") from None
    if resolution_px is not None and resolution_px not in found.input.shape:
        size = "×".join(map(str, found.input.shape))
        raise UsageError(
            f"{artifact.file}: the file is fixed at {size}, not {resolution_px} px", "leave --resolution out"
        )
    return FileAnatomy(artifact.file, len(artifact.data), found)
