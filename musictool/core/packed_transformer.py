"""Transformers packed for inference on a CPU, in as few calls as can be.

A step of one row is little work beside reading the weights, and then each call counts, those of modules among them:
what several layers make of the same input is one product here, and parts are called past their modules. What goes from
product to product, keys and values too, stays in the format of the products; norms and the sums that go from block to
block are float32. Products are `packed_linear`'s, and as little made for training as those.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from musictool.core.attention import EVERYTHING, Attention, Product, Sight
from musictool.core.feed_forward import Activation, FeedForward, GatedFeedForward
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.packed_linear import FUSED, Packed, pack_linear, pack_linears, side_by_side
from musictool.core.positions import Rotation
from musictool.core.transformer import Block


class PackedAttention(Attention):
    """Attention; the same numbers up to rounding.

    Args:
        attention: on a CPU, float32.
        dtype: as of `pack_linear`; what it gives is float32 or, of eight bits and of bfloat16, bfloat16.
    """

    def __init__(self, attention: Attention, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)
        self.heads = attention.heads
        self.head_width = attention.head_width
        self.scale = attention.scale
        self.dropout = 0.0
        self._dtype = torch.bfloat16 if dtype == torch.int8 else dtype
        self._pack(attention, dtype)
        self.output = _product(dtype, attention.output)

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def _pack(self, attention: Attention, dtype: torch.dtype) -> None:
        self.query, self.key, self.value = (
            _product(dtype, layer) for layer in (attention.query, attention.key, attention.value)
        )


class PackedSelfAttention(PackedAttention):
    """The same with one product for queries, keys and values."""

    def _pack(self, attention: Attention, dtype: torch.dtype) -> None:
        self._joint = _product(dtype, attention.query, attention.key, attention.value)

    @property
    def joint(self) -> Packed:
        """The layer of all three."""
        return _layer(self._joint)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        joint = self._joint(x).view(*x.shape[:2], 3, self.heads, self.head_width)
        query, keys, values = joint.transpose(1, 3).unbind(2)  # [B, T, 3, H, P] -> [B, H, 3, T, P] -> [B, H, T, P]
        return query, keys, values


class PackedFeedForward(nn.Module):
    """A feed-forward, plain or gated; the same numbers up to rounding.

    Args:
        feed_forward: on a CPU, float32.
        dtype: as of `PackedAttention`.

    Attributes:
        activation, is_gated, hidden: what it is, and F.
    """

    def __init__(self, feed_forward: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(feed_forward, FeedForward | GatedFeedForward)
        self._activate = feed_forward.activate
        self.is_gated = isinstance(feed_forward, GatedFeedForward)
        self.activation = feed_forward.activation
        self.hidden = feed_forward.up.out_features
        self._is_fused = not self.is_gated and dtype != torch.int8 and self.activation in FUSED
        ways = [feed_forward.gate, feed_forward.up] if isinstance(feed_forward, GatedFeedForward) else [feed_forward.up]
        self._up = _product(dtype, *ways, activation=self.activation if self._is_fused else None)
        self._down = _product(dtype, feed_forward.down)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, T, D] to the same."""
        hidden = self._up(x)
        if self._is_fused:
            return self._down(hidden)
        if not self.is_gated:
            return self._down(self._activate(hidden))
        gate, up = hidden.chunk(2, -1)
        return self._down(self._activate(gate) * up)


class PackedBlock(Block):
    """A block; the same numbers up to rounding.

    Args:
        block: on a CPU, float32, its parts as `build_transformer` makes them.
        dtype: as of `pack_linear`.
    """

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        across = block.cross_attention
        super().__init__(
            block.self_norm,
            PackedSelfAttention(block.self_attention, dtype),
            block.feed_norm,
            PackedFeedForward(block.feed_forward, dtype),
            block.cross_norm,
            None if across is None else PackedAttention(across, dtype),
        )
        self._norms = [_function(norm) for norm in (self.self_norm, self.cross_norm, self.feed_norm)]
        self._look_back = self.self_attention.forward
        self._look_across = None if self.cross_attention is None else self.cross_attention.attend
        self._feed: Product = self.feed_forward.forward

    def layers(self) -> list[Packed | None]:
        """Queries, keys and values; their output; queries across and theirs, if there are any; up, gate first; down."""
        own, across, feed_forward = self.self_attention, self.cross_attention, self.feed_forward
        assert isinstance(own, PackedSelfAttention)
        assert isinstance(feed_forward, PackedFeedForward)
        products: list[Product | None] = [own._joint, own.output]
        products += [None, None] if across is None else [across.query, across.output]
        products += [feed_forward._up, feed_forward._down]
        return [None if product is None else _layer(product) for product in products]

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
        self_norm, cross_norm, feed_norm = self._norms
        x = x + self._look_back(self_norm(x), sight, rotation=rotation, cache=cache, layer=layer)
        if memory is not None:
            assert self._look_across is not None
            x = x + self._look_across(cross_norm(x), memory.layers[layer], across)
        return x + self._feed(feed_norm(x))


def pack_transformers(module: nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Pack every block of a transformer, and every other linear layer, inside a module.

    Args:
        module: on a CPU, float32; it is changed.
        dtype: what products are in: float32, bfloat16 or int8.
    """
    _pack_blocks(module, dtype)
    pack_linears(module, dtype)


def _pack_blocks(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, Block):
            setattr(module, name, PackedBlock(child, dtype))
        else:
            _pack_blocks(child, dtype)


def _product(dtype: torch.dtype, *layers: Product, activation: Activation | None = None) -> Product:
    """What linear layers say of the same input, one after the other, packed as one."""
    linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
    assert len(linears) == len(layers)
    return pack_linear(linears[0] if len(linears) == 1 else side_by_side(linears), dtype, activation).said


def _layer(product: Product) -> Packed:
    """The layer that says a product."""
    layer: Packed = product.__self__  # type: ignore[attr-defined]  # `_product` gives methods
    return layer


def _function(norm: nn.Module | None) -> Product:
    """What a norm does, past what torch does around it."""
    if isinstance(norm, nn.LayerNorm):
        return partial(
            torch.layer_norm,
            normalized_shape=norm.normalized_shape,
            weight=norm.weight,
            bias=norm.bias,
            eps=norm.eps,
        )
    function: Product = nn.Identity().forward if norm is None else norm.forward
    return function
