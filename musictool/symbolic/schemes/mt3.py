"""Scheme `mt3`: the vocabulary of the published MT3 model (Gardner et al., 2022, section 3.2), ids as in its checkpoint.

Time runs in segments of 2.048 s, each a run of ids of its own: the notes that still sound (`Program`, `Pitch`), `Tie`,
then events in steps of 10 ms, closed by `End`. `Shift_t` says how far from the segment's start, floored to a step, the
next events are; `Program` and `Velocity` (0 releases, 1 strikes) are written when they change within a segment; a drum is
`Velocity_1 Drum_p` and has no release. The published code, `note_sequences.py` and `run_length_encoding.py`, decides
the order of events and what a decoder makes of ids that make no sense.

A note is known by its program and pitch, so two that overlap on both cannot be told apart: the earlier one ends where
the later begins. Velocity, kits, pedals and the length of drum notes are not kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes.columns import DRUM_SOURCE, Column, GridNotes, changes, latest
from musictool.symbolic.vocabulary import EventRange, Ids, Vocabulary

STEPS_PER_SECOND = 100
STRUCK_VELOCITY = 127
SEGMENT_IDS_MAX = 1 << 17  # far above any music (214 on real recordings): what a decoder holds back for a segment's end
TIES_MAX = 20_000_000

VOCABULARY = Vocabulary(
    "mt3",
    (
        EventRange("Pad"),
        EventRange("End"),
        EventRange("Unknown"),
        EventRange("Shift", 0, 1000),
        EventRange("Pitch", 0, 127),
        EventRange("Velocity", 0, 1),
        EventRange("Tie"),
        EventRange("Program", 0, 127),
        EventRange("Drum", 0, 127),
        EventRange("Extra", 0, 99),
        EventRange("Unused", 0, 44),
    ),
)
END = VOCABULARY.id("End")
TIE = VOCABULARY.id("Tie")


def segment_start(segment: Column) -> Column:
    """The first step of segments, both int64: 2.048 s each, floored to 10 ms."""
    return segment * 1024 // 5


def segment_of(step: Column) -> Column:
    """The segment that steps belong to, both int64; the inverse of `segment_start`."""
    return -(-5 * (step + 1) // 1024) - 1


def _fit(score: Score) -> GridNotes:
    """The notes that the vocabulary can say, by source, pitch and onset."""
    grid = GridNotes.of(score.notes, STEPS_PER_SECOND)
    is_drum = grid.source >= DRUM_SOURCE
    source = np.where(is_drum, DRUM_SOURCE, grid.source)
    off = np.where(is_drum, grid.on + 1, grid.off)
    grid = GridNotes(grid.on, off, source, grid.pitch, np.full_like(grid.on, STRUCK_VELOCITY), grid.voice)
    grid = grid.take(np.lexsort((grid.off, grid.on, grid.key())))
    key = grid.key()
    is_same_key = key[1:] == key[:-1]
    if (is_same_key & (grid.on[1:] < grid.off[:-1])).any():
        # Of notes struck together the longest stays; a note that sounds on is cut where the next begins.
        stays = np.append(~(is_same_key & (grid.on[1:] == grid.on[:-1])), True)
        grid, key = grid.take(stays), key[stays]
        next_on = np.append(np.where(key[1:] == key[:-1], grid.on[1:], grid.off[:-1]), grid.off[-1:])
        grid = GridNotes(
            grid.on, np.minimum(grid.off, next_on), grid.source, grid.pitch, grid.velocity, grid.voice
        )
    return grid


def quantize(score: Score) -> tuple[Notes, Pedals]:
    """What `encode` keeps: notes on the grid of 10 ms, struck with velocity 127, drums of kit 0 for one step."""
    return _fit(score).notes(STEPS_PER_SECOND), Pedals.of()


# An event packed into one int64, so that sorting the numbers sorts the events:
# segment << 34 | part of the segment << 32 | step within it << 20 | order << 16 | source << 8 | pitch
_TIED, _TIE, _PLAYED, _END = range(4)
_OFF, _ON = range(2)


def encode(score: Score) -> Ids:
    """The ids of a score, int32 [t]: whole segments up to the one that holds the last event.

    Raises:
        InputError: notes so long that their ties alone are more than 20 million events.
    """
    grid = _fit(score)
    who = grid.source << 8 | grid.pitch
    on_segment, off_segment = segment_of(grid.on), segment_of(grid.off)
    is_melodic = grid.source < DRUM_SOURCE
    ties = np.where(is_melodic, off_segment - on_segment, 0)
    if int(ties.sum()) > TIES_MAX:
        raise InputError(
            f"{int(ties.sum()):,} ties are too many for scheme mt3",
            hint="the file holds notes of many minutes; mtk validate lists them, and scheme tatum keeps them",
            code="too-long",
        )
    segments = np.arange(1 + max(int(on_segment.max()), int(off_segment[is_melodic].max(initial=0))) if len(grid) else 1)
    tied = np.repeat(np.arange(len(grid)), ties)
    tied_segment = off_segment[tied] - (np.cumsum(ties)[tied] - np.arange(len(tied)) - 1)

    on_step = grid.on - segment_start(on_segment)
    off_step = (grid.off - segment_start(off_segment))[is_melodic]
    played = _PLAYED << 32
    events = np.concatenate(
        [
            tied_segment << 34 | _TIED << 32 | who[tied],
            segments << 34 | _TIE << 32,
            on_segment << 34 | played | on_step << 20 | _ON << 16 | who,
            off_segment[is_melodic] << 34 | played | off_step << 20 | _OFF << 16 | who[is_melodic],
            segments << 34 | _END << 32,
        ]
    )
    events.sort()
    return _spell(events)


def _spell(events: Column) -> Ids:
    """Write packed events, sorted, as ids: [Shift] [Program] [Velocity] then Pitch, Drum, Tie or End."""
    segment, part = events >> 34, events >> 32 & 3
    step, struck = events >> 20 & 0xFFF, events >> 16 & 1
    source, pitch = events >> 8 & 0xFF, events & 0x7F
    is_note = (part == _TIED) | (part == _PLAYED)
    is_drum = is_note & (source >= DRUM_SOURCE)

    # Parts other than _PLAYED have step 0, so a change of step is a change of time; time 0 needs no shift.
    shift = np.flatnonzero(changes(segment << 12 | step) & (step > 0))
    melodic = np.flatnonzero(is_note & ~is_drum)
    turn = melodic[changes((segment << 8 | source)[melodic])]
    played = np.flatnonzero(part == _PLAYED)
    dynamic = played[changes((segment << 1 | struck)[played])]

    count = np.ones(len(events), np.int64)
    for at in (shift, turn, dynamic):
        count[at] += 1
    end = np.cumsum(count)
    ids = np.empty(end[-1], np.int32)
    next_free = end - count
    for at, first_id, value in (
        (shift, VOCABULARY.offset("Shift"), step),
        (turn, VOCABULARY.offset("Program"), source),
        (dynamic, VOCABULARY.offset("Velocity"), struck),
    ):
        ids[next_free[at]] = first_id + value[at]
        next_free[at] += 1
    first_id = np.where(is_drum, VOCABULARY.offset("Drum"), VOCABULARY.offset("Pitch"))
    ids[end - 1] = np.where(is_note, first_id + pitch, np.where(part == _TIE, TIE, END))
    return ids


_SHIFT, _PITCH, _VELOCITY, _TIE_RANGE, _PROGRAM, _DRUM = (
    VOCABULARY.range_index(type) for type in ("Shift", "Pitch", "Velocity", "Tie", "Program", "Drum")
)


class Decoder:
    """Ids to notes, whole segments at a time; what sounds at a chunk's end is carried into the next.

    Ids that make no sense are passed over as the published decoder does: ties and releases of notes that do not sound,
    events before the time already reached, and the rest of a segment from the first event beyond the segment's end.
    """

    def __init__(self) -> None:
        self._held = np.zeros(0, np.int32)  # an unfinished segment
        self._segment = 0
        self._step = 0  # time reached
        self._program = 0
        self._velocity = 1  # before the first velocity token a pitch counts as struck
        self._key = self._on = np.zeros(0, np.int64)  # of the notes that sound

    def feed(self, ids: Ids) -> Notes:
        """The notes that end within the segments that these ids complete, int32 [t].

        Raises:
            InputError: a segment is impossibly long.
        """
        ids = np.concatenate([self._held, ids]) if len(self._held) else ids
        ends = np.flatnonzero(ids == END)
        whole = int(ends[-1]) + 1 if len(ends) else 0
        self._held = ids[whole:].copy()
        if len(self._held) > SEGMENT_IDS_MAX:
            raise InputError(
                f"a segment of more than {SEGMENT_IDS_MAX:,} tokens", hint="scheme mt3 ends each 2.048 s with End"
            )
        return self._decode(ids[:whole])

    def finish(self) -> Score:
        """The notes of an unfinished segment and those that still sound, ended at the time of the last event."""
        closed = self._decode(self._held)
        on = self._on
        rest = GridNotes(
            on,
            np.maximum(self._step, on + 1),
            self._key >> 7,
            self._key & 127,
            np.full_like(on, STRUCK_VELOCITY),
            np.zeros_like(on),
        )
        return Score(Notes.concatenate([closed, rest.notes(STEPS_PER_SECOND)]))

    def _decode(self, ids: Ids) -> Notes:
        if not len(ids):
            return Notes.empty()
        kind, value = VOCABULARY.range_of_id[ids], VOCABULARY.value_of_id[ids].astype(np.int64)
        is_end = ids == END
        segment = self._segment + np.cumsum(is_end) - is_end
        start = segment_start(segment)
        step, is_late = _times(kind == _SHIFT, value, segment, start)

        # An event counts if it is not late and time has not run backwards.
        is_event = (kind >= _PITCH) & (kind <= _DRUM) & ~is_late
        reached = np.maximum.accumulate(np.where(is_event, step, self._step))
        reached = np.maximum(reached, self._step)
        is_event &= step >= reached

        turns, dynamics = (np.flatnonzero(is_event & (kind == k)) for k in (_PROGRAM, _VELOCITY))
        program = latest(turns, value[turns], np.arange(len(ids)), self._program)
        velocity = latest(dynamics, value[dynamics], np.arange(len(ids)), self._velocity)
        notes = self._pair(kind, value, segment, step, is_event, program, velocity)

        self._step = int(reached[-1])
        self._program = int(value[turns[-1]]) if len(turns) else self._program
        self._velocity = int(value[dynamics[-1]]) if len(dynamics) else self._velocity
        self._segment = int(segment[-1]) + int(is_end[-1])
        return notes

    def _pair(
        self,
        kind: NDArray[np.uint8],
        value: Column,
        segment: Column,
        step: Column,
        is_event: NDArray[np.bool_],
        program: Column,
        velocity: Column,
    ) -> Notes:
        """Follow every note from its onset over the ties that carry it to the event or the border that ends it."""
        ties = np.flatnonzero(is_event & (kind == _TIE_RANGE))
        borders = ties[changes(segment[ties])]  # only a segment's first Tie counts
        border_step = step[borders]
        position = np.arange(len(kind))
        passed = np.searchsorted(borders, position, side="right")  # borders up to here
        # Pitches before their segment's border list what goes on; in a segment without one they say nothing.
        with_border = np.zeros(len(kind), np.bool_)
        border_segments = segment[borders]
        where = np.searchsorted(border_segments, segment)
        inside = where < len(borders)
        with_border[inside] = border_segments[where[inside]] == segment[inside]
        is_listing = with_border & (position < borders[np.minimum(where, len(borders) - 1)]) if len(borders) else with_border

        drums = np.flatnonzero(is_event & (kind == _DRUM) & (velocity > 0))
        pitches = np.flatnonzero(is_event & (kind == _PITCH) & with_border)
        listing = is_listing[pitches]
        level = passed[pitches] + listing  # borders behind the note once this event has happened
        key = np.concatenate([self._key, program[pitches] << 7 | value[pitches]])
        time = np.concatenate([self._on, step[pitches]])
        level = np.concatenate([np.zeros(len(self._key), np.int64), level])
        is_listing = np.concatenate([np.zeros(len(self._key), np.bool_), listing])
        is_on = np.concatenate([np.ones(len(self._key), np.bool_), ~listing & (velocity[pitches] > 0)])

        # A key's events in order; one that lists the note right after the border before it only prolongs that note.
        order = np.argsort(key, kind="stable")
        key, time, level, is_listing, is_on = key[order], time[order], level[order], is_listing[order], is_on[order]
        repeated = np.append(False, (key[1:] == key[:-1]) & is_listing[1:] & is_listing[:-1] & (level[1:] == level[:-1]))
        if repeated.any():
            key, time, level, is_listing, is_on = (c[~repeated] for c in (key, time, level, is_listing, is_on))
        is_open = is_on | is_listing
        prolongs = np.zeros(len(key), np.bool_)
        prolongs[1:] = (key[1:] == key[:-1]) & is_listing[1:] & is_open[:-1] & (level[1:] == level[:-1] + 1)

        head = np.maximum.accumulate(np.where(prolongs, 0, np.arange(len(key)))) if len(key) else np.zeros(0, np.int64)
        is_last = np.append(~prolongs[1:], True)[: len(key)] & is_open & is_on[head]
        last = np.flatnonzero(is_last)
        first = head[last]
        following = np.minimum(last + 1, len(key) - 1)
        has_event = (last + 1 < len(key)) & (key[following] == key[last]) & ~is_listing[following]
        has_event &= level[following] == level[last]
        has_border = level[last] < len(borders)
        border = border_step[np.minimum(level[last], len(borders) - 1)] if len(borders) else np.zeros(len(last), np.int64)
        off = np.where(has_event, time[following], border)
        ended = has_event | has_border

        self._key, self._on = key[first[~ended]], time[first[~ended]]
        first, off = first[ended], off[ended]
        on = np.concatenate([time[first], step[drums]])
        off = np.concatenate([off, step[drums] + 1])
        source = np.concatenate([key[first] >> 7, np.full(len(drums), DRUM_SOURCE)])
        pitch = np.concatenate([key[first] & 127, value[drums]])
        grid = GridNotes(
            on, np.maximum(off, on + 1), source, pitch, np.full_like(on, STRUCK_VELOCITY), np.zeros_like(on)
        )
        return grid.notes(STEPS_PER_SECOND)


def _times(
    is_shift: NDArray[np.bool_], value: Column, segment: Column, start: Column
) -> tuple[Column, NDArray[np.bool_]]:
    """The step of every token, and whether it or an earlier one of its segment lies beyond the segment's end.

    A run of shifts adds up; the next run starts again from the segment's start. `is_shift`, `value`, `segment` and
    `start` (the segment's first step) are one entry a token.
    """
    run = np.cumsum(np.where(is_shift, value, 0))
    run_start = np.flatnonzero(is_shift & ~np.append(False, is_shift[:-1]))
    position = np.arange(len(value))
    which = np.searchsorted(run_start, position, side="right") - 1
    begun = which >= 0
    at = run_start[np.maximum(which, 0)] if len(run_start) else np.zeros(len(value), np.int64)
    in_segment = begun & (segment[at] == segment)
    run_end = np.flatnonzero(is_shift & ~np.append(is_shift[1:], False))
    total = run[run_end] - run[run_start] + value[run_start] if len(run_start) else np.zeros(0, np.int64)
    # Within a run the sum grows token by token; after it, it stays.
    so_far = np.where(is_shift, run - run[at] + value[at], total[np.maximum(which, 0)] if len(total) else 0)
    step = start + np.where(in_segment, so_far, 0)
    beyond = is_shift & (step > segment_start(segment + 1))
    late = np.cumsum(beyond)
    first = np.searchsorted(segment, segment)  # where each token's segment begins
    before = np.where(first > 0, late[np.maximum(first - 1, 0)], 0)
    return step, late > before
