"""The two ways in which a codec reads sound and codes: as one stream, or in segments that are coded alone.

Both work on a grid of blocks that begins where the sound begins, however it comes, so that what they say depends on the
sound alone. Segments overlap, each is divided by its loudness, and they are put together with linear cross-fades, as
EnCodec has it (Défossez et al., 2022; arXiv:2210.13438, section 3.4). Checks nothing that `codec_streaming` checks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import groupby
from mmap import mmap
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch import Tensor

from musictool.core.quantizer import Codebook
from musictool.errors import InputError
from musictool.models.codec import Codec, CodecConfig

BLOCK_SECONDS = 1.0  # where no latency is asked for: its activations fit the cache, and threads have enough of it
SEGMENTS_AT_ONCE = 2
SHELF_BYTES = 1 << 20
_NO_SCALES = np.zeros(0, np.float32)


class CodecModel(NamedTuple):
    """A codec ready to run.

    Attributes:
        model: in evaluation mode, on its device.
        name: what it is called.
        sha256: of its weights, in hexadecimal.
        dtype: what the layers of its encoder and decoder take.
        adapter: `adapter` and `adapter_sha256` of the one that is merged with it, empty for none. The codec's name says
            nothing of it, since its codebooks stay what they are.
    """

    model: Codec
    name: str
    sha256: str
    dtype: torch.dtype = torch.float32
    adapter: Mapping[str, str] = MappingProxyType({})


class CodeBlock(NamedTuple):
    """Codes of the next stretch of sound.

    Attributes:
        codes: int32 [K, t].
        scales: float32 [s], of the segments that begin in it; empty unless the codec normalises.
    """

    codes: NDArray[np.int32]
    scales: NDArray[np.float32] = _NO_SCALES


class Encoding(ABC):
    """Sound on its way to codes."""

    @abstractmethod
    def push(self, audio: NDArray[np.float32]) -> Iterator[CodeBlock]:
        """Codes that sound, float32 [C, n], makes known."""

    @abstractmethod
    def finish(self) -> Iterator[CodeBlock]:
        """Codes of what is left."""


class Decoding(ABC):
    """Codes on their way to sound."""

    @abstractmethod
    def push(self, block: CodeBlock) -> Iterator[NDArray[np.float32]]:
        """Sound that codes make known, float32 [C, m] each."""

    @abstractmethod
    def finish(self) -> Iterator[NDArray[np.float32]]:
        """What is left, up to a whole number of frames."""


# ---------------------------------------------------------------------------------------------------------- one stream


class StreamEncoding(Encoding):
    """Sound as one stream.

    Args:
        codec: without segments.
        levels: codebooks to use.
        latency_seconds: of a block; None for what is fastest.
    """

    def __init__(self, codec: CodecModel, levels: int, latency_seconds: float | None) -> None:
        config = codec.model.config
        self._codec = codec
        self._levels = levels
        self._state = codec.model.encoder.begin()
        self._grid = _Grid(config.channels, _block_frames(config, latency_seconds) * config.hop_samples, np.float32)
        self._shelf = _Shelf()

    def push(self, audio: NDArray[np.float32]) -> Iterator[CodeBlock]:
        for block in self._grid.push(audio):
            yield from self._step(block, is_last=False)

    def finish(self) -> Iterator[CodeBlock]:
        yield from self._step(self._grid.rest(), is_last=True)

    def _step(self, audio: NDArray[np.float32], is_last: bool) -> Iterator[CodeBlock]:
        model = self._codec.model
        with _running(self._codec):
            latents = model.encoder.step(_tensor(self._codec, audio[None]), self._state, is_last)
            codes = model.quantizer.encode(latents, self._levels) if latents.shape[-1] else None
        if codes is not None:
            yield CodeBlock(self._shelf.put(codes[0].cpu().numpy(), np.int32))


class StreamDecoding(Decoding):
    """Codes as one stream.

    Args:
        codec: without segments.
        levels: codebooks that codes come of.
        latency_seconds: of a block; None for what is fastest.
    """

    def __init__(self, codec: CodecModel, levels: int, latency_seconds: float | None) -> None:
        self._codec = codec
        self._state = codec.model.decoder.begin()
        self._grid = _Grid(levels, _block_frames(codec.model.config, latency_seconds), np.int32)

    def push(self, block: CodeBlock) -> Iterator[NDArray[np.float32]]:
        for codes in self._grid.push(block.codes):
            yield self._step(codes, is_last=False)

    def finish(self) -> Iterator[NDArray[np.float32]]:
        yield self._step(self._grid.rest(), is_last=True)

    def _step(self, codes: NDArray[np.int32], is_last: bool) -> NDArray[np.float32]:
        model = self._codec.model
        with _running(self._codec):
            latents = model.quantizer.decode(_code_tensor(self._codec, codes[None])).to(self._codec.dtype)
            audio = model.decoder.step(latents, self._state, is_last)
        return _sound_of(audio[0])


def _block_frames(config: CodecConfig, latency_seconds: float | None) -> int:
    """Frames of a block that lasts no longer than is asked for, but one at least."""
    seconds = BLOCK_SECONDS if latency_seconds is None else latency_seconds
    return max(1, int(seconds * config.frame_rate_hz + 1e-6))


# ------------------------------------------------------------------------------------------------------------ segments


class SegmentEncoding(Encoding):
    """Sound in segments, several at once, and each with the codes of a block of its own.

    Args:
        codec: with segments.
        levels: codebooks to use.
        latency_seconds: as long as several segments last, they are worked on together; None for what is fastest.
    """

    def __init__(self, codec: CodecModel, levels: int, latency_seconds: float | None) -> None:
        config = codec.model.config
        self._codec = codec
        self._levels = levels
        self._samples, self._stride = _segment_of(config)
        self._at_once = _segments_at_once(config, latency_seconds)
        window = (self._at_once - 1) * self._stride + self._samples
        self._grid = _Grid(config.channels, window, np.float32, stride=self._at_once * self._stride)
        self._shelf = _Shelf()

    def push(self, audio: NDArray[np.float32]) -> Iterator[CodeBlock]:
        for window in self._grid.push(audio):
            yield from self._encode(window, self._at_once)

    def finish(self) -> Iterator[CodeBlock]:
        rest = self._grid.rest()
        yield from self._encode(rest, -(-rest.shape[1] // self._stride))

    def _encode(self, window: NDArray[np.float32], count: int) -> Iterator[CodeBlock]:
        """Codes of the segments in a stretch of sound, the last of which may be cut short by its end."""
        segments = [window[:, first : first + self._samples] for first in range(0, count * self._stride, self._stride)]
        for _, alike in groupby(segments, key=lambda segment: segment.shape[1]):
            with _running(self._codec):
                audio = torch.from_numpy(np.stack(list(alike)))
                scales = audio.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + 1e-8  # [B, 1, 1]
                codes = self._codec.model.encode(_tensor(self._codec, (audio / scales).numpy()), self._levels)
            for rows, scale in zip(codes.cpu().numpy(), scales[:, 0].numpy(), strict=True):
                yield CodeBlock(self._shelf.put(rows, np.int32), self._shelf.put(scale, np.float32))


class SegmentDecoding(Decoding):
    """Codes in segments, put together as sound.

    Segments follow one another without a mark between them. All but the last two are whole; how long these are follows
    from how many frames they have together.

    Args:
        codec: with segments.
        levels: codebooks that codes come of.
        latency_seconds: as long as several segments last, they are worked on together; None for what is fastest.
    """

    def __init__(self, codec: CodecModel, levels: int, latency_seconds: float | None) -> None:
        config = codec.model.config
        self._codec = codec
        self._hop = config.hop_samples
        self._samples, self._stride = _segment_of(config)
        self._overlap = self._samples - self._stride
        self._whole = -(-self._samples // self._hop)
        self._at_once = _segments_at_once(config, latency_seconds)
        self._codes = np.zeros((levels, 0), np.int32)
        self._scales: deque[np.float32] = deque()
        self._ready: list[tuple[NDArray[np.int32], np.float32]] = []
        self._mixture = _OverlapAdd(config.channels, self._stride)

    def push(self, block: CodeBlock) -> Iterator[NDArray[np.float32]]:
        self._codes = np.concatenate([self._codes, block.codes], 1)
        self._scales.extend(block.scales)
        while self._begins_whole():
            self._take(self._whole)
            if len(self._ready) == self._at_once:
                yield from self._decode()
        if self._codes.shape[1] and not self._scales:
            raise InputError("codes of a segment without its scale", code="bad-codes")

    def finish(self) -> Iterator[NDArray[np.float32]]:
        for frames in self._last_frames():
            self._take(frames)
        yield from self._decode()
        yield self._mixture.rest()

    def _begins_whole(self) -> bool:
        """Whether the next segment is surely a whole one, and there."""
        if not self._scales:
            return False
        needed = self._whole
        if len(self._scales) == 2:  # the last two of all, perhaps
            needed += 1 - (-self._overlap // self._hop)
        return self._codes.shape[1] >= needed

    def _last_frames(self) -> list[int]:
        """Frames of the segments that are left."""
        frames, segments = self._codes.shape[1], len(self._scales)
        if segments < 2:
            lengths = [frames] * segments
        else:
            whole = [self._whole] * (segments - 2)
            lengths = whole + self._last_two(frames - sum(whole))
        if not all(0 < length <= self._whole for length in lengths):
            raise InputError(f"{frames} frames of codes in the last {segments} segments", code="bad-codes")
        return lengths

    def _last_two(self, frames: int) -> list[int]:
        """How frames are shared out: where the last segment is short, the end of sound cuts into both."""
        for samples in range(1, self._overlap):
            both = [-(-(self._stride + samples) // self._hop), -(-samples // self._hop)]
            if sum(both) == frames:
                return both
        return [self._whole, frames - self._whole]

    def _take(self, frames: int) -> None:
        self._ready.append((self._codes[:, :frames], self._scales.popleft()))
        self._codes = self._codes[:, frames:]

    def _decode(self) -> Iterator[NDArray[np.float32]]:
        ready, self._ready = self._ready, []
        for _, alike in groupby(ready, key=lambda segment: segment[0].shape[1]):
            codes, scales = zip(*alike, strict=True)
            model = self._codec.model
            with _running(self._codec):
                latents = model.quantizer.decode(_code_tensor(self._codec, np.stack(codes)))
                audio = model.decoder(latents.to(self._codec.dtype))
            for segment, scale in zip(_sound_of(audio), scales, strict=True):
                yield self._mixture.add(segment * scale)


class _OverlapAdd:
    """Segments put together, each faded in and out where it overlaps with its neighbours.

    Args:
        channels: C.
        stride: samples from the start of one segment to the start of the next, half of one at least.
    """

    def __init__(self, channels: int, stride: int) -> None:
        self._stride = stride
        self._weights = np.zeros(0, np.float32)  # a triangle over the first segment, and so over all
        self._tail = np.zeros((channels, 0), np.float32)  # of the last segment, what the next one overlaps with

    def add(self, segment: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take in a segment, float32 [C, n], which is changed; all that lies before the next one, float32 [C, m]."""
        if not len(self._weights):
            place = np.linspace(0, 1, segment.shape[1] + 2, dtype=np.float32)[1:-1]
            self._weights = np.float32(0.5) - np.abs(place - np.float32(0.5))
        both = min(self._tail.shape[1], segment.shape[1])
        fading, coming = self._weights[self._stride :][:both], self._weights[:both]
        segment[:, :both] = (self._tail[:, :both] * fading + segment[:, :both] * coming) / (fading + coming)
        self._tail = segment[:, self._stride :]
        return segment[:, : self._stride]

    def rest(self) -> NDArray[np.float32]:
        """What the last segment has beyond that."""
        return self._tail


