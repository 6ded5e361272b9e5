"""When notes sound: checked times, spans as pairs of onset and offset, and how much time some spans cover together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes

FRAMES_PER_SECOND = 100
SHORTEST_SECONDS = 0.001


def check_times(notes: Notes, label: str) -> None:
    """Refuse notes whose times make no sense.

    Args:
        notes: the table.
        label: what to call it in errors.

    Raises:
        InputError: a time is no number or lies before the start, or a note ends before it begins.
    """
    onset, offset = notes.onset_seconds, notes.offset_seconds
    if not (np.isfinite(onset).all() and np.isfinite(offset).all()):
        raise InputError(f"the {label} holds a time that is no number")
    if (onset < 0).any():
        raise InputError(f"the {label} holds a note that begins before the start")
    if (offset < onset).any():
        raise InputError(f"the {label} holds a note that ends before it begins")


def intervals(notes: Notes) -> NDArray[np.float64]:
    """Onsets and offsets, [n, 2], as mir_eval takes them: every note lasts, at least for a millisecond."""
    onset = notes.onset_seconds
    return np.column_stack([onset, np.maximum(notes.offset_seconds, onset + SHORTEST_SECONDS)])


def microseconds_of(notes: Notes) -> NDArray[np.int64]:
    """The same as `intervals`, in whole microseconds, in which sums are exact."""
    return np.rint(intervals(notes) * 1e6).astype(np.int64)


def frames_of(spans: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first frame that lies in each span and the first one after it, both [n, 2]; frame k is at k/100 s."""
    return np.ceil(np.round(spans * FRAMES_PER_SECOND, 4)).astype(np.int64)


def covered(spans: NDArray) -> float:
    """How much of a line lies in one or more of some spans, [n, 2], in the spans' own unit."""
    first, end = spans[np.argsort(spans[:, 0])].T
    reached = np.maximum.accumulate(end)
    fresh_from = np.maximum(first, np.append(first[:1], reached[:-1]))
    return np.maximum(end - fresh_from, 0).sum().item()
