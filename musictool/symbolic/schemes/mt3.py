"""Scheme `mt3`: the vocabulary of the published MT3 model (Gardner et al., 2022, section 3.2), ids as in its files.

Time runs in segments of 2.048 s, each a run of ids of its own: the notes that still sound (`Program`, `Pitch`), `Tie`,
then events in steps of 10 ms, closed by `End`. `Shift_t` says how far from the segment's start, floored to a step, the
next events are; `Program` and `Velocity` (0 releases, 1 strikes) are written when they change within a segment; a drum
is `Velocity_1 Drum_p` and has no release. The published code, `note_sequences.py` and `run_length_encoding.py`, decides
the order of events and what a decoder makes of ids that make no sense.

A note is known by its program and pitch, so two that overlap on both cannot be told apart: the earlier one ends where
the later begins. Velocity, kits, pedals and the length of drum notes are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.schemes.columns import DRUM_SOURCE, Column, GridNotes, changes, latest, stable_order
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
        grid = GridNotes(grid.on, np.minimum(grid.off, next_on), grid.source, grid.pitch, grid.velocity, grid.voice)
    return grid


def quantize(score: Score) -> tuple[Notes, Pedals]:
    """What `encode` keeps: notes on the grid of 10 ms, struck with velocity 127, drums of kit 0 for one step."""
    return _fit(score).notes(STEPS_PER_SECOND), Pedals.of()


# An event packed into one int64, so that sorting the numbers sorts the events:
# segment << 34 | part of the segment << 32 | step within it << 20 | order << 16 | source << 8 | pitch
_TIED, _BORDER, _PLAYED, _CLOSE = range(4)
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
    last_segment = max(int(on_segment.max(initial=0)), int(off_segment[is_melodic].max(initial=0)))
    segments = np.arange(last_segment + 1)
    tied = np.repeat(np.arange(len(grid)), ties)
    tied_segment = off_segment[tied] - (np.cumsum(ties)[tied] - np.arange(len(tied)) - 1)

    on_step = grid.on - segment_start(on_segment)
    off_step = (grid.off - segment_start(off_segment))[is_melodic]
    played = _PLAYED << 32
    events = np.concatenate(
        [
            tied_segment << 34 | _TIED << 32 | who[tied],
            segments << 34 | _BORDER << 32,
            on_segment << 34 | played | on_step << 20 | _ON << 16 | who,
            off_segment[is_melodic] << 34 | played | off_step << 20 | _OFF << 16 | who[is_melodic],
            segments << 34 | _CLOSE << 32,
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
    note_id = np.where(is_drum, VOCABULARY.offset("Drum"), VOCABULARY.offset("Pitch")) + pitch
    ids[end - 1] = np.where(is_note, note_id, np.where(part == _BORDER, TIE, END))
    return ids


_SHIFT, _PITCH, _VELOCITY, _TIE, _PROGRAM, _DRUM = (
    VOCABULARY.range_index(type) for type in ("Shift", "Pitch", "Velocity", "Tie", "Program", "Drum")
)


class Decoder:
    """Ids to notes, whole segments at a time; what sounds at a chunk's end is carried into the next.

    Ids that make no sense are passed over as the published decoder does: ties and releases of notes that do not sound,
    events before the time already reached, and the rest of a segment from the first event beyond the segment's end.
    """

    def __init__(self) -> None:
        self.keeps_pedals = True  # all of none
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
        rest = _table(self._on, np.full_like(self._on, self._step), self._key)
        return Score(Notes.concatenate([closed, rest]))

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
        drums, pitches = (np.flatnonzero(is_event & (kind == k)) for k in (_DRUM, _PITCH))
        drums = drums[latest(dynamics, value[dynamics], drums, self._velocity) > 0]
        borders = np.flatnonzero(is_event & (kind == _TIE))
        borders = borders[changes(segment[borders])]  # of a segment's ties the first counts
        program = latest(turns, value[turns], pitches, self._program)
        is_struck = latest(dynamics, value[dynamics], pitches, self._velocity) > 0

        # Before its segment's border a pitch lists what goes on; in a segment without one it says nothing.
        border = np.searchsorted(segment[borders], segment[pitches])
        has_border = np.append(segment[borders], -1)[border] == segment[pitches]
        is_listing = pitches < np.append(borders, 0)[border]
        events = _Pitches(
            program << 7 | value[pitches],
            step[pitches],
            np.searchsorted(borders, pitches) + is_listing,
            is_listing,
            is_struck & ~is_listing,
        )
        notes = self._pair(events.take(has_border), step[borders])

        self._step = int(reached[-1])
        self._program = int(value[turns[-1]]) if len(turns) else self._program
        self._velocity = int(value[dynamics[-1]]) if len(dynamics) else self._velocity
        self._segment = int(segment[-1]) + int(is_end[-1])
        struck = step[drums]
        source = np.full_like(struck, DRUM_SOURCE)
        return Notes.concatenate([notes, _table(struck, struck + 1, source << 7 | value[drums])])

    def _pair(self, events: _Pitches, border_step: Column) -> Notes:
        """Follow every note from its onset over the borders that it is listed at to what ends it.

        Args:
            events: the pitches of some segments, in the order of their tokens.
            border_step: when each border between those segments is.
        """
        events = events.after_sounding(self._key, self._on).by_key()
        key, level, is_listing = events.key, events.level, events.is_listing
        follows = np.append(False, key[1:] == key[:-1])  # whether an event has one of its key before it

        # An event that lists a note right after the border before it prolongs it; a chain of such is one note.
        is_open = events.is_on | is_listing
        prolongs = follows & is_listing
        prolongs[1:] &= is_open[:-1] & (level[1:] == level[:-1] + 1)
        links = np.flatnonzero(is_open & ~np.append(prolongs[1:], False))  # the last of each chain
        heads = np.maximum.accumulate(np.where(prolongs, 0, np.arange(len(key))))[links]
        begins = events.is_on[heads]  # a chain of listings alone lists a note that does not sound
        first, last = heads[begins], links[begins]

        # It ends at its key's next event if no border comes first, else at that border, else it sounds on.
        following = np.minimum(last + 1, len(key) - 1)
        has_event = (following > last) & follows[following] & ~is_listing[following]
        has_event &= level[following] == level[last]
        border = np.append(border_step, -1)[np.minimum(level[last], len(border_step))]
        off = np.where(has_event, events.step[following], border)
        ended = off >= 0
        self._key, self._on = key[first[~ended]], events.step[first[~ended]]
        return _table(events.step[first[ended]], off[ended], key[first[ended]])


@dataclass(frozen=True, eq=False, slots=True)
class _Pitches:
    """Pitch events as columns.

    Attributes:
        key: program << 7 | pitch.
        step: when.
        level: how many borders lie behind a note once this has happened to it.
        is_listing: whether it lists a note that goes on over a border.
        is_on: whether it strikes a note; neither is a release.
    """

    key: Column
    step: Column
    level: Column
    is_listing: NDArray[np.bool_]
    is_on: NDArray[np.bool_]

    def take(self, index: NDArray) -> _Pitches:
        """The rows that an index array or a mask selects."""
        return _Pitches(*(getattr(self, field.name)[index] for field in fields(self)))

    def after_sounding(self, key: Column, on: Column) -> _Pitches:
        """These events behind the onsets of notes that sound from before."""
        count = len(key)
        return _Pitches(
            np.concatenate([key, self.key]),
            np.concatenate([on, self.step]),
            np.concatenate([np.zeros(count, np.int64), self.level]),
            np.concatenate([np.zeros(count, np.bool_), self.is_listing]),
            np.concatenate([np.ones(count, np.bool_), self.is_on]),
        )

    def by_key(self) -> _Pitches:
        """The events of each key together, in order; of listings of one note at one border only the first."""
        ordered = self.take(stable_order(self.key))
        key, level, is_listing = ordered.key, ordered.level, ordered.is_listing
        again = (key[1:] == key[:-1]) & is_listing[1:] & is_listing[:-1] & (level[1:] == level[:-1])
        return ordered.take(np.append(True, ~again)) if again.any() else ordered


def _table(on: Column, off: Column, key: Column) -> Notes:
    """Notes of at least a step from their onsets, offsets and keys (source << 7 | pitch)."""
    velocity = np.full_like(on, STRUCK_VELOCITY)
    grid = GridNotes(on, np.maximum(off, on + 1), key >> 7, key & 127, velocity, np.zeros_like(on))
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
