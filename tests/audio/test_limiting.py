"""A limiter keeps true peaks down, leaves the rest alone, and knows no blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from musictool.audio.limiting import Limiter
from musictool.audio.loudness import LoudnessMeter

RATE = 32_000


def limited(sound: np.ndarray, ceiling: float, block: int = 1 << 14) -> np.ndarray:
    limiter = Limiter(RATE, sound.shape[1], ceiling)
    pieces = [limiter.push(sound[start : start + block]) for start in range(0, len(sound), block)]
    return np.concatenate([*pieces, limiter.finish()])


def true_peak(sound: np.ndarray) -> float:
    meter = LoudnessMeter(RATE, sound.shape[1])
    meter.add(sound)
    return meter.finish().true_peak


def drums(seconds: float = 3.0, channels: int = 2) -> np.ndarray:
    """A soft tone with loud strokes in it."""
    generator = np.random.default_rng(0)
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.repeat(0.1 * np.sin(2 * np.pi * 330 * time)[:, None], channels, axis=1)
    for place in range(RATE // 4, len(time) - 800, RATE // 2):
        stroke = generator.normal(0, 0.5, (800, channels)) * np.exp(-np.arange(800) / 150)[:, None]
        sound[place : place + 800] += stroke
    return sound.astype(np.float32)


@pytest.mark.parametrize("ceiling", [0.9, 0.3])
def test_no_true_peak_is_over_the_ceiling(ceiling):
    sound = drums()
    assert true_peak(sound) > 1.5 * ceiling
    after = limited(sound, ceiling)
    assert after.shape == sound.shape
    assert 20 * math.log10(true_peak(after) / ceiling) < 0.1
    assert true_peak(after) > 0.9 * ceiling


def test_peaks_between_samples_count():
    time = np.arange(RATE) + 0.5
    sound = (0.7 * np.sin(np.pi / 2 * time))[:, None].astype(np.float32)  # no sample is over 0.5
    sound[: RATE // 2] *= np.linspace(0, 1, RATE // 2)[:, None]
    assert np.abs(sound).max() < 0.51
    assert np.abs(limited(sound, 0.6)[RATE // 2 + 2000 :]).max() < 0.44


def test_what_is_under_the_ceiling_is_left_bit_by_bit():
    sound = drums()
    np.testing.assert_array_equal(limited(sound, 10.0), sound)


def test_sound_is_as_before_soon_after_a_peak():
    sound = np.full((2 * RATE, 1), 0.1, np.float32)
    sound[RATE // 2 : RATE // 2 + 10] = 1.0
    after = limited(sound, 0.5)
    np.testing.assert_array_equal(after[: RATE // 2 - 400], sound[: RATE // 2 - 400])
    np.testing.assert_allclose(after[-100:], sound[-100:], rtol=3e-3)


def test_all_channels_get_one_gain():
    sound = drums()
    sound[:, 1] = 0.1 * sound[:, 0]
    after = limited(sound, 0.3)
    np.testing.assert_allclose(after[:, 1], 0.1 * after[:, 0], atol=1e-7)


@pytest.mark.parametrize("block", [1, 77, 160, 5_000])
def test_blocks_of_any_size_give_the_same(block):
    sound = drums(0.4)
    np.testing.assert_allclose(limited(sound, 0.3, block), limited(sound, 0.3), atol=1e-6)


@pytest.mark.parametrize("frames", [0, 1, 159, 160, 161])
def test_very_short_sounds_come_back_as_long(frames):
    assert limited(np.full((frames, 1), 0.9, np.float32), 0.5).shape == (frames, 1)
