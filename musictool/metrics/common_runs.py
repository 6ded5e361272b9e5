"""The longest run that a sequence has in common with a body of others: whether a piece quotes what it was learned from.

All places of the body go down the tree of the sequences' own runs at once, one symbol a step, and those that leave it
drop out; what is left after n steps are runs of n symbols that both have. Exact, and in memory for one block of the
body at a time. A run lies within one sequence.

`note_symbols` makes sequences of notes that are the same in any key: what one instrument plays, in order of onset and
pitch, each note as its distance from the one before in semitones and in time. Durations and velocities don't count, and
drums are left out. A run of n such symbols is of n + 1 notes. Knows no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Score

STEPS_PER_QUARTER = 24
STEPS_PER_SECOND = 100  # of music that knows no quarters
_GAP_MAX = 4095  # steps; longer gaps are alike
_TABLE_MAX = 1 << 22
_END = -1

Symbols = NDArray[np.int64]


@dataclass(frozen=True)
class CommonRun:
    """A longest common run.

    Attributes:
        length: in symbols.
        start: where it begins in its sequence.
        source: number of the sequence in the body that has it too; -1 if there is no common symbol.
        source_start: where it begins there.
    """

    length: int = 0
    start: int = 0
    source: int = -1
    source_start: int = 0


class RunSearch:
    """The longest run of each of some sequences that others have too.

    Args:
        sequences: int [n] of 0 and above each.
    """

    def __init__(self, sequences: Sequence[NDArray[np.integer]]) -> None:
        joined, self._owner, self._starts = _join(sequences)
        is_symbol = joined != _END
        self._alphabet, numbers = np.unique(joined[is_symbol], return_inverse=True)
        self._symbols = joined
        self._symbols[is_symbol] = numbers
        self._seen = 0
        self._length = np.zeros(len(sequences), np.int64)
        self._place = np.tile([[0], [-1], [0]], len(sequences))  # as in `CommonRun`: start, source, source_start

    @property
    def longest(self) -> list[CommonRun]:
        """Of each sequence, in what has been looked through so far; of several as long the first found."""
        return [CommonRun(*run) for run in zip(self._length.tolist(), *self._place.tolist(), strict=True)]

    def look_through(self, others: Sequence[NDArray[np.integer]]) -> None:
        """Look for runs in a block of the body; sequences of it are numbered on from those before."""
        first, self._seen = self._seen, self._seen + len(others)
        joined, owner, starts = _join(others)
        body = self._known(joined)
        mine, theirs = (np.flatnonzero(symbols != _END) for symbols in (self._symbols, body))
        my_name, their_name = np.zeros(len(mine), np.int64), np.zeros(len(theirs), np.int64)  # of the runs so far
        length = 0
        while len(mine) and len(theirs):
            my_key, mine = self._longer(my_name, self._symbols, mine, length)
            their_key, theirs = self._longer(their_name, body, theirs, length)
            keys, my_name = np.unique(my_key, return_inverse=True)
            their_name, is_mine = _look_up(keys, their_key)
            theirs, their_name = theirs[is_mine], their_name[is_mine]
            place = np.full(len(keys), -1)
            place[their_name[::-1]] = theirs[::-1]  # the first of each counts
            is_theirs = place[my_name] >= 0
            mine, my_name = mine[is_theirs], my_name[is_theirs]
            length += 1
            sequences, index = np.unique(self._owner[mine], return_index=True)
            is_longer = self._length[sequences] < length
            sequences, index = sequences[is_longer], index[is_longer]
            at = place[my_name[index]]
            source = owner[at]
            self._length[sequences] = length
            self._place[:, sequences] = mine[index] - self._starts[sequences], first + source, at - starts[source]

    def _known(self, joined: Symbols) -> Symbols:
        """Symbols of the body as numbers in our alphabet; those that are not in it end a run."""
        numbers, is_known = _look_up(self._alphabet, joined)
        return np.where(is_known, numbers, _END)

    def _longer(self, name: Symbols, symbols: Symbols, at: Symbols, length: int) -> tuple[Symbols, Symbols]:
        """Keys of runs that are longer by one symbol, and where they begin; runs that end with a sequence drop out."""
        symbol = symbols[at + length]
        goes_on = symbol != _END
        return name[goes_on] * len(self._alphabet) + symbol[goes_on], at[goes_on]


def _join(sequences: Sequence[NDArray[np.integer]]) -> tuple[Symbols, Symbols, Symbols]:
    """Sequences in a row with an end after each, the number of the sequence at each place, and where each starts."""
    lengths = np.array([len(sequence) + 1 for sequence in sequences], np.int64)
    ends = np.cumsum(lengths)
    joined = np.full(int(lengths.sum()), _END, np.int64)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    is_symbol = np.ones(len(joined), bool)
    is_symbol[ends - 1] = False
    joined[is_symbol] = np.concatenate([np.zeros(0, np.int64), *sequences])
    return joined, owner, ends - lengths


def _look_up(keys: Symbols, wanted: Symbols) -> tuple[Symbols, NDArray[np.bool_]]:
    """Where keys, which rise, have what is wanted, and whether they have it."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    if int(keys[-1]) < _TABLE_MAX and len(wanted) > _TABLE_MAX >> 4:
        table = np.full(_TABLE_MAX + 1, -1, np.int64)
        table[keys] = np.arange(len(keys))
        found = table[np.minimum(wanted, _TABLE_MAX)]  # what ends a run looks up the last place, which is empty
        return found, found >= 0
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return found, keys[found] == wanted


# --------------------------------------------------------------------------------------------------------------- notes


def note_symbols(score: Score) -> list[Symbols]:
    """What each instrument of a piece plays, the same in any key, int64 [notes - 1] each."""
    notes = score.notes
    pitched = np.flatnonzero(~notes.is_drum)
    if score.has_metre:
        steps = np.rint(score.tempo_map.quarters(notes.onset_seconds[pitched]) * STEPS_PER_QUARTER).astype(np.int64)
    else:
        steps = np.rint(notes.onset_seconds[pitched] * STEPS_PER_SECOND).astype(np.int64)
    program, pitch = notes.program[pitched].astype(np.int64), notes.pitch[pitched].astype(np.int64)
    order = np.lexsort((pitch, steps, program))
    program, pitch, steps = program[order], pitch[order], steps[order]
    symbols = (np.diff(pitch) + 127) * (_GAP_MAX + 1) + np.clip(np.diff(steps), 0, _GAP_MAX)
    borders = np.flatnonzero(np.diff(program)) + 1  # the symbol before each leads from one instrument to the next
    return [part[:-1] if number < len(borders) else part for number, part in enumerate(np.split(symbols, borders))]
