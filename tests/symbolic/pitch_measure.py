"""Measuring the pitch of a sound without being told what it should be."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LOWEST_HZ, HIGHEST_HZ = 25.0, 5000.0
AS_GOOD_AS_BEST = 0.97  # a shorter period that repeats this well is the period
LONG_LAG_FRAMES = 1500  # the period is refined over as many periods as fit


def measured_pitch_hz(sound: NDArray[np.float32], rate_hz: int) -> float:
    """The frequency that a sound repeats with, by its normalised autocorrelation; nan where it does not repeat."""
    likeness = _likeness(sound)
    shortest, longest = math.floor(rate_hz / HIGHEST_HZ), math.ceil(rate_hz / LOWEST_HZ)
    part = likeness[shortest:longest]
    peaks = np.flatnonzero((part[1:-1] >= part[:-2]) & (part[1:-1] > part[2:])) + 1 + shortest
    if not len(peaks):
        return math.nan
    tops = np.array([_parabola(likeness, peak)[1] for peak in peaks])
    peak = int(peaks[np.argmax(tops >= AS_GOOD_AS_BEST * tops.max())])
    period = _parabola(likeness, peak)[0]
    periods = 1
    while (periods + 1) * period < LONG_LAG_FRAMES:
        near = round((periods + 1) * period)
        peak = near - 3 + int(likeness[near - 3 : near + 4].argmax())
        place, top = _parabola(likeness, peak)
        if abs(place - (periods + 1) * period) > 2.5 or top < 0.5:
            break
        periods += 1
        period = place / periods
    return rate_hz / period


def partials(sound: NDArray[np.float32], rate_hz: int, within_db: float = 30.0) -> list[tuple[float, float]]:
    """The spectrum's peaks as (frequency in Hz, level in dB below the strongest), strongest first."""
    frames = len(sound)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(frames), 4 * frames))
    bin_hz = rate_hz / (4 * frames)
    reach = 16  # bins of one partial's main lobe, doubled
    around = np.lib.stride_tricks.sliding_window_view(np.pad(spectrum, reach), 2 * reach + 1).max(1)
    peaks = np.flatnonzero((spectrum == around) & (spectrum > spectrum.max() * 10 ** (-within_db / 20)))
    found = []
    for peak in peaks[(peaks > 0) & (peaks < len(spectrum) - 1)]:
        place, _ = _parabola(np.log(spectrum + 1e-12), int(peak))
        found.append((place * bin_hz, 20 * math.log10(spectrum[peak] / spectrum.max())))
    return sorted(found, key=lambda partial: -partial[1])


def cents(frequency_hz: float, reference_hz: float) -> float:
    """The interval from a reference up to a frequency."""
    return 1200 * math.log2(frequency_hz / reference_hz)


def key_hz(key: float) -> float:
    """The equally tempered frequency of a MIDI key."""
    return 440.0 * 2 ** ((key - 69) / 12)


def _likeness(sound: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much a sound looks like itself at every lag, float64 [n], 1 at lag 0."""
    x = (sound - sound.mean()).astype(np.float64)
    product = np.fft.irfft(np.abs(np.fft.rfft(x, 2 * len(x))) ** 2)[: len(x)]
    energy = np.concatenate([[0.0], np.cumsum(x**2)])
    lags = np.arange(len(x))
    return product / np.sqrt(np.maximum(energy[len(x) - lags] * (energy[-1] - energy[lags]), 1e-20))


def _parabola(values: NDArray[np.float64], peak: int) -> tuple[float, float]:
    """Place and height of the top of the parabola through a peak and its neighbours."""
    a, b, c = (float(value) for value in values[peak - 1 : peak + 2])
    bend = a - 2 * b + c
    if bend >= 0:
        return float(peak), b
    shift = 0.5 * (a - c) / bend
    return peak + shift, b - 0.25 * (a - c) * shift
