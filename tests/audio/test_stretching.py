"""Other tempi and other keys: as long, as high and as early as asked for, and the same every time."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from musictool.audio.stretching import shifted, stretched
from musictool.errors import MissingError

RATE = 16_000
needs_stretcher = pytest.mark.skipif(find_spec("python_stretch") is None, reason="needs python-stretch")


def tone(seconds: float = 3.0, hz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * hz * time))[:, None].astype(np.float32)


def cents_from(sound: np.ndarray, hz: float) -> float:
    """How far the loudest frequency is off."""
    middle = sound[RATE // 2 : -RATE // 2, 0]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 8 * len(middle)))
    return 1200 * np.log2(np.argmax(spectrum) * RATE / (8 * len(middle)) / hz)


@needs_stretcher
@pytest.mark.parametrize("semitones", [-2, 2, 7])
def test_a_tone_moves_by_semitones_and_lasts_as_long(semitones):
    moved = shifted(tone(), RATE, semitones)
    assert moved.shape == tone().shape
    assert abs(cents_from(moved, 440 * 2 ** (semitones / 12))) < 1


@needs_stretcher
@pytest.mark.parametrize("tempo", [0.9, 1.1])
def test_a_tone_keeps_its_pitch_at_another_tempo(tempo):
    slower = stretched(tone(), RATE, 1 / tempo)
    assert len(slower) == round(3 * RATE / tempo)
    assert abs(cents_from(slower, 440)) < 1


@needs_stretcher
@pytest.mark.parametrize("ratio", [0.9, 1.1])
def test_moments_come_where_the_ratio_says_whatever_sounds_beside_them(ratio):
    clicks, others = np.zeros((8 * RATE, 1), np.float32), tone(8)
    places = np.arange(1, 15) * RATE // 2
    burst = np.random.default_rng(0).normal(0, 0.3, 400) * np.exp(-np.arange(400) / 80)
    for place in places:
        clicks[place : place + 400, 0] += burst.astype(np.float32)
    for sound in (clicks, clicks + others):
        heard = np.square(stretched(sound, RATE, ratio) - stretched(others, RATE, ratio) * (sound is not clicks))[:, 0]
        for place in (places * ratio).astype(int):
            energy = np.cumsum(heard[place - 800 : place + 1600])
            assert abs(np.searchsorted(energy, 0.1 * energy[-1]) - 800) < 0.003 * RATE


@needs_stretcher
def test_the_same_sound_gives_the_same_bytes_and_sides_stay_apart():
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE, 2)).astype(np.float32)
    noise[:, 1] = 0
    first = stretched(noise, RATE, 1.1)
    np.testing.assert_array_equal(first, stretched(noise, RATE, 1.1))
    assert np.abs(first[:, 0]).max() > 0.1
    assert np.abs(first[:, 1]).max() < 1e-4


@needs_stretcher
@pytest.mark.parametrize("frames", [1, 50, 700])
def test_very_short_sounds_are_as_long_as_asked(frames):
    sound = np.full((frames, 1), 0.5, np.float32)
    assert len(stretched(sound, RATE, 1.1)) == round(frames * 1.1)
    assert len(shifted(sound, RATE, 2)) == frames


def test_nothing_to_do_is_nothing_done():
    sound = tone(0.1)
    assert stretched(sound, RATE, 1.0) is sound
    assert shifted(sound, RATE, 0) is sound


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_stretch", None)
    with pytest.raises(MissingError) as caught:
        stretched(tone(0.1), RATE, 1.1)
    assert "pip install" in caught.value.hint
