"""Sound to the codes of a stream's item and back: rates, channels and lengths around a codec's encoder and decoder.

Sound is brought to the codec's rate and channels on its way in, and to any rate on its way out; how long it was is kept
with the codes, so that it comes out as long to the sample. Everything comes and goes block by block, in bounded memory.
Knows no files and no command lines; which codec it is, is `codec_choice`'s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from musictool.audio.reading import MAX_RATE_HZ, MIN_RATE_HZ, AudioReader
from musictool.audio.resampling import Resampler, remixed
from musictool.errors import InputError
from musictool.inference.codec_streaming import CodeBlock, CodecModel, Decoder, Encoder
from musictool.models.codec import CodecConfig
from musictool.stream.reader import ItemReader
from musictool.stream.records import CodeChunk

BLOCK_SECONDS = 1.0
CHANNELS_MAX = 64  # what a head may ask for: a decoder each
LATENCY_SHARE = 0.2  # of the time that sound may wait, what may pass before the encoder sees it


class CodedSound(Protocol):
    """Codes that come once, in order.

    Attributes:
        samples: how long the sound is at the codec's rate; known when the codes have ended, None if nobody says.
        source_samples: how long it was before, at its own rate; likewise.
        source_sha256: of the bytes it was read from, in hexadecimal; likewise, empty if nobody says.
    """

    @property
    def samples(self) -> int | None: ...

    @property
    def source_samples(self) -> int | None: ...

    @property
    def source_sha256(self) -> str: ...

    def __iter__(self) -> Iterator[CodeChunk]: ...


@dataclass(frozen=True)
class WholeCodes:
    """All codes of a sound at once, which is little: half a megabyte a minute at the most."""

    chunks: tuple[CodeChunk, ...]
    samples: int | None
    source_samples: int | None
    source_sha256: str

    @classmethod
    def of(cls, sound: CodedSound) -> WholeCodes:
        """Read codes to their end."""
        chunks = tuple(sound)
        return cls(chunks, sound.samples, sound.source_samples, sound.source_sha256)

    def __iter__(self) -> Iterator[CodeChunk]:
        return iter(self.chunks)


class EcdcCodes:
    """The codes of an `.ecdc` file, which tells how long the sound is before them.

    Args:
        chunks: the codes.
        samples: as of `CodedSound`.
    """

    def __init__(self, chunks: Iterator[CodeChunk], samples: int) -> None:
        self.samples: int | None = samples
        self.source_samples: int | None = None
        self.source_sha256 = ""
        self._chunks = chunks

    def __iter__(self) -> Iterator[CodeChunk]:
        return self._chunks


class ItemCodes:
    """The codes of a stream's item, read as they come."""

    def __init__(self, item: ItemReader) -> None:
        self._item = item

    @property
    def samples(self) -> int | None:
        return self._item.closing.samples if self._item.closing is not None else None

    @property
    def source_samples(self) -> int | None:
        return self._item.closing.source_samples if self._item.closing is not None else None

    @property
    def source_sha256(self) -> str:
        return self._item.closing.source_sha if self._item.closing is not None else ""

    def __iter__(self) -> Iterator[CodeChunk]:
        return self._item.code_chunks()


class EncodedSound:
    """Codes of sound, made as they are asked for.

    Args:
        reader: at the beginning of its sound.
        codec: whose codes.
        levels: codebooks to use.
        latency_seconds: how much sound may be waited for before its codes come; None for what is fastest.
        advance: told how many seconds of sound have been read, as they are.
        seconds_max: how much to encode at most, to a block; what follows is read for its digest alone.

    Attributes:
        samples, source_samples, source_sha256: as of `CodedSound`; `samples` are those that were encoded.
        is_truncated: whether the sound broke off before its end.
    """

    def __init__(
        self,
        reader: AudioReader,
        codec: CodecModel,
        levels: int,
        latency_seconds: float | None = None,
        advance: Callable[[float], None] = lambda seconds: None,
        seconds_max: float = math.inf,
    ) -> None:
        self.samples: int | None = None
        self.source_samples: int | None = None
        self.source_sha256 = ""
        self.is_truncated = False
        self._reader = reader
        self._codec = codec
        self._levels = levels
        self._latency_seconds = latency_seconds
        self._advance = advance
        self._seconds_max = seconds_max

    def __iter__(self) -> Iterator[CodeChunk]:
        """The codes, once.

        Raises:
            InputError: as `AudioReader.blocks`.
        """
        reader, config = self._reader, self._codec.model.config
        encoder = Encoder(self._codec, self._levels, latency_seconds=self._latency_seconds)
        resampler = Resampler(reader.rate_hz, config.rate_hz, config.channels)
        frames = 0
        wait_seconds = BLOCK_SECONDS if self._latency_seconds is None else self._latency_seconds * LATENCY_SHARE
        for block in reader.blocks(max(1, round(wait_seconds * reader.rate_hz))):
            if frames < self._seconds_max * reader.rate_hz:
                yield from _chunks(encoder.push(resampler.push(remixed(block, config.channels)).T))
            frames += len(block)
            self._advance(len(block) / reader.rate_hz)
        yield from _chunks(encoder.push(resampler.finish().T))
        yield from _chunks(encoder.finish())
        self.samples, self.source_samples = encoder.samples, frames
        self.source_sha256, self.is_truncated = reader.source_sha256, reader.is_truncated


