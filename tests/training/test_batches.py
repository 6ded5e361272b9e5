"""Which examples a step uses."""

from __future__ import annotations

import pytest
import torch

from musictool.errors import InputError
from musictool.training.batches import BatchOrder, Feed
from musictool.training.recipe import Recipe, build_recipe
from tests.training import toy


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    toy.register(monkeypatch.setitem)


def examples(order: BatchOrder) -> list[tuple[int, list[int]]]:
    return [(place.step, list(range(place.first, place.first + order.batch_size))) for place in order]


def test_every_example_is_used_once_and_in_order():
    used = [index for _, batch in examples(BatchOrder(0, 5, 3, accumulation=2)) for index in batch]
    assert used == list(range(5 * 3 * 2))


def test_processes_share_what_one_accumulates():
    alone = examples(BatchOrder(0, 4, 3, accumulation=4))
    shared = [examples(BatchOrder(0, 4, 3, accumulation=2, processes=2, process=process)) for process in (0, 1)]
    assert sorted(batch for _, batch in alone) == sorted(batch for one in shared for _, batch in one)
    for step in range(4):
        expected = sorted(batch for at, batch in alone if at == step)
        assert sorted(batch for one in shared for at, batch in one if at == step) == expected


def test_a_run_that_goes_on_uses_what_is_left():
    order = {"batch_size": 2, "accumulation": 3, "processes": 2, "process": 1}
    assert examples(BatchOrder(0, 9, **order))[4 * 3 :] == examples(BatchOrder(4, 9, **order))
    assert len(BatchOrder(4, 9, **order)) == 15


def recipe_of(**values: object) -> Recipe:
    curve = {"value": "data.contrast", "points": [[0, 3.0], [2, 50.0]]}
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in values.items()]
    return build_recipe({"task": "toy", "run": {"batch_size": 2, "steps": 4}, "curriculum": [curve]}, overrides)


def batches_of(recipe: Recipe, count: int) -> list[torch.Tensor]:
    task = toy.ToyTask(toy.ToyConfig(), recipe.data, recipe.loss, recipe.run.seed)
    feed = Feed(task, recipe, BatchOrder(0, recipe.run.steps, recipe.run.batch_size), pins_memory=False)
    try:
        return [feed.next()["x"] for _ in range(count)]
    finally:
        feed.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:This DataLoader will create")
def test_workers_change_nothing_and_follow_the_curriculum():
    alone, together = (batches_of(recipe_of(run__workers=workers), 4) for workers in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert [bool(batch.max() > 40) for batch in alone] == [False, False, True, True]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_example_that_cannot_be_made_is_an_error_of_ours(workers):
    with pytest.raises(InputError, match="the sound is damaged") as caught:
        batches_of(recipe_of(run__workers=workers, data__fail_at=3), 2)
    assert caught.value.context == "take.wav"


def test_the_feed_leaves_torchs_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    batches_of(recipe_of(run__workers=0), 2)
    assert torch.equal(torch.rand(3), expected)
