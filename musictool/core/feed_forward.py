"""The feed-forward half of a transformer block, plain or gated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "silu": functional.silu,
}


class FeedForward(nn.Module):
    """Widen, activate, narrow (Vaswani et al., 2017, section 3.3).

    Args:
        width: D, in and out.
        hidden: F.
        activation: by name.
        bias: whether the projections have one.
        dropout: share of hidden values dropped in training.
    """

    def __init__(
        self, width: int, hidden: int, *, activation: Activation = "gelu", bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.activate = ACTIVATIONS[activation]
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, D] to the same."""
        hidden = self.activate(self.up(x))
        return self.down(self.dropout(hidden) if self.training else hidden)


class GatedFeedForward(nn.Module):
    """Two ways up, one activated and used as a gate for the other (Shazeer, 2020); arguments as `FeedForward`."""

    def __init__(
        self, width: int, hidden: int, *, activation: Activation = "gelu_tanh", bias: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.activate = ACTIVATIONS[activation]
        self.gate = nn.Linear(width, hidden, bias=bias)
        self.up = nn.Linear(width, hidden, bias=bias)
        self.down = nn.Linear(hidden, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, D] to the same."""
        hidden = self.activate(self.gate(x)) * self.up(x)
        return self.down(self.dropout(hidden) if self.training else hidden)
