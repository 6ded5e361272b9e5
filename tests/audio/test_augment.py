"""Augmentation: what each change does to a sound, and what it leaves alone."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import soundfile

from musictool.audio import augment as a
from musictool.audio.augment import AugmentConfig, augment

RATE = 16_000
NEVER = replace(AugmentConfig(), **{f.name: 0.0 for f in fields(AugmentConfig) if f.name.endswith("share")})
SHARES = [f.name for f in fields(AugmentConfig) if f.name.endswith("share")]


def tones(seconds: float = 2.0) -> np.ndarray:
    """Three struck notes over silence, float32."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros(len(time))
    for onset, hz in ((0.25, 220), (0.7, 587), (1.3, 1318)):
        since = time - onset
        sound += np.where(since >= 0, np.exp(-3 * since) * np.sin(2 * np.pi * hz * since), 0) * 0.3
    return sound.astype(np.float32)


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seed", range(40))
def test_any_draw_is_a_sound_as_long_as_it_should_be(seed):
    sound = tones()
    before = sound.copy()
    made = augment(sound, RATE, replace(AugmentConfig(), codec_share=0.3), generator(seed))
    np.testing.assert_array_equal(sound, before)
    assert made.samples.dtype == np.float32
    assert np.isfinite(made.samples).all()
    assert np.abs(made.samples).max() <= 1
    assert rms(made.samples) > 1e-3
    assert abs(len(made.samples) - len(sound) * made.time_ratio) <= 1
    assert ("detune" in made.applied) == (made.time_ratio != 1)


