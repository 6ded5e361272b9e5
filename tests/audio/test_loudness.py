"""Loudness and true peak: the cases of EBU Tech 3341, ffmpeg's meter, and block borders that make no difference."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.audio.loudness import Loudness, LoudnessMeter, gain_to
from musictool.errors import InputError

RATE = 48_000


def measured(sound: np.ndarray, rate_hz: int = RATE, block: int = 1 << 16) -> Loudness:
    meter = LoudnessMeter(rate_hz, sound.shape[1])
    for start in range(0, len(sound), block):
        meter.add(sound[start : start + block])
    return meter.finish()


def tone(
    decibels: float, seconds: float, hz: float = 1000, rate_hz: int = RATE, channels: int = 2, phase: float = 0.0
) -> np.ndarray:
    """A sine whose peak is so many decibels under full scale, float32 [n, C]."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    sound = 10 ** (decibels / 20) * np.sin(2 * np.pi * hz * time + phase)
    return np.repeat(sound[:, None], channels, axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("parts", "lufs"),
    [
        ([(-23, 5)], -23.0),  # 1
        ([(-33, 5)], -33.0),  # 2
        ([(-36, 4), (-23, 24), (-36, 4)], -23.0),  # 3, the relative gate; here and below less than half as long
        ([(-72, 4), (-36, 4), (-23, 24), (-36, 4), (-72, 4)], -23.0),  # 4, both gates
        ([(-26, 8), (-20, 8.04), (-26, 8)], -23.0),  # 5
    ],
)
def test_loudness_of_the_cases_of_ebu_tech_3341(parts, lufs):
    sound = np.concatenate([tone(decibels, seconds) for decibels, seconds in parts])
    assert measured(sound).integrated_lufs == pytest.approx(lufs, abs=0.1)


def test_near_silence_lowers_no_gate():
    loud, soft, silence = tone(-23, 8), tone(-37, 8), tone(-90, 60)
    assert measured(np.concatenate([loud, soft, silence])).integrated_lufs == pytest.approx(-23.0, abs=0.2)
    assert measured(np.concatenate([loud, tone(-31, 8), silence])).integrated_lufs == pytest.approx(-25.4, abs=0.2)


@pytest.mark.parametrize(("phase", "hz"), [(0, 12_000), (45, 12_000), (60, 8_000), (67.5, 6_000)])  # 15 to 18
def test_true_peak_of_the_cases_of_ebu_tech_3341(phase, hz):
    sound = tone(-6.0, 0.5, hz, phase=math.radians(phase))
    sound *= np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / 1000)[:, None]
    assert np.abs(sound).max() < 10 ** (-6.0 / 20) * 0.98 or phase == 0
    assert -6.4 <= 20 * math.log10(measured(sound.astype(np.float32)).true_peak) <= -5.8


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100, 96_000])
def test_the_rate_makes_no_difference(rate_hz):
    assert measured(tone(-23, 5, rate_hz=rate_hz), rate_hz).integrated_lufs == pytest.approx(-23.0, abs=0.1)


@pytest.mark.parametrize("block", [19, 977, 4_801])
def test_blocks_of_any_size_give_the_same(block):
    noise = np.random.default_rng(0).normal(0, 0.1, (RATE // 2 + 17, 2)).astype(np.float32)
    part, whole = measured(noise, block=block), measured(noise)
    assert part.true_peak == pytest.approx(whole.true_peak, abs=1e-6)
    assert part.integrated_lufs == pytest.approx(whole.integrated_lufs, abs=1e-9)


def test_one_channel_counts_half_as_much_as_two():
    difference = measured(tone(-20, 5)).integrated_lufs - measured(tone(-20, 5, channels=1)).integrated_lufs
    assert difference == pytest.approx(10 * math.log10(2), abs=1e-6)


def test_silence_and_a_moment_have_no_loudness():
    assert measured(np.zeros((RATE, 1), np.float32)) == Loudness(None, 0.0)
    short = measured(tone(-20, 0.39))
    assert short.integrated_lufs is None
    assert short.true_peak == pytest.approx(0.1, rel=0.02)


def test_more_channels_and_very_low_rates_are_refused():
    for rate_hz, channels in ((RATE, 3), (4_000, 1)):
        with pytest.raises(InputError, match="loudness"):
            LoudnessMeter(rate_hz, channels)


def test_a_gain_reaches_the_target_or_the_ceiling():
    sound = tone(-30, 3)
    gain = gain_to(measured(sound), -23.0, -1.0)
    assert measured(sound * np.float32(gain)).integrated_lufs == pytest.approx(-23.0, abs=0.01)
    capped = gain_to(measured(sound), 0.0, -6.0)
    assert 20 * math.log10(measured(sound * np.float32(capped)).true_peak) == pytest.approx(-6.0, abs=0.01)
    assert gain_to(Loudness(None, 0.3), -14.0, -1.0) == 1.0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize(("rate_hz", "channels"), [(44_100, 2), (32_000, 1)])
def test_ffmpeg_measures_the_same(tmp_path: Path, rate_hz, channels):
    generator = np.random.default_rng(1)
    loud = np.interp(np.arange(12 * rate_hz), np.arange(13) * rate_hz, generator.uniform(0.001, 0.3, 13))
    wander = np.cumsum(
        generator.normal(0, 0.2, (len(loud), channels)), axis=0
    )  # tones that hardly reach the top octave
    sound = (loud[:, None] * np.sin(0.2 * np.arange(len(loud))[:, None] + wander)).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", sound, rate_hz, subtype="FLOAT")
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", str(tmp_path / "noise.wav")]
    command += ["-af", "ebur128=peak=true:framelog=verbose", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr.rpartition("Summary:")[2]
    ours = measured(sound, rate_hz)
    assert ours.integrated_lufs == pytest.approx(float(re.search(r"I:\s+(\S+) LUFS", said)[1]), abs=0.06)
    peak = float(re.search(r"Peak:\s+(\S+) dBFS", said)[1])
    assert 20 * math.log10(ours.true_peak) == pytest.approx(peak, abs=0.15)
