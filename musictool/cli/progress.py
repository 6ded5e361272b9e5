"""How far a run is: a bar for people, events for machines, nothing for anyone else.

rich is imported only to draw, that is when standard error is a terminal. A failed item is reported through
`Environment.item_failed`, which writes above the bar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from musictool.cli.environment import Environment, LogFormat

T = TypeVar("T")


@contextmanager
def track(
    items: Iterable[T], environment: Environment, *, label: str, total: int | None = None
) -> Iterator[Iterator[T]]:
    """Show how many items of a run are done.

        with track(sources, environment, label="tokenize") as tracked:
            for source in tracked: ...

    Args:
        items: what is worked on.
        environment: decides who is told: nobody, a terminal, or a machine (events `start` and `end`).
        label: the verb.
        total: how many items there are, where `items` has no length.

    Yields:
        The items; one counts as done when the next is asked for.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    if environment.quiet or environment.log_format is LogFormat.JSON or not environment.is_stderr_terminal:
        done = 0

        def counted() -> Iterator[T]:
            nonlocal done
            for item in items:
                yield item
                done += 1

        environment.event("start", label=label, total=total)
        try:
            yield counted()
        finally:
            environment.event("end", label=label, total=total, done=done)
    else:
        with _bar(items, environment, label, total) as tracked:
            yield tracked


@contextmanager
def _bar(items: Iterable[T], environment: Environment, label: str, total: int | None) -> Iterator[Iterator[T]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=environment.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    write_line = environment.write_line
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        environment.write_line = lambda line: console.print(
            line, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        try:
            yield iter(progress.track(items, total=total, description=label))
        finally:
            environment.write_line = write_line
