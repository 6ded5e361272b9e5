"""Groups of parameters, and what optimisers do with them."""

from __future__ import annotations

import pytest
import torch

from musictool.training.optimisers import build_optimiser, parameter_groups, set_rates
from musictool.training.recipe import Optimiser
from tests.training.toy import Toy, ToyConfig


def named_groups(model: torch.nn.Module) -> dict[str, tuple[bool, bool]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)]: (group["is_embedding"], group["decays"])
        for group in parameter_groups(model)
        for parameter in group["params"]
    }


def test_norms_biases_and_embeddings_do_not_decay():
    found = named_groups(Toy(ToyConfig()))
    decaying = {name for name, (_, decays) in found.items() if decays}
    assert decaying == {"inner.weight", "head.weight"}
    assert {name for name, (is_embedding, _) in found.items() if is_embedding} == {"position.weight"}
    assert len(found) == 7


def test_shared_and_frozen_parameters_are_counted_once_or_not_at_all():
    model = Toy(ToyConfig(width=8))
    model.head.weight = model.inner.weight
    model.norm.weight.requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model)) == 5


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "sgd"])
def test_rates_reach_each_group_and_decay_shrinks_what_decays(kind):
    model = Toy(ToyConfig())
    section = Optimiser(kind=kind, learning_rate=0.1, embedding_rate=0.0, weight_decay=0.5, betas=(0.0, 0.9))
    optimiser = build_optimiser(model, section)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_rates(optimiser, section, 0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    after = model.state_dict()
    for name in ("inner.weight", "head.weight"):
        assert torch.allclose(after[name], before[name] * (1 - 0.1 * 0.5 * 0.5), atol=1e-6)
    for name in ("position.weight", "norm.weight", "head.bias"):
        assert torch.equal(after[name], before[name])


def test_embeddings_have_the_common_rate_unless_they_have_their_own():
    model = Toy(ToyConfig())
    optimiser = build_optimiser(model, Optimiser())
    for own, expected in ((None, {0.1}), (0.3, {0.1, 0.15})):
        set_rates(optimiser, Optimiser(learning_rate=0.2, embedding_rate=own), 0.5)
        assert {round(group["lr"], 6) for group in optimiser.param_groups} == expected


def test_what_is_trained_along_has_a_rate_of_its_own():
    model = Toy(ToyConfig())
    trained = torch.nn.ModuleDict({"model": model, "judge": torch.nn.Linear(3, 3)})
    optimiser = build_optimiser(trained, Optimiser(), model)
    for companion_rate, expected in ((None, 0.5), (0.2, 0.1)):
        set_rates(optimiser, Optimiser(learning_rate=1.0, companion_rate=companion_rate), 0.5)
        rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
        assert all(rates[id(parameter)] == 0.5 for parameter in model.parameters())
        assert all(rates[id(parameter)] == expected for parameter in trained["judge"].parameters())
