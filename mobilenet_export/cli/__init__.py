"""The command line, `mnx`: the only place that prints, draws progress and exits."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from mobilenet_export.cli import settings
from mobilenet_export.cli.analyze import analyze_command
from mobilenet_export.cli.bench import bench_command
from mobilenet_export.cli.calibration import lint_command, synth_command
from mobilenet_export.cli.compat import compat_command
from mobilenet_export.cli.config import config_command
from mobilenet_export.cli.deploy import deploy_command
from mobilenet_export.cli.doctor import doctor_command
from mobilenet_export.cli.export import export_command
from mobilenet_export.cli.importing import import_command
from mobilenet_export.cli.inspect import inspect_command
from mobilenet_export.cli.models import models_command
from mobilenet_export.cli.phone import phone_command
from mobilenet_export.cli.pick import pick_command
from mobilenet_export.cli.recipes import recipes_command
from mobilenet_export.cli.report import report_command
from mobilenet_export.cli.snippet import snippet_command
from mobilenet_export.cli.terminal import Talk, prepare_streams, say, say_error, set_talk
from mobilenet_export.cli.usage import Command
from mobilenet_export.cli.validate import validate_command
from mobilenet_export.errors import ExitCode, UsageError, explain_error

_COMPLETES = "_MNX_COMPLETE"
"""The variable by which a shell asks for completion."""
EPILOG = (
    "Exit codes: 0 done · 1 a check failed · 2 usage · 3 something is missing (dependency, space, permission) · "
    "4 damaged input · 5 inconclusive · 70 a bug of ours · 130 interrupted · 141 the reader of the output is gone. "
    "MNX_TRACEBACK=1 shows where an error came from."
)

app = typer.Typer(
    name="mnx",
    help="MobileNetV1/V2 from PyTorch to ONNX and TFLite, int8 included, with the drift measured.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help appears in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
calibration = typer.Typer(
    name="calibration",
    help="Look at calibration images, or draw some.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_COMMANDS = (
    (app, "export", export_command, "Export a network and check it against torch."),
    (app, "import", import_command, "Turn a checkpoint into weights and a variant."),
    (app, "validate", validate_command, "Check files against the original."),
    (app, "analyze", analyze_command, "Show which layers int8 loses accuracy in."),
    (app, "bench", bench_command, "Measure latency."),
    (app, "pick", pick_command, "Find the best network within a budget."),
    (app, "compat", compat_command, "Say which runtimes and devices load the files."),
    (app, "report", report_command, "Write a bundle's report.html, or compare several."),
    (app, "deploy", deploy_command, "Send a bundle to devices, check and measure it there."),
    (app, "snippet", snippet_command, "Print the code by which an app runs a file."),
    (app, "doctor", doctor_command, "Say which runtimes and providers work here."),
    (app, "inspect", inspect_command, "Show a network layer by layer."),
    (app, "models", models_command, "List the variants."),
    (app, "phone", phone_command, "Run a bundle in the browser of a phone."),
    (app, "config", config_command, "Show what mnx.toml and variables set."),
    (app, "recipes", recipes_command, "List the int8 recipes, or print one."),
    (calibration, "lint", lint_command, "Find what is wrong with a set of images."),
    (calibration, "synth", synth_command, "Draw procedural images."),
)
for _group, _name, _function, _summary in _COMMANDS:
    _group.command(_name, cls=Command, short_help=_summary)(_function)
app.add_typer(calibration)


def _print_version(context: typer.Context, as_json: bool) -> bool:
    """Print the version where it is asked for; a callback of --json, which is read after --version."""
    if context.params.get("_version") and not context.resilient_parsing:
        from mobilenet_export.cli.version import print_version  # noqa: PLC0415

        print_version(as_json=as_json)
        raise typer.Exit
    return as_json


@app.callback()
def options(
    context: typer.Context,
    _version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version.")] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", callback=_print_version, help="With --version: those of all libraries, as JSON."
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Say only errors and warnings; before or after the command.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also say versions, and what is set elsewhere; likewise.")
    ] = False,
) -> None:
    """MobileNetV1/V2 from PyTorch to ONNX and TFLite, int8 included, with the drift measured."""
    if as_json:
        raise UsageError("--json stands before the command", "mnx COMMAND --json, or mnx --version --json")
    typed = [settings.is_typed(context, name) for name in ("quiet", "verbose")]
    if quiet and verbose and typed[0] == typed[1]:
        raise UsageError("--quiet and --verbose exclude each other", "give one of them")
    if quiet and not (verbose and typed[1]):
        set_talk(Talk.QUIET)
    elif verbose:
        from mobilenet_export.cli.version import say_surroundings  # noqa: PLC0415

        set_talk(Talk.VERBOSE)
        tree = context.command
        assert isinstance(tree, TyperGroup)
        say_surroundings(settings.effective(tree, context.obj))


def main() -> None:
    """Run `mnx` and exit with a documented code."""
    prepare_streams()
    sys.exit(run())


def command_tree() -> TyperGroup:
    """Return all commands, each with its options' variables and the exit codes in its help."""
    tree = typer.main.get_command(app)
    assert isinstance(tree, TyperGroup)
    settings.name_variables(tree)
    for command in settings.commands(tree):
        command.epilog = EPILOG
    return tree


