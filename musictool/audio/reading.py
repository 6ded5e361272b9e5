"""Sound as a stream: files and pipes of any kind, decoded as they come, in bounded memory.

libsndfile decodes WAV, RF64, W64, AIFF, AU, CAF, FLAC, Ogg Vorbis and Opus, and MP3; ffmpeg, where it is installed,
everything else. A pipe may be endless and is decoded while it is written. Only what cannot be read forward (m4a, CAF,
RF64, ADPCM) is first copied from a pipe into a temporary file that has no name.

Knows containers, not what the sound is.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np
import soxr
from numpy.typing import NDArray

from musictool.audio.containers import has_last_page, needs_seeking
from musictool.audio.decoding import Decoder, open_decoder
from musictool.audio.pipes import Source
from musictool.audio.raw import RawDecoder, RawFormat
from musictool.errors import InputError

BLOCK_SAMPLES = 1 << 16
MIN_RATE_HZ, MAX_RATE_HZ = 100, 4_000_000
MAX_SAMPLE = 2.0**32  # full scale is 1, but some write whole numbers of 32 bits as floating point

_SYSTEM_ERRORS = {
    errno.ENOENT: ("no-such-file", ""),
    errno.ENOSPC: ("no-space", "sound from a pipe may need room for a copy: free some, or set TMPDIR"),
}


def open_audio(file: Path | str | BinaryIO, context: str = "", raw: RawFormat | None = None) -> AudioReader:
    """Open sound, whatever it is in.

    Args:
        file: where it is, or a binary file, pipe or not; the latter stays open. A regular file is read from its
            beginning, anything else from where it stands.
        context: what to call it in errors; a path names itself.
        raw: how sound without a header is laid out; one that has a WAV header all the same is read as that says.

    Returns:
        A reader, to be used in a `with` statement.

    Raises:
        InputError: it cannot be opened, or is no sound that can be decoded here.
    """
    return AudioReader(file, context, raw)


class AudioReader:
    """Sound that is read once, from its beginning to its end. Made by `open_audio`.

    One thread at a time may use it, and Ctrl-C ends its waiting.

    Attributes:
        rate_hz, channels: of the sound.
        duration_seconds: what the container promises; None if it doesn't say, as most pipes don't.
        container, encoding: as libsndfile names them; of what ffmpeg decodes, `FFMPEG` and `FLOAT`; of raw sound, `RAW`
            and what `RawFormat` calls it.
    """

    def __init__(self, file: Path | str | BinaryIO, context: str = "", raw: RawFormat | None = None) -> None:
        self._context = context or (str(file) if isinstance(file, (str, Path)) else "")
        self._frames = 0
        self._source_sha256: str | None = None
        self._is_truncated = False
        with ExitStack() as stack, self._errors():
            self._source = stack.enter_context(_opened(file))
            self._is_ogg = self._source.peek(4) == b"OggS"
            self._decoder = _decoder_of(self._source, raw)
            stack.callback(self._decoder.close)
            self.rate_hz, self.channels = self._decoder.rate_hz, self._decoder.channels
            self.container, self.encoding = self._decoder.container, self._decoder.encoding
            if not MIN_RATE_HZ <= self.rate_hz <= MAX_RATE_HZ:
                raise self._unreadable(f"a sample rate of {self.rate_hz} Hz")
            promised = self._decoder.promised_frames
            self.duration_seconds = None if promised is None else promised / self.rate_hz
            self._stack = stack.pop_all()

    def blocks(self, frames: int | None = None, *, strict: bool = True) -> Iterator[NDArray[np.float32]]:
        """The sound, once.

        Args:
            frames: how many a block has, the last one excepted; by default, so many that a block has 65536 samples.
            strict: refuse samples that are no finite numbers or absurdly high, and a file without sound.

        Yields:
            float32 [frames, C].

        Raises:
            InputError: the source or its decoder fails before there is any sound; the source fails later; what `strict`
                refuses. A decoder that fails later ends the sound, and `is_truncated` is true.
        """
        size = frames or max(1, BLOCK_SAMPLES // self.channels)
        block, reason = np.empty((size, 0), np.float32), ""
        while len(block) == size:
            with self._errors():
                block, reason = self._decoder.read(size)
            if strict:
                self._refuse_unusable(block)
            self._frames += len(block)
            if len(block):
                yield block
        with self._errors():
            reason = self._finish(reason)
        if not self._frames and reason:
            raise self._unreadable(reason)
        if not self._frames and strict:
            raise InputError("there is no sound in it", context=self._context, code="empty-audio")

    @property
    def source_sha256(self) -> str:
        """sha256 of the source's bytes, all of them, in hexadecimal; known when the last block has been asked for."""
        if self._source_sha256 is None:
            raise RuntimeError("the sound has not been read to its end")
        return self._source_sha256

    @property
    def is_truncated(self) -> bool:
        """Whether there was less sound than the container promises, or the decoder broke off; known as `source_sha256`.

        A container that promises nothing, such as FLAC written into a pipe, may end too soon unnoticed.
        """
        if self._source_sha256 is None:
            raise RuntimeError("the sound has not been read to its end")
        return self._is_truncated

    def close(self) -> None:
        """Let go of everything, in the middle of the sound too."""
        self._stack.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _finish(self, reason: str) -> str:
        """Read what follows the sound, judge whether that was all, and say what was wrong."""
        self._source.drain()
        reason = reason or self._decoder.complaint()
        is_cut = self._is_ogg and not has_last_page(self._source.tail)
        self._is_truncated = bool(reason) or is_cut or self._decoder.is_short(self._frames)
        self._source_sha256 = self._source.sha256
        return reason

    def _refuse_unusable(self, block: NDArray[np.float32]) -> None:
        is_usable = np.abs(block) <= MAX_SAMPLE
        if is_usable.all():
            return
        row, channel = np.argwhere(~is_usable)[0]
        second = (self._frames + row) / self.rate_hz
        raise InputError(
            f"a sample of {block[row, channel]:.6g} at {second:.3f} s",
            context=self._context,
            hint="write the file again with whole numbers as samples, such as 16 or 24 bits",
            code="unusable-samples",
        )

    def _unreadable(self, reason: str) -> InputError:
        return InputError(f"unreadable audio: {reason}", context=self._context, code="unreadable-audio")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Put what libsndfile and the system raise in a user's words."""
        try:
            yield
        except InputError as error:
            error.context = error.context or self._context
            raise
        except OSError as error:
            message = (error.strerror or str(error) or "cannot be read").lower()
            code, hint = _SYSTEM_ERRORS.get(error.errno or 0, ("unreadable-file", ""))
            raise InputError(message, context=self._context, hint=hint, code=code) from error


