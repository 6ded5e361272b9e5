"""`mtk data pairs`: solos of the Weimar Jazz Database -> a saxophone and its backing, as sound and as notes."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import JobsOption, SeedOption, ShardOption
from musictool.commands.stage_runs import (
    AgainOption,
    FolderOption,
    GoOnOption,
    RunOptions,
    StageInput,
    StageRun,
    run_verb,
    settings_of,
)
from musictool.training.data.pipeline.settings import PairsSettings

EXAMPLES = (
    "if test -d wjazz; then mtk data pairs wjazz/ -o pairs/ --skip-existing; fi",
    "if test -d wjazz; then mtk data pairs wjazz/ -o pairs/ --shard 1/20 --skip-existing | mtk data windows; fi",
)


class SynthesizerChoice(str, Enum):
    """What plays; the values are `PairsSettings.synthesizer`'s."""

    AUTO = "auto"
    FLUIDSYNTH = "fluidsynth"
    BUILTIN = "builtin"


def data_pairs(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="WJAZZ", show_default=False, help="The database's folder, with wjd_meta.csv.")
    ],
    output: FolderOption,
    saxophones_only: Annotated[
        bool, typer.Option("--saxophones-only", help="Leave out solos that another instrument played.")
    ] = False,
    on_chords: Annotated[
        bool, typer.Option("--on-chords", help="Move each note of a solo to a tone of its chord.")
    ] = False,
    transpose: Annotated[
        int,
        typer.Option("--transpose", metavar="N", help="Play each in another key, at most N semitones up or down."),
    ] = PairsSettings.transpose,
    rate: Annotated[int, typer.Option("--rate", metavar="HZ", help="Sample rate.")] = PairsSettings.rate_hz,
    channels: Annotated[int, typer.Option("--channels", metavar="C", help="1 or 2.")] = PairsSettings.channels,
    soundfont: Annotated[
        Path | None,
        typer.Option("--soundfont", metavar="FILE", show_default=False, help="SF2 or SF3; else the one that ships."),
    ] = None,
    synthesizer: Annotated[
        SynthesizerChoice, typer.Option("--synthesizer", help="auto takes libfluidsynth where it is there.")
    ] = SynthesizerChoice.AUTO,
    seed: SeedOption = 0,
    jobs: JobsOption = 1,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Play the solos of the Weimar Jazz Database on a saxophone, beside a backing of bass and piano.

    lead/NAME.flac has the solo, backing/NAME.flac the bass as it was measured and chords comped from the symbols; each
    has its notes beside it, .mid. Solos of other instruments are played by the saxophone that reaches most of their
    notes. Other stages take it from there: mtk data clips, augment, encode, split.

    With --on-chords the solo keeps its rhythm and its contour and has no notes but those of the chords: a model learns
    to hear chords from that, of which solos as they were played say too little.
    """
    settings = settings_of(
        PairsSettings,
        "pairs",
        rate_hz=rate,
        channels=channels,
        saxophones_only=saxophones_only,
        on_chords=on_chords,
        transpose=transpose,
        soundfont=soundfont,
        synthesizer=synthesizer.value,
        seed=seed,
    )

    def read(run: StageRun) -> StageInput:
        from musictool.training.data.pipeline.pairs import items_of_database

        items = items_of_database(folder, settings)
        return StageInput(items, len(items))

    return run_verb(environment_of(context), settings, read, RunOptions(output, jobs, shard, force, skip_existing))
