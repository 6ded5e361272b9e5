"""Generating codes: what comes is what the model says of what came before, whole frames at once, and nothing twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from musictool.core.codebooks import Pattern, delay_pattern, flattened_pattern, parallel_pattern
from musictool.core.kv_cache import KVCache, Memory
from musictool.inference.codes_generation import generate_codes
from musictool.inference.sampling import Sampling
from musictool.models.musicgen import Conditions, MusicGen, MusicGenConfig
from musictool.models.musicgen_parts import TextEncoderConfig

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = TextEncoderConfig(vocabulary=20, width=8, heads=2, head_width=4, hidden=12, layers=1)
SMALL = MusicGenConfig(width=16, heads=2, hidden=32, layers=2, codebook_size=24, text=TEXT)
PATTERNS = {
    "delay": delay_pattern(4),
    "parallel": parallel_pattern(4),
    "flattened": flattened_pattern(4),
    "any": Pattern((0, 3, 1, 3), 2),
}
every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())


class Counting:
    """A model, and how many steps it has decoded."""

    def __init__(self, model: MusicGen) -> None:
        self._model = model
        self.pattern = model.pattern
        self.special_id = model.special_id
        self.steps = 0

    def parameters(self) -> Iterator[nn.Parameter]:
        return self._model.parameters()

    def start(self, conditions: Conditions, *, capacity: int, is_static: bool) -> tuple[KVCache, Memory | None]:
        return self._model.start(conditions, capacity=capacity, is_static=is_static)

    def with_and_without(self, conditions: Conditions) -> Conditions:
        return self._model.with_and_without(conditions)

    def decode(self, ids: Tensor, memory: Memory | None, *, cache: KVCache, positions: Tensor) -> Tensor:
        self.steps += ids.shape[-1]
        return self._model.decode(ids, memory, cache=cache, positions=positions)


def build(pattern: Pattern = PATTERNS["delay"]) -> MusicGen:
    """A model whose choices change from step to step."""
    generator = torch.Generator().manual_seed(1)
    model = MusicGen(SMALL).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = 2 * torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
    model.pattern = pattern
    return model


def text(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, TEXT.vocabulary, (rows, 5), generator=torch.Generator().manual_seed(seed))


def generated(model: MusicGen | Counting, conditions: Conditions, frames: int, **options: Any) -> Tensor:
    return torch.stack(list(generate_codes(model, conditions, frames, **options)), dim=-1)


@torch.inference_mode()
@every_pattern
def test_greedy_codes_are_the_likeliest_of_a_full_forward(pattern):
    model = build(pattern)
    conditions = model.encode_text(text(2))
    codes = generated(model, conditions, 12)
    assert codes.shape == (2, 4, 12)
    assert all(len(row.unique()) > 4 for row in codes)
    ids = pattern.spread(codes, model.special_id)
    said = model(ids[..., :-1], conditions).argmax(-1)
    held = torch.where(pattern.mask(12)[:, 1:], said, model.special_id)
    assert torch.equal(held, ids[..., 1:])


@torch.inference_mode()
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("known", [1, 3, 8])
@every_pattern
def test_a_piece_goes_on_from_its_beginning_as_it_did(pattern, known, guidance):
    model = build(pattern)
    conditions = model.encode_text(text(2))
    whole = generated(model, conditions, 12, guidance=guidance)
    rest = generated(model, conditions, 12 - known, prompt=whole[..., :known], guidance=guidance)
    assert torch.equal(rest, whole[..., known:])


@torch.inference_mode()
@every_pattern
def test_a_frame_comes_as_soon_as_it_is_whole(pattern):
    model = Counting(build(pattern))
    conditions = build(pattern).encode_text(text(1))
    frames = generate_codes(model, conditions, 6)
    for number, _ in enumerate(frames, 1):
        assert model.steps + 1 == pattern.steps(number)
    assert model.steps + 1 == pattern.steps(6)


@torch.inference_mode()
@every_pattern
def test_the_end_changes_only_frames_that_reach_beyond_it(pattern):
    model = build(pattern)
    conditions = model.encode_text(text(1))
    sure = pattern.frames_ready(pattern.first_step(7))
    assert sure >= 4
    assert torch.equal(generated(model, conditions, 12)[..., :sure], generated(model, conditions, 7)[..., :sure])


@torch.inference_mode()
def test_no_frames_are_none():
    model = Counting(build())
    assert list(generate_codes(model, build().encode_text(text(1)), 0)) == []
    assert model.steps == 0


@torch.inference_mode()
def test_the_same_seed_gives_the_same_codes_and_another_gives_others():
    model = build()
    conditions = model.encode_text(text(2))
    drawn = [generated(model, conditions, 10, sampling=Sampling(1.0, seed=seed)) for seed in (4, 4, 5)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0][0], drawn[0][1])


@torch.inference_mode()
def test_codebooks_of_a_step_draw_on_their_own():
    model = build(parallel_pattern(4))
    for parameter in model.heads.parameters():
        parameter.data.zero_()
    codes = generated(model, model.encode_text(text(1)), 30, sampling=Sampling(1.0))
    assert len({tuple(row.tolist()) for row in codes[0]}) == 4


@torch.inference_mode()
def test_guidance_goes_from_no_conditions_to_conditions_and_beyond():
    model = build()
    one, other = (model.encode_text(text(1, seed)) for seed in (0, 1))
    at = {scale: generated(model, one, 12, guidance=scale) for scale in (0.0, 1.0, 1.000001, 6.0)}
    assert torch.equal(at[0.0], generated(model, other, 12, guidance=0.0))
    assert torch.equal(at[0.0], generated(model, Conditions(torch.zeros_like(one.states)), 12))
    assert torch.equal(at[1.0], at[1.000001])
    assert len({tuple(codes.flatten().tolist()) for codes in at.values()}) == 3
