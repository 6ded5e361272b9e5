"""Scores to MIDI files.

`write_midi` makes a format 1 file that `midi.read_midi` and any reader that pairs first in, first out read back note
for note. Each instrument of each track becomes a track of the file, after one that holds tempo and signatures. Notes
that such a reader would pair wrongly, since a later one of the same pitch ends sooner, go to a further track.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import DEFAULT_MICROSECONDS_PER_QUARTER, Pedals, Score, TempoMap
from musictool.symbolic.smf_score import DRUM_CHANNEL

MAX_TICKS_PER_QUARTER = 32_767
MAX_MICROSECONDS_PER_QUARTER = (1 << 24) - 1
TICK_MICROSECONDS = 1_000  # a tick lasts no longer, so that a grid of 10 ms survives
MAX_DELTA = (1 << 28) - 1
MAX_TRACKS = 65_535

Ticker = Callable[[NDArray[np.float64]], NDArray[np.int64]]

_END_OF_TRACK = b"\0\xff\x2f\0"
_MELODIC_CHANNELS = [channel for channel in range(16) if channel != DRUM_CHANNEL]
_SUSTAIN = 64

# Events at one tick: what ends comes before what starts, a note without length ends after it starts.
_PEDAL_UP, _NOTE_OFF, _PEDAL_DOWN, _NOTE_ON, _OFF_AT_ONCE = range(5)


def write_midi(score: Score) -> bytes:
    """Write a score as a MIDI file; the same score gives the same bytes.

    Times are kept to half a tick, and a tick lasts at most a millisecond. A tempo slower than a MIDI file can say is
    written as the slowest it can, with the notes still in their places in seconds.

    Raises:
        InputError: something in it has no place in a MIDI file (a pitch of 130, a metre of 4/6, a gap of years).
    """
    _check(score)
    resolution = _ticks_per_quarter(score)
    tempo_map = _on_ticks(score.tempo_map, resolution)

    def ticks(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.rint(tempo_map.quarters(np.maximum(seconds, 0.0)) * resolution).astype(np.int64)

    parts = list(_parts(score, ticks))
    channels = _channels([(program, is_drum) for _, program, is_drum, _ in parts])
    words = _words(score, ticks)
    bodies = [_conductor(score, tempo_map, resolution)]
    for (track, program, _, columns), channel in zip(parts, channels, strict=True):
        rows = np.concatenate((_note_rows(columns, channel), _pedal_rows(score.pedals, track, ticks, channel)), axis=1)
        head = [(0, _name(score, track)), (0, bytes([0xC0 | channel, program]))]
        bodies.append(_sequence(head) + _rows_and_words(rows, words.pop(track, [])) + _END_OF_TRACK)
    for track, sung in words.items():  # tracks of words alone
        bodies.append(_sequence([(0, _name(score, track)), *sung]) + _END_OF_TRACK)
    if len(bodies) > MAX_TRACKS:
        raise InputError(f"{len(bodies)} tracks are more than a MIDI file can hold", context=f"limit {MAX_TRACKS}")
    header = b"MThd" + bytes([0, 0, 0, 6, 0, 1]) + len(bodies).to_bytes(2, "big") + resolution.to_bytes(2, "big")
    return header + b"".join(b"MTrk" + len(body).to_bytes(4, "big") + body for body in bodies)


def _check(score: Score) -> None:
    """Refuse what a MIDI file has no way to say, before any of it is written."""
    notes = score.notes
    for name, values, low, high in (
        ("pitch", notes.pitch, 0, 127),
        ("velocity", notes.velocity, 1, 127),
        ("program", notes.program, 0, 127),
    ):
        wrong = values[(values < low) | (values > high)]
        if len(wrong):
            raise InputError(f"a MIDI file cannot hold a {name} of {wrong[0]}", context=f"{len(wrong)} notes")
    times = np.concatenate((notes.onset_seconds, notes.offset_seconds, score.pedals.onset_seconds))
    if not np.isfinite(times).all():
        raise InputError("a MIDI file cannot hold a time that is not a number")
    for metre in score.time_signatures:
        is_power = metre.denominator > 0 and metre.denominator & (metre.denominator - 1) == 0
        if not (is_power and metre.denominator <= 128 and 1 <= metre.numerator <= 255):
            raise InputError(f"a MIDI file cannot hold a metre of {metre.numerator}/{metre.denominator}")
    for key in score.key_signatures:
        if abs(key.sharps) > 7:
            raise InputError(f"a MIDI file cannot hold a key of {key.sharps} sharps")


def _ticks_per_quarter(score: Score) -> int:
    """A multiple of the score's own resolution that makes a tick at the slowest tempo short enough."""
    base = min(max(score.ticks_per_quarter, 1), MAX_TICKS_PER_QUARTER)
    slowest = min(int(score.tempo_map.microseconds_per_quarter.max()), MAX_MICROSECONDS_PER_QUARTER)
    wanted = -(-slowest // (TICK_MICROSECONDS * base))
    return base * max(1, min(wanted, MAX_TICKS_PER_QUARTER // base))


def _on_ticks(tempo_map: TempoMap, resolution: int) -> TempoMap:
    """The map as a reader of the file will have it."""
    return TempoMap.of(
        np.rint(tempo_map.start_quarters * resolution) / resolution,
        np.minimum(tempo_map.microseconds_per_quarter, MAX_MICROSECONDS_PER_QUARTER),
    )


def _parts(score: Score, ticks: Ticker) -> Iterator[tuple[int, int, bool, NDArray[np.int64]]]:
    """Track, program, whether drums, and [4, n] onset, offset, pitch, velocity of each track to write."""
    notes = score.notes
    ids = notes.track.astype(np.int64) << 8 | notes.is_drum.astype(np.int64) << 7 | notes.program
    onset, offset = ticks(notes.onset_seconds), ticks(notes.offset_seconds)
    offset = np.where(notes.offset_seconds > notes.onset_seconds, np.maximum(offset, onset + 1), onset)
    table = np.stack([onset, offset, notes.pitch.astype(np.int64), notes.velocity.astype(np.int64)])
    order = np.lexsort((notes.velocity, offset, onset, notes.pitch, ids))
    ids, table = ids[order], table[:, order]
    part_ids, first = np.unique(ids, return_index=True)
    for part, columns in zip(part_ids.tolist(), np.split(table, first, axis=1)[1:], strict=True):
        for layer in _layers(columns):
            yield part >> 8, part & 127, bool(part >> 7 & 1), layer


def _layers(columns: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Share notes (by pitch, onset, offset) out so that in each share a pitch's notes end in the order they start."""
    while columns.shape[1]:
        _, offset, pitch, _ = columns
        above = pitch * (int(offset.max()) + 1)  # keeps each pitch's maximum from reaching into the next
        is_nested = offset + above < np.maximum.accumulate(offset + above)
        yield columns[:, ~is_nested]
        columns = columns[:, is_nested]


def _channels(parts: list[tuple[int, bool]]) -> list[int]:
    """A channel for each (program, is_drum): its own while there are enough, then one a program, then in turn."""
    melodic = [program for program, is_drum in parts if not is_drum]
    if len(melodic) <= len(_MELODIC_CHANNELS):
        turns = iter(range(len(melodic)))
        return [DRUM_CHANNEL if is_drum else _MELODIC_CHANNELS[next(turns)] for _, is_drum in parts]
    rank = {program: index for index, program in enumerate(dict.fromkeys(melodic))}
    return [
        DRUM_CHANNEL if is_drum else _MELODIC_CHANNELS[rank[program] % len(_MELODIC_CHANNELS)]
        for program, is_drum in parts
    ]


def _note_rows(columns: NDArray[np.int64], channel: int) -> NDArray[np.int64]:
    """[5, 2n] tick, rank within the tick, and the three bytes of each note event."""
    onset, offset, pitch, velocity = columns
    on = np.stack([onset, np.full_like(onset, _NOTE_ON), np.full_like(onset, 0x90 | channel), pitch, velocity])
    rank = np.where(offset > onset, _NOTE_OFF, _OFF_AT_ONCE)
    off = np.stack([offset, rank, np.full_like(onset, 0x80 | channel), pitch, np.zeros_like(onset)])
    return np.concatenate((on, off), axis=1)


def _pedal_rows(pedals: Pedals, track: int, ticks: Ticker, channel: int) -> NDArray[np.int64]:
    """[5, 2p] controller events of one track's presses, overlapping ones joined."""
    is_own = pedals.track == track
    if not is_own.any():
        return np.zeros((5, 0), np.int64)
    onset, offset = ticks(pedals.onset_seconds[is_own]), ticks(pedals.offset_seconds[is_own])
    order = np.lexsort((offset, onset))
    onset, offset = onset[order], np.maximum.accumulate(offset[order])
    starts_press = np.append(True, onset[1:] >= offset[:-1])
    ends_press = np.append(starts_press[1:], True)
    onset, offset = onset[starts_press], offset[ends_press]
    down = np.stack([onset, *np.broadcast_arrays(_PEDAL_DOWN, 0xB0 | channel, _SUSTAIN, np.full_like(onset, 127))])
    up = np.stack([offset, *np.broadcast_arrays(_PEDAL_UP, 0xB0 | channel, _SUSTAIN, np.zeros_like(onset))])
    return np.concatenate((down, up), axis=1)


def _conductor(score: Score, tempo_map: TempoMap, resolution: int) -> bytes:
    """The first track: tempo and signatures. A default tempo that nobody asked for is left unsaid."""
    items: list[tuple[int, bytes]] = []
    for metre in score.time_signatures:
        power = metre.denominator.bit_length() - 1
        items.append((round(metre.quarter * resolution), _meta(0x58, bytes([metre.numerator, power, 24, 8]))))
    for key in score.key_signatures:
        items.append((round(key.quarter * resolution), _meta(0x59, bytes([key.sharps & 0xFF, key.is_minor]))))
    tempos = tempo_map.microseconds_per_quarter.tolist()
    if score.has_metre or tempos != [DEFAULT_MICROSECONDS_PER_QUARTER]:
        places = np.rint(tempo_map.start_quarters * resolution).astype(np.int64).tolist()
        items += [(place, _meta(0x51, tempo.to_bytes(3, "big"))) for place, tempo in zip(places, tempos, strict=True)]
    return _sequence(items) + _END_OF_TRACK


def _words(score: Score, ticks: Ticker) -> dict[int, list[tuple[int, bytes]]]:
    """The lyrics of each track, with their ticks."""
    words: dict[int, list[tuple[int, bytes]]] = {}
    places = ticks(np.array([lyric.seconds for lyric in score.lyrics], np.float64)).tolist()
    for place, lyric in zip(places, score.lyrics, strict=True):
        words.setdefault(lyric.track, []).append((place, _meta(0x05, lyric.text.encode("utf-8", "replace"))))
    return words


def _name(score: Score, track: int) -> bytes:
    """The event that names a track."""
    name = score.tracks[track].name if 0 <= track < len(score.tracks) else ""
    return _meta(0x03, name.encode("utf-8", "replace"))


def _meta(kind: int, payload: bytes) -> bytes:
    return bytes([0xFF, kind]) + _quantity(len(payload)) + payload


def _quantity(value: int) -> bytes:
    """A variable-length quantity."""
    if value > MAX_DELTA:
        raise InputError(f"a MIDI file cannot hold a gap of {value} ticks", context=f"limit {MAX_DELTA}")
    groups = [value & 127]
    while value := value >> 7:
        groups.append(value & 127 | 128)
    return bytes(reversed(groups))


def _sequence(items: list[tuple[int, bytes]]) -> bytes:
    """Events given as (tick, bytes), put in order and with delta times before them."""
    pieces: list[bytes] = []
    now = 0
    for tick, event in sorted(items, key=lambda item: item[0]):
        pieces += (_quantity(tick - now), event)
        now = tick
    return b"".join(pieces)


def _rows_and_words(rows: NDArray[np.int64], words: list[tuple[int, bytes]]) -> bytes:
    """Channel events given as rows, with words between them."""
    tick, _, status, first, second = rows[:, np.argsort(rows[0] << 10 | rows[1] << 7 | rows[3], kind="stable")]
    if words:
        played = zip(tick.tolist(), np.stack([status, first, second], axis=1).astype(np.uint8), strict=True)
        return _sequence(words + [(place, event.tobytes()) for place, event in played])
    delta = np.diff(tick, prepend=0)
    if len(delta) and delta.max() > MAX_DELTA:
        _quantity(int(delta.max()))
    sevens = [delta >> 21 | 128, delta >> 14 | 128, delta >> 7 | 128, delta & 127]
    grid = np.stack([*sevens, status, first, second], axis=1).astype(np.uint8)  # the low eight bits
    is_written = np.ones(grid.shape, bool)
    is_written[:, :3] = delta[:, None] >= np.array([1 << 21, 1 << 14, 1 << 7])
    return grid[is_written].tobytes()
