"""Pairs of sound and notes: which there are, and what a stretch of one holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from musictool.errors import InputError
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.training.data.pairs import open_collections

RATE = 16_000
NOTES = Notes.of([0.5, 1.0, 2.0, 2.5], [0.75, 2.25, 2.25, 3.0], [60, 64, 60, 36], [80, 90, 100, 70], [0, 0, 40, 0])


def noise(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32).squeeze()


def write_pair(
    stem: Path, sound: np.ndarray, rate: int = RATE, score: Score | None = None, suffix: str = ".flac"
) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(f"{stem}{suffix}", sound, rate)
    Path(f"{stem}.mid").write_bytes(write_midi(score or Score(NOTES)))


def test_a_pair_is_a_sound_and_its_notes_by_stem(tmp_path):
    for stem in ("b", "a", "inner/c.d"):
        write_pair(tmp_path / stem, noise(1))
    soundfile.write(tmp_path / "alone.wav", noise(1), RATE)
    (tmp_path / "silent.mid").write_bytes(b"")
    collection = open_collections([tmp_path])
    assert [pair.stem for pair in collection.pairs] == ["a", "b", "inner/c.d"]
    assert collection.duration_seconds == 3


def test_midi_goes_before_a_table(tmp_path):
    write_pair(tmp_path / "a", noise(1))
    (tmp_path / "a.tsv").write_text("0.1\t0.2\t99\t64\n")
    soundfile.write(tmp_path / "b.wav", noise(1), RATE)
    (tmp_path / "b.tsv").write_text("0.1\t0.2\t99\t64\n")
    collection = open_collections([tmp_path])
    assert [collection.notes(i).pitch.tolist() for i in range(2)] == [[60, 64, 60, 36], [99]]


def test_a_list_names_pairs_beside_it(tmp_path):
    for stem in ("a", "b", "inner/c"):
        write_pair(tmp_path / stem, noise(1))
    (tmp_path / "some.txt").write_text("# some\n\ninner/c\na\n")
    assert [pair.stem for pair in open_collections([tmp_path / "some.txt"]).pairs] == ["inner/c", "a"]
    both = open_collections([tmp_path / "some.txt", tmp_path])
    assert [pair.stem for pair in both.pairs] == ["inner/c", "a", "a", "b", "inner/c"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "nowhere", "cannot open"),
        (lambda folder: folder, "holds no pair"),
        (lambda folder: listing(folder, "a\n"), "no sound"),
        (lambda folder: listing(folder, "# nothing\n"), "holds no pair"),
        (lambda folder: listing(folder, "only-sound\n"), "no notes"),
        (lambda folder: folder / "only-sound.wav", "cannot open"),
    ],
)
def test_a_collection_that_is_none_is_an_input_error(tmp_path, make, words):
    soundfile.write(tmp_path / "only-sound.wav", noise(1), RATE)
    with pytest.raises(InputError, match=words) as caught:
        open_collections([make(tmp_path)])
    assert caught.value.hint


def listing(folder: Path, text: str) -> Path:
    (folder / "list.txt").write_text(text)
    return folder / "list.txt"


def test_sound_that_is_none_is_an_input_error(tmp_path):
    write_pair(tmp_path / "a", noise(1))
    (tmp_path / "a.flac").write_bytes(b"no sound")
    with pytest.raises(InputError, match="cannot read the sound"):
        open_collections([tmp_path])


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_a_stretch_is_cut_out_of_the_whole(tmp_path, suffix):
    write_pair(tmp_path / "a", noise(4), suffix=suffix)
    whole, _ = soundfile.read(tmp_path / f"a{suffix}", dtype="float32")
    excerpt = open_collections([tmp_path]).excerpt(0, 1.25, 1.5, RATE)
    np.testing.assert_array_equal(excerpt.samples, whole[20_000:44_000])
    assert (excerpt.start_seconds, excerpt.stem) == (1.25, "a")


@pytest.mark.parametrize("rate", [22_050, 8_000, 44_100])
def test_a_resampled_stretch_is_cut_out_of_the_resampled_whole(tmp_path, rate):
    write_pair(tmp_path / "a", soxr.resample(noise(4, 8_000), 8_000, rate), rate)
    sound, _ = soundfile.read(tmp_path / "a.flac", dtype="float32")
    whole = soxr.resample(sound, rate, RATE)
    collection = open_collections([tmp_path])
    for start in (0.0, 0.7, 1.23456):
        first = round(start * RATE)
        excerpt = collection.excerpt(0, start, 1.0, RATE)
        assert len(excerpt.samples) == RATE
        np.testing.assert_allclose(excerpt.samples, whole[first : first + RATE], atol=1e-3)


def test_silence_lies_before_and_behind_the_sound(tmp_path):
    write_pair(tmp_path / "a", noise(1))
    whole, _ = soundfile.read(tmp_path / "a.flac", dtype="float32")
    samples = open_collections([tmp_path]).excerpt(0, -0.5, 2.0, RATE).samples
    np.testing.assert_array_equal(samples, np.pad(whole, RATE // 2))
    assert not open_collections([tmp_path]).excerpt(0, 5.0, 1.0, RATE).samples.any()


def test_channels_are_averaged(tmp_path):
    write_pair(tmp_path / "a", noise(1, channels=2))
    whole, _ = soundfile.read(tmp_path / "a.flac", dtype="float32")
    samples = open_collections([tmp_path]).excerpt(0, 0, 1.0, RATE).samples
    np.testing.assert_allclose(samples, whole.mean(axis=1), atol=1e-7)


def test_notes_of_a_stretch_are_those_that_sound_in_it(tmp_path):
    write_pair(tmp_path / "a", noise(4))
    notes = open_collections([tmp_path]).excerpt(0, 1.5, 0.75, RATE).notes
    assert notes.pitch.tolist() == [64, 60]
    assert notes.program.tolist() == [0, 40]
    np.testing.assert_allclose(notes.onset_seconds, [-0.5, 0.5], atol=1e-3)
    np.testing.assert_allclose(notes.offset_seconds, [0.75, 0.75], atol=1e-3)
    np.testing.assert_array_equal(notes.silent_seconds, notes.offset_seconds)


def test_a_note_that_the_pedal_holds_sounds_on(tmp_path):
    write_pair(tmp_path / "a", noise(4), score=Score(NOTES.take(slice(0, 2)), pedals=Pedals.of([0.6], [1.5], [0])))
    notes = open_collections([tmp_path]).excerpt(0, 1.25, 0.5, RATE).notes
    assert notes.pitch.tolist() == [60, 64]
    np.testing.assert_allclose(notes.offset_seconds, [-0.5, 1.0], atol=1e-3)
    np.testing.assert_allclose(notes.silent_seconds, [0.25, 1.0], atol=1e-3)
    np.testing.assert_allclose(notes.pedal_onset_seconds, [-0.65], atol=1e-3)
    np.testing.assert_allclose(notes.pedal_offset_seconds, [0.25], atol=1e-3)


def test_notes_are_parsed_once(tmp_path):
    write_pair(tmp_path / "a", noise(1))
    collection = open_collections([tmp_path])
    before = collection.notes(0)
    (tmp_path / "a.mid").unlink()
    assert collection.notes(0) is before
    assert len(collection.excerpt(0, 0, 1, RATE).notes) == 1


def test_stretched_notes_keep_their_proportions(tmp_path):
    write_pair(tmp_path / "a", noise(1), score=Score(NOTES, pedals=Pedals.of([0.6], [1.5], [0])))
    notes = open_collections([tmp_path]).notes(0)
    longer = notes.stretched(1.25)
    for column in ("onset", "offset", "silent", "pedal_onset", "pedal_offset"):
        before = getattr(notes, f"{column}_seconds")
        np.testing.assert_allclose(getattr(longer, f"{column}_seconds"), before * 1.25, rtol=1e-6)
    np.testing.assert_array_equal(longer.pitch, notes.pitch)
