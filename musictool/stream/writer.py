"""Writing a token stream: item by item, line by line, each line flushed where a reader may be waiting for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol

import numpy as np
import orjson
from numpy.typing import ArrayLike

from musictool.errors import MusicToolError
from musictool.stream.records import Closing, Failure, Head, ItemFailed, sealed

IDS_A_LINE = 4096


class Names(Protocol):
    """A vocabulary that prints tokens."""

    def names(self, ids: np.ndarray) -> list[str]: ...


class StreamWriter:
    """Items to bytes.

    Args:
        sink: where lines go.
        is_live: flush every line, for a reader at the other end of a pipe.
        names: write events by the names that this vocabulary gives them.
    """

    def __init__(self, sink: BinaryIO, *, is_live: bool = True, names: Names | None = None) -> None:
        self._sink = sink
        self._is_live = is_live
        self._names = names

    @contextmanager
    def item(self, head: Head) -> Iterator[ItemWriter]:
        """Write one item; an error that leaves the block closes it as failed and passes on."""
        writer = ItemWriter(self, head.kind)
        head_line = _dump(head.to_json())
        self.copy(head_line)
        try:
            yield writer
        except ItemFailed as error:
            self.copy(sealed(head_line, _dump(error.failure.to_json())[:-1]))
            raise
        except MusicToolError as error:
            self.copy(sealed(head_line, _dump(Failure.of(error).to_json())[:-1]))
            raise
        self.copy(sealed(head_line, _dump(writer.closing().to_json())[:-1]))

    def failed(self, head: Head, failure: Failure) -> None:
        """Write an item of which there is nothing but why."""
        head_line = _dump(head.to_json())
        self.copy(head_line + sealed(head_line, _dump(failure.to_json())[:-1]))

    def copy(self, lines: bytes) -> None:
        """Write lines that are ready."""
        self._sink.write(lines)
        if self._is_live:
            self._sink.flush()

    def events(self, ids: np.ndarray) -> None:
        """Write ids, int32 [t], as one line."""
        self.copy(_dump({"t": ids} if self._names is None else {"w": self._names.names(ids)}))


class ItemWriter:
    """The data lines of one item, counted and digested as they pass.

    Attributes:
        source_sha: sha256 of what the item is made from, empty if not known.
        samples, source_samples: how long the sound is that an item of codes is made from, as in `Closing`.

    All are to be set before the item ends.
    """

    def __init__(self, stream: StreamWriter, kind: str) -> None:
        self.source_sha = ""
        self.samples: int | None = None
        self.source_samples: int | None = None
        self._stream = stream
        self._kind = kind
        self._count = 0
        self._digest = hashlib.sha256()
        self._rows: int | None = None
        self._scales = b""

    def write(self, tokens: ArrayLike, scales: ArrayLike = ()) -> None:
        """Write some of the item.

        Args:
            tokens: ids, int [t], of an item of events; codebook rows, int [K, frames], of an item of codes.
            scales: float [s], of the segments that begin in these frames, where the codec normalises them.
        """
        array = np.ascontiguousarray(tokens, dtype="<i4")
        if self._kind == "events":
            for start in range(0, len(array), IDS_A_LINE):
                self._stream.events(array[start : start + IDS_A_LINE])
            self._digest.update(array.data)
            self._count += len(array)
            return
        if array.ndim != 2 or self._rows not in (None, len(array)):
            raise ValueError(f"codes come as [K, frames] with one K an item, not {array.shape}")
        self._rows = len(array)
        factors = np.asarray(scales, "<f4")
        if len(factors) and not array.shape[1]:
            raise ValueError("scales come with the first frame of their segment")
        self._scales += factors.tobytes()
        frames = max(1, IDS_A_LINE // max(1, self._rows))
        for start in range(0, array.shape[1], frames):
            line = {"c": np.ascontiguousarray(array[:, start : start + frames])}
            is_scaled = start == 0 and len(factors) > 0
            self._stream.copy(_dump({**line, "scales": factors} if is_scaled else line))
        self._digest.update(np.ascontiguousarray(array.T).data)
        self._count += array.shape[1]

    def closing(self) -> Closing:
        """The closing line as of now."""
        digest = self._digest.copy()
        digest.update(self._scales)
        return Closing(self._count, digest.hexdigest(), self.source_sha, self.samples, self.source_samples)


def _dump(line: dict[str, Any]) -> bytes:
    """One line of JSON with its line end."""
    return orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)
