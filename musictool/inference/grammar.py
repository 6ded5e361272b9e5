"""What may follow what, as a finite automaton over ids, so that a decoder can't leave its vocabulary's grammar.

A grammar is two tables, made by whoever knows what ids mean; here they are only looked up, for all rows at once.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Grammar:
    """An automaton; a sequence begins in state 0.

    Args:
        allowed: bool [G, V], which ids may come in each of G states; at least one in each that can be reached.
        following: int [G, V], the state after each id.
        device: where logits are.
    """

    def __init__(
        self, allowed: NDArray[np.bool_], following: NDArray[np.integer], device: torch.device | str = "cpu"
    ) -> None:
        if allowed.shape != following.shape:
            raise ValueError(f"tables differ in shape: {allowed.shape} and {following.shape}")
        self._forbidden = torch.from_numpy(~allowed).to(device)
        self._following = torch.from_numpy(following.astype(np.int64)).to(device)

    def mask(self, logits: Tensor, state: Tensor) -> Tensor:
        """Logits, float [B, V], with -inf where rows in states int64 [B] allow no id."""
        return logits.masked_fill(self._forbidden[state], float("-inf"))

    def advance(self, state: Tensor, ids: Tensor) -> Tensor:
        """The states, int64 [B], after ids, int64 [B]."""
        return self._following[state, ids]
