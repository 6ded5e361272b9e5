"""What `mtk train` and `mtk finetune` do with a finished recipe: follow it, or say what that would take."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from musictool.cli.environment import Environment, LogFormat
from musictool.cli.exit_status import ExitStatus
from musictool.cli.progress import track
from musictool.errors import UsageError

if TYPE_CHECKING:
    from musictool.training.recipe import Recipe
    from musictool.training.session import Outcome

FolderOption = Annotated[
    str | None, typer.Option("--output", "-o", metavar="RUN/", show_default=False, help="The run's folder.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print the whole recipe, parameters and memory; train nothing.")
]


def run_recipe(
    environment: Environment, recipe: Recipe, where: str, output: str | None, *, resumes: bool, device: str
) -> int:
    """Train as a finished recipe says.

    Returns:
        The exit status.

    Raises:
        UsageError: there is no folder to keep the run in.
    """
    if not output:
        raise UsageError("no folder for the run", hint="name one with -o RUN/")
    from musictool.checkpoints.store import Store
    from musictool.training.runs import RunFolder
    from musictool.training.session import Order, train

    order = Order(recipe, RunFolder(Path(output)), resumes, device, where)
    store = Store.from_environ(environment.environ)
    outcome = train(order, store, partial(_report, environment), partial(_watch, environment))
    if outcome.is_main:
        environment.note(_summary(outcome), context=output)
    return 128 + outcome.signal if outcome.signal else ExitStatus.DONE


def describe_recipe(environment: Environment, recipe: Recipe, where: str) -> int:
    """Write a finished recipe, with what it would take, to standard output; the whole is a recipe again.

    Returns:
        The exit status.

    Raises:
        InputError: there is no data; what can be said without is written first.
    """
    from musictool.checkpoints.store import Store
    from musictool.training import estimate
    from musictool.training.building import build_for
    from musictool.training.recipe import recipe_to_toml
    from musictool.training.session import plan_task
    from musictool.training.task import accompany

    store = Store.from_environ(environment.environ)
    plan, task = plan_task(recipe, store, where)
    model = build_for(recipe, plan, store)
    trained = accompany(task, model, is_fresh=not plan.origin)
    sizes = estimate.measure_sizes(recipe, model, trained)
    environment.stdout.write((recipe_to_toml(recipe) + estimate.describe_sizes(sizes)).encode())
    activations = estimate.measure_activations(recipe, trained, task)
    environment.stdout.write(estimate.describe_memory(recipe, sizes, activations).encode())
    return ExitStatus.DONE


def _watch(environment: Environment, steps: Any, total: int) -> Any:
    """Show a bar of the steps."""
    return track(steps, environment, label="train", total=total)


def _report(environment: Environment, record: dict[str, Any]) -> None:
    """Tell a line of the metrics file, to people or to machines."""
    if environment.log_format is LogFormat.JSON:
        environment.event("progress", label="train", **record)
    elif not environment.quiet:
        figures = [f"{name} {value:.4g}" for name, value in record.items() if name not in ("step", "seconds")]
        minutes, seconds = divmod(int(record["seconds"]), 60)
        environment.write_line(f"{minutes}:{seconds:02} step {record['step']}: {', '.join(figures)}")


def _summary(outcome: Outcome) -> str:
    endings = {"done": "trained", "no gain": "no gain any more; ended", "interrupted": "interrupted; saved"}
    text = f"{endings[outcome.reason]} after {outcome.step} steps"
    if outcome.best is not None:
        text += f"; best {outcome.best:.4g} at step {outcome.best_step}"
    return text
