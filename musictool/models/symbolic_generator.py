"""A composer of symbolic music: ids of `symbolic.composing` in, what may come next out.

A decoder-only transformer with rotary positions (Su et al., 2021; arXiv:2104.09864), its output tied to the embedding.
All that it is told, such as style, key and harmony, are ids among the others, as in Huang and Yang (2020). Knows ids,
and not what they sound like.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import Rotary
from musictool.core.transformer import build_transformer
from musictool.symbolic.composing import LANGUAGE, STYLES_MAX


@dataclass(frozen=True)
class SymbolicGeneratorConfig:
    """The numbers of a symbolic generator.

    Attributes:
        width, heads, hidden, layers: D, H, F and how many.
        context: T, the most ids it looks back on.
        vocabulary: V, ids of the language.
        styles: names, in the order of their numbers.
        dropout: everywhere, in training; attention without one is much faster on a CPU.

    Raises:
        ValueError: numbers do not go together.
    """

    family: ClassVar[str] = "symbolic-generator"

    width: int = 256
    heads: int = 4
    hidden: int = 1024
    layers: int = 6
    context: int = 1024
    vocabulary: int = len(LANGUAGE)
    styles: tuple[str, ...] = ()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width < 1 or self.width % (2 * self.heads):
            raise ValueError(f"{self.heads} heads can't share a width of {self.width}, an even one each")
        if self.vocabulary != len(LANGUAGE):
            raise ValueError(f"the language has {len(LANGUAGE)} ids, not {self.vocabulary}")
        if self.context < 16 or self.layers < 1 or self.hidden < 1:
            raise ValueError("a context is of 16 ids at least, layers and hidden of 1")
        if len(set(self.styles)) != len(self.styles) or len(self.styles) > STYLES_MAX:
            raise ValueError(f"styles are at most {STYLES_MAX}, each with a name of its own")


class SymbolicGenerator(nn.Module):
    """The model.

    Args:
        config: its numbers.
    """

    def __init__(self, config: SymbolicGeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.decoder = build_transformer(
            config.layers,
            config.width,
            config.heads,
            config.hidden,
            activation="gelu",
            is_gated=False,
            dropout=config.dropout,
            rotary=Rotary(config.width // config.heads),
        )
        self._initialise()

    def _initialise(self) -> None:
        """Draw fresh weights: what a layer adds is the smaller, the more of them there are."""
        nn.init.normal_(self.embedding.weight, std=self.config.width**-0.5)
        for name, weight in self.decoder.named_parameters():
            if weight.dim() == 2:
                is_last = name.endswith(("output.weight", "down.weight"))
                scale = (2 * self.config.layers) ** -0.5 if is_last else 1.0
                nn.init.normal_(weight, std=scale * weight.shape[1] ** -0.5)

    def new_cache(self, rows: int, *, capacity: int = 64, is_static: bool = False) -> KVCache:
        """An empty cache for so many rows."""
        return self.decoder.new_cache(rows, capacity=capacity, is_static=is_static)

    def decode(
        self,
        ids: Tensor,
        memory: Memory | None = None,
        *,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Score what comes after each id.

        Args:
            ids: int64 [B, T].
            memory: there is none; all that is told stands among the ids.
            cache: holds what comes before; its step has begun, and the caller commits it.
            positions: int64 [B, T], what the cache's `begin` gave; without a cache, 0..T-1.

        Returns:
            Logits, float [B, T, V].
        """
        x = self.embedding(ids) * self.config.width**0.5
        states = self.decoder(x, is_causal=True, positions=positions, cache=cache)
        return functional.linear(states, self.embedding.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Teacher-forced logits, float [B, T, V], of ids, int64 [B, T], that begin with a header."""
        return self.decode(ids)
