"""What windows write: music that can be played, in time, whoever they are written with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from musictool.core.kv_cache import KVCache
from musictool.inference import piano_writing
from musictool.inference.piano_writing import ENDING_FRAMES, write_windows
from musictool.inference.sampling import Sampling
from musictool.models.tatumflow_parts import LEVELS, Steps, Style, keys_of
from musictool.symbolic.piano_ids import FRAME_TICKS, score_of_ids, ticks_of_ids
from musictool.symbolic.schemes.tatum import VOCABULARY
from tests.small_models import SMALL_TATUMFLOW, random_tatumflow

DRAWING = Sampling(temperature=1.0, top_p=0.98)
LIKELIEST = Sampling()
STYLE = Style(
    torch.randn(1, len(LEVELS), SMALL_TATUMFLOW.style_width, generator=torch.Generator().manual_seed(3)),
    torch.tensor([[True, False, False]]),
)


@pytest.fixture(scope="module")
def model():
    return random_tatumflow()


@pytest.fixture
def said(monkeypatch) -> list[np.ndarray]:
    """The ids of every window that is written, without what fills a row up."""
    seen = []

    def read(ids):
        seen.append(ids[ids != SMALL_TATUMFLOW.pad_id])
        return score_of_ids(ids)

    monkeypatch.setattr(piano_writing, "score_of_ids", read)
    return seen


class Parrot:
    """A model that would always say the same ids, the likelier the earlier they stand in a list of names."""

    config = SMALL_TATUMFLOW

    def __init__(self, *names: str) -> None:
        self._logits = torch.zeros(1, 1, len(VOCABULARY))
        self._logits[..., VOCABULARY.ids(list(names))] = torch.arange(len(names), 0, -1).float() + 10
        self.decoder = self
        self.layers = SimpleNamespace(new_cache=lambda rows: KVCache(1, rows, 1, 1))

    def read(self, latents, visible, style):
        return latents

    def __call__(self, steps, keys, read, *, cache, positions):
        return self._logits.expand(len(steps.ids), -1, -1)


def write(model, frames: list[int], sampling: Sampling = DRAWING, latents: torch.Tensor | None = None):
    """Windows of random latents, or of the first rows of given ones."""
    if latents is None:
        latents = torch.randn(len(frames), max(frames), 8, generator=torch.Generator().manual_seed(0))
    visible = torch.arange(latents.shape[1]) < torch.tensor(frames)[:, None]
    generators = [sampling.generator(number) for number in range(len(frames))]
    return write_windows(model, latents, visible, STYLE, sampling, generators)


def rows(piano):
    columns = piano.onset, piano.offset, piano.pitch, piano.velocity
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_written_can_be_played(model, said, seed):
    latents = torch.randn(24, 32, 8, generator=torch.Generator().manual_seed(seed))
    write(model, [32] * 21 + [20, 9, 1], latents=latents)
    for ids in said:
        held: dict[int, int] = {}
        is_pedal_down = False
        before = ""
        for id, tick in zip(ids.tolist(), ticks_of_ids(ids).tolist(), strict=True):
            name = VOCABULARY.names(np.array([id]))[0]
            kind, _, value = name.partition("_")
            assert kind in ("Time", "NoteOn", "NoteOff", "Velocity", "Pedal", "End")
            if kind == "NoteOn":
                assert 21 <= int(value) <= 108
                assert int(value) not in held
                held[int(value)] = tick
            elif kind == "NoteOff":
                assert held.pop(int(value)) < tick
            elif kind == "Pedal":
                assert is_pedal_down == (value == "0")
                is_pedal_down = value == "1"
            elif kind == "Velocity":
                assert not before.startswith("Velocity")
            before = name
    assert {VOCABULARY.names(ids[-1:])[0].partition("_")[0] for ids in said} <= {"Time", "End"}
    assert sum(len(ids) for ids in said) > 400


def test_windows_say_the_same_alone_and_together(model):
    frames = [32, 7, 20, 31]
    latents = torch.randn(4, 32, 8, generator=torch.Generator().manual_seed(0))
    together = write(model, frames, latents=latents)
    for row, count in enumerate(frames):
        visible = torch.ones(1, count, dtype=torch.bool)
        generators = [DRAWING.generator(row)]
        (alone,) = write_windows(model, latents[row : row + 1, :count], visible, STYLE, DRAWING, generators)
        assert rows(alone) == rows(together[row])
        assert alone.pedal_onset.tolist() == together[row].pedal_onset.tolist()


def test_the_same_latents_are_written_otherwise_in_another_style(model):
    latents, visible = torch.zeros(1, 32, 8), torch.ones(1, 32, dtype=torch.bool)
    others = STYLE, STYLE._replace(values=-STYLE.values), STYLE._replace(is_known=~STYLE.is_known)
    written = [write_windows(model, latents, visible, each, LIKELIEST, [LIKELIEST.generator(0)])[0] for each in others]
    one, two, three = map(rows, written)
    assert one != two != three != one


def test_the_same_seed_writes_the_same_and_another_does_not(model):
    assert [rows(p) for p in write(model, [32, 32])] == [rows(p) for p in write(model, [32, 32])]
    other = Sampling(temperature=1.0, top_p=0.98, seed=1)
    assert [rows(p) for p in write(model, [32, 32])] != [rows(p) for p in write(model, [32, 32], other)]
    first, second = write(model, [32, 32], latents=torch.zeros(2, 32, 8))
    assert rows(first) != rows(second)


def test_latents_decide_what_is_written(model):
    latents = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    first, second = write(model, [32, 32], LIKELIEST, latents)
    assert rows(first) != rows(second)


def test_nothing_is_played_behind_the_end_of_a_window(model):
    for frames, piano in zip([32, 7, 1], write(model, [32, 7, 1]), strict=True):
        assert (piano.offset <= frames * FRAME_TICKS).all()
        assert (piano.pedal_offset <= frames * FRAME_TICKS).all()


def test_a_chatterbox_is_kept_to_as_many_ids_as_the_model_was_taught_and_to_all_of_its_time(said):
    keys = [f"NoteOn_{pitch}" for pitch in range(21, 109)] + [f"NoteOff_{pitch}" for pitch in range(21, 109)]
    write(Parrot(*keys, "Velocity_3", "Velocity_4", "Pedal_0", "Pedal_1", "Time_2"), [32], LIKELIEST)
    (ids,) = said
    ticks = ticks_of_ids(ids)
    is_event = np.diff(ticks, prepend=-1) == 0
    assert 0.9 < is_event.sum() / SMALL_TATUMFLOW.tokens_max < 1.3
    assert ticks[is_event].max() > 0.9 * 32 * FRAME_TICKS
    assert np.diff(ticks[is_event]).max() < 8 * FRAME_TICKS


def test_a_key_is_released_before_it_is_pressed_again(said):
    (piano,) = write(Parrot("NoteOn_60", "NoteOff_60", "Time_5"), [8], LIKELIEST)
    assert VOCABULARY.names(said[0][:6]) == ["NoteOn_60", "Time_5", "NoteOff_60", "NoteOn_60", "Time_5", "NoteOff_60"]
    assert piano.onset.tolist() == list(range(0, 200, 5))
    assert piano.offset.tolist() == list(range(5, 201, 5))


def test_a_window_may_say_only_near_its_end_that_nothing_more_comes(said):
    write(Parrot("End", "Time_1"), [20], LIKELIEST)
    assert ticks_of_ids(said[0])[-1] == (20 - ENDING_FRAMES) * FRAME_TICKS


def test_keys_that_are_down_at_the_end_are_released_there():
    (piano,) = write(Parrot("NoteOn_60", "NoteOn_64", "Time_100"), [6], LIKELIEST)
    assert rows(piano) == [(0, 150, 60, 66), (0, 150, 64, 66)]


def test_the_decoder_is_told_of_the_keys_as_it_was_in_training(model, said, monkeypatch):
    told = []
    forward = model.decoder.forward

    def listening(steps, keys, *rest, **more):
        told.append(keys[0])
        return forward(steps, keys, *rest, **more)

    monkeypatch.setattr(model.decoder, "forward", listening)
    write(model, [32])
    ids = np.append(SMALL_TATUMFLOW.start_id, said[0])[: len(told)]
    steps = Steps(torch.from_numpy(ids.astype(np.int64))[None], torch.from_numpy(ticks_of_ids(ids))[None])
    assert torch.equal(torch.cat(told), keys_of(steps, SMALL_TATUMFLOW)[0])


def test_no_frames_give_no_notes(model):
    assert [len(piano) for piano in write(model, [4, 0])][1] == 0
