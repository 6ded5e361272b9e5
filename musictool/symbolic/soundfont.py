"""SoundFont files, SF2 and SF3 (samples as Vorbis): presets as regions, and the samples that these play.

Follows the SoundFont 2.04 specification: preset zones over instrument zones, each with a global zone, generators that
add or replace. Every length and index of a file is checked before it is used. Knows nothing of notes' timing and mixes
no sound.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.soundfont_regions import (
    DEFAULT_MODULATORS,
    GENERATOR_DEFAULTS,
    INSTRUMENT_ONLY,
    RANGES,
    Generator,
    ModulatorKey,
    Region,
    SampleHeader,
)

DRUM_BANK = 128
PROGRAMS_PER_FAMILY = 8  # General MIDI lists its programs in sixteen families
MAX_SAMPLE_FRAMES = 1 << 26  # a longer one is a broken header: 64 Mi frames are 25 minutes

_COMPRESSED_FLAG = 0x10
_ROM_FLAG = 0x8000
_HINT = "give a sound SF2 or SF3 file, or leave the option out for the font that ships with musictool"

_RECORDS = {
    b"phdr": np.dtype([("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("rest", "V12")]),
    b"pbag": np.dtype([("generator", "<u2"), ("modulator", "<u2")]),
    b"pmod": np.dtype([("key", "V4"), ("amount", "<i2"), ("rest", "V4")]),
    b"pgen": np.dtype([("id", "<u2"), ("amount", "<i2")]),
    b"inst": np.dtype([("name", "S20"), ("bag", "<u2")]),
    b"ibag": np.dtype([("generator", "<u2"), ("modulator", "<u2")]),
    b"imod": np.dtype([("key", "V4"), ("amount", "<i2"), ("rest", "V4")]),
    b"igen": np.dtype([("id", "<u2"), ("amount", "<i2")]),
    b"shdr": np.dtype(
        [
            ("name", "S20"),
            ("start", "<u4"),
            ("end", "<u4"),
            ("loop_start", "<u4"),
            ("loop_end", "<u4"),
            ("rate_hz", "<u4"),
            ("root_key", "u1"),
            ("correction_cents", "i1"),
            ("link", "<u2"),
            ("kind", "<u2"),
        ]
    ),
}
_MODULATOR = np.dtype(
    [("source", "<u2"), ("destination", "<u2"), ("amount", "<i2"), ("amount_source", "<u2"), ("transform", "<u2")]
)


@dataclass(eq=False)
class SoundFont:
    """A SoundFont file, mapped into memory; presets and samples are read as they are asked for.

    Attributes:
        path: the file.
        name: what its author called it.
        samples: the headers of all samples.
        presets: (bank, program) -> index of the preset record.
    """

    path: Path
    name: str
    samples: tuple[SampleHeader, ...]
    presets: dict[tuple[int, int], int]
    _tables: dict[bytes, NDArray[np.void]]
    _sample_bytes: NDArray[np.uint8]
    _regions: dict[int, tuple[Region, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | str) -> SoundFont:
        """Open a font and check its structure.

        Raises:
            InputError: the file is no SoundFont, is cut short or contradicts itself.
        """
        path = Path(path)
        try:
            data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "the file is empty"
            raise InputError(f"cannot read the SoundFont: {reason}", context=str(path), hint=_HINT) from error
        try:
            return cls._parse(path, data)
        except _BrokenFontError as error:
            raise InputError(f"not a playable SoundFont: {error}", context=str(path), hint=_HINT) from None

    @classmethod
    def _parse(cls, path: Path, data: NDArray[np.uint8]) -> SoundFont:
        chunks = dict(_walk(data))
        for name in (b"smpl", *_RECORDS):
            if name not in chunks:
                raise _BrokenFontError(f"chunk '{name.decode()}' is missing")
        tables: dict[bytes, NDArray[np.void]] = {}
        for name, dtype in _RECORDS.items():
            if len(chunks[name]) % dtype.itemsize or len(chunks[name]) < dtype.itemsize:
                raise _BrokenFontError(f"chunk '{name.decode()}' has an odd length")
            tables[name] = np.frombuffer(chunks[name].tobytes(), _MODULATOR if name[1:] == b"mod" else dtype)
        for parent, column, child in (
            (b"phdr", "bag", b"pbag"),
            (b"pbag", "generator", b"pgen"),
            (b"pbag", "modulator", b"pmod"),
            (b"inst", "bag", b"ibag"),
            (b"ibag", "generator", b"igen"),
            (b"ibag", "modulator", b"imod"),
        ):
            places = tables[parent][column].astype(np.int64)
            if (np.diff(places) < 0).any() or places[-1] >= len(tables[child]):
                raise _BrokenFontError(f"chunk '{parent.decode()}' points outside '{child.decode()}'")
        samples = tuple(_sample_header(row, len(chunks[b"smpl"])) for row in tables[b"shdr"][:-1])
        presets: dict[tuple[int, int], int] = {}
        for index, row in enumerate(tables[b"phdr"][:-1]):
            presets.setdefault((int(row["bank"]), int(row["program"])), index)
        if not presets or not samples:
            raise _BrokenFontError("it holds no preset or no sample")
        title = _text(chunks[b"INAM"].tobytes()) if b"INAM" in chunks else path.stem
        return cls(path, title, samples, presets, tables, chunks[b"smpl"])

    @cached_property
    def sha256(self) -> str:
        """The file's digest, in hexadecimal."""
        with self.path.open("rb") as file:
            digest = hashlib.sha256()
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        return digest.hexdigest()

    def find(self, program: int, is_drum: bool = False) -> tuple[int, int]:
        """The (bank, program) that plays a General MIDI program or kit, or the nearest that the font has.

        A program falls back to the nearest of its family, then to the piano; a kit to the standard kit; and either to
        the font's first preset.
        """
        if is_drum:
            wanted = [(DRUM_BANK, program), (DRUM_BANK, 0)]
            wanted += sorted(key for key in self.presets if key[0] == DRUM_BANK)
        else:
            first = program - program % PROGRAMS_PER_FAMILY
            family = sorted(range(first, first + PROGRAMS_PER_FAMILY), key=lambda other: (abs(other - program), other))
            wanted = [(0, other) for other in (*family, 0)]
        return next((key for key in wanted if key in self.presets), min(self.presets))

    def preset_name(self, bank: int, program: int) -> str:
        """What the font's author called a preset."""
        return _text(bytes(self._tables[b"phdr"]["name"][self.presets[bank, program]]))

    def regions(self, bank: int, program: int) -> tuple[Region, ...]:
        """The regions of a preset the font has.

        Raises:
            InputError: the preset points outside the font's tables.
        """
        index = self.presets[bank, program]
        if index not in self._regions:
            try:
                self._regions[index] = tuple(self._resolve(index))
            except _BrokenFontError as error:
                context = f"{self.path}, preset {bank}:{program}"
                raise InputError(f"not a playable SoundFont: {error}", context=context, hint=_HINT) from None
        return self._regions[index]

    def _zones(self, letter: bytes, first: int, last: int, target: Generator) -> Iterator[_Zone]:
        """The local zones of bags first..last-1, each over the global zone; `target` is what a local zone must name."""
        bags, generators, modulators = (self._tables[letter + suffix] for suffix in (b"bag", b"gen", b"mod"))
        common = _Zone({}, {})
        for bag in range(first, last):
            g0, g1 = int(bags["generator"][bag]), int(bags["generator"][bag + 1])
            m0, m1 = int(bags["modulator"][bag]), int(bags["modulator"][bag + 1])
            zone = _Zone(
                {int(row["id"]): int(row["amount"]) for row in generators[g0:g1]},
                {_modulator_key(row): int(row["amount"]) for row in modulators[m0:m1]},
            )
            if target in zone.generators:
                yield _Zone({**common.generators, **zone.generators}, {**common.modulators, **zone.modulators})
            elif bag == first:
                common = zone

    def _resolve(self, preset: int) -> Iterator[Region]:
        headers, instruments = self._tables[b"phdr"], self._tables[b"inst"]
        for outer in self._zones(
            b"p", int(headers["bag"][preset]), int(headers["bag"][preset + 1]), Generator.INSTRUMENT
        ):
            instrument = outer.generators[Generator.INSTRUMENT]
            if not 0 <= instrument < len(instruments) - 1:
                raise _BrokenFontError(f"instrument {instrument} does not exist")
            first, last = int(instruments["bag"][instrument]), int(instruments["bag"][instrument + 1])
            for inner in self._zones(b"i", first, last, Generator.SAMPLE):
                sample = inner.generators[Generator.SAMPLE] & 0xFFFF
                if sample >= len(self.samples):
                    raise _BrokenFontError(f"sample {sample} does not exist")
                keys = _overlap(outer.generators, inner.generators, Generator.KEY_RANGE)
                velocities = _overlap(outer.generators, inner.generators, Generator.VELOCITY_RANGE)
                if keys[0] > keys[1] or velocities[0] > velocities[1]:
                    continue
                generators = dict(inner.generators)
                for generator, amount in outer.generators.items():
                    if generator not in INSTRUMENT_ONLY and generator not in RANGES:
                        generators[generator] = generators.get(generator, GENERATOR_DEFAULTS.get(generator, 0)) + amount
                modulators = {**DEFAULT_MODULATORS, **inner.modulators}
                for modulator, amount in outer.modulators.items():
                    modulators[modulator] = modulators.get(modulator, 0) + amount
                yield Region(keys, velocities, sample, generators, modulators, self.samples[sample])

    def frames(self, sample: int) -> NDArray[np.float32]:
        """A sample's frames, float32 [n] within -1..1; decoded anew at every call.

        Raises:
            InputError: the sample lies outside the file or its Vorbis stream is broken.
        """
        header = self.samples[sample]
        if not header.is_compressed:
            raw = self._sample_bytes[2 * header.start : 2 * header.end].tobytes()
            return np.frombuffer(raw, "<i2").astype(np.float32) / np.float32(32_768)
        try:
            # By its number: to read a file of Python's, libsndfile calls Python back, and a Ctrl-C there is lost.
            with tempfile.TemporaryFile() as stream:
                stream.write(self._sample_bytes[header.start : header.end].tobytes())
                stream.seek(0)
                with soundfile.SoundFile(stream.fileno(), closefd=False) as file:
                    if file.frames > MAX_SAMPLE_FRAMES:
                        raise ValueError("it is too long")
                    return np.asarray(file.read(dtype="float32", always_2d=True), np.float32)[:, 0].copy()
        except (RuntimeError, ValueError) as error:
            context = f"{self.path}, sample '{header.name}'"
            raise InputError("the SoundFont's sample cannot be decoded", context=context, hint=_HINT) from error


