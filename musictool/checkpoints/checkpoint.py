"""A checkpoint as its readers see it: named tensors whose shapes are known and whose numbers are read when asked for.

Knows no file format; each format's module makes one of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Format = Literal["native", "t5x", "huggingface", "safetensors", "torch"]


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a checkpoint.

    Attributes:
        name: as in the file.
        shape: of what `read` gives.
        dtype: the number format, by torch's name for it.
        read: gives the tensor on the CPU; raises InputError where its numbers can't be read.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor]

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors.

    Attributes:
        path: the file or folder.
        format: how it is stored.
        tensors: by name.
        unreadable: names that the checkpoint promises and whose description cannot be read, and why.
        config: what a configuration file beside the tensors says, by its format's keys; empty where there is none.
    """

    path: Path
    format: Format
    tensors: Mapping[str, StoredTensor]
    unreadable: Mapping[str, InputError] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The tensors that can be read, in the file's order."""
        return list(self.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading its numbers."""
        return self.tensors[name].shape

    def tensor(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            InputError: its numbers are damaged or not there.
        """
        return self.tensors[name].read()


def stored_in_memory(tensors: Mapping[str, Tensor]) -> dict[str, StoredTensor]:
    """Tensors that are there already, as a checkpoint holds them."""
    return {
        name: StoredTensor(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.detach)
        for name, tensor in tensors.items()
    }


def broken(path: Path, why: str) -> InputError:
    """The error for a file whose content is not what its format says."""
    return InputError(why, context=str(path), code="bad-checkpoint")
