"""Parts of a model that learn, and all else, which stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musictool.errors import UsageError
from musictool.training.freezing import freeze_but, still_modules


class Model(nn.Module):
    """Two layers with a norm and a dropout between them, and a weight of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(()))


def learning(model: nn.Module) -> set[str]:
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("parts", "names", "still"),
    [
        (["head"], {"head.weight", "head.bias"}, ["stem"]),
        (["stem.0.weight", "scale"], {"stem.0.weight", "scale"}, ["stem.1", "stem.2", "head"]),
        (["stem", "stem.0"], {"stem.0.weight", "stem.0.bias", "stem.1.weight", "stem.1.bias"}, ["head"]),
        (["scale"], {"scale"}, ["stem", "head"]),
    ],
)
def test_parts_learn_and_nothing_else(parts, names, still):
    model = Model()
    freeze_but(model, parts)
    assert learning(model) == names
    assert [id(module) for module in still_modules(model, parts)] == [id(model.get_submodule(name)) for name in still]


def test_what_was_not_to_learn_before_does_not():
    model = Model()
    model.head.bias.requires_grad_(False)
    freeze_but(model, ["head"])
    assert learning(model) == {"head.weight"}


def test_a_part_that_begins_like_another_is_another():
    model = nn.Module()
    model.layer, model.layers = nn.Linear(2, 2), nn.Linear(2, 2)
    freeze_but(model, ["layers"])
    assert learning(model) == {"layers.weight", "layers.bias"}
    assert still_modules(model, ["layers"]) == [model.layer]


@pytest.mark.parametrize(
    ("part", "words", "hint"),
    [("haed", "the model has no part 'haed'", "'head'"), ("", "the model has no part ''", None)],
)
def test_a_part_that_is_not_there_is_named_with_one_that_is(part, words, hint):
    with pytest.raises(UsageError, match=words) as found:
        freeze_but(Model(), [part])
    assert hint is None or hint in (found.value.hint or "")


def test_parts_without_anything_to_learn_are_wrong_usage():
    with pytest.raises(UsageError, match=r"nothing to learn in stem\.2"):
        freeze_but(Model(), ["stem.2"])
