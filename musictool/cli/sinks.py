"""Where a command's items go: all into one stream, or each into a stream of its own.

Items are written as they are made; a file appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, BinaryIO, Protocol

from musictool.cli.environment import Environment
from musictool.cli.files import OutputPlan

if TYPE_CHECKING:
    from pathlib import Path

    from musictool.stream.writer import Names, StreamWriter


class StreamSink(Protocol):
    """Where items go.

    Attributes:
        is_one_stream: whether all of them share a stream, in which they are then numbered.
    """

    is_one_stream: bool

    def is_done(self, name: str) -> bool:
        """Whether an item's output is there and is to be kept; ask once an item, before its writer.

        Raises:
            InputError: the name is no name for a file, or another item has it.
            UsageError: the file exists.
        """
        ...

    def writer(self, name: str, names: Names | None = None) -> AbstractContextManager[StreamWriter]:
        """What writes an item; an error that leaves the block leaves no file of that item alone.

        Args:
            name: the item's.
            names: write its events by the names that this vocabulary gives them.
        """
        ...


class _OneStream:
    """All items in one stream."""

    is_one_stream = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def is_done(self, name: str) -> bool:
        return False

    def writer(self, name: str, names: Names | None = None) -> AbstractContextManager[StreamWriter]:
        from musictool.stream.writer import StreamWriter

        return nullcontext(StreamWriter(self._file, names=names))


class _StreamEach:
    """A stream for each item that has not failed."""

    is_one_stream = False

    def __init__(self, plan: OutputPlan, environment: Environment) -> None:
        self._plan = plan
        self._environment = environment
        self._paths: dict[str, Path | None] = {}

    def is_done(self, name: str) -> bool:
        self._paths[name] = path = self._plan.path_for(name)
        if self._plan.is_done(path):
            return True
        self._plan.check(path)
        return False

    @contextmanager
    def writer(self, name: str, names: Names | None = None) -> Iterator[StreamWriter]:
        from musictool.stream.files import compressing
        from musictool.stream.writer import StreamWriter

        path = self._paths[name]
        assert path is not None
        with self._plan.open(path, self._environment) as file, compressing(file, path.name) as plain:
            yield StreamWriter(plain, is_live=False, names=names)


@contextmanager
def open_sink(plan: OutputPlan, environment: Environment) -> Iterator[StreamSink]:
    """The sink that `-o` asks for.

    Raises:
        UsageError: the one file exists.
    """
    from musictool.stream.files import compressing

    if not (plan.is_standard_output or plan.is_single_file):
        yield _StreamEach(plan, environment)
        return
    path = plan.path_for("")
    plan.check(path)
    with plan.open(path, environment) as file, compressing(file, path.name if path else "") as plain:
        yield _OneStream(plain)
