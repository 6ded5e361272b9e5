"""A vocabulary is a declared list of event ranges.

Each range is a type of event and the values it takes; its tokens get consecutive ids, and a token prints as
`Type_Value` (or `Type` where there is but one). The declaration decides everything, so its sha256 names the vocabulary:
two streams agree on what an id means if and only if their fingerprints are equal. After Magenta's `event_codec`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class EventRange:
    """Events of one type with values low..high, both included; without values, a single event."""

    type: str
    low: int | None = None
    high: int | None = None

    def __len__(self) -> int:
        return 1 if self.low is None or self.high is None else self.high - self.low + 1

    def names(self) -> list[str]:
        """The printed tokens of this range, in the order of their ids."""
        if self.low is None or self.high is None:
            return [self.type]
        return [f"{self.type}_{value}" for value in range(self.low, self.high + 1)]


@dataclass(frozen=True)
class Vocabulary:
    """Ranges laid end to end from id 0.

    Attributes:
        name: the scheme's name, as in a stream's head.
        ranges: the declaration.
    """

    name: str
    ranges: tuple[EventRange, ...]

    def __len__(self) -> int:
        return len(self.token_names)

    @cached_property
    def token_names(self) -> tuple[str, ...]:
        """The printed token of every id."""
        return tuple(name for r in self.ranges for name in r.names())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the declaration, in hexadecimal."""
        declared = [self.name, [[r.type, r.low, r.high] for r in self.ranges]]
        return hashlib.sha256(json.dumps(declared, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def _starts(self) -> dict[str, tuple[int, int]]:
        starts, start = {}, 0
        for r in self.ranges:
            starts[r.type] = (start, r.low or 0)
            start += len(r)
        return starts

    @cached_property
    def _id_of_name(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.token_names)}

    @cached_property
    def range_of_id(self) -> NDArray[np.uint8]:
        """uint8 [V]: the index in `ranges` of every id."""
        return np.repeat(np.arange(len(self.ranges), dtype=np.uint8), [len(r) for r in self.ranges])

    @cached_property
    def value_of_id(self) -> NDArray[np.int32]:
        """int32 [V]: the value of every id (0 for an event without values)."""
        lows = [np.arange(len(r), dtype=np.int32) + (r.low or 0) for r in self.ranges]
        return np.concatenate(lows)

    def range_index(self, type: str) -> int:
        """Where in `ranges` a type stands, for comparison with `range_of_id`."""
        return [r.type for r in self.ranges].index(type)

    def offset(self, type: str) -> int:
        """What to add to a value of this type to get its id."""
        start, low = self._starts[type]
        return start - low

    def id(self, type: str, value: int | None = None) -> int:
        """The id of one event.

        Raises:
            KeyError: the vocabulary has no such event.
        """
        return self._id_of_name[type if value is None else f"{type}_{value}"]

    def names(self, ids: Ids) -> list[str]:
        """The printed tokens of ids that are in range."""
        table = self.token_names
        return [table[index] for index in ids.tolist()]

    def ids(self, names: Iterable[str]) -> Ids:
        """The ids of printed tokens.

        Raises:
            InputError: a name is not in the vocabulary.
        """
        table = self._id_of_name
        try:
            return np.array([table[name] for name in names], np.int32)
        except (KeyError, TypeError) as error:
            raise InputError(
                f"vocabulary {self.name} has no token {str(error.args[0])[:40]!r}",
                hint=f"mtk tokenize --scheme {self.name} --show-vocab lists its tokens",
                code="unknown-token",
            ) from None

    def describe(self) -> Sequence[tuple[int, int, str, str]]:
        """One row a range: first id, last id, type, values as text."""
        rows, start = [], 0
        for r in self.ranges:
            values = "" if r.low is None else f"{r.low}..{r.high}"
            rows.append((start, start + len(r) - 1, r.type, values))
            start += len(r)
        return rows
