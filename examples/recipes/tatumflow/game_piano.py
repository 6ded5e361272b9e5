"""A piece for many instruments as piano music: what two hands can hold of its outer voices and what lies between.

Drums, noises and doublings go. At every moment with a stroke the lowest note and those near it are the left hand's, the
highest and those near it the right hand's; each hand holds a few keys within its reach, lets go of what is out of it,
and takes strokes that come too fast for it as one long note. Nothing is drawn by chance. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from musictool.symbolic.notes import Notes

UNPITCHED_PROGRAMS = frozenset({47, *range(112, 128)})  # timpani, percussive, sound effects
BASS_PROGRAMS = frozenset(range(32, 40))
BACKGROUND_PROGRAMS = frozenset({*range(48, 55), *range(88, 104)})  # ensembles, choirs, pads, effects
BASS_LOWEST, BASS_HIGHEST = 28, 52
MELODY_LOWEST = 48  # below it a note is no melody
MOMENT_SECONDS = 0.03
REACH_SEMITONES = 12
LEFT_KEYS, RIGHT_KEYS = 2, 3
LOW_KEY, LOW_GAP = 45, 7  # a left hand whose lowest key is below the first has nothing nearer than the second above it
LEAST_RESTRIKE_SECONDS = 0.16
LONGEST_SECONDS = 4.0
SOFTEST, LOUDEST = 38, 104
INNER_SOFTER, LEFT_SOFTER = 14, 7


@dataclass
class Hand:
    """What a hand plays: how many keys at most, its strokes so far as onset, offset, pitch and velocity, and which of
    them may still sound."""

    keys: int
    strokes: list[list[float]] = field(default_factory=list)
    held: list[list[float]] = field(default_factory=list)

    def play(self, time: float, notes: list[list[float]]) -> None:
        """Strike some notes (offset, pitch, velocity; the outer voice first), letting go of what is in the way."""
        self.held = [stroke for stroke in self.held if stroke[1] > time]
        recent = {stroke[2]: stroke for stroke in self.strokes[-8:] if time - stroke[0] < LEAST_RESTRIKE_SECONDS}
        if all(pitch in recent for _, pitch, _ in notes):
            for offset, pitch, _ in notes:
                self._hold(recent[pitch], offset)
            return
        struck = {pitch for _, pitch, _ in notes}
        lowest, highest = min(struck), max(struck)
        for stroke in self.held:
            is_far = max(highest, stroke[2]) - min(lowest, stroke[2]) > REACH_SEMITONES
            if is_far or stroke[2] in struck:
                stroke[1] = min(stroke[1], time)
        self.held = [stroke for stroke in self.held if stroke[1] > time]
        for stroke in self.held[: max(0, len(self.held) + len(notes) - self.keys)]:
            stroke[1] = time
        for offset, pitch, velocity in notes:
            stroke = [time, min(offset, time + LONGEST_SECONDS), pitch, velocity]
            self.strokes.append(stroke)
            self.held.append(stroke)

    def _hold(self, stroke: list[float], offset: float) -> None:
        """Hold a key for longer that was just struck, if it is still down or a finger is free and reaches it."""
        is_down = any(held is stroke for held in self.held)
        is_near = all(abs(held[2] - stroke[2]) <= REACH_SEMITONES for held in self.held)
        if is_down or (is_near and len(self.held) < self.keys):
            stroke[1] = max(stroke[1], min(offset, stroke[0] + LONGEST_SECONDS))
            if not is_down:
                self.held.append(stroke)


def reduce_to_piano(notes: Notes) -> Notes:
    """The notes of a piece that two hands keep, program 0.

    Args:
        notes: of any programs, drums among them.
    """
    notes = notes.take(~notes.is_drum & ~np.isin(notes.program, list(UNPITCHED_PROGRAMS))).sorted()
    if not len(notes):
        return Notes.empty()
    notes = _on_piano(notes)
    left, right = Hand(LEFT_KEYS), Hand(RIGHT_KEYS)
    for moment in _moments(notes):
        time = float(notes.onset_seconds[moment[0]])
        below, above = _shared_out(notes, moment, left, right, time)
        if below:
            left.play(time, below)
        if above:
            right.play(time, above)
    rows = [stroke for stroke in left.strokes + right.strokes if stroke[1] - stroke[0] > MOMENT_SECONDS]
    return Notes.of(*(np.array(column) for column in zip(*rows, strict=True))).sorted() if rows else Notes.empty()


def _on_piano(notes: Notes) -> Notes:
    """Basses in their octaves, and velocities within what a piano piece uses."""
    is_bass = np.isin(notes.program, list(BASS_PROGRAMS))
    pitch = notes.pitch.astype(int)
    pitch = np.where(is_bass & (pitch < BASS_LOWEST), pitch + 12, pitch)
    pitch = np.where(is_bass & (pitch > BASS_HIGHEST), pitch - 12, pitch)
    velocity = SOFTEST + (LOUDEST - SOFTEST) * notes.velocity / 127
    return notes.with_columns(pitch=pitch.astype(np.int16), velocity=np.round(velocity).astype(np.int16))


def _moments(notes: Notes) -> Iterable[np.ndarray]:
    """Rows that begin together, by rising time."""
    first = 0
    onset = notes.onset_seconds
    for row in range(1, len(notes) + 1):
        if row == len(notes) or onset[row] - onset[first] > MOMENT_SECONDS:
            yield np.arange(first, row)
            first = row


def _shared_out(
    notes: Notes, moment: np.ndarray, left: Hand, right: Hand, time: float
) -> tuple[list[list[float]], list[list[float]]]:
    """What each hand strikes at a moment: offset, pitch and velocity of its notes, the outer voice first."""
    best: dict[int, int] = {}
    for row in moment.tolist():
        pitch = int(notes.pitch[row])
        if pitch not in best or notes.offset_seconds[row] > notes.offset_seconds[best[pitch]]:
            best[pitch] = row
    pitches = sorted(best)
    middle = _middle(left, right, time)
    low = [pitch for pitch in pitches if pitch < middle]
    high = [pitch for pitch in pitches if pitch >= middle]
    below, above = _low_hand(low), _high_hand(high, notes, best)
    below = [pitch for pitch in below if pitch % 12 not in {key % 12 for key in above} or pitch == low[0]]

    def stroke(pitch: int, softer: int) -> list[float]:
        row = best[pitch]
        velocity = max(int(notes.velocity[row]) - softer, 20)
        return [float(notes.offset_seconds[row]), pitch, velocity]

    return (
        [stroke(pitch, LEFT_SOFTER + (INNER_SOFTER - LEFT_SOFTER) * (place > 0)) for place, pitch in enumerate(below)],
        [stroke(pitch, INNER_SOFTER * (place > 0)) for place, pitch in enumerate(above)],
    )


def _middle(left: Hand, right: Hand, time: float) -> float:
    """The pitch that parts the hands: between what they hold, else near the middle of the keyboard."""
    lowest = min((stroke[2] for stroke in right.held if stroke[1] > time), default=66)
    highest = max((stroke[2] for stroke in left.held if stroke[1] > time), default=48)
    return float(np.clip((lowest + highest) / 2, 52, 62))


def _low_hand(pitches: list[int]) -> list[int]:
    """The lowest pitch, and one above it that the hand reaches and that is no octave of it if there is a choice."""
    if not pitches:
        return []
    bottom = pitches[0]
    least = LOW_GAP if bottom < LOW_KEY else 3
    near = [pitch for pitch in pitches[1:] if least <= pitch - bottom <= REACH_SEMITONES]
    near.sort(key=lambda pitch: ((pitch - bottom) % 12 == 0, pitch))
    return [bottom, *near[: LEFT_KEYS - 1]]


def _high_hand(pitches: list[int], notes: Notes, rows: dict[int, int]) -> list[int]:
    """The melody and what the hand reaches below it, without octaves and without seconds below the melody."""
    if not pitches:
        return []
    leads = [pitch for pitch in pitches if int(notes.program[rows[pitch]]) not in BACKGROUND_PROGRAMS]
    top = max(leads or pitches)
    kept = [top]
    for pitch in reversed(pitches):
        is_new = all((pitch - key) % 12 and abs(pitch - key) > 2 for key in kept)
        if pitch < top and top - pitch <= REACH_SEMITONES and is_new and len(kept) < RIGHT_KEYS:
            kept.append(pitch)
    return kept
