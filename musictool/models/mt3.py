"""MT3: log-mel frames of a stretch of sound -> ids of the notes in it (Gardner et al., 2022; arXiv:2111.03017).

A T5 1.1 encoder-decoder over continuous input. The published checkpoint (`mt3`) has fixed sinusoidal positions and
three tensors of its own for frames, tokens and output; the variant that its descriptions tell of (`mt3-relative`) has
T5's relative bias and an output tied to the token embedding (Raffel et al., 2020, section 2.1). Attention scores are
not scaled, nothing has a bias, and no step of the encoder is masked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from musictool.audio.spectrogram import LogMelConfig
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import RelativeBias, sinusoids
from musictool.core.transformer import Transformer, build_transformer

PositionsName = Literal["sinusoidal", "relative"]


@dataclass(frozen=True)
class MT3Config:
    """The numbers of an MT3.

    Attributes:
        width, heads, head_width, hidden: D, H, P and F of every layer.
        encoder_layers, decoder_layers: how many.
        vocabulary: V, rows of the token embedding.
        positions: fixed and added to the input, or relative and added to attention scores.
        ties_output: the output layer is the token embedding, scaled by 1 / sqrt(D).
        relative_buckets, relative_distance_max: of relative positions.
        dropout: everywhere, in training.
        segment_frames: T of the encoder.
        tokens_max: the longest run of ids.
        start_id, end_id: what the decoder begins with, and what it ends with.
        front_end: the spectrogram.
    """

    family: ClassVar[str] = "mt3"

    width: int = 512
    heads: int = 6
    head_width: int = 64
    hidden: int = 1024
    encoder_layers: int = 8
    decoder_layers: int = 8
    vocabulary: int = 1536
    positions: PositionsName = "sinusoidal"
    ties_output: bool = False
    relative_buckets: int = 32
    relative_distance_max: int = 128
    dropout: float = 0.1
    segment_frames: int = 256
    tokens_max: int = 1024
    start_id: int = 0
    end_id: int = 1
    front_end: LogMelConfig = field(default_factory=LogMelConfig)

    @property
    def segment_samples(self) -> int:
        """Samples in a segment of sound."""
        return self.segment_frames * self.front_end.hop_samples


class MT3(nn.Module):
    """The model; ids in, logits out.

    Args:
        config: its numbers.
    """

    positions: Tensor | None

    def __init__(self, config: MT3Config) -> None:
        super().__init__()
        self.config = config
        self.frame_projection = nn.Linear(config.front_end.bins, config.width, bias=False)
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.encoder = self._build_stack(is_decoder=False)
        self.decoder = self._build_stack(is_decoder=True)
        self.head = None if config.ties_output else nn.Linear(config.width, config.vocabulary, bias=False)
        steps = max(config.segment_frames, config.tokens_max) if config.positions == "sinusoidal" else 0
        table = sinusoids(steps, config.width) if steps else None
        self.register_buffer("positions", table, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        """Draw fresh weights as T5X does, so that what goes through a layer keeps its size."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                deviation = module.in_features**-0.5
                if name.endswith("_attention.query"):  # scores are not scaled, so queries begin the smaller
                    deviation *= self.config.head_width**-0.5
                nn.init.normal_(module.weight, std=deviation)
        nn.init.normal_(self.token_embedding.weight)

    def _build_stack(self, *, is_decoder: bool) -> Transformer:
        config = self.config
        bias = None
        if config.positions == "relative":
            bias = RelativeBias(
                config.heads,
                buckets=config.relative_buckets,
                distance_max=config.relative_distance_max,
                is_bidirectional=not is_decoder,
            )
        return build_transformer(
            config.decoder_layers if is_decoder else config.encoder_layers,
            config.width,
            config.heads,
            config.hidden,
            head_width=config.head_width,
            attends_to_memory=is_decoder,
            scale=1.0,
            dropout=config.dropout,
            position_bias=bias,
        )

    def encode(self, frames: Tensor) -> Tensor:
        """What the encoder makes of log-mel frames, float [B, S, M]: float [B, S, D]."""
        x = self.frame_projection(frames)
        encoded: Tensor = self.encoder(x if self.positions is None else x + self.positions[: x.shape[1]])
        return encoded

    def remember(self, frames: Tensor) -> Memory:
        """Encode frames, float [B, S, M], into what the decoder attends to."""
        return self.decoder.remember(self.encode(frames))

    def new_cache(self, rows: int, *, capacity: int = 64, is_static: bool = False) -> KVCache:
        """An empty cache of the decoder's."""
        return self.decoder.new_cache(rows, capacity=capacity, is_static=is_static)

    def decode(
        self, ids: Tensor, memory: Memory, *, cache: KVCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Score what comes after each id.

        Args:
            ids: int64 [B, T], beginning with the start id.
            memory: of B rows.
            cache: holds the ids before these; its step has begun, and the caller commits it.
            positions: int64 [B, T], what the cache's `begin` gave; without a cache, 0..T-1.

        Returns:
            Logits, float [B, T, V].
        """
        x = self.token_embedding(ids)
        if self.positions is not None:
            x = x + (self.positions[: x.shape[1]] if positions is None else self.positions[positions])
        x = self.decoder(x, is_causal=True, positions=positions, cache=cache, memory=memory)
        if self.head is None:
            return (x * self.config.width**-0.5) @ self.token_embedding.weight.T
        return self.head(x)

    def forward(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Teacher-forced logits, float [B, T, V], of frames, float [B, S, M], and ids, int64 [B, T]."""
        return self.decode(ids, self.remember(frames))
