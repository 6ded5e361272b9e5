"""One run from beginning to end: its folder, its processes, its model, the loop.

What is wrong with a recipe is found before the run's folder is made, and a run that is there is never begun again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate.utils import set_seed
from torch import nn

from musictool import __version__
from musictool.checkpoints.adapters import read_adapter
from musictool.checkpoints.native import ModelFacts, copy_tokenizer, write_facts, write_native
from musictool.config import load_toml
from musictool.errors import MusicToolError, UsageError
from musictool.inference.adapters import check_base
from musictool.inference.model_files import build_bare
from musictool.inference.precision import find_device
from musictool.models.registry import config_to_dict
from musictool.training.acceleration import accelerated, check_abilities
from musictool.training.building import ModelPlan, build_for, plan_model
from musictool.training.freezing import freeze_but
from musictool.training.interrupts import Interrupts
from musictool.training.loop import Keeping, Record, Trainer
from musictool.training.recipe import Recipe, build_recipe, changed_values, recipe_to_toml
from musictool.training.runs import MetricsFile, RunFolder
from musictool.training.saving import clear_leftovers, saved_config
from musictool.training.task import AccompaniedTask, FiledTask, SourcedTask, StoreTask, Task, find_task

if TYPE_CHECKING:
    from musictool.checkpoints.store import Store

Watch = Callable[[Iterator[int], int], AbstractContextManager[Iterator[int]]]
"""Shows how far a run is: takes the steps as they are done and how many there will be, gives the steps on."""


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        recipe: what to train, and how.
        folder: where the run is kept.
        resumes: go on with the run that is there, if one is.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        where: the recipe's name, for errors.
    """

    recipe: Recipe
    folder: RunFolder
    resumes: bool = False
    device: str = "auto"
    where: str = ""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: steps done.
        reason: `done`, `no gain` or `interrupted`.
        signal: the number of the signal that interrupted it, or 0.
        best, best_step: the best figure and where it was reached; None where nothing was evaluated.
        is_main: whether this is the process that speaks for all.
    """

    step: int
    reason: str
    signal: int = 0
    best: float | None = None
    best_step: int = 0
    is_main: bool = True


def train(order: Order, store: Store, report: Callable[[Record], None], watch: Watch) -> Outcome:
    """Train a model.

    Args:
        order: what is asked for.
        store: where models are.
        report: takes each line of the metrics file, on the main process alone.
        watch: shows how far it is, on the main process alone.

    Raises:
        UsageError: the recipe makes no sense, or the run is there and is not to go on, or is one of another recipe.
        InputError: there is no data, or a checkpoint can't be read or written.
        MissingError: there is no model to begin with, or no tracker.
        ResourceError: there is no such device.
        DivergedError: the loss is no number any more.
    """
    recipe, folder = order.recipe, order.folder
    plan, task = plan_task(recipe, store, order.where)
    task.check()
    device = find_device(order.device)
    check_abilities(recipe, device)
    _check_adapters(recipe, plan)
    if recipe.run.trains:
        freeze_but(build_bare(plan.config), recipe.run.trains)
    interrupts = Interrupts()
    has_companions = isinstance(task, AccompaniedTask)
    setting = accelerated(recipe, device, folder.path, has_companions=has_companions)
    with setting as accelerator, interrupts.caught():
        is_main = accelerator.is_main_process
        if is_main:
            _open_folder(order)
        accelerator.wait_for_everyone()
        steps = folder.checkpoint_steps()
        if steps:
            plan = replace(plan, config=saved_config(folder, steps[-1]))
            if recipe.adapter is not None:
                check_base(read_adapter(folder.checkpoint(steps[-1])), plan.origin, plan.origin_sha256)
        model = _build_model(recipe, plan, store)
        with MetricsFile(folder.metrics) if is_main else nullcontext() as metrics:
            files = task.files() if isinstance(task, FiledTask) else {}
            sources = task.sources() if isinstance(task, SourcedTask) else {}
            write_model = partial(_write_model, order, plan, store, files, sources)
            keeping = Keeping(folder, write_model, partial(_record, metrics, report))
            trainer = Trainer(accelerator, recipe, task, model, keeping, interrupts)
            if steps:
                trainer.resume(steps[-1])
            if not trainer.ending:
                _take_steps(trainer, recipe, metrics, watch)
    state = trainer.state
    signal = interrupts.number if trainer.ending == "interrupted" else 0
    return Outcome(state.step, trainer.ending, signal, state.gains.best, state.gains.best_step, is_main)


def _check_adapters(recipe: Recipe, plan: ModelPlan) -> None:
    """See whether an adapter to begin with is for the model, and one can be trained.

    Raises:
        UsageError, InputError, MissingError: it is not, or can't.
    """
    beginning = Path(plan.adapter) if plan.adapter else None
    if beginning is not None:
        check_base(read_adapter(beginning), plan.origin, plan.origin_sha256)
    if recipe.adapter is not None:
        from musictool.training.adapters import check_adapter

        check_adapter(recipe.adapter, plan.config, beginning)


def _build_model(recipe: Recipe, plan: ModelPlan, store: Store) -> nn.Module:
    """The model with the weights to begin with; random states are then those that the first step finds."""
    set_seed(recipe.run.seed)
    model = build_for(recipe, plan, store)
    set_seed(recipe.run.seed, device_specific=True)
    return model


def _take_steps(trainer: Trainer, recipe: Recipe, metrics: MetricsFile | None, watch: Watch) -> None:
    """Train to the end; on the main process, which has a metrics file, for all to see."""
    if metrics is None:
        deque(trainer.steps(), maxlen=0)
        return
    metrics.cut_after(trainer.state.step)
    metrics.start(processes=trainer.state.processes, parameters=trainer.parameters)
    try:
        with watch(trainer.steps(), recipe.run.steps - trainer.state.step) as steps:
            deque(steps, maxlen=0)
    except MusicToolError:
        with suppress(MusicToolError, OSError):  # the disk may be what failed
            metrics.end(trainer.state.step, "failed")
        raise
    metrics.end(trainer.state.step, trainer.ending)


def _record(metrics: MetricsFile | None, report: Callable[[Record], None], line: Record) -> None:
    """Keep a line, and tell it."""
    if metrics is not None:
        metrics.append(line)
        report(line)


def plan_task(recipe: Recipe, store: Store, where: str = "") -> tuple[ModelPlan, Task]:
    """The model and the task of a recipe; neither weights nor data are read.

    Raises:
        UsageError: the recipe makes no sense.
        MissingError, InputError: there is no model to begin with.
    """
    task_class = find_task(recipe.task, where)
    plan = plan_model(recipe, task_class.families, store, where)
    task = task_class(plan.config, recipe.data, recipe.loss, recipe.run.seed)
    if isinstance(task, StoreTask):
        task.use_store(store, plan.origin)
    return plan, task


def _open_folder(order: Order) -> None:
    """Make the run's folder, or see that the run in it may go on.

    Raises:
        UsageError: it may not.
    """
    folder, recipe = order.folder, order.recipe
    is_there = any(path.exists() for path in (folder.recipe, folder.metrics, folder.best)) or folder.checkpoint_steps()
    if is_there and not order.resumes:
        hint = "go on with it with --resume, or name another folder with -o"
        raise UsageError("there is a run in this folder", context=str(folder.path), hint=hint, code="exists")
    if folder.recipe.exists():
        old = build_recipe(load_toml(folder.recipe), where=str(folder.recipe))
        if names := changed_values(old, recipe):
            hint = "go on with the same values, or begin another run; run.steps, logging, saving and workers may change"
            raise UsageError(f"not the run's recipe: {', '.join(names)}", context=str(folder.path), hint=hint)
    folder.path.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    part = folder.recipe.with_name(f".{folder.recipe.name}.part")
    part.write_text(recipe_to_toml(recipe), encoding="utf-8")
    os.replace(part, folder.recipe)


def _write_model(
    order: Order,
    plan: ModelPlan,
    store: Store,
    files: Mapping[str, bytes],
    sources: Mapping[str, str],
    model: nn.Module,
    step: int,
    figures: dict[str, float],
    folder: Path,
) -> None:
    """Write a model in our own format, or its adapter in peft's, with a card that says how it came about.

    Args:
        order, plan: what is trained.
        store: where the model that training began with is.
        files: of the task's, to lie beside a model.
        sources: of the task's, to be told with a model.
        model, step, figures: what there is now.
        folder: takes it, and is empty.
    """
    recipe = order.recipe
    values = config_to_dict(model.config)  # an evaluation may have changed it
    family = values.pop("family")
    source = {"format": "mtk train", "name": order.folder.path.resolve().name, "step": str(step), **sources}
    card = [f"# {source['name']}", "", f"- family: {family}, preset {plan.preset}"]
    if recipe.adapter is not None:
        parameters = sum(tensor.numel() for tensor in model.state_dict().values())
        card.append(f"- an adapter ({recipe.adapter.kind}, rank {recipe.adapter.rank}) of {parameters:,} parameters")
    else:
        card.append(f"- parameters: {sum(parameter.numel() for parameter in model.parameters()):,}")
    card.append(f"- trained by mtk train {__version__}: task {recipe.task}, {step} steps, seed {recipe.run.seed}")
    if plan.origin:
        source |= {"from": plan.origin, **plan.inherited}
        card.append(f"- from the weights of: {plan.origin}")
    card += [f"- {name}: {figure:.4f}" for name, figure in figures.items()]
    facts = ModelFacts(family, plan.preset, values, source=source)
    text = "\n".join(card) + "\n"
    if recipe.adapter is not None:
        from musictool.training.adapters import write_adapter

        write_facts(folder, facts, write_adapter(folder, model, plan.origin, plan.origin_sha256), text)
        return
    write_native(folder, model.state_dict(), facts, text)
    if plan.origin:
        copy_tokenizer(store.find(plan.origin).path, folder)
    for name, content in files.items():
        (folder / name).write_bytes(content)
