"""How far a sound is from the one that it should be: sample by sample, in mel bands, in spectra.

All are means over a batch, in float32 whatever the model computes in, and 0 where both sounds are the same. A window of
the Fourier transform is scaled such that a sine of full scale has a magnitude of 1, so that a floor means the same in
every window. Windows and mel bands are made once for each device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from musictool.audio.spectrogram import LogMelConfig, mel_matrix

MEL_WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)
STFT_WINDOWS = (512, 1024, 2048)
MEL_BANDS = 64
FLOOR = 1e-5
"""What stands for lower magnitudes before the logarithm: 100 dB below a sine of full scale."""

_OVERLAP = 4
_TINY = 1e-20
_BINS_A_BAND = 3  # at least so many steps of a transform for each mel band, on average


def time_distance(audio: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of samples, a scalar.

    Args:
        audio, target: float [..., N].
    """
    return (audio.float() - target.float()).abs().mean()


def mel_distance(audio: Tensor, target: Tensor, rate_hz: int, windows: Sequence[int] = MEL_WINDOWS) -> Tensor:
    """Multi-scale log-mel distance: L1 and L2, as means over bands and frames, summed; the mean over windows.

    After Défossez et al., 2022, section 3.4, with logarithms (natural) of both. A window of 384 samples or more has 64
    bands; shorter ones have a band for each three steps of their transform.

    Args:
        audio, target: float [B, C, N].
        rate_hz: of both.
        windows: in samples; a hop is a quarter of one.

    Returns:
        A scalar; 2 ln g for a sound that is g times the other, where nothing lies at the floor.
    """
    distances = []
    for window in windows:
        bands = mel_bands(rate_hz, window, audio.device)
        difference = (_log_mel(audio, window, bands) - _log_mel(target, window, bands)).flatten(1)
        root_mean_square = torch.linalg.vector_norm(difference, dim=1) / math.sqrt(difference.shape[1])
        distances.append(difference.abs().mean() + root_mean_square.mean())
    return torch.stack(distances).mean()


def stft_distance(audio: Tensor, target: Tensor, windows: Sequence[int] = STFT_WINDOWS) -> Tensor:
    """Multi-resolution distance of spectra: convergence and log magnitudes, summed; the mean over windows.

    Convergence is the norm of the difference over that of the target; log magnitudes differ in L1 (Yamamoto et al.,
    2020; arXiv:1910.11480, section 2.2).

    Args:
        audio, target: float [B, C, N].
        windows: in samples; a hop is a quarter of one.

    Returns:
        A scalar.
    """
    distances = []
    for window in windows:
        of_audio, of_target = (magnitudes(x, window).flatten(1) for x in (audio, target))
        norms = torch.linalg.vector_norm(of_target, dim=1).clamp(min=FLOOR * math.sqrt(of_target.shape[1]))
        convergence = torch.linalg.vector_norm(of_audio - of_target, dim=1) / norms
        log_difference = of_audio.clamp(min=FLOOR).log() - of_target.clamp(min=FLOOR).log()
        distances.append(convergence.mean() + log_difference.abs().mean())
    return torch.stack(distances).mean()


def spectra(audio: Tensor, window: int) -> Tensor:
    """Short-time Fourier transforms with Hann windows, a quarter of one apart; zeros lie beyond both ends.

    Args:
        audio: float [B, C, N].
        window: in samples.

    Returns:
        complex64 [B, C, T, window / 2 + 1]; a sine of full scale has magnitude 1.
    """
    with torch.autocast(audio.device.type, enabled=False):
        stretches = audio.float().flatten(0, 1)
        frames = torch.stft(
            stretches,
            window,
            window // _OVERLAP,
            window=_taper(window, audio.device),
            center=True,
            pad_mode="constant",
            return_complex=True,
        )
        return frames.transpose(1, 2).unflatten(0, audio.shape[:2])


def magnitudes(audio: Tensor, window: int) -> Tensor:
    """Of `spectra`: float32 [B, C, T, window / 2 + 1]."""
    parts = torch.view_as_real(spectra(audio, window))
    return parts.square().sum(-1).clamp(min=_TINY).sqrt()  # in half the time that `abs` takes


@lru_cache(maxsize=64)
def mel_bands(rate_hz: int, window: int, device: torch.device) -> Tensor:
    """What turns magnitudes into mel bands; bands that lie between two steps of the transform are left out.

    Returns:
        float32 [window / 2 + 1, M]; each column sums to 1.
    """
    count = max(1, min(MEL_BANDS, window // 2 // _BINS_A_BAND))
    config = LogMelConfig(rate_hz, window, window // _OVERLAP, count, 0.0, rate_hz / 2)
    with torch.inference_mode(False):  # a training step may find what an evaluation has made
        bands = mel_matrix(config)
        bands = bands[:, bands.sum(0) > 0]
        return functional.normalize(bands, p=1, dim=0).to(device)


def _log_mel(audio: Tensor, window: int, bands: Tensor) -> Tensor:
    """Float [B, C, N] to float32 [B, C, T, M]."""
    with torch.autocast(audio.device.type, enabled=False):
        return (magnitudes(audio, window) @ bands).clamp(min=FLOOR).log()


@lru_cache(maxsize=64)
def _taper(window: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        taper = torch.hann_window(window)
        return (2 * taper / taper.sum()).to(device)
