"""What a codec's codes are like: how much of each codebook is used, and how many bits they hold.

    usage         share of a codebook's entries that occur at all
    entropy_bits  of how often each occurs: what a code takes on average if it is coded by itself; at most the logarithm
                  of the codebook's size
    perplexity    2 ** entropy_bits: so many entries, used alike, would have this entropy

and of all codebooks together

    bit_rate_kbps  of codes as they are stored, each in the whole bits that its codebook's size takes
    entropy_kbps   a bound for an entropy coder that knows each codebook's distribution and nothing of what came before:
                   the sum of all entropies

Few frames use few entries, whatever the codec: n frames no more than n, with an entropy of log2(n) at the most. What a
codec is like shows over a corpus of many times as many frames as there are entries. Where there are no codes, entropy
and perplexity are None. Knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.metrics.averages import Scores, mean_of

CODEBOOK_FIGURES = ("usage", "entropy_bits", "perplexity")
CODE_METRICS = ("bit_rate_kbps", "entropy_kbps", "usage", "least_usage", "entropy_bits", "perplexity")
COUNTS_MAX = 1 << 24  # entries of all codebooks: more are no codec's


@dataclass(frozen=True)
class CodeKind:
    """What codes must have in common to be counted together.

    Attributes:
        codec: its name.
        codec_sha256: its fingerprint.
        codebooks: K, rows in use.
        codebook_size: V, entries of each.
        frame_rate_hz: frames a second.

    Raises:
        InputError: a number is out of bounds.
    """

    codec: str
    codec_sha256: str
    codebooks: int
    codebook_size: int
    frame_rate_hz: float

    def __post_init__(self) -> None:
        if not (self.codebooks > 0 < self.codebook_size and self.codebooks * self.codebook_size <= COUNTS_MAX):
            raise InputError(f"no such codes: {self.codebooks} codebooks of {self.codebook_size} entries")
        if not 0 < self.frame_rate_hz < float("inf"):
            raise InputError(f"no such rate of frames: {self.frame_rate_hz} a second")

    @property
    def bit_rate_kbps(self) -> float:
        """Of codes as they are stored."""
        return self.codebooks * (self.codebook_size - 1).bit_length() * self.frame_rate_hz / 1000


class CodeCounts:
    """How often each entry of each codebook occurs.

    Args:
        kind: of the codes.

    Attributes:
        frames: that have been counted.
    """

    def __init__(self, kind: CodeKind) -> None:
        self.kind = kind
        self.frames = 0
        self._counts = np.zeros((kind.codebooks, kind.codebook_size), np.int64)

    def add(self, codes: NDArray[np.int32]) -> None:
        """Count some codes.

        Args:
            codes: int [K, n].

        Raises:
            InputError: there are more or fewer codebooks, or there is no such entry.
        """
        size = self.kind.codebook_size
        if len(codes) != self.kind.codebooks:
            raise InputError(f"{len(codes)} codebook rows where the head says {self.kind.codebooks}")
        if codes.size and not 0 <= (low := int(codes.min())) <= (high := int(codes.max())) < size:
            message = f"code {low if low < 0 else high} is out of range: the codebooks have {size} entries"
            raise InputError(message, code="code-out-of-range")
        for counts, row in zip(self._counts, codes):
            np.add.at(counts, row, 1)
        self.frames += codes.shape[1]

    def include(self, other: CodeCounts) -> None:
        """Count all that another has counted, of the same kind."""
        self._counts += other._counts
        self.frames += other.frames

    def of_codebooks(self) -> list[Scores]:
        """The `CODEBOOK_FIGURES` of each codebook, in order."""
        return [_figures_of(counts) for counts in self._counts]

    def scores(self) -> Scores:
        """All `CODE_METRICS`; of what each codebook has, the mean."""
        each = self.of_codebooks()
        entropies = [figures["entropy_bits"] for figures in each]
        known = [entropy for entropy in entropies if entropy is not None]
        means = mean_of(each, CODEBOOK_FIGURES)
        return {
            "bit_rate_kbps": self.kind.bit_rate_kbps,
            "entropy_kbps": sum(known) * self.kind.frame_rate_hz / 1000 if known else None,
            "usage": means["usage"],
            "least_usage": min(figures["usage"] or 0.0 for figures in each),
            "entropy_bits": means["entropy_bits"],
            "perplexity": means["perplexity"],
        }


def _figures_of(counts: NDArray[np.int64]) -> Scores:
    """The figures of one codebook's counts [V]."""
    used = counts[counts > 0]
    usage = len(used) / len(counts)
    if not len(used):
        return {"usage": usage, "entropy_bits": None, "perplexity": None}
    shares = used / used.sum()
    entropy = max(0.0, float(-(shares * np.log2(shares)).sum()))
    return {"usage": usage, "entropy_bits": entropy, "perplexity": 2.0**entropy}
