"""Options that are set elsewhere than in the command: in `mnx.toml` and in environment variables.

One rule decides: option > environment variable > mnx.toml > default. A key of the file is an option without its
dashes, in the table of its command; a variable is MNX_, the command and the option, in capitals:

    [export]             MNX_EXPORT_ARCH=v1
    arch = "v1"
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup, TyperOption
from typer.exceptions import TyperException

from mobilenet_export.cli import completion
from mobilenet_export.errors import DamagedInputError, UsageError, unknown_name

FILE = "mnx.toml"
OTHER_VARIABLES = ("MNX_CACHE", "MNX_DOWNLOADS", "MNX_MIRROR", "MNX_SSH_CONFIG", "MNX_TRACEBACK")
"""Those that are of no single option."""
TALK = ("--quiet", "--verbose")
"""The options of `mnx` itself that can be set; they stand at the top of the file."""
_NOT_IN_A_FILE = ("--ssh-config",)
"""It names programs that ssh starts, and a folder that was only downloaded shall start none."""

Place = tuple[str, ...]
"""A command, such as ("calibration", "lint"); () is `mnx` itself."""


@dataclass(frozen=True, slots=True)
class Setting:
    """A value that an option has from elsewhere.

    Attributes:
        command: That it is of.
        option: As typed, such as `--max-drop`.
        parameter: Its name in the program.
        value: As it stands there.
        source: Where: `mnx.toml:3`, or the name of the variable.
    """

    command: Place
    option: str
    parameter: str
    value: Any
    source: str


def options(tree: TyperGroup) -> Iterator[tuple[Place, TyperOption]]:
    """Yield every option that can be set, with its command."""
    for command, parameters in _parameters(tree):
        for parameter in parameters:
            if isinstance(parameter, TyperOption) and (command or _name(parameter) in TALK):
                yield command, parameter


def _parameters(tree: TyperGroup, command: Place = ()) -> Iterator[tuple[Place, Sequence[Any]]]:
    yield command, tree.params
    for name, one in tree.commands.items():
        if isinstance(one, TyperGroup):
            yield from _parameters(one, (*command, name))
        else:
            yield (*command, name), one.params


def commands(tree: TyperGroup) -> Iterator[Any]:
    """Yield the commands, `mnx` itself and groups of commands among them."""
    yield tree
    for one in tree.commands.values():
        if isinstance(one, TyperGroup):
            yield from commands(one)
        else:
            yield one


def is_typed(context: typer.Context, parameter: str) -> bool:
    """Tell whether an option stands in the command itself."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def _name(option: TyperOption) -> str:
    return max(option.opts, key=len)


def variable(command: Place, option: str) -> str:
    """Return the environment variable of an option."""
    return "_".join(["MNX", *command, option.strip("-")]).upper().replace("-", "_")


def name_variables(tree: TyperGroup) -> None:
    """Give every option its variable, before one that it may have of its own."""
    for command, option in options(tree):
        own = option.envvar or []
        option.show_envvar = bool(own)
        option.envvar = [variable(command, _name(option)), *([own] if isinstance(own, str) else own)]


def take_as_typed(tree: TyperGroup) -> None:
    """Leave values as they are typed, for completion, which needs no types: typer loads pydantic for them."""
    for command in commands(tree):
        for parameter in command.get_params(typer.Context(command, **tree.context_settings)):
            parameter.process_value = lambda _context, value: value


def find_file(folder: Path) -> Path | None:
    """Return the `mnx.toml` of a folder or the nearest parent that has one."""
    found = (parent / FILE for parent in (folder, *folder.parents))
    return next((path for path in found if path.is_file()), None)


def read_file(tree: TyperGroup, path: Path) -> tuple[Setting, ...]:
    """Read the settings of a file; paths in it are relative to its folder.

    Raises:
        UsageError: A table or key is unknown, or a value is not of its option's type.
        DamagedInputError: It is not TOML.
    """
    shown = Path(os.path.relpath(path))
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DamagedInputError(f"{shown}: not TOML: {error}", "mend or remove the file") from None
    reader = _Reader(tree, shown, _lines(text))
    return tuple(reader.read((), table))


@dataclass(frozen=True)
class _Reader:
    tree: TyperGroup
    file: Path
    lines: Mapping[Place, int]

    def read(self, command: Place, table: Mapping[str, Any]) -> Iterator[Setting]:
        """Yield the settings of a command's table, and of the tables within."""
        known = {_name(option).strip("-"): option for at, option in options(self.tree) if at == command}
        commands = {
            at[len(command)] for at, _ in _parameters(self.tree) if at[: len(command)] == command != at
        }
        for key, value in table.items():
            if key in known:
                yield self._setting(command, known[key], key, value)
            elif key in commands and isinstance(value, dict):
                yield from self.read((*command, key), value)
            else:
                raise self._unknown(command, key, [*known, *sorted(commands)])

    def _unknown(self, command: Place, key: str, known: Sequence[str]) -> UsageError:
        at = " ".join(("mnx", *command))
        where = self._where((*command, key))
        if key in known:
            return UsageError(
                f"{where}: {key} is a command, and has options", f"write [{'.'.join((*command, key))}]"
            )
        error = unknown_name("key", key, known)
        return UsageError(f"{where}: {key} is no option of `{at}`", error.hint)

    def _setting(self, command: Place, option: TyperOption, key: str, value: Any) -> Setting:
        where = self._where((*command, key))
        if _name(option) in _NOT_IN_A_FILE:
            raise UsageError(f"{where}: {key} cannot be set in a file", f"set {variable(command, key)}")
        _, fits = _type(option)
        items = value if option.multiple and isinstance(value, list) else [value]
        setting = Setting(command, _name(option), option.name, self._resolve(option, value), where)
        if isinstance(value, list) != option.multiple or not all(type(item) in fits for item in items):
            raise _wrong_type(setting, option)
        return setting

    def _resolve(self, option: TyperOption, value: Any) -> Any:
        """Take a path relative to the file's folder: of a file, or of a variant or recipe that is one."""
        if option.type_descriptor.annotation is Path or str(value).endswith(".toml"):
            return str(self.file.parent / value)
        return value

    def _where(self, key: Place) -> str:
        line = self.lines.get(key)
        return f"{self.file}:{line}" if line else str(self.file)


