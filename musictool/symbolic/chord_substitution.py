"""Dominants replaced on their way to the tonic, as a variation of a score: what accompanies changes, the melody stays.

A cadence is a dominant that falls a fifth to the next chord (`musictool.symbolic.chords`): a seventh chord anywhere, a
plain triad where the next chord is the key's tonic. Two things may become of it:

- tritone: the chord a tritone away, which shares the dominant's third and seventh, and leads to the tonic by semitone.
  G7 C becomes Db7 C.
- ii: the supertonic in the first half, to prepare the dominant. G7 C becomes Dm7 G7 C, and G7 Cm becomes Dm7b5 G7 Cm.

Notes change that begin in the chord and are not in the skyline; one that lasts longer than the new chord is struck
again at its end, as it was. A cadence is left alone where the melody, or a note that is held into it, would clash with
the new chord.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.chords import Chord, chords_of
from musictool.symbolic.key import key_of
from musictool.symbolic.notes import Notes, Score, TempoMap
from musictool.symbolic.skyline import TOGETHER_SECONDS, skyline_of

_ROOT, _NINTH, _THIRD, _FIFTH, _THIRTEENTH, _SEVENTH = 0, 2, 4, 7, 9, 10  # of the dominant, in semitones
_TRITONE = 6
_TONICS = ("maj", "min", "7", "maj7", "min7")  # qualities
_LOWEST_PITCH = 21  # of a piano: nothing is moved below,
_LOWEST_BASS = 36  # nor below this if it can go up
_LEAST_QUARTERS = 1.9  # of a dominant that has room for a ii

_Columns = NDArray[np.int64]


class Cadence(NamedTuple):
    """A dominant and where it leads.

    Attributes:
        start_seconds, end_seconds: of the dominant.
        root: its pitch class.
        leads_to_minor: whether the next chord is a minor one.
        is_prepared: whether its ii comes before it.
    """

    start_seconds: float
    end_seconds: float
    root: int
    leads_to_minor: bool
    is_prepared: bool


class _Change(NamedTuple):
    """New pitches for some rows of a table, int64 [r] both, until a time from which the old ones sound again."""

    rows: _Columns
    pitch: _Columns
    until_seconds: float


def cadences_of(notes: Notes) -> list[Cadence]:
    """Find the dominants that fall to their tonics, in order; drums are not looked at."""
    key = key_of(notes)
    chords = chords_of(notes)
    cadences = []
    for index, (chord, following) in enumerate(pairwise(chords)):
        if chord.root is None or following.root != (chord.root + 5) % 12 or following.quality not in _TONICS:
            continue
        if chord.quality == "7" or (chord.quality == "maj" and key is not None and key.tonic == following.root):
            before = chords[index - 1] if index else None
            leads_to_minor = following.quality.startswith("min")
            is_prepared = _is_supertonic(before, chord.root)
            cadences.append(Cadence(chord.start_seconds, chord.end_seconds, chord.root, leads_to_minor, is_prepared))
    return cadences


def substituted(score: Score, share: float, generator: np.random.Generator) -> tuple[Score, int]:
    """Replace chords of some cadences.

    Args:
        score: the piece.
        share: how likely each cadence is to be changed, where it can be.
        generator: decides which are, and how.

    Returns:
        The piece, with notes in the order of `Notes.sorted` if any changed, and how many cadences did.
    """
    notes = score.notes
    changes = list(_drawn_changes(notes, score.tempo_map, share, generator))
    if not changes:
        return score, 0
    return replace(score, notes=_with_changes(notes, changes).sorted()), len(changes)


def _is_supertonic(chord: Chord | None, dominant: int) -> bool:
    return chord is not None and chord.root == (dominant + _FIFTH) % 12 and chord.quality in ("min", "min7", "hdim7")


def _drawn_changes(
    notes: Notes, tempo_map: TempoMap, share: float, generator: np.random.Generator
) -> Iterator[_Change]:
    is_melody = np.zeros(len(notes), np.bool_)
    is_melody[skyline_of(notes).row] = True
    for cadence in cadences_of(notes):
        is_drawn, takes_tritone = generator.random() < share, generator.random() < 0.5
        if not is_drawn:
            continue
        voices = _Voices(notes, is_melody, cadence)
        half = _half(cadence, tempo_map)
        ways = [_tritone(voices, cadence), _supertonic(voices, cadence, half)]
        change = next((way for way in (ways if takes_tritone else ways[::-1]) if way is not None), None)
        if change is not None:
            yield change


class _Voices:
    """Who sounds while a dominant does.

    Attributes:
        rows: int64 [r], of the accompaniment's notes that begin in it.
        pitch: int64 [r], their pitches.
        degree: int64 [r], their semitones above the dominant's root.
        onset_seconds: float64 [r].
        melody: the table of melody notes that sound in it.
        held: degrees of the accompaniment's notes that are held into it.
    """

    def __init__(self, notes: Notes, is_melody: NDArray[np.bool_], cadence: Cadence) -> None:
        begins = notes.onset_seconds >= cadence.start_seconds
        sounds = (notes.onset_seconds < cadence.end_seconds) & ~notes.is_drum
        lasts = notes.offset_seconds > cadence.start_seconds + TOGETHER_SECONDS
        self.rows = np.flatnonzero(begins & sounds & ~is_melody)
        self.pitch = notes.pitch[self.rows].astype(np.int64)
        self.degree = (self.pitch - cadence.root) % 12
        self.onset_seconds = notes.onset_seconds[self.rows]
        self.melody = notes.take(is_melody & sounds & lasts)
        self.held = set(((notes.pitch[~begins & sounds & lasts & ~is_melody] - cadence.root) % 12).tolist())


def _half(cadence: Cadence, tempo_map: TempoMap) -> float | None:
    """The beat in the middle of a dominant, in seconds; None for one that is too short."""
    start, end = tempo_map.quarters([cadence.start_seconds, cadence.end_seconds])
    if end - start < _LEAST_QUARTERS:
        return None
    return float(tempo_map.seconds(start + np.rint((end - start) / 2)))


def _tritone(voices: _Voices, cadence: Cadence) -> _Change | None:
    """All but third and seventh of a dominant moved by a tritone; None where something would clash."""
    melody = _degrees(voices.melody, cadence)
    if _ROOT not in voices.degree or not voices.held <= {_THIRD, _SEVENTH} or melody & {5, _FIFTH, 11}:
        return None
    is_moved = np.isin(voices.degree, (_ROOT, _NINTH, _FIFTH, _THIRTEENTH))
    rows, pitch, degree = voices.rows[is_moved], voices.pitch[is_moved], voices.degree[is_moved]
    is_low = pitch.min() - _TRITONE < _LOWEST_BASS
    step = _TRITONE if is_low and pitch.max() + _TRITONE < voices.melody.pitch.min(initial=128) else -_TRITONE
    has_seventh = _SEVENTH in melody | voices.held | set(voices.degree.tolist())
    moved = pitch + np.where((degree == _FIFTH) & (not has_seventh), _SEVENTH - _FIFTH, step)
    return _Change(rows, moved, cadence.end_seconds) if moved.min() >= _LOWEST_PITCH else None


def _supertonic(voices: _Voices, cadence: Cadence, half_seconds: float | None) -> _Change | None:
    """The chord on the second degree, up to a time; None where it is there already, or something would clash."""
    if half_seconds is None or cadence.is_prepared:
        return None
    begins = voices.onset_seconds < half_seconds - TOGETHER_SECONDS
    rows, pitch, degree = voices.rows[begins], voices.pitch[begins], voices.degree[begins]
    melody = _degrees(voices.melody.take(voices.melody.onset_seconds < half_seconds - TOGETHER_SECONDS), cadence)
    if _ROOT not in degree or (melody | voices.held) & {_THIRD}:
        return None
    fifth = _NINTH - cadence.leads_to_minor  # of the ii
    has_third = _SEVENTH in melody | voices.held | set(degree.tolist())
    steps = np.zeros(12, np.int64)
    steps[[_THIRD, _NINTH]] = 1, fifth - _NINTH
    steps[_ROOT] = fifth if has_third else _SEVENTH - 12
    moved = pitch + steps[degree]
    bass = int(pitch.min())
    root = bass - (bass - cadence.root - _FIFTH) % 12
    is_bass = (pitch == bass) & np.isin(degree, (_ROOT, _THIRD))
    moved[is_bass] = root if root >= _LOWEST_PITCH else root + 12
    is_moved = moved != pitch
    return _Change(rows[is_moved], moved[is_moved], half_seconds)


def _degrees(notes: Notes, cadence: Cadence) -> set[int]:
    return set(((notes.pitch - cadence.root) % 12).tolist())


def _with_changes(notes: Notes, changes: list[_Change]) -> Notes:
    """A table with some notes changed; those that last beyond the change sound again as they were."""
    pitch, offset = notes.pitch.copy(), notes.offset_seconds.copy()
    rest = []
    for rows, new_pitch, until in changes:
        pitch[rows] = new_pitch
        lasting = rows[offset[rows] > until + TOGETHER_SECONDS]
        rest.append(notes.take(lasting).with_columns(onset_seconds=np.full(len(lasting), until)))
        offset[lasting] = until
    return Notes.concatenate([notes.with_columns(pitch=pitch, offset_seconds=offset), *rest])
