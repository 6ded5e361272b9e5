"""Distances of sounds, held against closed forms and against other ways to compute them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musictool.audio.spectral_distances import MEL_RESOLUTIONS, STFT_RESOLUTIONS, mel_matrix
from musictool.metrics.audio import METRICS, SI_SDR_MAX_DB, evaluate

RATE = 24_000
SAMPLES = 20_011  # of no hop a multiple


def music(seed=0, channels=1, samples=SAMPLES):
    """Tones that come and go over noise, float64 [C, N]."""
    generator = np.random.default_rng(seed)
    time = np.arange(samples) / RATE
    tones = [np.sin(2 * np.pi * generator.uniform(100, 5000) * time + generator.uniform(0, 6)) for _ in range(5)]
    envelopes = generator.uniform(0, 0.15, (5, 8)).repeat(-(-samples // 8), axis=1)[:, :samples]
    sound = (envelopes * tones).sum(axis=0)
    return np.stack([sound] * channels) + generator.normal(0, 0.01, (channels, samples))


def compared(reference, result, rate_hz=RATE):
    return evaluate([np.stack([reference, result]).astype(np.float32)], rate_hz)


def orthogonal_noise(sound, decibels, seed=9):
    """Noise without mean that has nothing of the sound in it, at a level below it."""
    moving = sound - sound.mean(axis=1, keepdims=True)
    noise = np.random.default_rng(seed).normal(size=sound.shape)
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= moving * ((noise * moving).sum(axis=1) / (moving * moving).sum(axis=1))[:, None]
    return noise * np.sqrt((moving**2).sum() / (noise**2).sum() / 10 ** (decibels / 10))


# -------------------------------------------------------------------------------------------------------------- SI-SDR


@pytest.mark.parametrize("decibels", [-30, -3, 0, 17, 60])
def test_si_sdr_is_the_level_of_what_the_result_has_of_its_own(decibels):
    sound = music()
    result = sound + orthogonal_noise(sound, decibels)
    assert compared(sound, result)["si_sdr_db"] == pytest.approx(decibels, abs=1e-3)


@pytest.mark.parametrize("gain", [-1, 1e-4, 0.3, 50])
def test_si_sdr_does_not_change_with_a_gain_or_an_offset(gain):
    sound = music()
    noisy = sound + orthogonal_noise(sound, 20)
    assert compared(sound, gain * noisy + 0.2 * abs(gain))["si_sdr_db"] == pytest.approx(20, abs=1e-3)
    assert compared(gain * sound - 0.1 * abs(gain), noisy)["si_sdr_db"] == pytest.approx(20, abs=1e-3)


def test_si_sdr_has_limits_where_rounding_begins():
    sound = music()
    for same in (sound, 4 * sound, -sound):
        assert compared(sound, same)["si_sdr_db"] == SI_SDR_MAX_DB
    time = 2 * np.pi * np.arange(2000)[None] / 100
    assert compared(np.sin(time), np.sin(2 * time))["si_sdr_db"] < -100


@pytest.mark.parametrize("still", [0.0, 0.25])
def test_si_sdr_of_what_does_not_move_is_none_and_no_number(still):
    sound = music()
    for pair in ((np.full_like(sound, still), sound), (sound, np.full_like(sound, still))):
        assert compared(*pair)["si_sdr_db"] is None


def test_channels_without_si_sdr_are_left_out_of_the_mean():
    sound = music(channels=2)
    result = sound + orthogonal_noise(sound, 20)
    right = compared(sound[1:], result[1:])["si_sdr_db"]
    sound[0] = 0
    assert compared(sound, result)["si_sdr_db"] == pytest.approx(right)


# ---------------------------------------------------------------------------------------------------------- all of them


def test_the_same_sound_is_at_no_distance():
    sound = music(channels=2)
    assert compared(sound, sound) == dict(zip(METRICS, (SI_SDR_MAX_DB, 0, 0, 0, 0)))


def test_more_noise_is_further_away_in_every_metric():
    sound = music(channels=2)
    noise = np.random.default_rng(3).normal(size=sound.shape)
    scores = [compared(sound, sound + level * noise) for level in (1e-4, 1e-3, 1e-2, 0.1, 1)]
    for metric in METRICS:
        values = [score[metric] * (-1 if metric == "si_sdr_db" else 1) for score in scores]
        assert values == sorted(values), metric
        assert len(set(values)) == 5


@pytest.mark.parametrize("decibels", [-6, 1, 20])
def test_a_gain_is_as_far_away_as_its_decibels(decibels):
    gain = 10 ** (decibels / 20)
    noise = np.random.default_rng(0).normal(0, 1, (1, SAMPLES))  # all of it above the floors
    scores = compared(noise, gain * noise)
    assert scores["mel_distance"] == pytest.approx(0.05 * abs(decibels), rel=1e-4)
    assert scores["log_stft_distance"] == pytest.approx(np.log(10) / 20 * abs(decibels), rel=1e-3)
    assert scores["spectral_convergence"] == pytest.approx(abs(gain - 1), rel=1e-4)


def test_distances_of_logarithms_are_the_same_both_ways():
    one, other = compared(music(0), music(1)), compared(music(1), music(0))
    for metric in ("mel_distance", "log_stft_distance"):
        assert one[metric] == pytest.approx(other[metric])


def spectrogram(sound, resolution):
    """[C, F, T], by torch's own transform."""
    window = torch.hann_window(resolution.window, dtype=torch.float64)
    padding = {"center": True, "pad_mode": "constant", "return_complex": True}
    samples = torch.from_numpy(sound.astype(np.float32).astype(np.float64))
    return torch.stft(samples, resolution.transform, resolution.hop, resolution.window, window, **padding).abs()


