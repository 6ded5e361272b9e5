"""Which format a path is in. The one place that knows them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from musictool.checkpoints.checkpoint import Checkpoint
from musictool.checkpoints.hub import is_hub_folder, open_hub_folder
from musictool.checkpoints.native import is_native, open_native
from musictool.checkpoints.safetensors_files import stored_in_safetensors
from musictool.checkpoints.t5x import is_t5x, open_t5x
from musictool.checkpoints.torch_files import open_torch_file
from musictool.errors import InputError

_FOLDERS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Checkpoint]], ...] = (
    (is_native, open_native),
    (is_t5x, open_t5x),
    (is_hub_folder, open_hub_folder),
)
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80")
_HINT = "known are T5X and Hugging Face folders, .safetensors, torch files, and musictool's own folders"


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint of any format; what it holds tells which, and not its name.

    Raises:
        InputError: there is nothing, nothing that is known, or something damaged.
        OSError: it cannot be read.
    """
    if path.is_dir():
        for is_format, open_format in _FOLDERS:
            if is_format(path):
                return open_format(path)
        raise InputError("no checkpoint in the folder", context=str(path), hint=_HINT, code="no-checkpoint")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
    except FileNotFoundError as error:
        raise InputError("no such file or folder", context=str(path), code="no-such-file") from error
    if start[8:9] == b"{":
        return Checkpoint(path, "safetensors", stored_in_safetensors(path))
    if start.startswith(_TORCH_MAGIC):
        return open_torch_file(path)
    raise InputError("no checkpoint of a known format", context=str(path), hint=_HINT, code="no-checkpoint")
