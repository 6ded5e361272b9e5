"""The half of MusicGen that reads text: T5's encoder (Raffel et al., 2020, section 2.1), of core blocks.

Norms without a mean, attention scores without a scale, relative positions that all layers share, no bias anywhere; as
first published with a plain ReLU between, or with a gated GELU as from version 1.1 on. Knows ids, not words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from musictool.core.feed_forward import Activation
from musictool.core.positions import RelativeBias
from musictool.core.transformer import build_transformer


@dataclass(frozen=True)
class TextEncoderConfig:
    """The numbers of a text encoder, by default those of T5-base.

    Attributes:
        vocabulary: V, rows of the token embedding.
        width, heads, head_width, hidden: D, H, P and F of every layer.
        layers: how many.
        activation, is_gated: of the feed-forward.
        relative_buckets, relative_distance_max: of relative positions.
        norm_epsilon: what keeps a norm from dividing by zero.
    """

    vocabulary: int = 32_128
    width: int = 768
    heads: int = 12
    head_width: int = 64
    hidden: int = 3072
    layers: int = 12
    activation: Activation = "relu"
    is_gated: bool = False
    relative_buckets: int = 32
    relative_distance_max: int = 128
    norm_epsilon: float = 1e-6


class TextEncoder(nn.Module):
    """Ids of text to states. It is read, not trained: it drops nothing.

    Args:
        config: its numbers.

    Attributes:
        is_read_only: training leaves its weights as they are.
    """

    is_read_only: ClassVar[bool] = True

    def __init__(self, config: TextEncoderConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.stack = build_transformer(
            config.layers,
            config.width,
            config.heads,
            config.hidden,
            head_width=config.head_width,
            norm_epsilon=config.norm_epsilon,
            activation=config.activation,
            is_gated=config.is_gated,
            scale=1.0,
            position_bias=RelativeBias(
                config.heads, buckets=config.relative_buckets, distance_max=config.relative_distance_max
            ),
        )

    def forward(self, ids: Tensor, visible: Tensor | None = None) -> Tensor:
        """Read text.

        Args:
            ids: int64 [B, S].
            visible: bool [B, S], False at padding, of which no row is all; None where there is none.

        Returns:
            float [B, S, D]; at padding it means nothing.
        """
        states: Tensor = self.stack(self.embedding(ids), visible=visible)
        return states
