"""Writing sound: what is written is read back, whole or not at all, and nothing wraps around."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.audio.files import CONTAINERS, write_audio, write_raw
from musictool.audio.raw import RawFormat
from musictool.errors import InputError, UsageError
from tests.audio.sounds import tone


def written(path: Path, blocks, rate_hz: int, channels: int, **options) -> tuple[np.ndarray, int]:
    with path.open("wb") as sink:
        clipped = write_audio(sink, blocks, rate_hz, channels, **options)
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == rate_hz
    return sound, clipped


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("frames", [1, 12, 70_001])
def test_every_container_keeps_the_length_to_the_sample(container, channels, frames, tmp_path):
    sound = tone()[:frames, :channels].astype(np.float32)
    if frames > len(sound):
        sound = np.resize(sound, (frames, channels))
    got, clipped = written(tmp_path / "x", np.array_split(sound, 3), 24_000, channels, container=container)
    assert got.shape == sound.shape
    assert clipped == 0
    if container in ("wav", "flac"):
        np.testing.assert_allclose(got, sound, atol=2**-15)
    elif frames > 1000:
        assert np.corrcoef(got[:, 0], sound[:, 0])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("container", "bits", "step"), [("wav", 16, 2**-15), ("wav", 24, 2**-23), ("wav", 32, 0), ("flac", 24, 2**-23)]
)
def test_samples_have_the_bits_that_were_asked_for(container, bits, step, tmp_path):
    sound = tone()[:1000, :1].astype(np.float32)
    got, _ = written(tmp_path / "x", [sound], 48_000, 1, container=container, bits=bits)
    np.testing.assert_allclose(got, sound, atol=step, rtol=0)
    assert (np.abs(got - sound).max() > 2**-20) == (bits == 16)


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_too_loud_is_clipped_and_counted(container, tmp_path):
    sound = np.zeros((3000, 2), np.float32)
    sound[100:103] = 1.5, -1.5
    sound[200] = 1.0, -1.0
    got, clipped = written(tmp_path / "x", [sound[:150], sound[150:]], 24_000, 2, container=container)
    assert clipped == 6
    if container in ("wav", "flac"):
        np.testing.assert_allclose(got[100:103], np.clip(sound[100:103], -1, 1), atol=2**-15)


def test_floating_point_holds_what_is_too_loud(tmp_path):
    sound = np.full((10, 1), 3.5, np.float32)
    got, clipped = written(tmp_path / "x", [sound], 24_000, 1, bits=32)
    assert clipped == 0
    np.testing.assert_array_equal(got, sound)


def test_a_pipe_gets_the_same_bytes_as_a_file(tmp_path):
    sound = tone()[:5000].astype(np.float32)
    written(tmp_path / "x", [sound], 24_000, 2)
    sink = io.BytesIO()
    write_audio(sink, [sound], 24_000, 2)
    assert sink.getvalue() == (tmp_path / "x").read_bytes()


def test_a_block_of_minutes_is_written_as_vorbis(tmp_path):
    silence = np.zeros((3_000_000, 2), np.float32)
    got, _ = written(tmp_path / "x", [silence], 8000, 2, container="ogg")  # libsndfile alone dies of it
    assert len(got) == len(silence)


@pytest.mark.parametrize(
    ("container", "rate_hz", "channels"),
    [("mp3", 96_000, 1), ("mp3", 48_000, 3), ("flac", 48_000, 9), ("ogg", 200_001, 1), ("ogg", 48_000, 256)],
)
def test_what_a_container_cannot_hold_is_said(container, rate_hz, channels, tmp_path):
    with (tmp_path / "x").open("wb") as sink, pytest.raises(InputError, match=f"{rate_hz} Hz"):
        write_audio(sink, [np.zeros((10, channels), np.float32)], rate_hz, channels, container=container)
    with pytest.raises(UsageError, match="32 bits"), (tmp_path / "y").open("wb") as sink:
        write_audio(sink, [], 48_000, 2, container="flac", bits=32)


def test_raw_samples_leave_block_by_block():
    sink = io.BytesIO()
    seen = []

    def blocks():
        for value in (0.5, 2.0):
            yield np.full((2, 1), value, np.float32)
            seen.append(sink.getvalue())

    assert write_raw(sink, blocks(), RawFormat(8000, 1)) == 2
    assert [len(data) for data in seen] == [4, 8]
    assert np.frombuffer(sink.getvalue(), "<i2").tolist() == [16384, 16384, 32767, 32767]
