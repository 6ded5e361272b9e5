"""How much of a piece has been heard before: bars that come back after others have been in between.

A bar is the set of its pairs of place, sixteen to a bar, and pitch class; two bars are as alike as the share of all
their pairs that both have (Jaccard, 1912). What comes back at once, as accompaniments do, does not count: a bar is held
against those at least `APART` before it, of which the most alike counts. After the idea of Wu and Yang's structure
indicators ("The Jazz Transformer on the front line", ISMIR 2020), read off notes rather than off a fitness scape plot.
"""

from __future__ import annotations

import numpy as np

from musictool.metrics.groove import onset_bars
from musictool.metrics.pitch_content import pitched
from musictool.symbolic.notes import Score

APART = 4
_PLACES = 16
_ROWS_AT_ONCE = 512


def bar_recurrence(score: Score) -> float | None:
    """The mean over bars, from the fifth on, of how alike the most alike of earlier bars is, 0..1.

    Drums are not looked at, and bars without an onset do not count. None of a piece of fewer than five bars.
    """
    notes = pitched(score.notes)
    if not len(notes):
        return None
    place = np.rint(onset_bars(notes, score) * _PLACES).astype(np.int64)
    place -= place.min() // _PLACES * _PLACES
    pairs = np.zeros((int(place.max()) // _PLACES + 1, _PLACES * 12), np.float32)  # [bars, pairs]
    pairs[place // _PLACES, place % _PLACES * 12 + notes.pitch % 12] = 1
    counts = pairs.sum(1)
    best = []
    for first in range(APART, len(pairs), _ROWS_AT_ONCE):
        rows = np.arange(first, min(first + _ROWS_AT_ONCE, len(pairs)))
        both = pairs[rows] @ pairs[: rows[-1]].T
        either = counts[rows, None] + counts[None, : rows[-1]] - both
        alike = np.where(np.arange(rows[-1]) <= rows[:, None] - APART, both / np.maximum(either, 1), 0.0)
        best.append(alike.max(1)[counts[rows] > 0])
    found = np.concatenate(best) if best else np.zeros(0)
    return float(found.mean()) if len(found) else None
