"""Sound in stretches is tagged as the whole is; what a piece knows, gives and refuses."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.audio.reading import AudioReader, open_audio
from musictool.audio.spectrogram import LogFrequency
from musictool.checkpoints.store import Store
from musictool.errors import InputError, ResourceError, UsageError
from musictool.inference import note_tagging
from musictool.inference.model_files import load_model
from musictool.inference.note_decoding import NoteDecoder
from musictool.inference.note_tagging import NoteTagging, NoteTaggingTranscriber
from musictool.inference.transcription import Sound, Transcription
from musictool.models.note_tagger import NoteLogits, NoteTagger
from musictool.symbolic.notes import Notes
from musictool.symbolic.schemes import find_scheme
from tests.small_models import SMALL_NOTE_TAGGER, install_small_note_tagger, random_note_tagger

RATE, HOP = SMALL_NOTE_TAGGER.front_end.rate_hz, SMALL_NOTE_TAGGER.front_end.hop_samples
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_small_note_tagger(home)
    return Store(home)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def tag(blocks: list[np.ndarray], rows: int = 1, precision="fp32") -> np.ndarray:
    """The maps of a whole sound, float32 [4, T, 88]."""
    maps = list(NoteTagging(random_note_tagger(), CPU, precision, rows).maps(blocks))
    return np.concatenate([np.zeros((4, 0, 88), np.float32), *maps], axis=1)


@torch.no_grad()
def tag_whole(samples: np.ndarray) -> np.ndarray:
    """The maps of a sound in long silence, in one pass."""
    around = 40
    frames = -(-len(samples) // HOP)
    padded = np.pad(samples, (around * HOP, (around + frames) * HOP - len(samples)))
    model = random_note_tagger()
    said = model(LogFrequency(model.config.front_end)(torch.from_numpy(padded)[None]))
    maps = torch.stack([said.onset, said.frame, said.offset, said.velocity])[:, 0].sigmoid()
    return maps[:, around : around + frames].numpy()


@given(
    st.integers(0, 40 * HOP),
    st.lists(st.integers(0, 40 * HOP), max_size=5),
    st.integers(1, 4),
    st.sampled_from([1, 3, 8, 50]),
)
@settings(max_examples=25, deadline=None)
def test_sound_in_blocks_and_stretches_is_tagged_as_the_whole(samples, cuts, rows, stretch_frames):
    sound = noise(samples, seed=samples)
    blocks = np.split(sound, sorted(min(cut, samples) for cut in cuts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(note_tagging, "STRETCH_FRAMES", stretch_frames)
        got = tag(blocks, rows)
    assert got.shape == (4, -(-samples // HOP), 88)
    np.testing.assert_allclose(got, tag_whole(sound), atol=1e-5)


def test_long_sound_is_tagged_as_the_whole():
    sound = noise(6300 * HOP + 7)
    assert note_tagging.STRETCH_FRAMES * 2 < 6300
    np.testing.assert_allclose(tag([sound]), tag_whole(sound), atol=1e-5)


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (1, 1), (HOP - 1, 1), (HOP, 1), (HOP + 1, 2)])
def test_there_are_as_many_frames_as_hops_that_begin_in_the_sound(samples, frames):
    assert tag([noise(samples)]).shape[1] == frames
    assert tag([]).shape[1] == 0


def test_maps_come_as_soon_as_the_sound_around_them_is_known(monkeypatch):
    monkeypatch.setattr(note_tagging, "STRETCH_FRAMES", 8)
    blocks = iter([noise(HOP, seed) for seed in range(100)])
    maps = NoteTagging(random_note_tagger(), CPU, "fp32", 2).maps(blocks)
    assert next(maps).shape == (4, 8, 88)
    assert len(list(blocks)) > 60  # two stretches, and what lies around them


def test_bf16_says_nearly_what_fp32_says():
    sound = noise(30 * HOP)
    exact, rough = tag([sound]), tag([sound], precision="bf16")
    assert rough.dtype == np.float32
    assert not np.array_equal(exact, rough)
    assert np.abs(exact - rough).mean() < 0.01


# ---------------------------------------------------------------------------------------------------- the transcriber


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


class Opened:
    """A sound, and whether and how often it was opened."""

    def __init__(self, data: bytes, name: str = "take") -> None:
        self.sound = Sound(name, self._open)
        self.is_open = False
        self.times = 0
        self._data = data

    @contextmanager
    def _open(self) -> Iterator[AudioReader]:
        with open_audio(io.BytesIO(self._data), "take") as reader:
            self.is_open, self.times = True, self.times + 1
            try:
                yield reader
            finally:
                self.is_open = False


def transcriber(store: Store, **options) -> NoteTaggingTranscriber:
    return NoteTaggingTranscriber(load_model("note-tagger", store=store), Transcription(device="cpu", **options))


def notes_of(store: Store, data: bytes, **options) -> Notes:
    (score,) = (piece.score() for piece in transcriber(store, **options).run([Opened(data).sound]))
    return score.notes


def columns(notes: Notes) -> list[list]:
    return [getattr(notes, name).tolist() for name in ("onset_seconds", "offset_seconds", "pitch", "velocity")]


def test_a_score_is_what_the_decoder_makes_of_the_maps(store):
    sound = noise(3 * RATE)
    decoder = NoteDecoder(SMALL_NOTE_TAGGER.thresholds, HOP / RATE)
    decoder.feed(tag_whole(sound))
    got = notes_of(store, wav(sound))
    assert len(got) > 50
    np.testing.assert_allclose(columns(got), columns(decoder.notes()), atol=1e-3)
    assert set(got.program) == {0}
    assert not got.is_drum.any()


def test_rows_side_by_side_change_no_note(store, monkeypatch):
    monkeypatch.setattr(note_tagging, "STRETCH_FRAMES", 64)
    tag, rows_at_once = NoteTagger.tag, []

    def counted(model: NoteTagger, frames: torch.Tensor, frames_at_once: int) -> NoteLogits:
        rows_at_once.append(len(frames))
        return tag(model, frames, frames_at_once)

    monkeypatch.setattr(NoteTagger, "tag", counted)
    data = wav(noise(10 * RATE))
    single, batched = (columns(notes_of(store, data, rows=rows)) for rows in (None, 3))
    assert rows_at_once == [*[1] * 8, *[3, 3, 1, 1]]
    assert len(single[0]) > 100
    np.testing.assert_allclose(single, batched, atol=1e-3)


def test_ids_are_the_score_in_a_scheme(store):
    data = wav(noise(2 * RATE))
    scheme = find_scheme("mt3")
    run = transcriber(store).run
    (ids,) = (np.concatenate(list(piece.ids(scheme))) for piece in run([Opened(data).sound]))
    (score,) = (piece.score() for piece in run([Opened(data).sound]))
    assert ids.tolist() == scheme.encode(score).tolist()


@pytest.mark.parametrize(
    ("programs", "program"), [(None, 0), ({40}, 40), (set(range(24, 32)), 24), ({0}, 0), (set(range(52, 55)), 52)]
)
def test_all_notes_get_the_instrument_that_is_named(store, programs, program):
    wanted = None if programs is None else frozenset(programs)
    assert set(notes_of(store, wav(noise(RATE)), programs=wanted, has_drums=False).program) == {program}


@pytest.mark.parametrize(
    ("programs", "has_drums"), [({0, 40}, False), (set(range(48)), False), (set(), False), (set(), True), ({32}, True)]
)
def test_several_instruments_none_and_drums_are_refused(store, programs, has_drums):
    with pytest.raises(UsageError, match="can't tell instruments apart") as caught:
        transcriber(store, programs=frozenset(programs), has_drums=has_drums)
    assert "\n" not in caught.value.message
    assert "mt3" in caught.value.hint


def test_steady_is_refused(store):
    with pytest.raises(UsageError, match="note-tagger reads no segments") as caught:
        transcriber(store, is_steady=True)
    assert "\n" not in caught.value.message
    assert "mt3" in caught.value.hint


def test_a_device_that_is_not_there_is_refused(store):
    with pytest.raises(ResourceError, match="no such device"):
        NoteTaggingTranscriber(load_model("note-tagger", store=store), Transcription(device="cuda:99"))


def test_a_piece_knows_its_sound_when_open_and_its_source_when_read(store):
    data = wav(noise(3 * 44_100).reshape(-1, 2), 44_100)
    (piece,) = [piece for piece in transcriber(store).run([Opened(data).sound]) if piece.score() is not None]
    assert (piece.name, piece.rate_hz, piece.channels, piece.duration_seconds) == ("take", 44_100, 2, 1.5)
    assert piece.source_sha256 == hashlib.sha256(data).hexdigest()
    assert not piece.is_truncated


def test_waiting_opens_and_reads_nothing_and_a_piece_left_alone_is_never_opened(store):
    opened = [Opened(wav(noise(RATE)), name) for name in "abc"]
    pieces = transcriber(store).run(one.sound for one in opened)
    assert next(pieces).name == "a"
    second = next(pieces)
    second.wait()
    second.wait()
    assert (second.duration_seconds, opened[1].is_open, second.source_sha256) == (1.0, True, "")
    assert next(pieces).name == "c"
    assert not opened[1].is_open
    pieces.close()
    assert [one.times for one in opened] == [0, 1, 0]


def test_readers_are_closed_when_the_sound_is_read(store):
    opened = Opened(wav(noise(RATE)))
    for piece in transcriber(store).run([opened.sound]):
        piece.score()
        assert not opened.is_open


def test_a_sound_that_breaks_off_is_transcribed_and_reported(store):
    data = wav(noise(2 * RATE))
    (piece,) = [piece for piece in transcriber(store).run([Opened(data[:-RATE]).sound]) if len(piece.score().notes)]
    assert piece.is_truncated
    assert piece.source_sha256 == hashlib.sha256(data[:-RATE]).hexdigest()


def test_an_error_while_opening_comes_from_waiting_and_spares_the_pieces_around_it(store):
    good, bad = wav(noise(RATE)), b"no sound at all"
    heard, refused = [], []
    for piece in transcriber(store).run([Opened(good, "a").sound, Opened(bad, "b").sound, Opened(good, "c").sound]):
        try:
            piece.wait()
            heard.append((piece.name, len(piece.score().notes)))
        except InputError:
            refused.append(piece.name)
    assert [name for name, _ in heard] == ["a", "c"]
    assert heard[0][1] == heard[1][1] > 0
    assert refused == ["b"]


def test_an_error_while_reading_comes_from_the_score_and_closes_the_sound(store):
    samples = noise(10 * RATE)
    samples[8 * RATE] = np.nan
    opened = Opened(wav(samples))
    for piece in transcriber(store).run([opened.sound]):
        piece.wait()
        with pytest.raises(InputError, match="sample"):
            piece.score()
        assert not opened.is_open


@pytest.mark.parametrize("frames", [1, 3, RATE, 100_000])
def test_what_is_done_adds_up_to_the_sound(store, frames):
    done: list[float] = []
    for piece in transcriber(store).run([Opened(wav(noise(frames))).sound], done.append):
        piece.score()
    assert sum(done) == pytest.approx(-(-frames // HOP) * HOP / RATE)


def test_a_sound_too_short_for_a_sample_has_no_notes(store):
    assert len(notes_of(store, wav(np.full(1, 0.1, np.float32), 192_000))) == 0


def test_the_transcriber_names_its_model(store):
    used = transcriber(store)
    assert (used.model_name, len(used.model_sha256)) == ("note-tagger", 64)
