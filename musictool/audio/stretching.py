"""Sound slower or faster at its pitch, and higher or lower at its tempo.

The work is done by Signalsmith Stretch, through python-stretch, the extra `stretch`. A moment t of a sound comes out at
t times the ratio, whatever the sound is: two parts that went together do so afterwards. The same sound gives the same
bytes. Knows samples, not files.
"""

from __future__ import annotations

from types import ModuleType

import numpy as np
import soxr
from numpy.typing import NDArray

from musictool.errors import MissingError

Samples = NDArray[np.float32]

_SEED = 0


def load_stretcher() -> ModuleType:
    """The module that binds Signalsmith Stretch.

    Raises:
        MissingError: python-stretch is not installed.
    """
    try:
        from python_stretch import Signalsmith
    except ImportError as error:
        raise MissingError(
            "stretching sound needs python-stretch",
            hint="pip install 'musictool[stretch]'",
            code="missing-dependency",
        ) from error
    return Signalsmith


def stretched(samples: Samples, rate_hz: int, ratio: float) -> Samples:
    """Make a sound longer.

    Args:
        samples: float32 [n, C].
        rate_hz: of the samples.
        ratio: how many times as long it gets.

    Returns:
        float32 [round(n * ratio), C]; its peaks may be higher than they were.

    Raises:
        MissingError: python-stretch is not installed.
    """
    if ratio == 1 or not len(samples):
        return samples
    machine = load_stretcher().Stretch(_SEED)
    machine.preset(samples.shape[1], float(rate_hz))
    machine.timeFactor = 1 / ratio
    return _fitted(machine.process(np.ascontiguousarray(samples.T)).T, round(len(samples) * ratio))


def shifted(samples: Samples, rate_hz: int, semitones: float) -> Samples:
    """Move a sound by semitones, float32 [n, C] in and out: stretched, then played at another rate, which is exact.

    Raises:
        MissingError: python-stretch is not installed.
    """
    if not semitones or not len(samples):
        return samples
    ratio = 2 ** (semitones / 12)
    longer = stretched(samples, rate_hz, ratio)
    return _fitted(soxr.resample(longer, rate_hz * ratio, float(rate_hz), quality="HQ"), len(samples))


def _fitted(samples: Samples, count: int) -> Samples:
    """Samples [n, C] cut, or followed by silence, to a length."""
    missing = max(0, count - len(samples))
    return np.ascontiguousarray(np.pad(samples, ((0, missing), (0, 0)))[:count], np.float32)
