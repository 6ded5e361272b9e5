"""Sound cut into stretches of equal length, as blocks of any size come in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray


def stretches(blocks: Iterable[NDArray[np.float32]], samples: int) -> Iterator[NDArray[np.float32]]:
    """Cut sound into stretches without overlap.

    Args:
        blocks: float32 [n] each, of any length.
        samples: of a stretch.

    Yields:
        float32 [samples]; the last one, of what is left, may be shorter but not empty.
    """
    pending: list[NDArray[np.float32]] = []
    held = 0
    for block in blocks:
        pending.append(block)
        held += len(block)
        if held < samples:
            continue
        joined = np.concatenate(pending)
        whole = held - held % samples
        yield from joined[:whole].reshape(-1, samples)
        pending, held = [joined[whole:]], held - whole
    if held:
        yield np.concatenate(pending)


def padded_to_hop(blocks: Iterable[NDArray[np.float32]], hop_samples: int) -> Iterator[NDArray[np.float32]]:
    """Sound with zeros after its end up to the next multiple of a hop; a whole hop of them if it ends on one (MT3)."""
    count = 0
    for block in blocks:
        count += len(block)
        yield block
    yield np.zeros(hop_samples - count % hop_samples, np.float32)


def stretches_in_context(
    blocks: Iterable[NDArray[np.float32]], samples: int, around: int
) -> Iterator[NDArray[np.float32]]:
    """Cut sound into stretches, each with what lies on both sides of it.

    Args:
        blocks: float32 [n] each, of any length.
        samples: of a stretch.
        around: samples on each side; silence before the start and after the end.

    Yields:
        float32 [around + samples + around]; the last one, of what is left, may be shorter but holds something.
    """
    silence = np.zeros(around, np.float32)
    known = silence
    for block in stretches(chain(blocks, [silence]), samples):
        known = np.concatenate([known, block])
        while len(known) >= samples + 2 * around:
            yield known[: samples + 2 * around]
            known = known[samples:]
    if len(known) > 2 * around:
        yield known