def run(arguments: list[str] | None = None) -> int:
    """Run `mnx` on arguments (the process's own where None) and return its exit code."""
    set_talk(Talk.NORMAL)
    typed = _talk_first(sys.argv[1:] if arguments is None else arguments)
    tree = command_tree()
    if _COMPLETES in os.environ:
        settings.take_as_typed(tree)
    found: tuple[settings.Setting, ...] = ()
    try:
        found = () if _needs_no_settings(typed) else _settings(tree)
        code = tree.main(typed, "mnx", standalone_mode=False, default_map=settings.defaults(found), obj=found)
    except (
        SystemExit
    ) as error:  # typer's way out of completion, and out of a broken pipe: whoever read has seen enough
        return ExitCode.BROKEN_PIPE if error.code else ExitCode.DONE
    except Exception as error:  # whatever it is, it ends in one message and a documented code
        return _fail(error, lambda message: settings.origins(settings.effective(tree, found), typed, message))
    if code == ExitCode.INTERRUPTED:
        say_error("interrupted", "nothing was left behind; the same command starts again")
    return int(code or 0)


def _talk_first(arguments: list[str]) -> list[str]:
    """Move --quiet and --verbose before the command, wherever they stand before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = arguments[:end]
    talk = [word for word in head if word in ("--quiet", "-q", "--verbose", "-v")]
    return [*talk, *(word for word in head if word not in talk), *arguments[end:]]


def _needs_no_settings(arguments: list[str]) -> bool:
    """Is for help, the version or the shell's completion, which a damaged file shall not end."""
    return bool({"-h", "--help", "--version"} & set(arguments)) or _COMPLETES in os.environ


def _settings(tree: TyperGroup) -> tuple[settings.Setting, ...]:
    for name, near in settings.misspelt_variables(tree):
        say(f"warning: the variable {name} is none of mnx; did you mean {near}?")
    settings.check_variables(tree)
    try:
        path = settings.find_file(Path.cwd())
    except FileNotFoundError:  # the working folder was removed
        return ()
    return settings.read_file(tree, path) if path else ()


def _fail(error: Exception, origins: Callable[[str], str]) -> int:
    if os.environ.get("MNX_TRACEBACK"):
        traceback.print_exception(error)
    message, hint, code = _explain(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # bare `mnx`: its message is the help
        say(message, always=True)
    else:
        where = "" if code == ExitCode.INTERNAL else origins(message)
        say_error(message, f"{hint}; {where}" if where else hint)
    return code


def _explain(error: Exception) -> tuple[str, str, int]:
    """Message, hint and exit code of an error."""
    if isinstance(error, TyperException):
        at = getattr(error, "ctx", None)
        hint = f"`{at.command_path if at else 'mnx COMMAND'} --help` lists the options"
        return error.format_message(), hint, ExitCode.USAGE
    return explain_error(error)
