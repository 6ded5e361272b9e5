"""What a style transfer has to be better than: nothing, another piece, and a rule.

The rule swings or straightens, moves loudness to what the target style has, and each hand by octaves towards where the
target style has it. It knows no more of the styles than their means. All works on note tables; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes

MIDDLE_KEY = 60  # left of it is the left hand
SWUNG, STRAIGHT = 0.62, 0.5  # where in a beat its second half begins
SWINGING_STYLES = frozenset({"jazz"})
BEAT_SECONDS = np.geomspace(0.4, 0.8, 41)
PHASES = 16
NEAR_SECONDS = 0.03
STRETCH_SECONDS = 8.0  # for which one beat is found
LEAST_ONSETS = 8


class StyleMeans(NamedTuple):
    """What the rule knows of a style: loudness and its spread, and the mean pitch of each hand."""

    velocity: float
    velocity_spread: float
    left_pitch: float
    right_pitch: float


def style_means(pieces: Sequence[Notes]) -> StyleMeans:
    """Measure a style on its pieces."""
    pitch = np.concatenate([notes.pitch for notes in pieces])
    velocity = np.concatenate([notes.velocity for notes in pieces])
    return StyleMeans(
        float(velocity.mean()), float(velocity.std()), *(float(pitch[hand].mean()) for hand in _hands(pitch))
    )


def by_rule(notes: Notes, source: str, target: str, means: StyleMeans) -> Notes:
    """A piece of one style moved towards another by the rule.

    Args:
        notes: the piece.
        source, target: names of the styles; those that swing are known by name.
        means: of the target style.
    """
    if not len(notes):
        return notes
    before, after = (SWUNG if style in SWINGING_STYLES else STRAIGHT for style in (source, target))
    velocity = (notes.velocity - notes.velocity.mean()) / max(float(notes.velocity.std()), 1.0)
    velocity = np.clip(np.rint(means.velocity + means.velocity_spread * velocity), 1, 127)
    pitch = notes.pitch.astype(int)
    for hand, wanted in zip(_hands(pitch), (means.left_pitch, means.right_pitch), strict=True):
        if hand.any():
            pitch[hand] += 12 * round((wanted - pitch[hand].mean()) / 12)
    moved = notes.with_columns(velocity=velocity.astype(np.int16), pitch=pitch.astype(np.int16))
    return with_halves_moved(moved, before, after) if before != after else moved


def with_halves_moved(notes: Notes, before: float, after: float) -> Notes:
    """Notes with the second half of each beat begun at another place: `before` and `after` are shares of a beat."""
    onset, offset = notes.onset_seconds.copy(), notes.offset_seconds.copy()
    stretches = (notes.onset_seconds / STRETCH_SECONDS).astype(int)
    for stretch in np.unique(stretches):
        rows = stretches == stretch
        if rows.sum() < LEAST_ONSETS:
            continue
        beat, phase = beat_of(notes.onset_seconds[rows], before)
        for times in (onset, offset):
            whole, part = np.divmod((times[rows] - phase) / beat, 1)
            times[rows] = (whole + np.interp(part, [0, before, 1], [0, after, 1])) * beat + phase
    onset = np.maximum(onset, 0.0)
    return notes.with_columns(onset_seconds=onset, offset_seconds=np.maximum(offset, onset + 0.02)).sorted()


def beat_of(onset_seconds: NDArray[np.float64], half: float) -> tuple[float, float]:
    """The beat, and where one begins, that most onsets lie on or on the second half of; both in seconds.

    Args:
        onset_seconds: [n].
        half: where in a beat its second half begins.
    """
    beats = BEAT_SECONDS[:, None, None]
    phases = beats * (np.arange(PHASES) / PHASES)[:, None]
    place = (onset_seconds - phases) / beats % 1  # [beats, phases, n]

    def near(mark: float) -> NDArray[np.float64]:
        distance = np.abs((place - mark + 0.5) % 1 - 0.5) * beats
        return np.exp(-((distance / NEAR_SECONDS) ** 2) / 2).mean(axis=2)

    by_chance = NEAR_SECONDS * np.sqrt(2 * np.pi) / BEAT_SECONDS[:, None]
    score = near(0.0) + 0.5 * near(half) - 1.5 * by_chance
    best_beat, best_phase = np.unravel_index(int(score.argmax()), score.shape)
    return float(BEAT_SECONDS[best_beat]), float(phases[best_beat, best_phase, 0])


def _hands(pitch: NDArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return pitch < MIDDLE_KEY, pitch >= MIDDLE_KEY
