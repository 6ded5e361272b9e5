"""The task `symbolic-generation`: what an example is, what counts of it, that it is learned, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from musictool.config import load_toml
from musictool.errors import InputError, MusicToolError, UsageError
from musictool.models.registry import load_preset
from musictool.models.symbolic_generator import SymbolicGenerator, SymbolicGeneratorConfig
from musictool.symbolic.composing import ANY_STYLE, BAR, IS_TOLD, LANGUAGE, PAD, STYLE, compose
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Score
from musictool.training.data.compositions import Renditions
from musictool.training.recipe import build_recipe
from musictool.training.tasks.symbolic_generation import (
    SymbolicGeneration,
    SymbolicGenerationData,
    SymbolicGenerationLoss,
    is_asked,
)
from tests.small_models import SMALL_SYMBOLIC_GENERATOR, random_symbolic_generator
from tests.symbolic.scores import tune

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLE_RECIPE = Path(__file__).parents[3] / "examples/recipes/symbolic-generator/symbolic-generator.toml"
PLAIN = Renditions((0, 0), (0, 0), (1.0, 1.0))
STILL = {"renditions": PLAIN, "open_style": 0.0, "open_key": 0.0}
Make = Callable[..., SymbolicGeneration]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("styles")
    for style, source in (("pop", 0), ("jazz", 1)):
        for number in range(2):
            path = folder / style / f"{number}.mid"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(write_midi(tune(number, source=source)))
    (folder / "silent").mkdir()
    (folder / "silent/silent.mid").write_bytes(write_midi(Score()))
    return folder


@pytest.fixture
def task(folder: Path) -> Make:
    """Make the task over two of the model's three styles, jazz before pop; changes are of the data section."""

    def make(
        seed: int = 0, config: SymbolicGeneratorConfig = SMALL_SYMBOLIC_GENERATOR, **changes: object
    ) -> SymbolicGeneration:
        styles = {"jazz": (folder / "jazz",), "pop": (folder / "pop",)}
        data = SymbolicGenerationData(**{"train": styles, "valid": styles, "tokens": 96, **changes})  # type: ignore[arg-type]
        return SymbolicGeneration(config, data, SymbolicGenerationLoss(), seed)

    return make


def examples(task: SymbolicGeneration, count: int) -> list[np.ndarray]:
    return [task.example(index, task._data) for index in range(count)]


# ------------------------------------------------------------------------------------------------------------ examples


def test_an_example_is_a_function_of_its_number_and_the_seed(task: Make) -> None:
    first, second, other = (examples(task(seed), 8) for seed in (3, 3, 4))
    assert [ids.tolist() for ids in first] == [ids.tolist() for ids in second]
    assert [ids.tolist() for ids in first] != [ids.tolist() for ids in other]
    assert task(3).example(7, task(3)._data).tolist() == first[7].tolist()
    assert len({ids.tobytes() for ids in first}) == 8


def test_an_example_is_a_passage_of_a_piece_under_the_models_number_of_its_style(task: Make, folder: Path) -> None:
    passages = {
        composition.passage(bar, 96, SMALL_SYMBOLIC_GENERATOR.styles.index(style), composition.key).tobytes()
        for style in ("pop", "jazz")
        for composition in (compose(read_midi(path)) for path in (folder / style).iterdir())
        for bar in range(len(composition.bars))
    }
    found = {ids.tobytes() for ids in examples(task(**STILL), 60)}
    assert found <= passages
    assert len(found) > 10


def test_style_and_key_are_left_open_as_often_as_is_said(task: Make) -> None:
    found = np.array([ids[:3] for ids in examples(task(open_style=0.25, open_key=0.5), 400)])
    is_open_style, is_open_key = found[:, 1] == ANY_STYLE, found[:, 2] == LANGUAGE.id("Key", 24)
    assert abs(is_open_style.mean() - 0.25) < 0.07
    assert abs(is_open_key.mean() - 0.5) < 0.08
    assert set(found[~is_open_style, 1].tolist()) == {STYLE, STYLE + 2}
    assert abs((is_open_style & is_open_key).mean() - 0.125) < 0.06  # each for itself


def test_shares_say_how_often_a_style_comes(task: Make) -> None:
    styles = [int(ids[1]) for ids in examples(task(shares=(0.0, 1.0), **STILL), 30)]
    assert set(styles) == {STYLE + SMALL_SYMBOLIC_GENERATOR.styles.index("pop")}


