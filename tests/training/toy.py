"""A task that takes milliseconds: a small network learns to name the loudest of a few numbers.

python -m tests.training.toy train RECIPE.toml -o RUN/      mtk, with the toy among its tasks
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from musictool.errors import InputError
from musictool.models.registry import FAMILIES, Family
from musictool.training.task import TASKS, TaskEntry


@dataclass(frozen=True)
class ToyConfig:
    family: ClassVar[str] = "toy"

    width: int = 16
    dropout: float = 0.0


class Toy(nn.Module):
    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        self.position = nn.Embedding(8, config.width)
        self.inner = nn.Linear(8, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, 8)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(x) + (x.unsqueeze(-1) * self.position.weight).sum(-2)
        return self.head(self.dropout(torch.relu(self.norm(hidden))))


@dataclass(frozen=True)
class Noise:
    level: float = 0.1


@dataclass(frozen=True)
class ToyData:
    train: tuple[str, ...] = ("here",)
    valid: tuple[str, ...] = ("here",)
    contrast: float = 3.0
    nap_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    fail_at: int = -1
    nan_at: int = -1
    noise: Noise = field(default_factory=Noise)


@dataclass(frozen=True)
class ToyLoss:
    smoothing: float = 0.0


class ToyTask:
    data_class = ToyData
    loss_class = ToyLoss
    families = ("toy",)

    def __init__(self, model_config: ToyConfig, data: ToyData, loss: ToyLoss, seed: int) -> None:
        self._data = data
        self._seed = seed

    def check(self) -> None:
        for corpus in self._data.train:
            if corpus != "here":
                raise InputError("no such file or folder", context=corpus, hint="make one", code="no-such-file")

    def example(self, index: int, data: ToyData) -> tuple[np.ndarray, int]:
        if index == data.fail_at:
            raise InputError("the sound is damaged", context="take.wav")
        time.sleep(data.nap_seconds)
        generator = np.random.default_rng([self._seed, index])
        x = generator.normal(0, data.noise.level, 8).astype(np.float32)
        answer = int(generator.integers(8))
        x[answer] += data.contrast if index != data.nan_at else np.nan
        return x, answer

    def collate(self, examples: list[Any]) -> dict[str, Tensor]:
        numbers, answers = zip(*examples, strict=True)
        return {"x": torch.from_numpy(np.stack(numbers)), "answers": torch.tensor(answers)}

    def loss(self, model: nn.Module, batch: dict[str, Tensor], loss: ToyLoss) -> tuple[Tensor, dict[str, Tensor]]:
        logits = model(batch["x"])
        value = nn.functional.cross_entropy(logits, batch["answers"], label_smoothing=loss.smoothing)
        return value, {"entropy": value.detach(), "size": logits.detach().square().mean()}

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        end = time.monotonic() + self._data.evaluation_seconds
        while time.monotonic() < end:
            time.sleep(0.01)
        if not self._data.valid:
            return {}
        batch = self.collate([self.example(index, ToyData()) for index in range(10**6, 10**6 + 64)])
        logits = model(batch["x"])
        right = (logits.argmax(-1) == batch["answers"]).float().mean()
        return {"loss": float(nn.functional.cross_entropy(logits, batch["answers"])), "accuracy": float(right)}

    def amounts(self, batch: dict[str, Tensor]) -> dict[str, float]:
        return {"numbers": float(batch["x"].numel())}


def register(put: Callable[[dict[str, Any], str, Any], None] = dict.__setitem__) -> None:
    """Put the toy among the tasks and the families; with pytest's `monkeypatch.setitem`, until the test ends."""
    put(TASKS, "toy", TaskEntry("tests.training.toy", "ToyTask"))
    put(FAMILIES, "toy", Family("tests.training.toy", "ToyConfig", "Toy", ""))


if __name__ == "__main__":
    from musictool.cli.main import main

    register()
    sys.exit(main())
