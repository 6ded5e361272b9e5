"""Mixes taken apart into a lead and its backing, by a Demucs model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from musictool.audio.separation import Separator, check_demucs
from musictool.errors import InputError
from musictool.inference.precision import find_device
from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import BACKING, LEAD, SeparateSettings
from musictool.training.data.pipeline.sounds import Sound, sounds_of


def tools(settings: SeparateSettings) -> dict[str, Any]:
    """See whether Demucs is there; the model is loaded when there is something to take apart."""
    check_demucs()
    return {}


def make(item: Item, step: Mapping[str, Any], settings: SeparateSettings, outlet: Outlet) -> list[Item]:
    """Take the item's only sound apart."""
    sounds = sounds_of(item)
    if len(sounds) != 1:
        raise InputError(f"it has parts already: {', '.join(sounds)}", code="has-parts")
    (sound,) = sounds.values()
    separator = _separator(settings.model, settings.stem, str(find_device(settings.device)))
    rate_hz, channels, _ = sound.format
    with outlet.sounds(item.name, [BACKING, LEAD], sound.format) as sinks:
        level = _deviation(sound)
        for lead, backing in separator.separated(sound.blocks(), rate_hz, channels, sound.frames, level):
            sinks.write(LEAD, lead)
            sinks.write(BACKING, backing)
    return [item.after(step, parts=sinks.parts, seconds=sound.seconds, span=None)]


@lru_cache(maxsize=1)
def _separator(model: str, stem: str, device: str) -> Separator:
    return Separator(model, stem, device)


def _deviation(sound: Sound) -> float:
    """The standard deviation of a sound's channels, averaged."""
    total = square = 0.0
    for block in sound.blocks():
        mono = block.mean(axis=1, dtype=np.float64)
        total += float(mono.sum())
        square += float(np.square(mono).sum())
    mean = total / sound.frames
    return max(square / sound.frames - mean * mean, 0.0) ** 0.5
