"""Scheme `tatum`: a performance as note switches and time, in steps of 10 ms.

The vocabulary of TatumFlow, after Oore et al., "This Time with Feeling" (2018), section 3.2, with what a whole band
needs: `Program_p` or `Kit_p` says who plays from here on, `Velocity_b` how hard (bin b holds velocities 4b..4b+3; both
are written when they change), `Time_t` moves on by t steps, `Pedal_1`/`Pedal_0` press and release the sustain pedal of
whoever plays. `Bar` marks a bar line where the score has them, `Style_k` a style for a model to learn.

A pitch that one source already sounds can sound again: the second note belongs to another voice, and `Voice_v` right
before its switch says so. Within a step come releases, the bar line, pedals, then onsets by source and pitch.

What a decoder makes of any ids at all: a `NoteOff` without a sounding note is ignored, a `NoteOn` of a sounding note
ends it first, and what still sounds at the end ends there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from musictool.symbolic.metre import bar_starts
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes.columns import (
    Column,
    GridNotes,
    allocate_voices,
    changes,
    grid_pedals,
    latest,
    pedal_table,
    stable_order,
)
from musictool.symbolic.vocabulary import EventRange, Ids, Vocabulary

STEPS_PER_SECOND = 100
TIME_STEPS_MAX = 100
VELOCITY_BIN = 4
VOICES_MAX = 16

VOCABULARY = Vocabulary(
    "tatum",
    (
        EventRange("Pad"),
        EventRange("Start"),
        EventRange("End"),
        EventRange("Time", 1, TIME_STEPS_MAX),
        EventRange("NoteOn", 0, 127),
        EventRange("NoteOff", 0, 127),
        EventRange("Velocity", 0, 128 // VELOCITY_BIN - 1),
        EventRange("Program", 0, 127),  # Program and Kit stand side by side, so that a source is an offset
        EventRange("Kit", 0, 127),
        EventRange("Voice", 1, VOICES_MAX - 1),
        EventRange("Pedal", 0, 1),
        EventRange("Bar"),
        EventRange("Style", 0, 63),
    ),
)

# An event packed into one int64, so that sorting the numbers sorts the events:
# step << 27 | order within the step << 24 | source << 16 | pitch << 9 | voice << 5 | velocity bin
_RELEASE, _BAR, _PEDAL_UP, _PEDAL_DOWN, _ONSET = range(5)
_FIRST_ID_OF_ORDER = np.array(
    [
        VOCABULARY.offset("NoteOff"),
        VOCABULARY.id("Bar"),
        VOCABULARY.id("Pedal", 0),
        VOCABULARY.id("Pedal", 1),
        VOCABULARY.offset("NoteOn"),
    ]
)


def _fit(score: Score) -> GridNotes:
    """The notes that the vocabulary can say, on its grid, each with its velocity bin and voice."""
    grid = GridNotes.of(score.notes, STEPS_PER_SECOND)
    grid = allocate_voices(replace(grid, velocity=grid.velocity // VELOCITY_BIN), VOICES_MAX)
    return grid.take(grid.voice < VOICES_MAX) if (grid.voice == VOICES_MAX).any() else grid


def quantize(score: Score) -> tuple[Notes, Pedals]:
    """What `encode` keeps: notes and pedals on the grid of 10 ms and the velocity bins; `track` holds voice and source.

    Lost are only the seventeenth and further notes of one source and pitch that sound at once.
    """
    grid = _fit(score)
    middle = grid.velocity * VELOCITY_BIN + VELOCITY_BIN // 2
    kept = replace(grid, velocity=middle).notes(STEPS_PER_SECOND)
    return kept, pedal_table(*grid_pedals(score, STEPS_PER_SECOND), STEPS_PER_SECOND)


def encode(score: Score) -> Ids:
    """The ids of a score, int32 [t]."""
    grid = _fit(score)
    who = grid.source << 16 | grid.pitch << 9 | grid.voice << 5
    parts = [grid.on << 27 | _ONSET << 24 | who | grid.velocity, grid.off << 27 | _RELEASE << 24 | who]
    if len(score.pedals):
        on, off, source = grid_pedals(score, STEPS_PER_SECOND)
        parts += [on << 27 | _PEDAL_DOWN << 24 | source << 16, off << 27 | _PEDAL_UP << 24 | source << 16]
    if score.has_metre and len(grid):
        end_step = int(grid.off.max())
        end_quarter = float(score.tempo_map.quarters(end_step / STEPS_PER_SECOND))
        bar_seconds = score.tempo_map.seconds(bar_starts(score, end_quarter))
        bars = np.rint(bar_seconds * STEPS_PER_SECOND).astype(np.int64)
        parts.append(bars[bars < end_step] << 27 | _BAR << 24)
    events = np.concatenate(parts)
    events.sort()
    return _spell(events)


def _spell(events: Column) -> Ids:
    """Write packed events, sorted, as ids: [Time…] [Program | Kit] [Velocity] [Voice] then the event itself."""
    gap = np.diff(events >> 27, prepend=0)
    order, source, voice = events >> 24 & 7, events >> 16 & 255, events >> 5 & 15
    has_source = np.flatnonzero(order != _BAR)
    turn = has_source[changes(source[has_source])]
    onset = np.flatnonzero(order == _ONSET)
    dynamic = onset[changes(events[onset] & 31)]
    other_voice = np.flatnonzero(voice)

    waits = (gap + TIME_STEPS_MAX - 1) // TIME_STEPS_MAX
    count = waits + 1
    for at in (turn, dynamic, other_voice):
        count[at] += 1
    end = np.cumsum(count)
    ids = np.full(end[-1] if len(end) else 0, VOCABULARY.id("Time", TIME_STEPS_MAX), np.int32)
    next_free = end - count + waits
    waited = np.flatnonzero(waits)
    ids[next_free[waited] - 1] = VOCABULARY.offset("Time") + gap[waited] - (waits[waited] - 1) * TIME_STEPS_MAX
    for at, first_id, value in (
        (turn, VOCABULARY.offset("Program"), source),
        (dynamic, VOCABULARY.offset("Velocity"), events & 31),
        (other_voice, VOCABULARY.offset("Voice"), voice),
    ):
        ids[next_free[at]] = first_id + value[at]
        next_free[at] += 1
    ids[end - 1] = _FIRST_ID_OF_ORDER[order] + (events >> 9 & 127)
    return ids


_TIME, _NOTE_ON, _NOTE_OFF, _VELOCITY, _PROGRAM, _KIT, _VOICE, _PEDAL = (
    VOCABULARY.range_index(type)
    for type in ("Time", "NoteOn", "NoteOff", "Velocity", "Program", "Kit", "Voice", "Pedal")
)
_STEPS_OF_ID = np.where(VOCABULARY.range_of_id == _TIME, VOCABULARY.value_of_id, 0).astype(np.int64)


_STEP_BITS = (1 << 48) - 1


class Decoder:
    """Ids to notes, chunk by chunk; what sounds at a chunk's end is carried into the next."""

    def __init__(self) -> None:
        self.keeps_pedals = True
        self._step = 0
        self._source = 0
        self._bin = 64 // VELOCITY_BIN
        self._voice = 0
        self._key = self._on = self._velocity = np.zeros(0, np.int64)  # of the notes that sound
        self._pedals = [np.zeros(0, np.int64)]  # source << 48 | step << 1 | whether down: there may be millions

    def feed(self, ids: Ids) -> Notes:
        """The notes that end within these ids, int32 [t]; `track` holds the voice."""
        kind, value = VOCABULARY.range_of_id[ids], VOCABULARY.value_of_id
        step = np.cumsum(_STEPS_OF_ID[ids]) + self._step
        turns = np.flatnonzero((kind == _PROGRAM) | (kind == _KIT))
        turn_sources = ids[turns].astype(np.int64) - VOCABULARY.offset("Program")
        dynamics = np.flatnonzero(kind == _VELOCITY)

        at = np.flatnonzero((kind == _NOTE_ON) | (kind == _NOTE_OFF))
        source = latest(turns, turn_sources, at, self._source)
        bins = latest(dynamics, value[ids[dynamics]].astype(np.int64), at, self._bin)
        voices = np.where(kind == _VOICE, value[ids], 0)
        voice = np.append(self._voice, voices)[at]  # the token right before each switch
        key = source << 11 | value[ids[at]].astype(np.int64) << 4 | voice

        pedals = np.flatnonzero(kind == _PEDAL)
        if len(pedals):
            pedal_source = latest(turns, turn_sources, pedals, self._source)
            turned = pedal_source << 48 | step[pedals] << 1 | value[ids[pedals]]
            if self.keeps_pedals:
                self._pedals.append(turned)
            else:  # down from the start, up at the last turn
                source = turned[-1] >> 48 << 48
                self._pedals = [np.array([source | 1, source | int(step[pedals[-1]]) << 1])]
        notes = self._pair(key, step[at], kind[at] == _NOTE_ON, bins)
        if len(ids):
            self._step, self._voice = int(step[-1]), int(voices[-1])
            self._source = int(turn_sources[-1]) if len(turns) else self._source
            self._bin = int(value[ids[dynamics[-1]]]) if len(dynamics) else self._bin
        return notes

    def finish(self) -> Score:
        """The notes that still sound, ended at the last step, and every pedal press; `track` holds the source there."""
        count = len(self._key)
        notes = self._pair(self._key, np.full(count, self._step), np.zeros(count, np.bool_), self._velocity)
        return Score(notes, pedals=self._presses())

    def _pair(self, key: Column, step: Column, is_on: np.ndarray, bins: Column) -> Notes:
        """Close every onset with the next switch of its key; keep those that have none."""
        key = np.concatenate([self._key, key])
        step = np.concatenate([self._on, step])
        is_on = np.concatenate([np.ones(len(self._key), np.bool_), is_on])
        bins = np.concatenate([self._velocity, bins])
        order = stable_order(key)
        ordered_key, ordered_on = key[order], is_on[order]
        has_next = np.append(ordered_key[1:] == ordered_key[:-1], False)
        closed, sounding = np.flatnonzero(ordered_on & has_next), order[ordered_on & ~has_next]
        on, off = step[order[closed]], step[order[closed + 1]]
        who = ordered_key[closed]
        velocity = bins[order[closed]] * VELOCITY_BIN + VELOCITY_BIN // 2
        grid = GridNotes(on, np.maximum(off, on + 1), who >> 11, who >> 4 & 127, velocity, who & 15)
        self._key, self._on, self._velocity = key[sounding], step[sounding], bins[sounding]
        return grid.notes(STEPS_PER_SECOND)

    def _presses(self) -> Pedals:
        """From the first down of a source to its next up, or to the last step."""
        events = np.concatenate(self._pedals)
        self._pedals = []
        events = events[np.argsort((events >> 48).astype(np.int16), kind="stable")]
        events = events[changes(events >> 48 << 1 | events & 1)]
        down = np.flatnonzero(events & 1)
        up = np.append(events, -1)[down + 1]
        events = events[down]
        on, off = (events & _STEP_BITS) >> 1, (up & _STEP_BITS) >> 1
        off[up >> 48 != events >> 48] = self._step
        held = off > on
        return pedal_table(on[held], off[held], events[held] >> 48, STEPS_PER_SECOND)
