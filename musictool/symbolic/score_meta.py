"""What tokens can't say of a score, as the `meta` of a stream's head, and a score put together again from both.

`meta` comes from anywhere, so everything in it is checked before it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from musictool.errors import InputError
from musictool.symbolic.notes import KeySignature, Lyric, Notes, Pedals, Score, TempoMap, TimeSignature, Track
from musictool.symbolic.schemes.columns import DRUM_SOURCE, sources_of

QUARTERS_MAX = 1e9


def meta_of(score: Score) -> dict[str, Any]:
    """The meta of a score: plain JSON values, times in seconds, places in quarters."""
    meta: dict[str, Any] = {
        "duration_seconds": score.duration_seconds,
        "ticks_per_quarter": score.ticks_per_quarter,
        "tracks": [{"name": t.name, "program": t.program, "drum": t.is_drum} for t in score.tracks],
    }
    if score.has_metre:
        tempo = score.tempo_map
        starts, lengths = tempo.start_quarters.tolist(), tempo.microseconds_per_quarter.tolist()
        meta["tempo"] = [list(pair) for pair in zip(starts, lengths, strict=True)]
        meta["time_signatures"] = [[s.quarter, s.numerator, s.denominator] for s in score.time_signatures]
    if score.key_signatures:
        meta["key_signatures"] = [[k.quarter, k.sharps, int(k.is_minor)] for k in score.key_signatures]
    if score.lyrics:
        meta["lyrics"] = [[lyric.seconds, lyric.text, lyric.track] for lyric in score.lyrics]
    return meta


def assemble(decoded: Score, meta: Mapping[str, Any]) -> Score:
    """A score from what a scheme decoded and what the head's meta adds.

    Args:
        decoded: as from `Scheme.decode`: in its notes `track` holds the voice, in its pedals the source.
        meta: as from `meta_of`; metre that the tokens say themselves goes before the meta's.

    Raises:
        InputError: a value of meta makes no sense.
    """
    described = _tracks(meta)
    notes, pedals, tracks, track_of_source = _with_tracks(decoded.notes, decoded.pedals, described)
    lyrics = []
    for seconds, text, track in _rows(meta, "lyrics", (float, str, int)):
        source = _source(described[track]) if 0 <= track < len(described) else -1
        lyrics.append(Lyric(_within("lyrics", seconds, 0, QUARTERS_MAX), text, track_of_source.get(source, 0)))
    tempo_map, signatures, has_metre = decoded.tempo_map, decoded.time_signatures, decoded.has_metre
    if not has_metre:
        tempo = [
            (_within("tempo", quarter, 0, QUARTERS_MAX), _within("tempo", length, 1, 1 << 30))
            for quarter, length in _rows(meta, "tempo", (float, int))
        ]
        tempo_map = TempoMap.of(*zip(*tempo, strict=True)) if tempo else TempoMap.constant()
        signatures = tuple(
            TimeSignature(
                _within("time_signatures", quarter, 0, QUARTERS_MAX),
                _within("time_signatures", numerator, 1, 255),
                _power_of_two("time_signatures", denominator),
            )
            for quarter, numerator, denominator in _rows(meta, "time_signatures", (float, int, int))
        )
        has_metre = bool(tempo or signatures)
    keys = tuple(
        KeySignature(
            _within("key_signatures", quarter, 0, QUARTERS_MAX),
            _within("key_signatures", sharps, -7, 7),
            bool(is_minor),
        )
        for quarter, sharps, is_minor in _rows(meta, "key_signatures", (float, int, int))
    )
    resolution = _typed("ticks_per_quarter", meta.get("ticks_per_quarter", 480), int)
    return Score(
        notes,
        tracks,
        tempo_map,
        signatures,
        keys,
        pedals,
        tuple(sorted(lyrics, key=lambda lyric: lyric.seconds)),
        _within("ticks_per_quarter", resolution, 1, 32767),
        has_metre,
    )


def _with_tracks(
    notes: Notes, pedals: Pedals, described: list[Track]
) -> tuple[Notes, Pedals, tuple[Track, ...], dict[int, int]]:
    """Deal notes out to one track a source and voice, in the order and by the names that `described` gives."""
    names: dict[int, list[str]] = {}
    for track in described:
        names.setdefault(_source(track), []).append(track.name)
    rank = np.full(2 * DRUM_SOURCE, len(names))
    rank[list(names)] = np.arange(len(names))

    part_of_note = sources_of(notes) << 8 | notes.track
    part_of_pedal = pedals.track.astype(np.int64) << 8
    parts = np.union1d(part_of_note, part_of_pedal)
    order = np.argsort(rank[parts >> 8], kind="stable")
    place = np.argsort(order)
    tracks: list[Track] = []
    track_of_source: dict[int, int] = {}
    for source, voice in zip((parts[order] >> 8).tolist(), (parts[order] & 255).tolist(), strict=True):
        known = names.get(source) or (names.get(DRUM_SOURCE) if source >= DRUM_SOURCE else None) or [""]
        track_of_source.setdefault(source, len(tracks))
        tracks.append(Track(known[min(voice, len(known) - 1)], source & 127, source >= DRUM_SOURCE))
    notes = notes.with_columns(track=place[np.searchsorted(parts, part_of_note)].astype(np.int16))
    on_track = place[np.searchsorted(parts, part_of_pedal)]
    pedals = Pedals.of(pedals.onset_seconds, pedals.offset_seconds, on_track)
    return notes, pedals, tuple(tracks) or (Track(),), track_of_source


def _source(track: Track) -> int:
    return track.program + DRUM_SOURCE * track.is_drum


def _tracks(meta: Mapping[str, Any]) -> list[Track]:
    tracks = []
    for entry in _typed("tracks", meta.get("tracks", []), list):
        entry = _typed("tracks", entry, dict)
        name = _typed("tracks", entry.get("name", ""), str)
        program = _within("tracks", _typed("tracks", entry.get("program", 0), int), 0, 127)
        tracks.append(Track(name, program, _typed("tracks", entry.get("drum", False), bool)))
    return tracks


def _rows(meta: Mapping[str, Any], key: str, kinds: tuple[type, ...]) -> list[tuple]:
    """The rows of a table in meta, each value of its kind; a whole number will do for a float."""
    rows = []
    for row in _typed(key, meta.get(key, []), list):
        if not isinstance(row, list) or len(row) != len(kinds):
            raise _nonsense(key, row)
        rows.append(tuple(_typed(key, value, kind) for value, kind in zip(row, kinds, strict=True)))
    return rows


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _nonsense(key, value)
    return value


def _within(key: str, value: Any, low: float, high: float) -> Any:
    if not low <= value <= high or not math.isfinite(value):
        raise _nonsense(key, value)
    return value


def _power_of_two(key: str, value: int) -> int:
    if not 1 <= value <= 1 << 16 or value & (value - 1):
        raise _nonsense(key, value)
    return value


def _nonsense(key: str, value: Any) -> InputError:
    return InputError(f"meta {key!r} makes no sense: {value!r:.60}", code="invalid-meta")
