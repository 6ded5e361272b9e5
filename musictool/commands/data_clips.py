"""`mtk data clips`: windows, or whole recordings -> files of their own."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import JobsOption, ShardOption
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
from musictool.training.data.pipeline.settings import ClipsSettings

EXAMPLES = (
    "mtk data clips examples/ --seconds 5 -o clips/ --force",
    "mtk data windows examples/ --least 5 --frame 2 | mtk data clips - -o clips/ --force",
)


def data_clips(
    context: typer.Context,
    output: FolderOption,
    inputs: ItemsArgument = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", metavar="SECONDS", show_default=False, help="How long a clip is; by default as its window."
        ),
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(
            "--every", metavar="SECONDS", show_default=False, help="How far the next clip moves on; else no overlap."
        ),
    ] = None,
    least: Annotated[
        float, typer.Option("--least", metavar="SECONDS", help="A shorter rest at the end is left out.")
    ] = ClipsSettings.least_seconds,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Cut windows, or whole recordings, into clips. All parts are cut alike, and the notes of a part with it."""
    settings = settings_of(ClipsSettings, "clips", seconds=seconds, every_seconds=every, least_seconds=least)
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, jobs, shard, force, skip_existing),
    )
