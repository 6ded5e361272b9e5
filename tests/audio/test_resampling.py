"""Resampling: the same sound in another rate, of an exact length, however it is cut."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.audio.resampling import Resampler, remixed, resampled_length

RATES = [(44_100, 24_000), (24_000, 44_100), (192_000, 24_000), (8_000, 48_000), (100, 24_000), (4_000_000, 24_000)]


def resampled(sound: np.ndarray, from_hz: int, to_hz: int, cuts=(), length=None) -> np.ndarray:
    resampler = Resampler(from_hz, to_hz, sound.shape[1])
    made = [resampler.push(part) for part in np.split(sound, cuts)]
    return np.concatenate([*made, resampler.finish(length)])


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
@pytest.mark.parametrize("frames", [0, 1, 2, 22, 12_345])
def test_any_cut_gives_the_same_samples_and_the_exact_length(from_hz, to_hz, frames):
    generator = np.random.default_rng(frames)
    sound = generator.normal(0, 0.1, (frames, 2)).astype(np.float32)
    whole = resampled(sound, from_hz, to_hz)
    assert whole.shape == (resampled_length(frames, from_hz, to_hz), 2)
    cuts = np.sort(generator.integers(0, frames + 1, 9))
    np.testing.assert_array_equal(resampled(sound, from_hz, to_hz, cuts), whole)


def test_there_and_back_is_the_same_length_and_the_same_sound():
    times = np.arange(44_100) / 44_100
    sound = (np.sin(2 * np.pi * 440 * times) * np.hanning(44_100) ** 2).astype(np.float32)[:, None]
    for frames in (44_100, 44_099, 40_001):
        there = resampled(sound[:frames], 44_100, 24_000)
        back = resampled(there, 24_000, 44_100, length=frames)
        assert len(back) == frames
        np.testing.assert_allclose(back[:40_000], sound[:40_000], atol=1e-3)


def test_the_same_rate_leaves_every_bit():
    sound = np.random.default_rng(0).normal(0, 9, (1000, 1)).astype(np.float32)
    np.testing.assert_array_equal(resampled(sound, 24_000, 24_000, [7, 500]), sound)


def test_channels_are_doubled_mixed_or_left():
    sound = np.array([[1, 0], [0.5, -0.5]], np.float32)
    assert remixed(sound, 2) is sound
    assert remixed(sound, 1).tolist() == [[0.5], [0]]
    assert remixed(sound[:, :1], 2).tolist() == [[1, 1], [0.5, 0.5]]
    six = np.eye(6, dtype=np.float32)
    np.testing.assert_allclose(remixed(six, 2), np.full((6, 2), 1 / 6))
