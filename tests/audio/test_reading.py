"""Sound from files and pipes of any kind: all of it, as it comes, and with an error for what is none."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import soundfile
import soxr

from musictool.audio import reading
from musictool.audio.reading import mono_blocks, open_audio
from musictool.errors import InputError
from tests.audio.sounds import RATE, WAYS, encoded, given, piped, read, refused, tone

SHARED = os.environ.get("MTK_TEST_SHARED")
CONTAINERS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("W64", "IMA_ADPCM"),
    ("AIFF", "PCM_24"),
    ("AIFF", "FLOAT"),
    ("AU", "FLOAT"),
    ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
CUT = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("AIFF", "PCM_16"),
    ("AIFF", "IMA_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("MP3", "MPEG_LAYER_III"),
]


def rate_of(subtype: str) -> int:
    return 24_000 if subtype == "OPUS" else RATE


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("container", "subtype"), CONTAINERS)
def test_every_container_gives_all_of_its_sound(container, subtype, way, tmp_path, no_ffmpeg):
    data = encoded(tone(), container, subtype, rate_of(subtype))
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    with given(data, way, tmp_path) as file:
        sound, reader = read(file)
    assert len(sound) == len(expected)
    assert np.allclose(sound, expected, rtol=0, atol=1e-6 if subtype == "MPEG_LAYER_III" else 0)
    assert (reader.rate_hz, reader.channels) == (rate_of(subtype), 2)
    assert (reader.container, reader.encoding) == (container, subtype)
    assert reader.source_sha256 == hashlib.sha256(data).hexdigest()
    assert not reader.is_truncated
    if way == "path" or reader.duration_seconds is not None:
        assert reader.duration_seconds == pytest.approx(len(expected) / reader.rate_hz)


@pytest.mark.parametrize(("container", "subtype"), CUT)
@pytest.mark.parametrize("way", WAYS)
def test_a_cut_file_gives_what_is_there_and_says_so(container, subtype, way, tmp_path):
    whole = encoded(tone(), container, subtype)
    expected, _ = soundfile.read(io.BytesIO(whole), dtype="float32")
    cut = whole[: len(whole) * 2 // 3]
    with given(cut, way, tmp_path) as file:
        sound, reader = read(file)
    assert reader.is_truncated
    assert 0.4 < len(sound) / len(expected) < 0.8
    assert np.allclose(sound[:-2304], expected[: len(sound) - 2304], atol=1e-4)  # an MP3 frame leans on the next
    assert reader.source_sha256 == hashlib.sha256(cut).hexdigest()


@pytest.mark.parametrize(("container", "subtype"), [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_broken_in_the_middle_gives_the_sound_before(container, subtype, way, tmp_path, monkeypatch):
    data = bytearray(encoded(tone(), container, subtype))
    whole, _ = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")
    data[len(data) // 2 : len(data) // 2 + 20_000] = bytes(20_000)
    lengths = set()
    for samples in (reading.BLOCK_SAMPLES, 1000):
        monkeypatch.setattr(reading, "BLOCK_SAMPLES", samples)
        with given(bytes(data), way, tmp_path) as file:
            sound, reader = read(file)
        assert reader.is_truncated
        assert reader.source_sha256 == hashlib.sha256(data).hexdigest()
        assert np.allclose(sound[:-2304], whole[: len(sound) - 2304], atol=1e-4)
        lengths.add(len(sound))
    assert len(lengths) == 1
    assert 0.3 < lengths.pop() / len(whole) < 0.55


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_broken_from_its_start_is_refused(way, tmp_path):
    data = bytearray(encoded(tone(), "FLAC"))
    data[9000:30_000] = bytes(21_000)  # behind the tags
    with given(bytes(data), way, tmp_path) as file:
        assert refused(file).message == "unreadable audio: flac decoder lost sync"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0, 0x7FFF_F024, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("WAVEX", "PCM_24"), ("WAV", "ULAW")])
def test_a_wav_of_unknown_length_is_read_to_its_end(length, container, subtype, way, tmp_path, no_ffmpeg):
    data = bytearray(encoded(tone(), container, subtype))
    expected, _ = soundfile.read(io.BytesIO(bytes(data)), dtype="float32")
    start = data.index(b"data")
    data[4:8] = data[start + 4 : start + 8] = struct.pack("<I", length)
    data[start:start] = b"note\5\0\0\0odd.." + bytes(1)
    with given(bytes(data), way, tmp_path) as file:
        sound, reader = read(file)
    assert np.array_equal(sound, expected)
    assert reader.container == "WAV"
    assert reader.duration_seconds is None
    assert not reader.is_truncated


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("length", [0x7FFF_FFFF, 0xFFFF_FFFF])
def test_an_unknown_length_of_coded_blocks_is_no_cut(length, way, tmp_path, no_ffmpeg):
    data = bytearray(encoded(tone(), "WAV", "IMA_ADPCM"))
    start = data.index(b"data")
    data[start + 4 : start + 8] = struct.pack("<I", length)
    with given(bytes(data), way, tmp_path) as file:
        sound, reader = read(file)
    assert len(sound) == pytest.approx(3 * RATE, abs=2048)
    assert not reader.is_truncated


def test_a_wav_of_unknown_length_has_no_limit(monkeypatch):
    header = bytearray(encoded(np.zeros((0, 1)), "WAV", "PCM_16"))
    header[-4:] = b"\xff" * 4
    with open_audio(Endless(bytes(header), bytes(1 << 16))) as reader:
        assert reader._decoder._sound.frames > 1 << 48


class Endless:
    """A file that goes on for ever, without a descriptor."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self._head, self._body = head, body
        self.given = 0

    def read(self, size: int) -> bytes:
        piece, self._head = self._head or self._body[:size], b""
        self.given += len(piece)
        return piece


