"""`mtk finetune`: a model that is there, and data of one's own -> a run folder, as `mtk train` makes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import AdapterOption, DeviceOption, ModelOption
from musictool.commands.recipe_runs import DryRunOption, FolderOption, ResumeOption, describe_recipe, run_recipe
from musictool.errors import UsageError

EXAMPLES = (
    "mtk finetune --model note-tagger --data examples/ --dry-run",
    "mtk finetune --model note-tagger --data examples/ run.steps=1 run.batch_size=1 -q -o finetuned/",
)
_STYLED = re.compile(r"([A-Za-z0-9_-]+)=(.+)")


def finetune(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="[STYLE=]COLLECTION",
            help="A folder, a corpus or a list to learn from; may be repeated.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SECTION.KEY=VALUE]…", show_default=False, help="Values of the recipe to change."),
    ] = None,
    model: ModelOption = "mt3",
    adapter: AdapterOption = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train an adapter of rank 8 (LoRA) instead of all weights.")
    ] = False,
    qlora: Annotated[
        bool, typer.Option("--qlora", help="The same, over weights held in 4 bits: an eighth of their memory.")
    ] = False,
    output: FolderOption = None,
    resume: ResumeOption = False,
    dry_run: DryRunOption = False,
    device: DeviceOption = "auto",
) -> int:
    """Go on with the weights of a model, on data of your own.

    This is mtk train with the recipe that ships for the model's family, model.from and data.train set, and the lower
    learning rate that the recipe has for it. What a collection is, hangs on what the model does. Transcribers learn
    from folders in which each sound has its notes beside it, as MIDI or TSV of the same name; codecs from folders of
    sound; models that write notes from token corpora and folders of MIDI, with STYLE= before each where they know
    styles; models that write codes from code corpora (.parquet, as mtk encode and mtk data make them), from folders of
    sound and from caption sets, JSON lines of "audio" or "codes" and "text".

    Held-out data is named by data.valid; without it, the last model passes for the best. The result is a model like any
    other: mtk transcribe --model RUN/best.

    With --lora or --qlora it is an adapter, a folder as peft writes it: --model NAME --adapter RUN/best uses it, mtk
    models merge makes a model of both. Ten times the learning rate is taken then; adapter.rank=8, adapter.alpha=16,
    adapter.dropout=0.0 and adapter.targets=["query","key","value","output"] may be changed. With --adapter training
    goes on with an adapter, or, without --lora, with the model that it makes.
    """
    environment = environment_of(context)
    if lora and qlora:
        raise UsageError("--lora and --qlora contradict each other", hint="--qlora is LoRA over weights of 4 bits")
    from musictool.checkpoints.native import read_facts
    from musictool.checkpoints.store import Store
    from musictool.training.recipe import build_recipe, load_finetuning_table

    found = Store.from_environ(environment.environ).find(model)
    kind: Literal["lora", "qlora"] | None = "qlora" if qlora else "lora" if lora else None
    table = load_finetuning_table(read_facts(found.path).family, kind)
    kept = {key: value for key, value in table.get("data", {}).items() if key not in ("train", "valid", "shares")}
    origin = {"from": model} if adapter is None else {"from": model, "adapter": adapter}
    table |= {"model": origin, "data": {**kept, "train": _collections(data)}}
    where = f"finetuning of {model}"
    recipe = build_recipe(table, settings or (), where)
    if dry_run:
        return describe_recipe(environment, recipe, where)
    return run_recipe(environment, recipe, where, output, resumes=resume, device=device)


def _collections(named: Sequence[str]) -> Any:
    """What `--data` says, as a recipe has it: a list, or lists by style where all have one before them."""
    styled = [_STYLED.fullmatch(text) for text in named]
    if not all(styled):
        return list(named)
    found: dict[str, list[str]] = {}
    for match in styled:
        assert match is not None
        found.setdefault(match[1], []).append(match[2])
    return found
