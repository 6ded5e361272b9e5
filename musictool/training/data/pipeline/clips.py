"""Windows, or whole recordings, cut into files of their own; the notes of a part are cut with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Pedals, Score, TempoMap
from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import ClipsSettings
from musictool.training.data.pipeline.sounds import notes_of, sounds_of

TICKS_PER_QUARTER = 10_000  # at 120 quarters a minute a tick lasts 0.05 ms


def tools(settings: ClipsSettings) -> dict[str, Any]:
    """Nothing but the settings decides."""
    return {}


def make(item: Item, step: Mapping[str, Any], settings: ClipsSettings, outlet: Outlet) -> list[Item]:
    """Cut an item."""
    sounds = sounds_of(item)
    first = next(iter(sounds.values()))
    rate_hz = first.format.rate_hz
    origin = first.first / rate_hz
    scores = {part: read_midi(notes) for part, notes in notes_of(item).items()}
    made = []
    for number, (start, end) in enumerate(cuts(first.seconds, settings), 1):
        name = item.name if settings.seconds is None else f"{item.name}-c{number:03}"
        begin = round(start * rate_hz)
        frames = min(round(end * rate_hz), first.frames) - begin
        with outlet.sounds(name, list(sounds), first.format) as sinks:
            for part, sound in sounds.items():
                for block in sound.blocks(begin, frames):
                    sinks.write(part, block)
        place = origin + begin / rate_hz
        notes = {part: write_midi(cut(score, place, place + frames / rate_hz)) for part, score in scores.items()}
        clip = item.after(
            step,
            parts=outlet.with_notes(name, sinks.parts, notes),
            seconds=frames / rate_hz,
            start_seconds=item.start_seconds + place,
            span=None,
        )
        made.append(replace(clip, name=name))
    return made


def cuts(seconds: float, settings: ClipsSettings) -> list[tuple[float, float]]:
    """First and last second of each clip of so long a sound."""
    if settings.seconds is None:
        return [(0.0, seconds)]
    length, every = settings.seconds, settings.every_seconds or settings.seconds
    found: list[tuple[float, float]] = []
    number = 0
    while number == 0 or (found and found[-1][1] < seconds):
        start = number * every
        end = min(start + length, seconds)
        if end - start < min(settings.least_seconds, length):
            break
        found.append((start, end))
        number += 1
    return found


def cut(score: Score, start_seconds: float, end_seconds: float) -> Score:
    """The notes that begin in a stretch, with times from its start, ended where it ends; bars are not kept."""
    notes, pedals = score.notes, score.pedals
    inside = notes.take((notes.onset_seconds >= start_seconds) & (notes.onset_seconds < end_seconds))
    presses = (pedals.offset_seconds > start_seconds) & (pedals.onset_seconds < end_seconds)
    length = end_seconds - start_seconds
    return Score(
        inside.with_columns(
            onset_seconds=inside.onset_seconds - start_seconds,
            offset_seconds=np.minimum(inside.offset_seconds - start_seconds, length),
        ),
        score.tracks,
        TempoMap.constant(),
        pedals=Pedals.of(
            np.maximum(pedals.onset_seconds[presses] - start_seconds, 0.0),
            np.minimum(pedals.offset_seconds[presses] - start_seconds, length),
            pedals.track[presses],
        ),
        ticks_per_quarter=TICKS_PER_QUARTER,
    )
