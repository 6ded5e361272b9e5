"""How well a model predicts tokens, and how like real tokens are those that it makes.

Of tokens that a model has scored, each after the real ones before it:

    cross_entropy_nats, cross_entropy_bits  the mean of -log p(token)
    perplexity                              exp(cross_entropy_nats): so many tokens, alike, would be as hard to guess
    top_1, top_5                            share of the tokens that are the likeliest, among the five likeliest

Cross-entropy at temperature t is of softmax(logits / t). At which it is least says how far the model's confidence is
right: below 1 it could be surer, above 1 it is too sure.

Of tokens that a model has made, held against real ones:

    first divergence   how many tokens come before the first that is another than in the real piece
    usage              share of the vocabulary that occurs
    coverage           share of the real tokens' vocabulary that occurs
    entropy_bits       of how often each token occurs
    kl_bits            the Kullback-Leibler divergence D(made || real) of how often each token occurs, over the tokens
                       that occur at all, with `PSEUDO_COUNT` added to each count on either side, so that a token that
                       one side lacks costs something finite. It is above 0 of few tokens though they be drawn alike:
                       compare figures of as many

Parts are what tokens are counted by beside all together: codebooks, or types of events. A figure of no tokens is None.
Knows no models and no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from musictool.metrics.averages import Scores

ENTROPIES = ("cross_entropy_nats", "cross_entropy_bits", "perplexity")
FIGURES = (*ENTROPIES, "top_1", "top_5")
TOP = (1, 5)
PSEUDO_COUNT = 0.5

_NATS_MAX = 700.0  # exp of more is no number


class Tally:
    """Sums over tokens that have been scored, by part.

    Args:
        parts: P, how many parts there are.
        temperatures: A, at which tokens have been scored.

    Attributes:
        counts: int64 [P], how many tokens.
    """

    def __init__(self, parts: int, temperatures: Sequence[float] = (1.0,)) -> None:
        self.temperatures = tuple(temperatures)
        self.counts = np.zeros(parts, np.int64)
        self._nats = np.zeros((len(self.temperatures), parts))
        self._hits = np.zeros((len(TOP), parts), np.int64)

    def add(self, nats: NDArray[np.float32], ranks: NDArray[np.int32], part: NDArray[np.integer]) -> None:
        """Count some tokens.

        Args:
            nats: float [A, n], -log p of each at each temperature.
            ranks: int [n], how many tokens the model holds for likelier.
            part: int [n], which part each belongs to.
        """
        parts = len(self.counts)
        self.counts += np.bincount(part, minlength=parts)
        for sums, values in zip(self._nats, nats, strict=True):
            sums += np.bincount(part, values, parts)
        for hits, top in zip(self._hits, TOP, strict=True):
            hits += np.bincount(part[ranks < top], minlength=parts)

    def include(self, other: Tally) -> None:
        """Count all that another has counted, of the same parts and temperatures."""
        self.counts += other.counts
        self._nats += other._nats
        self._hits += other._hits

    def nats(self, temperature: float = 1.0) -> NDArray[np.float64]:
        """The sum of -log p of each part's tokens at a temperature, [P]."""
        return self._nats[self.temperatures.index(temperature)]

    def figures(self, part: int | None = None, temperature: float = 1.0) -> Scores:
        """The `FIGURES` of a part, or of all; which token is likeliest is the same at any temperature."""
        which = slice(None) if part is None else slice(part, part + 1)
        count = int(self.counts[which].sum())
        if not count:
            return dict.fromkeys(FIGURES)
        nats = float(self.nats(temperature)[which].sum()) / count
        return {
            "cross_entropy_nats": nats,
            "cross_entropy_bits": nats / math.log(2),
            "perplexity": math.exp(nats) if nats < _NATS_MAX else None,
            **{f"top_{top}": int(hits[which].sum()) / count for top, hits in zip(TOP, self._hits, strict=True)},
        }


# ------------------------------------------------------------------------------------------------- how often they occur


