"""One piano as ids of scheme `tatum`, and where in time each id stands.

What models of piano music read and write: the ids Time, NoteOn, NoteOff, Velocity and Pedal, and no others. Whoever
plays becomes one piano, drums aside. A piano has one string for a key: where a note begins that sounds already, the
earlier one ends, and of notes of one key that begin in one tick the loudest stays. Knows nothing of models: what
begins, ends or fills up a sequence is theirs to add.

A tick is 10 ms, the step of the scheme. A frame is 25 ticks, what one latent of a model stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.schemes.tatum import STEPS_PER_SECOND, VOCABULARY, encode
from musictool.symbolic.vocabulary import Ids

TICKS_PER_SECOND = STEPS_PER_SECOND
FRAME_TICKS = 25
FRAME_SECONDS = FRAME_TICKS / TICKS_PER_SECOND
PIANO_TYPES = ("Time", "NoteOn", "NoteOff", "Velocity", "Pedal")

IS_PIANO_ID = np.isin(VOCABULARY.range_of_id, [VOCABULARY.range_index(kind) for kind in PIANO_TYPES])
"""bool [V]: which ids of the vocabulary say something of one piano."""

_TICKS_OF_ID = np.where(VOCABULARY.range_of_id == VOCABULARY.range_index("Time"), VOCABULARY.value_of_id, 0)

Ticks = NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class Piano:
    """What one piano plays: n notes by onset, then pitch, and p presses of the sustain pedal by onset.

    Attributes:
        onset: int32 [n] in ticks.
        offset: int32 [n] in ticks, at least one after the onset and at most the next onset of the pitch.
        pitch: uint8 [n].
        velocity: uint8 [n], 1..127.
        pedal_onset: int32 [p] in ticks.
        pedal_offset: int32 [p] in ticks, before the next onset.
    """

    onset: Ticks
    offset: Ticks
    pitch: NDArray[np.uint8]
    velocity: NDArray[np.uint8]
    pedal_onset: Ticks
    pedal_offset: Ticks

    @classmethod
    def of(cls, notes: Notes, pedals: Pedals | None = None) -> Piano:
        """Give all notes but drums, and the presses of every track, to one piano."""
        notes = notes.take(~notes.is_drum) if notes.is_drum.any() else notes
        pedals = Pedals.of() if pedals is None else pedals
        return cls.on_grid(
            np.rint(notes.onset_seconds * TICKS_PER_SECOND),
            np.rint(notes.offset_seconds * TICKS_PER_SECOND),
            notes.pitch,
            notes.velocity,
            np.rint(pedals.onset_seconds * TICKS_PER_SECOND),
            np.rint(pedals.offset_seconds * TICKS_PER_SECOND),
        )

    @classmethod
    def on_grid(
        cls,
        onset: NDArray,
        offset: NDArray,
        pitch: NDArray,
        velocity: NDArray,
        pedal_onset: NDArray,
        pedal_offset: NDArray,
    ) -> Piano:
        """Make one of any notes, [n] in whole ticks, and presses, [p]; those that meet are joined."""
        order = np.lexsort((offset, velocity, onset, pitch))
        onset, offset, pitch, velocity = onset[order], offset[order], pitch[order], velocity[order]
        following = np.append(np.where(pitch[1:] == pitch[:-1], onset[1:], np.inf), np.inf)[: len(onset)]
        kept = np.flatnonzero(following > onset)
        kept = kept[np.lexsort((pitch[kept], onset[kept]))]
        offset = np.minimum(np.maximum(offset, onset + 1), following)
        return cls(
            onset[kept].astype(np.int32),
            offset[kept].astype(np.int32),
            pitch[kept].astype(np.uint8),
            velocity[kept].astype(np.uint8),
            *_joined(pedal_onset, pedal_offset),
        )

    def __len__(self) -> int:
        return len(self.onset)

    @property
    def end(self) -> int:
        """The last offset in ticks, 0 without notes."""
        return int(self.offset.max()) if len(self) else 0

    def between(self, start: int, stop: int) -> Piano:
        """The notes that begin in the ticks [start, stop), with times from `start`.

        Notes that last longer end at `stop`. What began before `start` is left out, but for a pedal that is held then:
        it goes down at 0.
        """
        rows = slice(*np.searchsorted(self.onset, (start, stop)))
        presses = slice(np.searchsorted(self.pedal_offset, start, "right"), np.searchsorted(self.pedal_onset, stop))
        return Piano(
            self.onset[rows] - np.int32(start),
            np.minimum(self.offset[rows], stop) - np.int32(start),
            self.pitch[rows],
            self.velocity[rows],
            np.maximum(self.pedal_onset[presses], start) - np.int32(start),
            np.minimum(self.pedal_offset[presses], stop) - np.int32(start),
        )

    def notes(self) -> Notes:
        """The notes as a table."""
        return Notes.of(self.onset / TICKS_PER_SECOND, self.offset / TICKS_PER_SECOND, self.pitch, self.velocity)

    def pedals(self) -> Pedals:
        """The presses as a table."""
        down, up = self.pedal_onset / TICKS_PER_SECOND, self.pedal_offset / TICKS_PER_SECOND
        return Pedals.of(down, up, np.zeros(len(down), np.int16))

    def ids(self) -> Ids:
        """The ids, int32 [T], from time 0 to the last release."""
        ids = encode(Score(self.notes(), pedals=self.pedals()))
        return ids[IS_PIANO_ID[ids]]  # all but the one that says who plays


def piano_ids(notes: Notes, pedals: Pedals | None = None) -> Ids:
    """The ids of notes and presses of the sustain pedal as one piano plays them, int32 [T]."""
    return Piano.of(notes, pedals).ids()


def ticks_of_ids(ids: Ids) -> NDArray[np.int64]:
    """When each id happens, int64 [T] in ticks from the start; a Time stands where it arrives."""
    return np.cumsum(_TICKS_OF_ID[ids], dtype=np.int64)


def frames_of_ids(ids: Ids) -> NDArray[np.int64]:
    """The frame that each id stands in, int64 [T]; the releases at the end of the last frame stand behind it."""
    return ticks_of_ids(ids) // FRAME_TICKS


def score_of_ids(ids: Ids) -> Score:
    """The piano's notes and presses that ids say, int32 [T] of any; what is not one of the piano's says nothing."""
    score = find_scheme("tatum").decode([ids[IS_PIANO_ID[ids]]])
    return replace(score, notes=score.notes.sorted())


def _joined(down: NDArray, up: NDArray) -> tuple[Ticks, Ticks]:
    """Presses, [p] in ticks, of at least one tick and by onset; those that meet are one."""
    order = np.argsort(down, kind="stable")
    down = down[order]
    up = np.maximum.accumulate(np.maximum(up[order], down + 1))
    is_apart = down[1:] > up[:-1]
    first, last = np.append(True, is_apart)[: len(down)], np.append(is_apart, True)[: len(down)]
    return down[first].astype(np.int32), up[last].astype(np.int32)
