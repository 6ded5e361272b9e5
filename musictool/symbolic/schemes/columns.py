"""What schemes share: note tables as integer columns on a grid, and sequences of state read back from ids.

A `source` is who plays: the program 0..127, or 128 + the kit of drums. A `voice` tells apart notes of one source and
pitch that sound at once. All vectorised: an array in, an array out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes, Pedals, Score, order_by

Column = NDArray[np.int64]

DRUM_SOURCE = 128


def sources_of(notes: Notes) -> Column:
    """int64 [n]: the source of every note."""
    return notes.program.astype(np.int64) + np.where(notes.is_drum, DRUM_SOURCE, 0)


@dataclass(frozen=True, eq=False, slots=True)
class GridNotes:
    """Notes on a grid of whole steps, int64 [n] each; an offset is at least one step after its onset."""

    on: Column
    off: Column
    source: Column
    pitch: Column
    velocity: Column
    voice: Column

    @classmethod
    def of(cls, notes: Notes, steps_per_second: int) -> GridNotes:
        """Round a note table to the nearest steps, half to even; every voice is 0."""
        on = np.rint(notes.onset_seconds * steps_per_second).astype(np.int64)
        off = np.rint(notes.offset_seconds * steps_per_second).astype(np.int64)
        pitch, velocity = notes.pitch.astype(np.int64), notes.velocity.astype(np.int64)
        return cls(on, np.maximum(off, on + 1), sources_of(notes), pitch, velocity, np.zeros(len(on), np.int64))

    def __len__(self) -> int:
        return len(self.on)

    def take(self, index: NDArray) -> GridNotes:
        """The rows that an index array or a mask selects."""
        return GridNotes(
            self.on[index],
            self.off[index],
            self.source[index],
            self.pitch[index],
            self.velocity[index],
            self.voice[index],
        )

    @classmethod
    def concatenate(cls, tables: Iterable[GridNotes]) -> GridNotes:
        """The rows of several tables, in the order given."""
        tables = tuple(tables)
        return cls(*(np.concatenate([getattr(table, f.name) for table in tables]) for f in fields(cls)))

    def key(self) -> Column:
        """int64 [n]: source and pitch as one number below 2**15."""
        return self.source << 7 | self.pitch

    def notes(self, steps_per_second: float) -> Notes:
        """The table in seconds, by onset, source, pitch and voice; `track` holds the voice."""
        ordered = self.take(np.argsort(self.on << 19 | self.key() << 4 | self.voice, kind="stable"))
        return grid_table(ordered, ordered.on / steps_per_second, ordered.off / steps_per_second)


def grid_table(grid: GridNotes, onset_seconds: NDArray[np.float64], offset_seconds: NDArray[np.float64]) -> Notes:
    """A note table from grid notes and their times; `track` holds the voice."""
    return Notes(
        onset_seconds,
        offset_seconds,
        grid.pitch.astype(np.int16),
        grid.velocity.astype(np.int16),
        (grid.source & 127).astype(np.int16),
        grid.source >= DRUM_SOURCE,
        grid.voice.astype(np.int16),
    )


def stable_order(key: Column) -> Column:
    """The order that sorts keys of 0..2**31-1, equal ones as they stand; numbers sort faster than indices."""
    numbered = key << 32 | np.arange(len(key))
    numbered.sort()
    return numbered & 0xFFFFFFFF


def allocate_voices(grid: GridNotes, voices: int) -> GridNotes:
    """Order notes by source, pitch and onset, and give each the lowest voice that is free when it begins.

    A note that finds all `voices` (two or more) taken gets the number `voices` and takes none.
    """
    if not len(grid):
        return grid
    grid = grid.take(order_by(grid.key() << 27 | grid.on, grid.off << 7 | grid.velocity))
    lift = grid.key() * (int(grid.off.max()) + 1)  # puts every key above the ends of the key before it
    on, off = lift + grid.on, lift + grid.off
    is_free = np.ones(len(grid), np.bool_)  # whether every earlier note of the key has ended
    np.greater_equal(on[1:], np.maximum.accumulate(off)[:-1], out=is_free[1:])
    voice = np.where(is_free, 0, 1)
    late = np.flatnonzero(~is_free)
    crowded = late[1:][np.diff(late) == 1]  # behind a note that is late itself: few, a plain loop will do
    ends: list[int] = []  # of the last note of every voice
    before = -1
    columns = (crowded, off[crowded - 2], off[crowded - 1], on[crowded], off[crowded])
    for index, first, second, begin, end in zip(*(column.tolist() for column in columns), strict=True):
        if index - 1 != before:
            ends = [first, second]
        free = 0
        while free < len(ends) and ends[free] > begin:
            free += 1
        if free < voices:
            ends[free : free + 1] = [end]
        voice[index], before = free, index
    return replace(grid, voice=voice)


def changes(values: Column) -> NDArray[np.bool_]:
    """Where a sequence differs from the element before; True at the first."""
    changed = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changed[1:])
    return changed


def latest(positions: Column, values: Column, at: Column, initial: int) -> Column:
    """The value of the last of `positions` (rising) before each of `at`, or `initial` where there is none."""
    if not len(positions):
        return np.full(len(at), initial, np.int64)
    return np.append(np.int64(initial), values)[np.searchsorted(positions, at)]


def grid_pedals(score: Score, steps_per_second: int) -> tuple[Column, Column, Column]:
    """Pedal presses as (on, off, source) in steps, those of one source that meet joined into one."""
    pedals = score.pedals
    if not len(pedals):
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    on = np.rint(pedals.onset_seconds * steps_per_second).astype(np.int64)
    off = np.maximum(np.rint(pedals.offset_seconds * steps_per_second).astype(np.int64), on + 1)
    of_track = np.array([track.program + DRUM_SOURCE * track.is_drum for track in score.tracks], np.int64)
    source = of_track[pedals.track]
    order = np.lexsort((off, on, source))
    on, off, source = on[order], off[order], source[order]
    lift = source * (int(off.max()) + 1)
    ended = np.maximum.accumulate(lift + off)
    first = np.append(True, (lift + on)[1:] > ended[:-1])
    last = np.append(first[1:], True)
    return on[first], (ended - lift)[last], source[first]


def pedal_table(on: Column, off: Column, source: Column, steps_per_second: int) -> Pedals:
    """Pedal presses in seconds; `track` holds the source."""
    order = np.lexsort((off, source, on))
    return Pedals.of(on[order] / steps_per_second, off[order] / steps_per_second, source[order])
