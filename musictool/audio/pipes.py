"""Bytes that come once, and a decoder that is handed them as they come.

A decoder in C that waits on a pipe cannot be interrupted, and one that calls back into Python for its bytes swallows
errors and a Ctrl-C. So it runs in a thread of its own at the end of a pipe, and the caller's thread, while it waits for
the decoder, reads the source and fills the pipe: whatever goes wrong there comes up where it belongs.

Knows nothing of sound. Needs pipes that can be waited on, as POSIX has them.
"""

from __future__ import annotations

import hashlib
import io
import os
import select
import stat
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import BinaryIO, TypeVar

from musictool.errors import InputError

T = TypeVar("T")

PIECE_BYTES = 1 << 16
HELD_BYTES = 1 << 26  # as much as a decoder may look at before it decides; pictures in tags are among it


class Source:
    """A file's bytes in order, hashed as they pass; bounded memory.

    What has been read is held until `release`, so that another decoder may start over. A regular file is read from its
    beginning, wherever it stands, and is left standing there.

    Args:
        file: open for reading; anything but a regular file is read from where it stands.

    Attributes:
        descriptor: of a regular file, for a decoder to read and seek by itself; None for all else.
    """

    def __init__(self, file: BinaryIO) -> None:
        raw = getattr(file, "raw", file)
        number = raw.fileno() if isinstance(raw, io.FileIO) else None
        is_regular = number is not None and stat.S_ISREG(os.fstat(number).st_mode)
        self.descriptor = number if is_regular else None
        self._waitable = None if is_regular else number
        self._offset = 0
        self._pull: Callable[[int], bytes] = self._pull_at_offset if is_regular else getattr(file, "read1", file.read)
        self._hash = hashlib.sha256()
        self._held = bytearray()
        self._position = 0  # within what is held
        self._is_held = True
        self._tail = b""

    def peek(self, size: int) -> bytes:
        """The first bytes of all, `size` of them if there are as many; before `release` only."""
        while len(self._held) < min(size, HELD_BYTES) and (piece := self._next()):
            self._held += piece
        return bytes(self._held[:size])

    def rewind(self, skip: int = 0) -> None:
        """Start over at byte `skip`, which has been peeked at; before `release` only."""
        self._position = skip

    def release(self) -> None:
        """Hold no more than what is still to be read."""
        self._is_held = False
        del self._held[: self._position]
        self._position = 0

    def read(self) -> bytes:
        """The next bytes, as many as are there; none at the end.

        Raises:
            OSError: the file cannot be read.
            InputError: there is no end of what has to be held.
        """
        if self._position < len(self._held):
            piece = bytes(self._held[self._position : self._position + PIECE_BYTES])
            self._position += len(piece)
        else:
            piece = self._next()
            if self._is_held:
                self._held += piece
                self._position += len(piece)
        if not self._is_held:
            self.release()
        elif self._position > HELD_BYTES:
            size = f"{HELD_BYTES >> 20} MiB"
            raise InputError(f"nothing to decode in its first {size}", code="unreadable-audio")
        return piece

    def drain(self) -> None:
        """Read what is left, for the sake of `sha256` and `tail`."""
        while self.read():
            pass

    @property
    def waitable(self) -> int | None:
        """The descriptor that says when `read` will not wait; None if it does not wait anyway, or cannot be asked."""
        return None if self._position < len(self._held) else self._waitable

    @property
    def sha256(self) -> str:
        """Of all bytes that have come, in hexadecimal."""
        return self._hash.hexdigest()

    @property
    def tail(self) -> bytes:
        """The last bytes that have come: 64 KiB, or all there were."""
        return self._tail[-PIECE_BYTES:]

    def _next(self) -> bytes:
        piece = self._pull(PIECE_BYTES)
        self._hash.update(piece)
        self._tail = self._tail[-PIECE_BYTES:] + piece if len(piece) < PIECE_BYTES else piece
        return piece

    def _pull_at_offset(self, size: int) -> bytes:
        assert self.descriptor is not None
        piece = os.pread(self.descriptor, size, self._offset)
        self._offset += len(piece)
        return piece


class Feed:
    """Runs each of a decoder's calls in a thread of its own, and fills its pipe meanwhile.

    Args:
        source: what goes into the pipe; None if the decoder gets its bytes elsewhere.
        sink: the pipe's write end, which is the feed's from now on.
        prefix: goes before the source.
    """

    def __init__(self, source: Source | None = None, sink: int | None = None, prefix: bytes = b"") -> None:
        self._source = source
        self._sink = sink
        self._pending = memoryview(prefix)
        self._is_done, self._say_done = os.pipe()
        self._thread: threading.Thread | None = None
        if sink is not None:
            os.set_blocking(sink, False)

    def run(self, call: Callable[[], T]) -> T:
        """Call a function in the decoder's thread.

        Returns:
            What it returns.

        Raises:
            OSError, InputError: as `Source.read`; the decoder still waits for its bytes, and only `close` makes sense.
        """
        future: Future[T] = Future()

        def work() -> None:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
            os.write(self._say_done, b"\0")

        self._thread = threading.Thread(target=work, name="decoder", daemon=True)
        self._thread.start()
        while self._move():
            pass
        return future.result()

    def close(self) -> None:
        """End the pipe, and wait for the decoder to meet that end, whose own must still be open."""
        self._close_sink()
        if self._thread is not None and self._thread.ident is not None:  # a Ctrl-C may come before it is started
            self._thread.join()
        os.close(self._is_done)
        os.close(self._say_done)

    def _move(self) -> bool:
        """Move some bytes, or wait until there is something to do; False when the call has ended."""
        readable, writable = [self._is_done], []
        waitable = None
        if self._sink is not None and not self._pending:
            assert self._source is not None
            waitable = self._source.waitable
            if waitable is not None:
                readable.append(waitable)
            else:
                self._take()
        if self._sink is not None and self._pending:
            writable.append(self._sink)
        ready, writable, _ = select.select(readable, writable, [])
        if self._is_done in ready:
            os.read(self._is_done, 1)
            return False
        if ready:
            self._take()
        elif writable:
            self._give()
        return True

    def _take(self) -> None:
        assert self._source is not None
        self._pending = memoryview(self._source.read())
        if not self._pending:
            self._close_sink()

    def _give(self) -> None:
        assert self._sink is not None
        try:
            self._pending = self._pending[os.write(self._sink, self._pending) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the decoder has had enough
            self._close_sink()

    def _close_sink(self) -> None:
        if self._sink is not None:
            os.close(self._sink)
            self._sink = None
