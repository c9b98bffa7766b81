"""`mnx validate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import ExitCode, UsageError, unknown_name

if TYPE_CHECKING:
    from mobilenet_export.pipeline import ValidateRequest
    from mobilenet_export.report import DriftReport


def validate_command(
    targets: Annotated[list[Path], typer.Argument(help="A bundle, or model files.", metavar="BUNDLE|FILE…")],
    data: Annotated[Path | None, typer.Option(help="Folder, .zip or array of images.", metavar="DIR")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV of file,label.", metavar="CSV")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="May be repeated; default all.", metavar="NAME", autocompletion=completion.file_runtimes
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use N images at most, drawn from all.", metavar="N", min=1)
    ] = None,
    max_drop: Annotated[float | None, typer.Option(help="Most top-1 points lost.", metavar="POINTS")] = None,
    min_agreement: Annotated[
        float | None, typer.Option(help="Least agreement of int8 with the original.", metavar="PERCENT")
    ] = None,
    min_sqnr: Annotated[float | None, typer.Option(help="Least SQNR of int8 outputs.", metavar="DB")] = None,
    arch: Annotated[
        str | None,
        typer.Option(
            help="Variant of files that lie in no bundle.", metavar="ARCH", autocompletion=completion.variants
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Your weights or .onnx that the files were exported from.", metavar="FILE"),
    ] = None,
    report_as: Annotated[
        str | None,
        typer.Option(
            "--report",
            help="Print the report for CI instead: md or junit.",
            metavar="KIND",
            autocompletion=completion.reports,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Check the files of a bundle against the original in every runtime that reads them.

    Without --data on the shipped procedural images, which have no labels. Exit code 1 where a limit is not met,
    5 where --max-drop needs more images to decide.

    \b
    Examples:
      mnx validate mobilenet_v2_100_224
      mnx validate mobilenet_v2_100_224 --data val/ --labels val.csv --max-drop 1
      mnx validate mobilenet_v2_100_224 --data photos/ --report junit > drift.xml
      mnx validate model.tflite --arch v2 --limit 8 --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.pipeline import ValidateRequest, validate  # noqa: PLC0415 (imports numpy and onnx)
    from mobilenet_export.spec import Limits, find_spec  # noqa: PLC0415

    if report_as and as_json:
        raise UsageError("--report and --json both say what is printed", "give one of them")
    if report_as is not None and report_as not in completion.reports():
        raise unknown_name("report", report_as, completion.reports())
    request = ValidateRequest(
        targets=tuple(targets),
        spec=find_spec(arch) if arch else None,
        checkpoint=checkpoint,
        data=data,
        labels_csv=labels,
        limit=limit,
        runtimes=tuple(runtime or ()),
        limits=Limits(int8_sqnr_db=min_sqnr, int8_agreement_percent=min_agreement),
        max_drop_points=max_drop,
    )
    report = validate(request, terminal.progress)
    for warning in report.warnings:
        terminal.say(f"warning: {warning}")
    if as_json:
        terminal.print_json(report.to_json())
    elif report_as:
        _print_for_ci(report, report_as)
    else:
        _print(report, request)
        _say_next(report, targets[0])
    if report.verdict != "pass":
        raise typer.Exit(ExitCode.CHECK_FAILED if report.failures else ExitCode.INCONCLUSIVE)


def _say_next(report: "DriftReport", target: Path) -> None:
    if report.failures and target.is_dir() and any(row.precision == "int8" for row in report.rows):
        terminal.say_next("mnx analyze %s", target)
    elif report.doubts:
        terminal.say_next("mnx validate %s with more labelled images", target)
    else:
        terminal.say_next("mnx bench %s", target)


def _print_for_ci(report: "DriftReport", kind: str) -> None:
    from mobilenet_export.cli.reports import junit, markdown  # noqa: PLC0415 (imports rich)

    terminal.print_text(markdown(report) if kind == "md" else junit(report))


def _print(report: "DriftReport", request: "ValidateRequest") -> None:
    from mobilenet_export.cli.drift_table import print_drift  # noqa: PLC0415 (imports rich)
    from mobilenet_export.pipeline import find_target  # noqa: PLC0415

    artifacts = find_target(request).artifacts
    sizes = {artifact.file: (len(artifact.data), artifact.sha256) for artifact in artifacts}
    screen = terminal.console()
    print_drift(screen, report, sizes)
    for failure in report.failures:
        screen.print(f"failed: {failure}", markup=False, style="red")
    for doubt in report.doubts:
        screen.print(f"in doubt: {doubt}", markup=False, style="yellow")
    screen.print(f"verdict: {report.verdict}", markup=False, style="bold")
