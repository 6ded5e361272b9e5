"""A piece -> a pair: drawn, performed, played, written. Each item is a function of the piece, the options, its number.

Knows no folders: bytes of sound and MIDI come out, with the facts of how they were made.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.audio.augment import AugmentConfig, augment
from musictool.errors import InputError
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, TempoMap, Track
from musictool.symbolic.synthesis import sounding_until
from musictool.training.data import performance
from musictool.training.data.expression import expression_events
from musictool.training.data.playing import NOTE_OFF, NOTE_ON, Channel, Events, on_grid, play_channels
from musictool.training.data.voices import (
    DECAYING_PROGRAMS,
    HIGHEST_PITCH,
    LOWEST_PITCH,
    SUSTAINED_PROGRAMS,
    Voice,
    VoiceTable,
    compass,
)

TICKS_PER_QUARTER = 10_000  # at 120 quarters a minute a tick lasts 0.05 ms
TAIL_SECONDS = 1.5
JITTER_SECONDS = 0.0025
SOFT_SECONDS = 0.008
PEAK_DECIBELS = (-12.0, -1.0)
ATTEMPTS = 8  # at drawing a stretch and voices that leave some notes


@dataclass(frozen=True)
class SynthOptions:
    """How pieces are rendered.

    Attributes:
        rate_hz: of the sound.
        programs: program -> weight, one is drawn for all melodic notes of an item; None keeps the piece's own.
        is_melody: only the highest or most melodic line, notes one after the other.
        excerpt_seconds: how long an item is at most, but for what sounds on at the end of a short piece; None takes the
            whole piece.
        lag_seconds: lowest and highest by which sound comes after the written onset; one is drawn for an item.
        tuning_cents: an item is out of tune by at most so much.
        transpose: semitones, an item is moved by at most so much.
        velocity_spread: an item's velocities are moved by at most so much.
        drawn_pedal_share: of the items that have no pedal, one voice and that a ringing one, so many get one.
        has_drums: whether drums are played (and written).
        augmentation: applied to the sound of every item; None leaves it as played.
        seed: of all that is drawn.
    """

    rate_hz: int = 16_000
    programs: dict[int, float] | None = None
    is_melody: bool = False
    excerpt_seconds: float | None = None
    lag_seconds: tuple[float, float] | None = None
    tuning_cents: float = 0.0
    transpose: int = 0
    velocity_spread: int = 0
    drawn_pedal_share: float = 0.0
    has_drums: bool = True
    augmentation: AugmentConfig | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Plan:
    """What an item will be.

    Attributes:
        written: notes, pedals and tracks as the MIDI file has them.
        channels: what is played.
        duration_seconds: of the sound.
        peak: the highest magnitude of a sample, before augmentation.
        generator: for what is drawn after this.
        facts: for the manifest.
    """

    written: Score
    channels: list[Channel]
    duration_seconds: float
    peak: float
    generator: np.random.Generator
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A pair as bytes.

    Attributes:
        audio: a FLAC file, mono, 16 bits.
        midi: a MIDI file.
        facts: for the manifest.
    """

    audio: bytes
    midi: bytes
    facts: dict[str, Any]


def plan_item(source: Path, number: int, options: SynthOptions, table: VoiceTable) -> Plan:
    """Draw everything that is drawn for an item but its augmentation.

    Args:
        source: a MIDI file.
        number: of the item in the run; with the options' seed it decides what is drawn.
        options: how.
        table: the voices there are.

    Raises:
        InputError: the file cannot be read, or holds nothing to play.
    """
    score = _prepared(read_midi(source), options)
    generator = np.random.default_rng((options.seed, number))
    for _ in range(ATTEMPTS):
        drawn = _draw(score, options, table, generator)
        if drawn is not None:
            drawn.facts["source_sha256"] = hashlib.sha256(source.read_bytes()).hexdigest()
            drawn.facts["seed"] = options.seed
            drawn.facts["number"] = number
            return drawn
    raise InputError("the piece holds nothing that the voices can play", context=str(source), code="nothing-to-play")


def render_item(plan: Plan, options: SynthOptions) -> Item:
    """Play an item.

    Raises:
        InputError: its sound is silence.
        MissingError: libfluidsynth is not there.
    """
    sound = play_channels(plan.channels, plan.duration_seconds, options.rate_hz)
    loudest = float(np.abs(sound).max(initial=0.0))
    if loudest < 1e-6:
        raise InputError("nothing is heard of the piece", code="silent")
    sound *= plan.peak / loudest
    written, facts = plan.written, plan.facts
    if options.augmentation is not None:
        augmented = augment(sound, options.rate_hz, options.augmentation, plan.generator)
        sound, written = augmented.samples, _stretched(written, augmented.time_ratio)
        facts = {
            **facts,
            "duration_seconds": round(len(sound) / options.rate_hz, 6),
            "time_ratio": round(augmented.time_ratio, 6),
            "augmentation": list(augmented.applied),
        }
    return Item(_flac(sound, options.rate_hz), write_midi(written), facts)


