"""Fresh weights: what goes through a layer keeps its size, and later layers add less."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musictool.core.codebooks import CodebookEmbedding
from musictool.core.initialisation import draw_blocks, draw_codes, draw_linears
from musictool.core.transformer import build_transformer


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_what_goes_through_a_linear_layer_keeps_its_size(scale):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(400, 300), nn.Linear(300, 500))
    draw_linears(layers, scale)
    with torch.no_grad():
        x = layers[0](torch.randn(50, 400))
        assert x.std().item() == pytest.approx(scale, rel=0.05)
        assert layers[1](x).std().item() == pytest.approx(scale**2, rel=0.05)
    assert not layers[0].bias.any()


def test_later_blocks_add_less():
    torch.manual_seed(0)
    stack = build_transformer(3, 64, 4, 256, attends_to_memory=True, is_gated=False)
    draw_blocks(stack)
    for number, block in enumerate(stack.blocks, 1):
        for part in (block.self_attention.query, block.cross_attention.value, block.feed_forward.up):
            assert part.weight.std().item() == pytest.approx((2 * number * 64) ** -0.5, rel=0.05)


def test_a_step_of_codes_is_of_the_size_that_is_asked_for():
    torch.manual_seed(0)
    embedding = CodebookEmbedding(8, 50, 64)
    draw_codes(embedding, 0.5)
    steps = embedding(torch.randint(0, 50, (1, 8, 200)))
    assert steps.square().mean().sqrt().item() == pytest.approx(0.5, rel=0.05)
