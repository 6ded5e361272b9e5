"""Small random models of codes, for tests of them and of what is built around them."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from musictool.audio.spectrogram import LogMelConfig
from musictool.checkpoints.native import ModelFacts, write_native
from musictool.inference.subwords import TOKENIZER_NAME, train_subwords
from musictool.models.personaljazz import PersonalJazzConfig
from musictool.models.registry import build_model
from musictool.models.saxgpt import SaxGPTConfig
from musictool.models.style_encoder import StyleEncoderConfig, TowerConfig
from tests.small_models import SMALL_CODEC

_SMALL: dict[str, Any] = {
    "width": 32,
    "heads": 4,
    "hidden": 64,
    "codebooks": SMALL_CODEC.codebooks,
    "codebook_size": SMALL_CODEC.codebook_size,
    "codec": "codec-24khz",
}

SMALL_PERSONALJAZZ = PersonalJazzConfig(**_SMALL, layers=3, style_width=12)
"""Over the codes of `small_models.SMALL_CODEC`, and its styles are shorter."""

SMALL_SAXGPT = SaxGPTConfig(**_SMALL, encoder_layers=2, decoder_layers=2, positions=80, distance_bias=True)
"""Over the same codes; it knows a second or so."""

SMALL_STYLE_ENCODER = StyleEncoderConfig(
    style_width=SMALL_PERSONALJAZZ.style_width,
    vocabulary=300,
    tokens_max=16,
    text=TowerConfig(32, 4, 64, 2),
    audio=TowerConfig(32, 4, 64, 2),
    front_end=LogMelConfig(rate_hz=8000, window_samples=512, hop_samples=160, bins=20, low_hz=40.0, high_hz=3800.0),
    window_seconds=1.0,
)
"""Makes styles that `SMALL_PERSONALJAZZ` takes."""


def random_code_model(config: Any) -> nn.Module:
    """A model that makes many codes of any, in evaluation mode."""
    torch.manual_seed(1)
    model = build_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention" in name:  # else what is near counts as much as what is far
                parameter.mul_(2.0)
    return model.eval()


def install_code_model(home: Path, config: Any, name: str = "", **changed: Any) -> Path:
    """Write a random model to a store, under its family's name; gives its folder."""
    config = replace(config, **changed)
    folder = home / "models" / (name or config.family)
    folder.mkdir(parents=True)
    facts = ModelFacts(config.family, config.family, asdict(config))
    write_native(folder, random_code_model(config).state_dict(), facts, "A random model.\n")
    return folder


def install_style_encoder(home: Path, name: str = "style-encoder") -> Path:
    """Write a random style encoder with a tokenizer to a store; gives its folder."""
    torch.manual_seed(1)
    folder = home / "models" / name
    folder.mkdir(parents=True)
    facts = ModelFacts("style-encoder", "style-encoder", asdict(SMALL_STYLE_ENCODER))
    write_native(folder, build_model(SMALL_STYLE_ENCODER).state_dict(), facts, "A random model.\n")
    subwords = train_subwords(["slow blues", "fast bebop", "slow ballad"], SMALL_STYLE_ENCODER.vocabulary)
    (folder / TOKENIZER_NAME).write_text(subwords.to_json(), "utf-8")
    return folder


def random_styles(rows: int, width: int = SMALL_PERSONALJAZZ.style_width, seed: int = 0) -> Tensor:
    """Styles of length 1, float [B, S]."""
    styles = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    return styles / styles.norm(dim=-1, keepdim=True)


def random_backings(*frames: int, config: SaxGPTConfig = SMALL_SAXGPT, seed: int = 0) -> Tensor:
    """Backings of so many frames, one beside the other, int64 [B, K, F]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(frames), config.codebooks, max(frames))
    codes = torch.randint(0, config.codebook_size, shape, generator=generator)
    is_there = torch.arange(max(frames)) < torch.tensor(frames)[:, None, None]
    return codes.where(is_there, config.special_id)
