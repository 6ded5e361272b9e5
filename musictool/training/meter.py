"""What a stretch of training steps amounted to: losses, norms, speed, time spent waiting for data.

Figures stay on the device until somebody asks, so that a GPU is not made to wait at every step. Asking also finds out
whether training has diverged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from musictool.errors import MusicToolError

Averager = Callable[[Tensor], Tensor]
"""Turns figures of this process into the mean over all processes."""


class DivergedError(MusicToolError):
    """The loss or the gradient is no number any more."""

    default_code = "diverged"

    def __init__(self, what: str, step: int, *, hint: str = "", context: str = "", code: str = "") -> None:
        super().__init__(f"the {what} is no number at step {step}", context=context, hint=hint, code=code)
        self.what = what
        self.step = step


class Meter:
    """Gathers figures, step by step, and gives their means.

    Args:
        average: over processes.
        processes: how many train together.
        checks_norms: whether a gradient that is no number means that training has diverged; with fp16 it does not.
    """

    def __init__(self, average: Averager, processes: int, *, checks_norms: bool) -> None:
        self._average = average
        self._processes = processes
        self._checks_norms = checks_norms
        self._step = 0
        self._batch_losses: list[Tensor] = []
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._reset()

    def begin(self) -> None:
        """Start the clock of a stretch."""
        self._reset()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Time spent waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is no training: evaluations and saves."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._begin += time.perf_counter() - start

    def count_batch(self, loss: Tensor, parts: Mapping[str, Tensor], amounts: Mapping[str, float]) -> None:
        """Take a batch's loss, its parts, and how much the batch held."""
        self._batch_losses.append(loss.detach())
        for name, value in parts.items():
            total = self._parts.get(name)
            self._parts[name] = value if total is None else total + value
        self._batches += 1
        for name, amount in amounts.items():
            self._amounts[name] = self._amounts.get(name, 0.0) + amount

    def count_step(self, step: int, norm: Tensor) -> None:
        """Close a step, of which all batches have been counted; its number and its gradient's norm."""
        losses, self._batch_losses = self._batch_losses, []
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).mean()
        self._pending.append((step, loss, norm))

    @property
    def steps_unsettled(self) -> int:
        """Steps whose figures are still on the device."""
        return len(self._pending)

    def settle(self) -> None:
        """Fetch what is on the device; all processes at the same step.

        Raises:
            DivergedError: a loss, or a gradient's norm, is no number.
        """
        if not self._pending:
            return
        numbers, losses, norms = zip(*self._pending, strict=True)
        self._pending = []
        figures = self._average(torch.stack([torch.stack(losses).float(), torch.stack(norms).float()]))
        for step, loss, norm in zip(numbers, *figures.tolist(), strict=True):
            if not math.isfinite(loss):
                raise DivergedError("loss", step)
            if self._checks_norms and not math.isfinite(norm):
                raise DivergedError("gradient", step)
            self._loss += loss
            self._norm += norm
            self._steps += 1

    def take(self) -> dict[str, float]:
        """The means since the last call, and begin anew; all processes at the same step."""
        self.settle()
        steps = max(1, self._steps)
        record = {"loss": self._loss / steps}
        if self._parts:
            means = self._average(torch.stack([value.float() for value in self._parts.values()]) / self._batches)
            record |= {f"loss/{name}": mean for name, mean in zip(self._parts, means.tolist(), strict=True)}
        record["gradient_norm"] = self._norm / steps
        seconds = max(time.perf_counter() - self._begin, 1e-9)
        record["steps_per_second"] = self._steps / seconds
        for name, amount in self._amounts.items():
            record[f"{name}_per_second"] = amount * self._processes / seconds
        record["data_wait_share"] = min(1.0, self._waited / seconds)
        self._reset()
        return record

    def _reset(self) -> None:
        self._loss = 0.0
        self._norm = 0.0
        self._steps = 0
        self._batches = 0
        self._parts: dict[str, Tensor] = {}
        self._amounts: dict[str, float] = {}
        self._waited = 0.0
        self._begin = time.perf_counter()
