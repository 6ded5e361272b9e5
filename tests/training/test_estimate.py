"""What a recipe takes, against what it is seen to take."""

from __future__ import annotations

import pytest
import torch

from musictool.checkpoints.store import Store
from musictool.models.registry import build_model
from musictool.training.estimate import measure_activations, measure_sizes
from musictool.training.optimisers import build_optimiser
from musictool.training.recipe import Recipe, build_recipe
from musictool.training.session import plan_task
from tests.training import toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch.setitem)


def recipe_of(*settings: str) -> Recipe:
    return build_recipe({"task": "toy", "model": {"width": 24}}, settings)


@pytest.mark.parametrize("kind", ["adamw", "adafactor", "sgd"])
def test_state_is_what_the_optimiser_then_keeps(tmp_path, kind):
    recipe = recipe_of(f"optimiser.kind={kind}")
    plan, _ = plan_task(recipe, Store(tmp_path))
    model = build_model(plan.config)
    optimiser = build_optimiser(model, recipe.optimiser)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    states = optimiser.state.values()
    kept = sum(v.numel() for state in states for v in state.values() if torch.is_tensor(v) and v.ndim)
    sizes = measure_sizes(recipe, model)
    assert sizes.state == kept
    assert sizes.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations_of_a_batch_follow_from_one_and_two_examples(tmp_path, precision):
    recipe = recipe_of("run.batch_size=16", f"run.precision={precision}")
    plan, task = plan_task(recipe, Store(tmp_path))
    model = build_model(plan.config)
    kept = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = task.collate([task.example(0, recipe.data)] * 16)
    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = task.loss(model, batch, recipe.loss)[0]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert measure_activations(recipe, model, task) == sum(size for at, size in kept.items() if at not in own)
    assert loss.requires_grad


def test_what_is_trained_along_counts_but_has_no_second_copy(tmp_path):
    class Companion(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model
            self.judge = torch.nn.Linear(8, 8)

    recipe = recipe_of()
    model = build_model(plan_task(recipe, Store(tmp_path))[0].config)
    alone, sizes = measure_sizes(recipe, model), measure_sizes(recipe, model, Companion(model))
    assert sizes.parts == {**alone.parts, "judge": 72}
    assert (sizes.total, sizes.state, sizes.copied) == (alone.total + 72, alone.state + 144, alone.total)


def test_activations_are_the_most_of_the_first_step_and_the_last(tmp_path):
    grows = {"value": "data.contrast", "kind": "linear", "points": [[0, 1.0], [9, 3.0]]}
    recipe = build_recipe({"task": "toy", "curriculum": [grows], "run": {"steps": 10}})
    plan, task = plan_task(recipe, Store(tmp_path))
    seen = []

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(task, name)

        def example(self, index: int, data: toy.ToyData) -> object:
            seen.append(data.contrast)
            return task.example(index, data)

    measure_activations(recipe, build_model(plan.config), Watched())
    assert seen == [1.0, 3.0]
