"""Made-up pieces of two styles, and a model small enough to learn them in a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musictool.models.tatumflow import TatumFlowConfig
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score

TINY = TatumFlowConfig(
    styles=("high", "low"),
    frames_max=8,
    tokens_max=64,
    width=32,
    heads=4,
    hidden=48,
    encoder_layers=1,
    decoder_layers=1,
    frame_layers=0,
    diffusion_layers=1,
    latent_width=16,
    style_width=6,
)
SCALES = {"high": {"ann": (0, 2, 4, 5, 7, 9, 11), "bob": (1, 3, 6, 8, 10)}, "low": {"cid": (0, 3, 7), "dot": (2, 6, 9)}}


def high(scale: Sequence[int], generator: np.random.Generator) -> Notes:
    """Short loud notes, one after the other, in the treble."""
    onset = np.arange(0, 20, 0.25)
    pitch = 72 + 12 * generator.integers(0, 2, len(onset)) + generator.choice(scale, len(onset))
    return Notes.of(onset, onset + 0.1, pitch, generator.integers(100, 120, len(onset)))


def low(scale: Sequence[int], generator: np.random.Generator) -> Notes:
    """A soft long chord a second, in the bass."""
    onset = np.repeat(np.arange(0.0, 20.0), 3)
    octave = np.repeat(generator.integers(0, 2, 20), 3)
    return Notes.of(onset, onset + 0.9, 36 + 12 * octave + np.tile(scale, 20), generator.integers(30, 50, len(onset)))


def write(path: Path, notes: Notes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(write_midi(Score(notes)))


def write_styles(root: Path) -> Path:
    """Folders `train` and `valid`, each of two styles of two artists each, by three pieces or one."""
    for style, artists in SCALES.items():
        for artist, scale in artists.items():
            for seed, name in enumerate(("train/{}/0", "train/{}/1", "train/{}/2", "valid/{}/3")):
                play = {"high": high, "low": low}[style]
                path = root / f"{name.format(f'{style}/{artist}')}.mid"
                write(path, play(scale, np.random.default_rng(seed)))
    return root


def folders(root: Path, side: str) -> dict[str, tuple[Path, ...]]:
    return {style: (root / side / style,) for style in SCALES}
