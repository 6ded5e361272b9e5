"""Configuration: frozen dataclasses out of TOML, with nothing guessed and nothing ignored.

A recipe is a dataclass whose fields are plain values, tuples, or dataclasses again; its defaults are the
documentation of what it does when told nothing. `from_dict` builds one from parsed TOML and refuses what does not
fit, by the full dotted name of the key. Knows nothing of what the values mean, and imports neither numpy nor torch.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from musictool.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")

_KEY = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_NOUNS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "nothing",
}


def from_dict(cls: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build a dataclass from parsed TOML.

    Field types may be bool, int, float (a whole number will do), str, Path, Literal, Enum (by value), Any, nested
    dataclasses, Optional and other unions, `tuple[X, ...]`, `tuple[X, Y]`, `list[X]` and `dict[str, X]`. A section
    changes what it names of the default that its field has, and leaves the rest of it.

    Args:
        cls: the dataclass.
        data: a table; keys that are not there keep the field's default.
        where: what to call its source in errors, a path say.

    Raises:
        UsageError: an unknown key, a missing one, a value of another type, or one that the dataclass itself refuses
            (a ValueError from its `__post_init__`).
    """
    return _build(cls, data, "", where)


def load_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        UsageError: it is not there, cannot be read, or is no TOML.
    """
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise UsageError(reason[:1].lower() + reason[1:], context=str(path), code="no-such-config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"no valid TOML: {str(error).splitlines()[0]}", context=str(path), code="bad-toml") from error


def apply_overrides(data: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Set single values in parsed TOML.

    Args:
        data: a table; it stays as it is.
        overrides: `section.key=value` each. The value is read as TOML; what is no TOML is a text, so that words need
            no quotes.

    Returns:
        A copy in which later overrides win.

    Raises:
        UsageError: an override is not of that form, or goes through a value that is no table.
    """
    result = _copy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not _KEY.fullmatch(key):
            raise UsageError(f"no setting: {override!r:.80}", hint="write section.key=value, as in notes.min=50")
        *sections, last = key.split(".")
        table = result
        for depth, section in enumerate(sections, 1):
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise UsageError(f"'{'.'.join(sections[:depth])}' is a value, not a section", context=override)
        table[last] = _parsed(text.strip())
    return result


def _parsed(text: str) -> Any:
    try:
        values = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return values["value"] if len(values) == 1 else text


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


@lru_cache
def _types_of(cls: Any) -> dict[str, Any]:
    """The types of the fields that a dataclass is built from."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.init}


def _build(cls: type[T], data: Any, key: str, where: str, base: Any = None) -> T:
    """Build a dataclass; `base`, one of the same class, has the values of the keys that are not there."""
    if not isinstance(data, Mapping):
        raise _error(f"'{key}' is {_described(data)}, not a section", where) if key else _error("no table", where)
    types_of = _types_of(cast(Hashable, cls))
    for name in data:
        if name not in types_of:
            near = get_close_matches(str(name), types_of, n=1)
            known = ", ".join(types_of)
            hint = f"did you mean '{_join(key, near[0])}'?" if near else f"known here: {known}"
            raise _error(f"unknown key '{_join(key, str(name))}'", where, hint)
    values: dict[str, Any] = {}
    for field in fields(cast(Any, cls)):
        default = _default_of(field) if base is None else getattr(base, field.name)
        if field.name in data:
            kind = types_of[field.name]
            values[field.name] = _convert(kind, data[field.name], _join(key, field.name), where, default)
        elif default is MISSING:
            raise _error(f"missing key '{_join(key, field.name)}'", where)
        elif field.init:
            values[field.name] = default
    try:
        return cls(**values)
    except ValueError as error:
        raise _error(f"'{key}': {error}" if key else str(error), where) from error


def _default_of(field: Field[Any]) -> Any:
    """What a field is without a value; MISSING if it must have one."""
    if not field.init:
        return None
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _convert(kind: Any, value: Any, key: str, where: str, default: Any = None) -> Any:
    """A value as its field's type wants it; a section starts from `default` if that is of its class.

    Raises:
        UsageError: it is of another type.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _build(cast(type, kind), value, key, where, default if type(default) is kind else None)
    if origin in (Union, types.UnionType):
        return _convert_union(kind, value, key, where, default)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise _unfit(kind, value, key, where, arguments)
        return value
    if origin in (tuple, list) and isinstance(value, (list, tuple)):
        return _convert_sequence(kind, value, key, where)
    if origin is dict and isinstance(value, Mapping):
        return {name: _convert(arguments[1], inner, _join(key, name), where) for name, inner in value.items()}
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [member.value for member in kind]
        if value not in choices:
            raise _unfit(kind, value, key, where, choices)
        return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if origin is None and isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
        return value
    raise _unfit(kind, value, key, where)


def _convert_union(kind: Any, value: Any, key: str, where: str, default: Any) -> Any:
    """The value as the first member that takes it; a failure inside the only candidate section is reported as such."""
    members = get_args(kind)
    sections = [member for member in members if is_dataclass(member)]
    if isinstance(value, Mapping) and len(sections) == 1:
        return _convert(sections[0], value, key, where, default)
    exact = [member for member in members if member is type(value)]
    for member in (*exact, *members):
        try:
            return _convert(member, value, key, where)
        except UsageError:
            continue
    raise _unfit(kind, value, key, where)


def _convert_sequence(kind: Any, value: list[Any] | tuple[Any, ...], key: str, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    is_uniform = origin is list or arguments[1:] == (...,)
    members = arguments[:1] * len(value) if is_uniform else arguments
    if len(members) != len(value):
        raise _error(f"'{key}' has {len(value)} entries, not {len(members)}", where)
    inner = enumerate(zip(members, value, strict=True))
    return origin(_convert(member, entry, f"{key}[{index}]", where) for index, (member, entry) in inner)


def _unfit(kind: Any, value: Any, key: str, where: str, choices: Iterable[Any] = ()) -> UsageError:
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(value), names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else ""
    return _error(f"'{key}' is {_described(value)}, not {_noun(kind)}", where, hint)


def _noun(kind: Any) -> str:
    """A type in a user's words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_noun(member) for member in arguments if member is not type(None))
    if origin is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        choices = arguments if origin is Literal else [member.value for member in kind]
        return " or ".join(repr(choice) for choice in choices)
    if origin in (tuple, list):
        return "a list"
    if origin is dict or is_dataclass(kind):
        return "a section"
    return _NOUNS.get(kind, getattr(kind, "__name__", str(kind)))


def _described(value: Any) -> str:
    """A value in a user's words."""
    if isinstance(value, Mapping):
        return "a section"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"{value!r:.40}" if not isinstance(value, bool) else str(value).lower()


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _error(message: str, where: str, hint: str = "") -> UsageError:
    return UsageError(message, context=where, hint=hint, code="bad-config")
