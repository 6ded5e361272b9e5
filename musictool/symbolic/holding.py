"""What is kept of a piece, held to the note, and what is borrowed of another, as far as that allows.

A model that is told of harmony, melody, rhythm and dynamics comes near, and what it writes still misses some. Here what
it wrote is brought to what was told: attacks move to the nearest of the rhythm's, notes to the nearest pitch class that
sounds in the harmony, the melody is put above them, and an attack is as loud as the dynamics are for most of its time.
Where two factors are of two pieces they may be at odds. Then what is kept stands and what is borrowed gives way: a
borrowed melody takes its pitch classes of a harmony that is kept, and leaves out notes for which a kept rhythm has no
attack. Knows a piano's grid, and nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.piano_ids import FRAME_TICKS, TICKS_PER_SECOND, Piano, Ticks
from musictool.symbolic.skyline import TOGETHER_SECONDS, skyline_of
from musictool.symbolic.theory import CHORD_SECONDS, STANDS_SECONDS

REACH_TICKS = FRAME_TICKS  # an attack that is farther than this from the rhythm's stays where it is
LINE_REACH_TICKS = 12  # and so does a note of a melody
LEGATO_TICKS = 25  # by so much two notes of a melody may sound together
LEGATO_FALL = 9  # in semitones
_CHORD_TICKS = round(CHORD_SECONDS * TICKS_PER_SECOND)
_STANDS_TICKS = round(STANDS_SECONDS * TICKS_PER_SECOND)
_MOMENTS = 9  # of an attack's time, at which dynamics are looked at
_TOGETHER_TICKS = round(TOGETHER_SECONDS * TICKS_PER_SECOND)
_OCTAVE, _LOWEST_PITCH = 12, 21


def held(made: Piano, wanted: Mapping[str, Piano], borrowed: Collection[str] = ()) -> Piano:
    """Notes brought to what they are to have.

    Args:
        made: the notes.
        wanted: factors of theory, each with a part of the same time to take it of; others are left alone.
        borrowed: those of them that are of another piece, and give way to the rest.
    """
    harmony, melody, rhythm, dynamics = (
        _with_notes(wanted.get(name)) for name in ("harmony", "melody", "rhythm", "dynamics")
    )
    if not len(made):
        return made
    line = None if melody is None else _line_of(melody)
    if rhythm is not None:
        made = _in_time(made, _attacks_of(rhythm))
        if line is not None and rhythm is not melody:
            line = _one_voice(_line_in_time(line, _attacks_of(rhythm), is_whole="melody" not in borrowed))
    if harmony is not None:
        made = _on_grid(made, pitch=_in_harmony(made.pitch, made.onset, made.offset, harmony))
        if line is not None and "melody" in borrowed and "harmony" not in borrowed:
            line = _one_voice(line._replace(pitch=_in_harmony(line.pitch, line.onset, line.offset, harmony)))
    if line is not None:
        made = _under(made, line)
    return made if dynamics is None else _as_loud(made, dynamics)


def _with_notes(piano: Piano | None) -> Piano | None:
    return piano if piano is not None and len(piano) else None


def _on_grid(piano: Piano, **columns: NDArray) -> Piano:
    """A part with other onsets, offsets or pitches; notes that come to be the same are one."""
    notes = {name: columns.get(name, getattr(piano, name)) for name in ("onset", "offset", "pitch", "velocity")}
    return Piano.on_grid(**notes, pedal_onset=piano.pedal_onset, pedal_offset=piano.pedal_offset)


# ------------------------------------------------------------------------------------------------------------ attacks


class _Attacks(NamedTuple):
    """Notes that begin together: when each attack begins, and its first note, [a]; each note's attack, [n]."""

    tick: Ticks
    first: NDArray[np.int64]
    number: NDArray[np.int64]

    @property
    def size(self) -> NDArray[np.int64]:
        """How many notes each attack has, [a]."""
        return np.diff(self.first, append=len(self.number))

    def nearest(self, tick: Ticks) -> NDArray[np.int64]:
        """The attack that is nearest to each of some times."""
        after = np.searchsorted(self.tick, tick).clip(1, max(len(self.tick) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(self.tick) - 1)
        return np.where(tick - self.tick[before] <= self.tick[after] - tick, before, after)


def _attacks_of(piano: Piano) -> _Attacks:
    is_first = np.diff(piano.onset, prepend=piano.onset[:1] - _CHORD_TICKS) >= _CHORD_TICKS
    return _Attacks(piano.onset[is_first], np.flatnonzero(is_first), np.cumsum(is_first) - 1)


def _in_time(made: Piano, rhythm: _Attacks) -> Piano:
    """Each attack at the rhythm's nearest, where that is within reach."""
    attacks = _attacks_of(made)
    way = rhythm.tick[rhythm.nearest(attacks.tick)] - attacks.tick
    way = np.where(abs(way) <= REACH_TICKS, way, 0)[attacks.number]
    return _on_grid(made, onset=made.onset + way, offset=made.offset + way)


def _as_loud(made: Piano, dynamics: Piano) -> Piano:
    """Each attack as loud as what stands in the dynamics during half of its time, loudest note to softest."""
    attacks, loud = _attacks_of(made), _attacks_of(dynamics)
    length = np.minimum(np.diff(attacks.tick, append=attacks.tick[-1] + _STANDS_TICKS), _STANDS_TICKS)
    when = attacks.tick[:, None] + (np.arange(_MOMENTS) + 0.5) / _MOMENTS * length[:, None]
    standing = np.maximum(np.searchsorted(loud.tick, when, side="right") - 1, 0)
    by_loudness = np.argsort(np.maximum.reduceat(dynamics.velocity, loud.first)[standing], axis=1, kind="stable")
    middle = np.take_along_axis(standing, by_loudness[:, _MOMENTS // 2, None], axis=1)[:, 0]
    share = _ranks(made.velocity, attacks.number, attacks.first) / np.maximum(attacks.size - 1, 1)[attacks.number]
    return replace(made, velocity=_quantiles(dynamics.velocity, loud.number, middle, attacks.number, share))


def _ranks(velocity: NDArray[np.uint8], number: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each note within its attack, [n], 0 for the loudest."""
    ranks = np.empty(len(velocity), np.int64)
    ranks[np.lexsort((-velocity.astype(np.int64), number))] = np.arange(len(velocity)) - first[number]
    return ranks


def _quantiles(
    velocity: NDArray[np.uint8],
    group: NDArray[np.int64],
    group_of_attack: NDArray[np.int64],
    number: NDArray[np.int64],
    share: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """For each note, [n] of an attack's number, the velocity that its share of its attack's group is louder than.

    Args:
        velocity, group: [m], of notes to take it of; groups rise.
        group_of_attack: [a].
        number, share: [n].
    """
    order = np.lexsort((-velocity.astype(np.int64), group))
    first = np.searchsorted(group, group_of_attack)
    size = np.searchsorted(group, group_of_attack, side="right") - first
    place = first[number] + np.rint(share * np.maximum(size - 1, 0)[number]).astype(np.int64)
    return velocity[order][np.minimum(place, len(velocity) - 1)]


# ------------------------------------------------------------------------------------------------- harmony and melody


def _in_harmony(pitch: NDArray, onset: Ticks, offset: Ticks, harmony: Piano) -> NDArray[np.int64]:
    """Pitches, [n], each at the nearest pitch class that sounds in the harmony as the note begins, if any does."""
    sounds = np.empty((len(pitch), _OCTAVE), bool)
    begin, end = onset - _CHORD_TICKS, np.minimum(offset, onset + FRAME_TICKS)
    for pitch_class in range(_OCTAVE):
        rows = harmony.pitch % _OCTAVE == pitch_class
        begun = np.searchsorted(harmony.onset[rows], end)
        sounds[:, pitch_class] = begun > np.searchsorted(np.sort(harmony.offset[rows]), begin, side="right")
    steps = np.array([0, -1, 1, -2, 2, -3, 3, -4, 4, -5, 5, -6])
    pitch = pitch.astype(np.int64)
    is_good = np.take_along_axis(sounds, (pitch[:, None] + steps) % _OCTAVE, axis=1)
    return pitch + np.where(is_good.any(1), steps[is_good.argmax(1)], 0)


class _Line(NamedTuple):
    """A melody: notes one after the other, [m], and of which rows of their part they are."""

    onset: Ticks
    offset: Ticks
    pitch: NDArray[np.int64]
    velocity: NDArray[np.uint8]
    row: NDArray[np.int64]

    @property
    def ends(self) -> Ticks:
        """When each note ends or the next begins."""
        return np.minimum(self.offset, np.append(self.onset[1:], self.offset[-1:]))

    def take(self, index: NDArray) -> _Line:
        """The notes that a mask or rows select."""
        return _Line(self.onset[index], self.offset[index], self.pitch[index], self.velocity[index], self.row[index])


def _line_of(piano: Piano) -> _Line:
    """The highest notes, and those that follow one legato, not far below it, as it is about to end."""
    alone = skyline_of(piano.notes()).row
    length = piano.offset - piano.onset
    row = skyline_of(replace(piano, offset=piano.offset - np.minimum(LEGATO_TICKS, length // 2)).notes()).row
    fall = -np.diff(piano.pitch[row].astype(np.int64), prepend=0)
    row = row[np.isin(row, alone) | (fall <= LEGATO_FALL)]
    return _Line(piano.onset[row], piano.offset[row], piano.pitch[row].astype(np.int64), piano.velocity[row], row)


def _one_voice(line: _Line) -> _Line:
    """A line whose notes end where the next begin; of those that begin together, the last."""
    line = line._replace(offset=line.ends)
    return line.take(line.offset > line.onset)


def _line_in_time(line: _Line, rhythm: _Attacks, *, is_whole: bool) -> _Line:
    """A line in another rhythm: each note at the nearest attack, where that is within reach and no note before has it.

    One for which there is none stays where it is if all of the line is wanted, or is left out.
    """
    attack = rhythm.nearest(line.onset)
    tick = rhythm.tick[attack]
    is_placed = (np.diff(attack, prepend=-1) > 0) & (abs(tick - line.onset) <= LINE_REACH_TICKS)
    onset = np.where(is_placed, tick, line.onset)
    if is_whole:  # none before those that it follows
        place = np.arange(len(onset))
        onset = np.maximum.accumulate(onset - place) + place
    return line._replace(onset=onset, offset=onset + line.offset - line.onset).take(is_placed | is_whole)


def _under(made: Piano, line: _Line) -> Piano:
    """The line in place of the notes' own, and the rest of them below it, octaves lower where they were not."""
    if not len(line.onset):
        return made
    is_rest = np.ones(len(made), bool)
    is_rest[_line_of(made).row] = False
    onset, offset, pitch = made.onset[is_rest], made.offset[is_rest], made.pitch[is_rest].astype(np.int64)
    above = pitch - _lowest_over(line, onset, offset) + 1
    pitch = pitch - _OCTAVE * np.maximum(-(-above // _OCTAVE), 0)
    is_on_keys = pitch >= _LOWEST_PITCH
    return Piano.on_grid(
        np.concatenate([onset[is_on_keys], line.onset]),
        np.concatenate([offset[is_on_keys], line.offset]),
        np.concatenate([pitch[is_on_keys], line.pitch]),
        np.concatenate([made.velocity[is_rest][is_on_keys], line.velocity]),
        made.pedal_onset,
        made.pedal_offset,
    )


def _lowest_over(line: _Line, onset: Ticks, offset: Ticks) -> NDArray[np.int64]:
    """The lowest pitch that a line has while each of some notes sounds; where it rests, that of its note before."""
    first = np.searchsorted(line.ends, onset + _TOGETHER_TICKS, side="right")
    last = np.searchsorted(line.onset, offset)
    first = np.where(first < last, first, np.maximum(last - 1, 0))
    pitch = np.append(line.pitch, line.pitch[-1])
    return np.minimum.reduceat(pitch, np.stack([first, np.maximum(last, 1)], 1).ravel())[::2] if len(first) else first
