"""The Python API: what `mnx export`, `validate` and `bench` do, as functions that return values and print nothing.

Keywords and defaults are those of the command line (a test compares them). Errors are `mobilenet_export.errors`'
`MnxError`s, whose hints name options as the command line spells them: `--int8` is the keyword `int8=True`. An
argument of another type than is annotated ends in one, too.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from mobilenet_export.agent.bench import check_threads
from mobilenet_export.arguments import checked
from mobilenet_export.checks.latency import Plan
from mobilenet_export.errors import UsageError
from mobilenet_export.latency import LatencyReport
from mobilenet_export.pipeline.bench import BenchRequest, bundle_to_keep, keep_latency, measure_latency
from mobilenet_export.pipeline.export import Export
from mobilenet_export.pipeline.export import export as export_bundle
from mobilenet_export.pipeline.options import (
    DEFAULT_FORMATS,
    DEFAULT_RECIPE,
    Channels,
    ExportOptions,
    Size,
    Trained,
    export_request,
)
from mobilenet_export.pipeline.stages import Progress, silent
from mobilenet_export.pipeline.validate import ValidateRequest
from mobilenet_export.pipeline.validate import validate as validate_files
from mobilenet_export.report import DriftReport
from mobilenet_export.spec import Limits, find_spec

Location = str | PathLike[str]
"""A file or folder."""


@checked
def export(
    model: Location | None = None,
    *,
    arch: Location | None = None,
    width: float | None = None,
    resolution: int | None = None,
    classes: int | None = None,
    checkpoint: Location | None = None,
    padding: str | None = None,
    eps: float | None = None,
    weights: str | None = None,
    int8: bool = False,
    fp16: bool = False,
    formats: Sequence[str] = DEFAULT_FORMATS,
    io: Sequence[str] | None = None,
    softmax: bool = False,
    calibration: Location | None = None,
    recipe: Location = DEFAULT_RECIPE,
    out: Location | None = None,
    labels: Location | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    thumbnails: bool = False,
    force: bool = False,
    cache: bool = True,
    progress: Progress = silent,
) -> Export:
    """Export a network to ONNX and TFLite, check it against torch, and bundle it.

    The bundle is written even where a limit is not met; `drift.verdict` of what is returned says so.

    Args:
        model: A variant (`v1`, `v2`, a name of `mnx models`, a path.toml), or your own .onnx file.
        arch: The same; beside an .onnx file the variant that shares its preprocessing.
        width: Width multiplier, 0.25 to 1.4.
        resolution: Height and width of the input in px, 96 to 320 in steps of 32.
        classes: How many.
        checkpoint: Your weights: .safetensors, .pth, .keras, .h5, .pb, .onnx.
        padding: Of a checkpoint's stride-2 layers, `symmetric` or `tensorflow`; None for its layout's.
        eps: Of a checkpoint's BatchNorms; None for its layout's.
        weights: Name of embedded weights, or `none` for random ones.
        int8: Also write int8 files.
        fp16: Also write files with fp16 weights.
        formats: Of `onnx`, `tflite` and `ort`.
        io: What files take, of `float32`, `uint8` (RGB pixels, channel-last) and `int8`; None for float32, and of
            int8 files uint8 as well.
        softmax: End in probabilities instead of logits.
        calibration: Folder, .zip, .npy or .npz: uint8 (N, H, W, 3), or normalized float32 (N, 3, H, W).
        recipe: Name or path.toml of an int8 recipe.
        out: Folder of the bundle; None for the network's name, in the working directory.
        labels: Class names, one a line.
        mean: Per channel (R, G, B), of pixels in 0 to 1.
        std: Per channel (R, G, B), of pixels in 0 to 1.
        thumbnails: Show some of your calibration images in report.html.
        force: Replace a bundle that is there.
        cache: Use and keep int8 results.
        progress: Called with each stage's title and number of steps.

    Returns:
        The bundle (`bundle.folder`), its files, their drift (agreement in %, SQNR in dB), and the seconds of each
        stage.

    Raises:
        UsageError: An argument names what is not there, or does not fit the others.
        MissingError: A package, disk space or a permission is missing.
        DamagedInputError: A file cannot be read for what it claims to be.
    """
    options = ExportOptions(
        model=_text(model),
        arch=_text(arch),
        size=Size(width, resolution, classes),
        trained=Trained(padding, eps, mean, std),
        checkpoint=_path(checkpoint),
        weights=weights,
        int8=int8,
        fp16=fp16,
        formats=tuple(formats),
        io=None if io is None else tuple(io),
        softmax=softmax,
        calibration=_path(calibration),
        recipe=str(recipe),
        out=_path(out),
        labels=_path(labels),
        thumbnails=thumbnails,
        force=force,
        cache=cache,
    )
    return export_bundle(export_request(options, progress).request, progress)


@checked
def validate(
    targets: Location | Sequence[Location],
    *,
    data: Location | None = None,
    labels: Location | None = None,
    runtime: Sequence[str] | None = None,
    limit: int | None = None,
    max_drop: float | None = None,
    min_agreement: float | None = None,
    min_sqnr: float | None = None,
    arch: Location | None = None,
    checkpoint: Location | None = None,
    progress: Progress = silent,
) -> DriftReport:
    """Check a bundle or model files against the original in every runtime that reads them.

    Args:
        targets: A bundle, or model files.
        data: Folder, .zip or array of images; None for the shipped ones, which have no labels.
        labels: CSV of `file,label`, the label an index from 0.
        runtime: Names; None for all here.
        limit: Use so many images at most, drawn from all.
        max_drop: Most top-1 points lost, in percentage points.
        min_agreement: Least agreement of int8 with the original, in %.
        min_sqnr: Least SQNR of int8 outputs, in dB.
        arch: Variant of files that lie in no bundle.
        checkpoint: Your weights or .onnx that the files were exported from.
        progress: Called with each stage's title and number of steps.

    Returns:
        A row per file and runtime; `verdict` is `pass`, `fail` or `inconclusive`.

    Raises:
        UsageError: An argument names what is not there, or does not fit the others.
        MissingError: A package is missing.
        DamagedInputError: A file cannot be read for what it claims to be.
    """
    request = ValidateRequest(
        targets=_paths(targets),
        spec=find_spec(str(arch)) if arch else None,
        checkpoint=_path(checkpoint),
        data=_path(data),
        labels_csv=_path(labels),
        limit=limit,
        runtimes=tuple(runtime or ()),
        limits=Limits(int8_sqnr_db=min_sqnr, int8_agreement_percent=min_agreement),
        max_drop_points=max_drop,
    )
    return validate_files(request, progress)


@checked
def bench(
    targets: Location | Sequence[Location],
    *,
    runtime: Sequence[str] | None = None,
    threads: int | Sequence[int] = (1,),
    runs: int = 100,
    minutes: float | None = None,
    batch: int = 1,
    resolution: int | None = None,
    checkpoint: Location | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> LatencyReport:
    """Measure latency: every file in every runtime takes its turn in every round.

    Args:
        targets: Bundles and model files.
        runtime: `NAME` or `NAME:PROVIDER`; None for all here. `torch` adds the original.
        threads: Number of threads, or several to try.
        runs: Inferences of each row.
        minutes: Measure so long instead.
        batch: Images per inference.
        resolution: In px, of files that leave their input size open.
        checkpoint: Your own weights, for the runtime `torch`.
        keep: Keep every sample in the bundle, for `mnx report`.
        progress: Called with each stage's title and number of steps.

    Returns:
        A row per file, runtime and number of threads, with every sample in ms of a batch.

    Raises:
        UsageError: An argument names what is not there, or does not fit the others.
        MissingError: A package or a provider is missing.
        DamagedInputError: A file cannot be read for what it claims to be.
    """
    request = BenchRequest(
        targets=_paths(targets),
        runtimes=tuple(runtime or ()),
        threads=check_threads((threads,) if isinstance(threads, int) else tuple(threads)),
        batch=batch,
        plan=Plan(runs, minutes),
        checkpoint=_path(checkpoint),
        resolution_px=resolution,
    )
    bundle = bundle_to_keep(request.targets) if keep else None
    report = measure_latency(request, progress)
    if bundle is not None:
        keep_latency(bundle, report)
    return report


def _text(location: Location | None) -> str | None:
    return None if location is None else str(location)


def _path(location: Location | None) -> Path | None:
    return None if location is None else Path(location)


def _paths(targets: Location | Sequence[Location]) -> tuple[Path, ...]:
    found = (Path(targets),) if isinstance(targets, str | PathLike) else tuple(map(Path, targets))
    if not found:
        raise UsageError("targets names none", "give a bundle, or model files")
    return found
