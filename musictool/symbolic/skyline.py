"""The melody of a note table, as far as pitch alone tells: its skyline, the line of highest notes.

A note belongs to the skyline if nothing higher sounds when it is struck. Hands and chords are never quite together, so
that a higher note which follows within `TOGETHER_SECONDS` takes its place. Knows nothing of voices, tracks or metre:
where the melody rests, the highest of the accompaniment stands in for it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.windows import LEAST_SECONDS

TOGETHER_SECONDS = 0.05


class Skyline(NamedTuple):
    """One voice of m notes, each of which ends before the next begins.

    Attributes:
        onset_seconds: float64 [m], rising.
        offset_seconds: float64 [m], the note's own offset or the next one's onset, whichever comes first.
        pitch: int64 [m].
        row: int64 [m], the notes' places in the table.
    """

    onset_seconds: NDArray[np.float64]
    offset_seconds: NDArray[np.float64]
    pitch: NDArray[np.int64]
    row: NDArray[np.int64]

    def take(self, index: slice) -> Skyline:
        """The notes that a slice selects."""
        return Skyline(self.onset_seconds[index], self.offset_seconds[index], self.pitch[index], self.row[index])


def skyline_of(notes: Notes) -> Skyline:
    """Find the line of highest notes; drums are not looked at.

    Args:
        notes: the table, in any order.

    Returns:
        The skyline, empty for a table without pitched notes.
    """
    rows = np.flatnonzero(~notes.is_drum)
    rows = rows[np.lexsort((-notes.pitch[rows].astype(np.int64), notes.onset_seconds[rows]))]
    onset, pitch = notes.onset_seconds[rows], notes.pitch[rows].astype(np.int64)
    offset = np.maximum(notes.offset_seconds[rows], onset + LEAST_SECONDS)
    first = np.searchsorted(onset, onset - TOGETHER_SECONDS, side="right")
    last = np.searchsorted(onset, offset, side="left")
    is_top = pitch >= _highest_over(first, last, pitch)
    top = np.flatnonzero(is_top)
    is_double = (np.diff(pitch[top], prepend=-1) == 0) & (np.diff(onset[top], prepend=-np.inf) < TOGETHER_SECONDS)
    top = top[~is_double]
    onset, offset = onset[top], offset[top]
    return Skyline(onset, np.minimum(offset, np.append(onset[1:], np.inf)), pitch[top], rows[top])


def _highest_over(first: NDArray[np.int64], last: NDArray[np.int64], value: NDArray[np.int64]) -> NDArray[np.int64]:
    """The greatest value laid over each of n places, when value i is laid over the places from first[i] to last[i].

    A span is the union of two that are as long as a power of two, and a span of that kind the union of its halves; so
    all is done in log n steps however long notes are held. All int64 [n], each span with one place at least.
    """
    count = len(value)
    level = np.frexp(last - first)[1] - 1
    highest = np.zeros(count, np.int64)
    for step in range(int(level.max(initial=0)), -1, -1):
        here = level == step
        np.maximum.at(highest, first[here], value[here])
        np.maximum.at(highest, last[here] - (1 << step), value[here])
        if step:
            half = 1 << (step - 1)
            halves = highest.copy()
            np.maximum(halves[half:], highest[: count - half], out=halves[half:])
            highest = halves
    return highest