class _BrokenFontError(Exception):
    """A structure that contradicts itself; becomes an `InputError` that names the file."""


@dataclass(frozen=True, slots=True)
class _Zone:
    """Generators by number and modulator amounts by key, of one zone."""

    generators: dict[int, int]
    modulators: dict[ModulatorKey, int]


def _walk(data: NDArray[np.uint8]) -> Iterator[tuple[bytes, NDArray[np.uint8]]]:
    """The chunks inside the three lists of a SoundFont, each with its bytes; every length is checked."""
    if len(data) < 12 or data[:4].tobytes() != b"RIFF" or data[8:12].tobytes() != b"sfbk":
        raise _BrokenFontError("it does not start as a SoundFont does")
    lists = [(12, min(len(data), 8 + _length(data, 4)))]
    if lists[0][1] < 8 + _length(data, 4):
        raise _BrokenFontError("the file is cut short")
    while lists:
        place, stop = lists.pop()
        while place + 8 <= stop:
            name, length = data[place : place + 4].tobytes(), _length(data, place + 4)
            place += 8
            if place + length > stop:
                raise _BrokenFontError(f"chunk '{_text(name)}' reaches past its end")
            if name == b"LIST" and length >= 4:
                lists.append((place + 4, place + length))
            else:
                yield name, data[place : place + length]
            place += length
            if length % 2 and place < stop and data[place] == 0:  # sf3convert leaves the padding byte out
                place += 1


