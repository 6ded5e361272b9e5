"""The training loop: steps, figures, evaluations, saves; on one process or many.

accelerate does what differs between devices, number formats and numbers of processes. The loop knows neither the task
nor the command line: records go to a function that it is given, and a signal ends it after the step that is being
taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from musictool.errors import UsageError
from musictool.training.averaging import AveragedWeights, GatheredWeights, PublishedWeights
from musictool.training.batches import BatchOrder, Feed
from musictool.training.freezing import modules_at_rest
from musictool.training.interrupts import Interruption, Interrupts
from musictool.training.meter import DivergedError, Meter
from musictool.training.optimisers import build_optimiser, set_rates
from musictool.training.run_state import RunState
from musictool.training.runs import EVALUATION_PREFIX, RunFolder
from musictool.training.saving import Checkpoints, ModelWriter
from musictool.training.schedules import scheduled_factor
from musictool.training.task import accompany

if TYPE_CHECKING:
    from accelerate import Accelerator

    from musictool.training.recipe import Recipe
    from musictool.training.task import Task

Record = dict[str, Any]
_SETTLED_EVERY = 500
"""Steps after which figures are fetched from the device at the latest."""


@dataclass(frozen=True)
class Keeping:
    """Where the loop's results go.

    Attributes:
        folder: of the run.
        write_model: writes a model to an empty folder, given the steps done and the figures of the last evaluation.
        record: takes a line of the metrics file.
    """

    folder: RunFolder
    write_model: Callable[[nn.Module, int, dict[str, float], Path], None]
    record: Callable[[Record], None]


class Trainer:
    """Trains a model as a recipe says.

    Args:
        accelerator: of the recipe's precision and accumulation.
        recipe: all numbers.
        task: makes batches and losses.
        model: with the weights to begin with; it is moved to the accelerator's device.
        keeping: where results go.
        interrupts: says when to end early.

    Attributes:
        state: how far the run is.
        parameters: how many numbers are trained.
        ending: why it ended; empty while it has not.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        recipe: Recipe,
        task: Task,
        model: nn.Module,
        keeping: Keeping,
        interrupts: Interrupts,
    ) -> None:
        self._accelerator = accelerator
        self._recipe = recipe
        self._run = recipe.run
        self._task = task
        self._keeping = keeping
        self._interrupts = interrupts
        self.state = RunState(processes=accelerator.num_processes)
        self.ending = ""
        model.to(accelerator.device)
        self.parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        self._published = self._publish(model)
        self._resting = modules_at_rest(model, recipe)
        trained = self._accompany(model)
        own = set(model.parameters())
        self._companions = [parameter for parameter in trained.parameters() if parameter not in own]
        optimiser = build_optimiser(trained, recipe.optimiser, model)
        self._model, self._optimiser = accelerator.prepare(trained, optimiser)
        self._parameters = list((self._model if trained is model else model).parameters())
        accelerator.register_for_checkpointing(self.state, self._published)
        self._checkpoints = Checkpoints(accelerator, keeping.folder, recipe.run.keep)
        self._meter = Meter(self._mean, accelerator.num_processes, checks_norms=recipe.run.precision != "fp16")
        self._figures: dict[str, float] = {}
        self._learning_rate = 0.0
        self._saved_step = 0
        self._saved_at = 0.0

    def _publish(self, model: nn.Module) -> PublishedWeights:
        """The copy of a model that is to be evaluated and saved."""
        if not self._accelerator.is_fsdp2:
            return AveragedWeights(model, self._run.ema_decay)
        if self._recipe.adapter is not None:
            raise UsageError("adapters are not trained with FSDP", hint="launch it without")
        if self._run.ema_decay:
            hint = "set run.ema_decay=0, or train without FSDP"
            raise UsageError("weights that are spread over processes are not averaged", hint=hint)
        return GatheredWeights(model, lambda: self._accelerator.get_state_dict(self._model))

    def _accompany(self, model: nn.Module) -> nn.Module:
        """All that is to be trained, on the accelerator's device."""
        trained = accompany(self._task, model, is_fresh="from" not in self._recipe.model)
        if trained is not model and self._accelerator.is_fsdp2:
            raise UsageError(f"task {self._recipe.task} is not trained with FSDP", hint="launch it without")
        return trained.to(self._accelerator.device)

    def resume(self, step: int) -> None:
        """Go on from the checkpoint after a step, as if nothing had been in between.

        Raises:
            InputError: it is damaged.
            UsageError: it was trained by another number of processes.
        """
        self._checkpoints.load(step)
        self._saved_step = step
        if self.state.processes != self._accelerator.num_processes:
            raise UsageError(
                f"the run was begun by {self.state.processes} processes, not {self._accelerator.num_processes}",
                context=str(self._keeping.folder.path),
                hint="go on with as many, or begin another run with model.from",
            )
        if self._lacks_evaluation:
            return
        if self._is_over:
            self.ending = "done"
        elif self.state.has_stalled(self._run):
            self.ending = "no gain"

    @property
    def _is_over(self) -> bool:
        return self.state.step >= self._run.steps

    @property
    def _lacks_evaluation(self) -> bool:
        """Whether one is due, and a signal came before it was done."""
        is_due = self._is_due(self._run.evaluate_every) or self._is_over
        return is_due and self.state.evaluated_step < self.state.step

    def steps(self) -> Iterator[int]:
        """Train to the end, or until a signal comes.

        Yields:
            How many steps are done, after each.

        Raises:
            DivergedError: the loss is no number any more; nothing of that is saved.
            InputError: a batch cannot be made, or a checkpoint cannot be written.
        """
        order = BatchOrder(
            self.state.step,
            self._run.steps,
            self._run.batch_size,
            self._run.accumulation,
            self._accelerator.num_processes,
            self._accelerator.process_index,
        )
        is_cuda = self._accelerator.device.type == "cuda"
        feed = Feed(self._task, self._recipe, order, pins_memory=is_cuda)
        seconds_before, begin = self.state.seconds, time.monotonic()
        self._saved_at = begin
        self._begin_training()
        with closing(feed):
            if self._lacks_evaluation:
                self._evaluate()
            self._meter.begin()
            while not self.ending and not self._is_over:
                self._step(feed)
                self.state.seconds = seconds_before + time.monotonic() - begin
                self._after_step()
                yield self.state.step
        self.ending = self.ending or "done"

    def _begin_training(self) -> None:
        self._model.train()
        for module in self._resting:
            module.eval()

    def _step(self, feed: Feed) -> None:
        """Change the weights once."""
        step = self.state.step
        recipe = self._recipe.at(step)
        factor = scheduled_factor(recipe.schedule, step, self._run.steps) * self.state.plateau_factor
        set_rates(self._optimiser, recipe.optimiser, factor)
        self._learning_rate = recipe.optimiser.learning_rate * factor
        for _ in range(self._run.accumulation):
            batch = self._next(feed)
            with self._accelerator.accumulate(self._model):
                loss, parts = self._task.loss(self._model, batch, recipe.loss)
                self._accelerator.backward(loss)
            self._meter.count_batch(loss, parts, self._task.amounts(batch))
        longest = recipe.optimiser.clip_norm or float("inf")
        norm = self._accelerator.clip_grad_norm_(self._parameters, longest)
        nn.utils.clip_grad_norm_(self._companions, longest)
        if self._accelerator.is_fsdp2:
            norm = norm.full_tensor()
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._published.follow()
        self.state.step = step + 1
        self._meter.count_step(self.state.step, norm)

    def _next(self, feed: Feed) -> dict[str, Tensor]:
        """The next batch, on the model's device."""
        with self._meter.waiting():
            batch = feed.next()
        return {name: value.to(self._accelerator.device, non_blocking=True) for name, value in batch.items()}

    def _after_step(self) -> None:
        """Whatever is due after a step."""
        signal, is_save_due = self._agree()
        if self._is_due(self._run.log_every) or self._is_over:
            self._log()
        elif self._meter.steps_unsettled >= _SETTLED_EVERY:
            self._settle()
        if self._lacks_evaluation and not signal:
            self._evaluate()
            signal, _ = self._agree()
        if signal:
            self.ending = "interrupted"
        elif self._is_over and self.state.gains.best is None:
            self._save_best()  # nothing was evaluated: the last is the best there is
        if is_save_due or self._is_due(self._run.save_every) or self._is_over or self.ending:
            self._save()

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.state.step % every == 0

    def _agree(self) -> tuple[int, bool]:
        """The signal that came to any process, if one did, and whether it is time for a save."""
        minutes = self._run.save_minutes
        is_save_due = minutes > 0 and time.monotonic() - self._saved_at >= minutes * 60
        if self._accelerator.num_processes == 1:
            return self._interrupts.number, is_save_due
        flags = torch.tensor([self._interrupts.number, int(is_save_due)], device=self._accelerator.device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        signal, save = flags.tolist()
        self._interrupts.number = signal
        return signal, bool(save)

    def _log(self) -> None:
        record: Record = {"step": self.state.step, "seconds": round(self.state.seconds, 3)}
        self._settle()
        figures = self._meter.take()
        record |= {"loss": figures.pop("loss"), "learning_rate": self._learning_rate, **figures}
        self._tell(record)

    def _settle(self) -> None:
        """Fetch figures from the device.

        Raises:
            DivergedError: training has diverged; with what to do about it.
        """
        try:
            self._meter.settle()
        except DivergedError as error:
            hint = "lower optimiser.learning_rate or lengthen schedule.warmup_steps"
            if self._run.precision != "fp32":
                hint += ", or try run.precision=fp32"
            if self._saved_step:
                kept = self._keeping.folder.checkpoint(self._saved_step)
                hint += f'; a new run with model.from="{kept}" goes on from before'
            raise DivergedError(error.what, error.step, context=str(self._keeping.folder.path), hint=hint) from None

    def _evaluate(self) -> None:
        """Judge the weights; a signal meanwhile breaks it off, and it is done when the run goes on."""
        self._settle()
        figures: dict[str, float] | None = None
        with self._meter.paused():
            model = self._published.current()
            if self._accelerator.is_main_process:
                devices = [self._accelerator.device] if self._accelerator.device.type == "cuda" else []
                try:
                    with self._interrupts.breaking_in(), torch.no_grad(), torch.random.fork_rng(devices):
                        figures = self._task.evaluate(model)
                except Interruption:
                    figures = None
            figures = broadcast_object_list([figures])[0]
        if figures is None:
            return
        self.state.evaluated_step = self.state.step
        self._figures = figures
        if figures:
            named = {f"{EVALUATION_PREFIX}{name}": figure for name, figure in figures.items()}
            self._tell({"step": self.state.step, "seconds": round(self.state.seconds, 3), **named})
        self._weigh(figures)

    def _weigh(self, figures: dict[str, float]) -> None:
        """Let the figure that tells the best model say what it has to."""
        needs_figure = self._run.patience > 0 or self._recipe.schedule.kind == "plateau"
        if self._run.best not in figures:
            if not figures and not needs_figure:
                return
            self._save()
            hint = f"there are {', '.join(figures)}" if figures else "name data to evaluate on"
            raise UsageError(f"evaluations have no figure '{self._run.best}' for run.best", hint=hint)
        if self.state.evaluated(figures[self._run.best], self._run, self._recipe.schedule):
            self._save_best()
        if self.state.has_stalled(self._run):
            self.ending = "no gain"

    def _save_best(self) -> None:
        self._settle()
        with self._meter.paused():
            self._checkpoints.save_best(self._model_writer())

    def _save(self) -> None:
        self._settle()
        with self._meter.paused():
            if self.state.step != self._saved_step:
                self._checkpoints.save(self.state.step, self._model_writer())
        self._saved_step, self._saved_at = self.state.step, time.monotonic()

    def _model_writer(self) -> ModelWriter:
        """What writes the model as it is now; all processes ask, and the main one writes."""
        return partial(self._keeping.write_model, self._published.current(), self.state.step, self._figures)

    def _tell(self, record: Record) -> None:
        """Hand a record on, and to the trackers."""
        if self._accelerator.is_main_process:
            self._keeping.record(record)
        self._accelerator.log({name: value for name, value in record.items() if name != "step"}, self.state.step)

    def _mean(self, figures: Tensor) -> Tensor:
        """The mean of figures over all processes."""
        if self._accelerator.num_processes == 1:
            return figures
        mean: Tensor = self._accelerator.reduce(figures, "mean")
        return mean
