"""MusicGen of `transformers`, small, with random weights that matter, saved as its folders are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

transformers = pytest.importorskip("transformers")

KINDS = ("mono", "stereo", "melody", "stereo melody")
SPECIAL = 32

TEXT = {"vocab_size": 50, "d_model": 20, "d_kv": 6, "d_ff": 28, "num_layers": 2, "num_heads": 3}
NEWER_TEXT = {**TEXT, "d_model": 32, "feed_forward_proj": "gated-gelu"}  # as wide as the decoder: not projected
CODEC = {
    "sampling_rate": 320,
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_dim": 16,
    "codebook_size": SPECIAL,
    "upsampling_ratios": [4, 2],
    "num_lstm_layers": 1,
    "use_causal_conv": False,
    "use_conv_shortcut": False,
    "target_bandwidths": [0.8],
}


def build_port(kind: str, *, text: dict[str, Any] | None = None, seed: int = 0) -> Any:
    """A model of 4 codebooks a channel.

    Args:
        kind: of `KINDS`.
        text: the text encoder's numbers.
        seed: of its weights.
    """
    has_melody, channels = "melody" in kind, 2 if "stereo" in kind else 1
    decoder = {
        "vocab_size": SPECIAL,
        "pad_token_id": SPECIAL,
        "bos_token_id": SPECIAL,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "ffn_dim": 40,
        "num_codebooks": 4 * channels,
        "audio_channels": channels,
    }
    port = build_shapes(
        {
            "model_type": "musicgen_melody" if has_melody else "musicgen",
            "text_encoder": {"model_type": "t5", **(text or TEXT)},
            "audio_encoder": {"model_type": "encodec", **CODEC},
            "decoder": decoder,
            **({"chroma_length": 9} if has_melody else {}),
        }
    )
    _enliven(port, seed)
    return port


def build_shapes(config: dict[str, Any]) -> Any:
    """The model of a `config.json`, with weights as they come."""
    name = "MusicgenMelody" if config["model_type"] == "musicgen_melody" else "Musicgen"
    numbers = getattr(transformers, f"{name}Config")(**config)
    return getattr(transformers, f"{name}ForConditionalGeneration")(numbers).eval()


@torch.no_grad()
def _enliven(port: Any, seed: int) -> None:
    """Weights with which no layer dies out and no choice is close."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in port.named_parameters():
        if name.startswith("audio_encoder"):
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() == 1:
            noise = 0.2 * noise + (0 if name.endswith("bias") else 1)
        elif "embed" not in name and "shared" not in name and "relative" not in name:
            noise *= 1.5 * parameter.shape[1] ** -0.5
        parameter.copy_(noise)


def save(port: Any, folder: Path) -> Path:
    """Write a port as its library does."""
    port.save_pretrained(folder)
    return folder


@torch.inference_mode()
def greedy_codes(port: Any, frames: int, guidance: float | None = None, **conditions: Tensor) -> Tensor:
    """What `generate` hands to the codec, int64 [B, K, T]."""
    channels = port.decoder.config.audio_channels
    heard: list[Tensor] = []
    decode = port.audio_encoder.decode

    def listening(codes: Tensor, *arguments: Any, **others: Any) -> Any:
        heard.append(codes[0])
        return decode(codes, *arguments, **others)

    port.audio_encoder.decode = listening
    try:
        steps = frames + port.decoder.num_codebooks // channels
        port.generate(**conditions, do_sample=False, guidance_scale=guidance, max_new_tokens=steps - 1)
    finally:
        del port.audio_encoder.decode
    return torch.stack(heard, dim=2).flatten(1, 2)  # left and right alternate
