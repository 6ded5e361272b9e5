"""Whole sounds in our streams against the `encodec` package and transformers: segments, loudness, fades, lengths."""

from __future__ import annotations

import random
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from musictool.checkpoints.checkpoint import Checkpoint, stored_in_memory
from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.store import Store
from musictool.inference.codec_streaming import CodeBlock, CodecModel, Decoder, Encoder, load_codec
from musictool.models.codec import CodecConfig
from musictool.models.registry import foreign_names, load_preset
from tests.models.codec_oracle import PUBLISHED, package_model, small, sound, transformers_model

SOUND_TOLERANCE = 1e-4
SEGMENT, STRIDE = 48_000, 47_520


def codec_of(theirs: Any, layout: str, config: CodecConfig, folder: Path) -> CodecModel:
    """Our codec with another library's weights, as it is loaded to be used."""
    checkpoint = Checkpoint(folder, "torch", stored_in_memory(theirs.state_dict()))
    ours, _ = foreign_names(config)[layout].to_ours(checkpoint)
    store = Store(folder / "home")
    store.folder_for("codec").mkdir(parents=True)
    tensors = {name: tensor.read() for name, tensor in ours.tensors.items()}
    write_native(store.folder_for("codec"), tensors, ModelFacts("codec", "codec", asdict(config)), "")
    return load_codec("codec", "cpu", store=store)


def pieces(length: int, seed: int) -> list[slice]:
    """A length cut at random."""
    generator = random.Random(seed)
    cuts = sorted({0, length, *(generator.randrange(length + 1) for _ in range(6))})
    return [slice(start, end) for start, end in pairwise(cuts)]


def encoded(codec: CodecModel, audio: Tensor, levels: int) -> CodeBlock:
    encoder = Encoder(codec, levels)
    blocks = [block for piece in pieces(audio.shape[-1], 1) for block in encoder.push(audio[0, :, piece].numpy())]
    blocks += encoder.finish()
    assert encoder.samples == audio.shape[-1]
    return CodeBlock(
        np.concatenate([block.codes for block in blocks], 1), np.concatenate([block.scales for block in blocks])
    )


def decoded(codec: CodecModel, codes: np.ndarray, scales: np.ndarray, samples: int) -> np.ndarray:
    """Sound of codes that come cut at random, with all scales at the start."""
    decoder = Decoder(codec)
    sounds = []
    for piece in pieces(codes.shape[1], 2):
        sounds.append(decoder.push(CodeBlock(codes[:, piece], scales)))
        scales = scales[:0]
    return np.concatenate([*sounds, decoder.finish(samples)], 1)


def assert_close(ours: np.ndarray, theirs: Tensor) -> None:
    wanted = theirs.numpy()
    assert ours.shape == wanted.shape
    assert np.abs(ours - wanted).max() <= SOUND_TOLERANCE
    assert wanted.shape[1] < 1000 or np.std(wanted) > 0.05, "sound that tells nothing"


def lengths(config: CodecConfig) -> list[int]:
    if config.segment_samples is None:
        return [1, config.hop_samples + 1, 2 * config.rate_hz + 321]
    # less than a segment; one; two of which the second is short; three of which the second is, too; four
    return [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * STRIDE + 100, 2 * STRIDE + 479, 2 * STRIDE + 481, 3 * SEGMENT]


@torch.no_grad()
def assert_same_as_package(config: CodecConfig, folder: Path, samples: list[int]) -> None:
    theirs = package_model(config)
    codec = codec_of(theirs, "encodec", config, folder)
    for length in samples:
        audio = sound(config, length)
        for kbps in config.bandwidths_kbps:
            theirs.set_target_bandwidth(kbps)
            frames = theirs.encode(audio)
            codes = torch.cat([codes[0] for codes, _ in frames], 1).numpy()
            scales = np.array([scale.item() for _, scale in frames if scale is not None], np.float32)
            ours = encoded(codec, audio, config.levels_for(kbps))
            assert np.array_equal(ours.codes, codes), (length, kbps)
            np.testing.assert_allclose(ours.scales, scales, rtol=1e-6)
            assert_close(decoded(codec, codes, scales, length), theirs.decode(frames)[0, :, :length])


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_sound_in_pieces_has_the_codes_and_the_sound_that_the_package_gives_the_whole(tmp_path, preset):
    assert_same_as_package(small(preset), tmp_path, lengths(small(preset)))


@pytest.mark.slow
@pytest.mark.parametrize("preset", PUBLISHED)
def test_models_as_large_as_the_published_ones_agree_on_whole_sounds(tmp_path, preset):
    config = load_preset(preset)
    assert_same_as_package(config, tmp_path, lengths(config)[1:5])


@torch.no_grad()
def test_transformers_agrees_wherever_it_can_stack_its_segments(tmp_path):
    config = small("encodec-48khz")
    theirs = transformers_model(config)
    codec = codec_of(theirs, "huggingface", config, tmp_path)
    for length in (1, SEGMENT, SEGMENT + 1, 2 * STRIDE + 481, 3 * SEGMENT):
        audio = sound(config, length)
        for kbps in config.bandwidths_kbps:
            told = theirs.encode(audio, bandwidth=kbps)
            frames = [codes[0] for codes in told.audio_codes]
            frames[-1] = frames[-1][:, : frames[-1].shape[1] - told.last_frame_pad_length]
            codes = torch.cat(frames, 1).numpy()
            scales = torch.cat([scale.flatten() for scale in told.audio_scales]).numpy()
            ours = encoded(codec, audio, config.levels_for(kbps))
            assert np.array_equal(ours.codes, codes), (length, kbps)
            np.testing.assert_allclose(ours.scales, scales, rtol=1e-6)
            wanted = theirs.decode(
                told.audio_codes, told.audio_scales, last_frame_pad_length=told.last_frame_pad_length
            ).audio_values
            assert_close(decoded(codec, codes, scales, length), wanted[0, :, :length])
