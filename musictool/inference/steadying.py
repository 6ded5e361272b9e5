"""Notes out of a model that hears two seconds at a time, made steadier than its segments.

MT3 decodes each segment alone, so that at a border a note may be cut, its instrument may change, and what lies there is
heard with half of its surroundings. Three remedies:

- `read_segments` lets a tie or a release find its note by pitch where the segment calls its instrument otherwise.
- `agree` merges two readings of the same sound whose segments begin half a segment apart: an onset that both heard is
  their mean, an offset is taken from the reading in the middle of whose segment it lies, and what only one of them
  heard stays if it lies in the middle of that one's segment.
- `without_flips` gives notes of an instrument that is heard in one segment, and in none of those around it, to the
  instrument around it that plays nearest in pitch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes
from musictool.symbolic.schemes.mt3 import STEPS_PER_SECOND, STRUCK_VELOCITY, VOCABULARY, segment_start
from musictool.symbolic.vocabulary import Ids

SAME_ONSET_SECONDS = 0.1  # two readings of one onset are hardly farther apart, and repeated notes hardly closer
SEGMENTS_AROUND = 3
_REGISTER_SEMITONES = 6.0

_SHIFT, _PITCH, _VELOCITY, _TIE, _PROGRAM, _DRUM = (
    VOCABULARY.range_index(type) for type in ("Shift", "Pitch", "Velocity", "Tie", "Program", "Drum")
)


class _Event(NamedTuple):
    """A note of a segment: tied into it, or struck or released `step` steps after its start."""

    step: int
    is_tied: bool
    is_struck: bool
    is_drum: bool
    program: int
    pitch: int


class _Reader:
    """Segments to notes; program and velocity are carried from segment to segment, as in the published decoder."""

    def __init__(self) -> None:
        self._program = 0
        self._is_struck = True
        self._sounding: dict[tuple[int, int], int] = {}  # (pitch, program) -> step of the onset
        self._rows: list[tuple[int, int, int, int, bool]] = []
        self._step = 0

    def read(self, number: int, ids: Ids) -> None:
        """Take in a segment by its number."""
        start = int(segment_start(np.int64(number)))
        events = list(self._events(ids))
        tied = {(event.pitch, event.program) for event in events if event.is_tied}
        tied_pitches = {pitch for pitch, _ in tied}
        for note in list(self._sounding):
            if note not in tied and note[0] not in tied_pitches:
                self._end(note, start)
        for event in events:
            if not event.is_tied:
                self._step = start + event.step
                self._play(event)

    def finish(self, origin_seconds: float) -> Notes:
        """All notes; those that still sound end with the last event."""
        for note in list(self._sounding):
            self._end(note, self._step)
        if not self._rows:
            return Notes.empty()
        on, off, pitch, program, is_drum = (np.array(column) for column in zip(*self._rows, strict=True))
        onset = np.maximum(on / STEPS_PER_SECOND + origin_seconds, 0.0)
        offset = np.maximum(off / STEPS_PER_SECOND + origin_seconds, onset + 1 / STEPS_PER_SECOND)
        return Notes.of(onset, offset, pitch, STRUCK_VELOCITY, program, is_drum)

    def _events(self, ids: Ids) -> Iterator[_Event]:
        is_tied, step, is_in_run = True, 0, False
        for kind, value in zip(VOCABULARY.range_of_id[ids].tolist(), VOCABULARY.value_of_id[ids].tolist(), strict=True):
            if kind == _SHIFT:
                step = step + value if is_in_run else value
            elif kind == _TIE:
                is_tied = False
            elif kind == _PROGRAM:
                self._program = value
            elif kind == _VELOCITY:
                self._is_struck = value == 1
            elif kind == _PITCH:
                yield _Event(step, is_tied, self._is_struck, False, self._program, value)
            elif kind == _DRUM:
                yield _Event(step, False, self._is_struck, True, 0, value)
            is_in_run = kind == _SHIFT

    def _play(self, event: _Event) -> None:
        note = (event.pitch, event.program)
        if event.is_drum:
            if event.is_struck:
                self._rows.append((self._step, self._step + 1, event.pitch, 0, True))
        elif event.is_struck:
            if note in self._sounding:
                self._end(note, self._step)
            self._sounding[note] = self._step
        elif note in self._sounding:
            self._end(note, self._step)
        else:
            for other in list(self._sounding):
                if other[0] == event.pitch:
                    self._end(other, self._step)
                    break

    def _end(self, note: tuple[int, int], step: int) -> None:
        onset = self._sounding.pop(note)
        self._rows.append((onset, max(step, onset + 1), *note, False))


def read_segments(segments: Iterable[Ids], origin_seconds: float = 0.0) -> Notes:
    """Notes of segments of scheme `mt3`, ties and releases found by pitch where they are not found by instrument.

    Args:
        segments: int32 [t] each, in order.
        origin_seconds: when the first one begins; what it puts before the start of the piece begins there.
    """
    reader = _Reader()
    for number, ids in enumerate(segments):
        reader.read(number, ids)
    return reader.finish(origin_seconds)


def agree(first: Notes, second: Notes, segment_seconds: float) -> Notes:
    """One table out of two readings of one piece.

    Args:
        first: read in segments that begin at 0, 1, 2 … segments.
        second: read in segments that begin half a segment earlier.
        segment_seconds: length of a segment.
    """
    in_first, in_second = _pairs(first, second)

    def depth(seconds: NDArray[np.float64], origin: float) -> NDArray[np.float64]:
        """How far from the nearest border of its segment something lies."""
        within = (seconds - origin) % segment_seconds
        return np.minimum(within, segment_seconds - within)

    half = segment_seconds / 2
    one, other = first.take(in_first), second.take(in_second)
    is_deeper = depth(one.onset_seconds, 0) >= depth(other.onset_seconds, half)
    is_end_deeper = depth(one.offset_seconds, 0) >= depth(other.offset_seconds, half)
    onset = (one.onset_seconds + other.onset_seconds) / 2
    offset = np.where(is_end_deeper, one.offset_seconds, other.offset_seconds)
    both = one.with_columns(
        onset_seconds=onset,
        offset_seconds=np.maximum(offset, onset + 1 / STEPS_PER_SECOND),
        program=np.where(is_deeper, one.program, other.program),
    )
    alone = []
    for notes, paired, origin in ((first, in_first, 0.0), (second, in_second, half)):
        is_alone = np.ones(len(notes), bool)
        is_alone[paired] = False
        alone.append(notes.take(is_alone & (depth(notes.onset_seconds, origin) >= half / 2)))
    return Notes.concatenate([both, *alone]).sorted()


def _pairs(first: Notes, second: Notes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of two tables that are one note: of one pitch, onsets near each other, the nearest paired first."""

    def key(notes: Notes) -> NDArray[np.int64]:
        return notes.is_drum.astype(np.int64) << 7 | notes.pitch

    order = np.lexsort((second.onset_seconds, key(second)))
    place = key(second)[order] * 1e6 + second.onset_seconds[order]  # pitch by pitch, each in order of time
    wanted = key(first) * 1e6 + first.onset_seconds
    low = np.searchsorted(place, wanted - SAME_ONSET_SECONDS)
    count = np.searchsorted(place, wanted + SAME_ONSET_SECONDS, side="right") - low
    one = np.repeat(np.arange(len(first)), count)
    other = order[np.repeat(low - np.cumsum(count) + count, count) + np.arange(len(one))]
    distance = np.abs(first.onset_seconds[one] - second.onset_seconds[other])
    is_free_one, is_free_other = np.ones(len(first), bool), np.ones(len(second), bool)
    chosen = []
    for candidate in np.argsort(distance, kind="stable"):
        if is_free_one[one[candidate]] and is_free_other[other[candidate]]:
            is_free_one[one[candidate]] = is_free_other[other[candidate]] = False
            chosen.append(candidate)
    return one[chosen], other[chosen]


