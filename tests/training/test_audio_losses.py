"""Distances of sounds, against closed forms and against a computation of their own in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from musictool.training.audio_losses import (
    FLOOR,
    MEL_WINDOWS,
    magnitudes,
    mel_bands,
    mel_distance,
    stft_distance,
    time_distance,
)

RATE = 24_000


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_a_sound_is_no_distance_from_itself():
    x = noise(2, 1, 6000)
    assert time_distance(x, x) == mel_distance(x, x, RATE) == stft_distance(x, x) == 0


def test_a_louder_sound_is_as_far_as_its_gain_says():
    x = noise(2, 2, 12_000)
    gain = 2.0
    assert float(time_distance(gain * x, x)) == pytest.approx(float(x.abs().mean()), rel=1e-5)
    assert float(mel_distance(gain * x, x, RATE)) == pytest.approx(2 * math.log(gain), rel=1e-3)
    assert float(stft_distance(gain * x, x)) == pytest.approx(gain - 1 + math.log(gain), rel=1e-3)


def test_a_sine_of_full_scale_has_magnitude_one_in_every_window():
    time = torch.arange(RATE) / RATE
    sine = torch.sin(2 * math.pi * 3000 * time)[None, None]
    for window in MEL_WINDOWS:
        middle = magnitudes(sine, window)[0, 0, 4:-4]
        assert middle.max(-1).values.numpy() == pytest.approx(1.0, abs=0.01)


def test_mel_distance_is_what_numpy_makes_of_it():
    x, y = noise(1, 1, 3000), noise(1, 1, 3000, seed=1)
    expected = []
    for window in (64, 512):
        bands = mel_bands(RATE, window, torch.device("cpu")).numpy()
        taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
        levels = []
        for sound in (x, y):
            padded = np.pad(sound[0, 0].numpy(), window // 2)
            starts = range(0, len(padded) - window + 1, window // 4)
            frames = np.stack([padded[start : start + window] for start in starts])
            spectrum = np.abs(np.fft.rfft(frames * taper)) * 2 / taper.sum()
            levels.append(np.log(np.maximum(spectrum @ bands, FLOOR)))
        difference = levels[0] - levels[1]
        expected.append(np.abs(difference).mean() + np.sqrt(np.square(difference).mean()))
    assert float(mel_distance(x, y, RATE, (64, 512))) == pytest.approx(np.mean(expected), rel=1e-4)


def test_no_mel_band_is_empty_and_short_windows_have_fewer():
    counts = []
    for window in MEL_WINDOWS:
        bands = mel_bands(RATE, window, torch.device("cpu"))
        assert torch.allclose(bands.sum(0), torch.ones(bands.shape[1]))
        counts.append(bands.shape[1])
    assert counts == sorted(counts)
    assert counts[0] < 8
    assert counts[-1] == 64


def test_silence_has_a_gradient_that_is_a_number():
    x = torch.zeros(1, 1, 4000, requires_grad=True)
    (mel_distance(x, noise(1, 1, 4000), RATE) + stft_distance(x, noise(1, 1, 4000))).backward()
    assert torch.isfinite(x.grad).all()


def test_distances_are_computed_in_float32_under_autocast():
    x, y = noise(1, 1, 4000), noise(1, 1, 4000, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mel_distance(x, y, RATE), stft_distance(x, y)
    assert inside == (mel_distance(x, y, RATE), stft_distance(x, y))


def test_what_an_evaluation_has_made_serves_training():
    mel_bands.cache_clear()
    with torch.inference_mode():
        mel_distance(noise(1, 1, 4000), noise(1, 1, 4000, seed=1), RATE)
    x = noise(1, 1, 4000).requires_grad_()
    mel_distance(x, noise(1, 1, 4000, seed=1), RATE).backward()
    assert x.grad is not None
