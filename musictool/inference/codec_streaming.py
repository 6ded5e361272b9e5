"""Sound to codes and back by a neural codec, as it comes: in pieces of any size, in bounded memory, to the sample.

What comes out does not depend on how the sound or the codes were cut; it is what the model says of the whole. How a
codec gets there is `codec_coding`'s; here it is loaded, what goes in is checked, and lengths are kept.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from musictool.checkpoints.adapters import read_adapter
from musictool.checkpoints.native import read_facts
from musictool.checkpoints.store import Store
from musictool.core.packed_convolution import can_pack_convolutions, pack_convolutions
from musictool.errors import InputError, UsageError
from musictool.inference.codec_coding import (
    CodeBlock,
    CodecModel,
    Decoding,
    Encoding,
    SegmentDecoding,
    SegmentEncoding,
    StreamDecoding,
    StreamEncoding,
)
from musictool.inference.model_files import load_model
from musictool.inference.precision import PrecisionName, dtype_without_linears, find_device
from musictool.models.codec import Codec

__all__ = ["DEFAULT_CODEC", "CodeBlock", "CodecModel", "Decoder", "Encoder", "load_codec"]

DEFAULT_CODEC = "codec-24khz"


def load_codec(
    name: str = DEFAULT_CODEC, device: str = "auto", *, store: Store | None = None, precision: PrecisionName = "fp32"
) -> CodecModel:
    """Load a codec for an `Encoder` or a `Decoder`, and make it fast.

    Args:
        name: a model's name, or the path of a folder in our own format.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        store: where models are, and whether an adapter is to be merged with it; the process's own store by default.
        precision: of its convolutions. Codes are those of other libraries with `fp32` alone.

    Raises:
        MissingError: there is no such model, or no peft for its adapter.
        ResourceError: the device is not there.
        UsageError: the model is no codec, or is to run in `int8`; or the adapter is for another.
    """
    place = find_device(device)
    dtype = dtype_without_linears(precision)
    store = store or Store.from_environ(os.environ)
    loaded, found = load_model(name, store=store), store.find(name)
    model, sha256, adapter = loaded.model, loaded.sha256, dict[str, str]()
    if found.adapter is not None:
        sha256, added = read_facts(found.path).weights_sha256, read_adapter(found.adapter)
        adapter = {"adapter": added.name, "adapter_sha256": added.sha256}
    if not isinstance(model, Codec):
        raise UsageError(f"{name} is no codec", hint=f"use {DEFAULT_CODEC}; `mtk models list` shows the others")
    if place.type == "cpu" and can_pack_convolutions():
        pack_convolutions(model, dtype)
        return CodecModel(model, found.name, sha256, adapter=adapter)  # what is packed takes float32
    model.to(place)
    model.encoder.to(dtype)
    model.decoder.to(dtype)
    return CodecModel(model, found.name, sha256, dtype, adapter)


class Encoder:
    """Sound to codes, once from its beginning to its end.

    Args:
        codec: which one; several encoders may share it.
        levels: codebooks to use; all by default.
        latency_seconds: how much sound may be waited for before its codes come, beside what the model itself waits for,
            a hop at least; None for what is fastest. Segments are never cut.

    Attributes:
        samples: that have come, of each channel.

    Raises:
        UsageError: the codec has not so many codebooks.
    """

    def __init__(self, codec: CodecModel, levels: int | None = None, *, latency_seconds: float | None = None) -> None:
        config = codec.model.config
        levels = config.codebooks if levels is None else levels
        if not 1 <= levels <= config.codebooks:
            raise UsageError(f"{codec.name} has 1 to {config.codebooks} codebooks, not {levels}")
        self.samples = 0
        self._codec = codec
        way = StreamEncoding if config.segment_samples is None else SegmentEncoding
        self._encoding: Encoding = way(codec, levels, latency_seconds)

    def push(self, audio: NDArray[np.float32]) -> list[CodeBlock]:
        """Take in sound.

        Args:
            audio: float32 [C, n] at the codec's rate, full scale 1; n may be anything.

        Returns:
            What codes there are now that were not there before; perhaps none.

        Raises:
            InputError: a sample is no number, or infinite.
            UsageError: there are more or fewer channels than the codec has.
        """
        channels = self._codec.model.config.channels
        if len(audio) != channels:
            raise UsageError(f"{self._codec.name} takes sound of {channels} channels, not {len(audio)}")
        is_finite = np.isfinite(audio)
        if not is_finite.all():
            channel, place = np.argwhere(~is_finite)[0]
            second = (self.samples + place) / self._codec.model.config.rate_hz
            raise InputError(f"a sample of {audio[channel, place]} at {second:.3f} s", code="unusable-samples")
        self.samples += audio.shape[1]
        return list(self._encoding.push(audio))

    def finish(self) -> list[CodeBlock]:
        """The sound has ended: the codes that were still to come."""
        return list(self._encoding.finish())


class Decoder:
    """Codes to sound, once from their beginning to their end. Its last frame, which may be cut, waits for `finish`.

    Args:
        codec: the one that made the codes; several decoders may share it.
        latency_seconds: for how much sound codes may be waited for before it comes, a hop at least; None for what is
            fastest. Segments are never cut.
    """

    def __init__(self, codec: CodecModel, *, latency_seconds: float | None = None) -> None:
        self._codec = codec
        self._config = codec.model.config
        self._latency_seconds = latency_seconds
        self._decoding: Decoding | None = None
        self._levels = 0
        self._frames = 0
        self._given = 0
        self._held = np.zeros((self._config.channels, 0), np.float32)

    def push(self, block: CodeBlock) -> NDArray[np.float32]:
        """Take in codes.

        Args:
            block: int32 [K, t], K from 1 to the codec's codebooks and the same all along, t may be anything; and the
                scales of the segments that begin in it, or later.

        Returns:
            float32 [C, m], what sound there is now that was not there before; m may be 0.

        Raises:
            InputError: the codes are none of this codec.
        """
        self._check(block)
        if self._decoding is None:
            self._levels = len(block.codes)
            way = StreamDecoding if self._config.segment_samples is None else SegmentDecoding
            self._decoding = way(self._codec, self._levels, self._latency_seconds)
        self._frames += block.codes.shape[1]
        sound = np.concatenate([self._held, *self._decoding.push(block)], 1)
        ready = max(0, sound.shape[1] - self._config.hop_samples + 1)
        self._held = sound[:, ready:]
        self._given += ready
        return sound[:, :ready]

    def finish(self, samples: int | None = None) -> NDArray[np.float32]:
        """The codes have ended: the sound that was still to come.

        Args:
            samples: how long the sound is from its beginning on, of each channel; None for whole frames.

        Returns:
            float32 [C, m].

        Raises:
            InputError: the codes are not of so long a sound, or a segment of theirs is incomplete.
        """
        last = () if self._decoding is None else self._decoding.finish()
        sound = np.concatenate([self._held, *last], 1)
        most = self._given + sound.shape[1]
        if samples is None:
            return sound
        if not most - self._config.hop_samples < samples <= most:
            raise InputError(f"the codes of {most} samples cannot be of {samples}", code="bad-codes")
        return sound[:, : samples - self._given]

    def _check(self, block: CodeBlock) -> None:
        codes, scales = block
        config, name = self._config, self._codec.name
        if not 1 <= len(codes) <= config.codebooks:
            raise InputError(
                f"{len(codes)} rows of codes, and {name} has {config.codebooks} codebooks", code="bad-codes"
            )
        if self._decoding is not None and len(codes) != self._levels:
            raise InputError(f"{len(codes)} rows of codes after {self._levels}", code="bad-codes")
        is_wrong = (codes < 0) | (codes >= config.codebook_size)
        if is_wrong.any():
            row, column = np.argwhere(is_wrong)[0]
            place = f"codebook {row + 1}, frame {self._frames + column}"
            hint = f"the codebooks of {name} have {config.codebook_size} entries"
            raise InputError(f"no such code: {codes[row, column]}", context=place, hint=hint, code="bad-codes")
        if len(scales) and not config.normalises:
            raise InputError(f"codes with scales, and {name} has none", code="bad-codes")
        if not (np.isfinite(scales) & (scales > 0)).all():
            raise InputError("a scale that is no number above 0", code="bad-codes")
