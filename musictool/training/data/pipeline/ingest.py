"""Recordings brought in: any sound file, or what an address leads to, as FLAC of one rate and number of channels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from musictool.audio.reading import AudioReader, open_audio
from musictool.audio.resampling import Resampler, remixed
from musictool.errors import InputError
from musictool.training.data.pipeline.fetching import ADDRESS_KEY, fetched
from musictool.training.data.pipeline.items import Item, digest_of
from musictool.training.data.pipeline.outlet import Outlet
from musictool.training.data.pipeline.settings import WHOLE, IngestSettings
from musictool.training.data.pipeline.sounds import Samples, SoundFormat


def tools(settings: IngestSettings) -> dict[str, Any]:
    """Nothing but the settings decides."""
    return {}


def make(item: Item, step: Mapping[str, Any], settings: IngestSettings, outlet: Outlet) -> list[Item]:
    """Read a recording whole, and write it as the others."""
    if ADDRESS_KEY not in item.about:
        return [_brought_in(item, item.parts[WHOLE].file, step, settings, outlet)]
    with tempfile.TemporaryDirectory(dir=outlet.folder) as folder:
        return [_brought_in(item, fetched(item.about[ADDRESS_KEY], Path(folder)), step, settings, outlet)]


def _brought_in(item: Item, file: Path, step: Mapping[str, Any], settings: IngestSettings, outlet: Outlet) -> Item:
    sound = SoundFormat(settings.rate_hz, settings.channels, settings.bits)
    frames = 0
    with open_audio(file) as reader, outlet.sounds(item.name, [WHOLE], sound) as sinks:
        for block in _converted(reader, sound):
            sinks.write(WHOLE, block)
            frames += len(block)
    if reader.is_truncated:
        hint = "get the whole file, or cut it where it ends: ffmpeg -i FILE copy.flac"
        raise InputError("the file ends before the sound does", context=str(file), hint=hint, code="truncated")
    sha = item.source_sha256 or digest_of(file)
    return item.after(step, parts=sinks.parts, source_sha256=sha, seconds=frames / sound.rate_hz)


def _converted(reader: AudioReader, sound: SoundFormat) -> Iterator[Samples]:
    """Sound as it is to be written, float32 [n, C]."""
    resampler = Resampler(reader.rate_hz, sound.rate_hz, sound.channels)
    for block in reader.blocks():
        yield resampler.push(remixed(block, sound.channels))
    yield resampler.finish()
