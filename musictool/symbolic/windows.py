"""Statistics of the rows that fall into each of many windows of time, worked out for all windows at once.

Rows are sorted in time, so that a window's are neighbours and its sums are differences of sums from the first row on;
nothing here loops over windows or rows. Knows nothing of notes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

LEAST_SECONDS = 0.01  # what ends as it begins is taken to last this long


class Windows(NamedTuple):
    """Stretches of time: float64 [F] starts and ends in seconds, neither ever falling, and each end after its start."""

    start: NDArray[np.float64]
    end: NDArray[np.float64]


class Members:
    """Which rows of a table belong to which window, where rows in time make a window's neighbours.

    Args:
        first, last: int64 [F], a window's first row and the one after its last; it has none where that is no later.

    Attributes:
        first, count: int64 [F], a window's first row and how many it has.
    """

    def __init__(self, first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
        self.first = first
        self.count = np.maximum(last - first, 0)
        self._at_least_one = np.maximum(self.count, 1)

    @cached_property
    def window(self) -> NDArray[np.int64]:
        """Of each pair of a window and a row of it, window after window, the window; int64 [p]."""
        return np.repeat(np.arange(len(self.first)), self.count)

    @cached_property
    def row(self) -> NDArray[np.int64]:
        """And the row, int64 [p]."""
        return np.arange(len(self.window)) + np.repeat(self.first - self._before, self.count)

    @cached_property
    def _before(self) -> NDArray[np.int64]:
        """How many pairs the windows before have, [F]."""
        return np.cumsum(self.count) - self.count

    def after(self, skipped: int) -> Members:
        """The rows of each window but the first few."""
        return Members(self.first + skipped, self.first + self.count)

    @cached_property
    def is_any(self) -> NDArray[np.bool_]:
        return self.count > 0

    def total(self, values: NDArray) -> NDArray:
        """Sums [F, ...] of values [n, ...]."""
        sums = np.zeros((len(values) + 1, *values.shape[1:]), np.result_type(values, np.int64))
        np.cumsum(values, axis=0, out=sums[1:])
        first = np.minimum(self.first, len(values))
        return sums[first + self.count] - sums[first]

    def mean(self, values: NDArray) -> NDArray:
        """Means [F, ...] of values [n, ...]."""
        return self.total(values) / self._at_least_one.reshape(-1, *(1,) * (values.ndim - 1))

    def quantiles(self, values: NDArray[np.int64], shares: Sequence[float]) -> list[NDArray]:
        """For each share, [F] values below which that share of each window's lie; values [n] of 0..127."""
        ranked = np.append(np.sort(self.window * 128 + values[self.row]) % 128, 0)
        last = np.maximum(self.count - 1, 0)
        return [ranked[self._before + np.rint(share * last).astype(np.int64)] * self.is_any for share in shares]

    def deviation(self, values: NDArray) -> NDArray[np.float64]:
        """Standard deviations [F] of values [n]."""
        away = values[self.row] - self.mean(values)[self.window]
        return np.sqrt(np.bincount(self.window, away * away, len(self.count)) / self._at_least_one)

    def least(self, values: NDArray) -> NDArray[np.float64]:
        return self._extreme(np.minimum, values)

    def most(self, values: NDArray) -> NDArray[np.float64]:
        return self._extreme(np.maximum, values)

    def histogram(self, bins: NDArray, width: int) -> NDArray[np.float64]:
        """Counts [F, width] of bin numbers [n]."""
        return histogram(self.window, bins[self.row], len(self.count), width)

    def sampled(self, values: NDArray, points: int) -> NDArray[np.float64]:
        """Values [F, points] at even steps through each window's rows; zeros where there are none."""
        step = ((np.arange(points) + 0.5) / points * self.count[:, None]).astype(np.int64)
        return self._at(values, self.first[:, None] + step) * self.is_any[:, None]

    def first_of(self, values: NDArray) -> NDArray[np.float64]:
        return self._at(values, self.first) * self.is_any

    def last_of(self, values: NDArray) -> NDArray[np.float64]:
        return self._at(values, self.first + self.count - 1) * self.is_any

    def _at(self, values: NDArray, row: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.append(values, 0.0)[np.minimum(row, len(values))]

    def _extreme(self, choose: np.ufunc, values: NDArray) -> NDArray[np.float64]:
        found = np.zeros(len(self.count))
        if len(self.row):
            found[self.is_any] = choose.reduceat(values[self.row], self._before[self.is_any])
        return found


def overlaps(
    onset: NDArray[np.float64], offset: NDArray[np.float64], windows: Windows
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Which of n stretches of time reach into which windows, and for how long.

    Args:
        onset, offset: float64 [n] seconds, in any order.
        windows: F windows.

    Returns:
        Pairs: stretches, windows and seconds in common, each [p].
    """
    offset = np.maximum(offset, onset + LEAST_SECONDS)
    first = np.searchsorted(windows.end, onset, side="right")
    pairs = Members(first, np.searchsorted(windows.start, offset, side="left"))
    stretch, window = pairs.window, pairs.row
    seconds = np.minimum(offset[stretch], windows.end[window]) - np.maximum(onset[stretch], windows.start[window])
    return stretch, window, seconds


def histogram(window: NDArray, bins: NDArray, count: int, width: int, weight: NDArray | None = None) -> NDArray:
    """Sums [count, width] of weights, or counts, of pairs of a window and a bin, all [p]."""
    sums = np.bincount(window * width + bins, weight, count * width)
    return sums.reshape(count, width).astype(np.float64, copy=False)


def soft_histogram(
    window: NDArray, place: NDArray, count: int, width: int, weight: NDArray | None = None
) -> NDArray[np.float64]:
    """As `histogram`, of places on a scale of 0..width - 1; each is shared by the two bins it lies between."""
    place = np.clip(place, 0, width - 1)
    low = np.minimum(place.astype(np.int64), width - 2)
    high_share = place - low
    weight = np.ones(1) if weight is None else weight
    bins, shares = np.concatenate([low, low + 1]), np.concatenate([weight * (1 - high_share), weight * high_share])
    return histogram(np.concatenate([window, window]), bins, count, width, shares)


def shares_of(counts: NDArray) -> NDArray[np.float64]:
    """Proportions of each row of [F, width]."""
    total = counts.sum(axis=1, keepdims=True)
    return counts / np.where(total > 0, total, 1.0)


def entropy_of(shares: NDArray) -> NDArray[np.float64]:
    """Entropies [F] of rows [F, width] of proportions, 1 for an even row."""
    return -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(axis=1) / np.log(shares.shape[1])
