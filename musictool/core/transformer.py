"""A pre-norm transformer stack that serves as encoder, decoder or decoder-only.

`Block` and `Transformer` take finished sub-modules; `build_transformer` turns numbers into them. What a stack sees is
said at the call: everything (an encoder), the past (`is_causal`), the past in a cache, a memory beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from musictool.core.attention import EVERYTHING, Attention, Sight, causal_mask, combine_masks
from musictool.core.feed_forward import Activation, FeedForward, GatedFeedForward
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import DistanceBias, RelativeBias, Rotary, Rotation

NormName = Literal["rms", "layer"]


class Block(nn.Module):
    """Self-attention, attention to a memory if there is any, feed-forward; each behind its norm, each added on.

    Args:
        self_norm, self_attention: of the first part.
        feed_norm, feed_forward: of the last part.
        cross_norm, cross_attention: of the part between them, where the block attends to a memory.
        dropout: share of each part's output dropped in training.
    """

    def __init__(
        self,
        self_norm: nn.Module,
        self_attention: Attention,
        feed_norm: nn.Module,
        feed_forward: nn.Module,
        cross_norm: nn.Module | None = None,
        cross_attention: Attention | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_norm = self_norm
        self.self_attention = self_attention
        self.cross_norm = cross_norm
        self.cross_attention = cross_attention
        self.feed_norm = feed_norm
        self.feed_forward = feed_forward
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        layer: int,
        sight: Sight,
        rotation: Rotation | None,
        cache: KVCache | None,
        memory: Memory | None,
        across: Sight = EVERYTHING,
    ) -> Tensor:
        """float [B, T, D] to the same; `layer` is the block's number, `across` is what it sees of the memory, and the
        rest is as in `Transformer.forward`."""
        attended = self.self_attention(self.self_norm(x), sight, rotation=rotation, cache=cache, layer=layer)
        x = x + self._dropped(attended)
        if memory is not None:
            assert self.cross_attention is not None
            assert self.cross_norm is not None
            x = x + self._dropped(self.cross_attention.attend(self.cross_norm(x), memory.layers[layer], across))
        return x + self._dropped(self.feed_forward(self.feed_norm(x)))

    def _dropped(self, x: Tensor) -> Tensor:
        return self.dropout(x) if self.training else x  # a step is short enough to feel a call that does nothing


class Transformer(nn.Module):
    """Blocks in a row and a norm at the end.

    Args:
        blocks: the layers.
        final_norm: applied to the last one's output.
        position_bias: of how far steps are from each other, the same in all layers.
        memory_bias: how far a memory's steps are from those that attend to it, where both keep the same time.
        rotary: rotary positions.
        dropout: share of input and output values dropped in training.

    Attributes:
        checkpoints_gradients: compute each block again in the backward pass instead of keeping what is inside it:
            less memory, about a third more time.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        final_norm: nn.Module,
        *,
        position_bias: RelativeBias | DistanceBias | None = None,
        memory_bias: DistanceBias | None = None,
        rotary: Rotary | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final_norm = final_norm
        self.position_bias = position_bias
        self.memory_bias = memory_bias
        self.rotary = rotary
        self.dropout = nn.Dropout(dropout)
        self.checkpoints_gradients = False

    def remember(self, memory: Tensor, visible: Tensor | None = None) -> Memory:
        """Project what the blocks attend to, once for all steps.

        Args:
            memory: float [B, S, D], an encoder's output.
            visible: bool [B, S], False at padding.
        """
        layers = []
        for block in self._blocks():
            assert block.cross_attention is not None
            layers.append(block.cross_attention.project(memory))
        return Memory(layers, visible)

    def new_cache(self, rows: int, *, capacity: int = 64, is_static: bool = False) -> KVCache:
        """An empty cache for this stack, in its number format and on its device."""
        attention = self._blocks()[0].self_attention
        weight = self.final_norm.weight
        assert isinstance(weight, Tensor)
        return KVCache(
            len(self.blocks),
            rows,
            attention.heads,
            attention.head_width,
            capacity=capacity,
            is_static=is_static,
            dtype=attention.dtype,
            device=weight.device,
        )

    def forward(
        self,
        x: Tensor,
        *,
        visible: Tensor | None = None,
        is_causal: bool = False,
        positions: Tensor | None = None,
        cache: KVCache | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """Run the stack.

        Args:
            x: float [B, T, D].
            visible: bool [B, T], False at padding, which then no step sees. Not with a cache.
            is_causal: steps see only the past and themselves. A cache implies it.
            positions: int64 [B, T] or [T], 0.. by default; with a cache, what `begin` gave.
            cache: steps so far, after `begin`; the caller commits.
            memory: what the blocks attend to, as from `remember`.

        Returns:
            float [B, T, D].
        """
        sight = self._sight(x.shape[1], x.device, visible, is_causal, positions, cache)
        rotation = None
        if self.rotary is not None:
            rotation = self.rotary(torch.arange(x.shape[1], device=x.device) if positions is None else positions)
        across = EVERYTHING if memory is None else self._sight_of(memory, x.shape[1], positions)
        x = self.dropout(x)
        for layer, block in enumerate(self.blocks):
            run = partial(checkpoint, block, use_reentrant=False) if self._recomputes() else block
            x = run(x, layer, sight, rotation, cache, memory, across)
        return self.dropout(self.final_norm(x))

    def _recomputes(self) -> bool:
        return self.checkpoints_gradients and self.training and torch.is_grad_enabled()

    def _blocks(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]  # a ModuleList does not say of what

    def _sight(
        self,
        steps: int,
        device: torch.device,
        visible: Tensor | None,
        is_causal: bool,
        positions: Tensor | None,
        cache: KVCache | None,
    ) -> Sight:
        """Padding, causality, the cache's and the bias in one mask, or in none where the kernels need none."""
        padding = None if visible is None else visible[:, None, None, :]
        if cache is not None:
            past = cache.visible()
            keys = torch.arange(cache.seen, device=device)
        else:
            if padding is None and self.position_bias is None:
                return Sight(None, is_causal)
            past = causal_mask(steps, device) if is_causal else None
            keys = torch.arange(steps, device=device)
        bias = None
        if self.position_bias is not None:
            bias = self.position_bias(torch.arange(steps, device=device) if positions is None else positions, keys)
        return Sight(combine_masks(padding, past, bias=bias))

    def _sight_of(self, memory: Memory, steps: int, positions: Tensor | None) -> Sight:
        """What steps see of a memory: all but padding, and what is far away less, where that is biased."""
        visible = memory.mask()
        if self.memory_bias is None:
            return Sight(visible)
        device = memory.layers[0].keys.device
        queries = torch.arange(steps, device=device) if positions is None else positions
        return Sight(combine_masks(visible, bias=self.memory_bias(queries, torch.arange(memory.steps, device=device))))


def build_transformer(
    layers: int,
    width: int,
    heads: int,
    hidden: int,
    *,
    head_width: int | None = None,
    norm: NormName = "rms",
    norm_epsilon: float = 1e-6,
    activation: Activation = "gelu_tanh",
    is_gated: bool = True,
    attends_to_memory: bool = False,
    memory_width: int | None = None,
    scale: float | None = None,
    bias: bool = False,
    dropout: float = 0.0,
    position_bias: RelativeBias | DistanceBias | None = None,
    memory_bias: DistanceBias | None = None,
    rotary: Rotary | None = None,
) -> Transformer:
    """Build a stack of equal blocks.

    Args:
        layers: how many blocks.
        width, heads, hidden, head_width: D, H, F and P.
        norm, norm_epsilon: root mean square (`rms`) or `layer` norm, and what keeps it from dividing by zero.
        activation, is_gated: of the feed-forward.
        attends_to_memory, memory_width: whether blocks have cross-attention, and the width of what it looks at.
        scale: of attention scores, by default 1 / sqrt(P).
        bias: whether projections have one.
        dropout: everywhere.
        position_bias, memory_bias, rotary: positions inside the stack.
    """

    def build_norm() -> nn.Module:
        kind = nn.RMSNorm if norm == "rms" else nn.LayerNorm
        return kind(width, eps=norm_epsilon)

    def build_attention(memory_width: int | None = None) -> Attention:
        return Attention(width, heads, head_width, memory_width=memory_width, scale=scale, bias=bias, dropout=dropout)

    feed_forward = GatedFeedForward if is_gated else FeedForward
    blocks = [
        Block(
            build_norm(),
            build_attention(),
            build_norm(),
            feed_forward(width, hidden, activation=activation, bias=bias, dropout=dropout),
            build_norm() if attends_to_memory else None,
            build_attention(memory_width) if attends_to_memory else None,
            dropout,
        )
        for _ in range(layers)
    ]
    return Transformer(
        blocks,
        build_norm(),
        position_bias=position_bias,
        memory_bias=memory_bias,
        rotary=rotary,
        dropout=dropout,
    )
