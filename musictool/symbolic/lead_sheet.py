"""A piano's chords as a lead sheet has them: what is left of harmony without passing notes, voicing and rhythm."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from musictool.symbolic.chords import block_chords, chords_of, simplified
from musictool.symbolic.piano_ids import FRAME_SECONDS, Piano


def lead_sheet(piano: Piano, qualities: Collection[str] = ()) -> Piano:
    """The chords of a part, as a part: struck anew in each frame, since windows have what begins in them.

    Args:
        piano: the part.
        qualities: of the chords that the sheet knows, all where nothing is said; others are simplified to these.
    """
    chords = []
    for chord in (simplified(each, qualities) for each in chords_of(piano.notes())):
        first, last = np.ceil(chord.start_seconds / FRAME_SECONDS), np.ceil(chord.end_seconds / FRAME_SECONDS)
        inner = np.arange(first, last) * FRAME_SECONDS
        edges = [chord.start_seconds, *inner[inner > chord.start_seconds].tolist(), chord.end_seconds]
        chords += [chord._replace(start_seconds=start, end_seconds=end) for start, end in pairwise(edges)]
    return Piano.of(block_chords(chords))
