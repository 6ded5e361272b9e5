"""Recordings made equally loud: a gain for a recording and all of its parts, and peaks turned down where they must."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from musictool.audio.limiting import Limiter
from musictool.audio.loudness import Loudness, LoudnessMeter, gain_to
from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import LoudnessSettings
from musictool.training.data.pipeline.sounds import Samples, Sound, notes_of, sounds_of


def tools(settings: LoudnessSettings) -> dict[str, Any]:
    """Nothing but the settings decides."""
    return {}


def make(item: Item, step: Mapping[str, Any], settings: LoudnessSettings, outlet: Outlet) -> list[Item]:
    """Measure the sum of the parts, and write them louder or softer."""
    sounds = sounds_of(item)
    first = next(iter(sounds.values()))
    loudness = measured(sounds)
    gain = gain_to(loudness, settings.target_lufs, settings.ceiling_dbtp + settings.limit_db)
    ceiling = 10 ** (settings.ceiling_dbtp / 20)
    blocks: Iterator[Samples] = (block * np.float32(gain) for block in _side_by_side(sounds))
    if gain * loudness.true_peak > ceiling:
        blocks = _limited(blocks, first, len(sounds), ceiling)
    with outlet.sounds(item.name, list(sounds), first.format) as sinks:
        for block in blocks:
            for part, channels in zip(sounds, np.split(block, len(sounds), axis=1), strict=True):
                sinks.write(part, channels)
    result = {
        "lufs": None if loudness.integrated_lufs is None else round(loudness.integrated_lufs, 3),
        "true_peak_dbtp": _decibels(loudness.true_peak),
        "gain_db": _decibels(gain),
        "limited_db": _decibels(max(gain * loudness.true_peak / ceiling, 1.0)),
    }
    parts = outlet.with_notes(item.name, sinks.parts, notes_of(item))
    return [item.after({**step, "result": result}, parts=parts, seconds=first.seconds, span=None)]


def measured(sounds: Mapping[str, Sound]) -> Loudness:
    """The loudness of all parts played at once, and the highest true peak of that and of each."""
    rate_hz, channels, _ = next(iter(sounds.values())).format
    meters = [LoudnessMeter(rate_hz, channels) for _ in range(_count_with_sum(len(sounds)))]
    for block in _side_by_side(sounds):
        for meter, sound in zip(meters, np.split(_with_sum(block, len(sounds)), len(meters), axis=1), strict=True):
            meter.add(sound)
    found = [meter.finish() for meter in meters]
    return Loudness(found[-1].integrated_lufs, max(one.true_peak for one in found))


def _side_by_side(sounds: Mapping[str, Sound]) -> Iterator[Samples]:
    """Blocks with the channels of all parts, float32 [n, parts * C]."""
    for blocks in zip(*(sound.blocks() for sound in sounds.values()), strict=True):
        yield np.concatenate(blocks, axis=1)


def _limited(blocks: Iterator[Samples], sound: Sound, parts: int, ceiling: float) -> Iterator[Samples]:
    """Blocks whose peaks, and those of the sum of their parts, are turned down; all parts by the same."""
    rate_hz, channels, _ = sound.format
    limiter = Limiter(rate_hz, _count_with_sum(parts) * channels, ceiling)
    for block in blocks:
        yield limiter.push(_with_sum(block, parts))[:, : parts * channels]
    yield limiter.finish()[:, : parts * channels]


def _with_sum(block: Samples, parts: int) -> Samples:
    """A block with the sum of its parts behind them, if there are several."""
    if parts == 1:
        return block
    return np.concatenate([block, block.reshape(len(block), parts, -1).sum(axis=1)], axis=1)


def _count_with_sum(parts: int) -> int:
    return parts + (parts > 1)


def _decibels(magnitude: float) -> float | None:
    return round(20 * math.log10(magnitude), 3) if magnitude else None