def _prepared(score: Score, options: SynthOptions) -> Score:
    """What is the same for all items of a piece: its line or all its notes, on one track where one voice plays them."""
    if not options.has_drums:
        score = replace(score, notes=score.notes.take(~score.notes.is_drum))
    if options.is_melody:
        score = performance.melody(score)
    if options.programs is not None:
        track = score.notes.is_drum.astype(np.int16)
        pedals = score.pedals
        score = replace(
            score,
            notes=score.notes.with_columns(track=track),
            pedals=Pedals.of(pedals.onset_seconds, pedals.offset_seconds, np.zeros(len(pedals), np.int16)),
        )
    return performance.playable(score)


def _draw(score: Score, options: SynthOptions, table: VoiceTable, generator: np.random.Generator) -> Plan | None:
    """One attempt at an item; None where no note is left."""
    start, end = 0.0, np.inf
    if options.excerpt_seconds is not None and score.duration_seconds > options.excerpt_seconds:
        score, start = performance.excerpt(score, options.excerpt_seconds, generator)
        end = options.excerpt_seconds
    order = table.font_order(generator)
    limits = (LOWEST_PITCH, HIGHEST_PITCH)
    if options.programs is not None:
        program = table.draw_program(options.programs, generator)
        limits = compass(program)
        columns = np.where(score.notes.is_drum, score.notes.program, program).astype(np.int16)
        score = replace(score, notes=score.notes.with_columns(program=columns))
    score, interval = performance.transposed_into(
        score, options.transpose, limits, generator, by_octaves=options.programs is not None
    )
    parts = _parts(score.notes, table, order)
    score = _with_tracks(score, parts)
    if not len(score.notes):
        return None
    score = performance.with_touch(score, options.velocity_spread, generator)
    score, pedalling = _pedalled(score, options.drawn_pedal_share, generator)
    low, high = options.lag_seconds or (0.0, 0.0)
    lag = float(generator.uniform(low, high))
    tuning = float(generator.uniform(-options.tuning_cents, options.tuning_cents))
    duration = round(min(end, score.duration_seconds + lag + TAIL_SECONDS) * options.rate_hz) / options.rate_hz
    written, channels = _performed(score, [voice for voice, _ in parts], lag, tuning, duration, options, generator)
    peak = 10 ** (generator.uniform(*PEAK_DECIBELS) / 20)
    facts = {
        "soundfont": sorted({voice.preset.font.name for voice, _ in parts}),
        "soundfont_sha256": sorted({table.digests[voice.preset.font] for voice, _ in parts}),
        "programs": sorted({voice.preset.program for voice, _ in parts if not voice.preset.is_drum}),
        "has_drums": any(voice.preset.is_drum for voice, _ in parts),
        "notes": len(written.notes),
        "start_seconds": round(start, 6),
        "duration_seconds": round(duration, 6),
        "lag_seconds": round(lag, 6),
        "tuning_cents": round(tuning, 3),
        "transposed": interval,
        "pedal": pedalling,
        "peak": round(peak, 6),
    }
    return Plan(written, channels, duration, peak, generator, facts)


def _parts(notes: Notes, table: VoiceTable, order: Sequence[Path]) -> list[tuple[Voice, NDArray[np.int64]]]:
    """A voice for each program of each track, and the rows it can sound."""
    keys = np.stack([notes.track, notes.is_drum, notes.program]).astype(np.int64)
    found, inverse = np.unique(keys, axis=1, return_inverse=True)
    parts = []
    for index, (_, is_drum, program) in enumerate(found.T.tolist()):
        voice = table.find(program, bool(is_drum), order)
        if voice is None:
            continue
        audible = np.zeros(128, bool)
        audible[list(voice.audible)] = True
        rows = np.flatnonzero((inverse.reshape(-1) == index) & audible[notes.pitch])
        if len(rows):
            parts.append((voice, rows))
    return parts


