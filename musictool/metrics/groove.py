"""At which places of its bars a piece has onsets, and how alike those are from bar to bar and from piece to piece.

Wu and Yang, "The Jazz Transformer on the front line", ISMIR 2020: a bar's grooving pattern says for each of its 64
places whether a note begins there, and the similarity of two patterns is the share of places at which they agree. Drums
count. Bars are a score's own; where it has none they are those of 120 quarters a minute in common time: 2 s. A piece
reaches from the bar of its first onset to that of its last. Only places with onsets are held in memory.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.metre import metre_of
from musictool.symbolic.notes import Notes, Score

PLACES = 64

_SAME_QUARTER = 1e-6


def onset_places(notes: Notes, score: Score) -> NDArray[np.int64]:
    """The places at which notes begin, rising, each once: 64 times a bar's number, and the nearest place in it.

    Args:
        notes: any notes.
        score: whose bars are meant.
    """
    return np.unique(np.rint(onset_bars(notes, score) * PLACES).astype(np.int64))


def onset_bars(notes: Notes, score: Score) -> NDArray[np.float64]:
    """Where notes begin, in bars from the first one of a score, float64 [n]; arguments as of `onset_places`."""
    quarter = score.tempo_map.quarters(notes.onset_seconds)
    signatures = metre_of(score)
    start = np.array([signature.quarter for signature in signatures])
    bar_quarters = np.array([signature.bar_quarters for signature in signatures])
    bars_before = np.append(0, np.cumsum(np.ceil(np.diff(start) / bar_quarters[:-1] - _SAME_QUARTER)))
    part = np.searchsorted(start, quarter + _SAME_QUARTER, side="right") - 1
    return bars_before[part] + (quarter - start[part]) / bar_quarters[part]


def groove_consistency(score: Score) -> float | None:
    """How alike the bars of a piece are: the mean similarity of all pairs of bars; None of less than two bars."""
    places = onset_places(score.notes, score)
    if not len(places):
        return None
    bars = int(places[-1] // PLACES - places[0] // PLACES) + 1
    if bars < 2:
        return None
    onsets = np.bincount(places % PLACES, minlength=PLACES)  # how many bars have one there
    pairs_apart = (onsets * (bars - onsets)).sum()
    return 1 - float(pairs_apart) / (PLACES * bars * (bars - 1) / 2)


def groove_similarity(reference: Score, result: Score) -> float | None:
    """How alike two pieces are bar by bar: the mean similarity of the bars that begin at the same time.

    Bars in which neither has an onset do not count. Of two pieces without notes it is None, of a piece and none 0.

    Args:
        reference: whose bars are meant.
        result: the other piece.
    """
    ours, theirs = onset_places(reference.notes, reference), onset_places(result.notes, reference)
    if not len(ours) or not len(theirs):
        return 0.0 if len(ours) or len(theirs) else None
    bars = len(np.unique(np.union1d(ours, theirs) // PLACES))
    return 1 - len(np.setxor1d(ours, theirs)) / (PLACES * bars)
