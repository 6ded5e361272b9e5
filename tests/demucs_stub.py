"""A stand-in for Demucs: a model that takes half of the sound out, and says how it was called."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


def install_demucs(monkeypatch: pytest.MonkeyPatch, share: float = 0.25) -> list[tuple[int, ...]]:
    """Put it where Demucs is imported from; the shapes that its model is applied to are collected."""
    shapes: list[tuple[int, ...]] = []

    def get_model(name: str, repo: Any = None) -> SimpleNamespace:
        if name == "nonsense":
            raise RuntimeError("nonsense is neither a single pre-trained model or a bag of models.")
        return SimpleNamespace(sources=["drums", "other", "vocals"], samplerate=44_100, audio_channels=2)

    def apply_model(model: SimpleNamespace, mix: torch.Tensor, **options: Any) -> torch.Tensor:
        assert options["shifts"] == 0  # else random numbers would decide
        shapes.append(tuple(mix.shape))
        rest = (1 - share) / 2
        return torch.stack([mix * rest, mix * share, mix * rest], dim=1)

    package, apply, pretrained = (ModuleType(f"demucs{name}") for name in ("", ".apply", ".pretrained"))
    apply.apply_model, pretrained.get_model = apply_model, get_model
    for module in (package, apply, pretrained):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return shapes


def remove_demucs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let imports of Demucs fail."""
    monkeypatch.setitem(sys.modules, "demucs", None)
    monkeypatch.delitem(sys.modules, "demucs.apply", raising=False)