def _with_tracks(score: Score, parts: list[tuple[Voice, NDArray[np.int64]]]) -> Score:
    """The score with a track for each part; pedals go where their track's notes went."""
    notes, pedals = [], []
    for index, (voice, rows) in enumerate(parts):
        own = score.notes.take(rows)
        presses = np.flatnonzero(score.pedals.track == own.track[0])
        if voice.preset.program in DECAYING_PROGRAMS and not voice.preset.is_drum:
            pedals.append((score.pedals.onset_seconds[presses], score.pedals.offset_seconds[presses], index))
        notes.append(own.with_columns(track=np.full(len(rows), index, np.int16)))
    times = [np.concatenate([press[i] for press in pedals] or [np.zeros(0)]) for i in range(2)]
    track = np.concatenate([np.full(len(press[0]), press[2]) for press in pedals] or [np.zeros(0)])
    return Score(
        notes=Notes.concatenate(notes).sorted(),
        tracks=tuple(Track(voice.name, voice.preset.program, voice.preset.is_drum) for voice, _ in parts),
        tempo_map=TempoMap.constant(),
        pedals=Pedals.of(times[0], times[1], track),
        ticks_per_quarter=TICKS_PER_QUARTER,
    )


def _pedalled(score: Score, drawn_share: float, generator: np.random.Generator) -> tuple[Score, str]:
    """The piece with its own pedal, a drawn one or none, and which of these it is."""
    if len(score.pedals):
        return score, "own"
    melodic = [track.program for track in score.tracks if not track.is_drum]
    if len(melodic) == 1 and melodic[0] in DECAYING_PROGRAMS and generator.random() < drawn_share:
        return performance.with_drawn_pedal(score, generator), "drawn"
    return score, "none"


def _performed(
    score: Score,
    voices: list[Voice],
    lag_seconds: float,
    tuning_cents: float,
    duration_seconds: float,
    options: SynthOptions,
    generator: np.random.Generator,
) -> tuple[Score, list[Channel]]:
    """What is written, and what is played so much later, each note with its own lag."""
    notes, has_lag = score.notes, options.lag_seconds is not None
    lag = performance.lags(
        notes,
        lag_seconds,
        generator,
        jitter_seconds=JITTER_SECONDS if has_lag else 0.0,
        soft_seconds=SOFT_SECONDS if has_lag else 0.0,
    )
    sounding_onset = on_grid(notes.onset_seconds + lag)
    onset = np.maximum(sounding_onset - lag, 0.0)  # written to the place that it is played at
    offset = np.minimum(np.maximum(notes.offset_seconds, onset + performance.MIN_NOTE_SECONDS / 2), duration_seconds)
    pedals = score.pedals
    written = replace(
        score,
        notes=notes.with_columns(onset_seconds=onset, offset_seconds=np.maximum(offset, onset)),
        pedals=Pedals.of(pedals.onset_seconds, np.minimum(pedals.offset_seconds, duration_seconds), pedals.track),
    )
    release = sounding_until(written.notes, written.pedals) + lag
    played = notes.with_columns(onset_seconds=sounding_onset, offset_seconds=release)
    channels = []
    for index, voice in enumerate(voices):
        own = played.take(np.flatnonzero(played.track == index))
        events = _note_events(own)
        if voice.preset.program in SUSTAINED_PROGRAMS and not voice.preset.is_drum:
            drawn = expression_events(own.onset_seconds, duration_seconds, generator, is_solo=options.is_melody)
            events = events.joined(drawn)
        channels.append(Channel(voice.preset, events, 0.0 if voice.preset.is_drum else tuning_cents))
    return written, channels


def _note_events(notes: Notes) -> Events:
    """A channel's note-ons and note-offs; a key that is struck again is let go before."""
    order = np.lexsort((notes.onset_seconds, notes.pitch))
    notes = notes.take(order)
    release = notes.offset_seconds.copy()
    same_key = notes.pitch[1:] == notes.pitch[:-1]
    release[:-1][same_key] = np.minimum(release[:-1], notes.onset_seconds[1:])[same_key]
    pitch, count = notes.pitch.astype(np.int64), len(notes)
    return Events(
        np.concatenate([notes.onset_seconds, release]),
        np.repeat([NOTE_ON, NOTE_OFF], count),
        np.tile(pitch, 2),
        np.concatenate([notes.velocity.astype(np.int64), np.zeros(count, np.int64)]),
    )


def _stretched(score: Score, ratio: float) -> Score:
    notes, pedals = score.notes, score.pedals
    return replace(
        score,
        notes=notes.with_columns(
            onset_seconds=notes.onset_seconds * ratio, offset_seconds=notes.offset_seconds * ratio
        ),
        pedals=Pedals.of(pedals.onset_seconds * ratio, pedals.offset_seconds * ratio, pedals.track),
    )


def _flac(sound: NDArray[np.float32], rate_hz: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(sound, -1, 1), rate_hz, subtype="PCM_16", format="FLAC")
    return file.getvalue()
