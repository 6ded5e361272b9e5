"""T5X checkpoints: a folder with a msgpack file `checkpoint` and a zarr folder for each larger tensor.

The file holds a tree of the training state. Tensors are the leaves below `optimizer.target`: small ones inline, larger
ones as TensorStore's description, or a `PLACEHOLDER://` text, that names a zarr folder beside the file. What the
optimizer keeps of each is not looked at. A tensor's name is `target.` and its path in the tree, as its folder's name
is. (Roberts et al., 2022; arXiv:2203.17189.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from musictool.checkpoints.checkpoint import Checkpoint, StoredTensor, broken
from musictool.checkpoints.flax_files import is_array, pack_tree, read_tree, stored_array
from musictool.checkpoints.zarr_files import open_zarr, read_zarr, write_zarr
from musictool.errors import InputError

INDEX_NAME = "checkpoint"
_ROOT = "target"
_VERSION = 3
_PLACEHOLDER = "PLACEHOLDER://"
_MAX_DEPTH = 32
_THREADS = 4
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def is_t5x(path: Path) -> bool:
    """Whether a folder looks like a T5X checkpoint."""
    return (path / INDEX_NAME).is_file()


def open_t5x(path: Path) -> Checkpoint:
    """Read what a T5X folder holds; numbers are read later.

    A tensor whose folder is not there is left out. One that is damaged is named among those that are unreadable.

    Raises:
        InputError: the msgpack file is damaged or holds no parameters.
        OSError: the msgpack file cannot be read.
    """
    index = path / INDEX_NAME
    tensors: dict[str, StoredTensor] = {}
    unreadable: dict[str, InputError] = {}
    for name, node in _leaves(_target(read_tree(index), index), (_ROOT,), index):
        try:
            found = stored_array(name, node, index) if is_array(node) else _stored_in_folder(name, node, path)
        except InputError as error:
            unreadable[name] = error
        else:
            if found is not None:
                tensors[name] = found
    return Checkpoint(path, "t5x", tensors, unreadable)


def _target(tree: Any, index: Path) -> Mapping[str, Any]:
    """The part of a training state that is the model."""
    state = tree.get("optimizer", tree) if isinstance(tree, Mapping) else None
    target = state.get(_ROOT) if isinstance(state, Mapping) else None
    if not isinstance(target, Mapping):
        raise broken(index, "no T5X checkpoint: it holds no 'target'")
    return target


def _leaves(node: Mapping[str, Any], place: tuple[str, ...], index: Path) -> Iterator[tuple[str, Any]]:
    """The tensors below a node by name, whatever they are described by."""
    if len(place) > _MAX_DEPTH:
        raise broken(index, f"the tree is more than {_MAX_DEPTH} deep")
    for key, value in node.items():
        inner = (*place, str(key))
        if isinstance(value, Mapping) and not is_array(value) and "driver" not in value:
            yield from _leaves(value, inner, index)
        elif value is not None:
            yield ".".join(inner), value


def _stored_in_folder(name: str, node: Any, path: Path) -> StoredTensor | None:
    """A tensor in a zarr folder; None if the folder is not there."""
    folder = path / _folder_name(name, node, path / INDEX_NAME)
    try:
        array = open_zarr(folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise broken(folder, (error.strerror or "cannot be read").lower()) from error
    return StoredTensor(name, array.shape, array.number.name, partial(read_zarr, array))


def _folder_name(name: str, node: Any, index: Path) -> str:
    """The folder that a leaf names: one beside the file, whatever path it had where it was written.

    Raises:
        InputError: it names none.
    """
    if isinstance(node, Mapping):
        if node.get("driver") != "zarr":
            raise broken(index, f"{name}: arrays of kind {node.get('driver')!r:.20} are not read")
        store = node.get("kvstore")
        text = store.get("path") if isinstance(store, Mapping) else None
    else:
        text = node.removeprefix(_PLACEHOLDER) if isinstance(node, str) and node.startswith(_PLACEHOLDER) else None
    folder = text.rstrip("/").rpartition("/")[2] if isinstance(text, str) else ""
    if not _FOLDER_NAME.fullmatch(folder):
        raise broken(index, f"{name}: no array and no folder of one")
    return folder


def write_t5x(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a T5X checkpoint of parameters alone, at step 0.

    Args:
        folder: it exists and is empty.
        tensors: by T5X's names, which begin with `target.`; vectors and scalars go into the msgpack file.
    """
    target: dict[str, Any] = {}
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:  # packing leaves Python's lock
        for name, leaf in zip(tensors, pool.map(partial(_written, folder), tensors, tensors.values())):
            _, *parents, last = name.split(".")
            node = target
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = leaf
    state = {"step": torch.tensor(0, dtype=torch.int32), "param_states": {}}
    (folder / INDEX_NAME).write_bytes(pack_tree({"version": _VERSION, "optimizer": {"state": state, _ROOT: target}}))


def _written(folder: Path, name: str, tensor: Tensor) -> Any:
    """What the tree holds of a tensor: itself, or TensorStore's description of the folder that it is written to."""
    if tensor.dim() < 2 or not tensor.numel():
        return tensor
    metadata = write_zarr(folder / name, tensor)
    return {
        "driver": "zarr",
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "kvstore": {"driver": "file", "path": f"{name}/"},
        "metadata": {key: metadata[key] for key in ("chunks", "compressor", "dtype", "shape")},
        "transform": {
            "input_exclusive_max": [[size] for size in tensor.shape],
            "input_inclusive_min": [0] * tensor.dim(),
        },
    }
