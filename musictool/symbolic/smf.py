"""Standard MIDI File bytes to plain events, with mercy for what is damaged.

`scan` reads every byte itself, so that it can repair what a strict parser (symusic, mido) refuses or silently
misreads, and can count what it finds: running status after a sysex or with no status before it, data bytes out of
range, wrong or overlong track lengths, cut last tracks, missing end-of-track events, foreign and garbage chunks, RIFF
(RMID) wrapping, long or displaced headers. It costs about a microsecond an event, which is why `midi.read_midi` sends
only the files here that need it. Knows nothing of notes as durations or of seconds.

Follows the Standard MIDI Files 1.0 specification (MIDI Manufacturers Association, RP-001).
"""

from __future__ import annotations

import re
import struct
from array import array
from dataclasses import dataclass, field
from typing import Any

from musictool.errors import InputError

MAX_NOTES = 10_000_000
MAX_BYTES = 1 << 27  # more than ten million notes need
FRAME_RATES = (24, 25, 29, 30)  # 29 stands for 29.97 drop frame
NOT_MIDI_HINT = "give a Standard MIDI File (.mid)"

# Data bytes after a status byte: by high nibble for channel messages, by value for system messages.
_CHANNEL_DATA_BYTES = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
_SYSTEM_DATA_BYTES = {0xF1: 1, 0xF2: 2, 0xF3: 1}

_SUSTAIN = 64
_JAPANESE_RUN = re.compile("[\u3040-\u30ff\u4e00-\u9fff]{2}")


@dataclass(slots=True)
class Events:
    """What a file says, in file order; ticks count from the start of each track.

    Attributes:
        format: 0, 1 or 2.
        ticks_per_quarter: for a frame-based division, ticks a second.
        frame_rate: 24, 25, 29 (29.97 drop) or 30 where time is counted in frames, else None.
        note_ticks: int64, one a note-on or note-off.
        note_keys: int64 beside it: track << 25 | channel << 21 | pitch << 14 | program << 7 | velocity, 0 for an off.
        pedals: (track, channel, program, tick, value) of every sustain controller.
        tempos: (track, tick, microseconds a quarter).
        time_signatures: (track, tick, numerator, denominator).
        key_signatures: (track, tick, sharps, is_minor).
        names: track -> last name given.
        lyrics: (track, tick, text).
        track_ends: the last tick of each track.
        repairs: one line a kind of problem that was repaired, with the place of the first.
    """

    format: int = 1
    ticks_per_quarter: int = 480
    frame_rate: int | None = None
    note_ticks: array[int] = field(default_factory=lambda: array("q"))
    note_keys: array[int] = field(default_factory=lambda: array("q"))
    pedals: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    tempos: list[tuple[int, int, int]] = field(default_factory=list)
    time_signatures: list[tuple[int, int, int, int]] = field(default_factory=list)
    key_signatures: list[tuple[int, int, int, bool]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    lyrics: list[tuple[int, int, str]] = field(default_factory=list)
    track_ends: list[int] = field(default_factory=list)
    repairs: list[str] = field(default_factory=list)

    def repaired(self, what: str, offset: int) -> None:
        """Note a repair, once a kind."""
        if not any(line.startswith(what) for line in self.repairs):
            self.repairs.append(f"{what} (byte {offset})")


def decode_text(raw: bytes) -> str:
    """Text of a meta event: UTF-8, else Shift JIS where that gives Japanese words, else Latin-1. Never fails."""
    raw = raw.rstrip(b"\0")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("cp932")
    except UnicodeDecodeError:
        text = ""
    return text if _JAPANESE_RUN.search(text) else raw.decode("latin-1")


def scan(data: bytes) -> Events:
    """Read all events of a file, repairing what can be.

    Raises:
        InputError: there is no header or no track, time is not defined, or it is over the limits.
    """
    events = Events()
    data = _unwrap(data, events)
    position, declared_tracks = _read_header(data, events)
    while position < len(data):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "big")
        if kind == b"MTrk":
            position = _read_chunk(data, position, length, events)
        elif _is_chunk(data, position):
            position += 8 + length
        else:
            following = data.find(b"MTrk", position)
            if following < 0:
                events.repaired("bytes after the last track", position)
                break
            events.repaired("bytes between tracks", position)
            position = following
    if len(events.track_ends) != declared_tracks:
        events.repaired(f"the header promises {declared_tracks} tracks, there are {len(events.track_ends)}", 10)
    if declared_tracks and not events.track_ends:
        raise InputError("no track in this MIDI file", context=f"byte {position}", hint="the file may be cut short")
    return events


