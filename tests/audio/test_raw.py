"""Raw sound: every layout there and back, and reading it as it comes."""

from __future__ import annotations

import io
import os

import numpy as np
import pytest

from musictool.audio.raw import ENCODINGS, RawFormat
from musictool.audio.reading import open_audio
from musictool.errors import InputError, UsageError
from tests.audio.sounds import WAYS, encoded, given, tone

BITS = {"s16": 16, "s24": 24, "s32": 32, "u8": 8, "f32": 24, "f64": 24}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_holds_what_it_can(encoding):
    layout = RawFormat(24_000, 2, encoding)
    sound = np.random.default_rng(0).uniform(-1, 0.99, (1000, 2)).astype(np.float32)
    data = layout.encode(sound)
    assert len(data) == 1000 * layout.frame_bytes
    step = 2.0 ** -(BITS[encoding.removesuffix("le").removesuffix("be")] - 1)
    np.testing.assert_allclose(layout.decode(data), sound, atol=0.51 * step)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_was_read_is_written_as_the_same_bytes(encoding):
    layout = RawFormat(24_000, 1, encoding)
    if layout.is_integer and not encoding.startswith("s32"):  # whose samples float32 has no room for
        data = np.random.default_rng(0).bytes(1200)
        assert layout.encode(layout.decode(data)) == data


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("s16le", b"\x00\x40\x00\x80"),
        ("s16be", b"\x40\x00\x80\x00"),
        ("s24le", b"\x00\x00\x40\x00\x00\x80"),
        ("s24be", b"\x40\x00\x00\x80\x00\x00"),
        ("s32le", b"\x00\x00\x00\x40\x00\x00\x00\x80"),
        ("u8", b"\xc0\x00"),
        ("f32le", b"\x00\x00\x00\x3f\x00\x00\x80\xbf"),
        ("f64be", b"\x3f\xe0" + bytes(6) + b"\xbf\xf0" + bytes(6)),
    ],
)
def test_bytes_mean_what_their_name_says(encoding, data):
    layout = RawFormat(8000, 1, encoding)
    assert layout.decode(data)[:, 0].tolist() == [0.5, -1.0]
    assert layout.encode(np.array([[0.5], [-1.0]], np.float32)) == data


def test_whole_numbers_are_clipped_and_not_wrapped():
    loud = np.array([[1.5], [-1.5], [1.0]], np.float32)
    assert np.frombuffer(RawFormat(8000, 1).encode(loud), "<i2").tolist() == [32767, -32768, 32767]
    assert RawFormat(8000, 1, "u8").encode(loud) == b"\xff\x00\xff"
    assert RawFormat(8000, 1, "f32le").decode(RawFormat(8000, 1, "f32le").encode(loud)).tolist() == loud.tolist()


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_gives_raw_sound_whole(way, tmp_path):
    sound = tone()[:100_001].astype(np.float32)
    layout = RawFormat(22_050, 2, "f32le")
    with given(sound.astype("<f4").tobytes(), way, tmp_path) as file, open_audio(file, "take", layout) as reader:
        blocks = list(reader.blocks(777))
        assert (reader.rate_hz, reader.channels, reader.container, reader.encoding) == (22_050, 2, "RAW", "F32LE")
        assert reader.duration_seconds is None
    assert {len(block) for block in blocks[:-1]} == {777}
    np.testing.assert_array_equal(np.concatenate(blocks), sound)
    assert not reader.is_truncated


def test_raw_sound_that_ends_inside_a_frame_is_truncated():
    with open_audio(io.BytesIO(bytes(4 * 10 + 3)), "take", RawFormat(8000, 2)) as reader:
        assert sum(map(len, reader.blocks())) == 10
        assert reader.is_truncated


def test_a_wav_header_is_read_and_not_taken_for_sound():
    sound = tone()[:1000]
    with open_audio(io.BytesIO(encoded(sound, "WAV", "FLOAT")), "take", RawFormat(8000, 1)) as reader:
        np.testing.assert_allclose(np.concatenate(list(reader.blocks())), sound, atol=1e-6)
        assert (reader.rate_hz, reader.channels) == (22_050, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_samples_that_are_no_numbers_are_refused(value):
    samples = np.zeros(1000)
    samples[123] = value
    reader = open_audio(io.BytesIO(samples.tobytes()), "take", RawFormat(1000, 1, "f64le"))
    with reader, pytest.raises(InputError, match=r"at 0\.123 s") as error:
        list(reader.blocks())
    assert error.value.code == "unusable-samples"


@pytest.mark.parametrize("data", [b"", b"\x00"])
def test_no_sound_is_said(data):
    reader = open_audio(io.BytesIO(data), "take", RawFormat(8000, 1))
    with reader, pytest.raises(InputError, match="no sound"):
        list(reader.blocks())


def test_a_block_comes_as_soon_as_its_bytes_have():
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as pipe, open(write_end, "wb", buffering=0) as sink:
        sink.write(bytes(2 * 100))
        with open_audio(pipe, "take", RawFormat(8000, 1)) as reader:
            assert len(next(reader.blocks(100))) == 100  # blocks for ever if it waits for more


@pytest.mark.parametrize(("encoding", "channels"), [("s16", 1), ("S16LE", 1), ("", 1), ("s16le", 0), ("s16le", 5000)])
def test_layouts_that_are_none_are_refused(encoding, channels):
    with pytest.raises(UsageError) as error:
        RawFormat(8000, channels, encoding)
    assert error.value.hint or "channels" in error.value.message
