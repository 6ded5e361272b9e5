"""VGGish: what a net that learned to name the sounds of videos makes of a second of sound, as 128 numbers.

Hershey et al., "CNN architectures for large-scale audio classification", ICASSP 2017, in the form of Google's published
weights; tensors have the names of the port `torchvggish`. The front end is theirs: 16 kHz, 96 frames of 25 ms, one
each 10 ms, 64 mel bins of magnitudes from 125 to 7500 Hz, the natural logarithm of each plus 0.01. What comes out is
what the last layer gives, without the rectifier, principal components or 8-bit steps that may follow it. Knows one
patch of sound; which, is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.audio.spectrogram import LogMelConfig, mel_matrix

RATE_HZ = 16_000
FRAMES = 96  # of a patch
HOP_SAMPLES = 160
PATCH_SAMPLES = (FRAMES - 1) * HOP_SAMPLES + 400
"""What a patch sees; the next begins FRAMES * HOP_SAMPLES later."""

WIDTH = 128
_WINDOW_SAMPLES, _TRANSFORM_SAMPLES = 400, 512
_BINS, _LOW_HZ, _HIGH_HZ, _OFFSET = 64, 125.0, 7500.0, 0.01
_CHANNELS: tuple[int | None, ...] = (64, None, 128, None, 256, 256, None, 512, 512, None)  # None halves both sides
_HIDDEN = 4096


class VGGish(nn.Module):
    """The net and its front end.

    Args:
        device: of its weights; `meta` for weights that are yet to be loaded.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        config = LogMelConfig(RATE_HZ, _TRANSFORM_SAMPLES, HOP_SAMPLES, _BINS, _LOW_HZ, _HIGH_HZ)
        self.register_buffer("window", torch.hann_window(_WINDOW_SAMPLES), persistent=False)
        self.register_buffer("mel", mel_matrix(config), persistent=False)
        self.features = nn.Sequential(*_layers(device))
        seen = 512 * (FRAMES // 16) * (_BINS // 16)
        self.embeddings = nn.Sequential(
            nn.Linear(seen, _HIDDEN, device=device),
            nn.ReLU(),
            nn.Linear(_HIDDEN, _HIDDEN, device=device),
            nn.ReLU(),
            nn.Linear(_HIDDEN, WIDTH, device=device),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches; float32 [B, PATCH_SAMPLES] to [B, WIDTH]."""
        frames = patches.unfold(-1, _WINDOW_SAMPLES, HOP_SAMPLES) * self.window  # [B, FRAMES, window]
        magnitudes = torch.fft.rfft(functional.pad(frames, (0, _TRANSFORM_SAMPLES - _WINDOW_SAMPLES))).abs()
        mel = (magnitudes @ self.mel + _OFFSET).log()
        seen = self.features(mel[:, None])  # [B, 1, FRAMES, M] -> [B, 512, FRAMES / 16, M / 16]
        embedded: Tensor = self.embeddings(seen.permute(0, 2, 3, 1).flatten(1))
        return embedded


def _layers(device: str) -> Iterator[nn.Module]:
    channels_in = 1
    for channels in _CHANNELS:
        if channels is None:
            yield nn.MaxPool2d(2)
        else:
            yield nn.Conv2d(channels_in, channels, 3, padding=1, device=device)
            yield nn.ReLU()
            channels_in = channels
