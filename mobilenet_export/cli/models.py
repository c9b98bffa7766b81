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
    terminal.say_next("mnx export --arch v2 --int8")


def _print(specs: list["ModelSpec"]) -> None:
    from mobilenet_export.cli.tables import Column, Table, print_table  # noqa: PLC0415 (imports rich)

    figures = {"params": 0, "MACs": 0, "input": 2, "classes": 1, "top-1": 0}
    columns = [
        Column("--arch"),
        *(Column(name, right=True, spare=spare) for name, spare in figures.items()),
        Column("weights", prose=True),
    ]
    screen = terminal.console()
    print_table(screen, Table(tuple(columns), tuple(_cells(spec) for spec in specs)))
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
