"""How like its reference a result is, in figures: two pieces that begin together, compared without hearing them.

    pitch_class_kl                 the divergence of the result's pitch classes from the reference's, 0 bits if they
                                   are the same. Of histograms of notes, with one note added to each class of both,
                                   so that it is finite
    pitch_class_transition_cosine  of the matrices that count which pitch class leads to which, 0..1
    profile_similarity             cosine of how long each pitch class sounds in all, 0..1
    frame_profile_similarity       the same second by second: the mean, 0..1
    tonal_distance                 mean distance of the frames' tonal centroids, 0..3 (Harte et al.)
    chord_similarity               share of the time with a chord in which both have the same triad, 0..1
                                   (`symbolic.chords`; a seventh chord is its triad, as in mir_eval's `triads`)
    melody_similarity              share of the time with a melody, the skyline, in which both have the same pitch, 0..1
    melody_chroma_similarity       the same, in whichever octave
    groove_similarity              how alike bars are that begin at the same time, 0..1 (`metrics.groove`)
    structural_similarity          correlation of the pieces' self-similarity matrices, -1..1: how alike are any two
                                   frames of one, the cosine of their profiles, and how alike those of the other (Foote)
    *_difference                   the result's figure less the reference's, for each of `symbolic.FIGURES`

Frames are seconds, but for chords and melody hundredths; frames and bars are compared with those at the same time, and
where neither piece has anything they do not count. Drums count for the groove and for figures of time. Of two pieces
that both have nothing to compare a value is None, never a NaN; where only one has, similarities are 0, and divergence
and distance are from evenness. Strangers are not at 0 in all: two pieces of pop are alike to .8 in groove, since most
places of any bar are empty, to .5 in their profiles and to .04 in their chords.

Harte, Sandler and Gasser, "Detecting harmonic change in musical audio", AMCMM 2006; Foote, "Visualizing music and audio
using self-similarity", ACM Multimedia 1999; others as in `metrics.symbolic`. Knows nothing of files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.averages import Scores
from musictool.metrics.groove import groove_similarity
from musictool.metrics.pitch_content import (
    centroids,
    frame_count,
    pitch_class_counts,
    profiles,
    transition_counts,
    unit_rows,
)
from musictool.metrics.spans import FRAMES_PER_SECOND
from musictool.metrics.symbolic import FIGURES, figures_of
from musictool.symbolic.chords import chords_of
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.skyline import skyline_of
from musictool.symbolic.theory import CHORDS

COMPARISONS = (
    "pitch_class_kl",
    "pitch_class_transition_cosine",
    "profile_similarity",
    "frame_profile_similarity",
    "tonal_distance",
    "chord_similarity",
    "melody_similarity",
    "melody_chroma_similarity",
    "groove_similarity",
    "structural_similarity",
    *(f"{figure}_difference" for figure in FIGURES),
)


def compare(reference: Score, result: Score) -> Scores:
    """Measure a result and hold it against its reference.

    Args:
        reference: what it was made from, or should be like.
        result: the piece to judge.

    Returns:
        A value for each of `FIGURES`, the result's own, and of `COMPARISONS`, by its name and in their order.

    Raises:
        InputError: times of a piece make no sense, or it is longer than a day.
    """
    ours, theirs = figures_of(reference, "reference"), figures_of(result, "result")
    both = reference.notes, result.notes
    count = max(map(frame_count, both))
    profile, other = (profiles(notes, count) for notes in both)
    scores: Scores = {
        "pitch_class_kl": divergence_bits(*map(pitch_class_counts, both)),
        "pitch_class_transition_cosine": cosine(*(transition_counts(notes).ravel() for notes in both)),
        "profile_similarity": cosine(profile.sum(axis=0), other.sum(axis=0)),
        "frame_profile_similarity": frame_similarity(profile, other),
        "tonal_distance": tonal_distance(profile, other),
        "chord_similarity": chord_similarity(*both),
        "melody_similarity": melody_similarity(*both),
        "melody_chroma_similarity": melody_similarity(*both, any_octave=True),
        "groove_similarity": groove_similarity(reference, result),
        "structural_similarity": structural_similarity(profile, other),
    }
    scores.update({f"{name}_difference": _difference(ours[name], theirs[name]) for name in FIGURES})
    return {**theirs, **scores}


def divergence_bits(reference: NDArray, result: NDArray) -> float | None:
    """The Kullback-Leibler divergence of a result's counts from a reference's, both [d]; None if all are 0.

    One is added to each count (Laplace).
    """
    if not (reference.any() or result.any()):
        return None
    p, q = ((counts + 1) / (counts.sum() + len(counts)) for counts in (reference, result))
    return float((p * np.log2(p / q)).sum())


def cosine(one: NDArray, other: NDArray) -> float | None:
    """The cosine of two vectors without negative values, [d]; 0 if one of them is zeros, None if both are."""
    lengths = np.linalg.norm(one), np.linalg.norm(other)
    if not all(lengths):
        return 0.0 if any(lengths) else None
    return min(float((one / lengths[0]) @ (other / lengths[1])), 1.0)


def frame_similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """The mean cosine of the rows of two profiles, [F, 12], where one sounds; None where none does."""
    is_heard = one.any(axis=1) | other.any(axis=1)
    cosines = (unit_rows(one) * unit_rows(other)).sum(axis=1)[is_heard]
    return min(float(cosines.mean()), 1.0) if len(cosines) else None


def tonal_distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """The mean distance of the tonal centroids of two profiles, [F, 12], where one sounds; None where none does."""
    is_heard = one.any(axis=1) | other.any(axis=1)
    distances = np.linalg.norm(centroids(one) - centroids(other), axis=1)[is_heard]
    return float(distances.mean()) if len(distances) else None


def chord_similarity(one: Notes, other: Notes) -> float | None:
    """The share of the time in which either has a chord that both have the same triad; None if none has one."""
    count = _count_of_moments(one, other)
    return _share_alike(_triad_at_moments(one, count), _triad_at_moments(other, count))


def melody_similarity(one: Notes, other: Notes, *, any_octave: bool = False) -> float | None:
    """The share of the time in which either has a skyline that both have the same pitch; None if none has one.

    Args:
        one, other: the notes.
        any_octave: pitches an octave apart are the same.
    """
    count = _count_of_moments(one, other)
    return _share_alike(*(_melody_at_moments(notes, count, 12 if any_octave else 128) for notes in (one, other)))


def structural_similarity(one: NDArray[np.float64], other: NDArray[np.float64]) -> float | None:
    """The correlation of the self-similarity matrices of two profiles, [F, 12], over all pairs of different frames.

    The matrices, which grow with the square of a piece's length, are never made: what a correlation needs of them are
    sums of their entries and products, and those are products of small matrices.

    Returns:
        -1..1; None if no matrix varies, 0 if one does not.
    """
    is_heard = np.flatnonzero(one.any(axis=1) | other.any(axis=1))
    if len(is_heard) < 3:
        return None
    span = slice(is_heard[0], is_heard[-1] + 1)
    a, b = unit_rows(one[span]), unit_rows(other[span])
    pairs = len(a) * (len(a) - 1)
    sizes = [(rows * rows).sum(axis=1) for rows in (a, b)]  # the diagonals
    means = [(np.square(rows.sum(axis=0)).sum() - size.sum()) / pairs for rows, size in zip((a, b), sizes, strict=True)]

    def covariance(first: int, second: int) -> float:
        product = (a, b)[first].T @ (a, b)[second]
        return (np.square(product).sum() - sizes[first] @ sizes[second]) / pairs - means[first] * means[second]

    spreads = [max(covariance(index, index), 0.0) ** 0.5 for index in (0, 1)]
    if min(spreads) < 1e-6:
        return 0.0 if max(spreads) >= 1e-6 else None
    return float(np.clip(covariance(0, 1) / (spreads[0] * spreads[1]), -1, 1))


def _count_of_moments(*tables: Notes) -> int:
    """How many hundredths of a second hold all notes of some tables."""
    return int(max(notes.end_seconds for notes in tables) * FRAMES_PER_SECOND) + 1


def _melody_at_moments(notes: Notes, count: int, pitches: int) -> NDArray[np.int64]:
    line = skyline_of(notes)
    return _at_moments(line.onset_seconds, line.offset_seconds, line.pitch % pitches, count)


def _triad_at_moments(notes: Notes, count: int) -> NDArray[np.int64]:
    rows = []
    for chord in chords_of(notes):
        if chord.root is not None:
            _, third, fifth, *_ = CHORDS[chord.quality]
            rows.append((chord.start_seconds, chord.end_seconds, chord.root + 12 * third + 144 * fifth))
    start, end, label = np.array(rows, np.float64).reshape(-1, 3).T
    return _at_moments(start, end, label.astype(np.int64), count)


def _at_moments(
    start: NDArray[np.float64], end: NDArray[np.float64], label: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """What holds in the middle of each hundredth of a second, [count], and -1 where nothing does.

    Args:
        start, end: rising times between which something holds, [n], nothing while something else does.
        label: what, [n].
        count: how many hundredths.
    """
    if not len(start):
        return np.full(count, -1)
    middle = (np.arange(count) + 0.5) / FRAMES_PER_SECOND
    last_begun = np.searchsorted(start, middle, side="right") - 1
    return np.where((last_begun >= 0) & (middle < end[last_begun]), label[last_begun], -1)


def _share_alike(one: NDArray[np.int64], other: NDArray[np.int64]) -> float | None:
    """The share of places at which two rows of labels agree; where both are -1 does not count; None if all are."""
    is_any = (one >= 0) | (other >= 0)
    return float((one == other)[is_any].mean()) if is_any.any() else None


def _difference(reference: float | None, result: float | None) -> float | None:
    return None if reference is None or result is None else result - reference
