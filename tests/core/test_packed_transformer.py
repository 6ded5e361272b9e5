"""Packed transformers say what plain ones say, whole and step by step; in eight bits they say about the same."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from musictool.core.feed_forward import FeedForward
from musictool.core.packed_linear import PackedInt8Linear, can_pack
from musictool.core.packed_transformer import PackedFeedForward, pack_transformers
from musictool.core.positions import DistanceBias, RelativeBias, Rotary
from musictool.core.transformer import Transformer, build_transformer

needs_onednn = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")
NEAR = {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.int8: 0.06}  # of a standard deviation of 1
FORMATS = [
    pytest.param(torch.float32, marks=needs_onednn),
    pytest.param(torch.bfloat16, marks=needs_onednn),
    torch.int8,
]
STACKS = {
    "as MusicGen's": {"norm": "layer", "is_gated": False, "activation": "gelu", "attends_to_memory": True},
    "as SaxGPT's": {"norm": "layer", "is_gated": False, "attends_to_memory": True, "memory_bias": DistanceBias(4)},
    "as T5's": {"position_bias": RelativeBias(4, buckets=8, distance_max=16), "scale": 1.0},
    "turned, with biases": {"rotary": Rotary(16), "bias": True, "activation": "silu", "memory_width": 40},
    "narrow heads": {"head_width": 10, "is_gated": False, "activation": "relu", "bias": True, "norm": "layer"},
}


def stack_of(kind: str) -> Transformer:
    """Two blocks, 64 wide, with norms and biases that matter."""
    torch.manual_seed(0)
    stack = build_transformer(2, 64, 4, 96, dropout=0.1, **copy.deepcopy(STACKS[kind]))
    for name, parameter in stack.named_parameters():
        if "norm" in name or "bias" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return stack.eval()


def packed(stack: Transformer, dtype: torch.dtype) -> Transformer:
    """A packed copy, in which nothing is left that could be packed."""
    copied = copy.deepcopy(stack)
    pack_transformers(copied, dtype)
    assert not any(isinstance(part, nn.Linear) for part in copied.modules())
    return copied


def in_steps(stack: Transformer, x: torch.Tensor, sizes: list[int], memory: torch.Tensor | None) -> torch.Tensor:
    """The stack over a cache, so many steps at a time."""
    cache = stack.new_cache(len(x), capacity=3)
    kept = None if memory is None else stack.remember(memory)
    said = []
    for piece in x.split(sizes, dim=1):
        positions = cache.begin(piece.shape[1])
        said.append(stack(piece, positions=positions, cache=cache, memory=kept))
        cache.commit(piece.shape[1])
    return torch.cat(said, 1)


def cache_shape(stack: Transformer) -> tuple[int, int, int]:
    """Heads, steps and width of what a cache takes of three steps."""
    attention = stack.blocks[0].self_attention
    return attention.heads, 3, attention.head_width


def memory_for(kind: str) -> torch.Tensor | None:
    return torch.randn(2, 5, 64) if STACKS[kind].get("attends_to_memory") else None


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", sorted(STACKS))
def test_packed_blocks_say_what_plain_ones_say_at_once_and_step_by_step(kind, dtype):
    plain = stack_of(kind)
    fast = packed(plain, dtype)
    x, memory = torch.randn(2, 12, 64), memory_for(kind)
    wanted = plain(x, is_causal=True, memory=None if memory is None else plain.remember(memory))
    wanted_size = wanted.std()
    whole = fast(x, is_causal=True, memory=None if memory is None else fast.remember(memory))
    assert (whole - wanted).std() < NEAR[dtype] * wanted_size
    stepped = in_steps(fast, x, [7, 1, 1, 2, 1], memory)
    assert (stepped - wanted).std() < NEAR[dtype] * wanted_size
    if dtype == torch.float32:
        torch.testing.assert_close(stepped, wanted, rtol=1e-4, atol=1e-4)
    else:
        assert not torch.equal(whole, wanted)
    assert whole.dtype == torch.float32


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
@pytest.mark.parametrize("kind", sorted(STACKS))
def test_keys_and_values_are_kept_as_products_give_them(kind, dtype):
    fast, memory = packed(stack_of(kind), dtype), memory_for(kind)
    kept_in = torch.float32 if dtype == torch.float32 else torch.bfloat16
    kept = None if memory is None else fast.remember(memory)
    cache = fast.new_cache(2)
    fast(torch.randn(2, 3, 64), positions=cache.begin(3), cache=cache, memory=kept)
    assert {part.dtype for part in cache.append(0, *torch.zeros(2, 2, *cache_shape(fast)))} == {kept_in}
    if kept is not None:
        assert {part.dtype for layer in kept.layers for part in layer} == {kept_in}


@needs_onednn
@torch.inference_mode()
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
@pytest.mark.parametrize("rows", [1, 300])
def test_a_fused_activation_is_torchs(activation, rows):
    torch.manual_seed(0)
    plain = FeedForward(48, 200, activation=activation, bias=True)
    x = 3 * torch.randn(1, rows, 48)
    torch.testing.assert_close(PackedFeedForward(plain, torch.float32)(x), plain(x), rtol=0, atol=5e-6)


@torch.inference_mode()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(64, 32), (20, 7), (1, 1), (33, 130)])
def test_eight_bits_say_what_their_weights_say_exactly_of_few_rows_and_of_many(sizes, bias):
    torch.manual_seed(0)
    linear = nn.Linear(*sizes, bias=bias)
    linear.weight[0] = 0
    fast = PackedInt8Linear(linear)
    rounded = fast.weight[:, : sizes[0]].double() * fast.scales[:, None].double()
    assert (rounded - linear.weight).abs().amax() <= 0.51 * fast.scales.amax()
    x = torch.randn(3, 17, sizes[0])
    wanted = x.bfloat16().double() @ rounded.T + (linear.bias.double() if bias else 0)
    torch.testing.assert_close(fast(x).double(), wanted, rtol=0.01, atol=0.02)
    for row in (x[:1, :1], x[:1, :5], x[:0]):
        torch.testing.assert_close(fast(row).double(), wanted[: len(row), : row.shape[1]], rtol=0.01, atol=0.02)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", FORMATS, ids=str)
def test_a_row_does_not_depend_on_those_beside_it(dtype):
    fast = packed(stack_of("as T5's"), dtype)
    x = torch.randn(3, 4, 64)
    x[1:] *= 100
    alone, beside = fast(x[:1], is_causal=True), fast(x, is_causal=True)[:1]
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.02)
