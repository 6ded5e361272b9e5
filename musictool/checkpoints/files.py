"""Files and folders that appear whole or not at all, and digests of files. Knows no format.

What is written goes to a temporary name beside the target and takes its name when all is on the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from musictool.errors import UsageError

_OURS = re.compile(
    r"(adapter_)?(model\.safetensors|config\.json)|card\.md|tokenizer\.json|spiece\.model|checkpoint|target\..*"
)
_BLOCK_BYTES = 1 << 20


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Write a file or a folder.

    Args:
        path: what it will be; folders above it are made. A link is written through.
        force: replace a file, or a folder in which there is nothing but a checkpoint.

    Yields:
        The temporary path, where there is nothing yet.

    Raises:
        UsageError: the target is there and `force` is not given, or it is a folder with other things in it.
        OSError: it cannot be written; the error bears the target's name.
    """
    refuse_existing(path, force=force)
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".mtk-{os.urandom(8).hex()}.part")
    try:
        with _naming(path):
            target.parent.mkdir(parents=True, exist_ok=True)
        with _naming(path, inside=temporary):
            yield temporary
            _sync(temporary)
        with _naming(path):
            _take_name(temporary, target, path, force=force)
    finally:
        remove(temporary)


def refuse_existing(path: Path, *, force: bool = False) -> None:
    """Refuse what may not be replaced, before any work is done for it.

    Raises:
        UsageError: the target is there and `force` is not given, or it is a folder with other things in it.
    """
    if not os.path.lexists(path):
        return
    if not force:
        raise UsageError("it exists", context=str(path), hint="replace it with --force", code="exists")
    if path.is_dir() and not all(_OURS.fullmatch(name) for name in os.listdir(path)):
        raise UsageError(
            "the folder holds more than a model, and is not replaced",
            context=str(path),
            hint="name another folder",
            code="exists",
        )


def remove(path: Path) -> None:
    """Remove a file or a folder, or as much of it as can be."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def sha256_of(path: Path) -> str:
    """A file's sha256, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _naming(path: Path, inside: Path | None = None) -> Iterator[None]:
    """Put a name that a user knows into the system's errors; with `inside`, only into those about that path or none."""
    try:
        yield
    except OSError as error:
        name = "" if error.filename is None else os.fsdecode(error.filename)
        if inside is None or not name or name.startswith(str(inside)):
            error.filename, error.filename2 = str(path), None
        raise


def _sync(path: Path) -> None:
    """Wait until a file, or each file of a folder, is on the disk."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with open(file, "rb+") as opened:
            os.fsync(opened.fileno())


def _take_name(temporary: Path, target: Path, path: Path, *, force: bool) -> None:
    if not os.path.lexists(target):
        os.rename(temporary, target)
        return
    refuse_existing(path, force=force)  # it may have come meanwhile
    old = target.with_name(f"{temporary.name}.old")
    os.rename(target, old)
    try:
        os.rename(temporary, target)
    except OSError:
        os.rename(old, target)
        raise
    remove(old)
