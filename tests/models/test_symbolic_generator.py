"""The symbolic generator: each way of reading gives the same, and it is as small as is said."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.store import Store
from musictool.inference.model_files import load_model
from musictool.models.registry import config_from_dict, config_to_dict, load_preset
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.symbolic.composing import LANGUAGE, PAD
from tests.small_models import SMALL_SYMBOLIC_GENERATOR, random_symbolic_generator


def random_ids(rows: int, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, len(LANGUAGE), (rows, steps), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def model() -> SymbolicGenerator:
    return random_symbolic_generator()


@torch.inference_mode()
@pytest.mark.parametrize("cuts", [[1] * 40, [17, 1, 1, 21], [40]])
def test_cached_decode_equals_full_forward(model: SymbolicGenerator, cuts: list[int]) -> None:
    ids = random_ids(3, 40)
    cache = model.new_cache(3, capacity=8)
    found = []
    for part in ids.split(cuts, dim=1):
        found.append(model.decode(part, cache=cache, positions=cache.begin(part.shape[1])))
        cache.commit(part.shape[1])
    torch.testing.assert_close(torch.cat(found, 1), model(ids), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_what_comes_later_changes_nothing_before(model: SymbolicGenerator) -> None:
    ids = random_ids(1, 30)
    changed = ids.clone()
    changed[:, 17] = (ids[:, 17] + 1) % len(LANGUAGE)
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :17], after[:, :17])
    assert (before[:, 17:] - after[:, 17:]).abs().amax(-1).min() > 1e-3  # and everything from there on


@torch.inference_mode()
def test_rows_of_a_padded_batch_equal_each_alone(model: SymbolicGenerator) -> None:
    ids = random_ids(3, 40)
    for row, length in enumerate((40, 25, 3)):
        ids[row, length:] = PAD
    together = model(ids)
    for row, length in enumerate((40, 25, 3)):
        torch.testing.assert_close(together[row, :length], model(ids[row : row + 1, :length])[0], rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_order_matters(model: SymbolicGenerator) -> None:
    ids = random_ids(1, 12)
    swapped = ids[:, [1, 0, *range(2, 12)]]
    assert (model(ids)[:, -1] - model(swapped)[:, -1]).abs().max() > 1e-4


def test_the_composer_that_ships_is_small() -> None:
    config = load_preset("symbolic-generator")
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in SymbolicGenerator(config).parameters())
    layer = 4 * config.width**2 + 2 * config.width * config.hidden + 2 * config.width
    assert count == config.vocabulary * config.width + config.layers * layer + config.width
    assert count < 6_000_000
    assert 2 * count < 12_000_000  # bytes in half precision
    assert config.styles == ("pop", "classical", "jazz")
    assert config.context == 1024


def test_fresh_logits_are_near_even() -> None:
    """What it costs to know nothing is log V; fresh weights cost little more."""
    torch.manual_seed(0)
    model = SymbolicGenerator(SMALL_SYMBOLIC_GENERATOR)
    ids = random_ids(2, 60)
    cost = torch.nn.functional.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert torch.log(torch.tensor(len(LANGUAGE))) - 0.5 < cost < torch.log(torch.tensor(len(LANGUAGE))) + 2


@torch.inference_mode()
def test_a_model_saved_and_loaded_gives_the_same(model: SymbolicGenerator, tmp_path: Path) -> None:
    values = config_to_dict(model.config)
    assert config_from_dict(values) == model.config
    assert values.pop("family") == "symbolic-generator"
    folder = tmp_path / "small"
    folder.mkdir()
    write_native(folder, model.state_dict(), ModelFacts("symbolic-generator", "symbolic-generator", values), "# small")
    loaded = load_model(str(folder), store=Store(tmp_path))
    assert loaded.config == model.config
    ids = random_ids(1, 20)
    assert torch.equal(loaded.model(ids), model(ids))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"heads": 3}, "can't share"),
        ({"heads": 0}, "can't share"),
        ({"vocabulary": 7}, f"{len(LANGUAGE)} ids"),
        ({"context": 15}, "16"),
        ({"layers": 0}, "layers"),
        ({"hidden": 0}, "hidden"),
        ({"styles": ("a", "a")}, "name of its own"),
        ({"styles": tuple(map(str, range(65)))}, "64"),
    ],
)
def test_numbers_that_do_not_go_together_are_refused(changed: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SymbolicGeneratorConfig(**{**asdict(SMALL_SYMBOLIC_GENERATOR), **changed})
