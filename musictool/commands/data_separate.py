"""`mtk data separate`: mixes -> a lead and its backing."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import DeviceOption, ShardOption
from musictool.commands.stage_runs import (
    AgainOption,
    FolderOption,
    GoOnOption,
    ItemsArgument,
    RunOptions,
    read_items,
    run_verb,
    settings_of,
)
from musictool.training.data.pipeline.settings import SeparateSettings

EXAMPLES = (
    "if test -d loud; then mtk data separate loud/ -o apart/ --skip-existing; fi",
    "if test -d loud; then mtk data separate loud/ --model htdemucs --stem vocals -o songs/ --skip-existing; fi",
)


def data_separate(
    context: typer.Context,
    output: FolderOption,
    inputs: ItemsArgument = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="One of Demucs's models, or a folder of them and a name.")
    ] = SeparateSettings.model,
    stem: Annotated[
        str,
        typer.Option("--stem", metavar="NAME", help="The model's source that is the lead; a saxophone is in other."),
    ] = SeparateSettings.stem,
    device: DeviceOption = "auto",
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Take mixes apart: lead/NAME.flac is what the model takes out, backing/NAME.flac all else.

    Needs Demucs, the extra 'separate'; a model is fetched by it the first time it is used.
    """
    settings = settings_of(SeparateSettings, "separate", model=model, stem=stem, device=device)
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, 1, shard, force, skip_existing),
    )
