"""Scheduled sampling: what is read is the teacher's or the model's own, step by step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from musictool.training.scheduled_sampling import mix_in_predictions
from tests.small_code_models import SMALL_PERSONALJAZZ, SMALL_SAXGPT, random_backings, random_code_model, random_styles

SPECIAL = SMALL_SAXGPT.special_id
CASES = {
    "personaljazz": (SMALL_PERSONALJAZZ, random_styles(3)),
    "saxgpt": (SMALL_SAXGPT, random_backings(20, 8, 3)),
}


def taught_steps(rows: int = 3, frames: int = 40) -> Tensor:
    model = random_code_model(SMALL_SAXGPT)
    codes = torch.randint(0, SPECIAL, (rows, 8, frames), generator=torch.Generator().manual_seed(2))
    codes[0, :, 30:] = SPECIAL  # a shorter piece, and what stands for the rest of it
    return model.pattern.spread(codes, SPECIAL)


def mixed(name: str, probability: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """What the teacher says, what the model would, and the mixture, int64 [B, K, T] each."""
    config, conditions = CASES[name]
    model, ids = random_code_model(config), taught_steps()
    generator = torch.Generator().manual_seed(seed)
    result = mix_in_predictions(
        model, ids, conditions, special_id=SPECIAL, probability=probability, generator=generator
    )
    with torch.no_grad():
        said = torch.cat([ids[..., :1], model(ids, conditions).argmax(-1)[..., :-1]], dim=-1)
    return ids, said, result


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("probability", [0.25, 0.6, 1.0])
def test_each_step_is_the_teachers_or_the_models_own(name, probability):
    ids, said, result = mixed(name, probability)
    is_code = ids != SPECIAL
    assert torch.equal(result[~is_code], ids[~is_code])
    is_own = ((result == said) | ~is_code).all(1)
    is_taught = ((result == ids) | ~is_code).all(1)
    assert (is_own | is_taught).all()
    share = is_own[is_code.any(1)].float().mean().item()
    assert share == pytest.approx(probability, abs=0.12)
    assert (is_own & is_taught & is_code.any(1)).sum() < 5  # else the shares say nothing


def test_with_no_probability_the_model_is_not_run():
    ids = taught_steps()

    def unwanted(ids: Tensor, conditions: Tensor) -> Tensor:
        raise AssertionError

    assert mix_in_predictions(unwanted, ids, ids, special_id=SPECIAL, probability=0.0) is ids


def test_the_same_generator_exchanges_the_same_steps():
    _, _, result = mixed("saxgpt", 0.5)
    assert torch.equal(result, mixed("saxgpt", 0.5)[2])
    assert not torch.equal(result, mixed("saxgpt", 0.5, seed=1)[2])


def test_nothing_is_learned_from_the_first_pass():
    config, conditions = CASES["saxgpt"]
    model, ids = random_code_model(config), taught_steps()
    passes = 0

    def counted(ids: Tensor, conditions: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        assert not torch.is_grad_enabled()
        return model(ids, conditions)

    reading = mix_in_predictions(counted, ids, conditions, special_id=SPECIAL, probability=0.5)
    assert passes == 1
    assert not torch.equal(reading, ids)
