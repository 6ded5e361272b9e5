"""`.ecdc` files, both ways with the `encodec` package's own reader and writer."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import Tensor

from musictool.errors import InputError, UsageError
from musictool.inference.ecdc import EcdcHeader, ecdc_preset, read_ecdc, write_ecdc
from musictool.models.registry import load_preset
from musictool.stream.records import CodeChunk
from tests.models.codec_oracle import package_model, sound

compress = pytest.importorskip("encodec.compress")

NAMES = {"encodec-24khz": "encodec_24khz", "encodec-48khz": "encodec_48khz"}
LENGTHS = {
    # one sample, a frame and about it, more than a second, and what the package's reader counts right
    "encodec-24khz": [1, 319, 320, 321, 24_000, 31_415],
    # segments: a short one, a whole one, two, and a last one so short that the one before it is not whole either
    "encodec-48khz": [1, 47_999, 48_000, 48_001, 47_520 + 100, 2 * 47_520 + 479, 2 * 47_520 + 481, 100_000],
}


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The package's models by our presets' names: few filters, all codebooks."""
    models = {}
    for preset, name in NAMES.items():
        models[preset] = package_model(replace(load_preset(preset), filters=4, width=8, lstm_layers=1))
        models[preset].name = name
    return models


def whole(chunks: Iterable[CodeChunk], levels: int) -> tuple[np.ndarray, list[float]]:
    """All codes of a file, [K, T], and all its scales."""
    listed = list(chunks)
    codes = np.concatenate([np.zeros((levels, 0), np.int32), *(chunk.codes for chunk in listed)], 1)
    return codes, [scale for chunk in listed for scale in chunk.scales.tolist()]


def chunks_of(frames: list[tuple[Tensor, Tensor | None]], seed: int) -> list[CodeChunk]:
    """What the package's encoder gives, cut anywhere."""
    codes = torch.cat([codes[0] for codes, _ in frames], 1).numpy().astype(np.int32)
    starts = np.cumsum([0, *(codes.shape[-1] for codes, _ in frames)])
    generator = random.Random(seed)
    cuts = sorted({0, codes.shape[1], *(generator.randrange(codes.shape[1]) for _ in range(5))})
    chunks = []
    for start, end in pairwise(cuts):
        begun = [scale for at, (_, scale) in zip(starts, frames) if start <= at < end and scale is not None]
        chunks.append(CodeChunk(codes[:, start:end], np.array([scale.item() for scale in begun], np.float32)))
    return chunks


@pytest.mark.parametrize(("preset", "samples"), [(preset, n) for preset, ns in LENGTHS.items() for n in ns])
@torch.no_grad()
def test_files_go_both_ways_between_us_and_the_package(models, monkeypatch, preset, samples):
    model, config = models[preset], load_preset(preset)
    monkeypatch.setitem(compress.MODELS, NAMES[preset], lambda: model)
    for kbps in (config.bandwidths_kbps[0], config.bandwidths_kbps[-1]):
        model.set_target_bandwidth(kbps)
        audio = sound(config, samples)
        theirs, frames = compress.compress(model, audio[0]), model.encode(audio)
        header, chunks = read_ecdc(io.BytesIO(theirs))
        assert header == EcdcHeader(preset, samples, config.levels_for(kbps))
        codes, scales = whole(chunks, header.levels)
        assert np.array_equal(codes, torch.cat([codes[0] for codes, _ in frames], 1).numpy())
        assert scales == [scale.item() for _, scale in frames if scale is not None]

        file = io.BytesIO()
        assert write_ecdc(file, config, chunks_of(frames, samples), lambda: samples) == header
        assert file.getvalue() == theirs
        decoded, rate = compress.decompress(file.getvalue())
        assert rate == config.rate_hz
        assert torch.equal(decoded, model.decode(frames)[0, :, :samples])


def test_a_length_at_which_the_package_cannot_read_its_own_file_is_read(models, monkeypatch):
    model = models["encodec-24khz"]
    monkeypatch.setitem(compress.MODELS, "encodec_24khz", lambda: model)
    model.set_target_bandwidth(1.5)
    with torch.no_grad():
        data = compress.compress(model, sound(load_preset("encodec-24khz"), 6720)[0])
    with pytest.raises(EOFError):
        compress.decompress(data)
    header, chunks = read_ecdc(io.BytesIO(data))
    assert whole(chunks, header.levels)[0].shape == (2, 21)


class Pipe(io.RawIOBase):
    """Bytes that come a few at a time, and that cannot be sought in."""

    def __init__(self, data: bytes) -> None:
        self._data, self.given = io.BytesIO(data), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        assert size >= 0, "all of it at once"
        data = self._data.read(min(size, 7))
        self.given += len(data)
        return data


