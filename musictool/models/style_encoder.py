"""The style encoder: words and sound as points in one space, where what belongs together lies close.

Two towers of the same make, contrasted with each other (Radford et al., 2021; arXiv:2103.00020): one reads ids of
text, one log-mel frames, which two convolutions bring to a quarter of their rate. Each is a transformer with rotary
positions, the mean over what it saw, and a projection to a vector of length 1. Of nothing, which is text without an id
or sound without a frame, the vector is zeros. Knows ids and frames: words are the tokenizer's, sound is the front
end's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.audio.spectrogram import LogMelConfig
from musictool.core.initialisation import draw_blocks, draw_linears
from musictool.core.positions import Rotary
from musictool.core.transformer import build_transformer

_FRAMES_MEAN, _FRAMES_DEVIATION = -3.0, 4.0  # of log-mel magnitudes of music, about
_SCALE, _SCALE_MAX = 1 / 0.07, 100.0  # as in CLIP
_STRIDE = 2


@dataclass(frozen=True)
class TowerConfig:
    """The numbers of one half: D, H, F of its layers, and how many."""

    width: int = 512
    heads: int = 8
    hidden: int = 2048
    layers: int = 6

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} can't be shared by {self.heads} heads in pairs")


@dataclass(frozen=True)
class StyleEncoderConfig:
    """The numbers of a style encoder.

    Attributes:
        style_width: of the space.
        vocabulary: ids of text that there is room for.
        tokens_max: of a text; what comes after them is not read.
        text, audio: the towers.
        front_end: makes frames of sound.
        window_seconds: of sound that is read at once.
        dropout: in training.
    """

    family: ClassVar[str] = "style-encoder"

    style_width: int = 512
    vocabulary: int = 8192
    tokens_max: int = 128
    text: TowerConfig = field(default_factory=TowerConfig)
    audio: TowerConfig = field(default_factory=TowerConfig)
    front_end: LogMelConfig = field(
        default_factory=lambda: LogMelConfig(
            rate_hz=24_000, window_samples=2048, hop_samples=480, bins=96, low_hz=40.0, high_hz=11_000.0
        )
    )
    window_seconds: float = 10.0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.style_width, self.vocabulary, self.tokens_max) < 1:
            raise ValueError("style_width, vocabulary and tokens_max are at least 1")
        if self.window_frames < 1:
            raise ValueError(f"{self.window_seconds} s have no frame")

    @property
    def window_frames(self) -> int:
        """Frames of sound that are read at once."""
        return int(self.window_seconds * self.front_end.rate_hz / self.front_end.hop_samples)


class Tower(nn.Module):
    """Steps of any number to one vector.

    Args:
        config: its numbers.
        style_width: S, of the vector.
        dropout: in training.
    """

    def __init__(self, config: TowerConfig, style_width: int, dropout: float) -> None:
        super().__init__()
        self.stack = build_transformer(
            config.layers,
            config.width,
            config.heads,
            config.hidden,
            activation="gelu",
            is_gated=False,
            dropout=dropout,
            rotary=Rotary(config.width // config.heads),
        )
        self.projection = nn.Linear(config.width, style_width, bias=False)
        draw_blocks(self.stack)
        draw_linears(self.projection)

    def forward(self, x: Tensor, visible: Tensor) -> Tensor:
        """Read steps.

        Args:
            x: float [B, T, D].
            visible: bool [B, T], False at padding.

        Returns:
            float [B, S], of length 1; zeros of a row of padding alone.
        """
        # Attention has to see something: of a row of padding it sees all, and what comes of it is not counted.
        states = self.stack(x, visible=visible | ~visible.any(1, keepdim=True))
        counted = states.masked_fill(~visible[..., None], 0)
        return functional.normalize(self.projection(counted.sum(1)).float(), dim=-1)  # how many they are, falls out


class Contrast(nn.Module):
    """How well things go together, for a softmax to tell which do.

    Attributes:
        log_scale: the logarithm of what similarities are multiplied by, learned: the inverse of a temperature.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.empty(()))
        nn.init.constant_(self.log_scale, math.log(_SCALE))

    def forward(self, texts: Tensor, stretches: Tensor) -> Tensor:
        """Styles, float [A, S] and [B, S], to logits, float [A, B]."""
        return texts @ stretches.T * self.log_scale.exp().clamp(max=_SCALE_MAX)


class StyleEncoder(nn.Module):
    """The model; text or frames in, styles out.

    Args:
        config: its numbers.
    """

    def __init__(self, config: StyleEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.text.width)
        self.convolutions = nn.ModuleList(
            _build_convolution(channels, config.audio.width) for channels in (config.front_end.bins, config.audio.width)
        )
        self.text = Tower(config.text, config.style_width, config.dropout)
        self.audio = Tower(config.audio, config.style_width, config.dropout)
        self.contrast = Contrast()
        nn.init.normal_(self.embedding.weight)

    def encode_text(self, ids: Tensor, visible: Tensor | None = None) -> Tensor:
        """The styles that texts tell of.

        Args:
            ids: int64 [B, T].
            visible: bool [B, T], False at padding; None where there is none.

        Returns:
            float32 [B, S].
        """
        if visible is None:
            visible = torch.ones_like(ids, dtype=torch.bool)
        styles: Tensor = self.text(self.embedding(ids), visible)
        return styles

    def encode_audio(self, frames: Tensor, visible: Tensor | None = None) -> Tensor:
        """The styles of stretches of sound.

        Args:
            frames: float [B, F, M], as the front end makes them.
            visible: bool [B, F], False at padding, which is at the end; None where there is none.

        Returns:
            float32 [B, S].
        """
        if visible is None:
            visible = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        x = ((frames - _FRAMES_MEAN) / _FRAMES_DEVIATION).to(self.embedding.weight.dtype)
        for convolution in self.convolutions:
            x = x.masked_fill(~visible[..., None], 0)  # what lies beyond the end is the same, padded or not
            x = functional.gelu(convolution(x.transpose(1, 2))).transpose(1, 2)  # [B, F, M] -> [B, F / 2, D]
            visible = visible[:, ::_STRIDE]
        styles: Tensor = self.audio(x, visible)
        return styles

    def forward(
        self, ids: Tensor, text_visible: Tensor, frames: Tensor, frames_visible: Tensor | None = None
    ) -> Tensor:
        """How well each text of a batch goes with each stretch of sound; arguments as above.

        Returns:
            Logits, float32 [texts, stretches].
        """
        logits: Tensor = self.contrast(self.encode_text(ids, text_visible), self.encode_audio(frames, frames_visible))
        return logits


def _build_convolution(channels_in: int, channels_out: int) -> nn.Conv1d:
    """A layer that halves the rate of frames and keeps the size of what goes through it and its activation."""
    layer = nn.Conv1d(channels_in, channels_out, 3, _STRIDE, padding=1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return layer
