"""Voices that are listened to: the good pass, and the silent, mistuned and displaced do not."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.symbolic.soundfont import SoundFont
from musictool.training.data.tuning import deviation_cents, listen
from tests.training.data.fonts import SHIPPED, needs_fluidsynth, sine_font

SHARP = 3.93  # of 441 Hz over 440


def heard(path, *presets):
    return listen(SoundFont.read(path), list(presets or [(0, 0)]))


@needs_fluidsynth
@pytest.mark.parametrize("cents", [0, 25, -30])
def test_deviations_are_measured_to_a_cent(tmp_path, cents):
    (voice,) = heard(sine_font(tmp_path / "a.sf2", cents=cents))
    assert voice.cents == pytest.approx(cents + SHARP, abs=1)
    assert voice.worst_cents == pytest.approx(cents + SHARP, abs=1)
    assert not voice.fault
    assert voice.audible == frozenset(range(21, 109))


@needs_fluidsynth
@pytest.mark.parametrize("cents", [40, -50, 100, 1200, -1200, 1900])
def test_a_voice_out_of_tune_is_refused_even_by_octaves(tmp_path, cents):
    (voice,) = heard(sine_font(tmp_path / "a.sf2", cents=cents))
    assert voice.fault == f"is out of tune by {cents + SHARP:+.0f} cents"


@needs_fluidsynth
def test_a_voice_of_few_keys_is_as_good_as_silent(tmp_path):
    (voice,) = heard(sine_font(tmp_path / "a.sf2", keys=(60, 66)))
    assert voice.fault == "is silent"
    assert voice.audible == frozenset(range(60, 67))


@needs_fluidsynth
def test_a_voice_of_the_highest_keys_is_measured_there(tmp_path):
    (voice,) = heard(sine_font(tmp_path / "a.sf2", keys=(96, 127)))
    assert voice.cents == pytest.approx(SHARP, abs=3)
    assert not voice.fault


@needs_fluidsynth
def test_keys_that_do_not_sound_are_known(tmp_path):
    (voice,) = heard(sine_font(tmp_path / "a.sf2", keys=(40, 90)))
    assert voice.audible == frozenset(range(40, 91))
    assert not voice.fault


@needs_fluidsynth
def test_drums_need_not_be_in_tune(tmp_path):
    path = sine_font(tmp_path / "a.sf2", cents=700, programs=((128, 0), (0, 0)))
    drums, melodic = heard(path, (128, 0), (0, 0))
    assert (drums.fault, drums.cents) == ("", None)
    assert melodic.fault
    (silent,) = heard(sine_font(tmp_path / "b.sf2", programs=((128, 0),), keys=(100, 120)), (128, 0))
    assert silent.fault == "is silent"


@needs_fluidsynth
def test_the_font_that_ships_is_in_tune():
    voices = heard(SHIPPED, *((0, program) for program in (0, 4, 22, 24, 40, 46, 52, 66, 73)), (128, 0))
    assert [voice.fault for voice in voices] == [""] * 10


def test_sharp_partials_do_not_mislead():
    """A stiff string: each partial sharper than the last, so that no period fits them all."""
    rate, hz = 32_000, 220.0
    time = np.arange(rate // 2) / rate
    partials = np.arange(1, 13)
    frequencies = partials * hz * np.sqrt(1 + 4e-4 * partials**2) / np.sqrt(1 + 4e-4)
    sound = (np.sin(2 * np.pi * frequencies[:, None] * time) / partials[:, None] ** 0.7).sum(axis=0)
    assert deviation_cents(sound.astype(np.float32), 57, rate) == pytest.approx(0, abs=2)


def test_a_missing_fundamental_is_still_its_pitch():
    time = np.arange(16_000) / 32_000
    sound = sum(np.sin(2 * np.pi * 110 * n * time) for n in range(2, 9)).astype(np.float32)
    assert deviation_cents(sound, 45, 32_000) == pytest.approx(0, abs=3)


def test_noise_has_no_pitch():
    sound = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    assert deviation_cents(sound, 60, 32_000) is None
