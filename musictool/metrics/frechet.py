"""The Fréchet distance of two sets of embeddings, each taken for a Gaussian.

    |m - n|^2 + trace(A) + trace(B) - 2 trace((A B)^(1/2))

for means m, n and covariances A, B (Dowson and Landau, 1982): of sound, the Fréchet audio distance (Kilgour et al.,
2019, arXiv:1812.08466). It is 0 for sets with the same mean and covariance, and its unit is the embedding's: figures of
two embeddings cannot be compared. Few frames make it too large (Gui et al., 2023, arXiv:2311.01616): only figures of as
many frames can be compared, and a covariance takes more frames than the embedding is wide.

The trace of the root is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric: unlike the
root of A B itself they stay real where a covariance is singular. Knows no models and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FRAMES_MIN = 2


@dataclass(frozen=True, eq=False)
class Gaussian:
    """What is left of a set of embeddings.

    Attributes:
        mean: float64 [D].
        covariance: float64 [D, D], unbiased.
        frames: how many there were.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    frames: int

    @property
    def is_singular(self) -> bool:
        """Whether there were too few frames for a covariance in all directions."""
        return self.frames <= len(self.mean)


class Moments:
    """The mean and covariance of embeddings as they come, in memory that doesn't grow.

    Args:
        width: D, of an embedding.

    Attributes:
        frames: how many have come.
    """

    def __init__(self, width: int) -> None:
        self.frames = 0
        self._mean = np.zeros(width)
        self._scatter = np.zeros((width, width))

    def add(self, embeddings: NDArray[np.float32]) -> None:
        """Take in embeddings, float [n, D]."""
        if not len(embeddings):
            return
        new = embeddings.astype(np.float64)
        mean = new.mean(axis=0)
        centred, shift = new - mean, mean - self._mean
        total = self.frames + len(new)
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.frames * len(new) / total)
        self._mean += shift * (len(new) / total)
        self.frames = total

    def gaussian(self) -> Gaussian | None:
        """What they amount to; None of fewer than two."""
        if self.frames < FRAMES_MIN:
            return None
        return Gaussian(self._mean.copy(), self._scatter / (self.frames - 1), self.frames)


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """The distance of two Gaussians of one width; 0 or more."""
    values, vectors = np.linalg.eigh(one.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ other.covariance @ root).clip(min=0)).sum()
    apart = ((one.mean - other.mean) ** 2).sum()
    return max(0.0, float(apart + np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared))
