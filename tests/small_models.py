"""Small random models in a store, for tests of what is built around a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from musictool.audio.spectrogram import LogFrequencyConfig
from musictool.checkpoints.native import ModelFacts, write_native
from musictool.models.codec import Codec, CodecConfig
from musictool.models.mt3 import MT3, MT3Config
from musictool.models.note_tagger import NoteTagger, NoteTaggerConfig
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.models.tatumflow import TatumFlow, TatumFlowConfig

SMALL_MT3 = MT3Config(width=16, heads=2, head_width=8, hidden=32, encoder_layers=1, decoder_layers=2, tokens_max=24)
"""Over the real vocabulary and front end; its sequences seldom end by themselves."""

SMALL_NOTE_TAGGER = NoteTaggerConfig(
    channels=8,
    time_dilations=(1, 3),
    pitch_dilations=(1, 2),
    harmonics=(0.5, 1, 2),
    front_end=LogFrequencyConfig(windows_samples=(2048, 512)),
)
"""Sees what the real one sees, but less far."""

SMALL_TATUMFLOW = TatumFlowConfig(
    styles=("pop", "classical", "jazz", "game"),
    frames_max=32,
    tokens_max=192,
    width=32,
    heads=4,
    hidden=48,
    decoder_layers=1,
    diffusion_layers=1,
    latent_width=8,
    style_width=8,
)
"""Over the real vocabulary and theory; its windows are of 8 s."""

SMALL_SYMBOLIC_GENERATOR = SymbolicGeneratorConfig(
    width=32, heads=2, hidden=64, layers=2, context=96, styles=("pop", "classical", "jazz")
)
"""Over the real language; it looks back on a few bars."""

SMALL_CODEC = CodecConfig(
    width=16,
    filters=4,
    ratios=(5, 4, 2),
    stem_stride=8,
    stem_kernel=32,
    lstm_layers=1,
    pad_mode="constant",
    codebooks=8,
    codebook_size=64,
)
"""With the frame rate of the real one, and 3.6 kbps."""

SMALL_STEREO_CODEC = CodecConfig(
    rate_hz=48_000,
    channels=2,
    width=16,
    filters=4,
    is_causal=False,
    norm="group",
    lstm_layers=0,
    codebooks=4,
    codebook_size=64,
    normalises=True,
    segment_seconds=1.0,
)
"""With segments that overlap, each brought to the same loudness."""


def install_small_mt3(home: Path) -> None:
    """Write a random model to a store, under the name `mt3`; its weights are large, so that its ids vary."""
    torch.manual_seed(1)
    model = MT3(SMALL_MT3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    folder = home / "models" / "mt3"
    folder.mkdir(parents=True)
    write_native(folder, model.state_dict(), ModelFacts("mt3", "mt3", asdict(SMALL_MT3)), "A random model.\n")


def install_small_note_tagger(home: Path) -> None:
    """Write a random model to a store, under the name `note-tagger`; it hears many notes in anything."""
    folder = home / "models" / "note-tagger"
    folder.mkdir(parents=True)
    facts = ModelFacts("note-tagger", "note-tagger", asdict(SMALL_NOTE_TAGGER))
    write_native(folder, random_note_tagger().state_dict(), facts, "A random model.\n")


def random_note_tagger(config: NoteTaggerConfig = SMALL_NOTE_TAGGER) -> NoteTagger:
    """A note tagger whose probabilities spread over 0..1, in evaluation mode."""
    torch.manual_seed(1)
    model = NoteTagger(config)
    with torch.no_grad():
        for block in model.blocks:
            block.near.weight.mul_(8.0)
        model.head.bias.zero_()
    return model.eval()


def install_small_tatumflow(home: Path) -> None:
    """Write a random model to a store, under the name `tatumflow`; it makes some music of any."""
    folder = home / "models" / "tatumflow"
    folder.mkdir(parents=True)
    facts = ModelFacts("tatumflow", "tatumflow-small", asdict(SMALL_TATUMFLOW))
    write_native(folder, random_tatumflow().state_dict(), facts, "A random model.\n")


def random_tatumflow(config: TatumFlowConfig = SMALL_TATUMFLOW) -> TatumFlow:
    """A TatumFlow in which style, theory, source and every id counts, in evaluation mode."""
    torch.manual_seed(1)
    model = TatumFlow(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
        model.decoder.now.weight.mul_(8.0)  # else an id is followed by itself
    return model.eval()


def install_small_symbolic_generator(home: Path) -> None:
    """Write a random model to a store, under the name `symbolic-generator`; style, key and all before count."""
    folder = home / "models" / "symbolic-generator"
    folder.mkdir(parents=True)
    facts = ModelFacts("symbolic-generator", "symbolic-generator", asdict(SMALL_SYMBOLIC_GENERATOR))
    write_native(folder, random_symbolic_generator().state_dict(), facts, "A random model.\n")


def random_symbolic_generator(config: SymbolicGeneratorConfig = SMALL_SYMBOLIC_GENERATOR) -> SymbolicGenerator:
    """A symbolic generator in which all that came before counts, in evaluation mode."""
    torch.manual_seed(1)
    model = SymbolicGenerator(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "blocks" in name and parameter.dim() == 2:
                parameter.mul_(3.0)
    return model.eval()


def install_codec(home: Path, name: str = "codec-24khz", config: CodecConfig = SMALL_CODEC, seed: int = 1) -> Path:
    """Write a random codec to a store; whatever it is given, its codes vary. Gives its folder."""
    torch.manual_seed(seed)
    model = Codec(config)
    with torch.no_grad():
        for codebook in model.quantizer.codebooks:
            codebook.entries.mul_(0.3)
    folder = home / "models" / name
    folder.mkdir(parents=True)
    write_native(folder, model.state_dict(), ModelFacts("codec", name, asdict(config)), "A random codec.\n")
    return folder
