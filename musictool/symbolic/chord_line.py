"""A solo's line on the tones of its chords: the same rhythm, loudness and contour, and no other notes.

An improviser passes through many notes that are not of the chord, so that a solo tells little of its chords: two fifths
of its time are on what bass and piano play, and a third would be by chance. Moved like this a line says what it hears,
as the arpeggios do that one practises. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musictool.symbolic.comping import Beat, Chord, parse_chord
from musictool.symbolic.notes import Notes

EARLY_BEATS = 0.15  # a note that comes so little before a beat is that beat's
REACH = 8  # in semitones; the tones of a chord lie closer
CONTOUR_COST = 4  # in semitones, of a step that stays where the solo's moved, or moves where it stayed
_FIFTHS = (6, 7, 8)


def on_chord_tones(solo: Notes, beats: Sequence[Beat]) -> Notes:
    """Move each note to a tone of the chord that it is played over: root, third, fifth or seventh.

    The nearest one is taken, if the line goes up, down or stays with it as the solo does; to turn against the solo
    costs as much as eight semitones. Notes without a chord are left as they are.

    Args:
        solo: the notes as they were played, one after the other.
        beats: the beat track, by rising time.

    Returns:
        As many notes, by rising onset.
    """
    solo = solo.sorted()
    if not len(solo) or len(beats) < 2:
        return solo
    seconds = np.array([beat.seconds for beat in beats])
    early = EARLY_BEATS * float(np.median(np.diff(seconds)))
    places = (np.searchsorted(seconds, solo.onset_seconds + early, side="right") - 1).clip(0)
    played = solo.pitch.astype(np.int64)
    moved = played.copy()
    for row, place in enumerate(places.tolist()):
        chord = parse_chord(beats[place].chord)
        if chord is not None:
            step = int(np.sign(played[row] - played[row - 1])) if row else None
            moved[row] = _nearest(int(played[row]), _tones(chord), int(moved[row - 1]), step)
    return solo.with_columns(pitch=moved.astype(np.int16))


def _tones(chord: Chord) -> frozenset[int]:
    """Pitch classes of the root, the shell and the fifth."""
    fifths = [colour for colour in chord.colours if (colour - chord.root) % 12 in _FIFTHS]
    return frozenset((chord.root, *chord.shell, *fifths))


def _nearest(pitch: int, classes: frozenset[int], before: int, step: int | None) -> int:
    """The pitch of some classes that is nearest to one, where the way from the note before goes as it should.

    Args:
        pitch: the note.
        classes: to choose from.
        before: where the note before it has gone.
        step: the solo's direction from there, -1, 0 or 1; None for the first note.
    """

    def cost(key: int) -> tuple[int, int]:
        against = 0 if step is None else abs(step - int(np.sign(key - before)))
        return abs(key - pitch) + CONTOUR_COST * against, key

    return min((key for key in range(pitch - REACH, pitch + REACH + 1) if key % 12 in classes), key=cost)
