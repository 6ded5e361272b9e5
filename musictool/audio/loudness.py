"""How loud a sound is: integrated loudness and true peak, block by block in bounded memory.

Loudness as ITU-R BS.1770-5 and EBU R128 have it: a filter like the ear's, power in stretches of 400 ms that overlap by
three quarters, and a mean over those that lie neither under -70 LUFS nor more than 10 LU under the mean of the others.
The true peak is the highest magnitude between the samples, found at four times their rate. For mono and stereo: the
channels behind a listener, which weigh more, are unknown here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray
from scipy.signal import sosfilt

from musictool.errors import InputError

LEAST_RATE_HZ = 8_000
_STEPS_A_STRETCH = 4  # of 100 ms
_ABSOLUTE_GATE_LUFS, _RELATIVE_GATE_LU = -70.0, -10.0
_OFFSET_LUFS = -0.691
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Loudness:
    """How loud a sound is.

    Attributes:
        integrated_lufs: of all of it; None where it is silent or shorter than 400 ms.
        true_peak: the highest magnitude; full scale is 1.
    """

    integrated_lufs: float | None
    true_peak: float


class LoudnessMeter:
    """Takes in sound; wherever blocks end makes no difference.

    Args:
        rate_hz, channels: of the sound.

    Raises:
        InputError: more than two channels, or a rate so low that the ear's filter has no place in it.
    """

    def __init__(self, rate_hz: int, channels: int) -> None:
        if channels > 2 or rate_hz < LEAST_RATE_HZ:
            raise InputError(
                f"loudness is not measured of {channels} channels at {rate_hz} Hz",
                hint=f"bring the sound to one or two channels and {LEAST_RATE_HZ} Hz or more: mtk data ingest",
            )
        self._filter = _ear(rate_hz)
        self._state = np.zeros((len(self._filter), 2, channels))
        self._step = round(rate_hz / 10)
        self._rest = np.zeros(0)
        self._steps: list[NDArray[np.float64]] = []
        self._oversampler = soxr.ResampleStream(rate_hz, _OVERSAMPLING * rate_hz, channels, dtype="float32")
        self._silence = np.zeros((1, channels), np.float32)
        self._peak = 0.0

    def add(self, block: NDArray[np.float32]) -> None:
        """Take in a block, float32 [n, C]."""
        if not len(block):
            return
        heard, self._state = sosfilt(self._filter, block, axis=0, zi=self._state)
        power = np.concatenate([self._rest, np.square(heard).sum(axis=1)])
        whole = len(power) - len(power) % self._step
        self._steps.append(power[:whole].reshape(-1, self._step).sum(axis=1))
        self._rest = power[whole:]
        self._see(block)
        self._see(self._oversampler.resample_chunk(np.ascontiguousarray(block, np.float32)))

    def finish(self) -> Loudness:
        """The figures of all that was taken in."""
        self._see(self._oversampler.resample_chunk(self._silence, last=True))
        steps = np.concatenate([np.zeros(0), *self._steps])
        sums = np.convolve(steps, np.ones(_STEPS_A_STRETCH), "valid") if len(steps) >= _STEPS_A_STRETCH else steps[:0]
        return Loudness(_gated(sums / (_STEPS_A_STRETCH * self._step)), self._peak)

    def _see(self, samples: NDArray[np.float32]) -> None:
        self._peak = max(self._peak, float(np.abs(samples).max(initial=0.0)))


def gain_to(loudness: Loudness, target_lufs: float, ceiling_dbtp: float) -> float:
    """The factor that brings a sound to a loudness, or as near as its true peak lets it; 1 where it has no loudness."""
    if loudness.integrated_lufs is None or not loudness.true_peak:
        return 1.0
    wanted: float = 10 ** ((target_lufs - loudness.integrated_lufs) / 20)
    return min(wanted, 10 ** (ceiling_dbtp / 20) / loudness.true_peak)


def _gated(power: NDArray[np.float64]) -> float | None:
    """The loudness of stretches of so much mean power, float64 [n], by both gates."""
    power = power[_lufs(power) > _ABSOLUTE_GATE_LUFS]
    if not len(power):
        return None
    power = power[_lufs(power) > _lufs(power.mean()) + _RELATIVE_GATE_LU]
    return float(_lufs(power.mean()))


def _lufs(power: NDArray[np.float64] | np.floating) -> NDArray[np.float64]:
    return _OFFSET_LUFS + 10 * np.log10(np.maximum(power, 1e-30))


def _ear(rate_hz: int) -> NDArray[np.float64]:
    """The filter of BS.1770 at any rate, as two second-order sections: a shelf for the head, and a high pass.

    The standard gives coefficients for 48 kHz; these analogue prototypes, by the bilinear transform, have them there.
    """
    k = np.tan(np.pi * 1681.974450955533 / rate_hz)
    q, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    shelf = np.array(
        [
            *(high + band * k / q + k * k, 2 * (k * k - high), high - band * k / q + k * k),
            *(1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k),
        ]
    )
    k, q = np.tan(np.pi * 38.13547087602444 / rate_hz), 0.5003270373238773
    high_pass = np.array([1, -2, 1, 1 + k / q + k * k, 2 * (k * k - 1), 1 - k / q + k * k])
    shelf /= shelf[3]
    high_pass[3:] /= high_pass[3]
    return np.stack([shelf, high_pass])
