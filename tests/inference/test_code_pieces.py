"""Pieces of codes of any length: windows that go on where the last one stopped, alone or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from musictool.inference.code_pieces import CodePlan, CodeWriter, Window
from musictool.inference.codes_generation import generate_codes
from musictool.inference.generation import Chunk, Piece, Planned, in_turn
from musictool.inference.generation_options import Drawing, Request
from musictool.models.personaljazz import PersonalJazz
from tests.commands.generators import SMALL_PERSONALJAZZ

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW = Window(20, 8)
FREE = Drawing(temperature=1.0, seed=5)
CODEBOOKS = SMALL_PERSONALJAZZ.codebooks
every_drawing = pytest.mark.parametrize("drawing", [Drawing(0), FREE, replace(FREE, guidance=2.0)])


@pytest.fixture(scope="module")
def model() -> PersonalJazz:
    """Its choices change from step to step."""
    model = PersonalJazz(SMALL_PERSONALJAZZ).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 2 * torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
    return model


def writer(model: PersonalJazz, window: Window = WINDOW, seen: list[int] | None = None) -> CodeWriter[Tensor]:
    """What makes pieces of styles; `seen` hears where windows begin."""

    def conditions(styles: Sequence[Tensor], first_frame: int) -> Tensor:
        if seen is not None:
            seen.append(first_frame)
        return torch.stack(list(styles))

    return CodeWriter(model, window, conditions, 100.0, torch.device("cpu"))


def style(number: int) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(512, generator=torch.Generator().manual_seed(number)), dim=0)


def piece(number: int, frames: int, prompt: np.ndarray | None = None) -> Piece:
    return Piece(number, Planned(Request(), CodePlan(frames, style(number)), prompt, {}))


def codes_of(chunks: Sequence[Chunk], index: int = 0) -> np.ndarray:
    own = [chunk for chunk in chunks if chunk.row == index]
    assert [chunk.is_last for chunk in own] == [False] * (len(own) - 1) + [True]
    return np.concatenate([chunk.tokens for chunk in own], axis=1)


def direct(model: PersonalJazz, number: int, frames: int, **options: Any) -> Tensor:
    return torch.stack(list(generate_codes(model, style(number)[None], frames, **options)), dim=-1)


@every_drawing
def test_a_window_goes_on_as_the_model_does_from_that_prompt(model, drawing):
    codes = codes_of(list(writer(model).write([piece(3, 50)], drawing)))
    assert codes.shape == (CODEBOOKS, 50)
    assert len(np.unique(codes)) > 8
    options = {"sampling": drawing.sampling(), "guidance": drawing.guidance}
    draws = [drawing.sampling().generator(3)]
    whole = direct(model, 3, 20, draws=draws, **options)
    for new in (12, 12, 6):
        made = direct(model, 3, new, prompt=whole[..., -8:], draws=draws, **options)
        whole = torch.cat([whole, made], dim=-1)
    np.testing.assert_array_equal(codes, whole[0].numpy())


@every_drawing
def test_a_piece_that_fits_a_window_is_what_the_model_says_at_once(model, drawing):
    codes = codes_of(list(writer(model).write([piece(0, 20)], drawing)))
    expected = direct(model, 0, 20, sampling=drawing.sampling(), guidance=drawing.guidance)
    np.testing.assert_array_equal(codes, expected[0].numpy())


def test_conditions_are_asked_for_where_each_window_begins(model):
    seen: list[int] = []
    list(writer(model, seen=seen).write([piece(0, 50)], Drawing(0)))
    assert seen == [0, 12, 24, 36]
    seen.clear()
    prompt = np.zeros((CODEBOOKS, 30), np.int32)
    list(writer(model, seen=seen).write([piece(0, 20, prompt)], Drawing(0)))
    assert seen == [22, 34]


@pytest.mark.parametrize("known", [1, 8, 30])
def test_a_piece_goes_on_from_the_end_of_its_prompt(model, known):
    prompt = np.random.default_rng(0).integers(0, 32, (CODEBOOKS, known)).astype(np.int32)
    codes = codes_of(list(writer(model).write([piece(2, 5, prompt)], FREE)))
    assert codes.shape == (CODEBOOKS, known + 5)
    np.testing.assert_array_equal(codes[:, :known], prompt)
    recent = torch.from_numpy(prompt[None, :, -8:]).long()
    draws = [FREE.sampling().generator(2)]
    expected = direct(model, 2, 5, prompt=recent, sampling=FREE.sampling(), draws=draws)
    np.testing.assert_array_equal(codes[:, known:], expected[0].numpy())


@every_drawing
def test_pieces_of_any_kind_side_by_side_are_what_each_is_alone(model, drawing):
    prompt = np.random.default_rng(0).integers(0, 32, (CODEBOOKS, 10)).astype(np.int32)
    pieces = [piece(0, 30), piece(1, 12), piece(2, 30), piece(3, 30, prompt), piece(7, 30, prompt)]
    together = list(writer(model).write(pieces, drawing))
    for index, one in enumerate(pieces):
        alone = codes_of(list(writer(model).write([one], drawing)))
        np.testing.assert_array_equal(codes_of(together, index), alone)
    assert not np.array_equal(codes_of(together, 0), codes_of(together, 2))


def test_chunks_come_while_more_is_made(model):
    steps = 0

    class Counting(PersonalJazz):
        def decode(self, *arguments: Any, **others: Any) -> Tensor:
            nonlocal steps
            steps += 1
            return super().decode(*arguments, **others)

    counting = Counting(SMALL_PERSONALJAZZ).eval()
    chunks = writer(counting, Window(100, 40)).write([piece(0, 100)], Drawing(0))
    for made in range(20, 101, 20):
        assert next(chunks).tokens.shape == (CODEBOOKS, 20)
        assert steps <= made + CODEBOOKS
    assert list(chunks) == []


def test_a_window_with_no_room_is_refused():
    with pytest.raises(ValueError, match="cannot keep 20"):
        Window(20, 20)
    assert Window.of(1500) == Window(1500, 600)
    assert Window.of(1) == Window(1, 0)


def test_pieces_side_by_side_are_read_in_turn():
    marks = [(1, "a"), (0, "b"), (2, "c"), (0, "d."), (2, "e."), (1, "f.")]
    made = []

    def chunks():
        for index, mark in marks:
            made.append(mark)
            yield Chunk(index, np.zeros(0, np.int32), mark.endswith("."), ord(mark[0]))

    read = []
    for own in in_turn(chunks(), 3):
        for chunk in own:
            read.append(chr(int(chunk.seconds)))
            if len(read) == 1:
                assert made == ["a", "b"]
    assert "".join(read) == "bdafce"
