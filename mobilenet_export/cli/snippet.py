"""`mnx snippet`."""

from pathlib import Path
from typing import Annotated

import typer

from mobilenet_export.cli import completion, terminal


def snippet_command(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.", metavar="BUNDLE")],
    kind: Annotated[
        str,
        typer.Option("--for", help="android, ios or python.", metavar="NAME", autocompletion=completion.apps),
    ],
    file: Annotated[
        str | None, typer.Option(help="Of the bundle; default what suits such an app best.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Print the code by which an app runs a bundle's file, with its preprocessing and constants.

    Android's is Kotlin (LiteRT's CompiledModel and Interpreter), that for iOS Swift (LiteRT or ONNX Runtime, as the
    file is), Python's needs numpy, Pillow and a runtime.

    \b
    Examples:
      mnx snippet mobilenet_v2_100_224 --for android > Classifier.kt
      mnx snippet mobilenet_v2_100_224 --for python --file mobilenet_v2_100_224_fp32.tflite
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.bundle import read_bundle  # noqa: PLC0415 (numpy)
    from mobilenet_export.snippets import choose_file, read_facts, snippet  # noqa: PLC0415

    opened, chosen = read_bundle(bundle), snippet(kind)
    name = choose_file(opened, chosen, file)
    code = chosen.write(read_facts(opened, name))
    if as_json:
        terminal.print_json({"file": name, "for": chosen.name, "code": code})
        return
    terminal.say(f"{name}: a file for {chosen.name}")
    terminal.print_text(code)
    terminal.say_next("copy %s and labels.txt into the app", opened.folder / name)
