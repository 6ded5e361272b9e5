"""MT3 as PyTorch ports of it have it: T5 of `transformers`, with frames for input and its own `generate()`.

The numbers of a port are the `config.json` of our export, and its weights are ours under the export's names, so that
what is the same here is the same for whoever reads an export. Nothing of `musictool.core` is in it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.models.t5.modeling_t5 import T5Stack

from musictool.models.mt3 import MT3
from musictool.models.registry import foreign_names

LONGEST = 2048
NOT_IN_AN_EXPORT = {"encoder.embed_tokens.weight"}  # of an untied one: the encoder reads frames alone
NOT_IN_T5 = {"decoder_embed_tokens.weight"}  # what some ports call the token embedding


def sinusoids(steps: int, width: int) -> np.ndarray:
    """Positions as `t5x` and MT3 fill their table: float32 [T, D]."""
    table = np.zeros((steps, width), np.float32)
    position = np.arange(steps)[:, np.newaxis]
    scale = -np.log(10_000.0) / (width // 2 - 1)
    term = np.exp(np.arange(0, width // 2) * scale)
    table[:, : width // 2] = np.sin(position * term)
    table[:, width // 2 : 2 * (width // 2)] = np.cos(position * term)
    return table


class SinusoidalStack(T5Stack):
    """T5's encoder or decoder with fixed positions on its input, and none in its attention."""

    def __init__(self, config: T5Config) -> None:
        super().__init__(config)
        first = self.block[0].layer[0].SelfAttention
        first.has_relative_attention_bias = False
        del first.relative_attention_bias
        self.register_buffer("pos_emb", torch.from_numpy(sinusoids(LONGEST, config.d_model)), persistent=False)

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        **others: object,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        x = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        start = 0 if past_key_values is None else past_key_values.get_seq_length()
        x = x + self.pos_emb[start : start + x.shape[1]]
        return super().forward(inputs_embeds=x, past_key_values=past_key_values, **others)


class Port(T5ForConditionalGeneration):
    """T5 over frames, with T5's relative positions and its output tied to the token embedding.

    Args:
        config: T5's.
        bins: M.
    """

    def __init__(self, config: T5Config, bins: int) -> None:
        super().__init__(config)
        self.proj = nn.Linear(bins, config.d_model, bias=False)

    def score(self, frames: Tensor, ids: Tensor) -> Tensor:
        """Teacher-forced logits, float [B, T, V], of frames, float [B, S, M], and ids, int64 [B, T]."""
        return self(inputs_embeds=self.proj(frames), decoder_input_ids=ids).logits

    @torch.inference_mode()
    def transcribe(self, frames: Tensor, tokens_max: int) -> list[list[int]]:
        """The likeliest ids of each stretch of frames, float [B, S, M]: without the start id, with the end id."""
        end = self.config.eos_token_id
        options = {"max_new_tokens": tokens_max, "do_sample": False, "num_beams": 1, "use_cache": True}
        rows = self.generate(inputs_embeds=self.proj(frames), **options)[:, 1:].tolist()
        return [row[: row.index(end) + 1] if end in row else row for row in rows]


class SinusoidalPort(Port):
    """The published checkpoint's shape: fixed positions, and an output layer of its own."""

    _tied_weights_keys = {"decoder.embed_tokens.weight": "shared.weight"}  # noqa: RUF012

    def __init__(self, config: T5Config, bins: int) -> None:
        super().__init__(config, bins)
        self.encoder = SinusoidalStack(self.encoder.config)
        self.decoder = SinusoidalStack(self.decoder.config)
        self.decoder.embed_tokens = self.shared
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)


def build_port(model: MT3) -> Port:
    """A port with a model's weights, in evaluation mode."""
    names = foreign_names(model.config)["huggingface"]
    config = T5Config.from_dict(dict(names.config))
    kind = SinusoidalPort if model.config.positions == "sinusoidal" else Port
    port = kind(config, model.config.front_end.bins)
    loaded = port.load_state_dict(names.to_theirs(model.state_dict()), strict=False)
    if set(loaded.missing_keys) - NOT_IN_AN_EXPORT or set(loaded.unexpected_keys) - NOT_IN_T5:
        raise ValueError(f"the export does not fit T5: {loaded}")
    return port.eval()
