"""Signals that ask a run to end: it finishes its step and saves before it does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interruption(BaseException):
    """A signal came while something was done that need not be finished."""


class Interrupts:
    """Remembers the first signal that came.

    Attributes:
        number: of the signal; 0 while there is none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._breaks_in = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch Ctrl-C, SIGTERM and SIGHUP for a block; a second Ctrl-C leaves it at once.

        A signal that is ignored (`nohup`) stays so. Outside the main thread nothing is caught.

        Raises:
            KeyboardInterrupt: Ctrl-C came twice.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}
        before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in before:
            signal.signal(number, self._remember)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def breaking_in(self) -> Iterator[None]:
        """For a block, let a signal leave it at once.

        Raises:
            Interruption: one came, now or before.
        """
        self._breaks_in = True
        try:
            if self.number:
                raise Interruption
            yield
        finally:
            self._breaks_in = False

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == self.number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = self.number or number
        if self._breaks_in:
            self._breaks_in = False
            raise Interruption
