"""What every arrangement for the piano needs: one instrument, 88 keys, and a key that is struck once at a time.

Works on note tables; knows nothing of styles or files.
"""

from __future__ import annotations

import numpy as np

from musictool.symbolic.notes import Notes, Pedals, Score, Track

LOWEST_KEY, HIGHEST_KEY = 21, 108
SAME_MOMENT_SECONDS = 0.03  # strokes of one key that are closer are one
SHORTEST_SECONDS = 0.03
TICKS_PER_QUARTER = 1_000  # at 120 quarters a minute a tick lasts 0.5 ms


def piano_score(notes: Notes, pedals: Pedals | None = None) -> Score:
    """A score for one piano, from the first note on.

    Args:
        notes: of any programs, without drums; folded by octaves into the keys of a piano.
        pedals: of any tracks; presses that overlap become one.
    """
    pedals = pedals if pedals is not None else Pedals.of()
    notes = struck_once(notes.with_columns(pitch=on_keys(notes.pitch)))
    start = float(notes.onset_seconds.min()) if len(notes) else 0.0
    notes = Notes.of(
        notes.onset_seconds - start, notes.offset_seconds - start, notes.pitch, np.clip(notes.velocity, 1, 127)
    )
    presses = merged(np.stack([pedals.onset_seconds, pedals.offset_seconds], axis=1) - start)
    presses = np.maximum(presses[presses[:, 1] > 0], 0.0)
    held = Pedals.of(presses[:, 0], presses[:, 1], np.zeros(len(presses)))
    return Score(notes.sorted(), tracks=(Track("Piano", 0),), pedals=held, ticks_per_quarter=TICKS_PER_QUARTER)


def on_keys(pitch: np.ndarray) -> np.ndarray:
    """Pitches moved by octaves, where they must be, to the keys of a piano; int16 [n]."""
    below = np.maximum(-(-(LOWEST_KEY - pitch.astype(int)) // 12), 0)
    above = np.maximum(-(-(pitch.astype(int) - HIGHEST_KEY) // 12), 0)
    return (pitch + 12 * below - 12 * above).astype(np.int16)


def struck_once(notes: Notes) -> Notes:
    """Notes of which no two hold one key at a time: strokes of a moment are one, and a new stroke ends the old note."""
    order = np.lexsort((notes.onset_seconds, notes.pitch))
    notes = notes.take(order)
    onset, offset, velocity = notes.onset_seconds, notes.offset_seconds.copy(), notes.velocity.copy()
    kept = np.ones(len(notes), bool)
    last = -1
    for row in range(len(notes)):
        if last < 0 or notes.pitch[row] != notes.pitch[last]:
            last = row
        elif onset[row] - onset[last] < SAME_MOMENT_SECONDS:
            offset[last] = max(offset[last], offset[row])
            velocity[last] = max(velocity[last], velocity[row])
            kept[row] = False
        else:
            offset[last] = min(offset[last], onset[row])
            last = row
    offset = np.maximum(offset, onset + SHORTEST_SECONDS)
    return notes.with_columns(offset_seconds=offset, velocity=velocity).take(kept).sorted()


def merged(spans: np.ndarray) -> np.ndarray:
    """Spans of time, float [n, 2], by their start; those that overlap or touch are one."""
    result: list[list[float]] = []
    for start, end in spans[np.argsort(spans[:, 0], kind="stable")].tolist():
        if result and start <= result[-1][1]:
            result[-1][1] = max(result[-1][1], end)
        else:
            result.append([start, end])
    return np.array(result, float).reshape(-1, 2)