def _segment_of(config: CodecConfig) -> tuple[int, int]:
    """Samples of a segment, and from the start of one to the start of the next."""
    assert config.segment_samples is not None
    assert config.stride_samples is not None
    return config.segment_samples, config.stride_samples


def _segments_at_once(config: CodecConfig, latency_seconds: float | None) -> int:
    if latency_seconds is None:
        return SEGMENTS_AT_ONCE
    return max(1, int(latency_seconds * config.rate_hz / _segment_of(config)[1] + 1e-6))


# --------------------------------------------------------------------------------------------------------------- parts


class _Grid:
    """Cuts what comes in pieces of any size into blocks of one size.

    Args:
        rows: of a block.
        columns: of a block.
        dtype: of its numbers.
        stride: columns from the start of one block to the start of the next; by default they don't overlap.
    """

    def __init__(self, rows: int, columns: int, dtype: DTypeLike, stride: int | None = None) -> None:
        self._block: NDArray[Any] = np.zeros((rows, columns), dtype)
        self._stride = columns if stride is None else stride
        self._count = 0

    def push(self, columns: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Blocks that are full now; what comes, [rows, n], is read as they are asked for."""
        while columns.shape[1]:
            fit = columns[:, : self._block.shape[1] - self._count]
            self._block[:, self._count : self._count + fit.shape[1]] = fit
            self._count += fit.shape[1]
            columns = columns[:, fit.shape[1] :]
            if self._count == self._block.shape[1]:
                yield self._block.copy()
                self._count -= self._stride
                self._block[:, : self._count] = self._block[:, self._stride :]

    def rest(self) -> NDArray[Any]:
        """What would be the beginning of the next block."""
        return self._block[:, : self._count]


@contextmanager
def _running(codec: CodecModel) -> Iterator[None]:
    """No gradients; and float32 is float32, since TensorFloat-32, which torch allows convolutions, changes codes."""
    is_cuda = _device(codec).type == "cuda"
    exact = torch.backends.cudnn.flags(enabled=True, allow_tf32=False) if is_cuda else nullcontext()
    with torch.inference_mode(), exact:
        yield


def _device(codec: CodecModel) -> torch.device:
    return cast(Codebook, codec.model.quantizer.codebooks[0]).entries.device


def _tensor(codec: CodecModel, audio: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(audio).to(_device(codec), codec.dtype)


def _code_tensor(codec: CodecModel, codes: NDArray[np.int32]) -> Tensor:
    return torch.from_numpy(codes).to(_device(codec), torch.int64)


class _Shelf:
    """Room for results outside the heap.

    Whoever keeps the codes of an hour would keep 3,600 small pieces of the heap, in between what each block takes and
    gives back, and which then fits in ever fewer places: for 9 MB of codes a process grew by 750.
    """

    def __init__(self) -> None:
        self._memory = mmap(-1, SHELF_BYTES)
        self._used = 0

    def put(self, numbers: NDArray[Any], dtype: DTypeLike) -> NDArray[Any]:
        """A copy that stays, of numbers of 4 bytes."""
        size = 4 * numbers.size
        if self._used + size > len(self._memory):
            self._memory, self._used = mmap(-1, max(size, SHELF_BYTES)), 0
        copy = np.frombuffer(self._memory, dtype, numbers.size, self._used).reshape(numbers.shape)
        copy[:] = numbers
        self._used += size
        return copy


def _sound_of(audio: Tensor) -> NDArray[np.float32]:
    return audio.float().cpu().numpy()
