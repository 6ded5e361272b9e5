"""What music theory says of a stretch of notes, as four vectors of numbers: harmony, melody, rhythm and dynamics.

A window is looked at as if the notes were clipped to it:

- harmony: each note counts for as long as it sounds inside the window; neither velocities nor order count.
- melody: the skyline (`musictool.symbolic.skyline`), that is its notes that begin in the window and the one that is
  held into it, in order; neither when they begin nor how long they last counts.
- rhythm: when notes begin in the window. What begins within `CHORD_SECONDS` is one attack, at the first one's time.
- dynamics: how loud it is over time: at each of many points of the window, as loud as the attack that was the last to
  begin, for up to `STANDS_SECONDS`. So it is told whatever the rhythm, and by attacks shortly before the window, too.

Histograms are roots of proportions, so that each has length 1 and distances between two are Hellinger distances; what
lies on a scale is shared by the two nearest bins. All values lie in -1..1. `DIMENSIONS` names every one. A window
without notes is zeros, and so is what a window has too few notes to tell. Drums are not looked at. All windows are
worked out in one pass; knows nothing of metre, files or models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.skyline import skyline_of
from musictool.symbolic.windows import (
    LEAST_SECONDS,
    Members,
    Windows,
    entropy_of,
    histogram,
    overlaps,
    shares_of,
    soft_histogram,
)

FACTORS = ("harmony", "melody", "rhythm", "dynamics")
WIDTHS = {"harmony": 128, "melody": 128, "rhythm": 64, "dynamics": 64}
CHORD_SECONDS = 0.03
STANDS_SECONDS = 2.0

PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
CHORDS = {
    "maj": (0, 4, 7),
    "min": (0, 3, 7),
    "dim": (0, 3, 6),
    "aug": (0, 4, 8),
    "7": (0, 4, 7, 10),
    "maj7": (0, 4, 7, 11),
    "min7": (0, 3, 7, 10),
    "hdim7": (0, 3, 6, 10),
    "dim7": (0, 3, 6, 9),
}

_INTERVALS = 13  # steps of so many semitones or more are one bin, up and down
_REGISTERS = 22  # of four semitones, over a piano's compass
_LOWEST_KEY, _HIGHEST_KEY = 21, 108
_MELODY_POINTS = 16
_SHORTEST_SECONDS, _GAP_OCTAVES, _GAPS = 1 / 32, 6, 20  # gaps between attacks, from 1/32 s to 2 s
_RATIOS, _RATIO_OCTAVES = 7, 1.5  # of a gap to the one before, from a third to three times
_PLACES = 20
_BEAT_SECONDS = 0.4 * 2 ** (np.arange(8) / 7)  # a beat's length is one of these
_LATE_BEATS = 0.1
_LOUDNESSES = 32
_DYNAMICS_POINTS = 16  # of a second, or of a window that is shorter


def _numbered(name: str, values: Sequence[object]) -> tuple[str, ...]:
    return tuple(f"{name} {value}" for value in values)


DIMENSIONS: dict[str, tuple[str, ...]] = {
    "harmony": (
        *_numbered("pitch class", PITCH_CLASSES),  # root of the share of all sounding time
        *(f"chord {root}:{name}" for name in CHORDS for root in PITCH_CLASSES),  # cosine with the chord's template
        *_numbered("tonal centroid", ("fifths x", "fifths y", "minor x", "minor y", "major x", "major y")),
        "entropy",  # of the pitch classes, 1 if all sound alike
        "pitch classes",  # how many of the 12 sound
    ),
    "melody": (
        *_numbered("pitch class", PITCH_CLASSES),
        *_numbered("interval", range(-_INTERVALS, _INTERVALS + 1)),  # semitones from note to note, clipped
        *_numbered("register from", range(_LOWEST_KEY, _HIGHEST_KEY + 1, 4)),
        *_numbered("contour", range(_MELODY_POINTS)),  # pitch above the mean, octaves, at even steps through the notes
        *_numbered("first pitch class", PITCH_CLASSES),
        *_numbered("last pitch class", PITCH_CLASSES),
        *_numbered("turn", ("down down", "down same", "down up", "same down", "same same", "same up")),
        *_numbered("turn", ("up down", "up same", "up up")),  # of two steps after one another
        "present",  # 1 if there is a melody
        "mean pitch",  # this and the next four: 0 is MIDI note 64, 1 is 128
        "lowest pitch",
        "highest pitch",
        "first pitch",
        "last pitch",
        "range",  # highest - lowest, 1 is three octaves
        "spread",  # standard deviation of the pitches, 1 is an octave
        "direction",  # last - first pitch, 1 is an octave
        "up",  # this and the next two: share of the steps
        "down",
        "repeated",
        "steps",  # this and the next two: share of 1-2, 3-4, and 5 or more semitones
        "skips",
        "leaps",
        "mean interval",  # its size, 1 is an octave
        "largest interval",
        "variety",  # how many of the 12 pitch classes
    ),
    "rhythm": (
        *_numbered("gap", [f"{_SHORTEST_SECONDS * 2 ** (_GAP_OCTAVES * i / (_GAPS - 1)):.3f}" for i in range(_GAPS)]),
        *_numbered("place", range(_PLACES)),  # when attacks fall, over the window
        *_numbered("ratio", ("1/3", "1/2", "2/3", "1", "3/2", "2", "3")),  # of a gap to the one before
        "present",  # 1 if anything begins
        "density",  # attacks a second, on a log scale: 1 is 31
        "texture",  # notes an attack, on a log scale: 1 is 8
        "mean gap",  # this and the next two: on a log scale, 0 is 1/32 s and 1 is 2 s
        "shortest gap",
        "longest gap",
        "gap spread",  # standard deviation of the gaps on a log scale, 1 is two octaves
        "unevenness",  # mean of |a - b| / (a + b) of gaps after one another (half the nPVI), 0 is even
        "gap entropy",
        "place entropy",
        "first place",  # this and the next two: of the attacks, -1 is the window's start and 1 its end
        "last place",
        "mean place",
        "place spread",  # standard deviation, 1 is half a window
        "regularity",  # how well the attacks keep to the best beat of 0.4 to 0.8 s
        "pulse",  # that beat's length on a log scale, 0 is 0.4 s and 1 is 0.8 s
        "syncopation",  # share of attacks off the beat that are held over it
    ),
    "dynamics": (
        *_numbered("velocity", range(2, 127, 4)),  # of all notes of the attacks that stand
        *_numbered("contour", range(_DYNAMICS_POINTS)),  # above the mean, 1 is 32, at even steps through the points
        "present",  # 1 if an attack stands
        "mean",  # this and the next seven: of the loudest note, velocity / 127
        "lowest",
        "lower quartile",
        "median",
        "upper quartile",
        "highest",
        "first",
        "last",
        "spread",  # standard deviation, 1 is 32
        "range",  # highest - lowest, 1 is 127
        "direction",  # last - first, 1 is 64
        "slope",  # correlation of velocity with time: 1 for an even crescendo
        "accent",  # highest - mean, 1 is 64
        "mean step",  # size of the change, where there is one, 1 is 32
        "entropy",
    ),
}


def pitch_name(pitch: int) -> str:
    """A MIDI note number in scientific notation: 60 is C4."""
    return f"{PITCH_CLASSES[pitch % 12]}{pitch // 12 - 1}"


class Theory(NamedTuple):
    """The four factors of each of any number of windows; all float32, of the widths in `WIDTHS`."""

    harmony: NDArray[np.float32]
    melody: NDArray[np.float32]
    rhythm: NDArray[np.float32]
    dynamics: NDArray[np.float32]


def theory_of(notes: Notes, start_seconds: float | None = None, end_seconds: float | None = None) -> Theory:
    """Describe one window of a table of notes.

    Args:
        notes: the table, in any order.
        start_seconds: the window's start; else the first onset.
        end_seconds: the window's end; else the last offset.

    Returns:
        The factors, each [width].
    """
    pitched = notes.take(~notes.is_drum)
    start = start_seconds if start_seconds is not None else _start_of(pitched)
    end = end_seconds if end_seconds is not None else pitched.end_seconds
    windows = Windows(np.array([start]), np.array([max(end, start + LEAST_SECONDS)]))
    return Theory(*(factor[0] for factor in theory_windows(notes, windows)))


def _start_of(notes: Notes) -> float:
    return float(notes.onset_seconds.min()) if len(notes) else 0.0


def theory_frames(notes: Notes, count: int, hop_seconds: float = 0.25, width_seconds: float = 1.0) -> Theory:
    """Describe the surroundings of each of many frames, one after another.

    Args:
        notes: the table, in any order.
        count: how many frames, F.
        hop_seconds: from frame to frame.
        width_seconds: of the window whose middle is the frame's: frame k's lies at (k + 0.5) * hop_seconds.

    Returns:
        The factors, each [F, width]: frame k's are what `theory_of` says of its window.
    """
    start = (np.arange(count, dtype=np.float64) + 0.5) * hop_seconds - width_seconds / 2
    return theory_windows(notes, Windows(start, start + width_seconds))


def theory_windows(notes: Notes, windows: Windows) -> Theory:
    """Describe F windows; see `theory_of`."""
    notes = notes.take(~notes.is_drum)
    notes = notes.take(np.argsort(notes.onset_seconds, kind="stable"))
    attacks = _attacks_of(notes)
    return Theory(
        _harmony(notes, windows), _melody(notes, windows), _rhythm(attacks, windows), _dynamics(attacks, windows)
    )


def _joined(*parts: NDArray) -> NDArray[np.float32]:
    """Columns [F] and blocks [F, width] side by side."""
    blocks = [part if part.ndim == 2 else part[:, None] for part in parts]
    return np.concatenate(blocks, axis=1, dtype=np.float32, casting="unsafe")


def _chord_templates() -> NDArray[np.float64]:
    """Unit vectors [108, 12], by chord and then by root."""
    rows = []
    for members in CHORDS.values():
        template = np.zeros(12)
        template[list(members)] = len(members) ** -0.5
        rows += [np.roll(template, root) for root in range(12)]
    return np.stack(rows)


def _centroid_axes() -> NDArray[np.float64]:
    """The circles of fifths, minor and major thirds, [6, 12] (Harte, Sandler and Gasser 2006)."""
    angles = np.arange(12) * np.pi / 6 * np.array([[7], [9], [8]])
    radii = np.array([[1.0], [1.0], [0.5]])
    return np.stack([radii * np.sin(angles), radii * np.cos(angles)], axis=1).reshape(6, 12)


_TEMPLATES = _chord_templates()
_CENTROID_AXES = _centroid_axes()


def _harmony(notes: Notes, windows: Windows) -> NDArray[np.float32]:
    note, window, seconds = overlaps(notes.onset_seconds, notes.offset_seconds, windows)
    shares = shares_of(histogram(window, notes.pitch[note] % 12, len(windows.start), 12, seconds))
    roots = np.sqrt(shares)
    return _joined(
        roots,
        roots @ _TEMPLATES.T,
        shares @ _CENTROID_AXES.T,
        entropy_of(shares),
        np.count_nonzero(shares, axis=1) / 12,
    )


def _melody(notes: Notes, windows: Windows) -> NDArray[np.float32]:
    line = skyline_of(notes)
    first = np.searchsorted(line.offset_seconds, windows.start, side="right")
    last = np.searchsorted(line.onset_seconds, windows.end, side="left")
    members = Members(first, last)
    steps, turns = members.after(1), members.after(2)
    pitch, interval = line.pitch, np.diff(line.pitch, prepend=0)
    size, way = abs(interval), np.sign(interval)
    pitch_classes = members.histogram(pitch % 12, 12)
    step = np.clip(interval, -_INTERVALS, _INTERVALS) + _INTERVALS
    register = (np.clip(pitch, _LOWEST_KEY, _HIGHEST_KEY) - _LOWEST_KEY) // 4
    turn = 3 * (np.append(0, way[:-1]) + 1) + way + 1 if len(way) else way
    mean, low, high = members.mean(pitch), members.least(pitch), members.most(pitch)
    begin, end = members.first_of(pitch), members.last_of(pitch)
    is_any = members.is_any
    contour = (members.sampled(pitch, _MELODY_POINTS) - mean[:, None]) / 12
    levels = [(value - 64) / 64 * is_any for value in (mean, low, high, begin, end)]
    return _joined(
        np.sqrt(shares_of(pitch_classes)),
        np.sqrt(shares_of(steps.histogram(step, 2 * _INTERVALS + 1))),
        np.sqrt(shares_of(members.histogram(register, _REGISTERS))),
        np.clip(contour, -1, 1),
        _one_hot(begin % 12, is_any),
        _one_hot(end % 12, is_any),
        np.sqrt(shares_of(turns.histogram(turn, 9))),
        is_any,
        *levels,
        np.minimum((high - low) / 36, 1),
        np.minimum(members.deviation(pitch) / 12, 1),
        np.clip((end - begin) / 12, -1, 1),
        *(steps.mean(choice) for choice in (way > 0, way < 0, way == 0)),
        *(steps.mean(choice) for choice in ((size == 1) | (size == 2), (size == 3) | (size == 4), size >= 5)),
        np.minimum(steps.mean(size) / 12, 1),
        np.minimum(steps.most(size) / 12, 1),
        np.count_nonzero(pitch_classes, axis=1) / 12,
    )


def _one_hot(values: NDArray[np.float64], is_any: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pitch classes [F] as rows [F, 12]."""
    return (values[:, None] == np.arange(12)) & is_any[:, None]


