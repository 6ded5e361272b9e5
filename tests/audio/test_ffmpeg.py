"""Sound that ffmpeg decodes, and what is left when a reader is closed, whoever decoded."""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading

import numpy as np
import pytest

from musictool.audio.reading import open_audio
from musictool.errors import InputError
from tests.audio.sounds import RATE, WAYS, encoded, given, read, refused, tone


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("head", [b"\0\0\0\x20ftypM4A ", b"\x1a\x45\xdf\xa3webm....", b"RIFF\0\0\0\0WAVEfmt "])
def test_ffmpeg_decodes_what_libsndfile_does_not_know(head, way, tmp_path, fake_ffmpeg):
    data = head + bytes(200_000)
    with given(data, way, tmp_path) as file:
        sound, reader = read(file)
    assert np.array_equal(sound[:, 0], np.arange(8000, dtype="f4") / np.float32(8000))
    assert (reader.container, reader.rate_hz, reader.duration_seconds) == ("FFMPEG", 8000, None)
    assert reader.source_sha256 == hashlib.sha256(data).hexdigest()
    assert not reader.is_truncated
    is_forward = "-i pipe:0" in fake_ffmpeg.read_text()
    assert is_forward == (way != "path" and b"webm" in head)


@pytest.mark.parametrize("way", WAYS)
def test_without_ffmpeg_the_hint_says_so(way, tmp_path, no_ffmpeg):
    with given(b"\0\0\0\x20ftypM4A " + bytes(100_000), way, tmp_path) as file:
        assert "ffmpeg" in refused(file).hint


@pytest.mark.parametrize("way", WAYS)
def test_what_ffmpeg_says_is_the_error(way, tmp_path, fake_ffmpeg):
    with given(b"BAD sound file " * 100_000, way, tmp_path) as file:
        assert refused(file).message == "unreadable audio: moov atom not found"


@pytest.mark.parametrize("way", WAYS)
def test_sound_that_ffmpeg_finds_fault_with_is_truncated(way, tmp_path, fake_ffmpeg):
    with given(b"HALF a sound file", way, tmp_path) as file:
        sound, reader = read(file)
    assert len(sound) == 8000
    assert reader.is_truncated


@pytest.mark.parametrize("way", WAYS)
def test_ffmpeg_ends_with_the_reader(way, tmp_path, fake_ffmpeg):
    with given(b"ENDLESS " * 100_000, way, tmp_path) as file, open_audio(file) as reader:
        assert len(next(reader.blocks())) == 65_536
        number = int(fake_ffmpeg.read_text().split()[0])
        os.kill(number, 0)
    with pytest.raises(ProcessLookupError):  # it ended, and its parent knows
        os.kill(number, 0)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", ["m4a", "aac", "webm", "wma"])
def test_the_real_ffmpeg(suffix, way, tmp_path):
    path = tmp_path / f"x.{suffix}"
    command = ["ffmpeg", "-v", "error", "-f", "wav", "-i", "pipe:0", str(path)]
    subprocess.run(command, input=encoded(tone(48_000 * 2, 1), "WAV", rate=48_000), check=True)
    with given(path.read_bytes(), way, tmp_path) as file:
        sound, reader = read(file)
    assert reader.rate_hz == 48_000
    assert not reader.is_truncated
    assert len(sound) == pytest.approx(2 * 48_000, abs=4096)
    assert np.sqrt((sound**2).mean()) == pytest.approx(np.sqrt((tone(48_000 * 2, 1) ** 2).mean()), rel=0.1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["WAV", "FLAC", "MP3", "CAF", "ftyp", "webm", "ENDLESS", "BAD"])
@pytest.mark.parametrize("is_read", [True, False])
def test_nothing_is_left_open_or_lying_about(kind, way, is_read, tmp_path, fake_ffmpeg, monkeypatch):
    if kind == "ENDLESS" and is_read:
        pytest.skip("has no end")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    is_fake = kind in ("ftyp", "webm", "ENDLESS", "BAD")
    data = kind.encode().rjust(8) * 9000 if is_fake else encoded(tone(2 * RATE), kind)
    gc.collect()
    before = os.listdir("/dev/fd")
    with given(data, way, tmp_path) as file:
        try:
            with open_audio(file) as reader:
                for _ in reader.blocks():
                    if not is_read:
                        break
        except InputError:
            assert kind == "BAD"
    assert os.listdir("/dev/fd") == before
    assert not os.listdir(tmp_path / "temporary")
    assert not [thread for thread in threading.enumerate() if thread.name == "decoder"]
