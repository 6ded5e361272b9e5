"""The log-mel front end, against plain numpy that follows TensorFlow's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from musictool.audio.spectrogram import LogMel, LogMelConfig, mel_matrix

CONFIG = LogMelConfig()
LOG_FLOOR = math.log(1e-5)
EMPTY_BINS = [1, 10]


def linear_to_mel_weight_matrix(bins, spectrogram_bins, rate_hz, low_hz, high_hz):
    """A port of `tf.signal.linear_to_mel_weight_matrix`, in float64."""

    def mel(hz):
        return 1127.0 * np.log(1.0 + hz / 700.0)

    frequencies = np.linspace(0.0, rate_hz / 2, spectrogram_bins)[1:]
    lower, centre, upper = (np.linspace(mel(low_hz), mel(high_hz), bins + 2)[i : i + bins] for i in range(3))
    slopes = mel(frequencies)[:, np.newaxis]
    weights = np.maximum(0.0, np.minimum((slopes - lower) / (centre - lower), (upper - slopes) / (upper - centre)))
    return np.pad(weights, [[1, 0], [0, 0]])


def log_mel(samples):
    """Frames one after the other: left-aligned, zeros beyond the end, magnitudes, natural logarithms; float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    matrix = linear_to_mel_weight_matrix(512, 1025, 16_000, 20.0, 7600.0)
    rows = []
    for start in range(0, len(samples), 128):
        frame = np.zeros(2048)
        part = samples[start : start + 2048]
        frame[: len(part)] = part
        mel = np.abs(np.fft.rfft(frame * window)) @ matrix
        rows.append(np.log(np.where(mel <= 0, 1e-5, mel)))
    return np.array(rows)


def noise(seed, samples, loudness=0.1):
    return np.random.default_rng(seed).normal(0, loudness, samples).astype(np.float32)


def front_end(samples):
    return LogMel(CONFIG)(torch.from_numpy(samples)[None])[0].numpy()


@pytest.mark.parametrize(
    "config",
    [CONFIG, LogMelConfig(rate_hz=22_050, window_samples=1024, bins=80, low_hz=0.0, high_hz=8000.0)],
)
def test_mel_matrix_equals_tensorflows(config):
    bins = config.window_samples // 2 + 1
    expected = linear_to_mel_weight_matrix(config.bins, bins, config.rate_hz, config.low_hz, config.high_hz)
    got = mel_matrix(config).numpy()
    assert got.shape == (bins, config.bins)
    np.testing.assert_allclose(got, expected, atol=2e-4)  # triangles are narrow: float32 mels are this far apart
    assert np.array_equal(got > 0, expected > 0)


def test_mel_matrix_has_the_empty_filters_and_rows_of_the_published_one():
    matrix = mel_matrix(CONFIG)
    assert torch.nonzero(matrix.sum(dim=0) == 0).flatten().tolist() == EMPTY_BINS
    used = torch.nonzero(matrix.sum(dim=1) > 0).flatten()
    assert used.tolist() == list(range(3, 973))


@pytest.mark.parametrize("samples", [128, 128 * 5, 128 * 40])
def test_frames_equal_those_of_a_plain_loop(samples):
    sound = noise(samples, samples)
    got = front_end(sound)
    assert got.shape == (samples // 128, 512)
    np.testing.assert_allclose(got, log_mel(sound), atol=1e-3)
    assert np.abs(got - log_mel(sound)).mean() < 5e-5


def test_a_frame_is_of_its_own_samples_and_zeros_beyond_the_end():
    sound = noise(2, 4096)
    got = front_end(sound)
    changed = sound.copy()
    changed[1280:] += 0.5  # frame 10 begins here
    assert np.abs(front_end(changed)[10:] - got[10:]).max() > 1
    alone = front_end(np.ascontiguousarray(sound[1280 : 1280 + 2048]))[0]
    np.testing.assert_allclose(got[10], alone, atol=1e-5)
    np.testing.assert_allclose(got[-1], front_end(sound[-128:])[0], atol=1e-5)


def test_stretches_of_a_batch_do_not_touch_each_other():
    sounds = np.stack([noise(seed, 4096, 10.0**-seed) for seed in range(3)])
    together = LogMel(CONFIG)(torch.from_numpy(sounds)).numpy()
    for sound, frames in zip(sounds, together, strict=True):
        np.testing.assert_allclose(frames, front_end(sound), atol=1e-4)


def test_silence_is_the_floor_and_small_values_are_not_raised_to_it():
    assert np.allclose(front_end(np.zeros(2048, np.float32)), LOG_FLOOR)
    quiet = noise(3, 2048, 1e-8)
    frames = front_end(quiet)
    filled = np.delete(frames, EMPTY_BINS, axis=1)
    assert filled.max() < LOG_FLOOR - 1
    np.testing.assert_allclose(frames, log_mel(quiet), atol=1e-3)
    assert np.allclose(frames[:, EMPTY_BINS], LOG_FLOOR)
