"""Steps a second of `mtk train` beside a bare torch loop over the same model and the same batch.

The bare loop is what one writes by hand: forward, backward, clipping, AdamW. `mtk train` does the same through
accelerate, and takes its batches from a loader's worker, logs every 50 steps, sets learning rates, looks for signals
and for the time to save. Both train in one process and take turns, a few steps each; what counts is the median ratio
of turns that follow each other. Averaged weights, which the bare loop has not, are told beside it. The toy, of which a
step is nearly nothing, shows what there is around each step: some tenths of a millisecond.

    python -m tests.benchmarks.bench_training [--threads 1] [--turns 10] [--seconds 2.0] [--precision fp32]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from musictool.checkpoints.store import Store
from musictool.inference.precision import find_device
from musictool.training.acceleration import accelerated
from musictool.training.building import build_for
from musictool.training.interrupts import Interrupts
from musictool.training.loop import Keeping, Trainer
from musictool.training.optimisers import build_optimiser
from musictool.training.recipe import Recipe, build_recipe
from musictool.training.runs import RunFolder
from musictool.training.session import plan_task
from tests.training import toy

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = {"steps": 10**9, "workers": 1, "log_every": 50, "evaluate_every": 0, "save_every": 0, "batch_size": 4}
RECIPES: dict[str, dict[str, Any]] = {
    "note-tagging": {"task": "note-tagging", "model": {"preset": "note-tagger"}, "data": {"train": [str(EXAMPLES)]}},
    "toy": {"task": "toy", "model": {"width": 64}},
}
TARGET = 0.9


class FixedBatch:
    """A task of which every batch is the same one, made before the clock runs."""

    def __init__(self, task: Any, recipe: Recipe) -> None:
        self._task = task
        self.batch = task.collate([task.example(index, recipe.data) for index in range(recipe.run.batch_size)])
        self.loss = task.loss
        self.amounts = task.amounts

    def example(self, index: int, data: Any) -> int:
        return index

    def collate(self, examples: list[int]) -> dict[str, Tensor]:
        return self.batch


def bare(model: nn.Module, task: FixedBatch, recipe: Recipe, device: torch.device) -> Iterator[int]:
    """The loop that one writes by hand."""
    model.to(device)
    batch = {name: value.to(device) for name, value in task.batch.items()}
    optimiser = build_optimiser(model, recipe.optimiser)
    is_low = recipe.run.precision == "bf16"
    for step in count(1):
        with torch.autocast(device.type, torch.bfloat16, enabled=is_low):
            loss, _ = task.loss(model, batch, recipe.loss)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.clip_norm)
        optimiser.step()
        optimiser.zero_grad()
        yield step


def steps_a_second(steps: Iterator[int], seconds: float, wait: Callable[[], None]) -> float:
    """Take steps for so long."""
    wait()
    start = time.perf_counter()
    done = 0
    while time.perf_counter() - start < seconds:
        next(steps)
        done += 1
    wait()
    return done / (time.perf_counter() - start)


def measure(name: str, options: argparse.Namespace, *, ema_decay: float) -> None:
    """Print one comparison."""
    settings = (f"run.threads={options.threads}", f"run.precision={options.precision}", f"run.ema_decay={ema_decay}")
    recipe = build_recipe({**RECIPES[name], "run": RUN}, settings)
    device = find_device(options.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    with tempfile.TemporaryDirectory() as path, ExitStack() as stack:
        folder = RunFolder(Path(path))
        plan, own = plan_task(recipe, Store(folder.path))
        task = FixedBatch(own, recipe)
        accelerator = stack.enter_context(accelerated(recipe, device, folder.path))
        keeping = Keeping(folder, lambda *_: None, lambda record: None)
        model = build_for(recipe, plan, Store(folder.path))
        trainer = Trainer(accelerator, recipe, task, model, keeping, Interrupts())
        ours = trainer.steps()
        stack.callback(ours.close)
        theirs = bare(build_for(recipe, plan, Store(folder.path)), task, recipe, device)
        steps_a_second(ours, 1.0, wait)
        steps_a_second(theirs, 1.0, wait)
        pairs = []
        for turn in range(options.turns):
            first, second = (ours, theirs) if turn % 2 else (theirs, ours)
            pair = {id(loop): steps_a_second(loop, options.seconds, wait) for loop in (first, second)}
            pairs.append((pair[id(ours)], pair[id(theirs)]))
    ratio = statistics.median(a / b for a, b in pairs)
    mtk, by_hand = (statistics.median(column) for column in zip(*pairs, strict=True))
    around = statistics.median(1e3 / a - 1e3 / b for a, b in pairs)
    line = f"{name:14} averaged {'yes' if ema_decay else 'no':3}  mtk {mtk:8.2f}, bare {by_hand:8.2f} steps a second"
    verdict = ""
    if name != "toy" and not ema_decay:
        verdict = f", target {TARGET}: {'ok' if ratio >= TARGET else 'UNDER'}"
    print(f"{line}, {around:6.2f} ms a step between them; ratio {ratio:.3f}{verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    toy.register()
    for name in RECIPES:
        for ema_decay in (0.0, 0.999):
            measure(name, options, ema_decay=ema_decay)


if __name__ == "__main__":
    main()
