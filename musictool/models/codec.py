"""Neural codecs: sound to rows of codes and back, by SEANet and a residual vector quantiser.

EnCodec (Défossez et al., 2022; arXiv:2210.13438) with its published variants, of which MusicGen's is one, and smaller
ones whose first layer takes a stride of its own, so that little is computed at the rate of samples. What is published
has its layers in weight norm; ours hold the weights that come of it. Knows one stretch of sound as it is: stretches,
loudness, chunks and lengths are `inference.codec_streaming`'s.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

from torch import Tensor, nn

from musictool.core.convolution import (
    Activation,
    Chain,
    Convolution,
    PadMode,
    Recurrence,
    ResidualUnit,
    Streaming,
    TransposedConvolution,
)
from musictool.core.quantizer import CodebookLearner, Quantized, ResidualQuantizer

_GAIN = 1.25  # of a fresh layer, which makes up for what the ELU before it takes
_RESIDUAL_GAIN = 0.3
_LOUDNESS = 0.2  # of sound, about: inside, strength is 1


@dataclass(frozen=True)
class CodecConfig:
    """The numbers of a codec.

    Attributes:
        rate_hz, channels: of the sound.
        width: of latents.
        filters: channels of the first layer; each of `ratios` doubles them.
        ratios: strides, as the decoder has them; the encoder has them the other way round.
        kernel: of the first layers of encoder and decoder.
        last_kernel: of their last ones.
        stem_stride: of the encoder's first and the decoder's last layer; then their kernel is `stem_kernel`.
        residual_kernel, residual_layers, dilation_growth: residual units at each rate; the n-th is dilated by
            dilation_growth ** n.
        compress: by how much they narrow.
        has_shortcut: whether they have a layer of their own to pass x on.
        lstm_layers: after the encoder's last stride and before the decoder's first; 0 for none.
        is_causal: says nothing of a frame that depends on what comes after it.
        pad_mode: `reflect` or `constant`.
        norm: `none`, or `group` to normalise each layer over a whole segment.
        trim_right: share of what is too much after a transposed convolution that is cut at the end, if causal.
        codebooks, codebook_size: of the quantiser.
        bandwidths_kbps: bit rates that its training had in mind.
        normalises: brings each segment to a loudness of 1 and keeps the factor beside its codes.
        segment_seconds: length of the segments that are coded alone; None for no segments.
        overlap: of segments, as a share of one.
    """

    family: ClassVar[str] = "codec"
    code_parts: ClassVar[tuple[str, ...]] = ("encoder", "quantizer")  # of a codec: what its codes depend on

    rate_hz: int = 24_000
    channels: int = 1
    width: int = 128
    filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    kernel: int = 7
    last_kernel: int = 7
    stem_stride: int = 1
    stem_kernel: int = 7
    residual_kernel: int = 3
    residual_layers: int = 1
    dilation_growth: int = 2
    compress: int = 2
    has_shortcut: bool = True
    lstm_layers: int = 2
    is_causal: bool = True
    pad_mode: PadMode = "reflect"
    norm: Literal["none", "group"] = "none"
    trim_right: float = 1.0
    codebooks: int = 32
    codebook_size: int = 1024
    bandwidths_kbps: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)
    normalises: bool = False
    segment_seconds: float | None = None
    overlap: float = 0.01

    def __post_init__(self) -> None:
        if self.norm == "group" and self.segment_seconds is None:
            raise ValueError("layers that normalise over time need segments: set segment_seconds")
        if self.normalises != (self.segment_seconds is not None):
            raise ValueError("segments are normalised, and nothing else is: set both normalises and segment_seconds")
        if not 0 <= self.overlap <= 0.5:
            raise ValueError("overlap is from 0 to 0.5")
        if self.stem_kernel < self.stem_stride:
            raise ValueError("stem_kernel must not be smaller than stem_stride")

    @property
    def hop_samples(self) -> int:
        """Samples of a frame of codes."""
        return math.prod(self.ratios) * self.stem_stride

    @property
    def frame_rate_hz(self) -> float:
        """Frames of codes a second."""
        return self.rate_hz / self.hop_samples

    @property
    def segment_samples(self) -> int | None:
        """Length of a segment."""
        return None if self.segment_seconds is None else int(self.segment_seconds * self.rate_hz)

    @property
    def stride_samples(self) -> int | None:
        """From the start of one segment to the start of the next."""
        return None if self.segment_samples is None else max(1, int((1 - self.overlap) * self.segment_samples))

    @property
    def segment_frames(self) -> int | None:
        """Frames of codes of a whole segment."""
        return None if self.segment_samples is None else -(-self.segment_samples // self.hop_samples)

    @property
    def kbps_of_codebook(self) -> float:
        """What one codebook adds to the bit rate, the overlap of segments left out."""
        return math.log2(self.codebook_size) * math.ceil(self.frame_rate_hz) / 1000

    def levels_for(self, kbps: float) -> int:
        """Codebooks that fit a bit rate, one at least."""
        return min(self.codebooks, max(1, math.floor(kbps / self.kbps_of_codebook + 1e-9)))


class Reconstruction(NamedTuple):
    """What came of sound.

    Attributes:
        audio: float [B, C, N].
        quantized: what the quantiser says.
    """

    audio: Tensor
    quantized: Quantized


class Codec(nn.Module):
    """Sound to codes and back.

    Args:
        config: its numbers.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Chain(_encoder_layers(config))
        self.quantizer = ResidualQuantizer(config.codebooks, config.codebook_size, config.width)
        self.decoder = Chain(_decoder_layers(config))
        self._reset()

    def _reset(self) -> None:
        """Fresh weights: what passes through keeps its strength, and residual units begin near their shortcuts.

        With torch's own weights a codec of this depth says the same of any sound, and its codebooks collapse.
        """
        for module in self.modules():
            if isinstance(module, Convolution | TransposedConvolution):
                _reset_convolution(module.conv, _GAIN)
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                _reset_convolution(module.outer.conv, _GAIN * _RESIDUAL_GAIN)
                if module.shortcut is not None:
                    _reset_convolution(module.shortcut.conv, 1.0)
        first, last = self.encoder.layers[0], self.decoder.layers[-1]
        _reset_convolution(cast(Convolution, first).conv, _GAIN / _LOUDNESS)
        _reset_convolution(cast(Convolution | TransposedConvolution, last).conv, _GAIN * _LOUDNESS)

    def encode(self, audio: Tensor, levels: int | None = None) -> Tensor:
        """Codes of one stretch of sound.

        Args:
            audio: float [B, C, N].
            levels: codebooks to use; all by default.

        Returns:
            int64 [B, K, ceil(N / hop_samples)].
        """
        return self.quantizer.encode(self.encoder(audio), levels)

    def decode(self, codes: Tensor) -> Tensor:
        """Sound of codes; int64 [B, K, T] to float [B, C, T * hop_samples]."""
        audio: Tensor = self.decoder(self.quantizer.decode(codes))
        return audio

    def forward(
        self, audio: Tensor, levels: Tensor | None = None, learner: CodebookLearner | None = None
    ) -> Reconstruction:
        """Sound through codes, so that gradients pass.

        Args:
            audio: float [B, C, N].
            levels: int64 [B], codebooks to use for each of the batch; all by default.
            learner: lets codebooks follow what chooses them.
        """
        quantized = self.quantizer(self.encoder(audio), levels, learner)
        return Reconstruction(self.decoder(quantized.latents)[..., : audio.shape[-1]], quantized)


