"""Codecs beside other processes, be they their own, or other stages of a pipe."""

from __future__ import annotations

import os

from musictool.errors import UsageError


def let_threads_sleep() -> None:
    """Have the threads of torch, which is not imported yet, sleep while they wait for one another.

    They would keep cores busy that the next stage of the pipe could use, and it does the same: on cores that are all in
    use, both may be thirty times as slow. A user's own setting stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def device_for(device: str, jobs: int) -> str:
    """The device that a codec runs on: processes of their own run on the CPU.

    Args:
        device: as it was asked for.
        jobs: as it was asked for; 1 is this process alone.

    Raises:
        UsageError: several processes are to share a GPU.
    """
    if jobs == 1 or device == "cpu":
        return device
    if device != "auto":
        raise UsageError("--jobs are processes on the CPU", context=f"--device {device}", hint="leave one of them out")
    return "cpu"


def use_one_core() -> None:
    """Keep torch from starting threads in this process, which others run beside."""
    import torch

    torch.set_num_threads(1)
