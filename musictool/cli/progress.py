"""How far a run is: a bar for people, events for machines, nothing for anyone else.

`track` counts items, `audio_meter` counts seconds of sound. rich is imported only to draw, that is when standard error
is a terminal. A failed item is reported through `Environment.item_failed`, which writes above the bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from musictool.cli.environment import Environment, LogFormat

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
Clock = Callable[[], float]

SECONDS_BETWEEN_EVENTS = 5.0


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
    if _is_watched(environment):
        with _item_bar(environment) as progress:
            yield iter(progress.track(items, total=total, description=label))
        return
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


class AudioMeter:
    """How much sound is done, and how fast.

    Args:
        total_seconds: how much there is, or None while nobody knows.
        clock: tells the time in seconds; the meter starts with it.
        show: called with the meter after each change.
    """

    def __init__(self, total_seconds: float | None, clock: Clock, show: Callable[[AudioMeter], None]) -> None:
        self.audio_seconds = 0.0
        self.total_seconds = total_seconds
        self._clock = clock
        self._begin = clock()
        self._show = show

    @property
    def wall_seconds(self) -> float:
        """Time since the start."""
        return self._clock() - self._begin

    @property
    def real_time_factor(self) -> float | None:
        """Time taken for a second of sound; None before the first."""
        return self.wall_seconds / self.audio_seconds if self.audio_seconds else None

    def advance(self, seconds: float) -> None:
        """Count sound that is done."""
        self.audio_seconds += seconds
        self._show(self)

    def extend_total(self, seconds: float) -> None:
        """Count sound that is to be done, when the length of one more file is known."""
        self.total_seconds = (self.total_seconds or 0.0) + seconds
        self._show(self)


@contextmanager
def audio_meter(
    environment: Environment, *, label: str, total_seconds: float | None = None, clock: Clock = time.monotonic
) -> Iterator[AudioMeter]:
    """Show how many seconds of sound are done and how that compares with the clock.

        with audio_meter(environment, label="transcribe") as meter:
            for segment in segments: ...; meter.advance(segment.duration_seconds)

    Args:
        environment: decides who is told: nobody, a terminal, or a machine (events `start`, `end`, and `progress` at
            most every five seconds).
        label: the verb.
        total_seconds: how much sound there is, where it is known at the start.
        clock: tells the time in seconds.

    Yields:
        The meter, for one thread to advance.
    """
    if _is_watched(environment):
        with _audio_bar(environment, label, clock) as show:
            meter = AudioMeter(total_seconds, clock, show)
            show(meter)
            yield meter
        return
    meter = AudioMeter(total_seconds, clock, _progress_events(environment, label, clock))
    environment.event("start", label=label, total_seconds=total_seconds)
    try:
        yield meter
    finally:
        environment.event("end", label=label, **_measures(meter))


def _is_watched(environment: Environment) -> bool:
    """Whether a person looks on."""
    is_for_people = not environment.quiet and environment.log_format is LogFormat.TEXT
    return is_for_people and environment.is_stderr_terminal


def _progress_events(environment: Environment, label: str, clock: Clock) -> Callable[[AudioMeter], None]:
    last = clock()

    def tell(meter: AudioMeter) -> None:
        nonlocal last
        now = clock()
        if now - last >= SECONDS_BETWEEN_EVENTS:
            last = now
            environment.event("progress", label=label, **_measures(meter))

    return tell


def _measures(meter: AudioMeter) -> dict[str, float | None]:
    """What an event tells, to the millisecond."""
    factor = meter.real_time_factor
    return {
        "total_seconds": None if meter.total_seconds is None else round(meter.total_seconds, 3),
        "audio_seconds": round(meter.audio_seconds, 3),
        "wall_seconds": round(meter.wall_seconds, 3),
        "real_time_factor": None if factor is None else round(factor, 5),
    }


@contextmanager
def _item_bar(environment: Environment) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _drawn(environment, *columns, TimeRemainingColumn()) as progress:
        yield progress


@contextmanager
def _audio_bar(environment: Environment, label: str, clock: Clock) -> Iterator[Callable[[AudioMeter], None]]:
    """Draw a bar and give what brings it up to date."""
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[audio]} {task.fields[speed]}"))
    with _drawn(environment, *columns, TimeRemainingColumn(), clock=clock) as progress:
        task = progress.add_task(label, total=None, audio="", speed="")

        def show(meter: AudioMeter) -> None:
            audio = _minutes(meter.audio_seconds)
            if meter.total_seconds is not None:
                audio += f"/{_minutes(meter.total_seconds)}"
            factor = meter.real_time_factor
            speed = "" if factor is None else f"rtf {factor:.3f}"
            progress.update(task, completed=meter.audio_seconds, total=meter.total_seconds, audio=audio, speed=speed)

        yield show


@contextmanager
def _drawn(environment: Environment, *columns: Any, clock: Clock = time.monotonic) -> Iterator[Progress]:
    """Keep a bar on the screen for a block, below whatever the environment writes meanwhile."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=environment.stderr)
    write_line = environment.write_line
    with Progress(
        *columns, console=console, get_time=clock, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        environment.write_line = lambda line: console.print(
            line, markup=False, emoji=False, highlight=False, soft_wrap=True
        )
        try:
            yield progress
        finally:
            environment.write_line = write_line


def _minutes(seconds: float) -> str:
    """Write a duration as m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"
