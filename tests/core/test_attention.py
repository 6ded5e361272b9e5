"""Attention, its masks and positions, against plain formulas and against other libraries."""

from __future__ import annotations

import math

import pytest
import torch
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.t5.modeling_t5 import T5Attention

from musictool.core.attention import Attention, Sight, causal_mask, combine_masks, padding_mask
from musictool.core.positions import DistanceBias, RelativeBias, Rotary, rotate, sinusoids


def plain_attention(module: Attention, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Softmax attention row by row, written out."""
    scale = module.head_width**-0.5 if module.scale is None else module.scale
    rows = []
    for b in range(len(x)):
        heads = []
        for h in range(module.heads):
            part = slice(h * module.head_width, (h + 1) * module.head_width)
            query = x[b] @ module.query.weight[part].T
            keys, values = memory[b] @ module.key.weight[part].T, memory[b] @ module.value.weight[part].T
            scores = (query @ keys.T * scale).masked_fill(~mask[b], -math.inf)
            heads.append(scores.softmax(-1) @ values)
        rows.append(torch.cat(heads, dim=-1) @ module.output.weight.T)
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_attention_equals_the_formula(scale):
    torch.manual_seed(0)
    module = Attention(24, 3, 5, scale=scale)
    x = torch.randn(2, 7, 24)
    mask = padding_mask(torch.tensor([7, 4]), 7)[:, None, :] & causal_mask(7)
    got = module(x, Sight(mask[:, None]))
    torch.testing.assert_close(got, plain_attention(module, x, x, mask), atol=1e-5, rtol=1e-5)


def test_attention_to_a_projected_memory_equals_the_formula():
    torch.manual_seed(1)
    module = Attention(24, 3, memory_width=10)
    x, memory = torch.randn(2, 3, 24), torch.randn(2, 9, 10)
    mask = torch.ones(2, 3, 9, dtype=torch.bool)
    expected = plain_attention(module, x, memory, mask)
    torch.testing.assert_close(module.attend(x, module.project(memory)), expected, atol=1e-5, rtol=1e-5)


def test_causal_flag_equals_causal_mask():
    torch.manual_seed(2)
    module = Attention(16, 2)
    x = torch.randn(2, 6, 16)
    torch.testing.assert_close(module(x, Sight(is_causal=True)), module(x, Sight(causal_mask(6))))


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="no multiple"):
        Attention(10, 3)


def test_masks_and_bias_combine_into_one():
    bias = torch.randn(1, 2, 3, 3)
    visible = combine_masks(torch.tensor([True, True, False]), None, causal_mask(3), bias=bias)
    expected = bias.masked_fill(~torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 0]], dtype=torch.bool), -math.inf)
    assert torch.equal(visible, expected)
    assert combine_masks(None, None) is None
    assert torch.equal(combine_masks(None, bias=bias), bias)


def test_sinusoids_are_those_of_t5x():
    table = sinusoids(50, 8)
    for step in (0, 1, 49):
        for i in range(4):
            angle = step * 10_000 ** (-i / 3)  # the last frequency is 1 / 10000 exactly
            assert table[step, i] == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[step, 4 + i] == pytest.approx(math.cos(angle), abs=1e-5)


def test_rotary_equals_that_of_transformers():
    torch.manual_seed(3)
    query, keys = torch.randn(2, 3, 9, 8), torch.randn(2, 3, 9, 8)
    rotation = Rotary(8)(torch.arange(9))
    cosine, sine = (torch.cat([part, part], dim=-1).expand(2, -1, -1) for part in rotation)
    expected = apply_rotary_pos_emb(query, keys, cosine, sine)
    torch.testing.assert_close((rotate(query, rotation), rotate(keys, rotation)), expected)


def test_rotated_products_depend_on_distance_alone():
    rotary, query, key = Rotary(16), torch.randn(1, 1, 1, 16), torch.randn(1, 1, 1, 16)

    def product(at: int, other: int) -> float:
        turned = rotate(query, rotary(torch.tensor([[at]]))), rotate(key, rotary(torch.tensor([[other]])))
        return float((turned[0] * turned[1]).sum())

    assert product(3, 10) == pytest.approx(product(503, 510), abs=1e-3)
    assert product(3, 10) != pytest.approx(product(3, 11), abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rotary_positions_stay_exact_in_a_model_of_16_bits(dtype):
    positions = torch.arange(0, 3000, 7)
    rotation = torch.nn.Sequential(Rotary(64)).to(dtype)[0](positions)
    angle = positions[:, None] * 10_000.0 ** (-torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    torch.testing.assert_close(rotation.cosine, angle.cos().float(), atol=5e-4, rtol=0)
    torch.testing.assert_close(rotation.sine, angle.sin().float(), atol=5e-4, rtol=0)


@pytest.mark.parametrize("is_bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "distance_max"), [(32, 128), (8, 20)])
def test_relative_buckets_equal_those_of_transformers(is_bidirectional, buckets, distance_max):
    bias = RelativeBias(1, buckets=buckets, distance_max=distance_max, is_bidirectional=is_bidirectional)
    distance = torch.arange(-400, 401)
    expected = T5Attention._relative_position_bucket(distance, is_bidirectional, buckets, distance_max)
    assert torch.equal(bias._bucket(distance), expected)


def test_relative_bias_is_the_table_at_each_distance():
    bias = RelativeBias(2, buckets=8, distance_max=16, is_bidirectional=False)
    with torch.no_grad():
        bias.weight.copy_(torch.randn(8, 2))
    at = bias(torch.tensor([[5], [9]]), torch.arange(10))
    assert at.shape == (2, 2, 1, 10)
    assert torch.equal(at[1, :, 0, 9], bias.weight[0])
    assert torch.equal(at[0, :, 0, 3], bias.weight[2])


def test_distance_bias_is_that_of_the_paper_both_ways():
    bias = DistanceBias(8)(torch.arange(5), torch.arange(7))
    assert bias.shape == (1, 8, 5, 7)
    distance = (torch.arange(7) - torch.arange(5)[:, None]).abs()
    for head, slope in enumerate([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]):
        assert torch.equal(bias[0, head], -slope * distance)
    rows = DistanceBias(8)(torch.tensor([[3], [0]]), torch.arange(7))
    assert torch.equal(rows, torch.stack([bias[0, :, 3:4], bias[0, :, :1]]))
