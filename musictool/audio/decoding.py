"""libsndfile and ffmpeg over a source's bytes: which of the two, and by which way.

libsndfile gets the descriptor of a file that can seek, or the end of a pipe that is filled while it reads. ffmpeg gets
what libsndfile refuses, and the sound that it makes of it is read by libsndfile like any other. Knows sources, not
files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.audio.containers import UNKNOWN_FRAMES, Forward, forward_ways, is_shortened
from musictool.audio.ffmpeg import INSTALL_HINT, Ffmpeg, find_ffmpeg
from musictool.audio.pipes import Feed, Source
from musictool.errors import InputError

T = TypeVar("T")

_UNRECOGNISED = 1  # libsndfile's code
_MPEG_SLACK_FRAMES = 2 * 1152  # some writers count the header's own frame


def open_decoder(source: Source) -> Decoder:
    """Find what decodes a source, and begin.

    Raises:
        InputError: nothing here does.
        OSError: the source cannot be read.
    """
    if not source.peek(1):
        raise InputError("unreadable audio: it is empty", code="unreadable-audio")
    refusal = ""
    for attempt in _libsndfile_attempts(source):
        try:
            decoder = attempt()
        except soundfile.LibsndfileError as error:
            refusal = "" if error.code == _UNRECOGNISED else reason_of(error)
        else:
            source.release()
            return decoder
    program = find_ffmpeg()
    if program is not None:
        source.rewind()
        try:
            decoder = _through_ffmpeg(source, program)
        except InputError as error:
            refusal = refusal or error.message
        else:
            source.release()
            return decoder
    raise InputError(
        f"unreadable audio: {refusal or 'format not recognised'}",
        hint=INSTALL_HINT if program is None else "",
        code="unreadable-audio",
    )


class Decoder:
    """libsndfile at one end of a source, in the caller's thread or behind a feed.

    Args:
        descriptor: what libsndfile reads.
        feed: what runs it, if reading may wait.
        ffmpeg: what the descriptor comes from, if from there.
        container: what the source is, if not what libsndfile takes it for.
        free: called when libsndfile has let go of the descriptor.

    Attributes:
        rate_hz, channels, container, encoding: of the sound, as libsndfile says.
        promised_frames: how many there should be; None if that is not known.

    Raises:
        soundfile.LibsndfileError: libsndfile does not know it; everything that was handed over is closed.
        InputError: ffmpeg does not know it; likewise.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        feed: Feed | None = None,
        ffmpeg: Ffmpeg | None = None,
        container: str = "",
        free: Callable[[], None] | None = None,
    ) -> None:
        self._feed, self._ffmpeg, self._free = feed, ffmpeg, free
        self._sound: Any = None
        try:
            self._sound = self._opened(descriptor)
        except BaseException:  # a Ctrl-C too must not leave it open
            self.close()
            raise
        self.rate_hz, self.channels = int(self._sound.samplerate), int(self._sound.channels)
        self.container, self.encoding = container or str(self._sound.format), str(self._sound.subtype)
        self._is_mpeg = self.encoding.startswith("MPEG")
        self.promised_frames = None if self._sound.frames > UNKNOWN_FRAMES else int(self._sound.frames)

    def read(self, frames: int) -> tuple[NDArray[np.float32], str]:
        """The next sound.

        Returns:
            float32 [frames, C], shorter only at the end; and what made it end there, if it should not have.
        """
        block = np.full((frames, self.channels), np.nan, np.float32)
        try:
            return block[: self._run(lambda: self._fill(block))], ""
        except soundfile.LibsndfileError as error:  # without the number of frames that it decoded before
            is_untouched = np.isnan(block).all(axis=1)
            return block[: int(is_untouched.argmax()) if is_untouched.any() else frames], reason_of(error)

    def complaint(self) -> str:
        """What ffmpeg did not like, when the sound has ended."""
        return self._ffmpeg.complaint() if self._ffmpeg is not None else ""

    def is_short(self, frames: int) -> bool:
        """Whether the container promises more than so many frames, when the sound has ended."""
        slack = _MPEG_SLACK_FRAMES if self._is_mpeg else 0
        promised = self.promised_frames
        return (promised is not None and frames + slack < promised) or is_shortened(self._sound.extra_info)

    def close(self) -> None:
        """Let go of everything but the source."""
        if self._ffmpeg is not None:
            self._ffmpeg.kill()
        if self._feed is not None:
            self._feed.close()
        if self._sound is not None:
            self._sound.close()
        if self._free is not None:
            self._free()

    def _opened(self, descriptor: int) -> soundfile.SoundFile:
        try:
            return self._run(lambda: _ForwardFile(descriptor, closefd=False))
        except soundfile.LibsndfileError as error:
            if self._ffmpeg is None:
                raise
            raise InputError(self.complaint() or reason_of(error)) from error

    def _run(self, call: Callable[[], T]) -> T:
        return call() if self._feed is None else self._feed.run(call)

    def _fill(self, block: NDArray[np.float32]) -> int:
        filled = 0
        while filled < len(block) and (count := len(self._sound.read(out=block[filled:]))):
            filled += count
        return filled


class _ForwardFile(soundfile.SoundFile):
    """A sound file that is read to its very end: one that can seek stops at a length that may be a guess."""

    def seekable(self) -> bool:
        return False


def reason_of(error: soundfile.LibsndfileError) -> str:
    """libsndfile's words in our style."""
    words = str(error.error_string).removeprefix("Error : ").rstrip(".")
    return words[:1].lower() + words[1:]


def _libsndfile_attempts(source: Source) -> list[Callable[[], Decoder]]:
    """What to try with libsndfile, the best first."""
    ways = forward_ways(source.peek)
    attempts: list[Callable[[], Decoder]] = []
    if source.descriptor is None or any(way.is_safer for way in ways):
        attempts += [partial(_through_pipe, source, way) for way in ways]
    if source.descriptor is not None:
        attempts.append(partial(_from_descriptor, source.descriptor))
    return attempts


def _from_descriptor(descriptor: int) -> Decoder:
    os.lseek(descriptor, 0, os.SEEK_SET)
    return Decoder(descriptor)


def _through_pipe(source: Source, way: Forward) -> Decoder:
    source.rewind(way.skip)
    read_end, write_end = os.pipe()
    feed = Feed(source, write_end, way.prefix)
    return Decoder(read_end, feed=feed, container=way.container, free=partial(os.close, read_end))


def _through_ffmpeg(source: Source, program: str) -> Decoder:
    if source.descriptor is not None:
        os.lseek(source.descriptor, 0, os.SEEK_SET)
        ffmpeg, feed = Ffmpeg(program, source.descriptor, can_seek=True), Feed()
    else:
        read_end, write_end = os.pipe()
        try:
            ffmpeg = Ffmpeg(program, read_end, can_seek=False)
        except OSError:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        feed = Feed(source, write_end)
    return Decoder(ffmpeg.output, feed=feed, ffmpeg=ffmpeg, container="FFMPEG", free=ffmpeg.close)