def _reset_convolution(conv: nn.Conv1d | nn.ConvTranspose1d, gain: float) -> None:
    """Weights such that what comes out is `gain` times as strong as what goes in, noise taken for both."""
    spread = conv.stride[0] if isinstance(conv, nn.ConvTranspose1d) else 1
    nn.init.normal_(conv.weight, std=gain * math.sqrt(spread / (conv.in_channels * conv.kernel_size[0])))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _encoder_layers(config: CodecConfig) -> Iterator[Streaming]:
    width = config.filters
    if config.stem_stride > 1:
        yield _convolution(config, config.channels, width, config.stem_kernel, stride=config.stem_stride)
    else:
        yield _convolution(config, config.channels, width, config.kernel)
    for ratio in reversed(config.ratios):
        yield from _residual_units(config, width)
        yield Activation()
        yield _convolution(config, width, 2 * width, 2 * ratio, stride=ratio)
        width *= 2
    if config.lstm_layers:
        yield Recurrence(width, config.lstm_layers)
    yield Activation()
    yield _convolution(config, width, config.width, config.last_kernel)


def _decoder_layers(config: CodecConfig) -> Iterator[Streaming]:
    width = config.filters * 2 ** len(config.ratios)
    yield _convolution(config, config.width, width, config.kernel)
    if config.lstm_layers:
        yield Recurrence(width, config.lstm_layers)
    for ratio in config.ratios:
        yield Activation()
        yield _transposed(config, width, width // 2, 2 * ratio, ratio)
        width //= 2
        yield from _residual_units(config, width)
    yield Activation()
    if config.stem_stride > 1:
        yield _transposed(config, width, config.channels, config.stem_kernel, config.stem_stride)
    else:
        yield _convolution(config, width, config.channels, config.last_kernel)


def _residual_units(config: CodecConfig, width: int) -> Iterator[Streaming]:
    hidden = width // config.compress
    for number in range(config.residual_layers):
        dilation = config.dilation_growth**number
        yield ResidualUnit(
            _convolution(config, width, hidden, config.residual_kernel, dilation=dilation),
            _convolution(config, hidden, width, 1),
            _convolution(config, width, width, 1) if config.has_shortcut else None,
        )


def _convolution(
    config: CodecConfig, channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, dilation: int = 1
) -> Convolution:
    return Convolution(
        channels_in,
        channels_out,
        kernel,
        stride=stride,
        dilation=dilation,
        is_causal=config.is_causal,
        pad_mode=config.pad_mode,
        has_norm=config.norm == "group",
    )


def _transposed(
    config: CodecConfig, channels_in: int, channels_out: int, kernel: int, stride: int
) -> TransposedConvolution:
    return TransposedConvolution(
        channels_in,
        channels_out,
        kernel,
        stride,
        is_causal=config.is_causal,
        trim_right=config.trim_right,
        has_norm=config.norm == "group",
    )
