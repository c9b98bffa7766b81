"""`mnx config`."""

from collections.abc import Sequence
from typing import Annotated

import typer
from typer.core import TyperGroup

from mobilenet_export.cli import settings, terminal


def config_command(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Show which options mnx.toml and environment variables set here, and where; a wrong value is an error.

    The first of these that sets an option wins: the command, an environment variable, mnx.toml, the default.
    mnx.toml is looked for in this folder and its parents; paths in it are relative to its folder. A key is an
    option without its dashes, in the table of its command; a variable is MNX_, the command and the option, in
    capitals. Lists in variables are separated by spaces; flags are true or false.

    \b
    Examples:
      mnx config
      mnx config --json

    \b
    An mnx.toml:
      quiet = true
      [export]                        # or MNX_EXPORT_ARCH=v1 MNX_EXPORT_INT8=true
      arch = "v1"
      int8 = true
      [calibration.lint]
      strict = true
      [bench]                         # or MNX_BENCH_RUNTIME="onnxruntime litert"
      runtime = ["onnxruntime", "litert"]
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    tree = context.find_root().command
    assert isinstance(tree, TyperGroup)
    found = settings.effective(tree, context.find_root().obj)
    settings.check_names(tree, found)
    if as_json:
        terminal.print_json(
            [
                {"command": " ".join(("mnx", *one.command)), "option": one.option}
                | {"value": one.value, "source": one.source}
                for one in found
            ]
        )
        return
    if found:
        _print(found)
    else:
        terminal.print_text(f"nothing is set: no {settings.FILE} here or above, no variable of mnx\n")
    terminal.say_next("mnx config --help shows an example file")


def _print(found: Sequence[settings.Setting]) -> None:
    from mobilenet_export.cli.tables import Column, Table, print_table  # noqa: PLC0415 (imports rich)

    columns = (Column("option"), Column("set by"), Column("value", prose=True))
    rows = [(" ".join(("mnx", *one.command, one.option)), one.source, repr(one.value)) for one in found]
    print_table(terminal.console(), Table(columns, tuple(rows)))
