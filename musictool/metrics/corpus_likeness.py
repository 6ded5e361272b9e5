"""How like the pieces of a corpus some other pieces are: distributions of what they are like, not piece by piece.

Yang and Lerch, "On the evaluation of generative models in music", Neural Computing and Applications 32, 2020: for each
feature the distances between any two pieces of the corpus are one distribution, the distances of every result to every
piece of the corpus another, both smoothed by Gaussian kernels of Scott's width. Results that vary as the corpus does
and around the same middle make the two the same: their overlapping area is 1 and their divergence 0. Their features
have one value, compared by the difference, or are histograms, compared by the Euclidean distance.

Unlike in their program both densities are taken on one grid, which reaches eight standard deviations of the kernel
beyond the data, and so holds all of them; the share of a bin is at least 1e-13, so that the divergence is finite.
Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.symbolic import FIGURES, Portrait

FEATURES = (*FIGURES, "pitch_classes", "transitions")
"""What pieces are compared by: their figures, and the histograms of a `Portrait`."""

PIECES_MAX = 2000  # of more, as many are taken at even steps: the distances grow with the square
CORPUS_PIECES_MIN = 3

_BINS = 2048  # from 0 to the greatest distance
_REACH = 8  # standard deviations of the kernel
_LEAST = 1e-13
_ROUNDING_SQUARED = 1e-12


@dataclass(frozen=True)
class Likeness:
    """How like a corpus the results are in one feature; None is what too few pieces, or a histogram, do not have.

    Attributes:
        results_mean, results_deviation: of the results' values.
        corpus_mean, corpus_deviation: of the corpus's.
        overlap: the area under both densities, 0..1.
        kl: the Kullback-Leibler divergence of the results' density from the corpus's, 0 bits or more.
    """

    results_mean: float | None
    results_deviation: float | None
    corpus_mean: float | None
    corpus_deviation: float | None
    overlap: float | None
    kl: float | None


def likeness(results: Sequence[Portrait], corpus: Sequence[Portrait]) -> dict[str, Likeness]:
    """Hold results against a corpus.

    Args:
        results: the pieces to judge.
        corpus: the pieces they should be like.

    Returns:
        For each of `FEATURES`, in their order, what comes of the pieces that have it. Overlap and divergence take a
        result and three pieces of the corpus.
    """
    return {feature: _likeness_in(_values(results, feature), _values(corpus, feature)) for feature in FEATURES}


def overlap_and_divergence(within: NDArray[np.float64], across: NDArray[np.float64]) -> tuple[float, float]:
    """The overlapping area of the densities of two sets of distances, [n] and [m], and the divergence in bits."""
    top = float(max(within.max(), across.max()))
    if top <= 0:
        return 1.0, 0.0
    step = top / _BINS
    widths = [max(_scott_width(distances), step) for distances in (within, across)]
    reach = int(np.ceil(_REACH * max(widths) / step))
    p, q = (_density(d, width, step, reach) for d, width in zip((within, across), widths, strict=True))
    p_floor, q_floor = (np.maximum(density, _LEAST) for density in (p, q))
    return float(np.minimum(p, q).sum()), max(float((p_floor * np.log2(p_floor / q_floor)).sum()), 0.0)


def _likeness_in(results: NDArray[np.float64], corpus: NDArray[np.float64]) -> Likeness:
    """The likeness in one feature of values [n, d] and [m, d]."""
    ours, theirs = _moments(results), _moments(corpus)
    overlap = kl = None
    if len(results) and len(corpus) >= CORPUS_PIECES_MIN:
        results, corpus = (_evenly_chosen(values) for values in (results, corpus))
        within = _distances(corpus, corpus)[np.triu_indices(len(corpus), k=1)]
        overlap, kl = overlap_and_divergence(within, _distances(corpus, results).ravel())
    return Likeness(*ours, *theirs, overlap, kl)


def _values(pieces: Sequence[Portrait], feature: str) -> NDArray[np.float64]:
    """The feature of the pieces that have it, [n, d]."""
    if feature in FIGURES:
        return np.array([[value] for piece in pieces if (value := piece.figures[feature]) is not None]).reshape(-1, 1)
    rows = [getattr(piece, feature) for piece in pieces]
    return np.array([row for row in rows if row.any()]).reshape(-1, len(rows[0]) if rows else 1)


def _moments(values: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of values [n, 1]; those of histograms say little."""
    if not len(values) or values.shape[1] > 1:
        return None, None
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def _evenly_chosen(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) <= PIECES_MAX:
        return values
    return values[np.linspace(0, len(values) - 1, PIECES_MAX).astype(int)]


def _distances(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Euclidean distances of rows [n, d] and [m, d], [n, m]; what rounding alone may make is 0."""
    squares = (one * one).sum(axis=1)[:, None] + (other * other).sum(axis=1) - 2 * one @ other.T
    return np.sqrt(np.where(squares > _ROUNDING_SQUARED, squares, 0))


def _scott_width(distances: NDArray[np.float64]) -> float:
    return float(distances.std(ddof=1)) * len(distances) ** -0.2 if len(distances) > 1 else 0.0


def _density(distances: NDArray[np.float64], width: float, step: float, reach: int) -> NDArray[np.float64]:
    """The share of a Gaussian kernel density in each bin, from `reach` bins below 0 to as many above the greatest."""
    counts = np.bincount(np.rint(distances / step).astype(int), minlength=_BINS + 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    return np.convolve(counts / counts.sum(), kernel / kernel.sum())
