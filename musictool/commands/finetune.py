"""`mtk finetune`: a model that is there, and data of one's own -> a run folder, as `mtk train` makes it."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import DeviceOption, ModelOption
from musictool.commands.recipe_runs import DryRunOption, FolderOption, ResumeOption, describe_recipe, run_recipe

EXAMPLES = (
    "mtk finetune --model note-tagger --data examples/ --dry-run",
    "mtk finetune --model note-tagger --data examples/ run.steps=1 run.batch_size=1 -q -o finetuned/",
)


def finetune(
    context: typer.Context,
    data: Annotated[
        list[str], typer.Option("--data", metavar="COLLECTION", help="A folder of pairs, or a list; may be repeated.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION.KEY=VALUE]…", show_default=False, help="Values of the recipe to change."),
    ] = None,
    model: ModelOption = "mt3",
    output: FolderOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
) -> int:
    """Go on with the weights of a model, on data of your own.

    This is mtk train with the recipe that ships for the model's family, model.from and data.train set, and the lower
    learning rate that the recipe has for it. A collection is a folder in which each sound has its notes beside it, as
    MIDI or TSV of the same name. Held-out data is named by data.valid; without it, the last model passes for the best.
    The result is a model like any other: mtk transcribe --model RUN/best.
    """
    environment = environment_of(context)
    from musictool.checkpoints.native import read_facts
    from musictool.checkpoints.store import Store
    from musictool.training.recipe import build_recipe, load_finetuning_table

    found = Store.from_environ(environment.environ).find(model)
    table = load_finetuning_table(read_facts(found.path).family)
    kept = {key: value for key, value in table.get("data", {}).items() if key not in ("train", "valid", "shares")}
    table |= {"model": {"from": model}, "data": {**kept, "train": list(data)}}
    where = f"finetuning of {model}"
    recipe = build_recipe(table, settings or (), where)
    if dry_run:
        return describe_recipe(environment, recipe, where)
    return run_recipe(environment, recipe, where, output, resumes=resume, device=device)
