"""What a finished `mtk` says to the shell."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Exit status of every command; `MusicToolError.exit_status` holds the same numbers."""

    DONE = 0
    FINDINGS = 1  # finished, with findings or failed items
    USAGE = 2  # wrong usage or configuration
    INPUT = 3  # input that cannot be read, or output that cannot be written
    MISSING = 4  # a model or an optional dependency is not there
    RESOURCE = 5  # out of memory, or no such device
    INTERNAL = 70  # a bug of ours; sysexits.h calls it EX_SOFTWARE, and no promise above is mistaken for it
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM
