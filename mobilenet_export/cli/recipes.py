"""`mnx recipes`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilenet_export.cli import completion, terminal


def recipes_command(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Print this one, to copy and change.", metavar="NAME", autocompletion=completion.recipes
        ),
    ] = None,
) -> None:
    """List the int8 recipes, or print one as the TOML that it is.

    \b
    Examples:
      mnx recipes
      mnx recipes int8 > mine.toml
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.recipe import find_recipe, recipe_names  # noqa: PLC0415
    from mobilenet_export.shipped import shipped_path  # noqa: PLC0415

    if name is not None:
        find_recipe(name)
        own = name.endswith(".toml")
        path = Path(name) if own else shipped_path("calibration", "recipes", f"{name}.toml")
        terminal.print_text(path.read_text(encoding="utf-8"))
        terminal.say_next("mnx export --arch v2 --int8 --recipe YOUR_COPY.toml")
        return
    for known in recipe_names():
        terminal.print_text(f"{known}: {find_recipe(known).summary}\n")
    terminal.say_next("mnx recipes int8 > mine.toml")
