"""The transcriber as a library: segments, readings, what a piece knows."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import pytest

from musictool.checkpoints.store import Store
from musictool.errors import InputError
from musictool.inference.model_files import load_model
from musictool.inference.mt3_transcription import MT3Transcriber, _readings
from musictool.inference.transcription import Sound, Transcription
from musictool.symbolic.schemes.mt3 import END
from musictool.symbolic.schemes.mt3_grammar import tables
from tests.small_models import SMALL_MT3, install_small_mt3

SEGMENT = SMALL_MT3.segment_samples


@dataclass
class Reader:
    """Sound in memory as an audio file is read; `error` comes after its last block."""

    samples: np.ndarray
    error: InputError | None = None
    rate_hz: int = 16_000
    channels: int = 1
    source_sha256: str = "00"
    is_truncated: bool = False

    @property
    def duration_seconds(self) -> float:
        return len(self.samples) / self.rate_hz

    def blocks(self, frames=None):
        yield from (block[:, None] for block in np.array_split(self.samples, 7) if len(block))
        if self.error is not None:
            raise self.error


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_small_mt3(home)
    return Store(home)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def sound(name: str, samples: np.ndarray, error: InputError | None = None) -> Sound:
    return Sound(name, lambda: nullcontext(Reader(samples, error)))


def segments(transcriber: MT3Transcriber, samples: np.ndarray, reading: int = 0) -> list[list[int]]:
    (result,) = ([ids.tolist() for ids in piece.segments(reading)] for piece in transcriber.run([sound("x", samples)]))
    return result


def test_the_second_reading_is_the_first_of_sound_half_a_segment_later(store):
    samples = noise(3 * SEGMENT + 5000)
    steady = MT3Transcriber(load_model("mt3", store=store), Transcription(is_steady=True))
    later = np.concatenate([np.zeros(SEGMENT // 2, np.float32), samples])
    assert segments(steady, samples, reading=1) == segments(steady, later, reading=0)


@pytest.mark.parametrize("halves", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("rest", [0, 3])
def test_readings_hold_every_sample_once_each(halves, rest):
    samples = np.arange(1, 8 * (halves - 1) + (rest or 8) + 1, dtype=np.float32)
    found: dict[int, list[np.ndarray]] = {0: [], 1: []}
    for reading, part in _readings([samples], 16, 2):
        found[reading].append(part)
    first, second = (np.concatenate(parts) for parts in found.values())
    assert first.tolist() == samples.tolist()
    assert second.tolist() == [*np.zeros(8), *samples]
    assert all(len(part) == 16 for parts in found.values() for part in parts[:-1])


def test_frames_after_the_end_of_the_sound_are_zero(store):
    transcriber = MT3Transcriber(load_model("mt3", store=store), Transcription())
    features = transcriber._features([np.ones(128 * 10, np.float32), np.ones(SEGMENT, np.float32)])
    assert features.shape == (2, SMALL_MT3.segment_frames, 512)
    assert (features[0, 10:] == 0).all()
    assert (features[0, :10] != 0).all()
    assert (features[1] != 0).all()


def test_steady_and_pinned_readings_obey_the_grammar_and_the_published_decode_is_free(store):
    samples = noise(4 * SEGMENT)
    allowed, following = tables()

    def obeys(ids: list[int]) -> bool:
        state = 0
        for id in ids[:-1]:  # a sequence that was cut off is ended by us
            if not allowed[state, id]:
                return False
            state = following[state, id]
        return ids[-1] == END

    for options in (Transcription(is_steady=True), Transcription(programs=frozenset({0}))):
        assert all(map(obeys, segments(MT3Transcriber(load_model("mt3", store=store), options), samples)))
    assert not all(map(obeys, segments(MT3Transcriber(load_model("mt3", store=store), Transcription()), samples)))


def test_an_error_in_the_middle_comes_after_the_segments_before_it(store):
    transcriber = MT3Transcriber(load_model("mt3", store=store), Transcription(rows=2))
    bad = sound("bad", noise(2 * SEGMENT), InputError("it breaks"))
    counts, errors = {}, {}
    for piece in transcriber.run([sound("a", noise(SEGMENT)), bad, sound("c", noise(SEGMENT))]):
        counts[piece.name] = 0
        try:
            piece.wait()
            for _ in piece.segments():
                counts[piece.name] += 1
        except InputError as error:
            errors[piece.name] = error.message
    assert counts == {"a": 2, "bad": 2, "c": 2}
    assert errors == {"bad": "it breaks"}


def test_a_sound_that_does_not_open_is_known_before_its_segments(store):
    def refuse():
        raise InputError("no sound")

    for piece in MT3Transcriber(load_model("mt3", store=store), Transcription()).run([Sound("x", refuse)]):
        with pytest.raises(InputError, match="no sound"):
            piece.wait()


def test_what_is_done_adds_up_to_the_sound(store):
    for is_steady in (False, True):
        done: list[float] = []
        transcriber = MT3Transcriber(load_model("mt3", store=store), Transcription(is_steady=is_steady))
        for piece in transcriber.run([sound("x", noise(5 * SEGMENT + 128))], done.append):
            piece.score()
            assert (piece.source_sha256, piece.rate_hz) == ("00", 16_000)
        assert sum(done) == pytest.approx(5 * SEGMENT / 16_000, abs=1.1)
