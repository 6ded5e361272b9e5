"""Log-mel spectrograms on torch, sample for sample as published models were trained on them.

`LogMel` follows MT3 (Gardner et al., 2022, section 4), whose front end is TensorFlow's: frames begin at their first
sample and reach into zeros at the end, magnitudes are not squared, mel triangles are linear in mel and not in hertz,
and only what is zero or less is replaced before the logarithm.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class LogFrequencyConfig:
    """The numbers of a log-frequency front end.

    Attributes:
        rate_hz: of the sound.
        hop_samples: from frame to frame.
        windows_samples: of the Fourier transforms: a long window tells low pitches apart, a short one tells when.
        bins_per_octave: how fine.
        low_hz: the centre of the first bin; the last lies below half the rate.
        floor_db: what stands for silence; a sine of full scale has about 0 dB, and less where bins are wider than a
            step of the transform: a bin is a mean over them.
    """

    rate_hz: int = 16_000
    hop_samples: int = 320
    windows_samples: tuple[int, ...] = (4096, 1024)
    bins_per_octave: int = 36
    low_hz: float = 27.5 * 2 ** (-1 / 36)
    floor_db: float = -90.0

    @property
    def bins(self) -> int:
        """M, the bins of one window."""
        return int(self.bins_per_octave * math.log2(self.rate_hz / 2 / self.low_hz))


def log_frequency_matrix(config: LogFrequencyConfig, window_samples: int) -> Tensor:
    """What turns power into log-frequency bins: triangles a bin wide, or two steps of the transform where that is more.

    Returns:
        float32 [window / 2 + 1, M]; each column sums to 1.
    """
    step_hz = config.rate_hz / window_samples
    frequencies = torch.arange(window_samples // 2 + 1)[:, None] * step_hz
    centres = config.low_hz * 2 ** (torch.arange(config.bins) / config.bins_per_octave)
    half_width = (centres * (2 ** (1 / config.bins_per_octave) - 1)).clamp(min=step_hz)
    triangles = (1 - (frequencies - centres).abs() / half_width).clamp(min=0.0)
    return triangles / triangles.sum(0)


class LogFrequency(nn.Module):
    """Sound to frames in decibels over log frequency, one for each window, all centred on the same instants.

    Args:
        config: the numbers.
    """

    def __init__(self, config: LogFrequencyConfig) -> None:
        super().__init__()
        self.config = config
        for number, window in enumerate(config.windows_samples):
            taper = torch.hann_window(window)
            self.register_buffer(f"window_{number}", 2 * taper / taper.sum(), persistent=False)
            self.register_buffer(f"matrix_{number}", log_frequency_matrix(config, window), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Frames; the first is centred on the first sample, and there are zeros before it and after the end.

        Args:
            samples: float32 [B, N], N a multiple of the hop.

        Returns:
            float32 [B, N / hop, M, windows]: decibels over the floor, divided by its size: 0 is silence, 1 full scale.
        """
        hop, floor = self.config.hop_samples, self.config.floor_db
        frames_count = samples.shape[-1] // hop
        bands = []
        for number, size in enumerate(self.config.windows_samples):
            padded = functional.pad(samples, (size // 2, size // 2))
            frames = padded.unfold(-1, size, hop)[:, :frames_count]  # [B, N] -> [B, T, window]
            power = torch.fft.rfft(frames * getattr(self, f"window_{number}")).abs().square()
            bands.append(power @ getattr(self, f"matrix_{number}"))
        decibels = 10 * torch.log10(torch.stack(bands, -1) + 10 ** (floor / 10))
        return 1 - decibels / floor
