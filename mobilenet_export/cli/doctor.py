"""`mnx doctor`."""

from typing import TYPE_CHECKING, Annotated

import typer

from mobilenet_export.cli import terminal
from mobilenet_export.errors import ExitCode

if TYPE_CHECKING:
    from mobilenet_export.pipeline.doctor import Diagnosis


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
) -> None:
    """Try every runtime with every execution provider here, and say how to get what does not work.

    Exit code 3 where no runtime works.

    \b
    Examples:
      mnx doctor
      mnx doctor --json
    """  # noqa: D301 (click keeps the lines after a backspace as they are)
    from mobilenet_export.pipeline.doctor import diagnose  # noqa: PLC0415 (imports numpy)

    diagnosis = diagnose()
    if as_json:
        terminal.print_json(diagnosis.to_json())
    else:
        _print(diagnosis)
        terminal.say_next("mnx export --arch v2 --int8")
    if not any(finding.works for finding in diagnosis.findings):
        raise typer.Exit(ExitCode.MISSING)


def _print(diagnosis: "Diagnosis") -> None:
    from mobilenet_export.cli.tables import Column, Table, print_table  # noqa: PLC0415 (imports rich)

    machine, screen = diagnosis.machine, terminal.console()
    memory = f", {machine.memory_bytes / 2**30:.0f} GiB" if machine.memory_bytes else ""
    name = f"{machine.board}: " if machine.board else ""
    screen.print(
        f"{name}{machine.cpu}, {machine.cores} cores, {machine.architecture}{memory}, {machine.system}, "
        f"Python {machine.python}",
        markup=False,
        style="bold",
        soft_wrap=True,
    )
    features = ", ".join(machine.features) or "none that matter here"
    screen.print(f"CPU features: {features}\nint8: {machine.int8}\n", markup=False, soft_wrap=True)
    columns = [Column(name) for name in ("runtime", "provider", "works", "version")]
    table = Table(
        (*columns, Column("how to get it", prose=True)),
        tuple(
            (one.runtime, one.provider, "yes" if one.works else "no", one.version or "–", one.hint)
            for one in diagnosis.findings
        ),
        styles=tuple("green" if one.works else "" for one in diagnosis.findings),
    )
    print_table(screen, table)
