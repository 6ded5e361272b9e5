"""The key of a note table: whose profile of pitch classes it follows best.

The profiles are those of Albrecht and Shanahan (2013, Music Perception 31(1), 59-67): shares of the pitch classes in
pieces whose keys are known. Notes count by their length, up to a second. Of the profiles in print these did best on the
odd files of piano-midi.de; `tests/symbolic/theory_table.py` prints what they give on the even ones. One key for the
whole table: ask for a stretch at a time where it changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.theory import PITCH_CLASSES
from musictool.symbolic.windows import LEAST_SECONDS

_MAJOR = (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081)
_MINOR = (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052)
_MOST_SECONDS = 1.0


class Key(NamedTuple):
    """A major or minor key.

    Attributes:
        tonic: pitch class 0..11.
        is_minor: the mode.
        correlation: of the notes with the key's profile, -1..1.
        margin: how much less the next best key correlates; 0.1 and more is clear, 0.02 and less a guess.
    """

    tonic: int
    is_minor: bool
    correlation: float
    margin: float

    @property
    def name(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {'minor' if self.is_minor else 'major'}"

    @property
    def sharps(self) -> int:
        """The key signature: sharps (positive) or flats (negative), -5..6."""
        fifths = (self.tonic + 3 * self.is_minor) * 7 % 12
        return fifths if fifths <= 6 else fifths - 12


def key_of(notes: Notes) -> Key | None:
    """Find the key; drums are not looked at.

    Args:
        notes: the table, in any order.

    Returns:
        The key, or None where nothing speaks for one: no notes, or all pitch classes alike.
    """
    notes = notes.take(~notes.is_drum)
    seconds = np.clip(notes.offset_seconds - notes.onset_seconds, LEAST_SECONDS, _MOST_SECONDS)
    shares = _standardised(np.bincount(notes.pitch % 12, seconds, 12).astype(np.float64))
    if not shares.any():
        return None
    correlations = _PROFILES @ shares
    second, first = np.argsort(correlations)[-2:]
    margin = correlations[first] - correlations[second]
    return Key(int(first % 12), bool(first >= 12), float(correlations[first]), float(margin))


def _standardised(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """A profile [12] with mean 0 and length 1, so that products are correlations; zeros for an even one."""
    away = profile - profile.mean()
    length = np.linalg.norm(away)
    return away / length if length > 1e-9 * max(profile.max(), 1e-300) else np.zeros(12)


_PROFILES = np.stack(
    [np.roll(_standardised(np.array(profile)), tonic) for profile in (_MAJOR, _MINOR) for tonic in range(12)]
)
