"""Two presets small enough to write and read many times, and checkpoints of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from musictool.checkpoints.store import Store
from musictool.checkpoints.t5x import write_t5x
from musictool.inference import model_description, model_files
from musictool.models import registry

TINY = """
family = "mt3"
width = 8
heads = 2
head_width = 3
hidden = 10
encoder_layers = 1
decoder_layers = 2
vocabulary = 12
segment_frames = 4
tokens_max = 6
relative_buckets = 6
front_end.bins = 5
"""
LAYOUTS = ("native", "t5x", "huggingface", "torch")
"""Those that MT3 has."""

PRESETS = {"tiny": TINY, "tiny-relative": TINY + 'positions = "relative"\nties_output = true\n'}


@pytest.fixture
def presets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """`tiny` and `tiny-relative` in place of the presets that ship."""
    folder = tmp_path_factory.mktemp("presets")
    for name, text in PRESETS.items():
        (folder / f"{name}.toml").write_text(text)
    monkeypatch.setattr(registry, "_PRESET_FOLDER", folder)
    for module in (registry, model_files, model_description):
        monkeypatch.setattr(module, "PRESETS", tuple(PRESETS))
    return tuple(PRESETS)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "home")


def random_weights(preset: str, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a preset by our names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = model_files.expected_shapes(registry.load_preset(preset))
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def in_layout(layout: str, weights: dict[str, Tensor], preset: str) -> dict[str, Tensor]:
    """Weights by another layout's names."""
    return registry.foreign_names(registry.load_preset(preset))[layout].to_theirs(weights)


def t5x_folder(folder: Path, preset: str = "tiny", **changes: Any) -> dict[str, Tensor]:
    """Write a T5X checkpoint of a preset, and give its weights by our names.

    Args:
        folder: it is made.
        preset: the preset's name.
        changes: by T5X's names with `__` for dots, what stands in place of a tensor; None leaves it out.
    """
    weights = random_weights(preset)
    tensors = in_layout("t5x", weights, preset)
    for name, tensor in changes.items():
        assert name.replace("__", ".") in tensors
        tensors[name.replace("__", ".")] = tensor
    folder.mkdir()
    write_t5x(folder, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    return weights
