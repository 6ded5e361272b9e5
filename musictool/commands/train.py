"""`mtk train`: a recipe -> a run folder with checkpoints, the best model and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import DeviceOption
from musictool.commands.recipe_runs import DryRunOption, FolderOption, ResumeOption, describe_recipe, run_recipe
from musictool.errors import UsageError

EXAMPLES = (
    "mtk train --preset note-tagger 'data.train=[\"examples/\"]' --dry-run",
    "mtk train --preset note-tagger 'data.train=[\"examples/\"]' run.steps=2 run.batch_size=1 -q -o first-run/",
)


def train(
    context: typer.Context,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECIPE.toml [SECTION.KEY=VALUE]…", show_default=False, help="The recipe, and values to change."
        ),
    ] = None,
    output: FolderOption = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", metavar="NAME", show_default=False, help="A recipe that ships, instead of a file."),
    ] = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
) -> int:
    """Train a model as a recipe says, or go on with it.

    Ctrl-C and SIGTERM finish the step, save, and end with 130 and 143; --resume goes on exactly from there, or from the
    last checkpoint after a crash. With --resume the recipe may be left out. Under torchrun or accelerate launch, all
    processes train together. A run that is there is never written over.
    """
    environment = environment_of(context)
    path, settings = _split(arguments or [], is_preset=preset is not None)
    from musictool.config import load_toml
    from musictool.training.recipe import build_recipe, load_preset_table
    from musictool.training.runs import RunFolder

    folder = RunFolder(Path(output)) if output else None
    if preset is not None:
        table, where = load_preset_table(preset), f"preset {preset}"
    elif path is not None:
        table, where = load_toml(path), path
    elif resume and folder is not None:
        table, where = load_toml(folder.recipe), str(folder.recipe)
    else:
        raise UsageError("no recipe", hint="name a TOML file, or one that ships with --preset")
    recipe = build_recipe(table, settings, where)
    if dry_run:
        return describe_recipe(environment, recipe, where)
    return run_recipe(environment, recipe, where, output, resumes=resume, device=device)


def _split(arguments: Sequence[str], *, is_preset: bool) -> tuple[str | None, list[str]]:
    """The recipe's path, if there is one, and the settings after it."""
    if arguments and not is_preset and ("=" not in arguments[0] or Path(arguments[0]).is_file()):
        return arguments[0], list(arguments[1:])
    return None, list(arguments)
