"""The log-frequency front end, against sines, impulses and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musictool.audio.spectrogram import LogFrequency, LogFrequencyConfig, log_frequency_matrix

CONFIG = LogFrequencyConfig()
HOP, LONG, SHORT = CONFIG.hop_samples, *CONFIG.windows_samples
OTHER = LogFrequencyConfig(22_050, 256, (2048,), 24, 55.0, -80.0)


def front_end(samples: np.ndarray, config: LogFrequencyConfig = CONFIG) -> np.ndarray:
    """Frames of one sound, float32 [T, M, windows]."""
    return LogFrequency(config)(torch.from_numpy(samples)[None])[0].numpy()


def decibels(samples: np.ndarray) -> np.ndarray:
    return (front_end(samples) - 1) * -CONFIG.floor_db


def noise(seed: int, samples: int, loudness: float = 0.1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, samples).astype(np.float32)


def hertz(bin: float) -> float:
    return CONFIG.low_hz * 2 ** (bin / CONFIG.bins_per_octave)


def sine(bin: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz(bin) * np.arange(50 * HOP) / CONFIG.rate_hz).astype(np.float32)


def step_bin(window: int) -> int:
    """The first bin that is wider than a step of a window's transform."""
    width = np.array([hertz(bin + 1) - hertz(bin) for bin in range(CONFIG.bins)])
    return int(np.argmax(width > CONFIG.rate_hz / window))


def plain(samples: np.ndarray, config: LogFrequencyConfig) -> np.ndarray:
    """Frames one after the other, triangles weighed one by one; float64 [T, M, windows]."""
    bands = []
    for size in config.windows_samples:
        taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
        padded = np.pad(samples.astype(np.float64), size)
        starts = size + np.arange(len(samples) // config.hop_samples) * config.hop_samples - size // 2
        power = np.array([np.abs(np.fft.rfft(padded[s : s + size] * taper)) ** 2 for s in starts])
        power *= (2 / taper.sum()) ** 2
        step = config.rate_hz / size
        columns = []
        for bin in range(config.bins):
            centre = config.low_hz * 2 ** (bin / config.bins_per_octave)
            reach = max(centre * (2 ** (1 / config.bins_per_octave) - 1), step)
            weights = np.maximum(0, 1 - np.abs(np.arange(size // 2 + 1) * step - centre) / reach)
            columns.append(power @ (weights / weights.sum()))
        bands.append(np.stack(columns, -1))
    level = 10 * np.log10(np.stack(bands, -1) + 10 ** (config.floor_db / 10))
    return (level - config.floor_db) / -config.floor_db


@pytest.mark.parametrize("config", [CONFIG, OTHER])
@pytest.mark.parametrize("frames", [1, 3, 30])
def test_frames_equal_those_of_a_plain_loop(config, frames):
    sound = noise(frames, frames * config.hop_samples)
    got = front_end(sound, config)
    assert got.shape == (frames, config.bins, len(config.windows_samples))
    np.testing.assert_allclose(got, plain(sound, config), atol=2e-4)


@pytest.mark.parametrize("window", [0, 1])
@pytest.mark.parametrize("place", [1, 40.4, 99.5])
def test_a_sine_lands_in_its_bin(window, place):
    first = step_bin(CONFIG.windows_samples[window])
    bin = first + (CONFIG.bins - 2 - first) * place / 100
    level = decibels(sine(bin))[25, :, window]
    assert abs(level.argmax() - bin) <= 0.6


@pytest.mark.parametrize("window", [0, 1])
def test_a_sine_of_full_scale_has_about_0_decibels_where_bins_are_narrow(window):
    for bin in np.linspace(3, step_bin(CONFIG.windows_samples[window]), 12):
        assert -1.6 < decibels(sine(bin))[25, :, window].max() < 0.1


def test_a_softer_sine_is_as_much_lower_as_it_is_softer():
    loud, soft = sine(80), sine(80) * np.float32(0.1)
    np.testing.assert_allclose(decibels(loud)[25, 80] - decibels(soft)[25, 80], 20, atol=0.01)


def test_silence_is_0_and_nothing_lies_below_it():
    assert np.abs(front_end(np.zeros(10 * HOP, np.float32))).max() < 1e-6
    assert front_end(noise(0, 10 * HOP, 1e-7)).min() > -1e-6


@pytest.mark.parametrize("frame", [0, 1, 7, 29])
def test_an_impulse_is_loudest_in_the_frame_that_is_centred_on_it(frame):
    sound = np.zeros(30 * HOP, np.float32)
    sound[frame * HOP] = 1
    level = front_end(sound).mean(1)
    assert level.argmax(0).tolist() == [frame, frame]
    for window, size in enumerate((LONG, SHORT)):
        reach = size // 2 // HOP + 1
        far = np.abs(np.arange(30) - frame) >= reach
        assert np.abs(level[far, window]).max() < 1e-6
        near = [frame + step for step in (-1, 1) if 0 <= frame + step < 30]
        assert (level[near, window] > 0.01).all()


def test_stretches_of_a_batch_do_not_touch_each_other():
    sounds = np.stack([noise(seed, 12 * HOP, 10.0**-seed) for seed in range(3)])
    together = LogFrequency(CONFIG)(torch.from_numpy(sounds)).numpy()
    for sound, frames in zip(sounds, together, strict=True):
        np.testing.assert_allclose(frames, front_end(sound), atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, OTHER])
def test_every_bin_is_a_mean_around_its_centre(config):
    for window in config.windows_samples:
        matrix = log_frequency_matrix(config, window).numpy()
        np.testing.assert_allclose(matrix.sum(0), 1, atol=1e-5)
        assert (matrix >= 0).all()
        centres = config.low_hz * 2 ** (np.arange(config.bins) / config.bins_per_octave)
        step = config.rate_hz / window
        assert (np.abs(matrix.argmax(0) * step - centres) <= step / 2 + 1e-3).all()
        assert centres[-1] < config.rate_hz / 2
