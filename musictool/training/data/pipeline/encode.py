"""Sound as codes: a token stream for each part of an item, as `mtk encode` writes them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from musictool import __version__
from musictool.audio.reading import open_audio
from musictool.checkpoints.store import Store
from musictool.errors import InputError
from musictool.inference.codec_choice import Codecs, find_levels
from musictool.inference.codec_streaming import CodecModel
from musictool.inference.coded_sound import EncodedSound, describe_codes
from musictool.stream.records import Head
from musictool.stream.writer import StreamWriter
from musictool.training.data.pipeline.items import Item, Part
from musictool.training.data.pipeline.outlet import CODES_SUFFIX, Outlet
from musictool.training.data.pipeline.settings import EncodeSettings
from musictool.training.data.pipeline.sounds import notes_of, sounds_of


def tools(settings: EncodeSettings) -> dict[str, Any]:
    """The codec that the name means here."""
    codec = _codec(settings)
    return {"model_sha256": codec.sha256, **codec.adapter, "codebooks": _levels(codec, settings)}


def make(item: Item, step: Mapping[str, Any], settings: EncodeSettings, outlet: Outlet) -> list[Item]:
    """Encode all parts of an item; their notes go with the codes."""
    if item.span is not None:
        raise InputError("it is a window of a recording, not a file", hint="cut windows first: mtk data clips")
    sounds = sounds_of(item)
    parts = {part: _encoded(item, part, step, settings, outlet) for part in sounds}
    parts = outlet.with_notes(item.name, parts, notes_of(item))
    return [item.after(step, parts=parts, seconds=next(iter(sounds.values())).seconds)]


def _encoded(item: Item, part: str, step: Mapping[str, Any], settings: EncodeSettings, outlet: Outlet) -> Part:
    codec = _codec(settings)
    made = {"command": "data encode", "version": __version__, **step}
    place = (item.name, part, list(item.parts), CODES_SUFFIX)
    with open_audio(item.parts[part].file) as reader, outlet.file(*place) as file:
        head = Head(
            item.name,
            "codes",
            codec.name,
            codec.sha256,
            meta=describe_codes(codec.model.config, _levels(codec, settings), reader),
            made=(made,),
        )
        sound = EncodedSound(reader, codec, _levels(codec, settings))
        with StreamWriter(file, is_live=False).item(head) as writer:
            for chunk in sound:
                writer.write(chunk.codes, chunk.scales)
            writer.samples, writer.source_samples = sound.samples, sound.source_samples
            writer.source_sha = sound.source_sha256
    return outlet.part(*place)


def _codec(settings: EncodeSettings) -> CodecModel:
    """The codec; it is loaded once a process."""
    store = Store.from_environ(os.environ).adapting(settings.model, settings.adapter)
    return Codecs(store, settings.model, settings.device, settings.precision).load(settings.model)


def _levels(codec: CodecModel, settings: EncodeSettings) -> int:
    return find_levels(codec.model.config, codec.name, None, settings.codebooks)
