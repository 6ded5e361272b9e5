"""What a picture of two sounds shows."""

from __future__ import annotations

import io

import numpy as np
import pytest

from musictool.audio.spectral_distances import mel_edges_hz
from musictool.metrics import spectrogram_picture
from musictool.metrics.spectrogram_picture import COLUMNS_MAX, MEL_BINS, draw, spectrograms_of

RATE = 24_000


def sine(hertz, seconds=1.0, gain=1.0):
    return gain * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def drawn(reference, result):
    pair = np.stack([reference, result]).astype(np.float32)
    return spectrograms_of([pair.reshape(2, 1, -1)], RATE, len(reference))


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 9000])
def test_a_sine_is_at_its_height_and_its_level(hertz):
    spectrograms = drawn(sine(hertz), sine(hertz, gain=0.1))
    centres = mel_edges_hz(RATE, MEL_BINS)[1:-1]
    for levels, decibels in ((spectrograms.reference, 0), (spectrograms.result, -20)):
        middle = levels[:, 10]
        assert abs(np.argmax(middle) - np.argmin(np.abs(centres - hertz))) <= 1
        assert middle.max() == pytest.approx(decibels, abs=7)
    inner = slice(5, -5)
    np.testing.assert_allclose(
        spectrograms.reference.max(axis=0)[inner] - spectrograms.result.max(axis=0)[inner], 20, atol=0.01
    )


def test_a_long_sound_has_no_more_columns_and_keeps_its_time():
    seconds = 2 * COLUMNS_MAX * 512 / RATE
    reference = sine(1000, seconds)
    result = reference.copy()
    result[len(result) // 2 :] = 0
    spectrograms = drawn(reference, result)
    assert spectrograms.reference.shape == spectrograms.result.shape == (MEL_BINS, COLUMNS_MAX)
    loud = spectrograms.result.max(axis=0) > -40
    assert loud[: COLUMNS_MAX // 2 - 2].all()
    assert not loud[COLUMNS_MAX // 2 + 2 :].any()


def test_how_sound_is_cut_makes_no_difference():
    pair = np.random.default_rng(0).normal(0, 0.1, (2, 2, 100_000)).astype(np.float32)
    whole = spectrograms_of([pair], RATE, 100_000)
    pieces = spectrograms_of(np.split(pair, [1, 77, 50_000], axis=2), RATE, 100_000)
    np.testing.assert_allclose(pieces.reference, whole.reference, atol=1e-6)
    np.testing.assert_allclose(pieces.result, whole.result, atol=1e-6)


@pytest.mark.parametrize(("samples", "gain"), [(1, 1), (20_000, 0)])
def test_short_and_silent_sounds_are_drawn(samples, gain):
    sound = gain * np.ones(samples)
    first, second = io.BytesIO(), io.BytesIO()
    for file in (first, second):
        draw(file, drawn(sound, 0 * sound), title="$x$ \u4e2d")
    assert first.getvalue() == second.getvalue()
    assert first.getvalue().startswith(b"\x89PNG")


def test_the_difference_is_what_the_result_has_too_much(monkeypatch):
    rows = {}
    fill = spectrogram_picture._fill

    def watched(figure, spectrograms, row, name, levels, *rest):
        rows[name] = levels
        return fill(figure, spectrograms, row, name, levels, *rest)

    monkeypatch.setattr(spectrogram_picture, "_fill", watched)
    spectrograms = drawn(sine(1000) + 0.001 * sine(5000), 0.5 * sine(1000) + 0.1 * sine(8000))
    draw(io.BytesIO(), spectrograms)
    difference = rows["result - reference"][:, 10]
    centres = mel_edges_hz(RATE, MEL_BINS)[1:-1]
    near = {hertz: int(np.argmin(np.abs(centres - hertz))) for hertz in (1000, 5000, 8000)}
    assert difference[near[1000]] == pytest.approx(-6, abs=0.5)
    assert difference[near[5000]] < -15
    assert difference[near[8000]] > 15
    assert difference[0] == pytest.approx(0, abs=7)