class _Attacks(NamedTuple):
    """Notes that begin together: [a] times, rising, and velocities (the loudest); [n] each note's velocity.

    `first_note`, int64 [a + 1], says where an attack's notes start.
    """

    seconds: NDArray[np.float64]
    loudest: NDArray[np.float64]
    first_note: NDArray[np.int64]
    velocity: NDArray[np.int64]

    def members(self, windows: Windows) -> Members:
        """The attacks that begin in each window."""
        return Members(np.searchsorted(self.seconds, windows.start), np.searchsorted(self.seconds, windows.end))


def _attacks_of(notes: Notes) -> _Attacks:
    onset, velocity = notes.onset_seconds, notes.velocity.astype(np.int64)
    first = np.flatnonzero(np.diff(onset, prepend=-np.inf) >= CHORD_SECONDS)
    loudest = np.maximum.reduceat(velocity, first) if len(first) else velocity
    return _Attacks(onset[first], loudest.astype(np.float64), np.append(first, len(onset)), velocity)


def _rhythm(attacks: _Attacks, windows: Windows) -> NDArray[np.float32]:
    members, seconds = attacks.members(windows), attacks.seconds
    gaps, pairs, count = members.after(1), members.after(2), len(windows.start)
    width = windows.end - windows.start
    gap = np.maximum(np.diff(seconds, prepend=-1.0), _SHORTEST_SECONDS)
    before = np.append(1.0, gap[:-1])[: len(gap)]
    octave = np.log2(gap / _SHORTEST_SECONDS)
    length = octave[gaps.row] * ((_GAPS - 1) / _GAP_OCTAVES)
    gap_shares = shares_of(soft_histogram(gaps.window, length, count, _GAPS))
    where = (seconds[members.row] - windows.start[members.window]) / width[members.window]
    place_shares = shares_of(soft_histogram(members.window, where * _PLACES - 0.5, count, _PLACES))
    ratio = (np.log2(gap / before) / _RATIO_OCTAVES + 1) * ((_RATIOS - 1) / 2)
    ratio_shares = shares_of(soft_histogram(pairs.window, ratio[pairs.row], count, _RATIOS))
    notes = members.total(np.diff(attacks.first_note))
    places_of = (members.first_of(seconds), members.last_of(seconds), members.mean(seconds))
    return _joined(
        *map(np.sqrt, (gap_shares, place_shares, ratio_shares)),
        members.is_any,
        np.minimum(np.log2(1 + members.count / width) / 5, 1),
        np.minimum(np.log2(np.maximum(notes, 1) / np.maximum(members.count, 1)) / 3, 1),
        *(np.minimum(value / _GAP_OCTAVES, 1) for value in (gaps.mean(octave), gaps.least(octave), gaps.most(octave))),
        np.minimum(gaps.deviation(octave) / 2, 1),
        pairs.mean(abs(gap - before) / (gap + before)),
        entropy_of(gap_shares),
        entropy_of(place_shares),
        *((2 * (place - windows.start) / width - 1) * members.is_any for place in places_of),
        np.minimum(members.deviation(seconds) / width * 2, 1),
        *_beat(members, seconds),
    )


