"""Scores by name, and their means over many items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

Scores = dict[str, "float | None"]


def mean_of(items: Iterable[Mapping[str, float | None]], names: Sequence[str]) -> Scores:
    """The mean of each score over some items; those without a value are left out of it.

    Args:
        items: scores of each.
        names: which scores.
    """
    items = list(items)
    means: Scores = {}
    for name in names:
        values = [value for item in items if (value := item[name]) is not None]
        means[name] = float(np.mean(values)) if values else None
    return means
