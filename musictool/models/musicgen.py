"""MusicGen: text -> codes of a codec, frame by frame (Copet et al., 2023; arXiv:2306.05284).

T5's encoder reads the text, and a decoder with fixed positions writes K codes a frame in the delay pattern. The decoder
attends to the text; in the variants that follow a melody, chroma and text stand before the codes instead. In stereo,
codebooks of the left and of the right channel alternate. A condition that is not there is all zeros, which is what
guidance compares with. Knows ids and codes: what they are of is the tokenizer's and the codec's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from musictool.core.codebooks import CodebookEmbedding, CodebookHeads, delay_pattern
from musictool.core.feed_forward import Activation
from musictool.core.initialisation import draw_blocks, draw_linears
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import waves
from musictool.core.transformer import build_transformer
from musictool.models.musicgen_parts import TextEncoder, TextEncoderConfig


@dataclass(frozen=True)
class MusicGenConfig:
    """The numbers of a MusicGen.

    Attributes:
        width, heads, hidden, layers: D, H, F of the decoder's layers, and how many.
        activation: of their feed-forward.
        codebooks: K, those of all channels.
        codebook_size: V, codes of each; the special id is the one after them.
        channels: 1, or 2 where the codebooks of left and right alternate.
        codec: preset of the codec that gives a channel its codes; empty where it has none here.
        has_melody: chroma and text stand before the codes, and nothing attends across.
        chroma_bins, chroma_frames: of the melody.
        dropout: in training.
        text: of the text encoder.

    Raises:
        ValueError: numbers do not go together.
    """

    family: ClassVar[str] = "musicgen"

    width: int = 1024
    heads: int = 16
    hidden: int = 4096
    layers: int = 24
    activation: Activation = "gelu"
    codebooks: int = 4
    codebook_size: int = 2048
    channels: int = 1
    codec: str = "encodec-32khz"
    has_melody: bool = False
    chroma_bins: int = 12
    chroma_frames: int = 235
    dropout: float = 0.1
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads or self.width < 4 or self.width % 2:
            raise ValueError(f"a width of {self.width} can't be shared by {self.heads} heads")
        if self.channels not in (1, 2) or self.codebooks < 1 or self.codebooks % self.channels:
            raise ValueError(f"{self.codebooks} codebooks can't be shared by {self.channels} channels")

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.codebook_size


class Conditions(NamedTuple):
    """What pieces are to be like, as the decoder takes it.

    Attributes:
        states: float [B, S, D] of the decoder's width, zeros at padding and where there is no text.
        visible: bool [B, S], False at padding, which is at the end; None where all is to be seen.
    """

    states: Tensor
    visible: Tensor | None = None


class MusicGen(nn.Module):
    """The model; text ids and codes in, logits out.

    Args:
        config: its numbers.

    Attributes:
        pattern: at which step each code stands.
    """

    def __init__(self, config: MusicGenConfig) -> None:
        super().__init__()
        self.config = config
        self.pattern = delay_pattern(config.codebooks, config.channels)
        self.text_encoder = TextEncoder(config.text)
        is_as_wide = config.text.width == config.width
        self.text_projection = nn.Identity() if is_as_wide else nn.Linear(config.text.width, config.width)
        self.chroma_projection = nn.Linear(config.chroma_bins, config.width) if config.has_melody else None
        self.embedding = CodebookEmbedding(config.codebooks, config.codebook_size + 1, config.width)
        self.decoder = build_transformer(
            config.layers,
            config.width,
            config.heads,
            config.hidden,
            norm="layer",
            norm_epsilon=1e-5,
            activation=config.activation,
            is_gated=False,
            attends_to_memory=not config.has_melody,
            dropout=config.dropout,
        )
        self.heads = CodebookHeads(config.width, config.codebooks, config.codebook_size)
        self._initialise()

    def _initialise(self) -> None:
        """Draw fresh weights as MusicGen's own code does: the later a layer, the less it adds."""
        for part in (self.text_projection, self.chroma_projection, self.heads):
            if part is not None:
                draw_linears(part)
        draw_blocks(self.decoder)
        nn.init.normal_(self.embedding.table.weight, std=self.config.width**-0.5)

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.config.special_id

    # ------------------------------------------------------------------------------------------------------ conditions

    def encode_text(self, ids: Tensor, visible: Tensor | None = None, chroma: Tensor | None = None) -> Conditions:
        """Read what pieces are to be like.

        Args:
            ids: int64 [B, S] of text.
            visible: bool [B, S], False at padding; a row of padding alone is no text. None where there is none.
            chroma: float [B, F, C] of a melody, a frame of C = chroma_bins a hop, for a model that follows one. It is
                cut or repeated to the length that the model knows; no melody by default.

        Raises:
            ValueError: a melody for a model that follows none.
        """
        # Attention has to see something: of a row of padding it sees all, and what comes of it is set to zero.
        seen = None if visible is None else visible | ~visible.any(1, keepdim=True)
        states = self.text_projection(self.text_encoder(ids, seen))
        if visible is not None:
            states = states.masked_fill(~visible[..., None], 0)
        if self.chroma_projection is None:
            if chroma is not None:
                raise ValueError("the model follows no melody")
            return Conditions(states, seen)
        melody = self._melody(chroma, states)
        if visible is not None:
            visible = torch.cat([visible.new_ones(melody.shape[:2]), visible], dim=1)
        return Conditions(torch.cat([melody, states], dim=1), visible)

    def with_and_without(self, conditions: Conditions) -> Conditions:
        """Conditions of all pieces, and after them no text and no melody for as many pieces, as long as theirs."""
        states, visible = conditions
        without = torch.zeros_like(states)
        if self.chroma_projection is not None:
            without[:, : self.config.chroma_frames] = self._melody(None, states)
        return Conditions(torch.cat([states, without]), None if visible is None else visible.repeat(2, 1))

    def _melody(self, chroma: Tensor | None, like: Tensor) -> Tensor:
        """A melody at the length that the model knows, float [B, F, D]; of none, if there is none."""
        assert self.chroma_projection is not None
        if chroma is None:
            chroma = like.new_zeros(len(like), 1, self.config.chroma_bins)
            chroma[..., 0] = 1
        frames = self.config.chroma_frames
        projected: Tensor = self.chroma_projection(chroma[:, :frames].to(like.dtype))
        return projected.repeat(1, -(-frames // projected.shape[1]), 1)[:, :frames]

    # ----------------------------------------------------------------------------------------------------------- steps

    def remember(self, conditions: Conditions) -> Memory:
        """Conditions as what the decoder attends to; of a model that does, which is one without a melody."""
        return self.decoder.remember(*conditions)

    def new_cache(self, rows: int, *, capacity: int = 64, is_static: bool = False) -> KVCache:
        """An empty cache of the decoder's."""
        return self.decoder.new_cache(rows, capacity=capacity, is_static=is_static)

    def start(
        self, conditions: Conditions, *, capacity: int = 64, is_static: bool = False
    ) -> tuple[KVCache, Memory | None]:
        """Make ready to decode step by step: a cache, in which stands what comes before the codes, and the memory.

        Args:
            conditions: of B pieces.
            capacity: steps of codes to make room for.
            is_static: as for a `KVCache`.
        """
        rows, steps = conditions.states.shape[:2]
        if not self.config.has_melody:
            return self.new_cache(rows, capacity=capacity, is_static=is_static), self.remember(conditions)
        cache = self.new_cache(rows, capacity=capacity + steps, is_static=is_static)
        positions = cache.begin(steps)
        self.decoder(self._placed(conditions.states, positions), positions=positions, cache=cache)
        cache.commit(steps if conditions.visible is None else conditions.visible.sum(1))
        return cache, None

    def decode(
        self, ids: Tensor, memory: Memory | None, *, cache: KVCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Score what stands at the step after each.

        Args:
            ids: int64 [B, K, T], in the pattern, beginning with step 0.
            memory: of B rows; None where conditions stand in the cache.
            cache: holds what comes before these steps; its step has begun, and the caller commits it.
            positions: int64 [B, T], what the cache's `begin` gave; without a cache, 0..T-1.

        Returns:
            Logits, float [B, K, T, V].
        """
        if positions is None:
            positions = torch.arange(ids.shape[-1], device=ids.device)
        x = self._placed(self.embedding(ids), positions)
        return self.heads(self.decoder(x, is_causal=True, positions=positions, cache=cache, memory=memory))

    def forward(self, ids: Tensor, conditions: Conditions) -> Tensor:
        """Teacher-forced logits, float [B, K, T, V], of steps, int64 [B, K, T]."""
        if not self.config.has_melody:
            return self.decode(ids, self.remember(conditions))
        states, visible = conditions
        rows, steps, before = len(ids), ids.shape[-1], states.shape[1]
        positions = torch.arange(before + steps, device=ids.device).expand(rows, -1)
        if visible is not None:
            padding = (~visible).sum(1, keepdim=True)
            positions = torch.where(positions < before, positions, positions - padding)
            visible = torch.cat([visible, visible.new_ones(rows, steps)], dim=1)
        x = self._placed(torch.cat([states, self.embedding(ids)], dim=1), positions)
        return self.heads(self.decoder(x, is_causal=True, visible=visible)[:, before:])

    def _placed(self, x: Tensor, positions: Tensor) -> Tensor:
        """Steps, float [B, T, D], that know their positions, int64 [B, T] or [T]."""
        return x + waves(positions, self.config.width).to(x.dtype)
