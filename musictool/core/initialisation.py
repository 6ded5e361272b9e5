"""Fresh weights as MusicGen's own code draws them: what goes through a layer keeps its size, and later layers add less.

For models whose blocks are plain; a family whose published weights began otherwise draws its own.
"""

from __future__ import annotations

from torch import nn

from musictool.core.codebooks import CodebookEmbedding
from musictool.core.transformer import Transformer


def draw_linears(module: nn.Module, scale: float = 1.0) -> None:
    """Draw the weights of all linear layers in a module.

    Args:
        module: a layer, or what holds some.
        scale: size of what comes out, where what goes in has size 1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=scale * layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def draw_blocks(transformer: Transformer) -> None:
    """Draw the weights of all blocks; block n, from 1, adds (2 n) ** -0.5 of what it sees."""
    for number, block in enumerate(transformer.blocks, 1):
        draw_linears(block, (2 * number) ** -0.5)


def draw_codes(embedding: CodebookEmbedding, size: float) -> None:
    """Draw the tables of codes.

    Args:
        embedding: of K codebooks.
        size: root mean square of what a step is read as, the sum of K entries.
    """
    nn.init.normal_(embedding.table.weight, std=size * len(embedding.first) ** -0.5)
