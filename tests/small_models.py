"""Small random models in a store, for tests of what is built around a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.models.mt3 import MT3, MT3Config

SMALL_MT3 = MT3Config(width=16, heads=2, head_width=8, hidden=32, encoder_layers=1, decoder_layers=2, tokens_max=24)
"""Over the real vocabulary and front end; its sequences seldom end by themselves."""


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
