"""Which item of a corpus an example is made of: each epoch a new permutation, known from the seed alone.

Knows nothing of what the items are.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def item_at(index: int, count: int, seed: int) -> int:
    """The item that example `index` takes.

    Examples [e * count, (e + 1) * count) take every item once, in an order drawn from (seed, e); so an example's item
    does not depend on which examples were asked for before.

    Args:
        index: of the example, 0, 1, 2, … over the whole run.
        count: of items, 1 at least.
        seed: of the run.

    Returns:
        A number of 0..count-1.
    """
    epoch, place = divmod(index, count)
    return int(_permutation(count, seed, epoch)[place])


@lru_cache(maxsize=8)
def _permutation(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """One epoch's order, int64 [count]; a few are kept, for corpora that are read side by side."""
    return np.random.default_rng((seed, epoch)).permutation(count)