def _unwrap(data: bytes, events: Events) -> bytes:
    """The file proper, from its MThd on: out of a RIFF wrapper, or from behind a foreign header."""
    if not data:
        raise InputError("an empty file is no MIDI file", hint=NOT_MIDI_HINT)
    if len(data) > MAX_BYTES:
        raise InputError(f"a MIDI file of {len(data)} bytes is over the limit of {MAX_BYTES}")
    start = data.find(b"MThd")
    if start < 0:
        raise InputError("not a MIDI file", context="no MThd header", hint=NOT_MIDI_HINT)
    if start:
        is_riff = data.startswith(b"RIFF") and data[8:12] == b"RMID"
        events.repaired("the file is wrapped in RIFF" if is_riff else "bytes before the header", 0)
        if is_riff and data[start - 8 : start - 4] == b"data":
            length = int.from_bytes(data[start - 4 : start], "little")
            return data[start : start + length] if length > 14 else data[start:]
    return data[start:]


def _read_header(data: bytes, events: Events) -> tuple[int, int]:
    """Fill in format and division; the position after the header and the number of tracks it promises."""
    if len(data) < 14:
        raise InputError("the MIDI header is cut short", context=f"byte {len(data)}", hint=NOT_MIDI_HINT)
    length, events.format, tracks, division = struct.unpack_from(">IHHH", data, 4)
    position = 8 + length
    if length != 6:
        events.repaired(f"the header is {length} bytes long, not 6", 4)
        if length < 6 or (position != len(data) and not _is_chunk(data, position)):
            first = data.find(b"MTrk", 14)
            position = first if first > 0 else len(data)
    if events.format > 2:
        events.repaired(f"unknown format {events.format}, read as 1", 8)
        events.format = 1
    if division & 0x8000:
        rate, per_frame = 256 - (division >> 8), division & 0xFF
        if rate not in FRAME_RATES or not per_frame:
            raise InputError(f"a MIDI division of {rate} frames by {per_frame} has no meaning", context="byte 12")
        events.frame_rate, events.ticks_per_quarter = rate, (30 if rate == 29 else rate) * per_frame
    elif division == 0:
        raise InputError("a MIDI division of 0 ticks per quarter has no meaning", context="byte 12")
    else:
        events.ticks_per_quarter = division
    return position, tracks


def _is_chunk(data: bytes, position: int) -> bool:
    """Whether a whole chunk with a printable name starts here."""
    end = position + 8 + int.from_bytes(data[position + 4 : position + 8], "big")
    return end <= len(data) and all(32 <= code < 127 for code in data[position : position + 4])


def _read_chunk(data: bytes, position: int, length: int, events: Events) -> int:
    """Read one track and find out where it truly ends, whatever its length field says."""
    start, declared = position + 8, position + 8 + length
    if declared > len(data):
        following = data.find(b"MTrk", start)
        end = following if following > 0 else len(data)
        events.repaired("a track is shorter than its length says", position + 4)
        stop, _ = _read_track(data, start, end, events)
        return following if following > 0 else max(stop, end)

    marks = _marks(events)
    stop, has_ended = _read_track(data, start, declared, events)
    if has_ended:
        if stop != declared:
            if data[stop : stop + 4] == b"MTrk":
                events.repaired("a track is shorter than its length says", position + 4)
                return stop
            events.repaired("bytes after the end of a track", stop)
        return declared
    if declared == len(data) or _is_chunk(data, declared) or data[declared : declared + 4] == b"MTrk":
        return declared
    _rewind(events, marks)  # no end in sight and no chunk behind: the length is too small
    events.repaired("a track is longer than its length says", position + 4)
    following = data.find(b"MTrk", declared)
    stop, _ = _read_track(data, start, following if following > 0 else len(data), events)
    return stop


def _tables(events: Events) -> tuple[array[int] | list[Any], ...]:
    return (
        events.note_ticks,
        events.note_keys,
        events.pedals,
        events.tempos,
        events.time_signatures,
        events.key_signatures,
        events.lyrics,
        events.track_ends,
        events.repairs,
    )


def _marks(events: Events) -> list[int]:
    """How long every table is now, for `_rewind`."""
    return [len(table) for table in _tables(events)]


def _rewind(events: Events, marks: list[int]) -> None:
    """Forget what was read since `_marks`."""
    for table, mark in zip(_tables(events), marks, strict=True):
        del table[mark:]


