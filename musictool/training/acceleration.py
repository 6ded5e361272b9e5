"""accelerate, set up for a run: device, number format, processes, accumulation, trackers.

Whatever launched this process (nothing, torchrun, `accelerate launch`) tells accelerate how many others there are, and
whether they hold copies of the model (DDP) or shares of it (FSDP 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
)

from musictool.errors import MissingError, UsageError
from musictool.training.recipe import recipe_to_table

if TYPE_CHECKING:
    from musictool.training.recipe import Recipe

_PATIENCE = timedelta(hours=6)
"""How long processes wait for the one that evaluates."""


def check_abilities(recipe: Recipe, device: torch.device) -> None:
    """Refuse what can't be done here.

    Raises:
        UsageError: a number format that the device does not have.
        MissingError: a tracker whose package is not installed.
    """
    if recipe.run.precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 is for GPUs", context="run.precision", hint="train in bf16 or fp32 on a CPU")
    for tracker in recipe.run.trackers:
        if find_spec(tracker) is None:
            raise MissingError(
                f"the package '{tracker}' is not installed",
                context="run.trackers",
                hint="pip install 'musictool[trackers]', or leave it out",
                code="missing-dependency",
            )


@contextmanager
def accelerated(
    recipe: Recipe, device: torch.device, folder: Path, *, has_companions: bool = False
) -> Iterator[Accelerator]:
    """Set up accelerate for a block; the next block in this process may be for another recipe.

    Args:
        recipe: all numbers.
        device: to train on.
        folder: where trackers that write files write them.
        has_companions: whether more than a model is trained. Then some of it may take no part in a step, and what is
            no parameter is kept alike in all processes by the task.

    Raises:
        UsageError: the processes were launched in a way that is not known here.
    """
    run = recipe.run
    if device.index is not None:
        torch.cuda.set_device(device)  # which accelerate then takes, where it is alone
    if run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when it is first used
    torch.use_deterministic_algorithms(run.deterministic)
    accelerator = None
    try:
        accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="no" if run.precision == "fp32" else run.precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(run.accumulation, sync_with_dataloader=False),
            log_with=list(run.trackers) or None,
            project_dir=str(folder),
            kwargs_handlers=[
                InitProcessGroupKwargs(timeout=_PATIENCE),
                DistributedDataParallelKwargs(
                    broadcast_buffers=not has_companions, find_unused_parameters=has_companions
                ),
            ],
        )
        if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
            raise UsageError("of FSDP, only version 2 is known here", hint="accelerate launch --fsdp_version 2")
        if run.threads:
            torch.set_num_threads(run.threads)  # after accelerate, which has its own idea
        if run.trackers:
            accelerator.init_trackers("musictool", dict(_flat(recipe_to_table(recipe))))
        yield accelerator
    finally:
        if accelerator is not None:
            accelerator.end_training()
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str | int | float | bool]]:
    """A recipe as trackers take it: one level, plain values."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value if isinstance(value, bool | int | float) else str(value)
