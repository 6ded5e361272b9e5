"""Scores to and from `pretty_midi.PrettyMIDI`, for code that lives in that world.

Needs the optional package pretty_midi. Its objects hold times in seconds, so notes and pedals pass unchanged; its
tempo map passes through ticks, as pretty_midi keeps it there.
"""

from __future__ import annotations

import io
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from musictool.errors import MissingError
from musictool.symbolic.midi_writing import write_midi
from musictool.symbolic.notes import KeySignature, Lyric, Notes, Pedals, Score, TempoMap, TimeSignature, Track

if TYPE_CHECKING:
    import pretty_midi

_SUSTAIN = 64


def from_pretty_midi(midi: pretty_midi.PrettyMIDI) -> Score:
    """The score that a PrettyMIDI holds; each of its instruments becomes a track."""
    resolution = midi.resolution
    instruments = midi.instruments
    rows = [
        (note.start, note.end, note.pitch, note.velocity, instrument.program, instrument.is_drum, index)
        for index, instrument in enumerate(instruments)
        for note in instrument.notes
    ]
    notes = Notes.of(*zip(*rows, strict=True)).sorted() if rows else Notes.empty()
    change_seconds, beats_per_minute = midi.get_tempo_changes()

    def quarter(seconds: float) -> float:
        return float(midi.time_to_tick(seconds)) / resolution

    return Score(
        notes=notes,
        tracks=tuple(Track(i.name, i.program, i.is_drum) for i in instruments) or (Track(),),
        tempo_map=TempoMap.of(
            [quarter(seconds) for seconds in change_seconds], np.rint(60e6 / np.asarray(beats_per_minute))
        ),
        time_signatures=tuple(
            TimeSignature(quarter(metre.time), metre.numerator, metre.denominator)
            for metre in midi.time_signature_changes
        ),
        key_signatures=tuple(
            KeySignature(quarter(key.time), *_sharps(key.key_number)) for key in midi.key_signature_changes
        ),
        pedals=_pedals(midi),
        lyrics=tuple(Lyric(float(lyric.time), lyric.text) for lyric in midi.lyrics),
        ticks_per_quarter=resolution,
        has_metre=bool(midi.time_signature_changes) or len(change_seconds) > 1,
    )


def to_pretty_midi(score: Score) -> pretty_midi.PrettyMIDI:
    """The score as a PrettyMIDI, with one instrument for each program of each track.

    Raises:
        MissingError: pretty_midi is not installed.
    """
    package = _pretty_midi()
    frame = Score(
        tracks=score.tracks,
        tempo_map=score.tempo_map,
        time_signatures=score.time_signatures,
        key_signatures=score.key_signatures,
        lyrics=score.lyrics,
        ticks_per_quarter=score.ticks_per_quarter,
        has_metre=score.has_metre,
    )
    midi = package.PrettyMIDI(io.BytesIO(write_midi(frame)))
    midi.instruments.clear()
    notes = score.notes
    columns = (notes.velocity, notes.pitch, notes.onset_seconds, notes.offset_seconds)
    owners = zip(notes.track.tolist(), notes.is_drum.tolist(), notes.program.tolist(), strict=True)
    instruments: dict[tuple[int, bool, int], Any] = {}
    for owner, *note in zip(owners, *(column.tolist() for column in columns), strict=True):
        if owner not in instruments:
            track, is_drum, program = owner
            name = score.tracks[track].name if track < len(score.tracks) else ""
            instruments[owner] = package.Instrument(program, is_drum, name)
        instruments[owner].notes.append(package.Note(*note))
    for owner in sorted(instruments):
        instrument = instruments[owner]
        own = score.pedals.track == owner[0]
        for value, times in ((127, score.pedals.onset_seconds[own]), (0, score.pedals.offset_seconds[own])):
            instrument.control_changes += [package.ControlChange(_SUSTAIN, value, time) for time in times.tolist()]
        instrument.control_changes.sort(key=lambda change: (change.time, change.value))
        midi.instruments.append(instrument)
    return midi


def _pretty_midi() -> ModuleType:
    try:
        import pretty_midi
    except ImportError as error:
        raise MissingError("pretty_midi is not installed", hint="pip install pretty_midi") from error
    return pretty_midi


def _sharps(key_number: int) -> tuple[int, bool]:
    """Sharps and mode of pretty_midi's key number: tonics C to B in major, then in minor."""
    is_minor = key_number >= 12
    major_tonic = (key_number + 3 if is_minor else key_number) % 12
    sharps = major_tonic * 7 % 12
    return (sharps - 12 if sharps > 6 else sharps), is_minor


def _pedals(midi: pretty_midi.PrettyMIDI) -> Pedals:
    """Sustain presses of all instruments; one that is held lasts to the end of the piece."""
    presses = []
    for index, instrument in enumerate(midi.instruments):
        down: float | None = None
        for change in sorted(instrument.control_changes, key=lambda change: change.time):
            if change.number != _SUSTAIN:
                continue
            if change.value >= 64 and down is None:
                down = change.time
            elif change.value < 64 and down is not None:
                presses.append((down, change.time, index))
                down = None
        if down is not None:
            presses.append((down, max(down, midi.get_end_time()), index))
    return Pedals.of(*zip(*sorted(presses), strict=True)) if presses else Pedals.of()
