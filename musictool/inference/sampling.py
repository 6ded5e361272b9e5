"""Which id comes next, out of logits: the likeliest, or one drawn from a distribution that can be narrowed.

Every row draws from a generator of its own, so that what a row becomes does not depend on who shares its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """How ids are drawn.

    Attributes:
        temperature: 0 takes the likeliest id; else logits are divided by it.
        top_k: only the k likeliest ids; 0 for all.
        top_p: only the likeliest ids that together have this probability; 1 for all (Holtzman et al., 2020).
        seed: where the rows' generators begin.

    Raises:
        ValueError: a value is out of range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"a temperature is at least 0, not {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top-k is at least 0, not {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p is above 0 and at most 1, not {self.top_p}")

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    def generator(self, request: int) -> torch.Generator:
        """The generator of a request, by its number."""
        # torch's generator for the CPU looks at 32 bits of a seed, so both numbers are hashed into them.
        mixed = np.random.SeedSequence((self.seed, request)).generate_state(1)
        return torch.Generator().manual_seed(int(mixed[0]))

    def choose(self, logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The next id of each row.

        Args:
            logits: float [B, V]; -inf where an id can't be.
            generators: one a row; not looked at if nothing is drawn.

        Returns:
            int64 [B].
        """
        if self.is_greedy:
            return logits.argmax(dim=-1)
        narrowed = self.narrow(logits.float() / self.temperature)
        # The largest of logits plus Gumbel noise is a draw from their softmax.
        noise = torch.stack([_gumbel(logits.shape[-1], generator) for generator in generators])
        return (narrowed + noise.to(narrowed.device)).argmax(dim=-1)

    def narrow(self, logits: Tensor) -> Tensor:
        """Logits, float [B, V], with -inf where top-k and top-p leave an id out."""
        if 0 < self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p < 1:
            ordered, order = logits.sort(dim=-1, descending=True)
            probability = ordered.softmax(dim=-1)
            is_beyond = probability.cumsum(dim=-1) - probability >= self.top_p  # the id that reaches it stays
            logits = logits.masked_fill(is_beyond.scatter(-1, order, is_beyond), float("-inf"))
        return logits


def _gumbel(size: int, generator: torch.Generator) -> Tensor:
    """Gumbel noise, float32 [size]; of one row at a time, since the logarithm of a few wakes threads that then spin."""
    return -(-torch.rand(size, generator=generator).clamp(min=1e-20).log()).log()
