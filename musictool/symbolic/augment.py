"""Variations of a score, as data for training: transposed, stretched in time, with other dynamics or other chords.

Every draw comes from the generator that is passed in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from musictool.errors import UsageError
from musictool.symbolic.chord_substitution import substituted
from musictool.symbolic.notes import KeySignature, Score, TempoMap

_RANGE = re.compile(r"(-?[0-9.]+)\.\.(-?[0-9.]+)")


@dataclass(frozen=True)
class Augmentation:
    """How far variations may go.

    Attributes:
        pitch: semitones, lowest and highest; a piece is never moved so far that a note would leave 0..127.
        time: factors of duration, lowest and highest, drawn evenly on a log scale.
        velocity: largest change of a note's velocity.
        substitute: how likely a dominant on its way to the tonic is replaced (`chord_substitution`).
    """

    pitch: tuple[int, int] = (0, 0)
    time: tuple[float, float] = (1.0, 1.0)
    velocity: int = 0
    substitute: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Augmentation:
        """Read `pitch=-5..6,time=0.9..1.1,velocity=8,substitute=0.3`.

        Raises:
            UsageError: it is not of that form, or a range makes no sense.
        """
        hint = "write pitch=-5..6,time=0.9..1.1,velocity=8,substitute=0.3 or some of these"
        settings: dict = {}
        for part in text.split(","):
            key, _, value = part.strip().partition("=")
            span = _RANGE.fullmatch(value)
            try:
                if key == "velocity":
                    settings[key] = int(value)
                elif key == "substitute":
                    settings[key] = float(value)
                elif key in ("pitch", "time") and span:
                    number = int if key == "pitch" else float
                    settings[key] = (number(span[1]), number(span[2]))
                else:
                    raise ValueError
            except ValueError:
                raise UsageError(f"no such variation: {part.strip()[:40]!r}", context="--augment", hint=hint) from None
        made = cls(**settings)
        if not (-127 <= made.pitch[0] <= made.pitch[1] <= 127 and 0.1 <= made.time[0] <= made.time[1] <= 10):
            raise UsageError("a range of --augment is empty or too wide", hint="time lies within 0.1..10")
        if not 0 <= made.velocity <= 127:
            raise UsageError("velocity in --augment lies within 0..127", hint=hint)
        if not 0 <= made.substitute <= 1:
            raise UsageError("substitute in --augment lies within 0..1", hint=hint)
        return made


def augmented(score: Score, settings: Augmentation, generator: np.random.Generator) -> tuple[Score, dict]:
    """One variation of a score, and what was drawn for it; `substituted` counts cadences that were changed."""
    drawn: dict = {}
    if settings.substitute:
        score, drawn["substituted"] = substituted(score, settings.substitute, generator)
    lowest, highest = settings.pitch
    pitch = score.notes.pitch[~score.notes.is_drum]
    if len(pitch):
        lowest, highest = max(lowest, -int(pitch.min())), min(highest, 127 - int(pitch.max()))
    semitones = int(generator.integers(lowest, highest + 1)) if lowest <= highest else 0
    stretch = float(np.exp(generator.uniform(*np.log(settings.time))))
    jitter = generator.integers(-settings.velocity, settings.velocity + 1, len(score.notes))
    drawn |= {"pitch": semitones, "time": round(stretch, 6), "velocity": settings.velocity}
    return stretched(transposed(with_jitter(score, jitter), semitones), drawn["time"]), drawn


def transposed(score: Score, semitones: int) -> Score:
    """The score moved by semitones, keys with it; drums stay."""
    notes = score.notes
    moved = np.where(notes.is_drum, notes.pitch, np.clip(notes.pitch + semitones, 0, 127)).astype(np.int16)
    keys = tuple(
        KeySignature(key.quarter, (key.sharps + 7 * semitones + 5) % 12 - 5, key.is_minor)
        for key in score.key_signatures
    )
    keys = keys if semitones else score.key_signatures  # 0 must not respell a key
    return replace(score, notes=notes.with_columns(pitch=moved), key_signatures=keys)


def stretched(score: Score, factor: float) -> Score:
    """The score `factor` times as long: notes, pedals and words move, bars stay where they are among them."""
    notes, pedals, tempo = score.notes, score.pedals, score.tempo_map
    lengths = np.maximum(np.rint(tempo.microseconds_per_quarter * factor), 1).astype(np.int64)
    new_tempo = TempoMap.of(tempo.start_quarters, lengths)

    def moved(seconds: np.ndarray) -> np.ndarray:
        return new_tempo.seconds(tempo.quarters(seconds))

    return replace(
        score,
        notes=notes.with_columns(onset_seconds=moved(notes.onset_seconds), offset_seconds=moved(notes.offset_seconds)),
        pedals=replace(pedals, onset_seconds=moved(pedals.onset_seconds), offset_seconds=moved(pedals.offset_seconds)),
        lyrics=tuple(replace(lyric, seconds=float(moved(np.array(lyric.seconds)))) for lyric in score.lyrics),
        tempo_map=new_tempo,
    )


def with_jitter(score: Score, change: np.ndarray) -> Score:
    """The score with each velocity changed by an int [n], kept within 1..127."""
    velocity = np.clip(score.notes.velocity + change, 1, 127).astype(np.int16)
    return replace(score, notes=score.notes.with_columns(velocity=velocity))
