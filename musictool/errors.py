"""What can go wrong, said in words a user can act on.

Every expected failure is a `MusicToolError`: a message that says what is wrong, a context that says where (a file, an
item, a line), a hint that says what to do, and the exit status a command ends with. This module imports nothing of
ours, so that any room may raise.
"""

from __future__ import annotations


class MusicToolError(Exception):
    """An expected failure.

    Args:
        message: what is wrong, one line without a full stop.
        context: where: a path, `item 'take', line 12`, an option.
        hint: what to do about it, one line.
        code: a stable machine-readable name in kebab case, used in `fail` items and JSON logs.
    """

    exit_status = 1
    default_code = "failed"

    def __init__(self, message: str, *, context: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.context = context
        self.hint = hint
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.message} ({self.context})" if self.context else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.context, self.hint, self.code)


def _rebuild(kind: type[MusicToolError], message: str, context: str, hint: str, code: str) -> MusicToolError:
    """Make an error again on the far side of a process boundary."""
    return kind(message, context=context, hint=hint, code=code)


class FindingsError(MusicToolError):
    """The work was done and some of it failed or was found wanting (exit status 1)."""

    exit_status = 1
    default_code = "findings"


class UsageError(MusicToolError):
    """An option, argument or configuration that makes no sense (exit status 2)."""

    exit_status = 2
    default_code = "usage"


class InputError(MusicToolError):
    """Input that cannot be read, or output that cannot be written (exit status 3)."""

    exit_status = 3
    default_code = "invalid-input"


class MissingError(MusicToolError):
    """A model, a font or an optional dependency that is not there (exit status 4)."""

    exit_status = 4
    default_code = "missing"


class ResourceError(MusicToolError):
    """Not enough memory, or no such device (exit status 5)."""

    exit_status = 5
    default_code = "resource"
