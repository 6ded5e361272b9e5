"""MIDI files to scores.

`read_midi` gives the bytes to symusic, which parses a file in about a tenth of a millisecond, and takes its columns
over whole. symusic 0.6 is strict in some places and quietly wrong in others, so a file takes this way only when nothing
in it is known to go wrong there; every other file is scanned by `smf.scan`, some twenty times slower, with the same
result for a sound file (the tests hold the two ways against each other). What symusic would get wrong, and how it is
noticed:

- Notes that never end are dropped: each track gets note-offs for all its keys, far after its end, and a note that
  reaches there was hanging.
- Ticks wrap at 32 bits: a delta time of four bytes, or any note past 2**27 ticks.
- Sustain presses start at 0 on channels above the first, are lost when held to the end, and go astray when a channel
  changes program: presses are taken from the controllers, or scanned.
- Running status after a sysex is misread; F7 packets are not understood.
- Tempo and signature events of odd length are read past their end, absurd denominators overflow; several at one tick
  lose their order.
- Text that is not UTF-8 becomes replacement characters; lyrics lose their track.
- Frame-based division, RIFF files, long headers and damaged tracks are refused; format 2 is read as if it were 1.
- Memory grows with program changes times events, without limit: counted beforehand.

One thing is not noticed: running status after a message that belongs on a wire (a clock tick, F8), which no file should
hold and which looks like a delta time. `inspect_midi` tells of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from symusic import core

from musictool.errors import InputError, MusicToolError
from musictool.symbolic.midi_writing import write_midi
from musictool.symbolic.notes import Score, Track
from musictool.symbolic.smf import MAX_NOTES, scan
from musictool.symbolic.smf_score import TickNotes, Ticks, TickScore, from_events, pair_notes, to_score

__all__ = ["MidiFacts", "inspect_midi", "read_midi", "write_midi"]

_FAR_TICK = 1 << 27
_END_OF_TRACK = b"\xff\x2f\x00"
_FAR_DELTA = b"\xff\x01\x00\xc0\x80\x80\x00"  # an empty text at the track's end, then a delta of _FAR_TICK
_FAR_END = b"\xff\x06\x01~\x00" + _END_OF_TRACK  # a marker, to see that the end was reached
_RELEASES = [
    bytes([0xB0 | channel, 64, 0, 0, 0x80 | channel, 0, 0]) + bytes(c for p in range(1, 128) for c in (0, p, 0)) + b"\0"
    for channel in range(16)
]
_PARSE_BYTES = 1 << 28  # the most memory that program changes may make symusic reserve
_SUSTAIN = 64
_NO_TICKS = np.zeros(0, np.int64)
_STABLE_ROWS = 24  # shorter tables are sorted by insertion (pdqsort)


def read_midi(data: bytes | Path) -> Score:
    """Read a MIDI file, repairing what is damaged where there is a sensible way to.

    Args:
        data: the file's bytes, or where it is.

    Returns:
        The piece. A track stands for what one channel of one file track plays with one program, and every track has
        notes or lyrics. Notes are in the order of `Notes.sorted`.

    Raises:
        InputError: it is no MIDI file, or over the limits (a day, ten million notes, a million bars).
    """
    if isinstance(data, Path):
        path = data
        try:
            return read_midi(path.read_bytes())
        except OSError as error:
            raise InputError(error.strerror or "cannot be read", context=str(path)) from error
        except MusicToolError as error:
            error.context = ", ".join(filter(None, (str(path), error.context)))
            raise
    piece = _parse(data)
    return to_score(from_events(scan(data)) if piece is None else piece)


def _parse(data: bytes) -> TickScore | None:
    """Read a sound file through symusic; None for one that has to be scanned."""
    tracks = _sound_tracks(data)
    is_status = None if tracks is None else _statuses(data, tracks)
    if not tracks or is_status is None:
        return None
    try:
        parsed = core.ScoreTick.from_midi(_with_far_releases(data, tracks))
    except (RuntimeError, MemoryError):
        return None
    if parsed.note_num() > MAX_NOTES:
        raise InputError(f"{parsed.note_num()} notes in a MIDI file are over the limit of {MAX_NOTES}")

    parts = [track for track in parsed.tracks if len(track.notes)]
    names = [track.name for track in parts]
    notes = _note_columns(parts)
    tempos, metres, keys = (table.numpy() for table in (parsed.tempos, parsed.time_signatures, parsed.key_signatures))
    is_misread = (
        len(parts) > 32_767
        or any("\ufffd" in name for name in names)
        or len(parsed.markers) < len(tracks)
        or parsed.markers[-len(tracks)].time < _FAR_TICK  # some event swallowed the end of its track
        or (len(notes.onset) and (int(notes.onset.min()) < 0 or int(notes.offset.max()) >= _FAR_TICK))
        or any(_is_shuffled(table["time"]) for table in (tempos, metres, keys))
    )
    pedals = None if is_misread else _pedal_columns(parts, data, tracks, is_status)
    if pedals is None:
        return None
    counts = tempos["mspq"] > 0
    columns = (metres[column].tolist() for column in ("time", "numerator", "denominator"))
    time_signatures = [row for row in zip(*columns, strict=True) if row[1] and row[2]]
    return TickScore(
        parsed.ticks_per_quarter,
        notes,
        [Track(name.rstrip("\0"), part.program, part.is_drum) for name, part in zip(names, parts, strict=True)],
        tempos["time"][counts],
        tempos["mspq"][counts],
        time_signatures=time_signatures,
        key_signatures=[
            (tick, sharps, mode == 1)
            for tick, sharps, mode in zip(*(keys[name].tolist() for name in ("time", "key", "tonality")), strict=True)
            if abs(sharps) <= 7 and mode <= 1
        ],
        pedal_onset=pedals[0],
        pedal_offset=pedals[1],
        pedal_track=pedals[2],
        has_metre=bool(counts.any() or time_signatures),
    )


def _sound_tracks(data: bytes) -> list[tuple[int, int]] | None:
    """Where each track's events start and end in a file that symusic reads right; None for any other file."""
    if len(data) < 14 or data[:8] != b"MThd\0\0\0\x06" or data[8] or data[9] > 1 or data[12] > 127:
        return None
    if not (data[12] or data[13]):
        return None
    tracks, position = [], 14
    while position < len(data):
        start = position + 8
        position = start + int.from_bytes(data[position + 4 : start], "big")
        if data[start - 8 : start - 4] != b"MTrk" or data[position - 3 : position] != _END_OF_TRACK:
            return None
        tracks.append((start, position))
    is_whole = position == len(data) and len(tracks) == int.from_bytes(data[10:12], "big")
    return tracks if is_whole else None


