"""Listening to the voices of fonts before anything is learned from them: do they sound, and at the right pitch?

The pitch of a note is first the period at which its normalised autocorrelation comes near its maximum (McLeod and
Wyvill 2005, "A smarter way to find pitch"), searched from two octaves above the expected pitch to two below, so that a
voice in the wrong octave is known from one in tune. The upper partials of a piano are sharp, which draws that period
some 20 cents upwards; so where the fundamental itself is strong, its frequency counts.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.fluidsynth_player import GRID_FRAMES
from musictool.symbolic.soundfont import SoundFont
from musictool.training.data.playing import NOTE_ON, PLAYING_RATE_HZ, Synthesizer
from musictool.training.data.voices import HIGHEST_PITCH, LOWEST_PITCH, Preset, Voice, compass

MAX_CENTS = 35.0
MEASURED_PITCHES = range(45, 85, 3)  # where autocorrelation is sure of itself
DRUM_PITCHES = range(35, 60)
NOTE_SECONDS = 0.5
VELOCITY = 90
AUDIBLE_PEAK = 1e-3  # 60 dB below full scale
MIN_AUDIBLE = 12
_WINDOW_SECONDS = 0.12
_WINDOW_STARTS = (0.06, 0.18, 0.3)
_SEARCH_OCTAVES = 2
_CLARITY = 0.5
_NEAR_MAXIMUM = 0.9
_PARTIAL_CENTS = 90  # a partial lies within so much of its place
_PARTIAL_SHARE = 0.03  # of the magnitude of the strongest


def listen(font: SoundFont, presets: list[tuple[int, int]]) -> list[Voice]:
    """Play every pitch of some presets and measure.

    Args:
        font: the font.
        presets: (bank, program) that it has.

    Returns:
        A voice for each, with its fault if it has one.

    Raises:
        InputError: libfluidsynth cannot read the font.
        MissingError: it is not there.
    """
    synthesizer = Synthesizer(1)
    try:
        return [_listen(synthesizer, Preset(font.path, *key), font.preset_name(*key)) for key in presets]
    finally:
        synthesizer.close()


def _listen(synthesizer: Synthesizer, preset: Preset, name: str) -> Voice:
    synthesizer.select(0, preset)
    play = partial(_note, synthesizer)
    if preset.is_drum:
        audible = frozenset(pitch for pitch in range(128) if _is_audible(play(pitch)))
        is_silent = audible.isdisjoint(DRUM_PITCHES)
        return Voice(preset, name, None, None, audible, "is silent" if is_silent else "")
    sounds = {pitch: play(pitch) for pitch in range(LOWEST_PITCH, HIGHEST_PITCH + 1)}
    audible = frozenset(pitch for pitch, sound in sounds.items() if _is_audible(sound))
    lowest, highest = compass(preset.program)
    usable = [pitch for pitch in audible if lowest <= pitch <= highest]
    if len(usable) < min(MIN_AUDIBLE, highest - lowest):
        return Voice(preset, name, None, None, audible, "is silent")
    measured = [pitch for pitch in MEASURED_PITCHES if pitch in usable] or usable
    deviations = [cents for pitch in measured if (cents := deviation_cents(sounds[pitch], pitch)) is not None]
    if not deviations:
        return Voice(preset, name, None, None, audible, "has no clear pitch")
    middle, worst = float(np.median(deviations)), max(deviations, key=abs)
    wrong = sum(abs(cents) > MAX_CENTS for cents in deviations)
    fault = ""
    if abs(middle) > MAX_CENTS:
        fault = f"is out of tune by {middle:+.0f} cents"
    elif wrong * 6 > len(deviations):  # a pitch or two may be misheard: a chorus, a sample that speaks late
        fault = f"is out of tune at {wrong} of {len(deviations)} pitches, by {worst:+.0f} cents at worst"
    return Voice(preset, name, middle, worst, audible, fault)


def _note(synthesizer: Synthesizer, pitch: int) -> NDArray[np.float32]:
    """One note from silence, float32 [frames]."""
    frames = round(NOTE_SECONDS * PLAYING_RATE_HZ / GRID_FRAMES) * GRID_FRAMES
    sides = np.zeros((2, frames), np.float32)
    synthesizer.send(0, NOTE_ON, pitch, VELOCITY)
    synthesizer.render(sides, 0, frames)
    sound: NDArray[np.float32] = sides.mean(axis=0)
    synthesizer.silence()
    synthesizer.render(sides, 0, 4 * GRID_FRAMES)
    return sound


def _is_audible(sound: NDArray[np.float32]) -> bool:
    return float(np.abs(sound).max()) >= AUDIBLE_PEAK


def deviation_cents(sound: NDArray[np.float32], pitch: int, rate_hz: int = PLAYING_RATE_HZ) -> float | None:
    """How far a note is from where it should be.

    Args:
        sound: float32 [frames], the note from its onset on.
        pitch: what it should be.
        rate_hz: of the sound.

    Returns:
        Cents, the median over some windows; 1200 and more for a wrong octave; None where no period is clear.
    """
    expected_hz = 440 * 2 ** ((pitch - 69) / 12)
    length = max(round(_WINDOW_SECONDS * rate_hz), round(6 * rate_hz / expected_hz))
    windows = (sound[round(start * rate_hz) :][:length] for start in _WINDOW_STARTS)
    periods = [period for window in windows if (period := _period(window, rate_hz / expected_hz)) is not None]
    if not periods:
        return None
    spectrum = _Spectrum(sound[round(_WINDOW_STARTS[0] * rate_hz) :], rate_hz)
    hz = rate_hz / float(np.median(periods))
    # A harp's strong octave passes for its period; but a fundamental and a twelfth are no partials of the octave.
    if hz > 1.5 * expected_hz and spectrum.has_partial(hz / 2) and spectrum.has_partial(hz * 3 / 2):
        hz /= 2
    return 1200 * math.log2(spectrum.partial_hz(hz) / expected_hz)


class _Spectrum:
    """Where the partials of a note are.

    Args:
        sound: float32 [frames].
        rate_hz: of the sound.
    """

    def __init__(self, sound: NDArray[np.float32], rate_hz: int) -> None:
        self._power = np.square(np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 4 * len(sound))))
        self._threshold = float(self._power.max()) * _PARTIAL_SHARE**2
        self._hz_a_bin = rate_hz / (4 * len(sound))

    def has_partial(self, near_hz: float) -> bool:
        """Whether there is a strong partial."""
        low, high = self._around(near_hz)
        return float(self._power[low:high].max()) >= self._threshold

    def partial_hz(self, near_hz: float) -> float:
        """The middle of the power about a frequency, which vibrato does not move; that frequency where it is weak."""
        low, high = self._around(near_hz)
        power = self._power[low:high]
        if not self.has_partial(near_hz):
            return near_hz
        return float((np.arange(low, high) * power).sum() / power.sum()) * self._hz_a_bin

    def _around(self, hz: float) -> tuple[int, int]:
        widest = 2 ** (_PARTIAL_CENTS / 1200)
        low = min(math.floor(hz / widest / self._hz_a_bin), len(self._power) - 1)
        return low, max(math.ceil(hz * widest / self._hz_a_bin), low) + 1


def _period(window: NDArray[np.float32], expected: float) -> float | None:
    """The period of a window in frames, within two octaves of the expected one; None where there is none."""
    correlation = _normalised_autocorrelation(window - window.mean())
    shortest = max(int(expected / 2**_SEARCH_OCTAVES), 2)
    longest = min(int(expected * 2**_SEARCH_OCTAVES * 1.06), len(correlation) - 2)
    inner = correlation[1:-1]
    is_peak = (inner > correlation[:-2]) & (inner >= correlation[2:]) & (inner > 0)
    peaks = np.flatnonzero(is_peak) + 1
    peaks = peaks[(peaks >= shortest) & (peaks <= longest)]
    if not len(peaks) or correlation[peaks].max() < _CLARITY:
        return None
    first = int(peaks[np.argmax(correlation[peaks] >= _NEAR_MAXIMUM * correlation[peaks].max())])
    before, at, after = correlation[first - 1 : first + 2].tolist()
    return first + 0.5 * (before - after) / (before - 2 * at + after)  # the top of a parabola


def _normalised_autocorrelation(window: NDArray[np.float32]) -> NDArray[np.float64]:
    """2 * sum(x[i] x[i+t]) / sum(x[i]**2 + x[i+t]**2) over lags t up to two thirds of a window, float64."""
    n = len(window)
    spectrum = np.fft.rfft(window.astype(np.float64), 2 * n)
    product = np.fft.irfft(np.abs(spectrum) ** 2)[:n]
    energy = np.concatenate([[0.0], np.cumsum(window.astype(np.float64) ** 2)])
    lags = np.arange(n)
    both = energy[n - lags] + energy[n] - energy[lags]
    return (2 * product / np.maximum(both, 1e-12))[: 2 * n // 3]