def without_flips(notes: Notes, segment_seconds: float) -> Notes:
    """Notes with instruments that come up for one segment alone taken back.

    Args:
        notes: by rising onset; drums stay as they are.
        segment_seconds: length of a segment.
    """
    segment = (notes.onset_seconds // segment_seconds).astype(np.int64)
    melodic = np.flatnonzero(~notes.is_drum)
    program = notes.program.copy()
    for number in np.unique(segment[melodic]):
        near = melodic[np.abs(segment[melodic] - number) <= SEGMENTS_AROUND]
        here, around = near[segment[near] == number], near[segment[near] != number]
        flipped = here[~np.isin(notes.program[here], notes.program[around])]
        if len(flipped) and len(around):
            program[flipped] = _nearest_in_register(notes, flipped, around)
    return notes.with_columns(program=program)


def _nearest_in_register(notes: Notes, flipped: NDArray[np.int64], around: NDArray[np.int64]) -> NDArray[np.int16]:
    """The program around each note that has the most notes near its pitch."""
    distance = notes.pitch[flipped, None].astype(float) - notes.pitch[around]
    weight = np.exp(-0.5 * (distance / _REGISTER_SEMITONES) ** 2)
    programs, which = np.unique(notes.program[around], return_inverse=True)
    votes = weight @ (which[:, None] == np.arange(len(programs)))  # [flipped, around] @ [around, programs]
    return programs[votes.argmax(axis=1)]
