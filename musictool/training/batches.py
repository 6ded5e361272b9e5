"""Which examples a step uses, and the feed that makes them ahead of time.

Example i is a pure function of the recipe, the seed and i. A step uses the next G = batch size x accumulation x
processes of them, and process r takes as its a-th batch those from step * G + (a * processes + r) * batch size on. So
a run goes on from any step, two processes see what one sees that accumulates twice as much, and the number of workers
changes nothing.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from musictool.errors import MusicToolError
from musictool.training.curriculum import section_at

if TYPE_CHECKING:
    from torch import Tensor

    from musictool.training.recipe import Recipe
    from musictool.training.task import Task


class BatchPlace(NamedTuple):
    """Where a batch stands in a run.

    Attributes:
        step: that uses it, from 0.
        first: number of its first example.
    """

    step: int
    first: int


@dataclass(frozen=True)
class BatchOrder(Sampler[BatchPlace]):
    """The batches of one process from a step on.

    Attributes:
        start: the first step.
        steps: where the run ends.
        batch_size: examples of a batch.
        accumulation: batches of a step.
        processes: how many train together.
        process: which of them this is.
    """

    start: int
    steps: int
    batch_size: int
    accumulation: int = 1
    processes: int = 1
    process: int = 0

    def __iter__(self) -> Iterator[BatchPlace]:
        for step in range(self.start, self.steps):
            for number in range(self.accumulation):
                batches = (step * self.accumulation + number) * self.processes + self.process
                yield BatchPlace(step, batches * self.batch_size)

    def __len__(self) -> int:
        return max(0, self.steps - self.start) * self.accumulation


class Batches(Dataset[Any]):
    """Batches by their place; an expected failure is a batch's value, since a loader would wrap it in a traceback."""

    def __init__(self, task: Task, recipe: Recipe) -> None:
        self._task = task
        self._data = recipe.data
        self._curriculum = recipe.curriculum
        self._batch_size = recipe.run.batch_size

    def __getitem__(self, place: BatchPlace) -> dict[str, Tensor] | MusicToolError:
        data = section_at(self._data, "data", self._curriculum, place.step)
        try:
            examples = [self._task.example(place.first + number, data) for number in range(self._batch_size)]
            return self._task.collate(examples)
        except MusicToolError as error:
            return error


class Feed:
    """The batches of one process in their order, made ahead of time, in worker processes if the recipe has any.

    Workers run on one thread each. They ignore the signals that stop a run, since the step that is being taken then is
    finished first, so that the feed must be closed for them to end; they also end when the process that started them
    is gone.

    Args:
        task: makes examples.
        recipe: all numbers.
        order: of the batches.
        pins_memory: whether batches lie where a GPU fetches them faster.
    """

    def __init__(self, task: Task, recipe: Recipe, order: BatchOrder, *, pins_memory: bool) -> None:
        workers = recipe.run.workers
        loader = DataLoader(
            Batches(task, recipe),
            batch_size=None,
            sampler=order,
            num_workers=workers,
            pin_memory=pins_memory,
            worker_init_fn=_ignore_signals,
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            generator=torch.Generator(),  # else it would draw from the one that dropout draws from
        )
        self._batches: Any = iter(loader)

    def next(self) -> dict[str, Tensor]:
        """The next batch, on the CPU.

        Raises:
            MusicToolError: it cannot be made.
        """
        batch: dict[str, Tensor] | MusicToolError = next(self._batches)
        if isinstance(batch, MusicToolError):
            raise batch
        return batch

    def close(self) -> None:
        """End the workers. torch does so when nothing refers to the iterator any more, but a traceback may."""
        if hasattr(self._batches, "_shutdown_workers"):
            self._batches._shutdown_workers()


def _ignore_signals(worker: int) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
