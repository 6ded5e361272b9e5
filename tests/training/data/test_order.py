"""The order of examples."""

from __future__ import annotations

from musictool.training.data.order import item_at


def test_every_epoch_takes_every_item_once():
    for epoch in range(3):
        assert sorted(item_at(epoch * 7 + place, 7, seed=3) for place in range(7)) == list(range(7))


def test_an_item_does_not_depend_on_what_was_asked_before():
    forward = [item_at(index, 50, seed=1) for index in range(1000)]
    assert [item_at(index, 50, seed=1) for index in reversed(range(1000))] == forward[::-1]


def test_epochs_and_seeds_differ():
    orders = [tuple(item_at(epoch * 30 + i, 30, seed) for i in range(30)) for epoch in (0, 1) for seed in (0, 1)]
    assert len(set(orders)) == 4