def _decoder_of(source: Source, raw: RawFormat | None) -> Decoder | RawDecoder:
    """What reads a source."""
    start = source.peek(12) if raw is not None else b""
    is_wav = start.startswith(b"RIFF") and start.endswith(b"WAVE")
    return open_decoder(source) if raw is None or is_wav else RawDecoder(source, raw)


def mono_blocks(reader: AudioReader, rate_hz: int) -> Iterator[NDArray[np.float32]]:
    """Read sound as the mean of its channels, at a given rate; where blocks end makes no difference.

    Args:
        reader: at the beginning of its sound.
        rate_hz: what to resample to; sound that has this rate is left as it is, bit by bit.

    Yields:
        float32 [n], none of them empty; all together round(frames * rate_hz / reader.rate_hz), give or take one.

    Raises:
        InputError: as `AudioReader.blocks`.
    """
    mono = (block.mean(axis=1) if reader.channels > 1 else block[:, 0] for block in reader.blocks())
    stream = soxr.ResampleStream(reader.rate_hz, rate_hz, 1, dtype="float32", quality="HQ")
    for block in mono:
        if len(resampled := stream.resample_chunk(block)):
            yield resampled
    if len(rest := stream.resample_chunk(np.zeros(0, np.float32), last=True)):
        yield rest


@contextmanager
def _opened(file: Path | str | BinaryIO) -> Iterator[Source]:
    """The bytes of a file: copied into one that can seek, if there is no other way to read them."""
    with ExitStack() as stack:
        if isinstance(file, (str, Path)):
            file = cast(BinaryIO, stack.enter_context(open(file, "rb", buffering=0)))
        source = Source(file)
        if source.descriptor is None and needs_seeking(source.peek):
            spool = stack.enter_context(tempfile.TemporaryFile())
            source.release()
            while piece := source.read():
                spool.write(piece)
            spool.flush()
            source = Source(cast(BinaryIO, spool))
        yield source
