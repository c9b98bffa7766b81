"""Comfort at the command line: settings from files and variables, the help, completion in real shells, and talk."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.core import TyperGroup

from mobilenet_export import __version__, cli
from mobilenet_export.artifact import INPUT_OUTPUTS
from mobilenet_export.cli import completion, settings
from mobilenet_export.errors import ExitCode
from mobilenet_export.spec import Padding

Run = Callable[..., tuple[int, str, str]]


def leaves(group: TyperGroup, path: str = "") -> Iterator[str]:
    """Every command that does something, such as `calibration lint`."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield path + name


LEAVES = list(leaves(cli.command_tree()))


@pytest.fixture
def mnx(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `mnx` in this process, in an empty folder; returns code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run(list(arguments))
        return code, *capfd.readouterr()

    return run


# Settings


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a command would be called with, without running it."""
    tree, calls = cli.command_tree(), []
    for command in settings.commands(tree):
        if not isinstance(command, TyperGroup):
            command.callback = lambda **options: calls.append(options)
    with monkeypatch.context() as patch:
        patch.setattr(cli, "command_tree", lambda: tree)
        assert cli.run(arguments) == 0
    (options,) = calls
    return options


def test_an_option_beats_a_variable_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parsed(["export"], monkeypatch)["arch"] is None
    (tmp_path / "mnx.toml").write_text('[export]\narch = "file"\n')
    assert parsed(["export"], monkeypatch)["arch"] == "file"
    monkeypatch.setenv("MNX_EXPORT_ARCH", "variable")
    assert parsed(["export"], monkeypatch)["arch"] == "variable"
    assert parsed(["export", "--arch", "option"], monkeypatch)["arch"] == "option"


def test_values_of_every_kind_come_from_a_file_and_from_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    (tmp_path / "mnx.toml").write_text(
        "[export]\nint8 = true\nwidth = 1\nclasses = 10\ncheckpoint = 'my.pth'\nrecipe = 'own.toml'\n"
        "[bench]\nruntime = ['litert', 'torch']\n"
        "[calibration.lint]\nranges = false\n"
        "[validate]\nmax-drop = 0.5\njson = true\nreport = 'md'\n"
    )
    export = parsed(["export"], monkeypatch)
    above = Path("..") / ".."
    assert (export["int8"], export["width"], export["classes"]) == (True, 1.0, 10)
    assert (export["checkpoint"], export["recipe"]) == (above / "my.pth", str(above / "own.toml"))
    assert parsed(["bench", "x"], monkeypatch)["runtime"] == ["litert", "torch"]
    assert parsed(["calibration", "lint", "x"], monkeypatch)["ranges"] is False
    validate = parsed(["validate", "x"], monkeypatch)
    assert (validate["max_drop"], validate["as_json"], validate["report_as"]) == (0.5, True, "md")
    for name, value in (
        ("MNX_EXPORT_INT8", "0"),
        ("MNX_EXPORT_WIDTH", "0.5"),
        ("MNX_BENCH_RUNTIME", "onnxruntime litert"),
        ("MNX_CALIBRATION_LINT_RANGES", "true"),
        ("MNX_SNIPPET_FOR", "ios"),
    ):
        monkeypatch.setenv(name, value)
    export = parsed(["export"], monkeypatch)
    assert (export["int8"], export["width"], export["classes"]) == (False, 0.5, 10)
    assert parsed(["bench", "x"], monkeypatch)["runtime"] == ["onnxruntime", "litert"]
    assert parsed(["bench", "x", "--runtime", "torch"], monkeypatch)["runtime"] == ["torch"]
    assert parsed(["calibration", "lint", "x"], monkeypatch)["ranges"] is True
    assert parsed(["calibration", "lint", "x", "--no-ranges"], monkeypatch)["ranges"] is False
    assert parsed(["snippet", "x"], monkeypatch)["kind"] == "ios"


def test_a_network_that_is_named_beats_one_that_is_set(mnx: Run, tmp_path: Path) -> None:
    (tmp_path / "mnx.toml").write_text('[export]\narch = "v2"\n')
    code, out, _ = mnx("export", "v1", "--dry-run")
    assert (code, out.split()[2]) == (0, "mobilenet_v1_100_224")
    code, _, err = mnx("export", "v1", "--arch", "v2", "--dry-run")
    assert code == ExitCode.USAGE
    assert "two networks named" in err


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("[exprot]\n", "mnx.toml:1: exprot is no option of `mnx`", "did you mean export?"),
        ("[export]\n\narhc = 'v1'\n", "mnx.toml:3: arhc is no option of `mnx export`", "did you mean arch?"),
        ("export.arhc = 'v1'\n", "mnx.toml:1: arhc is no option of `mnx export`", "did you mean arch?"),
        (
            "[calibration.lint]\nstrickt = true\n",
            "mnx.toml:2: strickt is no option of `mnx calibration lint`",
            "did you mean strict?",
        ),
        ("[export]\nmax_drop = 1\n", "mnx.toml:2: max_drop is no option of `mnx export`", "known: "),
        ("arch = 'v1'\n", "mnx.toml:1: arch is no option of `mnx`", "known: quiet, verbose, "),
        ("version = true\n", "mnx.toml:1: version is no option of `mnx`", "did you mean verbose?"),
        ("export = 'v1'\n", "mnx.toml:1: export is a command, and has options", "write [export]"),
        (
            "[export]\nint8 = 'yes'\n",
            "mnx.toml:2: int8 must be true or false, not 'yes'",
            "`mnx export --help`",
        ),
        ("[export]\nint8 = 1\n", "mnx.toml:2: int8 must be true or false, not 1", "`mnx export --help`"),
        (
            "[export]\nclasses = true\n",
            "mnx.toml:2: classes must be an integer, not True",
            "`mnx export --help`",
        ),
        ("[export]\nwidth = '1'\n", "mnx.toml:2: width must be a number, not '1'", "`mnx export --help`"),
        ("[export]\narch = ['v1']\n", "mnx.toml:2: arch must be a string, not ['v1']", "`mnx export --help`"),
        (
            "[bench]\nruntime = 'torch'\n",
            "mnx.toml:2: runtime must be a list of strings, not 'torch'",
            "`mnx bench --help`",
        ),
        (
            "[bench]\nruntime = [1]\n",
            "mnx.toml:2: runtime must be a list of strings, not [1]",
            "`mnx bench --help`",
        ),
        ("[[export]]\narch = 'v1'\n", "mnx.toml: export is a command, and has options", "write [export]"),
        (
            "[deploy]\nssh-config = 'x'\n",
            "mnx.toml:2: ssh-config cannot be set in a file",
            "set MNX_DEPLOY_SSH_CONFIG",
        ),
    ],
)
def test_a_file_that_sets_what_is_not_there_ends_in_2(
    text: str, error: str, hint: str, mnx: Run, tmp_path: Path
) -> None:
    (tmp_path / "mnx.toml").write_text(text)
    code, out, err = mnx("models")
    assert (code, out) == (ExitCode.USAGE, "")
    first, second = err.splitlines()
    assert first == f"error: {error}"
    assert second.startswith(f"hint: {hint}")
    for help_option in ("--help", "-h", "--version"):
        assert mnx(help_option)[0] == 0
    assert mnx("export", "--help")[0] == 0


@pytest.mark.parametrize("data", [b"[export\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_ends_in_4(data: bytes, mnx: Run, tmp_path: Path) -> None:
    (tmp_path / "mnx.toml").write_bytes(data)
    code, _, err = mnx("models")
    assert code == ExitCode.DAMAGED
    assert err.startswith("error: mnx.toml: not TOML: ")


def test_an_error_says_where_a_value_was_set(
    mnx: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mnx.toml").write_text('[export]\narch = "v2"\nrecipe = "int8-fast"\n')
    code, _, err = mnx("export", "--dry-run")
    assert code == ExitCode.USAGE
    assert err.endswith("hint: give --int8 too; --recipe is set by mnx.toml:3\n")
    assert "set by" not in mnx("export", "--dry-run", "--recipe=int8-slow")[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arch = 'v9'", "--arch is set by mnx.toml:2"),
        ("arch = 'own.toml'", "--arch is set by mnx.toml:2"),
        ("arch = 'v2'\nwidth = 9", "--width is set by mnx.toml:3"),
        ("arch = 'v2'\nresolution = 100", "--resolution is set by mnx.toml:3"),
        ("arch = 'v2'\nclasses = 1", "--classes is set by mnx.toml:3"),
        ("arch = 'v2'\nformats = 'onnx,tflight'", "--formats is set by mnx.toml:3"),
        ("arch = 'v2'\nio = 'float64'\nclasses = 64", "--io is set by mnx.toml:3"),
        ("checkpoint = 'no.pth'", "--checkpoint is set by mnx.toml:2"),
        ("arch = 'v2'\nweights = 'torchvision:mobilenet_v9'", "--weights is set by mnx.toml:3"),
    ],
)
def test_an_error_of_a_value_says_where_it_was_set(text: str, said: str, mnx: Run, tmp_path: Path) -> None:
    (tmp_path / "mnx.toml").write_text(f"[export]\n{text}\n")
    code, _, err = mnx("export", "--dry-run")
    assert code == ExitCode.USAGE
    assert err.splitlines()[1].endswith(f"; {said}")


@pytest.mark.parametrize(
    ("variable", "value", "error"),
    [
        ("MNX_QUIET", "2", "quiet must be true or false, not '2'"),
        ("MNX_EXPORT_WIDTH", "a", "width must be a number, not 'a'"),
        ("MNX_EXPORT_CLASSES", "1.5", "classes must be an integer, not '1.5'"),
        ("MNX_EXPORT_INT8", "maybe", "int8 must be true or false, not 'maybe'"),
    ],
)
def test_a_variable_of_a_wrong_type_ends_in_2(
    variable: str, value: str, error: str, mnx: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    for command in ("config", "models"):
        code, out, err = mnx(command)
        assert (code, out) == (ExitCode.USAGE, "")
        assert err.startswith(f"error: {variable}: {error}\nhint: `mnx ")
        assert err.endswith(" says more\n")
    assert mnx("--help")[0] == 0


@pytest.mark.parametrize(
    ("text", "error", "hint"),
    [
        ("[export]\nio = 'uint8,foo'", "mnx.toml:2: unknown io: foo", "known: float32, uint8, int8"),
        ("[export]\narch = 'v9'", "mnx.toml:2: unknown arch: v9", "did you mean v2?"),
        ("[pick]\narch = 'v1,v3'", "mnx.toml:2: unknown arch: v3", "did you mean v2?"),
        ("[export]\npadding = 'same'", "mnx.toml:2: unknown padding: same", "known: symmetric, tensorflow"),
        ("[bench]\nruntime = ['torch', 'lite']", "mnx.toml:2: unknown runtime: lite", "did you mean litert?"),
        ("[validate]\nreport = 'xml'", "mnx.toml:2: unknown report: xml", "known: md, junit"),
    ],
)
def test_config_refuses_a_name_that_is_not_there(
    text: str, error: str, hint: str, mnx: Run, tmp_path: Path
) -> None:
    (tmp_path / "mnx.toml").write_text(text)
    for arguments in (("config",), ("config", "--json")):
        code, out, err = mnx(*arguments)
        assert (code, out) == (ExitCode.USAGE, "")
        assert err.splitlines()[0] == f"error: {error}"
        assert err.splitlines()[1].startswith(f"hint: {hint}")


def test_config_takes_every_name_that_a_command_takes(mnx: Run, tmp_path: Path) -> None:
    (tmp_path / "mnx.toml").write_text(
        "[export]\narch = 'own.toml'\nrecipe = 'int8-fast'\nio = 'float32, uint8'\nformats = 'onnx,ort'\n"
        "[bench]\nruntime = ['onnxruntime:CPU', 'torch']\n[compat]\nruntime = ['onnxruntime==1.16']\n"
        "device = 'pi4'\n[pick]\ndevice = 'pi@kitchen'\nprecision = 'fp32,int8'\narch = 'v1'\n"
    )
    code, out, _ = mnx("config")
    assert (code, len(out.splitlines())) == (0, 11)


def test_completion_offers_what_there_is() -> None:
    assert completion.inputs() == list(INPUT_OUTPUTS)
    assert completion.paddings() == list(get_args(Padding))


def test_a_misspelt_variable_is_said(mnx: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNX_EXPORT_ARHC", "v1")
    monkeypatch.setenv("MNX_OF_SOMEONE_ELSE", "1")
    code, _, err = mnx("config")
    assert code == 0
    (line, *_) = err.splitlines()
    assert line == "warning: the variable MNX_EXPORT_ARHC is none of mnx; did you mean MNX_EXPORT_ARCH?"
    assert "SOMEONE" not in err


def test_every_variable_is_of_one_option() -> None:
    tree = cli.command_tree()
    names = [name for _, option in settings.options(tree) for name in option.envvar]
    shared = set(names) & set(settings.OTHER_VARIABLES)
    assert shared == {"MNX_SSH_CONFIG"}  # of every command that connects
    own = [name for name in names if name not in shared]
    assert len(own) == len(set(own)) > 60


def test_config_shows_what_is_set_and_where(
    mnx: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mnx("config")[1] == "nothing is set: no mnx.toml here or above, no variable of mnx\n"
    (tmp_path / "mnx.toml").write_text('[export]\nint8 = true\narch = "v2"\n')
    monkeypatch.setenv("MNX_EXPORT_ARCH", "v1")
    monkeypatch.setenv("MNX_SSH_CONFIG", "my_config")
    code, out, _ = mnx("config")
    assert code == 0
    assert out == (
        "option                   set by           value\n"
        "mnx export --int8        mnx.toml:2       True\n"
        "mnx export --arch        MNX_EXPORT_ARCH  'v1'\n"
        "mnx pick --ssh-config    MNX_SSH_CONFIG   'my_config'\n"
        "mnx deploy --ssh-config  MNX_SSH_CONFIG   'my_config'\n"
    )
    document = json.loads(mnx("config", "--json")[1])
    assert document[0] == {
        "command": "mnx export", "option": "--int8", "value": True, "source": "mnx.toml:2"
    }  # fmt: skip


def test_what_is_set_and_the_variants_fit_60_columns(
    mnx: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = "photos of leaves in autumn and of some in spring"
    (tmp_path / "mnx.toml").write_text(f"[calibration.lint]\nlabels = '{photos}'\n")
    monkeypatch.setenv("MNX_CALIBRATION_LINT_CHECKPOINT", "a/folder/of/mine.pth")
    monkeypatch.setenv("COLUMNS", "60")
    for command in ("config", "models"):
        code, out, _ = mnx(command)
        assert code == 0
        assert max(map(len, out.splitlines())) <= 60
        assert command == "models" or photos in " ".join(out.split())
    assert "left out for want of room: input, classes; --json has all" in " ".join(out.split())


def test_a_removed_working_folder_has_no_settings(
    mnx: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert mnx("models")[0] == 0


# Talk


def test_quiet_leaves_data_and_warnings(mnx: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    loud = mnx("config")
    assert loud[2]
    for arguments in (("--quiet", "config"), ("config", "--quiet"), ("-q", "config"), ("config", "-q")):
        assert mnx(*arguments) == (0, loud[1], "")
    monkeypatch.setenv("MNX_QUIET", "1")
    monkeypatch.setenv("MNX_QUITE", "1")
    assert mnx("config")[2].splitlines() == [
        "warning: the variable MNX_QUITE is none of mnx; did you mean MNX_QUIET?"
    ]
    assert mnx("config", "--verbose")[2].count("\n") > 3
    code, _, err = mnx("--quiet", "models", "--nonsense")
    assert code == ExitCode.USAGE
    assert "\nerror: " in err


def test_verbose_says_versions_and_settings(mnx: Run, tmp_path: Path) -> None:
    (tmp_path / "mnx.toml").write_text("[export]\nint8 = true\n")
    code, _, err = mnx("models", "-v")
    assert code == 0
    assert err.startswith(f"mnx {__version__}, Python 3.")
    assert "onnxruntime 1." in err
    assert "mnx export --int8 = True (mnx.toml:2)\n" in err
    code, _, err = mnx("-q", "-v", "models")
    assert code == ExitCode.USAGE
    assert "exclude each other" in err


def test_the_version_as_json_names_the_libraries(mnx: Run) -> None:
    code, out, err = mnx("--version", "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["mnx"] == __version__
    assert {"numpy", "torch", "onnx", "onnxruntime", "ai-edge-litert"} <= set(document["libraries"])
    assert mnx("--json", "--version")[1] == out
    assert mnx("--json", "models")[0] == ExitCode.USAGE


# Help


@pytest.mark.parametrize("command", LEAVES)
def test_every_help_has_a_sentence_examples_that_parse_and_exit_codes(
    command: str, mnx: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text, err = mnx(*command.split(), "--help")
    assert (code, err) == (0, "")
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0].startswith(f"Usage: mnx {command}")
    summary = " ".join(lines[2 : lines.index("", 2)])
    assert summary[0].isupper()
    assert summary.endswith((".", ":"))
    assert "Exit codes: 0 done" in text
    found = list(examples(lines))
    assert found
    for example in found:
        assert example.startswith(f"mnx {command}")
        parsed(shlex.split(example)[1:], monkeypatch)


def examples(lines: list[str]) -> Iterator[str]:
    """The commands after `Examples:`, without comments and without where their output goes."""
    for line in lines[lines.index("Examples:") + 1 :]:
        if not line.startswith("mnx "):
            return
        yield line.split(" > ")[0].split(" | ")[0].split("  #")[0]


@pytest.mark.parametrize("arguments", [["--help"], ["export", "--help"], ["--version", "--json"]])
def test_help_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert not imported_by(arguments, tmp_path, {}) & HEAVY


HEAVY = {"torch", "onnxruntime", "numpy", "onnx", "PIL", "ai_edge_litert"}


def imported_by(arguments: list[str], folder: Path, environment: dict[str, str]) -> set[str]:
    """Which packages a command imports, in a process of its own."""
    command = [sys.executable, "-X", "importtime", "-m", "mobilenet_export", *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, env=os.environ | environment
    )
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in imported
    return imported


# Interrupts


def test_nothing_is_imported_before_an_interrupt_can_be_told() -> None:
    code = "import sys; before = set(sys.modules); import mobilenet_export.__main__; "
    code += "print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mobilenet_export", "mobilenet_export.__main__"]


@pytest.mark.parametrize("module", ["mobilenet_export.cli", "typer", "mobilenet_export.spec", "rich.text"])
def test_an_interrupt_while_python_imports_ends_in_one_message(module: str) -> None:
    code = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "class Interrupts:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupts())\n"
        "from mobilenet_export.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.INTERRUPTED
    error, hint = done.stderr.splitlines()
    assert error == "error: interrupted"
    assert hint.endswith("the same command starts again")


# Completion, in real shells


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with hosts, a folder of one bundle that was sent to devices, and `mnx` on the PATH."""
    ssh = tmp_path / ".ssh"
    ssh.mkdir()
    (ssh / "config").write_text(
        "Host pi1 pi2 *.lab !pi3\n  HostName 10.0.0.1\nhost=kitchen\nInclude more/*\nMatch host x\n"
    )
    (ssh / "more").mkdir()
    (ssh / "more" / "own").write_text("Host porch\nInclude own\n")
    devices = tmp_path / "bundle" / "devices"
    devices.mkdir(parents=True)
    (devices / "a.json").write_text('{"host": "pi@raspberrypi.local"}')
    (devices / "b.json").write_text('{"host": "adb:R58M"}')
    (devices / "c.json").write_text("no JSON")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "mnx"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m mobilenet_export "$@"\n')
    script.chmod(0o755)
    return tmp_path


OFFERED = [
    (["mnx", "exp"], {"export"}),
    (["mnx", "calibration", ""], {"lint", "synth"}),
    (["mnx", "export", "--arch", "v"], {"v1", "v2"}),
    (["mnx", "export", "mobilenet_v1"], {"mobilenet_v1_100_224", "mobilenet_v1_tutorial"}),
    (["mnx", "export", "--recipe", "int8-"], {"int8-fast", "int8-per-tensor"}),
    (["mnx", "validate", "b", "--runtime", "o"], {"onnxruntime"}),
    (["mnx", "bench", "b", "--runtime", "to"], {"torch"}),
    (["mnx", "snippet", "--for", "an"], {"android"}),
    (["mnx", "compat", "--device", "pi4"], {"pi4", "pi4-32bit"}),
    (["mnx", "deploy", "p"], {"pi1", "pi2", "porch", "pi@raspberrypi.local"}),
    (["mnx", "deploy", "k"], {"kitchen"}),
    (["mnx", "deploy", "adb"], {"adb:R58M"}),
    (["mnx", "deploy", "rasp"], {"raspberrypi.local"}),
    (["mnx", "export", "--dry"], {"--dry-run"}),
    (["mnx", "models", "x"], set()),
]


def in_shell(shell: str, script: str, home: Path) -> list[str]:
    """The lines that a script of a shell prints, with `mnx` and the home in its environment."""
    project = str(Path(cli.__file__).parents[2])
    environment = os.environ | {"HOME": str(home), "PATH": f"{home}/bin:{os.environ['PATH']}"}
    environment["PYTHONPATH"] = project
    command = [shell, *(["--norc"] if shell == "bash" else []), "-c", script]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, env=environment, check=True)
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("words", "offered"), OFFERED)
def test_bash_completes(words: list[str], offered: set[str], home: Path) -> None:
    script = (
        'eval "$(_MNX_COMPLETE=source_bash mnx)"\n'
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}\n"
        '_mnx_completion mnx; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    assert set(filter(None, in_shell("bash", script, home))) == offered


