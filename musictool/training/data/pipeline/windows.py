"""Where a recording, or its lead, is loud for long: windows of it, cut out by whoever reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from musictool.audio.energy import PowerMeter, loud_spans
from musictool.errors import InputError
from musictool.training.data.pipeline.items import Item
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import WindowsSettings
from musictool.training.data.pipeline.sounds import Sound, sounds_of


def tools(settings: WindowsSettings) -> dict[str, Any]:
    """Nothing but the settings decides."""
    return {}


def make(item: Item, step: Mapping[str, Any], settings: WindowsSettings, outlet: Outlet) -> list[Item]:
    """Find the windows of an item; they have its own files."""
    spans = _spans(_measured(item, settings), settings)
    first = item.span[0] if item.span else 0.0
    return [
        replace(
            item.after(step, seconds=end - start, span=(first + start, first + end)), name=f"{item.name}-w{number:03}"
        )
        for number, (start, end) in enumerate(spans, 1)
    ]


def _measured(item: Item, settings: WindowsSettings) -> Sound:
    sounds = sounds_of(item)
    if len(sounds) == 1:
        return next(iter(sounds.values()))
    if settings.part not in sounds:
        hint = f"it has {', '.join(sounds)}: say which to measure with --part"
        raise InputError(f"there is no part {settings.part!r:.40}", hint=hint)
    return sounds[settings.part]


def _spans(sound: Sound, settings: WindowsSettings) -> list[tuple[float, float]]:
    """First and last second of each window."""
    rate_hz = sound.format.rate_hz
    hop = max(1, round(settings.hop_seconds * rate_hz))
    meter = PowerMeter(hop)
    for block in sound.blocks():
        meter.add(block)
    spans = loud_spans(meter.power, round(settings.frame_seconds / settings.hop_seconds), settings.threshold)
    seconds = ((first * hop / rate_hz, last * hop / rate_hz) for first, last in spans)
    return [(start, end) for start, end in seconds if end - start >= settings.least_seconds]
