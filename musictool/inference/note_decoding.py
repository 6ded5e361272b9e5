"""Probabilities of a note tagger -> notes.

A note begins at a peak of the onset map, and ends at the next peak of the offset map, where its frames fall silent, or
where its pitch begins anew, whichever comes first. Peaks stand on triangles, whose slopes tell the time more
finely than a frame (Kong et al., 2021, section III-B). Frames are taken as they come, any number at once; what is kept
of them is a few numbers a note.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.models.note_tagger import LOWEST_PITCH, PITCHES, NoteThresholds
from musictool.symbolic.notes import Notes

REACH_FRAMES = 2  # on either side, over which a peak is the highest
SHORTEST_FRAMES = 2  # of a note; before them no end is looked for
_STRIDE = 1 << 40  # frames, more than any piece has: place = pitch * stride + frame

Places = NDArray[np.int64]


class _Peaks(NamedTuple):
    """Peaks of a map: where, the frame more finely, and what another map says there; [n] each."""

    place: Places
    frame: NDArray[np.float64]
    value: NDArray[np.float32]


class NoteDecoder:
    """Makes notes of frames that come in blocks.

    Args:
        thresholds: how sure the net must be.
        hop_seconds: from frame to frame.
    """

    def __init__(self, thresholds: NoteThresholds, hop_seconds: float) -> None:
        self._thresholds = thresholds
        self._hop_seconds = hop_seconds
        self._waiting = np.zeros((4, REACH_FRAMES, PITCHES), np.float32)  # frames that still lack neighbours
        self._next_frame = 0  # the first whose neighbours are not all known
        self._is_silent = np.zeros(PITCHES, bool)
        self._onsets: list[_Peaks] = []
        self._offsets: list[_Peaks] = []
        self._turns: list[Places] = []  # where pitches fall silent, and where they are silent no more, by turns

    def feed(self, maps: NDArray[np.float32]) -> None:
        """Take the next frames.

        Args:
            maps: float32 [4, T, 88]: onset, frame, offset and velocity, each 0..1.
        """
        block = np.concatenate([self._waiting, maps], axis=1)
        self._waiting = block[:, -2 * REACH_FRAMES :]
        if block.shape[1] < 2 * REACH_FRAMES:
            return
        onset, frame, offset, velocity = block
        self._onsets.append(self._peaks(onset, self._thresholds.onset, velocity))
        self._offsets.append(self._peaks(offset, self._thresholds.offset, velocity))
        is_low = frame < self._thresholds.frame
        is_silent = (is_low[:-1] & is_low[1:])[REACH_FRAMES : len(frame) - REACH_FRAMES]  # one low frame is no silence
        before = np.concatenate([self._is_silent[None], is_silent])
        turned, pitch = np.nonzero(before[1:] != before[:-1])
        self._turns.append(pitch * _STRIDE + turned + self._next_frame)
        self._is_silent = before[-1]
        self._next_frame += len(is_silent)

    def notes(self) -> Notes:
        """The notes, as if the sound ended here, by onset; takes no more frames afterwards."""
        self.feed(np.zeros((4, REACH_FRAMES, PITCHES), np.float32))
        onsets, offsets = _joined(self._onsets), _joined(self._offsets)
        earliest = onsets.place + SHORTEST_FRAMES
        end = np.minimum(
            _following(onsets.place + 1, onsets.place, onsets.frame),
            _following(earliest, offsets.place, offsets.frame),
        )
        end = np.minimum(end, _first_silence(earliest, np.sort(np.concatenate(self._turns))))
        end = np.minimum(end, float(self._next_frame))
        return Notes.of(
            onsets.frame * self._hop_seconds,
            end * self._hop_seconds,
            onsets.place // _STRIDE + LOWEST_PITCH,
            np.clip(np.rint(onsets.value * 127), 1, 127),
        ).sorted()

    def _peaks(self, probability: NDArray[np.float32], threshold: float, other: NDArray[np.float32]) -> _Peaks:
        """Peaks among the frames that have all neighbours; the first of equals within reach.

        So onsets of one pitch that lie 3.0 frames apart, both halfway between frames, are one peak.

        Args:
            probability: float32 [T, 88].
            threshold: what a peak reaches.
            other: float32 [T, 88], to be read at the peaks.
        """
        reach, count = REACH_FRAMES, len(probability) - 2 * REACH_FRAMES
        middle = probability[reach : reach + count]
        is_peak = middle >= threshold
        for distance in range(1, reach + 1):
            is_peak &= middle > probability[reach - distance :][:count]
            is_peak &= middle >= probability[reach + distance :][:count]
        frame, pitch = np.nonzero(is_peak)
        left, top, right = (probability[frame + reach + step, pitch].astype(np.float64) for step in (-1, 0, 1))
        slope = top - np.minimum(left, right)  # more than 0, since a peak is higher than what is left of it
        place = pitch * _STRIDE + frame + self._next_frame
        return _Peaks(place, frame + self._next_frame + (right - left) / (2 * slope), other[frame + reach, pitch])


def _joined(parts: list[_Peaks]) -> _Peaks:
    """Peaks of all blocks, by place."""
    place, frame, value = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(place)
    return _Peaks(place[order], frame[order], value[order])


def _following(earliest: Places, places: Places, frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each place the frame of the first of some sorted places at or after it in its pitch; else infinity."""
    at = np.searchsorted(places, earliest)
    found = np.append(places, np.iinfo(np.int64).max)[at]
    return np.where(found // _STRIDE == earliest // _STRIDE, np.append(frames, np.inf)[at], np.inf)


def _first_silence(earliest: Places, turns: Places) -> NDArray[np.float64]:
    """The first silent frame at or after each place in its pitch; infinity where it sounds to the end.

    A pitch sounds before its first turn, so that its turns lead into silence and out of it by turns.
    """
    pitch = earliest // _STRIDE
    at = np.searchsorted(turns, earliest, side="right")
    turns_before = at - np.searchsorted(turns, pitch * _STRIDE)
    following = np.append(turns, np.iinfo(np.int64).max)[at]
    next_turn = np.where(following // _STRIDE == pitch, following % _STRIDE, np.inf)
    return np.where(turns_before % 2 == 1, earliest % _STRIDE, next_turn)
