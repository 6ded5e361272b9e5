"""What players of sustained instruments do between a note's onset and its end: swells, vibrato, scoops, a pitch that
wanders.

Written as controller and bend events of one channel. Vibrato is bent rather than left to the font's own (controller 1),
whose rate is the same in every note. Knows no notes but when they start.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.training.data.playing import BEND, CONTROL, Events

STEP_SECONDS = 0.02
_EXPRESSION = 11
_BEND_CENTER = 8192
_BEND_STEPS_PER_CENT = 8192 / 200
_SWELL_DEPTH = (0.0, 45.0)
_SWELL_PERIOD_SECONDS = (1.5, 6.0)
_WANDER_CENTS = (0.0, 12.0)
_WANDER_PERIOD_SECONDS = (0.8, 4.0)
_VIBRATO_SHARE = 0.75
_VIBRATO_HZ = (4.6, 6.8)
_SOLO_VIBRATO_CENTS, _SECTION_VIBRATO_CENTS = (8.0, 60.0), (2.0, 14.0)
_VIBRATO_DELAY_SECONDS, _VIBRATO_RISE_SECONDS = (0.08, 0.35), 0.25
_SCOOP_SHARE, _SCOOP_CENTS, _SCOOP_SECONDS = 0.5, (15.0, 70.0), 0.09


def expression_events(
    onset_seconds: NDArray[np.float64], duration_seconds: float, generator: np.random.Generator, *, is_solo: bool
) -> Events:
    """Draw a channel's expression.

    Args:
        onset_seconds: float64 [n], rising, when the channel's notes sound; one at least.
        duration_seconds: how long controllers move.
        generator: draws how strong each effect is and how it runs.
        is_solo: whether notes come one by one, so that vibrato can start late on each and some can be reached from
            below; otherwise it is that of a section, slight and over all notes.
    """
    times = np.arange(0.0, duration_seconds, STEP_SECONDS)
    depth = generator.uniform(*_SWELL_DEPTH)
    swell = 127 - depth * (0.5 - 0.5 * _wander(times, generator.uniform(*_SWELL_PERIOD_SECONDS), generator))
    cents = generator.uniform(*_WANDER_CENTS) * _wander(times, generator.uniform(*_WANDER_PERIOD_SECONDS), generator)
    has_vibrato = generator.random() < _VIBRATO_SHARE
    vibrato = has_vibrato * _vibrato(times, generator)
    if is_solo:
        note = np.maximum(np.searchsorted(onset_seconds, times + STEP_SECONDS / 2, side="right") - 1, 0)
        since = np.maximum(times - onset_seconds[note], 0.0)
        delay = generator.uniform(*_VIBRATO_DELAY_SECONDS)
        strength = generator.uniform(0.4, 1.0, len(onset_seconds)) * generator.uniform(*_SOLO_VIBRATO_CENTS)
        cents += vibrato * strength[note] * np.clip((since - delay) / _VIBRATO_RISE_SECONDS, 0, 1)
        scooped = generator.random(len(onset_seconds)) < generator.uniform(0, _SCOOP_SHARE)
        scoop = scooped * generator.uniform(*_SCOOP_CENTS, len(onset_seconds))
        cents -= scoop[note] * np.clip(1 - since / _SCOOP_SECONDS, 0, 1)
    else:
        cents += vibrato * generator.uniform(*_SECTION_VIBRATO_CENTS)
    bend = np.clip(_BEND_CENTER + cents * _BEND_STEPS_PER_CENT, 0, 16_383)
    return _changes(times, CONTROL, _EXPRESSION, swell).joined(_changes(times, BEND, 0, bend))


def _vibrato(times: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """A sine within -1..1 whose rate wanders by some percent."""
    hz = generator.uniform(*_VIBRATO_HZ) * (1 + 0.08 * _wander(times, 2.0, generator))
    return np.sin(2 * np.pi * np.cumsum(hz) * STEP_SECONDS)


def _wander(times: NDArray[np.float64], period_seconds: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A smooth random curve within -1..1: three slow sines at odd ratios."""
    curve = np.zeros(len(times))
    for ratio, share in ((1.0, 0.5), (0.47, 0.3), (2.3, 0.2)):
        curve += share * np.sin(2 * np.pi * (times / (period_seconds * ratio) + generator.random()))
    return curve


def _changes(times: NDArray[np.float64], kind: int, number: int, curve: NDArray[np.float64]) -> Events:
    """Events where a curve, in whole steps, changes."""
    value = np.rint(curve).astype(np.int64)
    rows = np.flatnonzero(np.diff(value, prepend=-1))
    return Events(times[rows], np.full(len(rows), kind), np.full(len(rows), number), value[rows])
