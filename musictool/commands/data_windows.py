"""`mtk data windows`: recordings -> where in them it is loud for long."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import JobsOption, ShardOption
from musictool.commands.stage_runs import (
    AgainOption,
    GoOnOption,
    ItemsArgument,
    RunOptions,
    read_items,
    run_verb,
    settings_of,
)
from musictool.training.data.pipeline.settings import WindowsSettings

EXAMPLES = (
    "mtk data windows examples/ --least 5 --frame 2 | mtk data clips --seconds 4 -o clips/ --force",
    "mtk data windows examples/waltz.ogg --least 5 --frame 2 | grep -o '\"span\":[^]]*'",
)


def data_windows(
    context: typer.Context,
    inputs: ItemsArgument = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR/",
            show_default=False,
            help="A folder for the manifest. Without it, windows are measured anew and go to standard output alone.",
        ),
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", metavar="RMS", help="Root mean square of a loud frame; full scale is 1.")
    ] = WindowsSettings.threshold,
    frame: Annotated[
        float, typer.Option("--frame", metavar="SECONDS", help="How long a frame is.")
    ] = WindowsSettings.frame_seconds,
    hop: Annotated[
        float, typer.Option("--hop", metavar="SECONDS", help="How far the next frame moves on.")
    ] = WindowsSettings.hop_seconds,
    least: Annotated[
        float, typer.Option("--least", metavar="SECONDS", help="How long a window is at least.")
    ] = WindowsSettings.least_seconds,
    part: Annotated[
        str, typer.Option("--part", metavar="NAME", help="Which is measured, of items that have several parts.")
    ] = WindowsSettings.part,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Find the windows of recordings in which there is something to learn from.

    A window is what loud frames cover, one after the other. No sound is written: each window is an item with the
    recording's files and a span of seconds, for mtk data clips to cut.
    """
    settings = settings_of(
        WindowsSettings,
        "windows",
        threshold=threshold,
        frame_seconds=frame,
        hop_seconds=hop,
        least_seconds=least,
        part=part,
    )
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, jobs, shard, force, skip_existing),
    )
