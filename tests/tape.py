"""What a GPU's recording of work comes to, on a CPU: operations at fixed addresses, done again in their order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_WAITING = ("tolist", "item", "cpu", "numpy", "__bool__", "__int__", "__float__", "__index__")
_REFUSED = frozenset(getattr(Tensor, name) for name in _WAITING)


class Hurry(TorchFunctionMode):
    """Refuses what has to wait for a number from the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _REFUSED:
            raise RuntimeError(f"a recording can't wait: {func.__name__}")
        return func(*args, **(kwargs or {}))


class Tape(TorchDispatchMode):
    """Notes operations down while they are done.

    Attributes:
        operations: each with what it was given and what it gave.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = func(*args, **(kwargs or {}))
        results = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        self.operations.append((func, args, kwargs or {}, results))
        return given

    def play(self) -> None:
        """Do all again; what came of it before is overwritten."""
        for func, args, kwargs, results in self.operations:
            again = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for kept, new in zip(results, again, strict=True):
                if kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


def record(work: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """As `cuda_graphs.record`, but that what is recorded is done, which the first playing then is not."""
    tape, is_done = Tape(), True
    with Hurry(), tape:
        result = work()

    def play() -> Tensor:
        nonlocal is_done
        if not is_done:
            tape.play()
        is_done = False
        return result

    return play
