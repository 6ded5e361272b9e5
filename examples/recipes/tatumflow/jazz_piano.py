"""Solos of the Weimar Jazz Database as piano music: the solo in the right hand, bass and comped chords below it.

What the left hand plays is `musictool.symbolic.comping`'s. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musictool.symbolic.comping import Beat, above_chords, accompaniment
from musictool.symbolic.notes import Notes


def arrange(solo: Notes, beats: Sequence[Beat], feel: str, generator: np.random.Generator) -> Notes:
    """Arrange a solo for the piano.

    Args:
        solo: the notes as they were played.
        beats: the beat track, by rising time.
        feel: `swing`, `ballad`, `latin` or `funk`.
        generator: draws rhythms, voicings and velocities.

    Returns:
        The notes of both hands, program 0.
    """
    solo = above_chords(solo)
    bass, chords = accompaniment(solo, beats, feel, generator)
    return Notes.concatenate([solo, bass, chords]).sorted()
