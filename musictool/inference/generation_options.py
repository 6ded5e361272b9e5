"""What is asked of a generator: what pieces are to be like, and how their ids are drawn. Imports no torch.

Also the forms of both that a person writes: a line of text, or an object of JSON, for each piece.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from musictool.errors import InputError, UsageError
from musictool.stream.records import NAME_CHARACTERS_MAX

if TYPE_CHECKING:
    from musictool.inference.sampling import Sampling

SECONDS_MAX = 86_400.0
BARS_MAX = 100_000
LINE_CHARACTERS_MAX = 1 << 20
_RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 1e6),
    "top_k": (0, 1 << 31),
    "guidance": (0, 100),
    "bars": (1, BARS_MAX),
    "tempo": (1, 1000),
}
_TYPES: dict[str, tuple[type, ...]] = {"bars": (int,), "tempo": (int, float), "duration": (int, float)}


@dataclass(frozen=True)
class Request:
    """What a piece is to be like; what is None is not asked for, and what there is of it is the model's choice.

    Attributes:
        text: words.
        style: a name, words, or the path of a file to be like, as the model has it.
        melody: path of sound whose melody is to be followed.
        backing: path of sound to play over.
        key: such as C, a minor or F#m.
        tempo: quarter notes a minute.
        chords: such as C Am F G, or the path of a text file with them.
        bars, duration_seconds: how much there is to be made, beside what it goes on from.
        name: what to call it; empty for a number.

    Raises:
        UsageError: a number is out of range.
    """

    text: str | None = None
    style: str | None = None
    melody: str | None = None
    backing: str | None = None
    key: str | None = None
    tempo: float | None = None
    chords: str | None = None
    bars: int | None = None
    duration_seconds: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        _check_ranges(self, ("bars", "tempo"))
        seconds = self.duration_seconds
        if seconds is not None and not 0 < seconds <= SECONDS_MAX:
            hint = f"a number of seconds above 0, at most {SECONDS_MAX:g}"
            raise UsageError(f"no such duration: {seconds:g}", context="--duration", hint=hint)
        if self.bars is not None and seconds is not None:
            raise UsageError("--bars and --duration contradict each other", hint="give one of them")

    def asked(self) -> dict[str, Any]:
        """What is asked for, by field."""
        values = {name: getattr(self, name) for name in FIELDS}
        return {name: value for name, value in values.items() if value is not None}


FIELDS: tuple[str, ...] = tuple(item.name for item in fields(Request) if item.name != "name")
LENGTHS = ("bars", "duration_seconds")


@dataclass(frozen=True)
class Drawing:
    """How ids are drawn.

    Attributes:
        temperature: 0 takes the likeliest; the higher, the freer.
        top_k: of how many of the likeliest ids; 0 for all.
        top_p: of the likeliest that have this probability together; 1 for all.
        guidance: how far to go where conditions lead; 1 is as the model learned it.
        seed: where draws begin.

    Raises:
        UsageError: a number is out of range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_ranges(self, ("temperature", "top_k", "guidance"))
        if not 0 < self.top_p <= 1:
            raise UsageError(f"no such share: {self.top_p:g}", context="--top-p", hint="above 0, at most 1")

    def with_given(self, **given: float | None) -> Drawing:
        """The same with other numbers, where they are given."""
        numbers: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(self, **numbers)

    def sampling(self) -> Sampling:
        """What draws ids so."""
        from musictool.inference.sampling import Sampling

        return Sampling(self.temperature, self.top_k, self.top_p, self.seed)


def option_of(name: str) -> str:
    """What a field is called on a command line."""
    return "--" + name.removesuffix("_seconds").replace("_", "-")


def listed(names: Iterable[str]) -> str:
    """Options in words."""
    return ", ".join(map(option_of, names))


def _check_ranges(values: Request | Drawing, names: Iterable[str]) -> None:
    for name in names:
        value = getattr(values, name)
        least, most = _RANGES[name]
        if value is not None and not least <= value <= most:
            message = f"{name.replace('_', '-')} is from {least:g} to {most:g}, not {value:g}"
            raise UsageError(message, context=option_of(name))


# ------------------------------------------------------------------------------------------------------------- prompts


@dataclass(frozen=True)
class Prompt:
    """A line that asks for a piece.

    Attributes:
        where: what to call it in errors.
        words: what it says; None where it is an object.
        values: what the object says, by field.
    """

    where: str
    words: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def request(self, base: Request, words_are: Literal["text", "style"]) -> Request:
        """What it asks for.

        Args:
            base: what is asked for where it says nothing.
            words_are: what plain words mean.

        Raises:
            UsageError: a number is out of range.
        """
        values: dict[str, Any] = dict(self.values) if self.words is None else {words_are: self.words}
        if not values.keys().isdisjoint(LENGTHS):
            base = replace(base, bars=None, duration_seconds=None)
        try:
            return replace(base, **values)
        except UsageError as error:
            raise UsageError(error.message, context=self.where, hint=error.hint) from error


def read_prompts(lines: Iterable[bytes], context: str) -> Iterator[Prompt]:
    """The prompts in lines of text, each an object of JSON or plain words; empty lines are passed over.

    Args:
        lines: UTF-8.
        context: what to call their source in errors.

    Raises:
        InputError: a line is no text, or an object that asks for something unknown.
    """
    for number, line in enumerate(lines, 1):
        where = f"{context}, line {number}"
        if len(line) > LINE_CHARACTERS_MAX:
            raise InputError(f"a line of more than {LINE_CHARACTERS_MAX >> 20} MiB", context=where)
        try:
            text = line.decode("utf-8-sig").strip()
        except UnicodeDecodeError:
            raise InputError("no text in UTF-8", context=where) from None
        if text.startswith("{"):
            yield Prompt(where, values=_parsed(text, where))
        elif text:
            yield Prompt(where, text)


def _parsed(text: str, where: str) -> dict[str, Any]:
    """The values of an object, by field."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"no valid JSON: {error}", context=where) from error
    known = _keys()
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise InputError(f"an unknown key: {key!r:.40}", context=where, hint=f"there are {', '.join(known)}")
        kinds = _TYPES.get(key, (str,))
        if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise InputError(f"{key} is no {kinds[-1].__name__}: {value!r:.40}", context=where)
        values[known[key]] = value
    name = values.get("name")
    if name is None:
        values.pop("name", None)
    elif not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise InputError(f"a name has 1 to {NAME_CHARACTERS_MAX} characters", context=where)
    return values


def _keys() -> dict[str, str]:
    """What may stand in an object, and the field it means."""
    return {name.removesuffix("_seconds"): name for name in (*FIELDS, "name")}