def _statuses(data: bytes, tracks: list[tuple[int, int]]) -> NDArray[np.bool_] | None:
    """Which bytes may be status bytes; None where symusic may misread system events or delta times."""
    codes = np.frombuffer(data, np.uint8)
    changes = np.count_nonzero((codes & 0xF0) == 0xC0) if len(data) > 100_000 else 0
    if changes * len(data) * 8 > _PARSE_BYTES:
        return None

    meta = np.flatnonzero(codes == 0xFF)
    meta = meta[meta < len(data) - 4]
    kind, size = codes[meta + 1], codes[meta + 2]
    is_tempo, is_metre, is_key = kind == 0x51, kind == 0x58, kind == 0x59
    is_odd_metre = is_metre & ((size != 4) | (codes[meta + 4] > 7))
    if (is_odd_metre | (is_tempo & (size != 3)) | (is_key & (size != 2))).any():
        return None

    is_only_end = np.count_nonzero(kind == 0x2F) < len(tracks)  # the last one's lies beyond
    if not is_only_end or (kind == 0x05).any():  # words lose their track
        return None

    is_high = codes > 127
    is_high[:14] = False
    for start, _ in tracks:
        is_high[start - 8 : start] = False
    values = meta[is_tempo | is_key] + 3
    for place in range(3):
        is_high[values + place] = False
    follows_low = ~is_high[:-1]  # a copy
    if (is_high[2:] & is_high[1:-1] & ~follows_low[:-1]).any():  # may be a delta time of four bytes
        return None

    is_status = is_high
    is_status[1:] &= follows_low
    systems = np.flatnonzero(is_status & ((codes == 0xF0) | (codes == 0xF7))).tolist()
    return is_status if _are_sound_sysexes(data, systems) or _is_plain(data, tracks) else None