def test_the_generator_decides_the_result():
    config = replace(AugmentConfig(), **dict.fromkeys(SHARES, 1.0))
    first, again, other = (augment(tones(), RATE, config, generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert len(first.applied) == len(SHARES)
    assert not np.array_equal(first.samples[: len(other.samples)], other.samples[: len(first.samples)])


def test_without_changes_only_the_gain_is_drawn():
    made = augment(tones(), RATE, NEVER, generator())
    assert (made.applied, made.time_ratio) == ((), 1.0)
    gain = rms(made.samples) / rms(tones())
    np.testing.assert_allclose(made.samples, tones() * gain, atol=1e-6)
    assert 10 ** (-15 / 20) <= gain <= 10 ** (3 / 20)


@pytest.mark.parametrize("share", SHARES)
def test_each_change_is_made_alone_and_heard(share):
    made = augment(tones(), RATE, replace(NEVER, gain_decibels=(0.0, 0.0), **{share: 1.0}), generator(4))
    assert len(made.applied) == 1
    assert share.startswith(made.applied[0][:4])
    length = min(len(made.samples), len(tones()))
    assert rms(made.samples[:length] - tones()[:length]) > 1e-4


@pytest.mark.parametrize("share", [share for share in SHARES if share not in ("detune_share", "codec_share")])
def test_onsets_stay_where_they_are(share):
    sound = np.zeros(RATE, np.float32)
    sound[6_000:6_800] = np.sin(np.arange(800) / 3) * 0.5
    config = replace(NEVER, noise_snr_decibels=(60.0, 60.0), hum_decibels=(60.0, 60.0), **{share: 1.0})
    for seed in range(5):
        made = augment(sound, RATE, config, generator(seed)).samples
        loud = np.flatnonzero(np.abs(made) > 0.15 * np.abs(made).max())
        assert abs(loud[0] - 6_000) <= 16  # a millisecond


def test_a_room_starts_with_the_direct_sound():
    for decibels in (-20.0, -5.0):
        response = a.room_response(RATE, 0.6, decibels, generator())
        assert response[0] == 1
        rest = 10 * np.log10(np.sum(np.square(response[1:], dtype=np.float64)))
        assert rest == pytest.approx(decibels, abs=0.01)


def test_a_room_decays_as_it_is_told():
    response = a.room_response(RATE, 0.9, 0.0, generator())
    early, late = (rms(response[round(t * RATE) : round((t + 0.1) * RATE)]) for t in (0.1, 0.4))
    assert 20 * np.log10(early / late) == pytest.approx(60 * 0.3 / 0.9, abs=2)


@pytest.mark.parametrize("slope", [-2.0, 0.0])
def test_noise_has_its_level_and_colour(slope):
    sound = np.sin(np.arange(RATE // 2) * 0.3).astype(np.float32) * 0.5
    config = replace(
        NEVER, noise_share=1.0, noise_snr_decibels=(20.0, 20.0), noise_slope=(slope, slope), gain_decibels=(0.0, 0.0)
    )
    noise = augment(sound, RATE, config, generator()).samples - sound
    assert 20 * np.log10(rms(sound) / rms(noise)) == pytest.approx(20, abs=0.4)
    power = np.square(np.abs(np.fft.rfft(noise)))
    low, high = (power[hz // 2 : hz].mean() for hz in (200, 3200))
    assert 10 * np.log10(high / low) / 4 == pytest.approx(slope * 3.01, abs=0.5)  # four octaves


def test_an_equaliser_goes_through_its_points():
    hz = np.linspace(0, RATE / 2, 4001, dtype=np.float32)
    points = np.array([6.0, -3.0, 0.0, 4.0, -6.0])
    gains = 20 * np.log10(a.equaliser(hz, points, RATE))
    places = 30 * 2 ** np.linspace(0, np.log2(RATE / 2 / 30), 5)
    np.testing.assert_allclose(np.interp(places, hz, gains), points, atol=0.15)
    np.testing.assert_array_equal(a.equaliser(hz, np.zeros(5), RATE), 1)


def test_a_band_ends_where_it_is_told():
    gains = a.band(np.array([0.0, 100.0, 1000.0, 4000.0, 8000.0], np.float32), 100.0, 4000.0)
    np.testing.assert_allclose(20 * np.log10(gains[1:4]), [-3.01, 0, -3.01], atol=0.05)
    assert gains[0] < 1e-4
    assert gains[4] < 0.02
    assert a.band(np.zeros(1, np.float32), 0.0, 4000.0)[0] == 1


@pytest.mark.parametrize("cents", [-30.0, 30.0])
def test_detuning_moves_pitch_and_time_together(cents):
    time = np.arange(2 * RATE) / RATE
    sound = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    made, ratio = a.detuned(sound, RATE, cents)
    assert ratio == pytest.approx(2 ** (-cents / 1200))
    assert abs(len(made) - len(sound) * ratio) <= 1
    spectrum = np.abs(np.fft.rfft(made * np.hanning(len(made)), 1 << 20))
    heard = np.argmax(spectrum) * RATE / (1 << 20)
    assert 1200 * np.log2(heard / 440) == pytest.approx(cents, abs=0.5)


@pytest.mark.parametrize("codec", a.CODECS)
@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_a_codec_changes_the_sound_and_not_its_place(codec, loss):
    sound = tones() + np.random.default_rng(0).normal(0, 0.01, 2 * RATE).astype(np.float32)
    made = a.coded(sound, RATE, codec, loss)
    assert len(made) == len(sound)
    assert rms(made - sound) > 1e-4
    shifts = range(-40, 41)
    likeness = [np.dot(np.roll(made, shift)[100:-100], sound[100:-100]) for shift in shifts]
    assert shifts[int(np.argmax(likeness))] == 0
    assert max(likeness) > 0.9 * np.dot(sound, sound)


@pytest.mark.parametrize("delay", [-700, 1105])
def test_a_codecs_delay_is_taken_off(monkeypatch, delay):
    sound = tones() + np.random.default_rng(0).normal(0, 0.01, 2 * RATE).astype(np.float32)
    at_once = a.coded(sound, RATE, "vorbis", 0.5)
    read = soundfile.read

    def late(*arguments, **options):
        decoded, rate = read(*arguments, **options)
        return (np.pad(decoded, (delay, 0)) if delay > 0 else decoded[-delay:]), rate

    monkeypatch.setattr(soundfile, "read", late)
    inner = slice(800, -800)
    np.testing.assert_allclose(a.coded(sound, RATE, "vorbis", 0.5)[inner], at_once[inner], atol=1e-6)


def test_a_codec_that_is_not_there_changes_nothing():
    np.testing.assert_array_equal(a.coded(tones(), 22_050, "opus", 0.5), tones())


def test_more_loss_is_more_change():
    for codec in a.CODECS:
        little, much = (rms(a.coded(tones(), RATE, codec, loss) - tones()) for loss in (0.0, 1.0))
        assert much > 1.2 * little


def test_compression_evens_out_and_clipping_bends_only_peaks():
    time = np.arange(2 * RATE) / RATE
    sound = (np.sin(2 * np.pi * 300 * time) * np.where(time < 1, 0.5, 0.05)).astype(np.float32)
    made = a.compressed(sound, RATE, 3.0)
    contrast = [20 * np.log10(rms(x[: RATE // 2]) / rms(x[-RATE // 2 :])) for x in (sound, made)]
    assert contrast[0] == pytest.approx(20, abs=0.1)
    assert contrast[1] == pytest.approx(20 / 3, abs=1.0)
    bent = a.softly_clipped(sound, 2.0)
    assert np.abs(bent).max() == pytest.approx(0.5, abs=1e-3)
    assert rms(bent) > 1.1 * rms(sound)


def test_mixing_keeps_the_distance_in_level():
    sound, other = tones(), np.random.default_rng(1).normal(0, 0.4, 700).astype(np.float32)
    made = a.mixed(sound, other, 15.0)
    added = made - sound
    assert 20 * np.log10(rms(sound) / rms(added)) == pytest.approx(15, abs=0.05)
    assert np.abs(a.mixed(sound, other, -40.0)).max() <= 1


def test_hum_is_of_the_mains():
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    hum = a.with_hum(sound, RATE, 30.0, generator()) - sound
    assert 20 * np.log10(rms(sound) / rms(hum)) == pytest.approx(30, abs=0.1)
    loudest = np.argmax(np.abs(np.fft.rfft(hum))) / 2
    assert min(loudest % 50, loudest % 60) == 0


@pytest.mark.parametrize("sound", [np.zeros(RATE, np.float32), np.zeros(0, np.float32)])
def test_silence_stays_finite(sound):
    config = replace(AugmentConfig(), **dict.fromkeys(SHARES, 1.0))
    assert not np.any(~np.isfinite(augment(sound, RATE, config, generator()).samples))