def test_a_batch_is_filled_up_at_its_end(task: Make) -> None:
    made = task()
    batch = made.collate([np.array([5, 6, 7], np.int32), np.array([8], np.int32)])
    assert batch["ids"].tolist() == [[5, 6, 7], [8, PAD, PAD]]
    assert batch["ids"].dtype == torch.int64
    assert made.amounts(batch) == {"tokens": 4.0}


# ---------------------------------------------------------------------------------------------------------------- loss


def test_what_is_told_costs_nothing(task: Make) -> None:
    """Logits may say anything of what is told; of anything else they may not."""
    made, ids = task(), torch.from_numpy(task().example(0, task()._data).astype(np.int64))[None]
    logits = torch.randn(1, ids.shape[1] - 1, len(LANGUAGE), generator=torch.Generator().manual_seed(0))

    def cost(place: int | None = None) -> float:
        said = logits.clone()
        if place is not None:
            said[0, place, ids[0, place + 1]] += 5.0
        total, _ = made.loss(lambda _: said, {"ids": ids}, SymbolicGenerationLoss())  # type: ignore[arg-type]
        return float(total)

    plain = cost()
    for place in range(ids.shape[1] - 1):
        is_told = bool(IS_TOLD[ids[0, place + 1]])
        assert (cost(place) == plain) == is_told, LANGUAGE.token_names[ids[0, place + 1]]


def test_padding_costs_nothing(task: Make) -> None:
    made, model = task(), random_symbolic_generator()
    ids = made.example(0, made._data)
    one, other = (made.collate(parts)["ids"] for parts in ([ids], [ids, np.zeros(len(ids) + 50, np.int32)]))
    with torch.no_grad():
        costs = [made.loss(model, {"ids": batch}, SymbolicGenerationLoss())[0] for batch in (one, other)]
    torch.testing.assert_close(costs[0], costs[1])


def test_the_parts_of_the_loss_are_reported(task: Make) -> None:
    made, model = task(), random_symbolic_generator()
    batch = made.collate(examples(made, 2))
    with torch.no_grad():
        plain, parts = made.loss(model, batch, SymbolicGenerationLoss())
        drifting, _ = made.loss(model, batch, SymbolicGenerationLoss(z_loss=0.1))
        smoothed, _ = made.loss(model, batch, SymbolicGenerationLoss(label_smoothing=0.1))
    assert set(parts) == {"cross_entropy", "token_accuracy"}
    assert float(plain) == float(parts["cross_entropy"])
    assert drifting > plain
    assert smoothed != plain


def test_what_is_asked_is_all_that_is_not_told() -> None:
    every = torch.arange(len(LANGUAGE))
    assert is_asked(every).tolist() == (~IS_TOLD).tolist()
    assert is_asked(torch.tensor([BAR]))


def test_a_tiny_model_learns_a_tiny_corpus(task: Make) -> None:
    made = task(**STILL)
    torch.manual_seed(0)
    model = SymbolicGenerator(SMALL_SYMBOLIC_GENERATOR)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    before = made.evaluate(model.eval())["loss"]
    model.train()
    for step in range(40):
        batch = made.collate([made.example(4 * step + row, made._data) for row in range(4)])
        total, _ = made.loss(model, batch, SymbolicGenerationLoss())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
    after = made.evaluate(model.eval())
    assert before > 6.5
    assert after["loss"] < 1.0
    assert after["token_accuracy"] > 0.6


# ------------------------------------------------------------------------------------------------------------- figures


@torch.no_grad()
def test_figures_are_those_of_each_passage_alone(task: Make) -> None:
    made, model = task(valid_windows=11), random_symbolic_generator()
    figures = made.evaluate(model)
    rows: dict[str, list[tuple[float, int, int, int]]] = {"jazz": [], "pop": []}
    for style, ids in made._held_out:
        passage = torch.from_numpy(ids.astype(np.int64))
        scores = model(passage[None, :-1])[0].log_softmax(-1)
        nats, right, count, notes = 0.0, 0, 0, 0
        for place, id in enumerate(passage[1:].tolist()):
            if not IS_TOLD[id]:
                nats, count = nats - float(scores[place, id]), count + 1
                right += int(scores[place].argmax()) == id
                notes += LANGUAGE.token_names[id].startswith("Pitch")
        rows[("jazz", "pop")[style]].append((nats, right, count, notes))
    nats, right, count, notes = np.concatenate([rows["jazz"], rows["pop"]]).sum(0)
    expected = {"loss": nats / count, "token_accuracy": right / count, "bits_per_note": nats / np.log(2) / notes}
    for style, found in rows.items():
        expected[f"loss_{style}"] = sum(row[0] for row in found) / sum(row[2] for row in found)
    assert figures == pytest.approx(expected, rel=1e-4)
    assert [len(found) for found in rows.values()] == [6, 5]