def _beat(members: Members, seconds: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Regularity, pulse and syncopation, each [F], of the windows with three attacks or more."""
    is_enough, windows = members.count >= 3, np.arange(len(members.count))
    waves = np.exp(2j * np.pi * seconds[:, None] / _BEAT_SECONDS)
    pulls = members.mean(waves)
    best = abs(pulls).argmax(axis=1)
    pull = pulls[windows, best]
    followed = members.after(1)
    window, attack = followed.window, followed.row - 1
    phase = np.angle(waves[attack, best[window]] * pull[window].conj()) / (2 * np.pi)  # beats after the nearest beat
    to_beat = np.where(phase > 0, 1 - phase, -phase)
    to_next = (seconds[attack + 1] - seconds[attack]) / _BEAT_SECONDS[best[window]]
    is_held = (abs(phase) > 0.25) & (to_next > to_beat + _LATE_BEATS)
    held = np.bincount(window, is_held, len(windows)) / np.maximum(members.count, 1)
    return abs(pull) * is_enough, best / (len(_BEAT_SECONDS) - 1) * is_enough, held * is_enough


def _dynamics(attacks: _Attacks, windows: Windows) -> NDArray[np.float32]:
    points, standing = _standing(attacks, windows)
    loudest = attacks.loudest[standing]
    is_first = np.diff(standing, prepend=-1).astype(bool)
    is_first[points.first[points.is_any]] = True
    begins = np.flatnonzero(is_first)  # each window's first points of its attacks
    stand, attack = np.diff(begins, append=len(standing)), standing[begins]
    notes = Members(attacks.first_note[attack], attacks.first_note[attack + 1])
    place, share = (attacks.velocity[notes.row] - 2) / 4, (stand / np.maximum(notes.count, 1))[notes.window]
    window, count = points.window[begins][notes.window], len(points.count)
    shares = shares_of(soft_histogram(window, place, count, _LOUDNESSES, share))
    mean, low, high = points.mean(loudest), points.least(loudest), points.most(loudest)
    begin, end = points.first_of(loudest), points.last_of(loudest)
    contour = (points.sampled(loudest, _DYNAMICS_POINTS) - mean[:, None]) / 32
    levels = (mean, low, *points.quantiles(loudest.astype(np.int64), (0.25, 0.5, 0.75)), high, begin, end)
    steps, changes = abs(np.diff(loudest, prepend=0)), points.after(1)
    return _joined(
        np.sqrt(shares),
        np.clip(contour, -1, 1),
        points.is_any,
        *(level / 127 for level in levels),
        np.minimum(points.deviation(loudest) / 32, 1),
        (high - low) / 127,
        np.clip((end - begin) / 64, -1, 1),
        _slope(points, loudest),
        np.minimum((high - mean) / 64, 1),
        np.minimum(changes.total(steps) / np.maximum(changes.total(steps > 0), 1) / 32, 1),
        entropy_of(shares),
    )


def _standing(attacks: _Attacks, windows: Windows) -> tuple[Members, NDArray[np.int64]]:
    """The points of each window at which an attack stands, and which one, [p]."""
    width = windows.end - windows.start
    count = np.maximum(np.rint(width * _DYNAMICS_POINTS), _DYNAMICS_POINTS).astype(np.int64)
    points = Members(np.cumsum(count) - count, np.cumsum(count))
    share = (points.row - points.first[points.window] + 0.5) / count[points.window]
    seconds = windows.start[points.window] + share * width[points.window]
    attack = np.searchsorted(attacks.seconds, seconds, side="right") - 1
    stands = seconds < np.append(attacks.seconds, -np.inf)[attack] + STANDS_SECONDS
    last = np.cumsum(np.bincount(points.window[stands], minlength=len(count)))
    return Members(np.append(0, last[:-1])[: len(last)], last), attack[stands]


def _slope(members: Members, values: NDArray) -> NDArray[np.float64]:
    """Correlation [F] of values [n] with their order in the window; 0 where they are all alike."""
    order = members.row - members.first[members.window] - (members.count[members.window] - 1) / 2
    together = np.bincount(members.window, order * values[members.row], len(members.count))
    alone = np.bincount(members.window, order * order, len(members.count)) * members.count
    scale = np.sqrt(alone) * members.deviation(values)
    return np.clip(together / np.where(scale > 1e-6, scale, np.inf), -1, 1)
