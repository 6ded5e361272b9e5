"""Solos of the Weimar Jazz Database played by a saxophone, beside bass and piano that go with them.

A solo of a saxophone is played by that saxophone. One of another instrument is played by the saxophone that reaches
most of its notes, octaves up or down if need be. The backing has the bass as it was measured and chords comped from the
symbols (`musictool.symbolic.comping`), or one of them where the other is not known. If so asked, each note of the solo
is moved to a tone of its chord, and both parts to another key. Both come with their notes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from musictool.errors import InputError
from musictool.symbolic.chord_line import on_chord_tones
from musictool.symbolic.comping import above_chords, accompaniment
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score, TempoMap, Track
from musictool.symbolic.synthesis import describe_synthesizer, render
from musictool.symbolic.weimar import Solo, list_solos, read_beats, read_solo
from musictool.training.data.pipeline.items import Item, Part, digest_of
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import BACKING, LEAD, PairsSettings
from musictool.training.data.pipeline.sounds import Samples, SoundFormat
from musictool.training.data.voices import compass

SAXOPHONES = {64: "soprano saxophone", 65: "alto saxophone", 66: "tenor saxophone", 67: "baritone saxophone"}
PIANO, BASS = 0, 32
TICKS_PER_QUARTER = 10_000  # at 120 quarters a minute a tick lasts 0.05 ms
LEAD_IN_SECONDS = 0.1
OCTAVE_COST = 0.15  # a share of notes out of reach
_COLUMNS = ("performer", "title", "instrument", "style", "key", "avgtempo", "signature", "rhythmfeel")
_MELODY, _BEATS = "melody", "beats"


class _Voice(NamedTuple):
    """Who plays a solo, and how far up."""

    program: int
    octaves: int


def tools(settings: PairsSettings) -> dict[str, Any]:
    """What plays."""
    return {"player": asdict(describe_synthesizer(settings.soundfont, settings.synthesizer))}


def items_of_database(folder: Path, settings: PairsSettings) -> list[Item]:
    """The solos of a database as items whose parts are its tables.

    Raises:
        InputError: it is no such database.
    """
    solos = [s for s in list_solos(folder) if s.program in SAXOPHONES or not settings.saxophones_only]
    return [_item_of(solo) for solo in solos]


def make(item: Item, step: Mapping[str, Any], settings: PairsSettings, outlet: Outlet) -> list[Item]:
    """Play a solo and its backing; there is nothing to play with one of which neither chords nor bass are known."""
    name = item.name
    program = item.about["program"]
    solo = read_solo(item.parts[_MELODY].file)
    if not len(solo):
        raise InputError("the solo has no notes", context=str(item.parts[_MELODY].file))
    voice = _Voice(program, 0) if program in SAXOPHONES else _fitting(solo)
    generator = np.random.default_rng([settings.seed, zlib.crc32(name.encode())])
    beats = read_beats(item.parts[_BEATS].file)
    bass, chords = accompaniment(above_chords(solo), beats, item.about["feel"], generator)
    if not len(bass) + len(chords):
        return []
    if settings.on_chords:
        solo = on_chord_tones(solo, beats)
    steps = int(generator.integers(-settings.transpose, settings.transpose, endpoint=True)) if settings.transpose else 0
    solo, bass, chords = _higher(solo, 12 * voice.octaves + steps), _higher(bass, steps), _higher(chords, steps)
    scores = _written(solo, voice, bass, chords)
    sounds = _played(scores, settings)
    with outlet.sounds(name, list(sounds), SoundFormat(settings.rate_hz, settings.channels, 16)) as sinks:
        for part, samples in sounds.items():
            sinks.write(part, samples)
    made = item.after(
        {**step, "result": {"saxophone": SAXOPHONES[voice.program], "octaves": voice.octaves, "semitones": steps}},
        parts=outlet.with_notes(name, sinks.parts, {part: write_midi(score) for part, score in scores.items()}),
        seconds=len(sounds[LEAD]) / settings.rate_hz,
    )
    return [made]


def _item_of(solo: Solo) -> Item:
    about = {column: solo.row.get(column, "") for column in _COLUMNS} | {"feel": solo.feel, "program": solo.program}
    parts = {name: Part(path, digest_of(path)) for name, path in ((_MELODY, solo.melody), (_BEATS, solo.beats))}
    tune = solo.row.get("title", "").casefold().strip() or solo.name
    return Item(solo.name.removesuffix("_FINAL"), parts, tune, parts[_MELODY].sha256, about=about)


def _fitting(solo: Notes) -> _Voice:
    """The saxophone that reaches most notes of a solo; an octave's move has to be worth it."""

    def cost(voice: _Voice) -> float:
        lowest, highest = compass(voice.program)
        pitch = solo.pitch + 12 * voice.octaves
        return float(np.mean((pitch < lowest) | (pitch > highest))) + OCTAVE_COST * abs(voice.octaves)

    return min((_Voice(program, octaves) for octaves in (0, 1, -1, 2, -2) for program in SAXOPHONES), key=cost)


def _higher(notes: Notes, semitones: int) -> Notes:
    return notes.with_columns(pitch=(notes.pitch + semitones).astype(np.int16))


def _written(solo: Notes, voice: _Voice, bass: Notes, chords: Notes) -> dict[str, Score]:
    """Both parts as scores, from shortly before the first note."""
    on_the_beat = bass if len(bass) else chords
    start = float(min(solo.onset_seconds.min(), on_the_beat.onset_seconds.min())) - LEAD_IN_SECONDS
    lead = _moved(solo, start, voice.program, 0)
    backing = Notes.concatenate([_moved(bass, start, BASS, 0), _moved(chords, start, PIANO, 1)]).sorted()
    return {
        LEAD: _score(lead, [Track(SAXOPHONES[voice.program], voice.program)]),
        BACKING: _score(backing, [Track("bass", BASS), Track("piano", PIANO)]),
    }


def _moved(notes: Notes, start_seconds: float, program: int, track: int) -> Notes:
    """Notes of one instrument, with times from a moment on."""
    return notes.with_columns(
        onset_seconds=notes.onset_seconds - start_seconds,
        offset_seconds=notes.offset_seconds - start_seconds,
        program=np.full(len(notes), program, np.int16),
        track=np.full(len(notes), track, np.int16),
    )


def _score(notes: Notes, tracks: Sequence[Track]) -> Score:
    """A score as it is when it has been written and read, so that sound and notes say the same."""
    score = Score(notes, tuple(tracks), TempoMap.constant(), ticks_per_quarter=TICKS_PER_QUARTER)
    return read_midi(write_midi(score))


def _played(scores: Mapping[str, Score], settings: PairsSettings) -> dict[str, Samples]:
    """The sound of each part, float32 [n, C], equally long."""
    sounds = {}
    for part, score in scores.items():
        blocks = render(
            score.notes,
            score.pedals,
            rate_hz=settings.rate_hz,
            soundfont=settings.soundfont,
            synthesizer=settings.synthesizer,
        )
        sound = np.concatenate(list(blocks))
        sounds[part] = sound if settings.channels == 2 else sound.mean(axis=1, keepdims=True)
    frames = max(map(len, sounds.values()))
    return {part: np.pad(sound, ((0, frames - len(sound)), (0, 0))) for part, sound in sounds.items()}
