"""Settings: frozen dataclasses whose fields are documented once, by the comment behind each, and checked by type."""

from __future__ import annotations

import inspect
import io
import math
import sys
import tokenize
import types
from collections.abc import Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

_SCALARS = (bool, int, float, str)


class Setting(NamedTuple):
    """One field of a settings class that takes a single value."""

    name: str
    kind: type  # bool, int, float or str
    choices: tuple[str, ...]  # all values, if they are named
    default: Any  # None for "none"
    note: str  # what the comment behind it says


@cache
def notes(cls: type) -> dict[str, str]:
    """The comment behind each field of a dataclass; empty where the source is not at hand."""
    try:
        source = inspect.cleandoc("\n" + inspect.getsource(cls))
    except OSError:
        return {}
    found: dict[str, str] = {}
    name, depth = "", 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.type == tokenize.OP and token.string in ")]}":
            depth -= 1
        elif token.type == tokenize.NAME and token.start[1] == 4 and not depth:
            name = token.string
        elif token.type == tokenize.COMMENT and name and token.start[1] > 4:
            found[name] = token.string.lstrip("# ")
        elif token.type == tokenize.NEWLINE:
            name = ""
    names = {f.name for f in fields(cls)}
    return {field: note for field, note in found.items() if field in names}


def _plain(hint: Any) -> tuple[Any, bool]:
    """A type without its None, and whether it had one."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else None, len(kinds) < len(get_args(hint))
    return hint, False


def settings(cls: type) -> list[Setting]:
    """The fields of a settings class that take a single value."""
    hints = get_type_hints(cls)
    found = []
    for one in fields(cls):
        kind, _ = _plain(hints[one.name])
        choices = tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()
        if choices:
            kind = str
        if kind in _SCALARS:
            default = None if one.default is MISSING else one.default
            found.append(Setting(one.name, kind, choices, default, notes(cls).get(one.name, "")))
    return found


def nested(one: Field[Any]) -> type | None:
    """The settings class of a field that holds settings itself."""
    factory: Any = one.default_factory
    return factory if isinstance(factory, type) and is_dataclass(factory) else None


def check_ranges(
    config: Any, *, above_zero: Iterable[str] = (), not_negative: Iterable[str] = (), shares: Iterable[str] = ()
) -> None:
    """Refuse numbers that settings cannot have; None passes.

    Raises
    ------
    ValueError
        The message names the setting, the rule and the value.
    """
    for names, rule, least, most in (
        (above_zero, "a number > 0", math.ulp(0.0), sys.float_info.max),
        (not_negative, "a number >= 0", 0.0, sys.float_info.max),
        (shares, "a share in [0, 1]", 0.0, 1.0),
    ):
        for name in names:
            value = getattr(config, name)
            if value is not None and not least <= value <= most:
                raise ValueError(f"{name} must be {rule}, got {value:g}; correct it")


def check_value(name: str, value: Any, hint: Any) -> None:
    """Refuse a value of the wrong type.

    Raises
    ------
    ValueError
        The message names the setting, what it takes and what it got.
    """
    kind, optional = _plain(hint)
    if value is None and optional:
        return
    if get_origin(kind) is tuple:
        _check_list(name, value, get_args(kind))
        return
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        good, wanted = value in choices, " or ".join(map(repr, choices))
    elif kind in _SCALARS:
        accepted = (int, float) if kind is float else kind
        good = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
    else:
        return
    if not good:
        raise ValueError(f"{name!r} must be {wanted}, got {value!r}; correct it")


def _check_list(name: str, value: Any, hints: tuple[Any, ...]) -> None:
    """A tuple of values of one kind, or of these kinds."""
    many = hints[-1] is ...
    if not isinstance(value, (list, tuple)) or not (many or len(value) == len(hints)):
        wanted = "a list" if many else f"a list of {len(hints)} values"
        raise ValueError(f"{name!r} must be {wanted}, got {value!r}; correct it")
    for one, hint in zip(value, hints[:1] * len(value) if many else hints, strict=True):
        check_value(name, one, hint)
