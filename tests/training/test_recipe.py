"""Recipes: read strictly, written whole, compared by name."""

from __future__ import annotations

import pytest

from musictool.config import load_toml
from musictool.errors import UsageError
from musictool.training import recipe as recipes
from musictool.training.recipe import (
    build_recipe,
    changed_values,
    load_finetuning_table,
    load_preset_table,
    recipe_to_toml,
)
from tests.training import toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch.setitem)


CURVE = {"value": "data.noise.level", "kind": "linear", "points": [[0, 0.1], [10, 1]]}
FULL = {
    "task": "toy",
    "model": {"width": 8},
    "data": {"contrast": 2, "noise": {"level": 0.3}},
    "optimiser": {"embedding_rate": 0.5, "betas": [0.8, 0.9]},
    "curriculum": [CURVE],
}


def test_a_recipe_written_out_is_the_same_recipe(tmp_path):
    recipe = build_recipe(FULL, ["run.steps=7", "run.best=accuracy"])
    (tmp_path / "recipe.toml").write_text(recipe_to_toml(recipe))
    again = build_recipe(load_toml(tmp_path / "recipe.toml"))
    assert again == recipe
    assert (again.data.contrast, again.data.noise.level, again.run.steps) == (2.0, 0.3, 7)
    assert again.at(5).data.noise.level == pytest.approx(0.55)


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("run.sed=1", "unknown key 'run.sed'", "run.seed"),
        ("data.contrats=1", "unknown key 'data.contrats'", "data.contrast"),
        ("data.noise.levle=1", "unknown key 'data.noise.levle'", "data.noise.level"),
        ("optimizer.kind=sgd", "unknown key 'optimizer'", "optimiser"),
        ("optimiser.kind=adam", "'optimiser.kind' is 'adam'", "adamw"),
        ("task=toi", "no such task", "toy"),
        ("run.steps=0", "'run': steps is at least 1", ""),
        ("run.steps=few", "'run.steps' is 'few', not a whole number", ""),
        ('curriculum=[{value="data.contrats", points=[[0, 1.0]]}]', "unknown key 'data.contrats'", "contrast"),
        ('curriculum=[{value="run.steps", points=[[0, 1]]}]', "'run.steps' has no curriculum", "data, loss"),
        ('curriculum=[{value="data.contrast", points=[[0, "a"]]}]', "'data.contrast' is 'a', not a number", ""),
        ('curriculum=[{value="data.contrast", points=[[5, 1.0], [5, 2.0]]}]', "do not ascend", ""),
        ('curriculum=[{value="data.train", kind="linear", points=[[0, ["a"]]]}]', "no line between", ""),
    ],
)
def test_what_does_not_fit_is_refused_by_name_with_the_nearest_match(override, message, hint):
    with pytest.raises(UsageError, match=message) as caught:
        build_recipe(FULL, [override], "mine.toml")
    assert hint in caught.value.hint
    assert "mine.toml" in caught.value.context


def test_sections_of_a_task_that_must_be_given_are_asked_for(monkeypatch):
    class NeedsData(toy.ToyTask):
        data_class = recipes.Curve  # has fields without defaults

    monkeypatch.setattr(toy, "ToyTask", NeedsData)
    with pytest.raises(UsageError, match="missing key 'data'"):
        build_recipe({"task": "toy"})


def test_only_what_leaves_the_weights_alone_may_change():
    old = build_recipe(FULL)
    free = ["run.steps=9", "run.log_every=1", "run.save_every=2", "run.save_minutes=0", "run.keep=9", "run.workers=0"]
    assert changed_values(old, build_recipe(FULL, free)) == []
    bound = ["run.seed=1", "data.noise.level=9", "optimiser.embedding_rate=1", "run.evaluate_every=3", "model.width=2"]
    assert sorted(changed_values(old, build_recipe(FULL, bound))) == sorted(name.partition("=")[0] for name in bound)


@pytest.fixture
def presets(tmp_path, monkeypatch):
    monkeypatch.setattr(recipes, "_PRESET_FOLDER", tmp_path)
    return tmp_path


def test_a_preset_is_a_recipe_and_says_what_finetuning_changes(presets):
    (presets / "toy.toml").write_text('task = "toy"\n[optimiser]\nlearning_rate = 0.5\n[finetune.run]\nsteps = 5\n')
    assert build_recipe(load_preset_table("toy")).run.steps == 1000
    recipe = build_recipe(load_finetuning_table("toy"))
    assert (recipe.run.steps, recipe.optimiser.learning_rate) == (5, 0.5)
    with pytest.raises(UsageError, match="no such training preset"):
        load_preset_table("tyo")
    with pytest.raises(UsageError, match="no recipe for models of family tyo"):
        load_finetuning_table("tyo")


def test_a_preset_that_says_nothing_is_finetuned_at_a_tenth_of_its_rate(presets):
    (presets / "toy.toml").write_text('task = "toy"\n[optimiser]\nlearning_rate = 0.5\n')
    assert build_recipe(load_finetuning_table("toy")).optimiser.learning_rate == pytest.approx(0.05)


@pytest.mark.parametrize("name", recipes.preset_names())
def test_every_recipe_that_ships_is_one(name):
    build_recipe(load_preset_table(name), where=name)
