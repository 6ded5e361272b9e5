"""Small random models that make codes, in a store, with all that they need beside them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from musictool.audio.spectrogram import LogMelConfig
from musictool.checkpoints.native import ModelFacts, write_native
from musictool.inference.subwords import train_subwords
from musictool.models.codec import CodecConfig
from musictool.models.personaljazz import PersonalJazz, PersonalJazzConfig
from musictool.models.saxgpt import SaxGPT, SaxGPTConfig
from musictool.models.style_encoder import StyleEncoder, StyleEncoderConfig, TowerConfig
from tests.small_models import install_codec

CODEC = CodecConfig(
    rate_hz=800,
    width=16,
    filters=4,
    ratios=(4, 2),
    lstm_layers=1,
    pad_mode="constant",
    codebooks=6,
    codebook_size=32,
)
"""Of 100 frames a second."""

SMALL_SAXGPT = SaxGPTConfig(
    width=16,
    heads=2,
    hidden=24,
    encoder_layers=1,
    decoder_layers=2,
    codebook_size=32,
    codec="codec-800hz",
    positions=64,
)
SMALL_PERSONALJAZZ = PersonalJazzConfig(
    width=16,
    heads=2,
    hidden=24,
    layers=2,
    codebooks=6,
    codebook_size=32,
    codec="codec-800hz",
    style_encoder="small-style",
    frames_max=50,
)
_TOWER = TowerConfig(width=16, heads=2, hidden=24, layers=1)
SMALL_STYLE_ENCODER = StyleEncoderConfig(
    vocabulary=300,
    text=_TOWER,
    audio=_TOWER,
    front_end=LogMelConfig(rate_hz=8000, window_samples=512, hop_samples=160, bins=24, low_hz=40.0, high_hz=3800.0),
    window_seconds=1.0,
)


def install(home: Path, name: str, model: nn.Module, config: Any, source: dict[str, str] | None = None) -> Path:
    """Write a model to a store, with weights that make its choices differ; gives its folder."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(2 * noise * parameter.shape[1] ** -0.5)
    folder = home / "models" / name
    folder.mkdir(parents=True)
    values = asdict(config)
    write_native(folder, model.state_dict(), ModelFacts(config.family, name, values, source=source or {}), "Random.\n")
    return folder


def install_models(home: Path) -> None:
    """Write a random SaxGPT, a random PersonalJazz and their codec to a store."""
    install_codec(home, SMALL_SAXGPT.codec, CODEC)
    install(home, "saxgpt", SaxGPT(SMALL_SAXGPT), SMALL_SAXGPT)
    install(home, "personaljazz", PersonalJazz(SMALL_PERSONALJAZZ), SMALL_PERSONALJAZZ)
    install(home, "small-style", StyleEncoder(SMALL_STYLE_ENCODER), SMALL_STYLE_ENCODER)
    tokenizer = train_subwords(["slow jazz for two", "a fast waltz"], SMALL_STYLE_ENCODER.vocabulary)
    (home / "models" / "small-style" / "tokenizer.json").write_text(tokenizer.to_json())


def save_tokenizer(folder: Path) -> None:
    """Write a tokenizer as T5's are, of at most 50 ids, to a folder of `transformers`."""
    import tokenizers
    import transformers

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0), ("\u2581jazz", -3.0), ("ing", -3.0)]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