def count_tokens(tokens: NDArray[np.integer], size: int) -> NDArray[np.int64]:
    """How often each of a vocabulary occurs in each codebook, int [K, n] to int64 [K, V]."""
    places = tokens + size * np.arange(len(tokens))[:, None]
    return np.bincount(places.ravel(), minlength=len(tokens) * size).reshape(len(tokens), size)


def usage(counts: NDArray[np.int64]) -> float | None:
    """The share of a vocabulary that occurs, of counts [V]; of those of several codebooks, [K, V], the mean."""
    return float((counts > 0).mean()) if counts.any() else None


def coverage(counts: NDArray[np.int64], real: NDArray[np.int64]) -> float | None:
    """The share of what occurs in real tokens that occurs in others too, of counts [V] or [K, V] each."""
    is_real = real > 0
    return float((counts[is_real] > 0).mean()) if is_real.any() and counts.any() else None


def entropy_bits(counts: NDArray[np.int64]) -> float | None:
    """The entropy of how often each token occurs, of counts [V]; of several codebooks, [K, V], the mean."""
    if not counts.any():
        return None
    return float(np.mean([_entropy_bits(row) for row in np.atleast_2d(counts)]))


def _entropy_bits(counts: NDArray[np.int64]) -> float:
    shares = counts[counts > 0] / max(1, counts.sum())
    return max(0.0, float(-(shares * np.log2(shares)).sum()))


def kl_bits(counts: NDArray[np.int64], real: NDArray[np.int64]) -> float | None:
    """D(made || real) of how often each token occurs, of counts [V] each; of several codebooks, [K, V], the mean."""
    if not (counts.any() and real.any()):
        return None
    return float(np.mean([_kl_bits(*rows) for rows in zip(np.atleast_2d(counts), np.atleast_2d(real), strict=True)]))


def _kl_bits(counts: NDArray[np.int64], real: NDArray[np.int64]) -> float:
    occurs = (counts > 0) | (real > 0)
    made, other = (some[occurs] + PSEUDO_COUNT for some in (counts, real))
    made, other = made / made.sum(), other / other.sum()
    return max(0.0, float((made * np.log2(made / other)).sum()))


# ----------------------------------------------------------------------------------------------------- where they part


def first_divergence(is_same: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many tokens come before the first that is not the real one, bool [..., n] to int64 [...]; n if all are."""
    end = np.zeros((*is_same.shape[:-1], 1), bool)
    return np.concatenate([is_same, end], axis=-1).argmin(-1)


def divergence_figures(firsts: Sequence[int], lengths: Sequence[int]) -> dict[str, Any]:
    """Where pieces part from the real ones.

    Args:
        firsts: of each piece, as `first_divergence`.
        lengths: how far each was compared.

    Returns:
        `mean` and `median`, in which a piece that never parts counts with its length, and `never`, the share of those
        that do not; None each if there are no pieces.
    """
    if not firsts:
        return {"mean": None, "median": None, "never": None}
    never = np.mean(np.asarray(firsts) >= np.asarray(lengths))
    return {"mean": float(np.mean(firsts)), "median": float(np.median(firsts)), "never": float(never)}


class Agreement:
    """How often tokens are those of the real piece, by how far they are from the prompt.

    Args:
        length: N, positions.
    """

    def __init__(self, length: int) -> None:
        self._same = np.zeros(length, np.int64)
        self._counts = np.zeros(length, np.int64)

    def add(self, is_same: NDArray[np.bool_]) -> None:
        """Count a piece, bool [K, n] with n at most N."""
        length = is_same.shape[1]
        self._same[:length] += is_same.sum(0)
        self._counts[:length] += len(is_same)

    @property
    def share(self) -> float | None:
        """Of all tokens."""
        return float(self._same.sum() / self._counts.sum()) if self._counts.any() else None

    def by_position(self, bins: int) -> list[float | None]:
        """The share in each of some stretches of positions, as long as each other within one."""
        edges = np.linspace(0, len(self._counts), min(bins, len(self._counts)) + 1).round().astype(int)
        sums = ((self._same[low:high].sum(), self._counts[low:high].sum()) for low, high in pairwise(edges))
        return [float(same / count) if count else None for same, count in sums]
