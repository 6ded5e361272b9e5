"""Our codecs against the `encodec` package and transformers: the same weights give the same codes and sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musictool.checkpoints.formats import open_checkpoint
from musictool.models.codec import Codec, CodecConfig
from musictool.models.registry import build_model, foreign_names, load_preset
from tests.models.codec_oracle import PUBLISHED, package_model, small, sound, transformers_model

SOUND_TOLERANCE = 1e-4


def ours(path: Path, layout: str, config: CodecConfig) -> Codec:
    """Our model with the weights of another library's file."""
    checkpoint, _ = foreign_names(config)[layout].to_ours(open_checkpoint(path))
    assert not checkpoint.unreadable
    model = build_model(config).eval()
    model.load_state_dict({name: tensor.read() for name, tensor in checkpoint.tensors.items()})
    return model


def lengths(config: CodecConfig, seconds: float) -> list[int]:
    """Less than a hop, a hop and more, odd, and long; none longer than a segment."""
    hop = config.hop_samples
    return [1, 7, hop - 1, hop, hop + 1, 2 * hop + 37, 13 * hop, int(seconds * config.rate_hz) | 1]


@torch.no_grad()
def assert_same(config: CodecConfig, model: Codec, theirs: Any, theirs_decode: Any, seconds: float) -> None:
    """Codes of every length at every bit rate, and the sound that they decode to."""
    for samples in lengths(config, seconds):
        audio = sound(config, samples)
        for kbps in config.bandwidths_kbps:
            codes = theirs(audio, kbps)
            assert torch.equal(model.encode(audio, config.levels_for(kbps)), codes), (samples, kbps)
            wanted = theirs_decode(codes)
            difference = (model.decode(codes) - wanted).abs().max()
            assert difference <= SOUND_TOLERANCE, (samples, kbps, difference)
    assert codes.unique().numel() > 0.25 * min(config.codebook_size, codes.numel()), "codes that tell nothing"
    assert wanted.std() > 0.05, "sound that tells nothing"


def assert_same_as_package(config: CodecConfig, folder: Path, seconds: float) -> None:
    theirs = package_model(config)
    torch.save(theirs.state_dict(), folder / "x.th")

    def encode(audio: Tensor, kbps: float) -> Tensor:
        codes: Tensor = theirs.quantizer.encode(theirs.encoder(audio), theirs.frame_rate, kbps)
        return codes.transpose(0, 1)

    def decode(codes: Tensor) -> Tensor:
        audio: Tensor = theirs.decoder(theirs.quantizer.decode(codes.transpose(0, 1)))
        return audio

    assert_same(config, ours(folder / "x.th", "encodec", config), encode, decode, seconds)


def assert_same_as_transformers(config: CodecConfig, folder: Path, seconds: float) -> None:
    theirs = transformers_model(config)
    theirs.save_pretrained(folder / "x")

    def encode(audio: Tensor, kbps: float) -> Tensor:
        codes: Tensor = theirs.quantizer.encode(theirs.encoder(audio), kbps)
        return codes.transpose(0, 1)

    def decode(codes: Tensor) -> Tensor:
        audio: Tensor = theirs.decoder(theirs.quantizer.decode(codes.transpose(0, 1)))
        return audio

    assert_same(config, ours(folder / "x", "huggingface", config), encode, decode, seconds)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_weights_of_the_package_give_its_codes_and_its_sound(tmp_path, preset):
    assert_same_as_package(small(preset), tmp_path, 0.5)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_weights_of_transformers_give_its_codes_and_its_sound(tmp_path, preset):
    assert_same_as_transformers(small(preset), tmp_path, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize("same", [assert_same_as_package, assert_same_as_transformers])
def test_models_as_large_as_the_published_ones_agree(tmp_path, preset, same):
    same(load_preset(preset), tmp_path, 1.0)
