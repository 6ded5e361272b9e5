"""Where a sound is loud for long: root mean square over frames that move on in small hops.

Knows samples, not files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PowerMeter:
    """Mean power in hops, as blocks of any size come in.

    Args:
        hop_samples: of a hop.
    """

    def __init__(self, hop_samples: int) -> None:
        self._hop = hop_samples
        self._rest = np.zeros(0)
        self._hops: list[NDArray[np.float64]] = []

    def add(self, block: NDArray[np.float32]) -> None:
        """Take in a block, float32 [n, C]; channels count alike."""
        power = np.concatenate([self._rest, np.square(block, dtype=np.float64).mean(axis=1)])
        whole = len(power) - len(power) % self._hop
        self._hops.append(power[:whole].reshape(-1, self._hop).mean(axis=1))
        self._rest = power[whole:]

    @property
    def power(self) -> NDArray[np.float64]:
        """Of each whole hop, float64 [hops]; what is left at the end is none."""
        return np.concatenate([np.zeros(0), *self._hops])


def loud_spans(power: NDArray[np.float64], frame_hops: int, threshold: float) -> list[tuple[int, int]]:
    """The spans that loud frames cover; frames that touch or overlap are one span.

    Args:
        power: float64 [hops], mean squares.
        frame_hops: how many hops a frame has; there is a frame at every hop, and one of all hops where there are fewer.
        threshold: of a loud frame's root mean square.

    Returns:
        First hop and the one after the last, of each span in order.
    """
    frame = min(frame_hops, len(power))
    if not frame:
        return []
    total = np.concatenate([[0.0], np.cumsum(power)])
    is_loud = (total[frame:] - total[:-frame]) / frame >= threshold**2
    steps = np.zeros(len(power) + 1, np.int64)
    np.add.at(steps, np.flatnonzero(is_loud), 1)
    np.add.at(steps, np.flatnonzero(is_loud) + frame, -1)
    is_covered = np.concatenate([[False], np.cumsum(steps[:-1]) > 0, [False]])
    edges = np.flatnonzero(np.diff(is_covered.astype(np.int8)))
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
