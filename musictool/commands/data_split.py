"""`mtk data split`: a folder of items -> lists of those for training, for validation and for test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.exit_status import ExitStatus
from musictool.cli.options import ForceOption, JobsOption, SeedOption
from musictool.cli.parallel import use_one_thread
from musictool.commands.split_runs import WantedSplit, split_folder
from musictool.errors import UsageError

EXAMPLES = (
    "mtk data split examples/ | cut -f 1 | sort | uniq -c",
    "mtk data split examples/ -o lists/ --fractions train=.8,test=.2 --seed 1",
)


def data_split(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            show_default=False,
            help="Pairs of sound and notes, MIDI files, or what a stage of mtk data has filled.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            show_default=False,
            help="Where train.txt and the others go. Without it, lines of side, item and piece on standard output.",
        ),
    ] = None,
    fractions: Annotated[
        str, typer.Option("--fractions", metavar="NAME=SHARE,…", help="The sides, and how much each is to get.")
    ] = "train=.9,valid=.05,test=.05",
    seed: SeedOption = 0,
    leave_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--leave-out",
            metavar="PATH",
            show_default=False,
            help="Keep off every side: a list of items or pieces by name, or a folder with them; may be repeated.",
        ),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(
            "--group-by", metavar="KIND,…", help="What keeps items together: manifest, name, folder, content."
        ),
    ] = "manifest,name,content",
    extend: Annotated[
        bool, typer.Option("--extend", help="Keep the sides that the lists in -o give, and add what is new.")
    ] = False,
    jobs: JobsOption = 1,
    force: ForceOption = False,
) -> int:
    """Split a corpus into sides, with all versions of a piece on one side.

    Items belong together if a manifest.jsonl says that they were made of one piece, if their names differ by marks of a
    version only (b.mid, b_v2.mid, versions/b-v1.mid), or if their notes are alike: transposed, faster, cut or copied.

    Sides are drawn for each piece alone. So the same seed gives the same split, new pieces change no old one's side,
    and fractions are met roughly: a table says how far. With --extend each old item stays where it was, whatever comes.

    A list has an item on each line, without its suffix, as seen from the list.
    """
    environment = environment_of(context)
    if extend and output is None:
        raise UsageError("--extend needs lists to go on from", hint="say where they are with -o")
    use_one_thread()
    from musictool.training.data import splitting

    wanted = WantedSplit(splitting.parse_fractions(fractions), seed, splitting.parse_evidence(group_by))
    is_good, _ = split_folder(
        environment, folder, output, wanted, leave_out=leave_out or (), extend=extend, jobs=jobs, force=force
    )
    return ExitStatus.DONE if is_good else ExitStatus.FINDINGS