def _type(option: TyperOption) -> tuple[str, tuple[type, ...]]:
    """What an option's value is called, and the types that TOML gives it."""
    kinds: Mapping[Any, tuple[str, tuple[type, ...]]] = {
        bool: ("true or false", (bool,)),
        int: ("an integer", (int,)),
        float: ("a number", (int, float)),
    }
    text = ("a list of strings" if option.multiple else "a string", (str,))
    return kinds.get(option.type_descriptor.annotation, text)


def _wrong_type(setting: Setting, option: TyperOption) -> UsageError:
    kind, _ = _type(option)
    return UsageError(
        f"{setting.source}: {setting.option.strip('-')} must be {kind}, not {setting.value!r}",
        f"`{' '.join(('mnx', *setting.command))} --help` says more",
    )


def _lines(text: str) -> Mapping[Place, int]:
    """Where tables and keys stand; one that is written in a rarer way is not found."""
    found: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            table = _split(header[1])
            found.setdefault(table, number)
        elif key := re.match(r"\s*([\w.'\"-]+)\s*=", line):
            found.setdefault((*table, *_split(key[1])), number)
    return found


def _split(key: str) -> Place:
    return tuple(part.strip(" \t'\"") for part in key.split("."))


def read_variables(tree: TyperGroup) -> tuple[Setting, ...]:
    """Return the settings of the environment."""
    return tuple(setting for setting, _ in _variables(tree))


def _variables(tree: TyperGroup) -> Iterator[tuple[Setting, TyperOption]]:
    for command, option in options(tree):
        names = [name for name in option.envvar or [] if os.environ.get(name)]
        if names:
            value = os.environ[names[0]]
            yield Setting(command, _name(option), option.name, value, names[0]), option


def check_variables(tree: TyperGroup) -> None:
    """Refuse a variable that is not of its option's type.

    Raises:
        UsageError: It names the first.
    """
    for setting, option in _variables(tree):
        context = typer.Context(tree)
        try:
            option.process_value(context, option.value_from_envvar(context))
        except TyperException:
            raise _wrong_type(setting, option) from None


def check_names(tree: TyperGroup, found: Sequence[Setting]) -> None:
    """Refuse names that are none of those which the shell would complete; a path is not looked for.

    Raises:
        UsageError: It names the first.
    """
    by_place = {(command, _name(option)): option for command, option in options(tree)}
    for setting in found:
        offer = by_place[setting.command, setting.option].type_descriptor.parameter_info.autocompletion
        if offer is None or offer is completion.hosts:
            continue
        for name in _names(setting.value):
            if name not in offer() and not name.endswith((".toml", ".onnx")):
                error = unknown_name(setting.option.strip("-"), name, offer())
                raise UsageError(f"{setting.source}: {error.message}", error.hint)


def _names(value: Any) -> list[str]:
    """The names in a value, each without the provider or release that may follow it."""
    words = value if isinstance(value, list) else re.split(r"[,\s]+", str(value))
    return [re.split("[:=]", word)[0] for word in words if word]


def misspelt_variables(tree: TyperGroup) -> Iterator[tuple[str, str]]:
    """Yield variables that look like one of ours and are none, with the one that may be meant."""
    known = {name for _, option in options(tree) for name in option.envvar or []} | set(OTHER_VARIABLES)
    for name in sorted(os.environ):
        if name.startswith("MNX_") and name not in known:
            for near in difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.8):
                yield name, near


def defaults(settings: Sequence[Setting]) -> dict[str, Any]:
    """Return the settings of a file as the nested table of defaults that typer takes."""
    table: dict[str, Any] = {}
    for setting in settings:
        place = table
        for name in setting.command:
            place = place.setdefault(name, {})
        place[setting.parameter] = setting.value
    return table


def effective(tree: TyperGroup, file: Sequence[Setting]) -> tuple[Setting, ...]:
    """Return what the file and the environment set, each option once."""
    found = {(setting.command, setting.option): setting for setting in (*file, *read_variables(tree))}
    return tuple(found.values())


def origins(settings: Sequence[Setting], arguments: Sequence[str], message: str) -> str:
    """Say which options or values of an error message were set elsewhere than in the command, and where."""
    found = [
        f"{setting.option} is set by {setting.source}"
        for setting in settings
        if _is_told(setting, message)
        and setting.source not in message
        and set(setting.command) <= set(arguments)
        and not any(argument.split("=")[0] == setting.option for argument in arguments)
    ]
    return "; ".join(found)


def _is_told(setting: Setting, message: str) -> bool:
    """Whether a message tells of an option or of its value; of a number or flag, only beside its name."""
    if _has_word(message, setting.option):
        return True
    if isinstance(setting.value, str | list) and not re.fullmatch(r"[\d.]+|true|false", str(setting.value)):
        return any(_has_word(message, name) for name in (str(setting.value), *_names(setting.value)))
    return _has_word(message, setting.option.strip("-")) and _has_word(message, str(setting.value))


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None
