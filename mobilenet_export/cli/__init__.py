"""The command line, `mnx`: the only place that prints, draws progress and exits."""

import os
import sys
import traceback

import typer
from typer.exceptions import TyperException

from mobilenet_export.cli.analyze import analyze_command
from mobilenet_export.cli.bench import bench_command
from mobilenet_export.cli.calibration import lint_command, synth_command
from mobilenet_export.cli.compat import compat_command
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
from mobilenet_export.cli.terminal import prepare_streams, say, say_error
from mobilenet_export.cli.validate import validate_command
from mobilenet_export.errors import ExitCode, explain_error

EPILOG = (
    "Exit codes: 0 done · 1 a check failed · 2 usage · 3 something is missing (dependency, space, permission) · "
    "4 damaged input · 5 inconclusive · 70 a bug of ours · 130 interrupted. "
    "MNX_TRACEBACK=1 shows where an error came from."
)

app = typer.Typer(
    name="mnx",
    help="MobileNetV1/V2 from PyTorch to ONNX and TFLite, int8 included, with the drift measured.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
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
calibration.command("lint", short_help="Find what is wrong with a set of images.")(lint_command)
calibration.command("synth", short_help="Draw procedural images.")(synth_command)
app.command("export", short_help="Export a network and check it against torch.")(export_command)
app.command("import", short_help="Turn a checkpoint into weights and a variant.")(import_command)
app.command("validate", short_help="Check files against the original.")(validate_command)
app.add_typer(calibration)
app.command("analyze", short_help="Show which layers int8 loses accuracy in.")(analyze_command)
app.command("bench", short_help="Measure latency.")(bench_command)
app.command("pick", short_help="Find the best network within a budget.")(pick_command)
app.command("compat", short_help="Say which runtimes and devices load the files.")(compat_command)
app.command("report", short_help="Write a bundle's report.html, or compare several.")(report_command)
app.command("deploy", short_help="Send a bundle to devices, check and measure it there.")(deploy_command)
app.command("snippet", short_help="Print the code by which an app runs a file.")(snippet_command)
app.command("doctor", short_help="Say which runtimes and providers work here.")(doctor_command)
app.command("inspect", short_help="Show a network layer by layer.")(inspect_command)
app.command("models", short_help="List the variants.")(models_command)
app.command("phone", short_help="Run a bundle in the browser of a phone.")(phone_command)
app.command("recipes", short_help="List the int8 recipes, or print one.")(recipes_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from mobilenet_export import __version__  # noqa: PLC0415

        sys.stdout.write(f"mnx {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """MobileNetV1/V2 from PyTorch to ONNX and TFLite, int8 included, with the drift measured."""


def main() -> None:
    """Run `mnx` and exit with a documented code."""
    prepare_streams()
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run `mnx` on arguments (the process's own where None) and return its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
    except SystemExit:  # typer's way out of a broken pipe: whoever read stdout has seen enough
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # whatever it is, it ends in one message and a documented code
        return _fail(error)
    if code == ExitCode.INTERRUPTED:
        say_error("interrupted", "nothing was left behind; the same command starts again")
    return int(code or 0)


def _fail(error: Exception) -> int:
    if os.environ.get("MNX_TRACEBACK"):
        traceback.print_exception(error)
    message, hint, code = _explain(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # bare `mnx`: its message is the help
        say(message)
    else:
        say_error(message, hint)
    return code


def _explain(error: Exception) -> tuple[str, str, int]:
    """Message, hint and exit code of an error."""
    if isinstance(error, TyperException):
        hint = "`mnx --help` and `mnx COMMAND --help` list the options"
        return error.format_message(), hint, ExitCode.USAGE
    return explain_error(error)
