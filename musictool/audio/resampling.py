"""Sound at another rate or in other channels, block by block and of an exact length.

Knows samples, not files.
"""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray


def resampled_length(frames: int, from_hz: int, to_hz: int) -> int:
    """How many samples of a channel there are at another rate: as many as have begun."""
    return -(-frames * to_hz // from_hz)


class Resampler:
    """Sound at another rate. However it is cut into blocks, the same comes out; at the same rate, what came in.

    Args:
        from_hz, to_hz: the rates.
        channels: C.
    """

    def __init__(self, from_hz: int, to_hz: int, channels: int) -> None:
        self._from_hz, self._to_hz = from_hz, to_hz
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, channels, dtype="float32")
        self._channels = channels
        self._taken = 0
        self._given = 0

    def push(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take in a block, float32 [n, C]; what it adds to the result, float32 [m, C], perhaps nothing yet."""
        self._taken += len(block)
        made = block if self._stream is None else self._stream.resample_chunk(block)
        self._given += len(made)
        return made

    def finish(self, length: int | None = None) -> NDArray[np.float32]:
        """The rest, float32 [m, C], so that all together is as long as asked, or as `resampled_length` has it."""
        wanted = resampled_length(self._taken, self._from_hz, self._to_hz) if length is None else length
        rest = np.zeros((0, self._channels), np.float32)
        if self._stream is not None:
            silence = np.zeros((2 * -(-self._from_hz // self._to_hz), self._channels), np.float32)
            rest = self._stream.resample_chunk(silence, last=True)
        rest = rest[: max(0, wanted - self._given)]
        missing = max(0, wanted - self._given - len(rest))
        return np.concatenate([rest, np.zeros((missing, self._channels), np.float32)])


def remixed(block: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """A block in another number of channels, each of which is then the mean of all there were.

    So a single channel is doubled, and two are mixed; none is dropped, and nothing gets louder.

    Args:
        block: float32 [n, C].
        channels: wanted; a block that has as many is left as it is.
    """
    if block.shape[1] == channels:
        return block
    mean = block if block.shape[1] == 1 else block.mean(axis=1, keepdims=True, dtype=np.float32)
    return np.repeat(mean, channels, axis=1)
