"""Patterns of codes: the published one, what all of them have in common; tables and heads of several codebooks."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from musictool.core.codebooks import (
    CodebookEmbedding,
    CodebookHeads,
    Pattern,
    delay_pattern,
    flattened_pattern,
    parallel_pattern,
)

SPECIAL = 99
PATTERNS = {
    "delay": delay_pattern(4),
    "delay of one": delay_pattern(1),
    "stereo": delay_pattern(8, 2),
    "parallel": parallel_pattern(3),
    "flattened": flattened_pattern(4),
    "any": Pattern((0, 5, 1), 2),
}
every_pattern = pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())


def random_codes(pattern: Pattern, frames: int, rows: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randint(0, SPECIAL, (rows, pattern.codebooks, frames), generator=generator)


# ------------------------------------------------------------------------------------------------- against MusicGen's


def their_mask(codes: Tensor, steps: int, channels: int) -> Tensor:
    """What `transformers` holds every step to, [B, K, S]: -1 where its model is free to choose."""
    modeling = pytest.importorskip("transformers.models.musicgen.modeling_musicgen")
    rows, codebooks, _ = codes.shape
    decoder = SimpleNamespace(num_codebooks=codebooks, config=SimpleNamespace(audio_channels=channels))
    start = codes.new_full((rows, codebooks, 1), SPECIAL)
    prompt = torch.cat([start, codes], dim=-1).flatten(0, 1)
    build = modeling.MusicgenForCausalLM.build_delay_pattern_mask
    return build(decoder, prompt, SPECIAL, steps)[1].unflatten(0, (rows, codebooks))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("seed", range(30))
def test_the_delay_pattern_is_that_of_transformers(seed, channels):
    chooser = random.Random(seed)
    levels = chooser.randint(1, 6)
    pattern = delay_pattern(levels * channels, channels)
    frames = chooser.randint(max(1, levels - 1), 3 * levels)  # with fewer, transformers delays nothing
    known = chooser.randint(0, frames)
    codes = random_codes(pattern, frames)
    free = torch.cat([codes[..., :known], torch.full_like(codes[..., known:], -1)], dim=-1)
    theirs = their_mask(codes[..., :known], pattern.steps(frames), channels)
    assert torch.equal(pattern.spread(free, SPECIAL), theirs)
    assert torch.equal(pattern.mask(frames), (pattern.spread(codes, SPECIAL) != SPECIAL)[0])

    from transformers.models.musicgen.modeling_musicgen import MusicgenForCausalLM

    said = torch.randint(0, SPECIAL, theirs.shape)
    held = MusicgenForCausalLM.apply_delay_pattern_mask(said, theirs)
    kept = torch.where(torch.arange(frames) < known, codes, pattern.gather(said))
    assert torch.equal(pattern.gather(held), kept)
    assert torch.equal(held, pattern.spread(kept, SPECIAL))


@pytest.mark.parametrize("levels", [3, 4, 6])
def test_fewer_frames_than_codebooks_are_delayed_too(levels):
    pattern = delay_pattern(levels)
    for frames in range(1, levels - 1):
        codes = random_codes(pattern, frames)
        ids = pattern.spread(codes, SPECIAL)
        assert ids.shape[-1] == frames + levels
        longer = pattern.spread(nn.functional.pad(codes, (0, levels), value=SPECIAL), SPECIAL)
        assert torch.equal(ids, longer[..., : ids.shape[-1]])
        assert torch.equal(pattern.gather(ids), codes)
        assert (their_mask(codes[..., :0], ids.shape[-1], 1) == -1).all()


# ---------------------------------------------------------------------------------------------------- of any pattern


@every_pattern
@pytest.mark.parametrize("frames", [0, 1, 2, 7])
def test_gathering_undoes_spreading(pattern, frames):
    codes = random_codes(pattern, frames)
    ids = pattern.spread(codes, SPECIAL)
    assert ids.shape == (2, pattern.codebooks, pattern.steps(frames))
    assert torch.equal(pattern.gather(ids), codes)
    assert (ids[..., 0] == SPECIAL).all()
    assert int((ids != SPECIAL).sum()) == codes.numel()
    assert torch.equal(pattern.mask(frames).expand_as(ids), ids != SPECIAL)


@every_pattern
def test_a_frame_is_ready_with_the_last_of_its_codes(pattern):
    frames = 5
    ids = pattern.spread(torch.arange(frames).expand(1, pattern.codebooks, -1), -1)
    for steps in range(ids.shape[-1] + 1):
        counts = torch.bincount(ids[..., :steps][ids[..., :steps] >= 0], minlength=frames)
        assert pattern.frames_ready(steps) == int((counts == pattern.codebooks).sum())


@every_pattern
def test_a_step_tells_whose_codes_it_holds(pattern):
    frames = 9
    ids = pattern.spread(torch.arange(frames).expand(1, pattern.codebooks, -1), -1)[0]
    for step in range(1, pattern.steps(frames)):
        told = [frame if 0 <= frame < frames else -1 for frame in pattern.frames_at(step)]
        assert told == ids[:, step].tolist()
    for frame in range(frames):
        first = pattern.first_step(frame)
        assert (ids[:, first] == frame).any()
        assert not (ids[:, :first] == frame).any()


def test_a_flattened_pattern_has_one_code_a_step_and_a_parallel_one_all():
    assert flattened_pattern(4).mask(3)[:, 1:].sum(0).tolist() == [1] * 12
    assert parallel_pattern(4).mask(3)[:, 1:].sum(0).tolist() == [4] * 3


@pytest.mark.parametrize(("offsets", "stride"), [((), 1), ((1, 2), 1), ((-1, 0), 1), ((0, 1), 0)])
def test_a_pattern_that_is_none_is_refused(offsets, stride):
    with pytest.raises(ValueError, match="pattern"):
        Pattern(offsets, stride)


# --------------------------------------------------------------------------------------------------- tables and heads


def test_a_step_is_read_as_the_sum_of_its_codebooks_entries():
    embedding = CodebookEmbedding(3, 7, 5)
    ids = torch.randint(0, 7, (2, 3, 6))
    tables = embedding.table.weight.chunk(3)
    expected = sum(table[ids[:, codebook]] for codebook, table in enumerate(tables))
    torch.testing.assert_close(embedding(ids), expected)


def test_each_codebook_has_a_head_of_its_own():
    heads = CodebookHeads(5, 3, 7)
    x = torch.randn(2, 6, 5)
    expected = torch.stack([x @ weight.T for weight in heads.linear.weight.chunk(3)], dim=1)
    torch.testing.assert_close(heads(x), expected)