def describe_codes(config: CodecConfig, levels: int, reader: AudioReader) -> dict[str, Any]:
    """What the head of an item says in `meta` of codes and of what they are made from."""
    source = {"source": {"rate_hz": reader.rate_hz, "channels": reader.channels}}
    meta = {**describe_frames(config, levels, config.channels), **source}
    return meta if reader.duration_seconds is None else {**meta, "duration_seconds": reader.duration_seconds}


def describe_frames(config: CodecConfig, rows: int, channels: int) -> dict[str, Any]:
    """What the head of an item says in `meta` of codes alone.

    Args:
        config: of the codec.
        rows: of codes, those of all channels.
        channels: that they stand for: the codec's, or several of a codec that has one.
    """
    return {
        "rate_hz": config.rate_hz,
        "channels": channels,
        "codebooks": rows,
        "codebook_size": config.codebook_size,
        "frame_rate_hz": config.frame_rate_hz,
        "hop_samples": config.hop_samples,
    }


def source_rate_of(meta: Mapping[str, Any]) -> int | None:
    """The rate of the sound that codes are made from, as their head has it; None if it says nothing of it.

    Raises:
        InputError: it says something that is no rate.
    """
    source = meta.get("source", {})
    rate_hz = source.get("rate_hz") if isinstance(source, dict) else source
    if rate_hz is not None and not (type(rate_hz) is int and MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ):
        raise InputError(f"the head's source has no rate that sound could have: {rate_hz!r:.40}")
    return rate_hz


def channels_of(meta: Mapping[str, Any], config: CodecConfig) -> int:
    """How many channels codes stand for: the codec's, or, of a codec of one channel, what their head says.

    Raises:
        InputError: it says something else.
    """
    channels = meta.get("channels", config.channels)
    if config.channels != 1:
        channels = config.channels
    if type(channels) is not int or not 1 <= channels <= CHANNELS_MAX:
        raise InputError(f"the head tells of no channels that sound could have: {channels!r:.40}", code="bad-codes")
    return channels


def decoded(
    sound: CodedSound,
    codec: CodecModel,
    rate_hz: int,
    *,
    channels: int | None = None,
    source_rate_hz: int | None = None,
    levels: int | None = None,
    latency_seconds: float | None = None,
) -> Iterator[NDArray[np.float32]]:
    """Sound of codes, as they come.

    Args:
        sound: the codes, of this codec.
        codec: what decodes them.
        rate_hz: what to resample to.
        channels: that the codes stand for, by default the codec's. Several of a codec of one: then the rows of a level
            stand side by side, a channel each.
        source_rate_hz: rate of the sound before it was encoded; at this rate it gets back its length to the sample.
        levels: codebooks to use of each channel, of those there are; all by default.
        latency_seconds: for how much sound codes may be waited for before it comes; None for what is fastest.

    Yields:
        float32 [n, C].

    Raises:
        InputError: the codes are none of this codec, or not as many as their end says; what `sound` raises.
    """
    config = codec.model.config
    channels = channels or config.channels
    decoders = [Decoder(codec, latency_seconds=latency_seconds) for _ in range(channels // config.channels)]
    resampler = Resampler(config.rate_hz, rate_hz, channels)
    for chunk in sound:
        blocks = [CodeBlock(_coarsest(rows, levels), chunk.scales) for rows in _by_channel(chunk.codes, len(decoders))]
        yield resampler.push(np.concatenate([own.push(block) for own, block in zip(decoders, blocks, strict=True)]).T)
    length = _checked_length(sound, config, source_rate_hz)
    yield resampler.push(np.concatenate([own.finish(sound.samples) for own in decoders]).T)
    yield resampler.finish(length if rate_hz == source_rate_hz else None)


def _chunks(blocks: Iterable[CodeBlock]) -> Iterator[CodeChunk]:
    return (CodeChunk(*block) for block in blocks)


def _by_channel(codes: NDArray[np.int32], channels: int) -> list[NDArray[np.int32]]:
    """The rows of each channel, of rows that alternate.

    Raises:
        InputError: they can't be shared out.
    """
    if len(codes) % channels:
        raise InputError(f"{len(codes)} rows of codes cannot be of {channels} channels", code="bad-codes")
    return [codes[channel::channels] for channel in range(channels)]


def _coarsest(codes: NDArray[np.int32], levels: int | None) -> NDArray[np.int32]:
    """The first rows of codes.

    Raises:
        InputError: there are not so many.
    """
    if levels is not None and levels > len(codes):
        raise InputError(
            f"there are {len(codes)} codebooks in it, not {levels}", hint="ask for fewer, or for all of them"
        )
    return codes[:levels]


def _checked_length(sound: CodedSound, config: CodecConfig, source_rate_hz: int | None) -> int | None:
    """How long sound was before it was encoded, if that is known; refused if it cannot have been."""
    samples, source_samples = sound.samples, sound.source_samples
    if samples is None or source_samples is None or source_rate_hz is None:
        return None
    difference = abs(source_samples * config.rate_hz - samples * source_rate_hz)
    if difference > 2 * max(config.rate_hz, source_rate_hz):
        raise InputError(f"{source_samples} samples at {source_rate_hz} Hz are not {samples} at {config.rate_hz} Hz")
    return source_samples
