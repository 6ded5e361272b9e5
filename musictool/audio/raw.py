"""Sound without a header: samples of all channels in turn, as a sound card gives and takes them.

Knows how samples are laid out in bytes, and nothing of files. Encodings are named as ffmpeg names them.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from musictool.audio.pipes import Source
from musictool.errors import UsageError

ENCODINGS = ("s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "u8", "f32le", "f32be", "f64le", "f64be")
MAX_CHANNELS = 1024  # libsndfile's limit


@dataclass(frozen=True)
class RawFormat:
    """How raw sound is laid out.

    Attributes:
        rate_hz, channels: of the sound.
        encoding: one of `ENCODINGS`: signed, unsigned or floating point, bits of a sample, and which byte comes first.

    Raises:
        UsageError: there is no such encoding, or no such sound.
    """

    rate_hz: int
    channels: int
    encoding: str = "s16le"

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            near = get_close_matches(self.encoding.lower(), ENCODINGS, n=1, cutoff=0.8)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(ENCODINGS)}"
            raise UsageError(f"no such sample format: {self.encoding[:40]!r}", hint=hint)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise UsageError(f"sound has 1 to {MAX_CHANNELS} channels, not {self.channels}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of every channel."""
        return self._bits // 8 * self.channels

    @property
    def is_integer(self) -> bool:
        """Whether samples are whole numbers, which hold nothing outside of -1..1."""
        return not self.encoding.startswith("f")

    def decode(self, data: bytes) -> NDArray[np.float32]:
        """Whole frames to samples in -1..1, float32 [frames, C]."""
        samples = np.frombuffer(self._widened(data), self._dtype).astype(np.float64)
        if self.encoding == "u8":
            samples -= 128
        if self.is_integer:
            samples /= 1 << (8 * self._dtype.itemsize - 1)
        with np.errstate(over="ignore"):  # a sample of 1e300 becomes infinite, which readers refuse
            return samples.astype(np.float32).reshape(-1, self.channels)

    def encode(self, block: NDArray[np.float32]) -> bytes:
        """Samples, float32 [frames, C], to bytes; those outside of -1..1 are clipped where whole numbers hold them."""
        if not self.is_integer:
            return block.astype(self._dtype).tobytes()
        full = 1 << (self._bits - 1)
        numbers = np.clip(np.rint(block.astype(np.float64) * full), -full, full - 1)
        if self.encoding == "u8":
            numbers += 128
        if self._bits == 24:
            four = (numbers * 256).astype(self._dtype).view(np.uint8).reshape(-1, 4)
            return four[:, self._bytes_of_24].tobytes()
        return numbers.astype(self._dtype).tobytes()

    def _widened(self, data: bytes) -> bytes:
        """Samples of 24 bits in 32; others as they are."""
        if self._bits != 24:
            return data
        four = np.zeros((len(data) // 3, 4), np.uint8)
        four[:, self._bytes_of_24] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return four.tobytes()

    @property
    def _bytes_of_24(self) -> slice:
        """Which bytes of 32 bits are their upper 24."""
        return slice(0, 3) if self.encoding.endswith("be") else slice(1, 4)

    @property
    def _bits(self) -> int:
        return int("".join(filter(str.isdigit, self.encoding)))

    @property
    def _dtype(self) -> np.dtype:
        """numpy's type of a sample; 24 bits are widened to 32."""
        letter = {"s": "i", "u": "u", "f": "f"}[self.encoding[0]]
        width = 4 if self._bits == 24 else self._bits // 8
        return np.dtype(f"{'>' if self.encoding.endswith('be') else '<'}{letter}{width}")


class RawDecoder:
    """Raw sound read as it comes, as `decoding.Decoder` reads what has a header.

    Args:
        source: its bytes.
        layout: how they are laid out.

    Attributes:
        rate_hz, channels, container, encoding: of the sound.
        promised_frames: None, since nothing promises any.
    """

    def __init__(self, source: Source, layout: RawFormat) -> None:
        self.rate_hz, self.channels = layout.rate_hz, layout.channels
        self.container, self.encoding = "RAW", layout.encoding.upper()
        self.promised_frames: int | None = None
        self._source = source
        self._layout = layout
        self._held = bytearray()
        source.rewind()
        source.release()

    def read(self, frames: int) -> tuple[NDArray[np.float32], str]:
        """The next sound: float32 [frames, C], shorter only at the end; and nothing that made it end there."""
        wanted = frames * self._layout.frame_bytes
        while len(self._held) < wanted and (piece := self._source.read()):
            self._held += piece
        size = min(wanted, len(self._held) // self._layout.frame_bytes * self._layout.frame_bytes)
        data = bytes(self._held[:size])
        del self._held[:size]
        return self._layout.decode(data), ""

    def complaint(self) -> str:
        """Nothing, ever."""
        return ""

    def is_short(self, frames: int) -> bool:
        """Whether the sound ends inside a frame."""
        return bool(self._held)

    def close(self) -> None:
        """Nothing to let go of: the source is the caller's."""
