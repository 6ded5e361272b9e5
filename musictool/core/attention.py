"""Multi-head attention over torch's fused kernels, and the masks it takes.

One class serves as self- and cross-attention: what differs is where keys and values come from. They are computed from
the input itself (`forward`), kept in a cache from step to step, or projected once from an encoder's output and used at
every step (`project`, `attend`). Vaswani et al. (2017), section 3.2; without biases and scale as in T5 if so asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from musictool.core.kv_cache import KeyValues, KVCache
from musictool.core.positions import Rotation, rotate

Product = Callable[[Tensor], Tensor]


class Sight(NamedTuple):
    """What queries may see of keys: at most one of the two, and neither where all is visible.

    Attributes:
        mask: bool (True is visible) or additive float, broadcastable to [B, H, T, S].
        is_causal: query t sees keys 0..t; the kernels skip the rest instead of masking it.
    """

    mask: Tensor | None = None
    is_causal: bool = False


EVERYTHING = Sight()


def padding_mask(lengths: Tensor, steps: int) -> Tensor:
    """Which steps are real.

    Args:
        lengths: int [B].
        steps: S.

    Returns:
        bool [B, S], True for the first `lengths[b]` steps.
    """
    return torch.arange(steps, device=lengths.device) < lengths[:, None]


def causal_mask(steps: int, device: torch.device | None = None) -> Tensor:
    """bool [T, T]: query t sees keys 0..t."""
    return torch.ones(steps, steps, dtype=torch.bool, device=device).tril()


def combine_masks(*masks: Tensor | None, bias: Tensor | None = None) -> Tensor | None:
    """Merge what may be seen, and a position bias, into the one mask that the kernels take.

    Args:
        masks: bool, broadcastable to [B, H, T, S]; None sees all.
        bias: float, broadcastable to [B, H, T, S], added to the scores.

    Returns:
        bool if there is no bias, else float with -inf where nothing may be seen; None if all is visible.
    """
    visible: Tensor | None = None
    for mask in masks:
        if mask is not None:
            visible = mask if visible is None else visible & mask
    if bias is None or visible is None:
        return visible if bias is None else bias
    return bias.masked_fill(~visible, float("-inf"))


class Attention(nn.Module):
    """Multi-head attention.

    Args:
        width: D of the queries' side, in and out.
        heads: H.
        head_width: P, by default D / H.
        memory_width: width of what keys and values are computed from, by default D.
        scale: of the scores, by default 1 / sqrt(P); T5 has 1.
        bias: whether the projections have one.
        dropout: share of attention weights dropped in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int | None = None,
        *,
        memory_width: int | None = None,
        scale: float | None = None,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if head_width is None:
            if width % heads:
                raise ValueError(f"width {width} is no multiple of {heads} heads")
            head_width = width // heads
        inner, memory_width = heads * head_width, memory_width or width
        self.heads = heads
        self.head_width = head_width
        self.scale = scale
        self.dropout = dropout
        self.query: Product = nn.Linear(width, inner, bias=bias)
        self.key: Product = nn.Linear(memory_width, inner, bias=bias)
        self.value: Product = nn.Linear(memory_width, inner, bias=bias)
        self.output: Product = nn.Linear(inner, width, bias=bias)

    @property
    def dtype(self) -> torch.dtype:
        """What keys and values come in."""
        assert isinstance(self.key, nn.Linear)
        return self.key.weight.dtype

    def forward(
        self,
        x: Tensor,
        sight: Sight = EVERYTHING,
        *,
        rotation: Rotation | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend to the input itself, and to what a cache holds of earlier steps.

        Args:
            x: float [B, T, D].
            sight: what each step sees; with a cache, of all S steps that it holds, these T included.
            rotation: rotary positions of these T steps, applied to queries and keys.
            cache: keeps the keys and values of these steps and gives those of all so far.
            layer: which layer of the cache is this module's.

        Returns:
            float [B, T, D].
        """
        query, keys, values = self.read(x)
        if rotation is not None:
            query, keys = rotate(query, rotation), rotate(keys, rotation)
        if cache is not None:
            keys, values = cache.append(layer, keys, values)
        return self._weigh(query, keys, values, sight)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [B, H, T, P] each, of what attends to itself, float [B, T, D]."""
        return self._split(self.query(x)), *self.project(x)

    def project(self, memory: Tensor) -> KeyValues:
        """Keys and values, [B, H, S, P] each, of what is attended to, float [B, S, D]."""
        return KeyValues(self._split(self.key(memory)), self._split(self.value(memory)))

    def attend(self, x: Tensor, memory: KeyValues, sight: Sight = EVERYTHING) -> Tensor:
        """Attend to keys and values that `project` gave.

        Args:
            x: float [B, T, D].
            memory: [B, H, S, P] each.
            sight: what each step sees of the memory.

        Returns:
            float [B, T, D].
        """
        return self._weigh(self._split(self.query(x)), memory.keys, memory.values, sight)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)  # [B, T, H * P] -> [B, H, T, P]

    def _weigh(self, query: Tensor, keys: Tensor, values: Tensor, sight: Sight) -> Tensor:
        mask = sight.mask
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(query.dtype)
        weighed = functional.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=sight.is_causal,
            scale=self.scale,
        )
        return self.output(weighed.transpose(1, 2).flatten(2))  # [B, H, T, P] -> [B, T, H * P] -> [B, T, D]