def packed(preset: str, samples: int, levels: int = 2, seed: int = 0, **changes: Any) -> bytes:
    """A file of random codes; `changes` are for its header."""
    config, generator = load_preset(preset), np.random.default_rng(seed)
    frames = -(-samples // config.hop_samples)
    scales = np.ones(1, np.float32) if config.normalises else np.zeros(0, np.float32)
    codes = generator.integers(0, config.codebook_size, (levels, frames), dtype=np.int32)
    file = io.BytesIO()
    write_ecdc(file, config, [CodeChunk(codes, scales)], lambda: samples)
    head, body = file.getvalue()[9:].split(b"}", 1)
    text = json.dumps({**json.loads(head + b"}"), **changes}).encode()
    return struct.pack("!4sBI", b"ECDC", 0, len(text)) + text + body


def test_codes_are_read_as_they_come_a_second_at_a_time():
    pipe = Pipe(packed("encodec-24khz", 3 * 24_000 + 7, levels=32))
    _, chunks = read_ecdc(pipe)  # type: ignore[arg-type]
    given = []
    for chunk in chunks:
        assert chunk.codes.shape[1] <= 75
        given.append(pipe.given)
    assert len(given) == 4
    assert given[0] < 3_200 < given[1]  # 75 frames of 32 codes are 3000 bytes


def read_all(file: BinaryIO) -> None:
    for _ in read_ecdc(file, "x.ecdc")[1]:
        pass


@pytest.mark.parametrize("preset", NAMES)
def test_a_file_cut_anywhere_is_an_error_and_so_is_more_of_it(preset):
    data = packed(preset, 3000)
    read_all(io.BytesIO(data))
    for length in range(len(data)):
        with pytest.raises(InputError) as caught:
            read_all(io.BytesIO(data[:length]))
        assert caught.value.context == "x.ecdc"
    with pytest.raises(InputError, match="more in the file"):
        read_all(io.BytesIO(data + b"\0"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"m": "encodec_96khz"}, "none of encodec_24khz"),
        ({"m": ["encodec_24khz"]}, "none of encodec_24khz"),
        ({"al": -1}, "'al'"),
        ({"al": 1.5}, "'al'"),
        ({"al": True}, "'al'"),
        ({"al": 10**30}, "ends early"),
        ({"nc": 0}, "has 32 codebooks"),
        ({"nc": 33}, "has 32 codebooks"),
        ({"nc": "2"}, "has 32 codebooks"),
        ({"lm": 1}, "'lm'"),
        ({"lm": True}, "language model"),
    ],
)
def test_a_header_that_makes_no_sense_is_one_line(changes, why):
    with pytest.raises(InputError, match=why) as caught:
        read_all(io.BytesIO(packed("encodec-24khz", 3000, **changes)))
    assert "\n" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"ECDC\1\0\0\0\2{}",
        b"ECDC\0\0\0\0\2[]",
        b"ECDC\0\0\0\0\2{}",
        b"ECDC\0\xff\xff\xff\xff{}",
        b"ECDC\0\0\0\0\2{\xff",
        b"ECDC\0\0\0\xff\xff" + b"[" * 65_535,
    ],
)
def test_what_is_no_such_file_is_one_line(data):
    with pytest.raises(InputError) as caught:
        read_ecdc(io.BytesIO(data), "x")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_scale_that_is_no_loudness_is_refused(scale):
    data = packed("encodec-48khz", 3000)
    start = data.index(b"}") + 1
    with pytest.raises(InputError, match="scale"):
        read_all(io.BytesIO(data[:start] + struct.pack("!f", scale) + data[start + 4 :]))


def test_codes_that_do_not_make_the_sound_are_refused_and_nothing_is_written():
    one = np.ones(1, np.float32)
    for preset, frames, scales, samples in (
        ("encodec-24khz", 10, one[:0], 11 * 320),
        ("encodec-24khz", 10, one[:0], 9 * 320),
        ("encodec-24khz", 10, one, 10 * 320),
        ("encodec-48khz", 10, one[:0], 10 * 320),
        ("encodec-48khz", 10, np.ones(2, np.float32), 10 * 320),
        ("encodec-48khz", 301, one, 300 * 320),
    ):
        file = io.BytesIO()
        with pytest.raises(InputError):
            chunk = CodeChunk(np.zeros((2, frames), np.int32), scales)
            write_ecdc(file, load_preset(preset), [chunk], lambda samples=samples: samples)  # type: ignore[misc]
        assert not file.getvalue()
    for code in (-1, 1024):
        with pytest.raises(InputError, match="none of the 1024"):
            chunk = CodeChunk(np.full((2, 1), code, np.int32), one[:0])
            write_ecdc(io.BytesIO(), load_preset("encodec-24khz"), [chunk], lambda: 1)


def test_only_codecs_of_the_package_have_such_files():
    assert [ecdc_preset(load_preset(preset)) for preset in NAMES] == list(NAMES)
    for preset in ("encodec-32khz", "codec-24khz"):
        with pytest.raises(UsageError, match="cannot hold"):
            write_ecdc(io.BytesIO(), load_preset(preset), [], lambda: 0)


def test_no_sound_is_a_header_alone():
    file = io.BytesIO()
    write_ecdc(file, load_preset("encodec-48khz"), [], lambda: 0)
    file.seek(0)
    header, chunks = read_ecdc(file)
    assert (header.samples, list(chunks)) == (0, [])
