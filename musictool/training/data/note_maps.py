"""Notes -> the maps that a note tagger is to say: triangles at onsets and offsets, boxes between."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from musictool.models.note_tagger import HEADS, LOWEST_PITCH, PITCHES
from musictool.training.data.pairs import PairNotes

SLOPE_FRAMES = 2.0  # from a triangle's top to its foot

_ONSET, _FRAME, _OFFSET, _SOUNDING, _VELOCITY = range(len(HEADS))


def note_maps(parts: Iterable[PairNotes], hop_seconds: float, frames: int) -> NDArray[np.float32]:
    """The maps of a stretch of sound.

    A triangle's top is 1 and lies between frames, where the note does; its foot is `SLOPE_FRAMES` away (Kong et al.,
    2021, section III-A). Drums, and pitches that a piano lacks, are left out.

    Args:
        parts: whose notes sound together, times from the start of the stretch.
        hop_seconds: from frame to frame.
        frames: T.

    Returns:
        float32 [heads, T, 88], in the order of `HEADS`; the velocity, a share of 127, stands where its onset does.
    """
    maps = np.zeros((len(HEADS), frames, PITCHES), np.float32)
    for notes in parts:
        pitch = notes.pitch.astype(int) - LOWEST_PITCH
        rows = np.flatnonzero(~notes.is_drum & (pitch >= 0) & (pitch < PITCHES))
        onset, offset, silent = (
            seconds[rows].astype(np.float64) / hop_seconds
            for seconds in (notes.onset_seconds, notes.offset_seconds, notes.silent_seconds)
        )
        pitch, velocity = pitch[rows], notes.velocity[rows] / np.float32(127)
        _add_boxes(maps[_FRAME], pitch, onset, np.maximum(offset, onset + 1))
        _add_boxes(maps[_SOUNDING], pitch, onset, np.maximum(silent, onset + 1))
        _add_triangles(maps[_OFFSET], pitch, offset)
        before = maps[_ONSET].copy()
        _add_triangles(maps[_ONSET], pitch, onset)
        _add_velocities(maps[_VELOCITY], maps[_ONSET] > before, pitch, onset, velocity)
    return maps


def _add_boxes(
    target: NDArray[np.float32], pitch: NDArray[np.int_], start: NDArray[np.float64], end: NDArray[np.float64]
) -> None:
    """1 in the frames from start to end."""
    first = np.clip(np.ceil(start), 0, len(target)).astype(int)
    last = np.clip(np.ceil(end), 0, len(target)).astype(int)
    for p, a, b in zip(pitch, first, last, strict=True):
        target[a:b, p] = 1.0


def _triangles(
    centre: NDArray[np.float64], frames: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Row of the centre, frame and height of all frames that triangles reach."""
    reach = np.arange(-int(SLOPE_FRAMES), int(SLOPE_FRAMES) + 1)
    frame = np.rint(centre)[:, None].astype(int) + reach
    height = 1 - np.abs(frame - centre[:, None]) / SLOPE_FRAMES
    row, column = np.nonzero((height > 0) & (frame >= 0) & (frame < frames))
    return row, frame[row, column], height[row, column].astype(np.float32)


def _add_triangles(target: NDArray[np.float32], pitch: NDArray[np.int_], centre: NDArray[np.float64]) -> None:
    """The higher of what is there and a triangle."""
    row, frame, height = _triangles(centre, len(target))
    np.maximum.at(target, (frame, pitch[row]), height)


def _add_velocities(
    target: NDArray[np.float32],
    is_new: NDArray[np.bool_],
    pitch: NDArray[np.int_],
    onset: NDArray[np.float64],
    velocity: NDArray[np.float32],
) -> None:
    """The velocity of a note in the frames of its triangle, where that is the highest so far."""
    row, frame, _ = _triangles(onset, len(target))
    wins = is_new[frame, pitch[row]]
    target[frame[wins], pitch[row[wins]]] = velocity[row[wins]]
