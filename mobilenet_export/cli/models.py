"""`mnx models`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilenet_export.cli import terminal

if TYPE_CHECKING:
    from mobilenet_export.spec import ModelSpec


def models_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """List the variants: size, cost, input, weights with their licence, published accuracy.

    \b
    Examples:
      mnx models
      mnx models --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.spec import read_spec, spec_paths, spec_to_table  # noqa: PLC0415

    specs = [read_spec(path) for path in spec_paths()]
    if as_json:
        terminal.print_json([spec_to_table(spec) for spec in specs])
        return
    _print(specs)


def _print(specs: list["ModelSpec"]) -> None:
    from rich.table import Table  # noqa: PLC0415 (slow)

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("--arch", overflow="fold")
    for name in ("params", "MACs", "input", "classes", "top-1"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("weights", overflow="fold")
    for spec in specs:
        table.add_row(*_cells(spec))
    screen = terminal.console()
    screen.print(table)
    screen.print()
    for spec in specs:
        screen.print(f"{spec.name}: {spec.summary}", markup=False)
    screen.print("\nMACs: multiply-accumulates of convolutions and the linear layer, one image.", style="dim")
    screen.print("top-1: as published on ImageNet; where from: mnx models --json.", style="dim")


def _cells(spec: "ModelSpec") -> tuple[str, ...]:
    names = f"{spec.alias} or {spec.name}" if spec.alias else spec.name
    weights, accuracy = "none; give --checkpoint", "–"
    if spec.weights:
        weights = f"{spec.weights.name} ({spec.weights.licence})"
        accuracy = f"{spec.weights.top1_percent:.1f} %" if spec.weights.top1_percent else "–"
    return (
        names,
        _millions(spec.parameters),
        _millions(spec.macs),
        f"{spec.resolution_px} px",
        str(spec.classes),
        accuracy,
        weights,
    )


def _millions(count: Any) -> str:
    return f"{count / 1e6:.1f} M" if count else "–"