def _read_track(data: bytes, position: int, end: int, events: Events) -> tuple[int, bool]:
    """Read events up to the end-of-track event or `end`.

    Returns:
        Where reading stopped, and whether that was at an end-of-track event.
    """
    track, tick, status = len(events.track_ends), 0, 0
    programs = [0] * 16
    add_tick, add_key = events.note_ticks.append, events.note_keys.append
    has_ended = is_interrupted = False
    try:
        while position < end:
            delta = byte = data[position]
            position += 1
            if byte > 127:
                delta, position = _read_quantity(data, position - 1, end)
            byte = data[position]
            if position >= end:
                raise IndexError
            if byte > 127:
                position += 1
                is_interrupted = False
            elif status:
                byte = status
                if is_interrupted:
                    events.repaired("running status across a system message", position)
            else:
                events.repaired("data bytes without a status byte before them", position)
                while position < end and data[position] < 128:
                    position += 1
                if position >= end:
                    break
                byte = data[position]
                position += 1
            tick += delta

            if byte < 0xF0:
                status, kind, channel = byte, byte >> 4, byte & 15
                size = _CHANNEL_DATA_BYTES[kind]
                if position + size > end:
                    raise IndexError
                first, second = data[position], data[position + size - 1]
                if first > 127 or second > 127:
                    events.repaired("data bytes over 127", position)
                    first, second = min(first, 127), min(second, 127)
                position += size
                if kind == 9 or kind == 8:
                    add_tick(tick)
                    velocity = second if kind == 9 else 0
                    add_key(track << 25 | channel << 21 | first << 14 | programs[channel] << 7 | velocity)
                elif kind == 0xC:
                    programs[channel] = first
                elif kind == 0xB and first == _SUSTAIN:
                    events.pedals.append((track, channel, programs[channel], tick, second))
            elif byte == 0xFF:
                kind = data[position]
                size, start = _read_quantity(data, position + 1, end)
                if kind == 0x2F:
                    position, has_ended = min(start + size, end), True
                    break
                if start + size > end:
                    raise IndexError
                _read_meta(kind, data[start : start + size], track, tick, position, events)
                position = start + size
            elif byte in (0xF0, 0xF7):
                size, start = _read_quantity(data, position, end)
                position = start + size
                if position > end:
                    raise IndexError
                is_interrupted = True
            else:
                events.repaired("a system message that belongs on a wire, not in a file", position - 1)
                position += _SYSTEM_DATA_BYTES.get(byte, 0)
                is_interrupted = True
    except IndexError:
        events.repaired("a track is cut short", min(position, end))
        position = end
    else:
        if not has_ended:
            events.repaired("a track has no end-of-track event", end)
    if len(events.note_ticks) > 2 * MAX_NOTES:
        raise InputError(f"over {MAX_NOTES} notes in a MIDI file", hint="split the file")
    events.track_ends.append(tick)
    return min(position, end), has_ended


def _read_quantity(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A variable-length quantity and the position after it; only the last 28 bits of an overlong one count."""
    value = 0
    while position < end:
        byte = data[position]
        position += 1
        value = (value << 7 | byte & 127) & 0x0FFFFFFF
        if byte < 128:
            return value, position
    raise IndexError


def _read_meta(kind: int, payload: bytes, track: int, tick: int, offset: int, events: Events) -> None:
    """Keep the meta events that a score has a place for; leave out the ones that say nothing sensible."""
    if kind == 0x03:
        events.names[track] = decode_text(payload)
    elif kind == 0x05:
        if text := decode_text(payload):
            events.lyrics.append((track, tick, text))
    elif kind == 0x51:
        tempo = int.from_bytes(payload[:3], "big")
        if len(payload) >= 3 and tempo:
            events.tempos.append((track, tick, tempo))
        else:
            events.repaired("a tempo of nothing", offset)
    elif kind == 0x58:
        if len(payload) >= 2 and payload[0] and payload[1] <= 7:
            events.time_signatures.append((track, tick, payload[0], 1 << payload[1]))
        else:
            events.repaired("a time signature without sense", offset)
    elif kind == 0x59:
        sharps = int.from_bytes(payload[:1], "big", signed=True)
        if len(payload) >= 2 and abs(sharps) <= 7 and payload[1] <= 1:
            events.key_signatures.append((track, tick, sharps, payload[1] == 1))
        else:
            events.repaired("a key signature without sense", offset)
