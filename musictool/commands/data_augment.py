"""`mtk data augment`: clips -> the same, and versions in other keys and at other tempi."""

from __future__ import annotations

from typing import Annotated, Any

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
from musictool.errors import UsageError
from musictool.training.data.pipeline.settings import AugmentSettings

EXAMPLES = (
    "mtk data augment examples/ -o versions/ --force",
    "mtk data clips examples/ --seconds 5 -o clips/ --force | mtk data augment --semitones=-1,1 -o versions/ --force",
)
_SEMITONES, _TEMPO = (",".join(map(str, values)) for values in (AugmentSettings.semitones, AugmentSettings.tempo))


def data_augment(
    context: typer.Context,
    output: FolderOption,
    inputs: ItemsArgument = None,
    semitones: Annotated[
        str,
        typer.Option("--semitones", metavar="LIST", help="A version for each, so many semitones up; none for none."),
    ] = _SEMITONES,
    tempo: Annotated[
        str, typer.Option("--tempo", metavar="LIST", help="A version for each, so much faster; none for none.")
    ] = _TEMPO,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Add versions of clips in other keys and at other tempi. All parts change alike, and the notes of a part with it.

    Needs python-stretch, the extra 'stretch'.
    """
    settings = settings_of(
        AugmentSettings,
        "augment",
        semitones=_numbers(semitones, int, "--semitones"),
        tempo=_numbers(tempo, float, "--tempo"),
    )
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, jobs, shard, force, skip_existing),
    )


def _numbers(text: str, kind: type[Any], option: str) -> list[Any]:
    """Read `-2,2`.

    Raises:
        UsageError: it is no such list.
    """
    try:
        return [] if text.strip() in ("", "none") else [kind(part) for part in text.split(",")]
    except ValueError:
        hint = "write numbers with commas between them, as in -2,2 or 0.9,1.1"
        raise UsageError(f"no list of numbers: {text[:40]!r}", context=option, hint=hint) from None
