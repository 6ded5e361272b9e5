"""Windows of sound files are what the files hold, at the rate and with the channels that are asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.errors import InputError
from musictool.training.data.audio_windows import open_sounds, read_window

RATE = 24_000


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, subtype="FLOAT")
    return path


def ramp(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32) / count


def test_a_window_is_the_files_own_samples(tmp_path):
    sound = ramp(1000)
    (file,) = open_sounds([write(tmp_path / "a.wav", sound)]).files
    assert np.array_equal(read_window(file, 100 / RATE, 50, RATE, 1), sound[None, 100:150])
    past_the_end = read_window(file, 900 / RATE, 200, RATE, 1)
    assert np.array_equal(past_the_end[0, :100], sound[900:])
    assert not past_the_end[0, 100:].any()


def test_channels_are_averaged_or_doubled(tmp_path):
    left, right = ramp(100), -0.5 * ramp(100)
    stereo = open_sounds([write(tmp_path / "s.wav", np.stack([left, right], 1))]).files[0]
    mono = open_sounds([write(tmp_path / "m.wav", left)]).files[0]
    assert np.allclose(read_window(stereo, 0, 100, RATE, 1)[0], (left + right) / 2)
    assert np.array_equal(read_window(stereo, 0, 100, RATE, 2), np.stack([left, right]))
    assert np.array_equal(read_window(mono, 0, 100, RATE, 2), np.stack([left, left]))


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("start_seconds", [0.0, 0.01, 0.5, 0.8])
def test_sound_of_another_rate_is_resampled_in_its_place(tmp_path, rate_hz, start_seconds):
    def sine(count: int, rate: int, start: float) -> np.ndarray:
        return 0.5 * np.sin(2 * np.pi * 440 * (start + np.arange(count) / rate))

    (file,) = open_sounds([write(tmp_path / "a.wav", sine(rate_hz, rate_hz, 0.0), rate_hz)]).files
    window = read_window(file, start_seconds, 2400, RATE, 1)[0]
    first = round(start_seconds * rate_hz) / rate_hz
    inner = slice(240, -240)
    assert np.allclose(window[inner], sine(2400, RATE, first)[inner], atol=0.01)


def test_a_second_is_as_likely_as_any_other(tmp_path):
    write(tmp_path / "long.wav", np.full(30_000, 0.5))
    write(tmp_path / "short.wav", np.full(10_000, -0.5))
    sounds = open_sounds([tmp_path])
    generator = np.random.default_rng(0)
    drawn = [sounds.drawn(10, RATE, 1, generator)[0, 0] for _ in range(400)]
    assert 0.68 < np.mean(np.array(drawn) > 0) < 0.82


def test_windows_are_spread_over_all_of_the_sound(tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.wav", np.full(1000, number / 10))
    sounds = open_sounds([tmp_path])
    values = [float(sounds.spread(number, 8, 100, RATE, 1)[0, 0]) for number in range(8)]
    assert values == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3])


def test_folders_files_and_lists_are_walked_in_order(tmp_path):
    write(tmp_path / "inner/b.wav", ramp(10))
    write(tmp_path / "inner/deep/a.flac.wav", ramp(10))
    write(tmp_path / ".hidden/c.wav", ramp(10))
    (tmp_path / "inner/notes.txt").write_text("no sound")
    (tmp_path / "list.txt").write_text("# some\n\ninner/b.wav\n")
    (tmp_path / "stems.txt").write_text("inner/b\n")
    names = [file.path.name for file in open_sounds([tmp_path]).files]
    assert names == ["b.wav", "a.flac.wav"]
    assert [file.path.name for file in open_sounds([tmp_path / "list.txt"]).files] == ["b.wav"]
    assert [file.path.name for file in open_sounds([tmp_path / "stems.txt"]).files] == ["b.wav"]
    assert len(open_sounds([tmp_path / "inner/b.wav", tmp_path / "list.txt"]).files) == 2


def test_broken_files_are_named_in_one_line(tmp_path):
    write(tmp_path / "good.wav", ramp(10))
    for number in range(5):
        (tmp_path / f"bad{number}.wav").write_bytes(b"no sound")
    with pytest.raises(InputError) as caught:
        open_sounds([tmp_path])
    assert "bad0.wav" in caught.value.message
    assert "and 2 more" in caught.value.message
    assert "\n" not in caught.value.message


def test_what_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(InputError):
            open_sounds([path])


def test_a_file_that_vanishes_is_told(tmp_path):
    (file,) = open_sounds([write(tmp_path / "a.wav", ramp(10))]).files
    file.path.unlink()
    with pytest.raises(InputError, match="cannot read this sound"):
        read_window(file, 0, 5, RATE, 1)
