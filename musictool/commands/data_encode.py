"""`mtk data encode`: clips -> a codec's codes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from musictool.cli.environment import environment_of
from musictool.cli.options import AdapterOption, DeviceOption, Precision, PrecisionOption, ShardOption
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
from musictool.training.data.pipeline.settings import EncodeSettings

EXAMPLES = (
    "mtk data encode examples/ -o codes/ --force",
    "mtk data clips examples/ --seconds 5 -o clips/ --force | mtk data encode --codebooks 2 -o codes/ --force",
)


def data_encode(
    context: typer.Context,
    output: FolderOption,
    inputs: ItemsArgument = None,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="NAME|PATH", help="A preset, a model of the store, or a path.")
    ] = EncodeSettings.model,
    adapter: AdapterOption = None,
    codebooks: Annotated[
        int | None,
        typer.Option("--codebooks", metavar="K", show_default=False, help="How many are used; by default all."),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = Precision.FP32,
    shard: ShardOption = None,
    force: AgainOption = False,
    skip_existing: GoOnOption = False,
) -> int:
    """Turn clips into a codec's codes: a token stream for each part, as mtk encode makes it.

    It differs from mtk encode in that it keeps parts together, and goes on where it was cut off.
    """
    settings = settings_of(
        EncodeSettings,
        "encode",
        model=model,
        adapter=adapter,
        codebooks=codebooks,
        precision=precision.value,
        device=device,
    )
    return run_verb(
        environment_of(context),
        settings,
        lambda run: read_items(inputs, run),
        RunOptions(output, 1, shard, force, skip_existing),
    )
