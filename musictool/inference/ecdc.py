"""`.ecdc` files, as the `encodec` package compresses sound to them: a header, and codes of as few bits as they need.

    "ECDC"  0  length of the header          big-endian, 4 + 1 + 4 bytes
    {"m": "encodec_24khz", "al": samples, "nc": levels, "lm": false}
    for each segment: its scale (a big-endian float), where the codec normalises; then its codes, frame by frame and in
    each frame level by level, the lowest bit of each first; then zeros up to a whole byte

What took its turn through the package's language model (`"lm": true`, arithmetic coding) is not read: whether it can be
decoded at all hangs on the last bits of probabilities, and so on the machine and the library that wrote it.

The package works out how many frames a segment has in floats, and for some lengths (6720 samples at 24 kHz, say) gets
one more than there are, so that it cannot read what it wrote. Here they are counted in whole numbers, as its encoder
gives them. Knows no weights: files of either codec can be read without having it.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError, UsageError
from musictool.models.registry import load_preset
from musictool.stream.records import CodeChunk

if TYPE_CHECKING:
    from musictool.models.codec import CodecConfig

SUFFIX = ".ecdc"
MAGIC = b"ECDC"
_VERSION = 0
_START = struct.Struct("!4sBI")
_SCALE = struct.Struct("!f")
_HEADER_BYTES_MAX = 1 << 16
_SPOOL_BYTES = 1 << 22
_PRESETS = {"encodec_24khz": "encodec-24khz", "encodec_48khz": "encodec-48khz"}


class EcdcHeader(NamedTuple):
    """What a file says of itself.

    Attributes:
        preset: our name for the codec whose codes these are.
        samples: how long the sound is, in samples of each channel.
        levels: codebooks in use.
    """

    preset: str
    samples: int
    levels: int


# ------------------------------------------------------------------------------------------------------------- reading


def read_ecdc(file: BinaryIO, where: str = "") -> tuple[EcdcHeader, Iterator[CodeChunk]]:
    """Read a file, front to back and about a second at a time.

    Args:
        file: it need not be seekable.
        where: what to call it in errors.

    Returns:
        The header; and codes in order, of a codec with segments one segment at a time.

    Raises:
        InputError: it is no such file, or damaged; while codes are read, too.
    """
    header = _read_header(file, where)
    return header, _read_chunks(file, header, load_preset(header.preset), where)


def _read_header(file: BinaryIO, where: str) -> EcdcHeader:
    start = _read(file, _START.size)
    if start[: len(MAGIC)] != MAGIC:
        raise InputError("no .ecdc file: it does not begin with ECDC", context=where, code="bad-ecdc")
    if len(start) < _START.size:
        raise _cut(where)
    _, version, size = _START.unpack(start)
    if version != _VERSION or size > _HEADER_BYTES_MAX:
        raise InputError("an .ecdc file of a version that is not known", context=where, code="bad-ecdc")
    try:
        data = json.loads(_read_exactly(file, size, where))
        header, has_lm = _header_from(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the .ecdc header makes no sense: {error}", context=where, code="bad-ecdc") from error
    if has_lm:
        hint = "decompress it with the encodec package, or compress the sound again without --lm"
        message = "codes that took their turn through the package's language model are not read"
        raise InputError(message, context=where, hint=hint, code="lm-ecdc")
    return header


def _header_from(data: Any) -> tuple[EcdcHeader, bool]:
    """A header's meaning, and whether the language model was used.

    Raises:
        ValueError: it has none.
    """
    if not isinstance(data, dict):
        raise ValueError("it is no table")
    model, samples, levels, has_lm = (data.get(key) for key in ("m", "al", "nc", "lm"))
    if model not in tuple(_PRESETS):
        raise ValueError(f"{model!r:.40} is none of {', '.join(_PRESETS)}")
    if type(samples) is not int or samples < 0 or type(has_lm) is not bool:
        raise ValueError("'al' is no length, or 'lm' neither true nor false")
    codebooks = load_preset(_PRESETS[model]).codebooks
    if type(levels) is not int or not 1 <= levels <= codebooks:
        raise ValueError(f"'nc' is {levels!r:.20}, and {model} has {codebooks} codebooks")
    return EcdcHeader(_PRESETS[model], samples, levels), has_lm


def _read_chunks(file: BinaryIO, header: EcdcHeader, config: CodecConfig, where: str) -> Iterator[CodeChunk]:
    for frames in _segments(config, header.samples):
        scale = np.zeros(0, np.float32)
        if config.normalises:
            scale = np.array(_SCALE.unpack(_read_exactly(file, _SCALE.size, where)), np.float32)
            if not (np.isfinite(scale) & (scale > 0)).all():
                raise InputError("a segment's scale is no number above 0", context=where, code="bad-ecdc")
        bits = _BitReader(file, _bits_of(config), where)
        for count in _about_a_second(config, frames):
            rows = bits.take(count * header.levels).reshape(count, header.levels)  # [T, K]
            yield CodeChunk(np.ascontiguousarray(rows.T), scale)
            scale = scale[:0]
    if file.read(1):
        raise InputError("there is more in the file than its header tells of", context=where, code="bad-ecdc")


class _BitReader:
    """Numbers of a few bits each, the lowest bit first."""

    def __init__(self, file: BinaryIO, bits: int, where: str) -> None:
        self._file, self._where = file, where
        self._weights = 1 << np.arange(bits, dtype=np.int32)
        self._rest = np.zeros(0, np.uint8)  # bits

    def take(self, count: int) -> NDArray[np.int32]:
        wanted = count * len(self._weights)
        data = _read_exactly(self._file, -((len(self._rest) - wanted) // 8), self._where)
        ones = np.concatenate([self._rest, np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")])
        self._rest = ones[wanted:]
        return ones[:wanted].reshape(count, -1).astype(np.int32) @ self._weights


def _read_exactly(file: BinaryIO, size: int, where: str) -> bytes:
    data = _read(file, size)
    if len(data) < size:
        raise _cut(where)
    return data


def _read(file: BinaryIO, size: int) -> bytes:
    """So many bytes, or all that there are, from a file that may give a few at a time."""
    data = bytearray()
    while len(data) < size and (block := file.read(size - len(data))):
        data += block
    return bytes(data)


def _cut(where: str) -> InputError:
    return InputError("the .ecdc file ends early", context=where, hint="get the file again", code="truncated")


# ------------------------------------------------------------------------------------------------------------- writing


def ecdc_preset(config: CodecConfig) -> str:
    """The name of the published codec that a configuration is that of; its weights may be any.

    Raises:
        UsageError: it is another's, and no .ecdc file can hold its codes.
    """
    for preset in _PRESETS.values():
        if load_preset(preset) == config:
            return preset
    hint = f".mtk holds codes of any codec; .ecdc those of {' and '.join(_PRESETS.values())}"
    raise UsageError("an .ecdc file cannot hold codes of this codec", hint=hint, code="no-ecdc-codec")


def write_ecdc(
    file: BinaryIO, config: CodecConfig, chunks: Iterable[CodeChunk], samples: Callable[[], int]
) -> EcdcHeader:
    """Write a file.

    The header tells how long the sound is, and comes first; codes wait for it in a temporary file.

    Args:
        file: it need not be seekable.
        config: of the codec.
        chunks: codes in order, cut anywhere, each with the scales of segments that begin in it.
        samples: asked after the last chunk: how long the sound is.

    Returns:
        The header as written.

    Raises:
        UsageError: the codec is none whose codes such files hold.
        InputError: there are more or fewer codes or scales than the sound's length asks for.
    """
    preset = ecdc_preset(config)
    with SpooledTemporaryFile(_SPOOL_BYTES) as packed:
        packer = _Packer(config, packed)
        for chunk in chunks:
            packer.push(chunk)
        header = EcdcHeader(preset, samples(), packer.levels)
        packer.finish(header.samples)
        packed.seek(0)
        _write_header(file, header)
        shutil.copyfileobj(packed, file)
    return header


def _write_header(file: BinaryIO, header: EcdcHeader) -> None:
    model = next(name for name, preset in _PRESETS.items() if preset == header.preset)
    text = json.dumps({"m": model, "al": header.samples, "nc": header.levels, "lm": False}).encode()
    file.write(_START.pack(MAGIC, _VERSION, len(text)) + text)


class _Packer:
    """Packs codes, segment by segment.

    Either of the last two may be short, which the length of the sound alone tells: so much is held back. Where a codec
    has no segments, all is one, and nothing waits.
    """

    def __init__(self, config: CodecConfig, file: IO[bytes]) -> None:
        self.levels = config.codebooks
        self._config = config
        self._file = file
        self._bits = _BitWriter(file, _bits_of(config))
        self._waiting: NDArray[np.int32] | None = None  # [K, T]
        self._scales: list[float] = []  # of segments that wait
        self._frames = self._segments = 0

    def push(self, chunk: CodeChunk) -> None:
        codes, full = chunk.codes, self._config.segment_frames
        if codes.size and not 0 <= codes.min() <= codes.max() < self._config.codebook_size:
            raise InputError(f"a code is none of the {self._config.codebook_size} that there are", code="bad-codes")
        self._frames += codes.shape[1]
        self._scales += chunk.scales.tolist()
        waiting = codes if self._waiting is None else np.concatenate([self._waiting, codes], 1)
        self.levels = len(waiting)
        while full is not None and waiting.shape[1] > 2 * full:
            waiting = self._put_segment(waiting, full)
        if full is None:
            self._bits.put(waiting.T)
            waiting = waiting[:, :0]
        self._waiting = waiting

    def finish(self, samples: int) -> None:
        """Pack what waits, as long as the sound's length says.

        Raises:
            InputError: there is more or less than that.
        """
        segments = list(_segments(self._config, samples))
        scales = self._segments + len(self._scales)
        if sum(segments) != self._frames or (len(segments) if self._config.normalises else 0) != scales:
            there = f"{self._frames} frames of codes and {scales} scales"
            raise InputError(f"{there} are not what {samples} samples make", code="bad-codes")
        if self._waiting is not None and self._config.segment_frames is not None:
            for frames in segments[self._segments :]:
                self._waiting = self._put_segment(self._waiting, frames)
        self._bits.flush()

    def _put_segment(self, waiting: NDArray[np.int32], frames: int) -> NDArray[np.int32]:
        """Pack the first of the frames that wait; gives the others."""
        if self._config.normalises:
            if not self._scales:
                raise InputError("a segment of codes has no scale", code="bad-codes")
            self._file.write(_SCALE.pack(self._scales.pop(0)))
        self._bits.put(waiting[:, :frames].T)
        self._bits.flush()
        self._segments += 1
        return waiting[:, frames:]


class _BitWriter:
    """Numbers of a few bits each, the lowest bit first."""

    def __init__(self, file: IO[bytes], bits: int) -> None:
        self._file = file
        self._shifts = np.arange(bits, dtype=np.int32)
        self._rest = np.zeros(0, np.uint8)  # bits

    def put(self, numbers: NDArray[np.int32]) -> None:
        ones = (numbers.reshape(-1, 1) >> self._shifts & 1).astype(np.uint8)
        ones = np.concatenate([self._rest, ones.reshape(-1)])
        whole = len(ones) // 8 * 8
        self._file.write(np.packbits(ones[:whole], bitorder="little").tobytes())
        self._rest = ones[whole:]

    def flush(self) -> None:
        """Fill up the last byte."""
        self._file.write(np.packbits(self._rest, bitorder="little").tobytes())
        self._rest = self._rest[:0]


# ------------------------------------------------------------------------------------------------------------ segments


def _segments(config: CodecConfig, samples: int) -> Iterator[int]:
    """Frames of each segment of a sound; all of it is one where the codec has none."""
    length, stride = config.segment_samples or samples, config.stride_samples or max(1, samples)
    for start in range(0, samples, stride):
        yield -(-min(samples - start, length) // config.hop_samples)


def _about_a_second(config: CodecConfig, frames: int) -> Iterator[int]:
    """Frames in portions of a second."""
    second = math.ceil(config.frame_rate_hz)
    for start in range(0, frames, second):
        yield min(second, frames - start)


def _bits_of(config: CodecConfig) -> int:
    """Bits of a code; codebooks of these codecs are powers of two."""
    return config.codebook_size.bit_length() - 1
