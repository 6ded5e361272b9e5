"""Hidden stretches of the past: whole, as many as asked, and not the same ones in each row."""

from __future__ import annotations

import pytest
import torch

from musictool.training.hidden_past import hide_stretches

SPECIAL = 99
IDS = torch.arange(64 * 3 * 400).view(64, 3, 400) % SPECIAL


def hidden(share: float, steps: int = 20, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return hide_stretches(IDS, special_id=SPECIAL, share=share, steps=steps, generator=generator)


@pytest.mark.parametrize(("share", "steps"), [(0.3, 20), (0.5, 7), (1.0, 150)])
def test_as_many_steps_are_hidden_in_all_codebooks_and_the_others_left_alone(share, steps):
    read = hidden(share, steps)
    is_hidden = read == SPECIAL
    assert torch.equal(is_hidden.any(1), is_hidden.all(1))
    assert torch.equal(read[~is_hidden], IDS[~is_hidden])
    assert is_hidden.float().mean().item() == pytest.approx(share, abs=0.05)


def test_stretches_are_whole_and_begin_elsewhere_in_each_row():
    is_hidden = (hidden(0.5) == SPECIAL)[:, 0].int()
    turns = is_hidden.diff(dim=1).bool()
    places = [(row.nonzero().flatten() + 1) % 20 for row in turns]
    assert all(len(place.unique()) == 1 for place in places)
    assert len({int(place[0]) for place in places}) > 10
    assert 0.4 < turns.sum() / (64 * 400 / 20) < 0.6


def test_the_seed_decides_and_nothing_is_drawn_where_nothing_is_hidden():
    assert torch.equal(hidden(0.5), hidden(0.5))
    assert not torch.equal(hidden(0.5), hidden(0.5, seed=1))
    state = torch.get_rng_state()
    assert hide_stretches(IDS, special_id=SPECIAL, share=0.0, steps=20) is IDS
    assert torch.equal(torch.get_rng_state(), state)
