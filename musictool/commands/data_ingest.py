"""`mtk data ingest`: recordings from files or addresses -> FLAC of one rate and one number of channels."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import JobsOption, ShardOption
from musictool.commands.stage_runs import (
    AgainOption,
    FolderOption,
    GoOnOption,
    RunOptions,
    read_recordings,
    run_verb,
    settings_of,
)
from musictool.training.data.pipeline.settings import IngestSettings

EXAMPLES = (
    "mtk data ingest examples/ -o raw/ --force",
    "mtk data ingest examples/waltz.ogg --rate 24000 -o raw/ --force | mtk data loudness -o loud/ --force",
)


def data_ingest(
    context: typer.Context,
    output: FolderOption,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            show_default=False,
            help="Files, folders, globs, addresses, lists of such (.txt, one a line), or - (or nothing) for a list on "
            "standard input.",
        ),
    ] = None,
    rate: Annotated[int, typer.Option("--rate", metavar="HZ", help="Sample rate.")] = IngestSettings.rate_hz,
    channels: Annotated[int, typer.Option("--channels", metavar="C", help="1 or 2.")] = IngestSettings.channels,
    bits: Annotated[int, typer.Option("--bits", metavar="N", help="16 or 24.")] = IngestSettings.bits,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Bring recordings in: FLAC of one rate and one number of channels, and a manifest of where each comes from.

    Reads whatever mtk reads. Addresses (https://…) are fetched by yt-dlp, the extra 'fetch', each as one recording.
    A recording that cannot be read whole is named and left out, and the exit status is 1.
    """
    settings = settings_of(IngestSettings, "ingest", rate_hz=rate, channels=channels, bits=bits)
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_recordings(inputs, run),
        RunOptions(output, jobs, shard, force, skip_existing),
    )