def test_what_is_told_is_not_counted_as_right(task: Make) -> None:
    class Stubborn(torch.nn.Linear):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full_like(ids, self.in_features), len(LANGUAGE)).float()

    of_told, of_asked = (
        task().evaluate(Stubborn(LANGUAGE.id(*event), 1))["token_accuracy"] for event in (("Left", 0), ("Velocity", 22))
    )
    assert of_told == 0
    assert 0.05 < of_asked < 0.3


def test_figures_are_the_same_each_time_and_none_where_nothing_is_held_out(task: Make) -> None:
    model = random_symbolic_generator()
    assert task(valid_windows=3).evaluate(model) == task(valid_windows=3).evaluate(model)
    assert task(valid={}).evaluate(model) == {}


# -------------------------------------------------------------------------------------------------------------- errors


def refusal(made: SymbolicGeneration) -> MusicToolError:
    with pytest.raises(MusicToolError) as caught:
        made.check()
    assert "\n" not in caught.value.message + caught.value.hint
    assert caught.value.hint
    return caught.value


def test_good_data_are_not_refused(task: Make) -> None:
    task().check()
    task(valid={}).check()


def test_a_style_that_the_model_does_not_know_is_refused(task: Make, folder: Path) -> None:
    error = refusal(task(train={"polka": (folder / "pop",)}))
    assert isinstance(error, UsageError)
    assert (error.message, error.context) == ("the model knows no style 'polka'", "data.train")
    assert 'model.styles=["pop", "classical", "jazz", "polka"]' in error.hint
    assert refusal(task(valid={"polka": (folder / "pop",)})).context == "data.valid"


def test_a_folder_that_is_not_there_is_refused(task: Make, folder: Path) -> None:
    error = refusal(task(train={"pop": (folder / "nowhere",)}))
    assert isinstance(error, InputError)
    assert (error.message, error.context) == ("no such file or folder", str(folder / "nowhere"))


def test_a_folder_without_a_note_is_refused(task: Make, folder: Path) -> None:
    assert "style 'pop' has no piece" in refusal(task(train={"pop": (folder / "silent",)})).message
    assert "style 'pop' has no piece" in refusal(task(valid={"pop": (folder / "silent",)})).message


def test_no_data_are_refused(task: Make) -> None:
    assert "no data" in refusal(task(train={})).message


def test_passages_that_the_model_cannot_look_back_on_are_refused(task: Make) -> None:
    error = refusal(task(tokens=97))
    assert "96" in error.message
    assert "data.tokens=96" in error.hint


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        (SymbolicGenerationData, {"shares": (1.0,)}, "shares"),
        (SymbolicGenerationData, {"train": {"a": ()}, "shares": (0.0,)}, "shares"),
        (SymbolicGenerationData, {"train": {"a": ()}, "shares": (-1.0,)}, "shares"),
        (SymbolicGenerationData, {"tokens": 15}, "tokens"),
        (SymbolicGenerationData, {"valid_windows": 0}, "valid_windows"),
        (SymbolicGenerationData, {"open_style": 1.5}, "open_style"),
        (SymbolicGenerationData, {"open_key": -0.5}, "open_key"),
        (SymbolicGenerationLoss, {"label_smoothing": 1.0}, "label_smoothing"),
        (SymbolicGenerationLoss, {"z_loss": -1.0}, "z_loss"),
    ],
)
def test_numbers_out_of_range_are_refused(section: type, changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        section(**changes)


def test_the_recipe_of_the_composer_that_ships_fits_its_model() -> None:
    recipe = build_recipe(load_toml(EXAMPLE_RECIPE))
    model = load_preset(recipe.model["preset"])
    assert recipe.data.tokens <= model.context
    assert set(recipe.data.train) == set(recipe.data.valid) == set(model.styles)
    assert len(recipe.data.shares) == len(recipe.data.train)
