"""Where bars begin: time signatures laid out over a piece. Positions are quarter notes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Score, TimeSignature

COMMON_TIME = TimeSignature(0.0, 4, 4)


def metre_of(score: Score) -> tuple[TimeSignature, ...]:
    """The time signatures by rising position, the last of several at one place, with common time until the first."""
    by_position = {signature.quarter: signature for signature in sorted(score.time_signatures, key=lambda s: s.quarter)}
    by_position.setdefault(0.0, COMMON_TIME)
    return tuple(by_position[position] for position in sorted(by_position))


def bar_starts(score: Score, end_quarter: float) -> NDArray[np.float64]:
    """Starts in quarters, float64 [b], of the bars that begin before `end_quarter`.

    A time signature begins a bar wherever it stands, so the bar before it may be short.
    """
    signatures = metre_of(score)
    ends = [signature.quarter for signature in signatures[1:]] + [end_quarter]
    spans = [
        np.arange(signature.quarter, min(end, end_quarter), signature.bar_quarters)
        for signature, end in zip(signatures, ends, strict=True)
        if signature.quarter < end_quarter
    ]
    return np.concatenate(spans) if spans else np.zeros(0)
