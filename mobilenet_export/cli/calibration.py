"""`mnx calibration`: look at images before they calibrate, and draw some where there are none."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.errors import ExitCode

if TYPE_CHECKING:
    from mobilenet_export.findings import LintReport

DEFAULT_IMAGES = 96
MOST_IMAGES = 100_000
DEFAULT_SEED = 1500
"""The first that no shipped image was drawn or chosen from."""


def lint_command(
    data: Annotated[Path, typer.Argument(help="Folder, .zip, .npy or .npz of images.", metavar="DIR")],
    arch: Annotated[
        str,
        typer.Option(
            help="Network to calibrate: v1, v2, a variant or a path.toml.",
            metavar="ARCH",
            autocompletion=completion.variants,
        ),
    ] = "v2",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Your weights: .safetensors, .pth.", metavar="FILE")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            help="Says how many images are used: name or path.toml.",
            metavar="RECIPE",
            autocompletion=completion.recipes,
        ),
    ] = "int8",
    labels: Annotated[Path | None, typer.Option(help="CSV of file,label.", metavar="CSV")] = None,
    ranges: Annotated[
        bool, typer.Option("--ranges/--no-ranges", help="Run the network; without, only look at pixels.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Find what is wrong with calibration images, or suspected to be, each with the next step.

    Errors: images that cannot be read, too few of them, values that were not normalized, layers that overflow,
    labels that contradict one another. Warnings: copies and near copies, grey, tiny and one-coloured images, red
    and blue swapped, another value range, unequal classes, and ranges of activations that two halves of the
    images do not agree on. Exit code 1 where there is an error, or with --strict a warning.

    \b
    Examples:
      mnx calibration lint photos/
      mnx calibration lint photos.zip --arch v1 --strict
      mnx calibration lint batch.npy --no-ranges --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.pipeline import LintRequest, lint  # noqa: PLC0415 (imports numpy and onnx)
    from mobilenet_export.recipe import find_recipe  # noqa: PLC0415
    from mobilenet_export.spec import find_spec  # noqa: PLC0415

    request = LintRequest(
        data=data,
        spec=find_spec(arch),
        recipe=find_recipe(recipe),
        checkpoint=checkpoint,
        labels_csv=labels,
        ranges=ranges,
        strict=strict,
    )
    report = lint(request, terminal.progress)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        _print(report)
        if report.verdict == "pass":
            terminal.say_next("mnx export --arch %s --int8 --calibration %s", arch, data)
    if report.verdict != "pass":
        raise typer.Exit(ExitCode.CHECK_FAILED)


def _print(report: "LintReport") -> None:
    screen = terminal.console()
    for finding in report.findings:
        style = "red" if finding.severity == "error" else "yellow"
        screen.print(f"{finding.severity}: {finding.line}", markup=False, style=style)
        screen.print(f"  next: {finding.hint}", markup=False)
    if report.ranges:
        ranges = report.ranges
        text = (
            f"ranges of {ranges.tensors} tensors from two halves of {ranges.images:,} images: "
            f"{ranges.median_percent:.1f} % apart (median), at worst {ranges.worst_percent:.0f} % "
            f"({ranges.worst_layer})"
        )
        screen.print(text, markup=False, style="dim")
    screen.print(f"verdict: {report.verdict}{_counts(report)}", markup=False, style="bold")


def _counts(report: "LintReport") -> str:
    found = [
        f"{count} {severity}{'' if count == 1 else 's'}"
        for severity, count in (("error", report.count("error")), ("warning", report.count("warning")))
        if count
    ]
    usable = f"{report.usable:,} of {report.images:,} images usable"
    return f" ({', '.join([*found, usable])})"


def synth_command(
    out: Annotated[Path, typer.Option(help="Folder to write.", metavar="DIR")],
    n: Annotated[
        int, typer.Option("--n", help="How many images.", metavar="N", min=1, max=MOST_IMAGES)
    ] = DEFAULT_IMAGES,
    seed: Annotated[
        int, typer.Option(help="Of the first image; the next has the next.", metavar="S", min=0)
    ] = DEFAULT_SEED,
    size: Annotated[int, typer.Option(help="Height and width, 32 or more.", metavar="PX", min=32)] = 256,
    force: Annotated[bool, typer.Option("--force", help="Replace a set that was drawn before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Draw images with the statistics of photos, and a manifest with their seeds and hashes.

    They show nothing: with them a network can be calibrated, but not its accuracy be measured. All of them
    calibrate; an export checks its files with the shipped images. The shipped ones have seeds below 1500.

    \b
    Examples:
      mnx calibration synth --n 200 --out leaves
      mnx calibration synth --n 64 --seed 9000 --size 320 --out leaves
    """  # noqa: D301
    from mobilenet_export.dead_leaves import write_set  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.images import MINIMUM_IMAGES  # noqa: PLC0415

    with terminal.progress("draw", n) as advance:
        write_set(out, {"calibrate": range(seed, seed + n)}, size, force=force, advance=advance)
    if as_json:
        terminal.print_json({"folder": str(out), "images": n, "seeds": [seed, seed + n - 1], "size_px": size})
        return
    terminal.console().print(f"{out}/: {n} images, seeds {seed} to {seed + n - 1}", markup=False)
    if n >= MINIMUM_IMAGES:
        terminal.say_next("mnx export --arch v2 --int8 --calibration %s", out)
