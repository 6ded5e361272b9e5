"""Nets that learn to tell coded sound from sound as it was, and what a codec learns from their verdicts.

The multi-scale STFT discriminator of EnCodec (Défossez et al., 2022; arXiv:2210.13438, section 3.4): for each window
size, 2-D convolutions over real and imaginary parts, with growing dilation over time and strides over frequency. They
are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from musictool.training.audio_losses import spectra

_KERNEL = (3, 9)  # over time, over frequency
_LAST_KERNEL = (3, 3)
_SLOPE = 0.2


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The numbers of all discriminators.

    Attributes:
        windows: a discriminator each: in samples, with a hop of a quarter.
        filters: channels of each layer.
        dilations: over time, of the layers with strides over frequency.
    """

    windows: tuple[int, ...] = (2048, 1024, 512)
    filters: int = 16
    dilations: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self) -> None:
        if not self.windows or min(self.windows) < 32:
            raise ValueError("windows are one or more, of 32 samples or more")
        if self.filters < 1 or not self.dilations or min(self.dilations) < 1:
            raise ValueError("filters and dilations are 1 or more")


class Verdict(NamedTuple):
    """What a discriminator says of a batch.

    Attributes:
        logits: float [B, 1, T, F]; above 0 where it takes the sound for a real one.
        features: what its layers say, float [B, D, T, F'] each.
    """

    logits: Tensor
    features: list[Tensor]


class SpectrumDiscriminator(nn.Module):
    """One of them.

    Args:
        channels: of the sound.
        window: of the Fourier transform, in samples.
        filters, dilations: as `DiscriminatorConfig` has them.
    """

    def __init__(self, channels: int, window: int, filters: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self._window = window
        layers = [_convolution(2 * channels, filters, _KERNEL)]
        layers += [_convolution(filters, filters, _KERNEL, stride=2, dilation=dilation) for dilation in dilations]
        layers.append(_convolution(filters, filters, _LAST_KERNEL))
        self.layers = nn.ModuleList(layers)
        self.head = _convolution(filters, 1, _LAST_KERNEL)

    def forward(self, audio: Tensor) -> Verdict:
        """Judge sound, float [B, C, N]."""
        x = torch.view_as_real(spectra(audio, self._window)).permute(0, 1, 4, 2, 3).flatten(1, 2)  # [B, 2 C, T, F]
        x = x * self._window**0.5  # as far apart as samples are, in whatever window
        features = []
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return Verdict(self.head(x), features)


class Discriminators(nn.Module):
    """All of them.

    Args:
        channels: of the sound.
        config: their numbers.
    """

    def __init__(self, channels: int, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            SpectrumDiscriminator(channels, window, config.filters, config.dilations) for window in config.windows
        )

    def forward(self, audio: Tensor) -> list[Verdict]:
        """Judge sound, float [B, C, N]."""
        return [scale(audio) for scale in self.scales]


def telling_loss(of_real: Sequence[Verdict], of_coded: Sequence[Verdict]) -> Tensor:
    """What discriminators minimise: the hinge loss, the mean over scales; 2 where they can tell nothing, 0 at best."""
    each = [
        functional.relu(1 - real.logits.float()).mean() + functional.relu(1 + coded.logits.float()).mean()
        for real, coded in zip(of_real, of_coded, strict=True)
    ]
    return torch.stack(each).mean()


def fooling_loss(of_coded: Sequence[Verdict]) -> Tensor:
    """What a codec minimises: the hinge loss the other way round, the mean over scales."""
    return torch.stack([functional.relu(1 - coded.logits.float()).mean() for coded in of_coded]).mean()


def feature_loss(of_real: Sequence[Verdict], of_coded: Sequence[Verdict]) -> Tensor:
    """How far layers see coded sound from the real one: mean absolute difference over the mean absolute value."""
    distances = []
    for real, coded in zip(of_real, of_coded, strict=True):
        for wanted, found in zip(real.features, coded.features, strict=True):
            goal = wanted.detach()
            distances.append(_size(found - goal) / _size(goal).clamp(min=1e-8))
    return torch.stack(distances).mean()


def _size(values: Tensor) -> Tensor:
    """The sum of absolute values; a norm has a gradient that lies in memory as the values do, which is faster."""
    return torch.linalg.vector_norm(values, 1, dtype=torch.float32)


def _convolution(
    channels_in: int, channels_out: int, kernel: tuple[int, int], stride: int = 1, dilation: int = 1
) -> nn.Module:
    """[B, C, T, F] -> [B, D, T, ceil(F / stride)]; stride over frequency, dilation over time."""
    padding = ((kernel[0] - 1) * dilation // 2, kernel[1] // 2)
    conv = nn.Conv2d(channels_in, channels_out, kernel, (1, stride), padding=padding, dilation=(dilation, 1))
    nn.init.kaiming_normal_(conv.weight, _SLOPE)  # what passes through keeps its strength
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return weight_norm(conv.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
