"""Log-mel spectrograms on torch, sample for sample as published models were trained on them.

`LogMel` follows MT3 (Gardner et al., 2022, section 4), whose front end is TensorFlow's: frames begin at their first
sample and reach into zeros at the end, magnitudes are not squared, mel triangles are linear in mel and not in hertz,
and only what is zero or less is replaced before the logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_MEL_BREAK_HZ, _MEL_SCALE = 700.0, 1127.0  # HTK's mel scale


@dataclass(frozen=True)
class LogMelConfig:
    """The numbers of a log-mel front end.

    Attributes:
        rate_hz: of the sound.
        window_samples, hop_samples: of the Fourier transform.
        bins: M.
        low_hz, high_hz: the edges of the first and last mel triangle.
        floor: what stands for magnitudes that are not positive.
    """

    rate_hz: int = 16_000
    window_samples: int = 2048
    hop_samples: int = 128
    bins: int = 512
    low_hz: float = 20.0
    high_hz: float = 7600.0
    floor: float = 1e-5


def mel_matrix(config: LogMelConfig) -> Tensor:
    """What turns magnitudes into mel bins, as `tf.signal.linear_to_mel_weight_matrix` does.

    Returns:
        float32 [window / 2 + 1, M]; the row of frequency zero is empty, and so is a column whose triangle falls between
        two frequencies.
    """

    def mel(hz: Tensor) -> Tensor:
        return _MEL_SCALE * torch.log1p(hz / _MEL_BREAK_HZ)

    frequencies = torch.linspace(0.0, config.rate_hz / 2, config.window_samples // 2 + 1)
    low, high = mel(torch.tensor([config.low_hz, config.high_hz]))
    edges = torch.linspace(float(low), float(high), config.bins + 2)
    position = mel(frequencies[1:])[:, None]
    rising = (position - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - position) / (edges[2:] - edges[1:-1])
    return functional.pad(torch.minimum(rising, falling).clamp(min=0.0), (0, 0, 1, 0))


class LogMel(nn.Module):
    """Sound to log-mel frames.

    Args:
        config: the numbers.
    """

    window: Tensor
    mel: Tensor

    def __init__(self, config: LogMelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("window", torch.hann_window(config.window_samples), persistent=False)
        self.register_buffer("mel", mel_matrix(config), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Frames of stretches of sound, each as if it stood alone.

        Args:
            samples: float32 [B, N], N a multiple of the hop. Beyond the end there are zeros.

        Returns:
            float32 [B, N / hop, M], natural logarithms.
        """
        beyond = self.config.window_samples - self.config.hop_samples
        frames = functional.pad(samples, (0, beyond)).unfold(-1, self.config.window_samples, self.config.hop_samples)
        magnitude = torch.fft.rfft(frames * self.window).abs()  # [B, T, window] -> [B, T, window / 2 + 1]
        mel = magnitude @ self.mel
        return torch.where(mel > 0, mel, self.config.floor).log()