def test_distances_are_what_their_definitions_say():
    sound, result = music(0, 2), music(1, 2)
    sound[:, 5000:12_000], result[:, 8000:14_000] = 0, 1e-6  # the floors count
    scores = compared(sound, result)
    mel, convergence, logarithm = [], [], []
    for resolution in MEL_RESOLUTIONS:
        matrix = mel_matrix(resolution, RATE).double().T
        one, other = ((matrix @ spectrogram(x, resolution)).clamp(min=1e-5).log10() for x in (sound, result))
        mel.append(float((one - other).abs().mean()))
    for resolution in STFT_RESOLUTIONS:
        one, other = (spectrogram(x, resolution) for x in (sound, result))
        convergence.append(float(((one - other).norm(dim=(1, 2)) / one.norm(dim=(1, 2))).mean()))
        one, other = (x.square().clamp(min=1e-7).log() / 2 for x in (one, other))
        logarithm.append(float((one - other).abs().mean()))
    assert scores["mel_distance"] == pytest.approx(np.mean(mel), rel=1e-4)
    assert scores["spectral_convergence"] == pytest.approx(np.mean(convergence), rel=1e-4)
    assert scores["log_stft_distance"] == pytest.approx(np.mean(logarithm), rel=1e-4)
    assert scores["stft_distance"] == scores["spectral_convergence"] + scores["log_stft_distance"]


def test_how_sound_is_cut_makes_no_difference():
    pair = np.stack([music(0, 2, 200_000), music(1, 2, 200_000)]).astype(np.float32)
    cuts = np.sort(np.random.default_rng(2).integers(0, 200_000, 12))
    whole, pieces = evaluate([pair], RATE), evaluate(np.split(pair, cuts, axis=2), RATE)
    assert pieces == pytest.approx(whole, rel=1e-9)


def test_channels_are_compared_one_by_one():
    sound, result = music(0, 2), music(1, 2)
    both = compared(sound, result)
    alone = [compared(sound[[channel]], result[[channel]]) for channel in (0, 1)]
    assert both == pytest.approx({metric: (alone[0][metric] + alone[1][metric]) / 2 for metric in METRICS}, rel=1e-5)
    assert compared(sound, result[::-1]) != both


def test_silence_has_distances_where_they_mean_something():
    sound, silence = music(), np.zeros((1, SAMPLES))
    nothing = compared(silence, silence)
    assert nothing == {**dict.fromkeys(METRICS), "mel_distance": 0, "log_stft_distance": 0}
    lost = compared(sound, silence)
    assert lost["spectral_convergence"] == 1
    assert lost["si_sdr_db"] is None
    invented = compared(silence, sound)
    assert invented["spectral_convergence"] is invented["stft_distance"] is None
    assert invented["mel_distance"] == pytest.approx(lost["mel_distance"])


@pytest.mark.parametrize("samples", [1, 2, 12, 100])
@pytest.mark.parametrize("rate_hz", [8000, 44_100, 192_000])
def test_the_shortest_sounds_are_measured(samples, rate_hz):
    scores = compared(music(0, 1, samples), music(1, 1, samples), rate_hz)
    assert all(score is None or np.isfinite(score) for score in scores.values())
    assert scores["mel_distance"] > 0
