"""Work on a GPU recorded once and played from then on, which spares the CPU saying it kernel by kernel.

A step of few rows is some hundred kernels of a few microseconds each; saying them takes longer than doing them. See
https://pytorch.org/blog/accelerating-pytorch-with-cuda-graphs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def can_record(device: torch.device) -> bool:
    """Whether work on a device can be recorded."""
    return device.type == "cuda"


def record(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Record work; it is not done meanwhile.

    Args:
        work: on the device alone: it waits for no number from there and takes nothing there, and what it reads and
            changes stays where it is. It has been done before, so that all that it needs is loaded.
        device: for which `can_record`.

    Returns:
        What does the work once; its result stands in the same memory every time.

    Raises:
        RuntimeError: the work can't be recorded, or there is no memory for it.
    """
    graph = torch.cuda.CUDAGraph()
    # What other threads do on the GPU is none of this recording's concern.
    with torch.cuda.device(device), torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = work()

    def play() -> Tensor:
        graph.replay()
        return result

    return play
