"""Arguments of the Python API, checked against the annotations of its functions."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Sequence
from types import NoneType, UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from mobilenet_export.errors import UsageError

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_MOST = 1e300
_KINDS: dict[Any, tuple[str, str]] = {
    str: ("text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "booleans"),
}
"""What a type is called: one of it, and several."""


def checked(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Return the function as one that refuses an argument of another type than is annotated, by its name.

    It raises a UsageError before the function is called.
    """
    hints, signature = get_type_hints(function), inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: _Parameters.args, **keywords: _Parameters.kwargs) -> _Result:
        for name, value in signature.bind(*arguments, **keywords).arguments.items():
            if not _fits(value, hints[name]):
                raise UsageError(
                    f"{name}={reprlib.repr(value)}: must be {_kind(hints[name])}",
                    f"help(mobilenet_export.{function.__name__}) describes {name}",
                )
        return function(*arguments, **keywords)

    return call


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; a list will do for a tuple, an integer for a float."""
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in of)
    if origin is Sequence:
        return (
            isinstance(value, Sequence) and not _is_text(value) and all(_fits(item, of[0]) for item in value)
        )
    if origin is tuple:
        return isinstance(value, list | tuple) and len(value) == len(of) and all(map(_fits, value, of))
    if hint in (int, float):  # True is no number here, nor is what no float holds
        fits = isinstance(value, int | hint) and not isinstance(value, bool)
        return fits and -_MOST < value < _MOST
    if hint is str:
        return isinstance(value, str) and "\0" not in value
    return isinstance(value, origin or hint)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | bytes | bytearray)


def _kind(hint: Any) -> str:
    """What values of a type are called."""
    origin, of = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(one) for one in of if one is not NoneType))
    if origin is Sequence:
        return f"a list of {_KINDS[of[0]][1] if of[0] in _KINDS else 'paths'}"
    if origin is tuple:
        return f"{len(of)} {_KINDS[of[0]][1]}"
    return _KINDS[hint][0] if hint in _KINDS else "a function" if origin is Callable else "a path"
