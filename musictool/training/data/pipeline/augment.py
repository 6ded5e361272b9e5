"""Versions of clips in other keys and at other tempi; the notes of a part go with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np

from musictool.audio.stretching import load_stretcher, shifted, stretched
from musictool.symbolic.augment import stretched as stretched_score
from musictool.symbolic.augment import transposed
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Score
from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import AugmentSettings
from musictool.training.data.pipeline.sounds import Samples, SoundFormat, notes_of, sounds_of

_HIGHEST = 0.999


def tools(settings: AugmentSettings) -> dict[str, Any]:
    """What stretches sound."""
    load_stretcher()
    return {"python-stretch": version("python-stretch")}


def make(item: Item, step: Mapping[str, Any], settings: AugmentSettings, outlet: Outlet) -> list[Item]:
    """Write an item as it is, and each of its versions. All of its sound is held in memory."""
    sounds = sounds_of(item)
    first = next(iter(sounds.values()))
    samples = {part: sound.samples() for part, sound in sounds.items()}
    scores = {part: read_midi(notes) for part, notes in notes_of(item).items()}
    made = []
    shifts, tempi = [(steps, 1.0) for steps in settings.semitones], [(0, tempo) for tempo in settings.tempo]
    for semitones, tempo in [(0, 1.0), *shifts, *tempi]:
        name = version_name(item.name, semitones, tempo)
        changed = _changed(samples, first.format, semitones, tempo)
        with outlet.sounds(name, list(sounds), first.format) as sinks:
            for part, sound in changed.items():
                sinks.write(part, sound)
        notes = {part: _changed_notes(score, semitones, tempo) for part, score in scores.items()}
        result = {**step, "result": {"semitones": semitones, "tempo": tempo}}
        seconds = len(next(iter(changed.values()))) / first.format.rate_hz
        one = item.after(result, parts=outlet.with_notes(name, sinks.parts, notes), seconds=seconds, span=None)
        made.append(replace(one, name=name))
    return made


def _changed_notes(score: Score, semitones: int, tempo: float) -> bytes:
    """A score changed as the sound is, as a MIDI file."""
    return write_midi(stretched_score(transposed(score, semitones), 1 / tempo))


def version_name(name: str, semitones: int, tempo: float) -> str:
    """What a version of an item is called; the item itself keeps its name."""
    return name + (f"-pitch{semitones:+d}" if semitones else "") + (f"-tempo{tempo:g}" if tempo != 1 else "")


def _changed(samples: Mapping[str, Samples], sound: SoundFormat, semitones: int, tempo: float) -> dict[str, Samples]:
    """All parts changed alike, and softer by one gain where one of them would be clipped."""
    if not semitones and tempo == 1:
        return dict(samples)
    changed = {
        part: shifted(stretched(block, sound.rate_hz, 1 / tempo), sound.rate_hz, semitones)
        for part, block in samples.items()
    }
    peak = max(float(np.abs(block).max(initial=0.0)) for block in changed.values())
    gain = np.float32(min(1.0, _HIGHEST / peak)) if peak else np.float32(1)
    return {part: block * gain for part, block in changed.items()}
