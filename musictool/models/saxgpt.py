"""SaxGPT: a backing track in, a saxophone's line over it out, both as codes of a codec.

An encoder reads the backing, all K codes of a frame at one step; a decoder writes the lead, frame by frame in the delay
pattern, and attends to what was read. Step 0 of both holds no code, so that what sounds together stands at the same
step, and both look up one table of positions. That alone did not do: after an hour of training the lead looked at all
of the backing alike, and what it said was the same over one that came .4 s later; and an encoder that is taught to
name the notes it reads learned it half as fast. So both look the less at the backing, the farther it is from their own
step. Where there is no backing, the encoder's step 0 is all there is to see, which is what guidance compares with.
Knows codes: what they are of is the codec's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from musictool.core.codebooks import CodebookEmbedding, CodebookHeads, delay_pattern, parallel_pattern
from musictool.core.feed_forward import Activation
from musictool.core.initialisation import draw_blocks, draw_codes, draw_linears
from musictool.core.kv_cache import KVCache, Memory
from musictool.core.positions import DistanceBias, waves
from musictool.core.transformer import Transformer, build_transformer


@dataclass(frozen=True)
class SaxGPTConfig:
    """The numbers of a SaxGPT.

    Attributes:
        width, heads, hidden: D, H, F of every layer.
        encoder_layers, decoder_layers: how many.
        activation: of the feed-forward.
        codebooks: K, those of the backing and those of the lead.
        codebook_size: V, codes of each; the special id is the one after them.
        codec: preset of the codec whose codes they are.
        positions: steps that backing and lead have at most, step 0 counted.
        distance_bias: encoder and decoder look at what is near in the backing more than at what is far. All presets do;
            a model that does not say was trained without.
        dropout: in training.

    Raises:
        ValueError: numbers do not go together.
    """

    family: ClassVar[str] = "saxgpt"

    width: int = 256
    heads: int = 4
    hidden: int = 1024
    encoder_layers: int = 6
    decoder_layers: int = 6
    activation: Activation = "gelu"
    codebooks: int = 4
    codebook_size: int = 2048
    codec: str = "encodec-32khz"
    positions: int = 1505
    distance_bias: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % self.heads or self.width < 4 or self.width % 2:
            raise ValueError(f"a width of {self.width} can't be shared by {self.heads} heads")
        if self.codebooks < 1 or self.codebook_size < 1:
            raise ValueError("codebooks and codebook_size are at least 1")
        if self.frames_max < 1:
            raise ValueError(f"{self.positions} positions have no room for a frame of {self.codebooks} codebooks")

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.codebook_size

    @property
    def frames_max(self) -> int:
        """Frames of backing and lead that there is room for."""
        return self.positions - self.codebooks


class SaxGPT(nn.Module):
    """The model; codes of backing and lead in, logits of the lead's out.

    Args:
        config: its numbers.

    Attributes:
        pattern: at which step each code of the lead stands.
    """

    def __init__(self, config: SaxGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.pattern = delay_pattern(config.codebooks)
        self._backing_pattern = parallel_pattern(config.codebooks)
        self.embedding = CodebookEmbedding(config.codebooks, config.codebook_size + 1, config.width)
        self.positions = nn.Embedding(config.positions, config.width)
        self.encoder = _build_stack(config, config.encoder_layers)
        self.decoder = _build_stack(config, config.decoder_layers, attends_to_memory=True)
        self.heads = CodebookHeads(config.width, config.codebooks, config.codebook_size)
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw fresh weights: codes, once scaled, are of size 1, and positions begin as waves."""
        draw_blocks(self.encoder)
        draw_blocks(self.decoder)
        draw_linears(self.heads)
        draw_codes(self.embedding, self.config.width**-0.5)
        self.positions.weight.copy_(waves(torch.arange(self.config.positions), self.config.width))

    @property
    def special_id(self) -> int:
        """Stands where there is no code."""
        return self.config.special_id

    def remember(self, backing: Tensor) -> Memory:
        """Read a backing.

        Args:
            backing: int64 [B, K, F], frames of codes; frames of special ids, which are at the end, are padding.

        Returns:
            What the decoder attends to, of F + 1 steps.

        Raises:
            ValueError: there are more frames than positions.
        """
        return self.decoder.remember(*self.read_backing(backing))

    def read_backing(self, backing: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of a backing.

        Args:
            backing: as of `remember`.

        Returns:
            States, float [B, F + 1, D], and which of them are of something, bool [B, F + 1]: step 0 is.

        Raises:
            ValueError: there are more frames than positions.
        """
        self._refuse_beyond(backing.shape[-1] + 1)
        steps = self._backing_pattern.spread(backing, self.special_id)
        visible = (steps != self.special_id).any(1)
        visible[:, 0] = True
        places = torch.arange(steps.shape[-1], device=steps.device)
        return self.encoder(self._placed(steps, places), visible=visible), visible

    def with_and_without(self, backing: Tensor) -> Tensor:
        """Backings of all pieces, int64 [B, K, F], and after them none for as many pieces: [2 B, K, F]."""
        return torch.cat([backing, torch.full_like(backing, self.special_id)])

    def start(self, backing: Tensor, *, capacity: int, is_static: bool = False) -> tuple[KVCache, Memory]:
        """Make ready to decode step by step: an empty cache, and what was read of the backing.

        Args:
            backing: as `remember` takes it, of B pieces.
            capacity: steps to make room for; the last of them is said and not read.
            is_static: as for a `KVCache`.

        Raises:
            ValueError: there are not as many positions.
        """
        self._refuse_beyond(capacity - 1)
        return self.decoder.new_cache(len(backing), capacity=capacity, is_static=is_static), self.remember(backing)

    def decode(
        self, ids: Tensor, memory: Memory | None, *, cache: KVCache | None = None, positions: Tensor | None = None
    ) -> Tensor:
        """Score what stands at the step after each.

        Args:
            ids: int64 [B, K, T] of the lead, in the pattern, beginning with step 0.
            memory: of B rows.
            cache: holds what comes before these steps; its step has begun, and the caller commits it.
            positions: int64 [B, T], what the cache's `begin` gave; without a cache, 0..T-1.

        Returns:
            Logits, float [B, K, T, V].
        """
        if positions is None:
            self._refuse_beyond(ids.shape[-1])
            positions = torch.arange(ids.shape[-1], device=ids.device)
        x = self._placed(ids, positions)
        return self.heads(self.decoder(x, is_causal=True, positions=positions, cache=cache, memory=memory))

    def forward(self, ids: Tensor, backing: Tensor) -> Tensor:
        """Teacher-forced logits, float [B, K, T, V], of steps, int64 [B, K, T], over backings, int64 [B, K, F].

        Raises:
            ValueError: there are more steps, or frames, than positions.
        """
        return self.decode(ids, self.remember(backing))

    def _placed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Steps of codes, int64 [B, K, T], that know their positions, int64 [B, T] or [T]: float [B, T, D]."""
        return self.embedding(ids) * self.config.width**0.5 + self.positions(positions)

    def _refuse_beyond(self, steps: int) -> None:
        if steps > self.config.positions:
            raise ValueError(f"{steps} steps, and the model knows {self.config.positions} positions")


def _build_stack(config: SaxGPTConfig, layers: int, *, attends_to_memory: bool = False) -> Transformer:
    nearness = DistanceBias(config.heads) if config.distance_bias else None
    return build_transformer(
        layers,
        config.width,
        config.heads,
        config.hidden,
        norm="layer",
        norm_epsilon=1e-5,
        activation=config.activation,
        is_gated=False,
        attends_to_memory=attends_to_memory,
        dropout=config.dropout,
        position_bias=None if attends_to_memory else nearness,
        memory_bias=nearness if attends_to_memory else None,
    )
