"""What a piece is like, in figures: notes measured without hearing them.

    note_density           notes a second, from the first onset to the last offset
    mean_ioi_seconds       mean time from attack to attack; what begins within 30 ms of the note before is one attack.
                           For one voice it is the average inter-onset interval of Yang and Lerch, who count the notes
                           of a chord as intervals of 0
    unique_pitches         how many different pitches there are, 1..128 (Yang and Lerch's pitch count)
    pitch_class_entropy    of the histogram of notes, 0..3.58 (log2 of 12) bits (Wu and Yang)
    harmonic_complexity    the mean over all frames, seconds in which something sounds, of the entropy of what sounds,
                           0 for one pitch class and 1 for all twelve alike (Weiß and Müller)
    polyphony              how many pitches sound on average while any does, 1..128 (Dong et al.)
    groove_consistency     how alike the bars are in where notes begin, 0..1 (`metrics.groove`; Wu and Yang)
    bar_recurrence         how alike bars are to the most alike of those some bars before, 0..1 (`metrics.recurrence`)

Figures of time count drums, figures of pitch leave them out. Notes end where keys are released, whatever the pedal, and
last a millisecond at least. A figure that needs notes, a second attack or a second bar is None without, never a NaN.

Yang and Lerch, "On the evaluation of generative models in music", Neural Computing and Applications 32, 2020; Wu and
Yang, "The Jazz Transformer on the front line", ISMIR 2020; Weiß and Müller, "Quantifying and visualizing tonal
complexity", CIM 2014; Dong et al., "MusPy: a toolkit for symbolic music generation", ISMIR 2020. Knows nothing of
files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.metrics.averages import Scores
from musictool.metrics.groove import groove_consistency
from musictool.metrics.pitch_content import frame_count, pitch_class_counts, pitched, profiles, transition_counts
from musictool.metrics.recurrence import bar_recurrence
from musictool.metrics.spans import check_times, covered, intervals, microseconds_of
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.theory import CHORD_SECONDS
from musictool.symbolic.windows import entropy_of, shares_of

LONGEST_SECONDS = 86_400.0

FIGURES = (
    "note_density",
    "mean_ioi_seconds",
    "unique_pitches",
    "pitch_class_entropy",
    "harmonic_complexity",
    "polyphony",
    "groove_consistency",
    "bar_recurrence",
)
_PITCH_STRIDE_MICROSECONDS = 1 << 40  # more than a day


@dataclass(frozen=True, eq=False)
class Portrait:
    """What of a piece is held against a corpus.

    Attributes:
        notes: how many.
        figures: a value for each of `FIGURES`, by its name and in their order.
        pitch_classes: float64 [12], shares of the notes; zeros if there are none.
        transitions: float64 [144], shares of the transitions between pitch classes; zeros if there are none.
    """

    notes: int
    figures: Scores
    pitch_classes: NDArray[np.float64]
    transitions: NDArray[np.float64]


def portrait_of(score: Score) -> Portrait:
    """Measure a piece.

    Raises:
        InputError: its times make no sense, or it is longer than a day.
    """
    figures = figures_of(score)
    pitch_classes, transitions = (
        shares_of(counts.reshape(1, -1))[0]
        for counts in (pitch_class_counts(score.notes), transition_counts(score.notes))
    )
    return Portrait(len(score.notes), figures, pitch_classes, transitions)


def figures_of(score: Score, label: str = "piece") -> Scores:
    """The figures of a piece.

    Args:
        score: the piece.
        label: what to call it in errors.

    Returns:
        A value for each of `FIGURES`, by its name and in their order.

    Raises:
        InputError: a time is no number or lies before the start, a note ends before it begins or after a day.
    """
    notes = score.notes
    check_times(notes, label)
    if notes.end_seconds > LONGEST_SECONDS:
        raise InputError(f"the {label} is longer than a day", hint="is its tempo right?")
    return {
        "note_density": note_density(notes),
        "mean_ioi_seconds": mean_ioi_seconds(notes),
        "unique_pitches": unique_pitches(notes),
        "pitch_class_entropy": pitch_class_entropy(notes),
        "harmonic_complexity": harmonic_complexity(notes),
        "polyphony": polyphony(notes),
        "groove_consistency": groove_consistency(score),
        "bar_recurrence": bar_recurrence(score),
    }


def note_density(notes: Notes) -> float | None:
    """Notes a second, from the first onset to the last offset."""
    if not len(notes):
        return None
    times = intervals(notes)
    return len(notes) / float(times.max() - times.min())


def mean_ioi_seconds(notes: Notes) -> float | None:
    """The mean time from attack to attack; None of less than two."""
    onset = np.sort(notes.onset_seconds)
    attacks = onset[np.diff(onset, prepend=-np.inf) >= CHORD_SECONDS]
    return float(attacks[-1] - attacks[0]) / (len(attacks) - 1) if len(attacks) > 1 else None


def unique_pitches(notes: Notes) -> int | None:
    """How many different pitches there are."""
    return len(np.unique(pitched(notes).pitch)) or None


def pitch_class_entropy(notes: Notes) -> float | None:
    """The entropy of the histogram of pitch classes, in bits."""
    counts = pitch_class_counts(notes)
    return float(entropy_of(shares_of(counts[None]))[0] * np.log2(12)) if counts.any() else None


def harmonic_complexity(notes: Notes) -> float | None:
    """The mean entropy, 0..1, of the frames in which something sounds."""
    profile = profiles(notes, frame_count(notes))
    sounding = profile[profile.any(axis=1)]
    return float(entropy_of(shares_of(sounding)).mean()) if len(sounding) else None


def polyphony(notes: Notes) -> float | None:
    """How many pitches sound on average while any does."""
    notes = pitched(notes)
    if not len(notes):
        return None
    spans = microseconds_of(notes)
    apart = spans + notes.pitch.astype(np.int64)[:, None] * _PITCH_STRIDE_MICROSECONDS
    return covered(apart) / covered(spans)
