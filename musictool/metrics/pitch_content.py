"""Which pitch classes a table of notes holds: how many notes of each, which comes after which, what sounds when.

Pitch classes are 0 (C) to 11 (B). Drums have no pitch and are left out. A frame is a second of the piece, the first
from 0 on; a note that is held over several counts in each for as long as it sounds there. Knows nothing of metre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.spans import microseconds_of
from musictool.symbolic.notes import Notes
from musictool.symbolic.windows import shares_of

FRAME_MICROSECONDS = 1_000_000
TRANSITION_MICROSECONDS = 50_000

_RADII = (1.0, 1.0, 0.5)  # of the circles of fifths, minor thirds and major thirds


def pitched(notes: Notes) -> Notes:
    """The notes that are no drums."""
    return notes.take(~notes.is_drum)


def pitch_class_counts(notes: Notes) -> NDArray[np.int64]:
    """How many notes there are of each pitch class, [12]."""
    return np.bincount(pitched(notes).pitch % 12, minlength=12)


def transition_counts(notes: Notes) -> NDArray[np.int64]:
    """How often each pitch class leads to each other, [12, 12], from rows to columns.

    A note leads to every other note of its program that begins less than 50 ms before or after it ends: the matrix of
    pretty_midi, which Yang and Lerch use, but that a short note does not lead to itself.
    """
    notes = pitched(notes)
    counts = np.zeros((12, 12), np.int64)
    for program in np.unique(notes.program):
        part = notes.take(notes.program == program)
        onset, offset = microseconds_of(part).T
        pitch_class = part.pitch % 12
        order = np.argsort(onset, kind="stable")
        begun = np.zeros((len(part) + 1, 12), np.int64)  # by each onset, how many of each class have begun before it
        begun[1:] = np.cumsum(pitch_class[order, None] == np.arange(12), axis=0)
        first = np.searchsorted(onset[order], offset - TRANSITION_MICROSECONDS, side="right")
        last = np.searchsorted(onset[order], offset + TRANSITION_MICROSECONDS, side="left")
        np.add.at(counts, pitch_class, begun[last] - begun[first])
        own = pitch_class[offset - onset < TRANSITION_MICROSECONDS]
        np.subtract.at(counts, (own, own), 1)
    return counts


def frame_count(notes: Notes) -> int:
    """How many frames it takes to hold all pitched notes."""
    return int(-(-microseconds_of(pitched(notes)).max(initial=0) // FRAME_MICROSECONDS))


def profiles(notes: Notes, count: int) -> NDArray[np.float64]:
    """How long each pitch class sounds in each frame, in seconds, each note for itself, [count, 12].

    Args:
        notes: the table.
        count: how many frames.
    """
    borders = np.arange(count + 1) * FRAME_MICROSECONDS
    notes = pitched(notes)
    pitch_class = notes.pitch % 12
    onset, offset = microseconds_of(notes).T

    def time_since(moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """At each border, the time gone by since each of some moments before it, summed up."""
        rank = np.searchsorted(moments, borders, side="right")
        return rank * borders - np.append(0, np.cumsum(moments))[rank]

    sounded = np.zeros((count + 1, 12), np.int64)
    for one in range(12):
        is_one = pitch_class == one
        sounded[:, one] = time_since(np.sort(onset[is_one])) - time_since(np.sort(offset[is_one]))
    return np.diff(sounded, axis=0) / 1e6


def centroids(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """The tonal centroid of each row of [F, 12], [F, 6]; silence is the origin.

    Harte, Sandler and Gasser, "Detecting harmonic change in musical audio", 2006: the mean of the pitch classes' places
    on the circles of fifths, minor thirds and major thirds, whose radii are 1, 1 and 1/2.
    """
    angles = np.outer(np.arange(12), (7, 9, 4)) * np.pi / 6  # [12, 3]
    places = np.hstack([np.sin(angles), np.cos(angles)]) * (_RADII * 2)  # [12, 6]
    return shares_of(profile) @ places


def unit_rows(rows: NDArray) -> NDArray[np.float64]:
    """Rows [F, d] at length 1; those of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
