"""safetensors files: a header of names, shapes and offsets, and the numbers, mapped into memory as they are read."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from musictool.checkpoints.checkpoint import StoredTensor, broken
from musictool.checkpoints.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def stored_in_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, from its header; no numbers are read, nor torch imported.

    Raises:
        InputError: the header is damaged, or the file is shorter or longer than it says.
        OSError: the file cannot be read.
    """
    with open(path, "rb"):  # the system's own error where there is one
        pass
    reader = _Reader(path)
    try:
        with safe_open(path, framework="np") as file:
            return {name: _stored(name, file.get_slice(name), reader) for name in file.keys()}  # noqa: SIM118  (no dict)
    except SafetensorError as error:
        raise broken(path, f"unreadable safetensors: {error}") from error


def _stored(name: str, header: Any, reader: _Reader) -> StoredTensor:
    dtype = _DTYPES.get(header.get_dtype(), header.get_dtype().lower())
    return StoredTensor(name, tuple(header.get_shape()), dtype, partial(reader.read, name))


class _Reader:
    """A file that is mapped into memory when the first of its tensors is read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _file(self) -> Any:
        return safe_open(self._path, framework="pt")

    def read(self, name: str) -> Tensor:
        """A tensor that shares the file's memory."""
        try:
            tensor: Tensor = self._file.get_tensor(name)
        except SafetensorError as error:
            raise broken(self._path, f"unreadable safetensors: {error}") from error
        return tensor


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors to a file; the same tensors make the same bytes.

    Returns:
        The file's sha256, in hexadecimal.

    Raises:
        OSError: it cannot be written.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode  # as the umask has it: safetensors writes a file for its owner alone
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})
    except SafetensorError as error:
        raise _as_system_error(error, path) from error
    path.chmod(mode)
    return sha256_of(path)


def _as_system_error(error: SafetensorError, path: Path) -> OSError:
    """The error of the system that safetensors tells of in words."""
    number = re.search(r"os error (\d+)", str(error))
    code = int(number[1]) if number else errno.EIO
    return OSError(code, os.strerror(code), str(path))
