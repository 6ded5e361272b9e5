"""The model that a recipe asks for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from musictool.checkpoints.native import read_facts
from musictool.checkpoints.store import Store
from musictool.errors import MissingError, UsageError
from musictool.training.building import build_for, plan_model
from musictool.training.recipe import Recipe, Run
from tests.small_models import SMALL_MT3, install_codec, install_small_mt3


def recipe_of(**model: object) -> Recipe:
    return Recipe(task="mt3", model=model, data=None, loss=None)


def test_a_preset_and_values_that_differ_from_it(tmp_path):
    plan = plan_model(recipe_of(preset="mt3", width=32, front_end={"bins": 100}), ("mt3",), Store(tmp_path))
    assert (plan.preset, plan.config.width, plan.config.hidden, plan.config.front_end.bins) == ("mt3", 32, 1024, 100)
    assert plan_model(recipe_of(), ("mt3",), Store(tmp_path)).config.width == 512  # the family's own numbers


def test_a_model_that_is_there_brings_its_numbers_and_its_weights(tmp_path):
    install_small_mt3(tmp_path)
    store = Store(tmp_path)
    plan = plan_model(recipe_of(**{"from": "mt3", "dropout": 0.5}), ("mt3",), store)
    assert (plan.config.width, plan.config.dropout) == (SMALL_MT3.width, 0.5)
    model = plan.build(store)
    assert model.training
    again = plan.build(store)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    wider = plan_model(recipe_of(**{"from": "mt3", "width": 32}), ("mt3",), store)
    with pytest.raises(UsageError, match="the recipe's model has other shapes"):
        wider.build(store)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        ({"preset": "mt4"}, UsageError, "no such preset"),
        ({"widht": 3}, UsageError, "unknown key 'widht'"),
        ({"preset": 3}, UsageError, "'model.preset' is not a text"),
        ({"from": "nothing"}, MissingError, "no model named 'nothing'"),
        ({"preset": "note-tagger"}, UsageError, "trains models of family mt3"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, model, error, message):
    with pytest.raises(error, match=message):
        plan_model(recipe_of(**model), ("mt3",), Store(tmp_path))


@pytest.mark.parametrize(
    ("trains", "changes", "keeps"),
    [
        (("decoder",), {}, True),
        (("decoder.layers.0",), {}, True),
        (("decoder", "encoder"), {}, False),
        ((), {}, False),
        (("decoder",), {"adapter": "an-adapter"}, False),
        (("decoder",), {"pad_mode": "reflect"}, False),
    ],
)
def test_codes_stay_a_codecs_where_nothing_else_can_differ_than_how_it_sounds(tmp_path, trains, changes, keeps):
    codec = install_codec(tmp_path)
    recipe = replace(recipe_of(**{"from": "codec-24khz", **changes}), run=Run(trains=trains))
    kept = plan_model(recipe, ("codec",), Store(tmp_path)).inherited
    assert kept == ({"codes_sha256": read_facts(codec).weights_sha256} if keeps else {})


def test_gradient_checkpoints_change_no_gradient(tmp_path):
    gradients = []
    install_small_mt3(tmp_path)
    for is_checkpointed in (False, True):
        recipe = replace(recipe_of(**{"from": "mt3"}), run=Run(checkpoint_gradients=is_checkpointed))
        model = build_for(recipe, plan_model(recipe, ("mt3",), Store(tmp_path)), Store(tmp_path))
        torch.manual_seed(0)
        model(torch.rand(1, 8, SMALL_MT3.front_end.bins), torch.tensor([[0, 5, 7]])).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert model.encoder.checkpoints_gradients
    assert model.decoder.checkpoints_gradients
