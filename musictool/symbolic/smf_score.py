"""A piece in ticks to a `Score` in seconds, and note events to notes.

Both ways of reading a MIDI file (`midi.read_midi`) end here, so that limits, order and units are decided once. Knows
nothing of bytes.

A note-off ends the earliest note-on of its track, channel and pitch that is still sounding (first in, first out: what
symusic and most sequencers do), in file order where ticks are equal. A note-off without a note-on is left out. A note
that nothing ends lasts to the end of its track, and is left out where that gives it no length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import KeySignature, Lyric, Notes, Pedals, Score, TempoMap, TimeSignature, Track, order_by
from musictool.symbolic.smf import MAX_NOTES, Events

MAX_SECONDS = 24 * 3600.0
MAX_BARS = 1_000_000
MAX_PARTS = 32_767  # what `Notes.track` can number
MICROSECONDS_PER_SECOND = 1_000_000
DROP_FRAME_MICROSECONDS = 1_001_000  # thirty frames of 29.97 a second
DRUM_CHANNEL = 9

Ticks = NDArray[np.int64]
Signature = TypeVar("Signature", TimeSignature, KeySignature)

_tick: Callable[[tuple[Any, ...]], int] = itemgetter(0)


@dataclass(slots=True)
class TickNotes:
    """Notes of a file by rising track, columns as in `Notes` but in ticks."""

    onset: Ticks
    offset: Ticks
    pitch: NDArray[np.int16]
    velocity: NDArray[np.int16]
    program: NDArray[np.int16]
    is_drum: NDArray[np.bool_]
    track: NDArray[np.int16]

    def order(self) -> Ticks:
        """The order of `Notes.sorted`."""
        voice = (self.is_drum.astype(np.int64) << 7 | self.program) << 7 | self.pitch
        return order_by(self.onset << 15 | voice, (self.offset - self.onset) << 7 | self.velocity)


@dataclass(slots=True)
class TickScore:
    """A piece in ticks; signatures and tempos as (tick, ...) in the order they count."""

    ticks_per_quarter: int
    notes: TickNotes
    tracks: list[Track]
    tempo_ticks: Ticks
    microseconds_per_quarter: Ticks
    time_signatures: list[tuple[int, int, int]] = field(default_factory=list)
    key_signatures: list[tuple[int, int, bool]] = field(default_factory=list)
    pedal_onset: Ticks = field(default_factory=lambda: np.zeros(0, np.int64))
    pedal_offset: Ticks = field(default_factory=lambda: np.zeros(0, np.int64))
    pedal_track: Ticks = field(default_factory=lambda: np.zeros(0, np.int64))
    lyrics: list[tuple[int, str, int]] = field(default_factory=list)
    has_metre: bool = False


def to_score(piece: TickScore) -> Score:
    """Put a piece on the time line in seconds.

    Raises:
        InputError: it is longer than a day, or has over ten million notes or a million bars.
    """
    notes, resolution = piece.notes, piece.ticks_per_quarter
    if len(notes.onset) > MAX_NOTES:
        raise InputError(f"{len(notes.onset)} notes in a MIDI file are over the limit of {MAX_NOTES}")
    tempo_map = TempoMap.of(piece.tempo_ticks / resolution, piece.microseconds_per_quarter)
    last = int(max((column.max() for column in (notes.offset, piece.pedal_offset) if len(column)), default=0))
    end_quarters = last / resolution
    end_seconds = tempo_map.seconds(np.array([end_quarters])).item()
    if end_seconds > MAX_SECONDS:
        raise InputError(f"a piece of {end_seconds / 3600:.1f} hours is over the limit of 24")
    time_signatures = _last_at_each_place(
        TimeSignature(tick / resolution, over, under) for tick, over, under in sorted(piece.time_signatures, key=_tick)
    )
    _check_bars(time_signatures, end_quarters)

    order = notes.order()
    pedal_onset, pedal_offset, pedal_track = _sorted_pedals(piece)
    ticks = np.concatenate((notes.onset[order], notes.offset[order], pedal_onset, pedal_offset))
    seconds = tempo_map.seconds(ticks / resolution)
    count, presses = len(order), len(pedal_track)
    pedal_seconds = seconds[2 * count :]
    table = Notes(
        seconds[:count],
        seconds[count : 2 * count],
        notes.pitch[order],
        notes.velocity[order],
        notes.program[order],
        notes.is_drum[order],
        notes.track[order],
    )
    return Score(
        notes=table,
        tracks=tuple(piece.tracks) or (Track(),),
        tempo_map=tempo_map,
        time_signatures=time_signatures,
        key_signatures=_last_at_each_place(
            KeySignature(tick / resolution, sharps, is_minor)
            for tick, sharps, is_minor in sorted(piece.key_signatures, key=_tick)
        ),
        pedals=Pedals.of(pedal_seconds[:presses], pedal_seconds[presses:], pedal_track),
        lyrics=tuple(
            Lyric(float(tempo_map.seconds(tick / resolution)), text, track)
            for tick, text, track in sorted(piece.lyrics, key=_tick)
        ),
        ticks_per_quarter=resolution,
        has_metre=piece.has_metre,
    )


def _sorted_pedals(piece: TickScore) -> tuple[Ticks, Ticks, Ticks]:
    """Onsets, offsets and tracks of the presses by onset, then offset, then track."""
    onset, offset, track = piece.pedal_onset, piece.pedal_offset, piece.pedal_track
    if (onset[1:] > onset[:-1]).all():
        return onset, offset, track
    order = np.lexsort((track, offset, onset))
    return onset[order], offset[order], track[order]


def _last_at_each_place(signatures: Iterable[Signature]) -> tuple[Signature, ...]:
    """Of several signatures at one place the last, as for tempos."""
    return tuple({signature.quarter: signature for signature in signatures}.values())


def _check_bars(time_signatures: tuple[TimeSignature, ...], end_quarters: float) -> None:
    """Refuse a metre that would make more bars than anything can lay out."""
    bars, spans = 0.0, [*time_signatures, TimeSignature(end_quarters, 4, 4)]
    if not time_signatures or time_signatures[0].quarter > 0:
        spans.insert(0, TimeSignature(0.0, 4, 4))
    for here, following in pairwise(spans):
        bars += max(0.0, min(following.quarter, end_quarters) - here.quarter) / here.bar_quarters
    if bars > MAX_BARS:
        raise InputError(f"a piece of {bars:.0f} bars is over the limit of {MAX_BARS}")


@dataclass(slots=True)
class PairedNotes:
    """Note-ons with the ticks that end them, in order of track, channel and pitch; and what was odd about them."""

    key: Ticks
    onset: Ticks
    offset: Ticks
    hanging: int
    orphan_offs: int
    overlapping: int


def pair_notes(events: Events) -> PairedNotes:
    """Match note-ons with note-offs first in, first out."""
    ticks, keys = np.array(events.note_ticks, np.int64), np.array(events.note_keys, np.int64)
    if not len(keys):
        return PairedNotes(keys, ticks, ticks, hanging=0, orphan_offs=0, overlapping=0)
    order = np.argsort(keys >> 14, kind="stable")
    ticks, keys = ticks[order], keys[order]
    voice = keys >> 14  # track, channel, pitch
    is_on = (keys & 127) > 0
    starts_voice = np.append(True, voice[1:] != voice[:-1])
    group = np.cumsum(starts_voice) - 1

    # Notes sounding after each event, were no off ignored; where that falls to a new low, the off had no note to end.
    balance = np.cumsum(np.where(is_on, 1, -1))
    balance -= np.append(0, balance)[:-1][starts_voice][group]
    floor = -group * (len(voice) + 1)  # each voice's zero lies below all that came before it
    low = np.minimum.accumulate(np.minimum(balance, 0) + floor)
    is_orphan = low < np.where(starts_voice, floor, np.append(0, low)[:-1])
    ends_note = ~is_on & ~is_orphan

    on_rank = _rank_within(group, is_on)
    ends_in_group = np.bincount(group[ends_note], minlength=int(group[-1]) + 1)
    is_ended = on_rank < ends_in_group[group[is_on]]
    key, onset = keys[is_on], ticks[is_on]
    offset = np.asarray(events.track_ends, np.int64)[key >> 25]
    offset[is_ended] = ticks[ends_note]
    same_voice = key[1:] >> 14 == key[:-1] >> 14
    kept = is_ended | (offset > onset)
    return PairedNotes(
        key[kept],
        onset[kept],
        offset[kept],
        hanging=int(np.count_nonzero(~is_ended)),
        orphan_offs=int(np.count_nonzero(is_orphan)),
        overlapping=int(np.count_nonzero(same_voice & (onset[1:] < offset[:-1]))),
    )


def _rank_within(group: Ticks, mask: NDArray[np.bool_]) -> Ticks:
    """For each selected row, how many selected rows of its (contiguous) group come before it."""
    chosen = group[mask]
    first = np.searchsorted(chosen, chosen, side="left")
    return np.arange(len(chosen)) - first


def from_events(events: Events) -> TickScore:
    """Notes, pedals and names of scanned events, with one track for each (file track, channel, program) that sounds."""
    starts = _lay_out(events)
    paired = pair_notes(events)
    file_track = paired.key >> 25
    shift = starts[file_track]
    parts = file_track << 11 | (paired.key >> 21 & 15) << 7 | (paired.key >> 7 & 127)
    part_ids, track = np.unique(parts, return_inverse=True)
    if len(part_ids) > MAX_PARTS:
        raise InputError(f"{len(part_ids)} instruments in a MIDI file are over the limit of {MAX_PARTS}")
    tracks = [
        Track(events.names.get(part >> 11, ""), part & 127, (part >> 7 & 15) == DRUM_CHANNEL)
        for part in part_ids.tolist()
    ]
    notes = TickNotes(
        paired.onset + shift,
        paired.offset + shift,
        (paired.key >> 14 & 127).astype(np.int16),
        (paired.key & 127).astype(np.int16),
        (paired.key >> 7 & 127).astype(np.int16),
        (paired.key >> 21 & 15) == DRUM_CHANNEL,
        track.astype(np.int16),
    )
    pedals = _pedal_presses(events, part_ids.tolist())
    pedal_table = np.array(pedals, np.int64).reshape(-1, 4)
    pedal_shift = starts[pedal_table[:, 3]]
    piece = TickScore(
        events.ticks_per_quarter,
        notes,
        tracks,
        *_tempos(events, starts),
        time_signatures=_metres(events, starts),
        key_signatures=[(tick + int(starts[t]), sharps, minor) for t, tick, sharps, minor in events.key_signatures],
        pedal_onset=pedal_table[:, 0] + pedal_shift,
        pedal_offset=pedal_table[:, 1] + pedal_shift,
        pedal_track=pedal_table[:, 2],
        has_metre=bool((events.tempos and events.frame_rate is None) or events.time_signatures),
    )
    homes = {part >> 11: index for index, part in reversed(list(enumerate(part_ids.tolist())))}
    for file_index, tick, text in events.lyrics:
        if file_index not in homes:  # a track of words alone
            homes[file_index] = len(tracks)
            tracks.append(Track(events.names.get(file_index, "")))
        piece.lyrics.append((tick + int(starts[file_index]), text, homes[file_index]))
    return piece


def _lay_out(events: Events) -> Ticks:
    """Where each track of the file starts: at 0, or one after another where they are independent (format 2)."""
    ends = np.asarray(events.track_ends, np.int64)
    if events.format != 2:
        return np.zeros(len(ends), np.int64)
    return np.append(0, np.cumsum(ends))[:-1]


def _tempos(events: Events, starts: Ticks) -> tuple[Ticks, Ticks]:
    """Ticks and microseconds a quarter of the tempo changes that count."""
    if events.frame_rate is not None:
        second = DROP_FRAME_MICROSECONDS if events.frame_rate == 29 else MICROSECONDS_PER_SECOND
        return np.zeros(1, np.int64), np.array([second], np.int64)
    changes = [(tick + int(starts[track]), track, tempo) for track, tick, tempo in events.tempos]
    if events.format == 2:  # each sequence starts at the default tempo
        changes += [(int(start), -1, 500_000) for start in starts]
    changes.sort(key=lambda change: change[:2])
    table = np.array(changes, np.int64).reshape(-1, 3)
    return table[:, 0], table[:, 2]


def _metres(events: Events, starts: Ticks) -> list[tuple[int, int, int]]:
    """Time signatures; each sequence of format 2 starts at 4/4."""
    given = [(tick + int(starts[track]), over, under) for track, tick, over, under in events.time_signatures]
    if events.format == 2 and given:
        given = [(int(start), 4, 4) for start in starts] + given
    return given


def _pedal_presses(events: Events, parts: list[int]) -> list[tuple[int, int, int, int]]:
    """(onset, offset, track, file track) of each press; one still held lasts to the end of its track.

    A press belongs to the part that its channel plays when it starts, or to the channel's first part.
    """
    of_part = {part: index for index, part in enumerate(parts)}
    of_channel = {part >> 7: index for index, part in reversed(list(enumerate(parts)))}
    held: dict[int, tuple[int, int]] = {}
    presses: list[tuple[int, int, int, int]] = []

    def release(channel_key: int, tick: int) -> None:
        onset, program = held.pop(channel_key)
        index = of_part.get(channel_key << 7 | program, of_channel.get(channel_key))
        if index is not None and tick > onset:
            presses.append((onset, tick, index, channel_key >> 4))

    for file_track, channel, program, tick, value in events.pedals:
        channel_key = file_track << 4 | channel
        if value >= 64:
            held.setdefault(channel_key, (tick, program))
        elif channel_key in held:
            release(channel_key, tick)
    for channel_key in list(held):
        release(channel_key, events.track_ends[channel_key >> 4])
    return presses