def _are_sound_sysexes(data: bytes, positions: list[int]) -> bool:
    """Whether bytes F0 and F7 that may be system events are such as symusic reads right."""
    ends: set[int] = set()
    for position in positions:
        if data[position] == 0xF7:  # a packet, where it does not end a sysex
            if position not in ends:
                return False
            continue
        length, following = _quantity(data, position + 1)
        end = following + length
        _, following = _quantity(data, end)
        if following < len(data) and data[end - 1] == 0xF7:  # else it was a delta time
            ends.add(end - 1)
            if data[following] < 128:  # running status
                return False
    return True


_DELTA, _DATA = rb"[\x80-\xff]{0,2}[\x00-\x7f]", rb"[\x00-\x7f]"
_TWO = rb"[\x80-\xbf\xe0-\xef]%s%s(?:%s%s%s)*" % (_DATA, _DATA, _DELTA, _DATA, _DATA)  # a message, running status
_ONE = rb"[\xc0-\xdf]%s(?:%s%s)*" % (_DATA, _DELTA, _DATA)
_MESSAGES = re.compile(rb"(?:%s(?:%s|%s))*" % (_DELTA, _TWO, _ONE))
_META = re.compile(rb"%s\xff%s([\x00-\x7f])" % (_DELTA, _DATA))


def _is_plain(data: bytes, tracks: list[tuple[int, int]]) -> bool:
    """Whether tracks hold channel messages and short meta events only: what looks like more was a delta time."""
    for position, end in tracks:
        while position < end:
            position = cast("re.Match[bytes]", _MESSAGES.match(data, position, end)).end()
            meta = _META.match(data, position, end)
            if meta is None:
                break
            position = meta.end() + meta[1][0]
        if position != end:
            return False
    return True


def _quantity(data: bytes, position: int) -> tuple[int, int]:
    """A variable-length quantity, and the position after it."""
    value = 0
    while position < len(data):
        value, position = value << 7 | data[position] & 127, position + 1
        if data[position - 1] < 128:
            break
    return value, position


def _with_far_releases(data: bytes, tracks: list[tuple[int, int]]) -> bytes:
    """The file with a note-off far behind its end for every key of every channel that may have note-ons."""
    pieces = [data[:14]]
    for start, end in tracks:
        body = data[start : end - 3]
        tail = _FAR_DELTA + b"".join(_RELEASES[channel] for channel in range(16) if 0x90 | channel in body) + _FAR_END
        pieces += (b"MTrk", (len(body) + len(tail)).to_bytes(4, "big"), body, tail)
    return b"".join(pieces)


def _note_columns(parts: list[Any]) -> TickNotes:
    """The notes of symusic tracks as columns."""
    tables = [part.notes.numpy() for part in parts]
    sizes = [len(table["time"]) for table in tables]

    def column(name: str, dtype: type) -> NDArray[Any]:
        return np.concatenate([table[name] for table in tables], dtype=dtype) if tables else np.zeros(0, dtype)

    programs, drums = [part.program for part in parts], [part.is_drum for part in parts]
    track = np.repeat(np.arange(len(parts), dtype=np.int16), sizes)
    onset = column("time", np.int64)
    return TickNotes(
        onset,
        onset + column("duration", np.int64),
        column("pitch", np.int16),
        column("velocity", np.int16),
        np.array(programs, np.int16)[track],
        np.array(drums, np.bool_)[track],
        track,
    )


def _is_shuffled(ticks: NDArray[Any]) -> bool:
    """Whether rows of one tick may have lost their order: symusic's sort keeps it in short tables only."""
    return len(ticks) >= _STABLE_ROWS and bool((ticks[1:] == ticks[:-1]).any())


