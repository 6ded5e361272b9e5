"""Byte streams whose errors say which stream failed, and those errors in a user's words.

The system names the file when an open fails but not when a read or a write does, and 'no space left on device' is of
use only with a path. A broken pipe likewise ends a command quietly only when the pipe is its standard output.
"""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING

from musictool.errors import InputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

STANDARD_INPUT = "standard input"
STANDARD_OUTPUT = "standard output"

_HINTS = {
    errno.ENOSPC: ("no-space", "free some space, or write elsewhere with -o"),
    errno.EDQUOT: ("no-space", "free some of the quota, or write elsewhere with -o"),
    errno.EFBIG: ("no-space", "raise the file size limit (ulimit -f), or split the output"),
    errno.EACCES: ("permission", "check who may read and write there"),
    errno.EROFS: ("permission", "write elsewhere with -o"),
}


class NamedFile(io.FileIO):
    """An unbuffered file on an open descriptor that puts its label into the errors it raises."""

    def __init__(self, descriptor: int, mode: str, label: str, *, closefd: bool = True) -> None:
        super().__init__(descriptor, mode, closefd=closefd)
        self.label = label

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            return super().readinto(buffer)
        except OSError as error:
            error.filename = self.label
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            error.filename = self.label
            raise

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self.label
            raise


def input_error_from(error: OSError) -> InputError:
    """Say what the system said in the shape of every other error.

    Args:
        error: an error of the system; its `filename` becomes the context.

    Returns:
        The error to raise from it.
    """
    message = error.strerror or str(error) or type(error).__name__
    context = error.filename
    if isinstance(context, bytes):
        context = context.decode(errors="backslashreplace")
    code, hint = _HINTS.get(error.errno or 0, ("", ""))
    return InputError(
        message[:1].lower() + message[1:], context="" if context is None else str(context), hint=hint, code=code
    )
