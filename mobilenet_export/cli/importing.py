"""`mnx import`."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import completion, terminal
from mobilenet_export.cli.numbers import three_numbers

if TYPE_CHECKING:
    from mobilenet_export.pipeline import Imported


def import_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help=".safetensors, .pth, .keras, .h5, .pb, .onnx; or torchvision:… to download.", metavar="FILE"
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Weights; beside them x.toml (and x.md, x.txt).", metavar="x.safetensors")
    ],
    card: Annotated[bool, typer.Option("--card", help="Also write a card, x.md.")] = False,
    arch: Annotated[
        str | None,
        typer.Option(
            help="v1, v2, a variant of `mnx models`, or a path.toml.",
            metavar="ARCH",
            autocompletion=completion.variants,
        ),
    ] = None,
    width: Annotated[float | None, typer.Option(help="Refuse another width.", metavar="W")] = None,
    resolution: Annotated[
        int | None, typer.Option(help="Input size, 96 to 320 in steps of 32.", metavar="PX")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(help="Refuse another number; 1001 keeps a TF-slim background class.", metavar="N"),
    ] = None,
    padding: Annotated[
        str | None,
        typer.Option(
            help="Of stride-2 layers: symmetric or tensorflow.",
            metavar="KIND",
            autocompletion=completion.paddings,
        ),
    ] = None,
    eps: Annotated[
        float | None, typer.Option(help="Of the BatchNorms.", metavar="E", show_default="its layout's")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="R,G,B of pixels in 0 to 1.", metavar="LIST")] = None,
    std: Annotated[str | None, typer.Option(help="R,G,B of pixels in 0 to 1.", metavar="LIST")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Class names, one a line; kept as x.txt.", metavar="FILE")
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, as SPDX name.", metavar="NAME")] = "",
    source: Annotated[str, typer.Option(help="Who made the weights.", metavar="TEXT")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Turn a checkpoint into safetensors in our own form and a variant for --arch.

    Read are state_dicts of torchvision, timm and the tutorial, Keras MobileNets, frozen graphs of TF-slim's, and
    ONNX files of these networks. The layout is recognised; width and classes follow from shapes.

    \b
    Examples:
      mnx import my.pth --out my.safetensors --card
      mnx import mobilenet.keras --out mine.safetensors
      mnx import torchvision:mobilenet_v2 --out theirs.safetensors
      mnx import my.pth --out my.safetensors --labels my.txt
      mnx import frozen.pb --out google.safetensors --licence Apache-2.0 --classes 1001
      mnx import model.onnx --out mine.safetensors --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.pipeline import ImportRequest, import_checkpoint  # noqa: PLC0415 (imports numpy)
    from mobilenet_export.pipeline.options import Size, Trained, said_of_it  # noqa: PLC0415

    trained = Trained(padding, eps, three_numbers("--mean", mean), three_numbers("--std", std))
    spec, given = said_of_it(arch, Size(width, resolution, classes), trained)
    request = ImportRequest(checkpoint, out, spec, given, card, licence, source, labels, force)
    imported = import_checkpoint(request, terminal.progress)
    terminal.say(f"recognised: {imported.description}")
    if as_json:
        terminal.print_json(_json(imported))
    else:
        for path, data in imported.files.items():
            terminal.console().print(f"{path}  {len(data):,} bytes", markup=False)
        terminal.say(f"\nnext: mnx export --arch {shlex.quote(str(request.paths['variant']))} --int8")


def _json(imported: "Imported") -> dict[str, Any]:
    from mobilenet_export.spec import spec_to_table  # noqa: PLC0415

    return {
        "recognised": imported.description,
        "variant": spec_to_table(imported.spec),
        "files": [{"path": str(path), "bytes": len(data)} for path, data in imported.files.items()],
    }
