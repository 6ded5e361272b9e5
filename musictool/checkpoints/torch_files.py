"""Files that `torch.save` wrote (.pt, .pth, .bin, .ckpt), read with `weights_only`: tensors, and no code.

A training checkpoint keeps the model's tensors in a table of their own and often under a prefix; both are looked
through, so that names are those of the module that was saved.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor, broken, stored_in_memory
from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_TABLES = ("best_state", "state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "model.", "_orig_mod.")
_ZIP_MAGIC = b"PK"


def open_torch_file(path: Path) -> Checkpoint:
    """Read what a torch file holds; large files are mapped into memory.

    Raises:
        InputError: it is damaged, would run code, or holds no tensors by name.
        OSError: it cannot be read.
    """
    return Checkpoint(path, "torch", stored_in_torch_file(path))


def stored_in_torch_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a torch file; raises as `open_torch_file` does."""
    import torch

    with open(path, "rb") as file:
        is_mappable = file.read(2) == _ZIP_MAGIC
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mappable)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise broken(path, "the torch file is damaged") from error
        raise InputError(
            "the file holds more than tensors, and code in files is not run",
            context=str(path),
            hint="save the tensors alone: torch.save(model.state_dict(), path)",
            code="unsafe-checkpoint",
        ) from error
    except Exception as error:  # whatever a damaged pickle or zip makes torch stumble over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise broken(path, f"the torch file is damaged: {reason:.120}") from error
    return stored_in_memory(_without_prefix(_tensors_in(content, path)))


def _tensors_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The table of tensors, wherever it is kept."""
    from torch import Tensor, strided

    for key in _TABLES:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return _tensors_in(content[key], path)
    if not isinstance(content, Mapping):
        raise broken(path, "no tensors by name in the file")
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise broken(path, "no tensors by name in the file")
    if any(tensor.layout != strided or tensor.is_quantized for tensor in found.values()):
        raise broken(path, "sparse and quantized tensors are not read")
    return found


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what wrappers put before every name."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _without_prefix({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def write_torch_file(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a state dict.

    Raises:
        OSError: it cannot be written.
    """
    import torch

    with open(path, "wb") as file:
        try:
            torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
        except RuntimeError as error:  # torch stumbles over what it left unfinished, and hides why
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