def _length(data: NDArray[np.uint8], place: int) -> int:
    return int.from_bytes(data[place : place + 4].tobytes(), "little")


def _text(raw: bytes) -> str:
    """A zero-terminated string of whatever characters an author's tool wrote."""
    return raw.split(b"\0")[0].decode("latin-1").strip()


def _sample_header(row: np.void, chunk_bytes: int) -> SampleHeader:
    """Check one sample record and make its loop relative to its start."""
    is_compressed = bool(row["kind"] & _COMPRESSED_FLAG)
    start, end = int(row["start"]), int(row["end"])
    if row["kind"] & _ROM_FLAG:
        start = end = 0  # lies in the memory of a sound card of 1996: silence
    limit = chunk_bytes if is_compressed else chunk_bytes // 2
    if not start <= end <= limit:
        raise _BrokenFontError(f"sample '{_text(row['name'])}' lies outside the file")
    origin = 0 if is_compressed else start
    root_key = int(row["root_key"])
    return SampleHeader(
        name=_text(row["name"]),
        start=start,
        end=end,
        loop_start=int(row["loop_start"]) - origin,
        loop_end=int(row["loop_end"]) - origin,
        rate_hz=max(int(row["rate_hz"]), 1),
        root_key=root_key if root_key <= 127 else 60,
        correction_cents=int(row["correction_cents"]),
        is_compressed=is_compressed,
    )


def _modulator_key(row: np.void) -> ModulatorKey:
    return int(row["source"]), int(row["destination"]), int(row["amount_source"]), int(row["transform"])


def _overlap(outer: Mapping[int, int], inner: Mapping[int, int], generator: Generator) -> tuple[int, int]:
    """The values of a range generator that both zones admit; the low byte is the lower bound."""
    spans = [zone[generator] & 0xFFFF for zone in (outer, inner) if generator in zone] or [0x7F00]
    return max(span & 0xFF for span in spans), min(span >> 8 for span in spans)
