"""A written piece -> what one performer plays of it: a stretch, a line, a key, touch and pedal.

Every function takes and gives scores in seconds and is pure; what is drawn comes from the generator that is passed.
Knows no sound.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.training.data.voices import HIGHEST_PITCH, LOWEST_PITCH

MIN_NOTE_SECONDS = 0.02
MIN_VELOCITY = 8
LEAD_IN_SECONDS = 1.0  # at most, before the note that an excerpt starts with
LAST_ONSET_SECONDS = 0.15  # before an excerpt's end: a later note would hardly be heard
MELODY_NAMES = ("melody", "vocal", "lead", "solo")
OCTAVES = (0, 1, -1, 2, -2)  # by which a line is moved for an instrument that cannot reach it


def playable(score: Score) -> Score:
    """The score with each key of each track held by one note at a time, and no note shorter than it can be heard.

    A note that is struck again while it is held ends there; of notes struck at once on one key the longest stays.
    """
    notes = score.notes
    notes = notes.take(
        np.lexsort((-notes.offset_seconds, notes.onset_seconds, notes.pitch, notes.is_drum, notes.track))
    )
    is_doubled = _is_next_on_key(notes) & (np.diff(notes.onset_seconds) < MIN_NOTE_SECONDS)
    notes = notes.take(np.append(True, ~is_doubled)[: len(notes)])
    struck_again = np.append(notes.onset_seconds[1:], np.inf)[: len(notes)]
    struck_again[:-1][~_is_next_on_key(notes)] = np.inf
    offset = np.maximum(notes.offset_seconds, notes.onset_seconds + MIN_NOTE_SECONDS)
    return replace(score, notes=notes.with_columns(offset_seconds=np.minimum(offset, struck_again)).sorted())


def _is_next_on_key(notes: Notes) -> NDArray[np.bool_]:
    """Whether each row but the first is on the key of the row before it, bool [n - 1]."""
    columns = (notes.pitch, notes.is_drum, notes.track)
    return np.logical_and.reduce([column[1:] == column[:-1] for column in columns])


def melody(score: Score) -> Score:
    """The one line that a listener would sing: the track that is named so, or the highest voice; notes do not overlap.

    The highest voice is every note over which no higher one is held as it starts; each ends where the next begins.
    """
    named = [i for i, track in enumerate(score.tracks) if any(name in track.name.lower() for name in MELODY_NAMES)]
    notes = score.notes.take(~score.notes.is_drum)
    if named and np.isin(notes.track, named).any():
        notes = notes.take(np.isin(notes.track, named))
    notes = notes.take(np.lexsort((-notes.pitch, notes.onset_seconds)))
    kept: list[int] = []
    columns = zip(notes.onset_seconds.tolist(), notes.pitch.tolist(), strict=True)
    for row, (onset, pitch) in enumerate(columns):
        last = kept[-1] if kept else None
        if last is not None:
            is_under = notes.offset_seconds[last] > onset + MIN_NOTE_SECONDS and pitch <= notes.pitch[last]
            if is_under or onset - notes.onset_seconds[last] < MIN_NOTE_SECONDS:
                continue
        kept.append(row)
    line = notes.take(np.array(kept, np.int64))
    following = np.append(line.onset_seconds[1:], np.inf)
    line = line.with_columns(
        offset_seconds=np.minimum(line.offset_seconds, following), track=np.zeros(len(line), np.int16)
    )
    return replace(score, notes=line, pedals=Pedals.of(), tracks=score.tracks[:1])


def excerpt(score: Score, seconds: float, generator: np.random.Generator) -> tuple[Score, float]:
    """A stretch that starts shortly before a note drawn from all of them.

    Notes that began earlier are left out, for they cannot be heard from their middle; notes that go on are ended where
    the stretch ends.

    Args:
        score: longer than the stretch.
        seconds: how long the stretch is.
        generator: draws the note.

    Returns:
        The stretch, from second 0 on, and where in the piece it starts.
    """
    notes, last = score.notes, score.duration_seconds
    if not len(notes):
        return score, 0.0
    first_onset = float(notes.onset_seconds[generator.integers(len(notes))])
    start = first_onset - generator.uniform(0, LEAD_IN_SECONDS)
    start = float(min(max(start, 0.0), last - seconds))
    rows = (notes.onset_seconds >= start) & (notes.onset_seconds < start + seconds - LAST_ONSET_SECONDS)
    inside = notes.take(rows)
    pedals = score.pedals
    presses = (pedals.offset_seconds > start) & (pedals.onset_seconds < start + seconds)
    return (
        replace(
            score,
            notes=inside.with_columns(
                onset_seconds=inside.onset_seconds - start,
                offset_seconds=np.minimum(inside.offset_seconds - start, seconds),
            ),
            pedals=Pedals.of(
                np.maximum(pedals.onset_seconds[presses] - start, 0.0),
                np.minimum(pedals.offset_seconds[presses] - start, seconds),
                pedals.track[presses],
            ),
        ),
        start,
    )


def transposed_into(
    score: Score, widest: int, compass: tuple[int, int], generator: np.random.Generator, *, by_octaves: bool
) -> tuple[Score, int]:
    """Move a score by a drawn interval to where the compass holds most of it, and leave out what it does not hold.

    Args:
        score: drums in it stay as they are.
        widest: semitones, the interval is at most.
        compass: lowest and highest pitch.
        generator: draws among the intervals that lose fewest notes.
        by_octaves: also try octaves beside each interval, the nearest that loses fewest notes.

    Returns:
        The score, and by how many semitones it was moved.
    """
    notes = score.notes
    lowest, highest = max(compass[0], LOWEST_PITCH), min(compass[1], HIGHEST_PITCH)
    pitch = notes.pitch[~notes.is_drum].astype(np.int64)

    def lost(shift: int) -> int:
        return int(np.count_nonzero((pitch + shift < lowest) | (pitch + shift > highest)))

    octaves = OCTAVES if by_octaves else OCTAVES[:1]
    shifts = [
        min((shift + 12 * octave for octave in octaves), key=lambda s: (lost(s), abs(s)))
        for shift in range(-widest, widest + 1)
    ]
    fewest = min(map(lost, shifts))
    best = [shift for shift in shifts if lost(shift) == fewest]
    shift = int(best[generator.integers(len(best))])
    moved = np.where(notes.is_drum, notes.pitch, notes.pitch + shift).astype(np.int16)
    inside = notes.is_drum | ((moved >= lowest) & (moved <= highest))
    return replace(score, notes=notes.with_columns(pitch=np.clip(moved, 0, 127).astype(np.int16)).take(inside)), shift


def with_touch(score: Score, spread: int, generator: np.random.Generator) -> Score:
    """Draw how loud and how contrasted the piece is played, and each note a little apart from that.

    Args:
        score: the piece.
        spread: how far velocities move at most as a whole; single notes move by about a quarter of it.
        generator: what is drawn from.
    """
    if not spread or not len(score.notes):
        return score
    velocity = score.notes.velocity.astype(np.float64)
    middle = velocity.mean()
    contrast = np.exp(generator.uniform(-0.3, 0.3))
    shift = generator.uniform(-spread, spread)
    moved = middle + (velocity - middle) * contrast + shift + generator.normal(0, spread / 4, len(velocity))
    clipped = np.clip(np.rint(moved), MIN_VELOCITY, 127).astype(np.int16)
    return replace(score, notes=score.notes.with_columns(velocity=clipped))


def with_drawn_pedal(score: Score, generator: np.random.Generator) -> Score:
    """Pedal a piece that has none: pressed just after an onset, changed at a later one, sometimes left up."""
    onsets = np.unique(score.notes.onset_seconds[~score.notes.is_drum])
    end = score.notes.end_seconds
    typical = generator.uniform(0.6, 3.0)
    presses: list[tuple[float, float]] = []
    now = 0.0
    while True:
        later = onsets[np.searchsorted(onsets, now) :]
        if not len(later):
            break
        down = float(later[0]) + generator.uniform(0.03, 0.15)
        wanted = down + typical * generator.uniform(0.5, 1.5)
        after = onsets[np.searchsorted(onsets, wanted) :]
        up = float(after[0]) + generator.uniform(0.0, 0.06) if len(after) else end + generator.uniform(0.0, 0.5)
        presses.append((down, up))
        now = up + (0.0 if generator.random() < 0.8 else typical)
    tracks = np.unique(score.notes.track[~score.notes.is_drum])
    onset, offset = np.array(presses).reshape(-1, 2).T
    return replace(
        score,
        pedals=Pedals.of(np.tile(onset, len(tracks)), np.tile(offset, len(tracks)), np.repeat(tracks, len(onset))),
    )


def lags(
    notes: Notes, lag_seconds: float, generator: np.random.Generator, *, jitter_seconds: float, soft_seconds: float
) -> NDArray[np.float64]:
    """How much later than written each note sounds, float64 [n], at least 0.

    Args:
        notes: the notes.
        lag_seconds: of the whole piece.
        generator: draws the jitter.
        jitter_seconds: the standard deviation of single notes.
        soft_seconds: how much later the softest note comes than the loudest: a slow hammer is longer on its way.
    """
    softness = 0.5 - notes.velocity / 127
    jitter = np.clip(generator.normal(0, 1, len(notes)), -2, 2) * jitter_seconds
    return np.maximum(lag_seconds + softness * soft_seconds + jitter, 0.0)