def test_a_pipe_that_only_begins_like_sound_is_given_up():
    head = encoded(tone(), "FLAC")[:42]  # up to the end of the format
    padding = b"\1\0\xff\xfc" + bytes(0xFFFC)
    source = Endless(head, padding)
    assert "first 64 MiB" in refused(source).message
    assert source.given < 1 << 27


def test_an_endless_pipe_takes_little_memory():
    header = bytearray(encoded(np.zeros((0, 2)), "WAV", "PCM_16"))
    header[-4:] = b"\xff" * 4
    source = Endless(bytes(header), bytes(1 << 16))
    tracemalloc.start()
    try:
        with open_audio(source) as reader:
            for count, _ in enumerate(mono_blocks(reader, 16_000)):
                if count == 300:
                    break
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert source.given > 30_000_000
    assert peak < 4_000_000


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_pipe_is_decoded_while_it_is_written(container):
    data = encoded(tone(10 * RATE), container)
    is_heard = threading.Event()
    waited = []

    def write(pipe: BinaryIO) -> None:
        pipe.write(data[: len(data) // 2])
        waited.append(is_heard.wait(20))
        pipe.write(data[len(data) // 2 :])

    with piped(write) as pipe, open_audio(pipe) as reader:
        frames = 0
        for block in reader.blocks():
            frames += len(block)
            is_heard.set()
        assert not reader.is_truncated
    assert waited == [True]
    assert frames == 10 * RATE


@pytest.mark.parametrize("sent", [0, 20, 300_000])
def test_ctrl_c_ends_the_waiting_for_a_silent_pipe(sent):
    program = (
        "import sys\nfrom musictool.audio.reading import open_audio\n"
        "print('begun', flush=True)\n"
        "with open_audio(sys.stdin.buffer) as reader:\n    for block in reader.blocks(): print(len(block), flush=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    with child:
        try:
            child.stdin.write(encoded(tone(), "WAV", "PCM_24")[:sent])
            child.stdin.flush()
            assert child.stdout.readline() == b"begun\n"
            if sent > 20:
                assert child.stdout.readline() == b"32768\n"
            time.sleep(0.3)
            child.send_signal(signal.SIGINT)
            child.wait(10)
            assert child.stderr.read().endswith(b"KeyboardInterrupt\n")
        finally:
            child.kill()


class Failing(io.BytesIO):
    """A file that cannot be read to its end."""

    def __init__(self, data: bytes, error: BaseException) -> None:
        super().__init__(data)
        self._error = error

    def read1(self, size: int | None = -1, /) -> bytes:
        if piece := super().read1(min(size or -1, 10_000)):
            return piece
        raise self._error


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "CAF"])
@pytest.mark.parametrize("size", [5, 50_000])
def test_no_error_of_the_source_is_lost(container, size):
    data = encoded(tone(), container)
    error = refused(Failing(data[:size], OSError(errno.EIO, "Input/output error")))
    assert (error.message, error.code) == ("input/output error", "unreadable-file")
    with pytest.raises(KeyboardInterrupt):
        read(Failing(data[:size], KeyboardInterrupt()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        b"RIFF\0\0\0\0WAVE",
        b"fLaC",
        b"OggS",
        b"\xff\xfb\x90\x64",
        b"ID3",
        b"not a sound at all\n" * 1000,
        bytes(100_000),
        np.random.default_rng(2).bytes(100_000),
        b"fLaC" + np.random.default_rng(2).bytes(100_000),
        b"OggS" + np.random.default_rng(2).bytes(100_000),
        b"ID3\3\0\0\0\0\0\0" + b"text " * 1000,
    ],
)
def test_what_is_no_sound_is_refused(data, way, tmp_path):
    with given(data, way, tmp_path) as file:
        error = refused(file)
    assert error.message.startswith("unreadable audio: ")
    assert error.code == "unreadable-audio"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [(22, "<H", 0), (22, "<H", 60_000), (24, "<I", 0), (24, "<I", 3), (24, "<I", 0x7FFF_FFFF)],
)
def test_a_header_that_makes_no_sense_is_refused(offset, form, value, way, tmp_path):
    data = bytearray(encoded(tone(), "WAV"))
    struct.pack_into(form, data, offset, value)
    with given(bytes(data), way, tmp_path) as file:
        assert refused(file).code == "unreadable-audio"


@pytest.mark.parametrize("way", WAYS)
def test_a_file_without_frames_is_refused_unless_that_is_asked_for(way, tmp_path):
    data = encoded(np.zeros((0, 1)), "WAV")
    with given(data, way, tmp_path) as file:
        assert refused(file).code == "empty-audio"
    with given(data, way, tmp_path) as file, open_audio(file) as reader:
        assert not list(reader.blocks(strict=False))


def test_what_cannot_be_opened_is_an_error_with_its_name(tmp_path):
    for path, code in ((tmp_path, "unreadable-file"), (tmp_path / "gone.wav", "no-such-file")):
        with pytest.raises(InputError) as caught:
            open_audio(path)
        assert (caught.value.context, caught.value.code) == (str(path), code)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_no_room_for_a_copy_is_an_error_that_says_so(monkeypatch):
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda: full)
        error = refused(io.BytesIO(encoded(tone(), "CAF")))
    assert error.code == "no-space"
    assert "TMPDIR" in error.hint


@pytest.mark.parametrize("way", WAYS)
def test_a_header_with_a_wrong_byte_rate_is_no_cut(way, tmp_path):
    data = bytearray(encoded(tone(), "WAV"))
    struct.pack_into("<I", data, 28, 1 << 30)
    with given(bytes(data), way, tmp_path) as file:
        assert not read(file)[1].is_truncated


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("way", WAYS)
def test_samples_that_are_of_no_use_are_refused_with_their_time(value, way, tmp_path):
    samples = tone(4 * RATE).copy()
    samples[3 * RATE, 1] = value
    with given(encoded(samples, "WAV", "FLOAT"), way, tmp_path) as file:
        error = refused(file)
    assert error.code == "unusable-samples"
    assert error.message == f"a sample of {value:g} at 3.000 s"
    with given(encoded(samples, "WAV", "FLOAT"), way, tmp_path) as file, open_audio(file) as reader:
        assert np.array_equal(np.concatenate(list(reader.blocks(strict=False))), samples.astype("f4"), equal_nan=True)


@pytest.mark.parametrize("way", WAYS)
def test_pictures_in_tags_are_passed_over(way, tmp_path):
    mp3 = encoded(tone(), "MP3")
    expected, _ = soundfile.read(io.BytesIO(mp3), dtype="float32")
    picture = np.random.default_rng(0).bytes(300_000)
    size = bytes(len(picture) >> shift & 0x7F for shift in (21, 14, 7, 0))
    tagged = b"ID3\3\0\0" + size + picture + mp3 + b"TAG" + bytes(125)
    with given(tagged, way, tmp_path) as file:
        sound, reader = read(file)
    assert len(sound) == len(expected)
    assert np.allclose(sound, expected, rtol=0, atol=1e-6)
    assert not reader.is_truncated
    assert reader.duration_seconds == pytest.approx(3.0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("container", ["MP3", "WAV"])
def test_mpeg_frames_that_do_not_say_their_number_are_read_to_the_last(container, way, tmp_path):
    samples = tone(20 * RATE, 1).copy()
    samples[RATE:] *= 1e-3  # a first frame of many bits, from which libsndfile would expect a short file
    mp3 = encoded(samples, "MP3", bitrate_mode="VARIABLE", compression_level=0.1)
    start = mp3.index(b"\xff\xf3", 2)  # behind the frame with the Xing header
    assert b"Xing" in mp3[:start]
    data = mp3[start:]
    if container == "WAV":
        form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, RATE, 8000, 1, 0, 12, 1, 2, 417, 1, 1393)
        chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
        data = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    with given(data, way, tmp_path) as file:
        sound, reader = read(file)
    assert (reader.container, reader.duration_seconds) == (container, None)
    assert not reader.is_truncated
    assert len(samples) <= len(sound) < len(samples) + 4 * 1152


def test_a_regular_file_is_read_from_its_beginning_wherever_it_stands(tmp_path):
    data = encoded(tone(), "FLAC")
    (tmp_path / "x").write_bytes(data)
    with open(tmp_path / "x", "rb") as file:
        file.read(100)
        sound, reader = read(file)
    assert len(sound) == 3 * RATE
    assert reader.source_sha256 == hashlib.sha256(data).hexdigest()


def test_what_was_peeked_at_in_a_pipe_is_not_lost():
    data = encoded(tone(), "FLAC")
    with piped(lambda pipe: pipe.write(data)) as pipe:
        assert pipe.peek(4)[:4] == b"fLaC"
        sound, reader = read(pipe)
    assert len(sound) == 3 * RATE
    assert reader.source_sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("container", ["WAV", "FLAC", "MP3"])
def test_a_reader_can_be_closed_while_its_pipe_is_silent(container):
    data = encoded(tone(), container)
    is_closed = threading.Event()

    def write(pipe: BinaryIO) -> None:
        pipe.write(data[: len(data) * 2 // 3])
        is_closed.wait(20)

    with piped(write) as pipe:
        begun = time.monotonic()
        with open_audio(pipe) as reader:
            next(reader.blocks())
        is_closed.set()
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("way", WAYS)
def test_another_thread_may_read_on(way, tmp_path):
    with given(encoded(tone(), "MP3"), way, tmp_path) as file, open_audio(file) as reader:
        blocks = reader.blocks()
        counts = [len(next(blocks))]
        thread = threading.Thread(target=lambda: counts.extend(map(len, blocks)))
        thread.start()
        thread.join()
    assert sum(counts) == 3 * RATE


def test_facts_of_the_whole_are_not_known_before_the_end():
    with open_audio(io.BytesIO(encoded(tone(), "WAV"))) as reader:
        next(reader.blocks())
        with pytest.raises(RuntimeError):
            _ = reader.source_sha256
        with pytest.raises(RuntimeError):
            _ = reader.is_truncated


# ------------------------------------------------------------------------------------------------------------- mono


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("samples", [1 << 16, 1000])
def test_blocks_make_no_difference_to_resampled_sound(rate, samples, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK_SAMPLES", samples)
    sound = tone(rate // 2 + 1).astype("f4")
    with open_audio(io.BytesIO(encoded(sound, "WAV", "FLOAT", rate))) as reader:
        mono = np.concatenate(list(mono_blocks(reader, 16_000)))
    whole = soxr.resample(sound.mean(axis=1), rate, 16_000)
    assert abs(len(mono) - len(sound) * 16_000 / rate) <= 1
    assert len(mono) == len(whole)
    assert np.abs(mono - whole).max() < 1e-6


def test_sound_of_the_right_rate_is_left_as_it_is():
    sound = tone(16_000, 1).astype("f4")
    with open_audio(io.BytesIO(encoded(sound, "WAV", "FLOAT", 16_000))) as reader:
        assert np.array_equal(np.concatenate(list(mono_blocks(reader, 16_000))), sound[:, 0])


@pytest.mark.parametrize("channels", [2, 8])
def test_channels_are_averaged(channels):
    sound = tone(16_000, channels).astype("f4")
    with open_audio(io.BytesIO(encoded(sound, "WAV", "FLOAT", 16_000))) as reader:
        mono = np.concatenate(list(mono_blocks(reader, 16_000)))
    assert np.allclose(mono, sound.mean(axis=1, dtype="f8"), atol=1e-7)


def test_twenty_milliseconds_are_sound():
    with open_audio(io.BytesIO(encoded(tone(RATE // 50), "WAV"))) as reader:
        assert sum(map(len, mono_blocks(reader, 16_000))) == 320


@pytest.mark.skipif(SHARED is None, reason="needs MTK_TEST_SHARED")
def test_recordings_are_the_same_from_a_pipe(tmp_path):
    folder = Path(SHARED or "") / "data" / "recordings"
    for path in [*sorted(folder.glob("*.ogg"))[:2], *sorted(folder.glob("*/*.flac"))[:1]]:
        sound, reader = read(path)
        assert len(sound) == soundfile.info(path).frames
        assert reader.duration_seconds == len(sound) / reader.rate_hz
        with piped(lambda pipe, path=path: pipe.write(path.read_bytes())) as pipe:
            again, _ = read(pipe)
        assert np.array_equal(sound, again)
