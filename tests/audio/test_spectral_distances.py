"""The spectrograms that sounds are compared by, held against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musictool.audio.spectral_distances import (
    MEL_FLOOR,
    MEL_RESOLUTIONS,
    REACH_SAMPLES,
    STFT_RESOLUTIONS,
    in_stretches,
    log_mel,
    magnitudes,
    mel_matrix,
)

RESOLUTIONS = (*MEL_RESOLUTIONS, *STFT_RESOLUTIONS)


def noise(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, (2, samples)).astype(np.float32)


@pytest.mark.parametrize("samples", [1, 999, 3333, 200_003])
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_frames_of_stretches_are_those_of_the_whole(samples, resolution):
    sound = noise(samples)
    found = torch.cat([magnitudes(stretch, resolution) for stretch in in_stretches([sound])], 1)
    whole = torch.stft(
        torch.from_numpy(sound),
        resolution.transform,
        resolution.hop,
        resolution.window,
        torch.hann_window(resolution.window),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    torch.testing.assert_close(found, whole.abs().transpose(1, 2), atol=2e-5, rtol=1e-4)


def test_how_sound_is_cut_makes_no_difference():
    sound = noise(200_000)
    cuts = np.sort(np.random.default_rng(1).integers(0, 200_000, 9))
    whole, pieces = (list(in_stretches(blocks)) for blocks in ([sound], np.split(sound, cuts, axis=1)))
    assert all(torch.equal(one, other) for one, other in zip(whole, pieces, strict=True))
    assert sum(stretch.shape[1] - 2 * REACH_SAMPLES for stretch in whole) == 200_000


@pytest.mark.parametrize("rate_hz", [8000, 24_000, 48_000, 192_000])
@pytest.mark.parametrize("resolution", MEL_RESOLUTIONS)
def test_no_mel_bin_is_empty_and_none_counts_twice(resolution, rate_hz):
    matrix = mel_matrix(resolution, rate_hz) * torch.hann_window(resolution.window).sum() / 2
    assert matrix.shape[1] == min(64, resolution.window * 5 // 32)
    assert (matrix.max(0).values >= 0.5).all()
    assert (matrix.max() <= 1) & (matrix.min() >= 0)
    centres = (matrix * torch.arange(len(matrix))[:, None]).sum(0) / matrix.sum(0)
    assert (centres.diff() >= 0).all()


@pytest.mark.parametrize("resolution", MEL_RESOLUTIONS)
def test_a_sine_of_full_scale_is_at_about_1_in_every_window(resolution):
    sine = np.sin(2 * np.pi * 3000 / 24_000 * np.arange(24_000)).astype(np.float32)
    (stretch,) = in_stretches([sine])
    levels = log_mel(stretch, resolution, mel_matrix(resolution, 24_000))[10:-10]
    assert levels.max(1).values.min() > np.log10(0.5)
    assert levels.max() < np.log10(2.01)
    assert levels.min() >= np.float32(np.log10(MEL_FLOOR))


def test_distances_can_be_learned_from():
    sound = torch.from_numpy(noise(5000)).requires_grad_()
    stretch = torch.nn.functional.pad(sound, (REACH_SAMPLES, REACH_SAMPLES))
    for resolution in MEL_RESOLUTIONS:
        log_mel(stretch, resolution, mel_matrix(resolution, 24_000)).sum().backward()
    assert sound.grad.isfinite().all()
    assert sound.grad.abs().min() > 0
