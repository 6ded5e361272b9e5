"""`mtk data loudness`: recordings -> the same, equally loud."""

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
from musictool.training.data.pipeline.settings import LoudnessSettings

EXAMPLES = (
    "mtk data loudness examples/ -o loud/ --force",
    "mtk data loudness examples/ --target -23 -o loud/ --force | mtk data clips --seconds 5 -o clips/ --force",
)


def data_loudness(
    context: typer.Context,
    output: FolderOption,
    inputs: ItemsArgument = None,
    target: Annotated[
        float, typer.Option("--target", metavar="LUFS", help="Integrated loudness (EBU R128).")
    ] = LoudnessSettings.target_lufs,
    ceiling: Annotated[
        float, typer.Option("--ceiling", metavar="DBTP", help="The highest that a true peak may be.")
    ] = LoudnessSettings.ceiling_dbtp,
    limit: Annotated[
        float,
        typer.Option("--limit", metavar="DB", help="By how much peaks may be turned down for that; 0 for not at all."),
    ] = LoudnessSettings.limit_db,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Make recordings equally loud, by integrated loudness as EBU R128 and ITU-R BS.1770 have it.

    A recording gets one gain. Peaks that would go over the ceiling are turned down, up to a limit, behind which the
    recording stays softer; the manifest says what was measured and done. Parts that go together are measured together
    and keep their balance.
    """
    settings = settings_of(LoudnessSettings, "loudness", target_lufs=target, ceiling_dbtp=ceiling, limit_db=limit)
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, jobs, shard, force, skip_existing),
    )