# `make test-completion` installs what the next two need.


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed: apt install fish")
@pytest.mark.parametrize(("words", "offered"), OFFERED[:6])
def test_fish_completes(words: list[str], offered: set[str], home: Path) -> None:
    script = f"_MNX_COMPLETE=source_fish mnx | source; complete -C {shlex.quote(' '.join(words))}"
    assert {line.split("\t")[0] for line in in_shell("fish", script, home)} == offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed: apt install zsh")
@pytest.mark.parametrize(("words", "offered"), OFFERED[:6])
def test_zsh_completes(words: list[str], offered: set[str], home: Path) -> None:
    script = (
        "compdef() {}; _files() { print files; }\n_arguments() { print -r -- ${1#*:: :} }\n"
        '_arguments() { eval "offered=${${1#*: :\\(}%\\)}"; print -rl -- ${offered%%:*} }\n'
        'eval "$(_MNX_COMPLETE=source_zsh mnx)"\n'
        f"words=({' '.join(map(shlex.quote, words))}); CURRENT={len(words)}; _mnx_completion"
    )
    assert set(in_shell("zsh", script, home)) == offered


def test_completion_imports_nothing_heavy_and_minds_no_damaged_settings(home: Path) -> None:
    (home / "mnx.toml").write_text("[")
    for words in ("mnx export --arch ", "mnx compat --device p", "mnx deploy p", "mnx bench b --runtime "):
        environment = {
            "_MNX_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))
        }  # fmt: skip
        assert not imported_by([], home, environment) & (HEAVY | {"pydantic", "rich"})