def _pedal_columns(
    parts: list[Any], data: bytes, tracks: list[tuple[int, int]], is_status: NDArray[np.bool_]
) -> tuple[Ticks, Ticks, Ticks] | None:
    """Onsets, offsets and tracks of the sustain presses; None where they must be scanned."""
    onsets, offsets, homes = [], [], []
    for index, part in enumerate(parts):
        if len(part.controls) < 2:  # the one behind the end
            continue
        controls = part.controls.numpy()
        is_sustain = controls["number"] == _SUSTAIN
        is_down = controls["value"][is_sustain] >= 64
        is_turn = is_down.copy()
        is_turn[1:] ^= is_down[:-1]
        turns = controls["time"][is_sustain][is_turn].astype(np.int64)
        if len(turns) % 2:
            return None
        if len(turns) and turns[-1] >= _FAR_TICK:
            turns[-1] -= _FAR_TICK
        is_held = turns[1::2] > turns[::2]
        onsets.append(turns[::2][is_held])
        offsets.append(turns[1::2][is_held])
        homes.append(np.full(len(onsets[-1]), index, np.int64))
    if not sum(map(len, onsets)):
        return _NO_TICKS, _NO_TICKS, _NO_TICKS
    if _changes_program(data, tracks, is_status):
        return None
    return np.concatenate(onsets), np.concatenate(offsets), np.concatenate(homes)


def _changes_program(data: bytes, tracks: list[tuple[int, int]], is_status: NDArray[np.bool_]) -> bool:
    """Whether a channel of some track may play with more than one program."""
    codes = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(is_status & (codes & 0xF0 == 0xC0))
    owners = np.searchsorted([start for start, _ in tracks], places).tolist()
    if len(set(owners)) == len(owners):  # one a track
        return False
    following = places + 2
    for _ in range(3):  # over the delta time
        following += codes[np.minimum(following, len(codes) - 1)] > 127
    is_change = codes[np.minimum(following + 1, len(codes) - 1)] > 127  # else it was a delta time itself
    places, owners = places[is_change], np.array(owners)[is_change].tolist()
    settings = set(zip(owners, codes[places].tolist(), codes[places + 1].tolist(), strict=True))
    return len({setting[:2] for setting in settings}) < len(settings)


@dataclass(frozen=True, slots=True)
class MidiFacts:
    """What a MIDI file is like, for `mtk validate`.

    Attributes:
        format: 0, 1 or 2.
        division: ticks per quarter, or where `frame_rate` is set per second.
        frame_rate: 24, 25, 29 (29.97 drop) or 30 frames a second, None where time is counted in quarters.
        tracks: number of track chunks.
        notes: notes that are kept.
        hanging: note-ons that no note-off ends.
        orphan_offs: note-offs that end nothing.
        overlapping: notes that start while the same pitch sounds on the same channel of the same track.
        zero_length: notes that end when they start.
        problems: what had to be repaired, one line a kind.
        needed_mercy: whether anything had to be.
    """

    format: int
    division: int
    frame_rate: int | None
    tracks: int
    notes: int
    hanging: int
    orphan_offs: int
    overlapping: int
    zero_length: int
    problems: list[str] = field(default_factory=list)

    @property
    def needed_mercy(self) -> bool:
        """Whether the file breaks the standard somewhere."""
        return bool(self.problems)


def inspect_midi(data: bytes) -> MidiFacts:
    """Look for what is wrong with a MIDI file.

    Raises:
        InputError: as `read_midi`.
    """
    events = scan(data)
    paired = pair_notes(events)
    return MidiFacts(
        format=events.format,
        division=events.ticks_per_quarter,
        frame_rate=events.frame_rate,
        tracks=len(events.track_ends),
        notes=len(paired.key),
        hanging=paired.hanging,
        orphan_offs=paired.orphan_offs,
        overlapping=paired.overlapping,
        zero_length=int(np.count_nonzero(paired.offset == paired.onset)),
        problems=list(events.repairs),
    )
