"""Trees of arrays in msgpack, as flax writes them.

An array is an extension of type 1 that holds its shape, the name of its number format and its bytes; one over 1 GiB is
a table of flat pieces. Arrays stay packed until they are asked for. Nothing in such a file can name code to run.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
from torch import Tensor

from musictool.checkpoints.arrays import (
    NumberFormat,
    bytes_from_tensor,
    check_shape,
    find_number_format,
    tensor_from_bytes,
)
from musictool.checkpoints.checkpoint import StoredTensor, broken

_ARRAY, _SCALAR = 1, 3
_CHUNKED = "__msgpack_chunked_array__"


class PackedArray(NamedTuple):
    """An array as its bytes in the file."""

    data: bytes


def read_tree(path: Path) -> Any:
    """Read a file: tables, texts and numbers, and `PackedArray`s.

    Raises:
        InputError: it is no msgpack, or holds what flax does not write.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if not file.seek(0, 2):
            raise broken(path, "the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return msgpack.unpackb(data, ext_hook=_packed, raw=False, strict_map_key=False)
            except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
                raise broken(path, f"unreadable msgpack: {str(error) or type(error).__name__}") from error


def _packed(code: int, data: bytes) -> PackedArray:
    if code not in (_ARRAY, _SCALAR):
        raise ValueError(f"an extension of type {code}")
    return PackedArray(data)


def is_array(node: object) -> bool:
    """Whether a node of a tree is an array, in one piece or several."""
    return isinstance(node, PackedArray) or (isinstance(node, Mapping) and _CHUNKED in node)


def stored_array(name: str, node: Any, path: Path) -> StoredTensor:
    """An array of a tree as a tensor of a checkpoint.

    Args:
        name: the tensor's.
        node: one that `is_array`.
        path: the file, for errors.

    Raises:
        InputError: its description can't be meant, or its bytes are too many or too few.
    """
    try:
        if isinstance(node, PackedArray):
            pieces = [_piece(node)]
            shape = pieces[0].shape
        else:
            pieces = [_piece(piece) for piece in _in_order(node["chunks"])]
            shape = check_shape(_in_order(node["shape"]), pieces[0].number)
        number = pieces[0].number
        if any(piece.number is not number for piece in pieces):
            raise ValueError("its pieces are of several number formats")
        if sum(piece.parameters for piece in pieces) != math.prod(shape):
            raise ValueError("its pieces do not add up")
    except (ValueError, TypeError, LookupError, msgpack.UnpackException) as error:
        raise broken(path, f"unreadable array {name!r:.120}: {error}") from error
    return StoredTensor(name, shape, number.name, partial(_joined, pieces, shape))


class _Piece(NamedTuple):
    """An array, or a flat piece of one."""

    shape: tuple[int, ...]
    number: NumberFormat
    data: bytes

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)


def _piece(packed: Any) -> _Piece:
    if not isinstance(packed, PackedArray):
        raise TypeError("it is not packed as an array")
    sizes, name, data = msgpack.unpackb(packed.data, raw=False)
    number = find_number_format(name)
    piece = _Piece(check_shape(sizes, number), number, data)
    if len(data) != piece.parameters * number.bytes:
        raise ValueError(f"{len(data)} bytes in place of {piece.parameters * number.bytes}")
    return piece


def _in_order(table: Mapping[str, Any]) -> list[Any]:
    """flax writes a list as a table of its numbers."""
    return [table[str(index)] for index in range(len(table))]


def _joined(pieces: Sequence[_Piece], shape: tuple[int, ...]) -> Tensor:
    data = pieces[0].data if len(pieces) == 1 else b"".join(piece.data for piece in pieces)
    return tensor_from_bytes(data, pieces[0].number, shape)


def pack_tree(tree: Any) -> bytes:
    """Write a tree in which arrays are tensors."""
    packed: bytes = msgpack.packb(tree, default=_pack_tensor, use_bin_type=True)
    return packed


def _pack_tensor(value: object) -> msgpack.ExtType:
    if not isinstance(value, Tensor):
        raise TypeError(f"no array: {type(value).__name__}")
    number = find_number_format(value.dtype)
    body = (list(value.shape), number.name, bytes_from_tensor(value))
    return msgpack.ExtType(_ARRAY, msgpack.packb(body, use_bin_type=True))
