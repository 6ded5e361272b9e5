"""Folders as the Hugging Face hub has them: `config.json` beside weights in one file, or in several and an index.

Read without the library that writes them; what `config.json` says is not needed to read tensors, and is given as it
stands. Also written, for those who load them there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor, broken
from musictool.checkpoints.safetensors_files import stored_in_safetensors, write_safetensors
from musictool.checkpoints.torch_files import stored_in_torch_file
from musictool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
_READERS: dict[str, Callable[[Path], dict[str, StoredTensor]]] = {
    WEIGHTS_NAME: stored_in_safetensors,
    "pytorch_model.bin": stored_in_torch_file,
}
_INDEX_SUFFIX = ".index.json"


def is_hub_folder(path: Path) -> bool:
    """Whether a folder holds weights by the hub's names."""
    return any((path / name).is_file() or (path / (name + _INDEX_SUFFIX)).is_file() for name in _READERS)


def open_hub_folder(path: Path) -> Checkpoint:
    """Read what a folder holds; safetensors where there are any.

    A tensor whose file is not there, or not in the file that the index names, is among the unreadable ones.

    Raises:
        InputError: a file is damaged.
        OSError: a file cannot be read.
    """
    config = _read_config(path / CONFIG_NAME)
    for name, read in _READERS.items():
        if (path / name).is_file():
            return Checkpoint(path, "huggingface", read(path / name), config=config)
        if (path / (name + _INDEX_SUFFIX)).is_file():
            return replace(_open_shards(path, path / (name + _INDEX_SUFFIX), read), config=config)
    raise broken(path, "no weights in the folder")


def _read_config(path: Path) -> dict[str, Any]:
    """What `config.json` says; nothing where it is not there.

    Raises:
        InputError: it is damaged: the folder may be of a format that only it tells of.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise broken(path, f"no valid JSON: {error}") from error
    return data if isinstance(data, dict) else {}


def _open_shards(path: Path, index: Path, read: Callable[[Path], dict[str, StoredTensor]]) -> Checkpoint:
    """Read a checkpoint in several files."""
    tensors: dict[str, StoredTensor] = {}
    unreadable: dict[str, InputError] = {}
    shards: dict[str, dict[str, StoredTensor]] = {}
    for name, shard in _weight_map(index).items():
        if shard not in shards:
            shards[shard] = read(path / shard) if (path / shard).is_file() else {}
        if name in shards[shard]:
            tensors[name] = shards[shard][name]
        else:
            unreadable[name] = broken(path / shard, "the file that should hold the tensor does not")
    return Checkpoint(path, "huggingface", tensors, unreadable)


def _weight_map(index: Path) -> dict[str, str]:
    """Which file holds each tensor: names of files in the same folder."""
    try:
        data = json.loads(index.read_bytes())
        shards = data["weight_map"]
        if any(not isinstance(shard, str) or shard == ".." or Path(shard).name != shard for shard in shards.values()):
            raise ValueError("it names a file that is not in the folder")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise broken(index, f"unreadable index of weights: {error}") from error
    return dict(shards)


def write_hub_folder(folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write weights and `config.json`.

    Args:
        folder: it exists and is empty.
        tensors: by the names that the reader expects.
        config: what that library's own `config.json` holds.
    """
    write_safetensors(folder / WEIGHTS_NAME, tensors)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
