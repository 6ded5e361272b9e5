"""Peaks turned down: a gain that is low enough wherever the true peak would go over a ceiling, and recovers slowly.

The gain runs in straight lines between the borders of short windows, which lie on a grid from the first sample on; at
each border it is low enough for the windows on both sides, so that it is down before a peak comes. All channels get the
same gain. Block by block in bounded memory; knows samples, not files.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import soxr
from numpy.typing import NDArray

Samples = NDArray[np.float32]

WINDOW_SECONDS, RECOVERY_SECONDS = 0.005, 0.1
_OVERSAMPLING = 4
_RECOVERED = 0.9999


class Limiter:
    """Takes in sound and gives it back limited; wherever blocks end makes no difference.

    Args:
        rate_hz, channels: of the sound.
        ceiling: the highest true peak; full scale is 1.
    """

    def __init__(self, rate_hz: int, channels: int, ceiling: float) -> None:
        self._ceiling = ceiling
        self._window = max(1, round(WINDOW_SECONDS * rate_hz))
        self._recovery = 1 - math.exp(-WINDOW_SECONDS / RECOVERY_SECONDS)
        self._oversampler = soxr.ResampleStream(rate_hz, _OVERSAMPLING * rate_hz, channels, dtype="float32")
        self._waiting = np.zeros((0, channels), np.float32)
        self._peaks = np.zeros(0, np.float32)  # of what is waiting, between its samples
        self._gain = 1.0  # at the left border of what is waiting
        self._last_need = 1.0  # of the window before it

    def push(self, block: Samples) -> Samples:
        """Take in a block, float32 [n, C]; what can be told now, float32 [m, C]."""
        self._hold(block, self._oversampler.resample_chunk(np.ascontiguousarray(block, np.float32)))
        known = min(len(self._waiting) // self._window, len(self._peaks) // (_OVERSAMPLING * self._window))
        return self._limited(max(known - 1, 0))

    def finish(self) -> Samples:
        """The rest, float32 [m, C]; all together is as long as what came in."""
        count, channels = self._waiting.shape
        silence = np.zeros((-count % self._window + self._window, channels), np.float32)
        self._hold(silence, self._oversampler.resample_chunk(silence, last=True))
        missing = _OVERSAMPLING * len(self._waiting) - len(self._peaks)
        self._peaks = np.pad(self._peaks, (0, max(missing, 0)))
        return self._limited(len(self._waiting) // self._window - 1)[:count]

    def _hold(self, block: Samples, between: Samples) -> None:
        self._waiting = np.concatenate([self._waiting, block])
        self._peaks = np.concatenate([self._peaks, np.abs(between).max(axis=1)])

    def _limited(self, count: int) -> Samples:
        """Give so many windows; the one after them is known, too."""
        window, channels = self._window, self._waiting.shape[1]
        if not count:
            return self._waiting[:0]
        need = self._needs(count + 1)
        borders = [min(self._gain, self._last_need, need[0])]
        for left, right in pairwise(need):
            recovered = borders[-1] + (1 - borders[-1]) * self._recovery
            borders.append(min(left, right, recovered if recovered < _RECOVERED else 1.0))
        self._gain, self._last_need = borders[-1], need[-2]
        sound, self._waiting = np.split(self._waiting, [count * window])
        self._peaks = self._peaks[_OVERSAMPLING * count * window :]
        ramp = np.arange(window) / window
        line = np.asarray(borders)
        gains = (line[:-1, None] + np.diff(line)[:, None] * ramp).astype(np.float32)
        limited: Samples = (sound.reshape(count, window, channels) * gains[:, :, None]).reshape(-1, channels)
        return limited

    def _needs(self, count: int) -> list[float]:
        """How high the gain may be in each of the first windows."""
        window = self._window
        between = self._peaks[: _OVERSAMPLING * count * window].reshape(count, -1).max(axis=1)
        samples = np.abs(self._waiting[: count * window]).reshape(count, -1).max(axis=1)
        highest = np.maximum(between, samples).astype(np.float64)
        needs: list[float] = np.minimum(1.0, self._ceiling / np.maximum(highest, self._ceiling)).tolist()
        return needs
