"""PersonalJazz: a style in, codes of a codec out, frame by frame.

One decoder with rotary positions writes K codes a frame in the delay pattern. The style is a vector, such as the style
encoder makes of words or of sound, and stands as a step before the codes. A vector of zeros is no style: a learned
step stands in its place, which is what guidance compares with. Knows codes: what they are of is the codec's, what a
style means is the style encoder's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from musictool.core.codebooks import CodebookEmbedding, CodebookHeads, delay_pattern
from musictool.core.feed_forward import Activation
from musictool.core.initialisation import draw_blocks, draw_codes, draw_linears
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import Rotary
from musictool.core.transformer import build_transformer


@dataclass(frozen=True)
class PersonalJazzConfig:
    """The numbers of a PersonalJazz.

    Attributes:
        width, heads, hidden, layers: D, H, F of the layers, and how many.
        activation: of their feed-forward.
        codebooks: K.
        codebook_size: V, codes of each; the special id is the one after them.
        codec: preset of the codec whose codes they are.
        style_encoder: name of the model that makes styles of words and sound; empty where there is none.
        style_width: of the vector that says the style.
        frames_max: what it learns from at once, and is to see at most; nothing breaks beyond.
        dropout: in training.

    Raises:
        ValueError: numbers do not go together.
    """

    family: ClassVar[str] = "personaljazz"

    width: int = 1024
    heads: int = 16
    hidden: int = 4096
    layers: int = 24
    activation: Activation = "gelu"
    codebooks: int = 8
    codebook_size: int = 2048
    codec: str = "personaljazz-48khz"
    style_encoder: str = "style-encoder"
    style_width: int = 512
    frames_max: int = 2250
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(f"a width of {self.width} can't be shared by {self.heads} heads in pairs")
        if min(self.codebooks, self.codebook_size, self.style_width, self.frames_max) < 1:
            raise ValueError("codebooks, codebook_size, style_width and frames_max are at least 1")

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.codebook_size


class StyleStep(nn.Module):
    """What stands before the codes.

    Args:
        style_width: S.
        width: D.

    Attributes:
        none: float [D], what stands before those of a piece without a style.
    """

    def __init__(self, style_width: int, width: int) -> None:
        super().__init__()
        self.projection = nn.Linear(style_width, width, bias=False)
        self.none = nn.Parameter(torch.empty(width))
        draw_linears(self.projection, style_width**0.5)  # of a vector of length 1, a step of size 1
        nn.init.normal_(self.none)

    def forward(self, style: Tensor) -> Tensor:
        """Styles, float [B, S], zeros where there is none, to steps, float [B, 1, D]."""
        is_given = style.any(-1, keepdim=True)
        return torch.where(is_given, self.projection(style.to(self.none.dtype)), self.none)[:, None]


class PersonalJazz(nn.Module):
    """The model; a style and codes in, logits out.

    Args:
        config: its numbers.

    Attributes:
        pattern: at which step each code stands.
    """

    def __init__(self, config: PersonalJazzConfig) -> None:
        super().__init__()
        self.config = config
        self.pattern = delay_pattern(config.codebooks)
        self.style = StyleStep(config.style_width, config.width)
        self.embedding = CodebookEmbedding(config.codebooks, config.codebook_size + 1, config.width)
        self.decoder = build_transformer(
            config.layers,
            config.width,
            config.heads,
            config.hidden,
            activation=config.activation,
            is_gated=False,
            dropout=config.dropout,
            rotary=Rotary(config.width // config.heads),
        )
        self.heads = CodebookHeads(config.width, config.codebooks, config.codebook_size)
        draw_blocks(self.decoder)
        draw_linears(self.heads)
        draw_codes(self.embedding, 1.0)

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.config.special_id

    def with_and_without(self, style: Tensor) -> Tensor:
        """Styles of all pieces, float [B, S], and after them none for as many pieces: [2 B, S]."""
        return torch.cat([style, torch.zeros_like(style)])

    def start(self, style: Tensor, *, capacity: int = 64, is_static: bool = False) -> tuple[KVCache, None]:
        """Make ready to decode step by step: a cache, in which the style stands, and nothing beside it.

        Args:
            style: float [B, S] of B pieces; zeros for a piece without one.
            capacity: steps of codes to make room for.
            is_static: as for a `KVCache`.
        """
        cache = self.decoder.new_cache(len(style), capacity=capacity + 1, is_static=is_static)
        self.decoder(self.style(style), positions=cache.begin(1), cache=cache)
        cache.commit(1)
        return cache, None

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        """Score what stands at the step after each.

        Args:
            ids: int64 [B, K, T], in the pattern.
            memory: none; the style stands in the cache.
            cache: holds what comes before these steps; its step has begun, and the caller commits it.
            positions: int64 [B, T], what the cache's `begin` gave.

        Returns:
            Logits, float [B, K, T, V].
        """
        return self.heads(self.decoder(self.embedding(ids), positions=positions, cache=cache))

    def forward(self, ids: Tensor, style: Tensor) -> Tensor:
        """Teacher-forced logits, float [B, K, T, V], of steps, int64 [B, K, T], in styles, float [B, S]."""
        x = torch.cat([self.style(style), self.embedding(ids)], dim=1)
        return self.heads(self.decoder(x, is_causal=True)[:, 1:])
