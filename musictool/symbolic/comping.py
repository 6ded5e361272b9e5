"""What a rhythm section plays under a jazz solo: bass as it was measured, and comped chords.

A row of a beat track says when a beat was played, its place in the bar, the chord and, mostly, the pitch of the bass.
The bass is taken as it is. Chords become rootless voicings and shells, each led from the one before, in rhythms drawn
for every bar from those of the feel: Charlestons and anticipations in swing, held chords in ballads, straight ones in
Latin and funk. All of it lies between the beats as they were measured. Knows nothing of files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from musictool.symbolic.notes import Notes

SOLO_LEAST_MEDIAN, SOLO_HIGHEST = 66, 105
BASS_LOWEST, BASS_HIGHEST = 28, 51
CHORD_LOWEST, CHORD_HIGHEST, CHORD_MIDDLE = 50, 70, 59.0
LEAST_BASS_GAP, LEAST_SOLO_GAP = 3, 2  # semitones between a chord's notes and those of the other parts
SWING_MIDDLE_BPM, SWING_SHARE, SWING_SHARE_A_BPM = 120.0, 0.66, -0.0007
SLOW_BPM = 85.0
MIDDLE_SECONDS = 4.0  # how far around it a part listens to the solo's loudness
CHORD_SOFTER, BASS_SOFTER = 20, 12
SPREAD_OF_VELOCITY = 4.0
SPREAD_OF_TIMING_SECONDS = 0.008

# Where chords begin in a bar, in beats from 0; a fraction of .5 is the off-beat and is swung where the feel is. A
# pattern's weight says how often it is drawn.
PATTERNS: dict[tuple[str, int], list[tuple[float, tuple[float, ...]]]] = {
    ("swing", 4): [
        (4, (0, 1.5)),  # Charleston
        (2, (0.5, 2)),
        (2, (1.5, 3.5)),
        (2, (1, 2.5)),
        (2, (0, 2.5)),
        (1, (1, 3)),
        (1, (0.5, 2, 3.5)),
        (2, (2.5,)),
        (2, (1.5,)),
        (1, (3.5,)),
        (1, (0,)),
        (1, (0, 1.5, 3)),
        (1, ()),
    ],
    ("ballad", 4): [(3, (0,)), (3, (0, 2)), (2, (0, 1.5)), (1, (0, 2, 3)), (1, (0, 2.5)), (1, (1, 3))],
    ("latin", 4): [
        (3, (0, 1.5, 3)),
        (3, (0.5, 2, 3.5)),
        (2, (0, 1.5, 2.5)),
        (2, (0, 1.5, 3.5)),
        (1, (1, 2.5)),
    ],
    ("funk", 4): [(2, (0, 1.75)), (2, (0, 2.5)), (2, (0.5, 1.5, 2.75)), (2, (0, 1.5, 3.75)), (1, (1, 3)), (1, (0,))],
    ("swing", 3): [(3, (0, 1.5)), (2, (1, 2)), (2, (0.5, 2)), (1, (0,)), (1, (1.5,))],
    ("ballad", 3): [(3, (0,)), (2, (0, 1)), (1, (0, 1.5))],
    ("latin", 3): [(2, (0, 1.5)), (1, (1, 2)), (1, (0,))],
    ("funk", 3): [(2, (0, 1.5)), (1, (1, 2)), (1, (0,))],
}
STAB_BEATS = {"swing": 0.45, "ballad": 2.5, "latin": 0.6, "funk": 0.3}
HELD_CHANCE = {"swing": 0.35, "ballad": 0.9, "latin": 0.3, "funk": 0.15}

_CHORD = re.compile(r"([A-G])([b#]?)([^/]*)(?:/.*)?")
_TENSION = re.compile(r"(9|11|13)([b#]?)")
_NATURALS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "b": -1, "#": 1}
_TENSION_STEPS = {"9": 2, "11": 5, "13": 9}


class Beat(NamedTuple):
    """A row of a beat track; `chord` is empty where there is none, `bass` None where nothing was measured."""

    seconds: float
    bar: int
    chord: str
    bass: int | None


@dataclass(frozen=True)
class Chord:
    """What a symbol says, in pitch classes: the root, the shell (third and seventh or sixth), and colours above it."""

    root: int
    shell: tuple[int, ...]
    colours: tuple[int, ...]


# ------------------------------------------------------------------------------------------------------------ chords


@lru_cache(maxsize=1024)
def parse_chord(symbol: str) -> Chord | None:
    """Read a symbol as the database writes it (`Bb7`, `C-7`, `Fj7911#`, `Am7b5`, `Gsus7913`); None where it is none."""
    match = _CHORD.fullmatch(symbol)
    if match is None or symbol == "NC":
        return None
    root = (_NATURALS[match[1]] + _ACCIDENTALS[match[2]]) % 12
    kind = match[3]
    is_minor, is_diminished = kind.startswith(("-", "m")), kind.startswith("o")
    third = 5 if "sus" in kind else 3 if is_minor or is_diminished else 4
    fifth = 6 if is_diminished or "b5" in kind else 8 if kind.startswith("+") else 7
    if "j7" in kind:
        top = 11
    elif "7" in kind:
        top = 9 if is_diminished else 10
    else:
        top = 9 if "6" in kind else 6 if is_diminished else 0
    tensions = [_TENSION_STEPS[step] + _ACCIDENTALS[mark] for step, mark in _TENSION.findall(kind.replace("b5", ""))]
    if "alt" in kind:
        tensions = [3, 8]
    if not tensions and not (is_diminished or "b5" in kind):
        tensions = [2]
    colours = dict.fromkeys([*tensions[:2], fifth])
    return Chord(root, _classes(root, (third, top)), _classes(root, colours))


def _classes(root: int, steps: Sequence[int] | dict[int, None]) -> tuple[int, ...]:
    return tuple((root + step) % 12 for step in steps)


def led_voicing(classes: Sequence[int], before: Sequence[int], highest: int, lowest: int) -> tuple[int, ...]:
    """The close position of some pitch classes that is reached with the least motion; empty where none fits.

    Args:
        classes: what to play, in any order.
        before: the voicing that was played last.
        highest, lowest: the keys between which the voicing has to lie.
    """
    best: tuple[float, tuple[int, ...]] = (np.inf, ())
    ordered = sorted(set(classes))
    for turn in range(len(ordered)):
        rotation = ordered[turn:] + ordered[:turn]
        bottom = lowest + (rotation[0] - lowest) % 12
        while bottom <= highest:
            keys = tuple(bottom + (pitch - rotation[0]) % 12 for pitch in rotation)
            if keys[-1] <= highest:
                best = min(best, (_cost(keys, before), keys))
            bottom += 12
    return best[1]


def _cost(keys: Sequence[int], before: Sequence[int]) -> float:
    motion = sum(min(abs(key - old) for old in before) for key in keys) if before else 0.0
    grinds = sum(upper - lower == 1 for lower, upper in pairwise(keys))
    return motion + 0.5 * len(keys) * abs(float(np.mean(keys)) - CHORD_MIDDLE) + 2.0 * grinds


# ------------------------------------------------------------------------------------------------------------- parts


def accompaniment(solo: Notes, beats: Sequence[Beat], feel: str, generator: np.random.Generator) -> tuple[Notes, Notes]:
    """Play along with a solo, from the bar in which it begins to the one in which it ends.

    Args:
        solo: the notes as they were played; chords stay clear of them.
        beats: the beat track, by rising time.
        feel: `swing`, `ballad`, `latin` or `funk`.
        generator: draws rhythms, voicings and velocities.

    Returns:
        The bass and the chords, program 0; empty where fewer than two beats are known.
    """
    beats = _beats_during(beats, solo)
    if len(beats) < 2:
        return Notes.empty(), Notes.empty()
    seconds = np.array([beat.seconds for beat in beats])
    bass = bass_line(beats, seconds, solo, generator)
    return bass, comping(beats, seconds, solo, bass, feel, generator)


def above_chords(solo: Notes) -> Notes:
    """A solo moved up by octaves until its middle lies above the chords."""
    median, top = np.median(solo.pitch), int(solo.pitch.max())
    octaves = 0
    while median + 12 * octaves < SOLO_LEAST_MEDIAN and top + 12 * (octaves + 1) <= SOLO_HIGHEST:
        octaves += 1
    return solo.with_columns(pitch=(solo.pitch + 12 * octaves).astype(np.int16))


def _beats_during(beats: Sequence[Beat], solo: Notes) -> list[Beat]:
    """The beats from the bar in which the solo begins to the one in which it ends."""
    during = [beat.bar for beat in beats if solo.onset_seconds.min() - 0.5 <= beat.seconds <= solo.end_seconds]
    return [beat for beat in beats if during and during[0] <= beat.bar <= during[-1]]


def bass_line(beats: Sequence[Beat], seconds: np.ndarray, solo: Notes, generator: np.random.Generator) -> Notes:
    """The bass as it was played: a note a beat, or one for two where the pitch stays within half a bar.

    Where no bass was measured in the whole solo it plays roots and fifths in halves.
    """
    ends = np.append(seconds[1:], 2 * seconds[-1] - seconds[-2])
    is_measured = any(beat.bass is not None for beat in beats)
    rows: list[tuple[float, float, int]] = []
    place = 0
    for number, beat in enumerate(beats):
        place = place + 1 if number and beat.bar == beats[number - 1].bar else 0
        pitch = beat.bass if is_measured else _root_or_fifth(beat.chord, place)
        if pitch is not None:
            pitch = _within(pitch, BASS_LOWEST, BASS_HIGHEST)
            if place % 2 and rows and rows[-1][2] == pitch and rows[-1][1] == seconds[number]:
                rows[-1] = (rows[-1][0], float(ends[number]), pitch)
            else:
                rows.append((float(seconds[number]), float(ends[number]), pitch))
    if not rows:
        return Notes.empty()
    onset, end, pitches = (np.array(column) for column in zip(*rows, strict=True))
    sounding = generator.uniform(0.8, 0.97, len(rows))
    velocity = _softer(solo, onset, BASS_SOFTER, generator)
    return Notes.of(onset, onset + sounding * (end - onset), pitches, velocity)


def _root_or_fifth(symbol: str, place: int) -> int | None:
    chord = parse_chord(symbol)
    if chord is None:
        return None
    return 36 + chord.root + (7 if place % 4 >= 2 else 0)


def _within(pitch: int, lowest: int, highest: int) -> int:
    """A pitch moved by octaves into a range of an octave or more."""
    return lowest + (pitch - lowest) % 12 if not lowest <= pitch <= highest else pitch


def comping(
    beats: Sequence[Beat],
    seconds: np.ndarray,
    solo: Notes,
    bass: Notes,
    feel: str,
    generator: np.random.Generator,
) -> Notes:
    """Chords in rhythms of the feel: shells while the solo plays, fuller and more of them where it rests."""
    beat_seconds = float(np.median(np.diff(seconds)))
    if feel == "swing" and 60 / beat_seconds < SLOW_BPM:
        feel = "ballad"
    share = _swing_share(60 / beat_seconds) if feel == "swing" else 0.5
    hits = _hits(beats, feel, generator)
    places = np.array([_swung(place, share) for place in hits])
    times = np.interp(places, np.arange(len(seconds)), seconds)
    times = times + generator.normal(0, SPREAD_OF_TIMING_SECONDS, len(times))
    velocity = _softer(solo, times, CHORD_SOFTER, generator)
    rows: list[tuple[float, float, int, int]] = []
    before: tuple[int, ...] = ()
    for number, (place, time) in enumerate(zip(hits, times.tolist(), strict=True)):
        chord = _chord_at(beats, place)
        if chord is None:
            continue
        is_resting = not np.any((solo.onset_seconds < time + beat_seconds) & (solo.offset_seconds > time))
        classes = _drawn_classes(chord, is_resting, generator)
        ceiling, floor = _room(solo, bass, time, beat_seconds)
        voicing = led_voicing(classes, before, ceiling, floor) or led_voicing(chord.shell, before, ceiling, floor)
        if not voicing:
            continue
        before = voicing
        following = times[number + 1] if number + 1 < len(times) else time + 2 * beat_seconds
        is_held = generator.random() < HELD_CHANCE[feel]
        length = 4.0 * beat_seconds if is_held else STAB_BEATS[feel] * beat_seconds
        end = max(min(time + length, following - 0.02), time + 0.08)
        loudness = int(velocity[number]) + (3 if place % 1 else 0)
        for key in voicing:
            velocity_of_key = loudness + int(generator.integers(-2, 3))
            rows.append((time, _until_crossed(key, time, end, solo, bass), key, velocity_of_key))
    if not rows:
        return Notes.empty()
    return Notes.of(*(np.array(column) for column in zip(*rows, strict=True)))


def _hits(beats: Sequence[Beat], feel: str, generator: np.random.Generator) -> list[float]:
    """Where chords begin, in beats from the first one, before any swing."""
    hits: list[float] = []
    start = 0
    while start < len(beats):
        end = start
        while end < len(beats) and beats[end].bar == beats[start].bar:
            end += 1
        length = end - start
        if patterns := PATTERNS.get((feel, length)):
            weights = np.array([weight for weight, _ in patterns])
            pattern = patterns[generator.choice(len(patterns), p=weights / weights.sum())][1]
        else:
            pattern = tuple(float(place) for place in range(length) if generator.random() < 0.4)
        hits += [start + place for place in pattern if start + place <= len(beats) - 1]
        start = end
    return hits


def _swing_share(bpm: float) -> float:
    """Where in a beat its second half begins: later the slower the music."""
    return float(np.clip(SWING_SHARE + SWING_SHARE_A_BPM * (bpm - SWING_MIDDLE_BPM), 0.54, 0.67))


def _swung(place: float, share: float) -> float:
    whole, part = divmod(place, 1)
    return whole + (share if part == 0.5 else part)


def _chord_at(beats: Sequence[Beat], place: float) -> Chord | None:
    """The chord to play at a place: off the beat it is that of the next one, since such a stroke anticipates it."""
    number = int(place) + (1 if place % 1 >= 0.5 else 0)
    return parse_chord(beats[min(number, len(beats) - 1)].chord)


def _drawn_classes(chord: Chord, is_resting: bool, generator: np.random.Generator) -> tuple[int, ...]:
    """A shell with none, one or two colours; more of them where the solo rests."""
    chances = (0.1, 0.5, 0.4) if is_resting else (0.4, 0.5, 0.1)
    return chord.shell + chord.colours[: generator.choice(3, p=chances)]


def _room(solo: Notes, bass: Notes, time: float, beat_seconds: float) -> tuple[int, int]:
    """The highest and the lowest key that are free for a chord, between what the other parts play around it."""

    def around(part: Notes) -> np.ndarray:
        return part.pitch[(part.onset_seconds < time + 0.5 * beat_seconds) & (part.offset_seconds > time)]

    above, below = around(solo), around(bass)
    highest = min(CHORD_HIGHEST, int(above.min()) - LEAST_SOLO_GAP) if len(above) else CHORD_HIGHEST
    lowest = max(CHORD_LOWEST, int(below.max()) + LEAST_BASS_GAP) if len(below) else CHORD_LOWEST
    return highest, lowest


def _until_crossed(key: int, time: float, end: float, solo: Notes, bass: Notes) -> float:
    """When a chord's key is let go: at its end, or before it where the solo comes down to it or the bass up to it."""
    is_in_the_way = solo.pitch < key + LEAST_SOLO_GAP
    crossings = [solo.onset_seconds[is_in_the_way], bass.onset_seconds[bass.pitch > key - LEAST_BASS_GAP]]
    onset = np.concatenate(crossings)
    onset = onset[(onset > time) & (onset < end)]
    return float(onset.min()) if len(onset) else end


def _softer(solo: Notes, times: np.ndarray, steps: int, generator: np.random.Generator) -> np.ndarray:
    """Velocities some steps below the solo's around each moment, with a spread."""
    order = np.argsort(solo.onset_seconds, kind="stable")
    onset = solo.onset_seconds[order]
    total = np.concatenate([[0.0], np.cumsum(solo.velocity[order])])
    first = np.searchsorted(onset, times - MIDDLE_SECONDS)
    last = np.searchsorted(onset, times + MIDDLE_SECONDS)
    overall = float(solo.velocity.mean())
    mean = np.where(last > first, (total[last] - total[first]) / np.maximum(last - first, 1), overall)
    return np.clip(np.round(mean - steps + generator.normal(0, SPREAD_OF_VELOCITY, len(times))), 20, 115).astype(int)
