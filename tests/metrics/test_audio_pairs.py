"""Two sounds read side by side, and where references are found."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from musictool.errors import InputError, UsageError
from musictool.metrics.audio import evaluate
from musictool.metrics.audio_pairs import SoundPair, SoundReferences

RATE = 24_000


def sound(frames=2 * RATE + 123, channels=1, rate_hz=RATE):
    """Some tones well below 4 kHz, float64 [frames, C]."""
    time = np.arange(frames)[:, None] / rate_hz
    return sum(np.sin(2 * np.pi * hertz * time + np.arange(channels)) for hertz in (220, 571, 1333, 3001)) / 8


def written(folder, name, samples, rate_hz=RATE, subtype="FLOAT"):
    path = folder / name
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


def read(*paths, **options):
    with SoundPair(*paths, **options) as pair:
        blocks = list(pair.blocks())
    return np.concatenate(blocks, axis=2), pair


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_both_are_read_as_they_are(tmp_path, channels):
    one, other = sound(channels=channels), sound(channels=channels)[::-1]
    both, pair = read(written(tmp_path, "a.wav", one), written(tmp_path, "b.wav", other))
    np.testing.assert_array_equal(both, np.stack([one.T, other.T]).astype(np.float32))
    assert (pair.rate_hz, pair.channels, pair.samples, pair.surplus_seconds) == (RATE, channels, len(one), 0)


@pytest.mark.parametrize("rate_hz", [8000, 16_000, 44_100, 48_000])
def test_the_result_is_brought_to_the_rate_of_the_reference(tmp_path, rate_hz):
    reference = written(tmp_path, "a.wav", sound())
    result = written(tmp_path, "b.wav", sound(round((2 * RATE + 123) * rate_hz / RATE), rate_hz=rate_hz), rate_hz)
    both, pair = read(reference, result)
    assert pair.rate_hz == RATE
    assert abs(pair.surplus_seconds) < 2 / RATE
    assert evaluate([both[:, :, 1000:-1000]], RATE)["si_sdr_db"] > 50


@pytest.mark.parametrize("extra", [-2000, -1, 1, 2000])
def test_what_is_too_much_within_the_tolerance_is_left_out(tmp_path, extra):
    long = sound(3 * RATE)
    lengths = (2 * RATE, 2 * RATE + extra)
    paths = [written(tmp_path, f"{name}.wav", long[:length]) for name, length in zip("ab", lengths)]
    both, pair = read(*paths)
    assert (both.shape[2], pair.surplus_seconds) == (min(lengths), extra / RATE)
    np.testing.assert_array_equal(both[0], both[1])
    with pytest.raises(InputError, match=f"{abs(extra) / RATE:.3f} s {'longer' if extra > 0 else 'shorter'}") as caught:
        read(*paths, tolerance_seconds=(abs(extra) - 0.5) / RATE)
    assert (caught.value.code, caught.value.context) == ("other-length", str(paths[1]))


def test_mono_and_stereo_are_compared_only_if_they_are_mixed(tmp_path):
    stereo = sound(channels=2)
    paths = written(tmp_path, "a.wav", stereo), written(tmp_path, "b.wav", stereo.mean(axis=1))
    with pytest.raises(InputError, match="1 channel where the reference has 2 channels") as caught:
        read(*paths)
    assert "--mono" in caught.value.hint
    both, pair = read(*paths, is_mixed=True)
    assert pair.channels == 1
    np.testing.assert_allclose(both[0], both[1], atol=1e-7)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_no_sound_is_refused_on_either_side(tmp_path, place, wrong):
    samples = [sound(), sound()]
    samples[place][-5] = wrong
    paths = [written(tmp_path, f"{name}.wav", some) for name, some in zip("ab", samples)]
    with pytest.raises(InputError, match=r"a sample of -?(nan|inf) at 2.005 s") as caught:
        read(*paths)
    assert caught.value.context == str(paths[place])


@pytest.mark.parametrize("place", [0, 1])
def test_a_file_without_sound_is_refused(tmp_path, place):
    samples = [sound(), sound()]
    samples[place] = samples[place][:0]
    with pytest.raises(InputError, match="there is no sound in it"):
        read(*(written(tmp_path, f"{name}.wav", some) for name, some in zip("ab", samples)))


def test_a_file_that_breaks_off_is_named(tmp_path):
    reference, result = written(tmp_path, "a.wav", sound()), written(tmp_path, "b.wav", sound())
    result.write_bytes(result.read_bytes()[:-2000])
    _, pair = read(reference, result)
    assert pair.truncated == (result,)


# ---------------------------------------------------------------------------------------------------------- references


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a.flac", "a.mp3", "a.txt", "b.OGG", "inner/c.wav", "inner/a.opus", "d.e.wav"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("a",), "a.flac"),
        (("b",), "b.OGG"),
        (("inner/c",), "inner/c.wav"),
        (("inner/a",), "inner/a.opus"),
        (("other/a",), "a.flac"),
        (("a.wav", "a"), "a.flac"),
        (("d.e",), "d.e.wav"),
        (("../inner/c", "b"), "b.OGG"),
    ],
)
def test_references_are_found_by_name(folder, names, found):
    assert SoundReferences(folder).find(*names) == folder / found


def test_what_has_no_reference_is_said(folder):
    with pytest.raises(InputError, match="there is no reference") as caught:
        SoundReferences(folder).find("nobody")
    assert caught.value.code == "no-reference"
    with pytest.raises(InputError, match="no such file"):
        SoundReferences(folder / "nowhere")


def test_one_file_is_the_reference_of_one_item(folder):
    references = SoundReferences(folder / "a.mp3")
    assert references.find("anything") == folder / "a.mp3"
    with pytest.raises(UsageError, match="more than one item for one reference"):
        references.find("another")
