"""Compressed streams: written as the suffix `.zst` or `.gz` asks, read as the first bytes tell, in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from musictool.stream.records import StreamError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STREAM_SUFFIXES = (".mtk", ".mtk.zst", ".mtk.gz")
_CHUNK_BYTES = 1 << 16


def is_stream_path(path: Path) -> bool:
    """Whether a file's name says that it holds a token stream."""
    return path.name.lower().endswith(STREAM_SUFFIXES)


_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@contextmanager
def decompressing(raw: BinaryIO, name: str) -> Iterator[io.BufferedReader]:
    """The plain bytes of a file that may be compressed; its first bytes tell, whatever it is called.

    Args:
        raw: the file; a stream that is still being written will do.
        name: what to call it in errors.

    Raises:
        StreamError: while reading, if the compressed data is broken or ends early.
    """
    plain = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, raw))
    magic = plain.peek(4)[:4]
    if magic.startswith(_GZIP_MAGIC):
        plain = io.BufferedReader(_GzipReader(plain, name), _CHUNK_BYTES)
    elif magic == _ZSTD_MAGIC:
        plain = io.BufferedReader(_ZstdReader(plain, name), _CHUNK_BYTES)
    yield plain


@contextmanager
def compressing(raw: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """A sink whose bytes reach `raw` compressed as its name asks; the same bytes in give the same bytes out."""
    suffix = Path(name).suffix.lower()
    if suffix == ".gz":
        with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed:
            yield cast(BinaryIO, packed)
    elif suffix == ".zst":
        import zstandard

        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(raw, closefd=False) as packed:
            yield cast(BinaryIO, packed)
    else:
        yield raw


class _GzipReader(io.RawIOBase):
    """gzip's reader with its errors in our words."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        self._plain, self._name = gzip.GzipFile(fileobj=raw, mode="rb"), name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        try:
            view = memoryview(buffer)
            chunk = self._plain.read1(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _broken(self._name, error) from error
        view[: len(chunk)] = chunk
        return len(chunk)


class _ZstdReader(io.RawIOBase):
    """Frame after frame; unlike zstandard's own reader, it notices a frame that ends early."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        import zstandard

        self._raw, self._name, self._zstandard = raw, name, zstandard
        self._frame: Any = None  # a decompressor at work, None between frames
        self._packed = b""
        self._plain = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        while not self._plain:
            if not self._packed:
                self._packed = self._raw.read(_CHUNK_BYTES)
                if not self._packed:
                    if self._frame is not None:
                        raise _broken(self._name, "the file ends inside a frame")
                    return 0
            self._step()
        view = memoryview(buffer)
        count = min(len(view), len(self._plain))
        view[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _step(self) -> None:
        """Feed one small piece to the frame at hand, so that a bomb unpacks a little at a time."""
        if self._frame is None:
            self._frame = self._zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
        piece, self._packed = self._packed[:256], self._packed[256:]
        try:
            self._plain = self._frame.decompress(piece)
        except self._zstandard.ZstdError as error:
            raise _broken(self._name, error) from error
        if self._frame.eof:
            self._packed = self._frame.unused_data + self._packed
            self._frame = None


def _broken(name: str, why: object) -> StreamError:
    return StreamError(f"the compressed data is broken: {why}", context=name)
