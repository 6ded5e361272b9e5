"""The task `style-transfer`: what an example is, that each part of the loss does something, and whole runs."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from musictool.checkpoints.native import read_facts
from musictool.cli.environment import Environment
from musictool.cli.main import main
from musictool.config import from_dict, load_toml
from musictool.errors import InputError, UsageError
from musictool.models.tatumflow import NO_FACTOR, TatumFlow, TatumFlowConfig
from musictool.models.tatumflow_parts import LEVELS, Style, keys_of
from musictool.symbolic.notes import Notes
from musictool.symbolic.piano_ids import FRAME_TICKS, ticks_of_ids
from musictool.symbolic.theory import FACTORS, WIDTHS, theory_frames
from musictool.training.batches import Batches, BatchOrder, BatchPlace, Feed
from musictool.training.data.corruptions import CORRUPTIONS
from musictool.training.data.style_corpus import StyleCorpus, Variations
from musictool.training.recipe import build_recipe, load_finetuning_table, load_preset_table
from musictool.training.runs import read_metrics
from musictool.training.tasks.tatumflow import (
    Odds,
    StyleTransfer,
    StyleTransferData,
    StyleTransferLoss,
    _contrast,
    _divergence,
    draw_for,
    lesson_of,
)
from tests.small_models import random_tatumflow
from tests.training.tasks.style_pieces import SCALES, TINY, folders, write

EXAMPLE_RECIPE = Path(__file__).parents[3] / "examples/recipes/tatumflow/tatumflow.toml"
PARTS = ("writing", "diffusion", "genre", "gaussian", "contrast", "reading", "exchange", "suspicion")
NOTHING = StyleTransferLoss(
    diffusion_share=0.0, repeats=1, genre=0.0, gaussian=0.0, contrast=0.0, reading=0.0, exchange=0.0, suspicion=0.0
)
"""Only writing counts."""
UNVARIED = Variations((0, 0), (1.0, 1.0), (1.0, 1.0), (0, 0))

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),  # more workers than there are cores
]


# ------------------------------------------------------------------------------------------------------ made-up corpora


@pytest.fixture(scope="module")
def task_of(styles: Path) -> Callable[..., StyleTransfer]:
    """Make the task, uncorrupted unless something else is said; changes are of the data section."""

    def make(config: TatumFlowConfig = TINY, seed: int = 0, **changes: object) -> StyleTransfer:
        sides = {side: folders(styles, side) for side in ("train", "valid")}
        values = {"frames": 8, "tokens": 64, "valid_windows": 8, "corrupted_share": 0.0, **sides, **changes}
        return StyleTransfer(config, StyleTransferData(**values), StyleTransferLoss(), seed)

    return make


def examples(task: StyleTransfer, indices: Sequence[int]) -> list:
    return [task.example(index, task._data) for index in indices]


def batches(task: StyleTransfer, count: int, rows: int = 8) -> list[dict[str, Tensor]]:
    return [task.collate(examples(task, range(rows * number, rows * (number + 1)))) for number in range(count)]


def is_equal(one: tuple, other: tuple) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------------------ examples


def test_an_example_is_a_pure_function_of_seed_and_index(task_of):
    one, other = (task_of(corrupted_share=0.5) for _ in range(2))
    forth = examples(one, range(12))
    back = examples(other, range(11, -1, -1))[::-1]
    assert all(map(is_equal, forth, back))
    assert len({example.told.tobytes() for example in forth}) == 12
    assert not any(map(is_equal, examples(task_of(seed=1, corrupted_share=0.5), range(12)), forth))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_from_any_number_of_workers(task_of, workers):
    made = []
    for count in (0, workers):
        recipe = build_recipe({"task": "style-transfer", "run": {"workers": count, "batch_size": 2}})
        task = task_of(corrupted_share=0.5)
        task.check()
        feed = Feed(task, replace(recipe, data=task._data), BatchOrder(0, 5, 2), pins_memory=False)
        made.append([feed.next() for _ in range(5)])
        feed.close()
    for one, other in zip(*made, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("share", "artists", "pieces"), [(1.0, 1.0, 0.5), (0.0, 0.25, 0.08)])
def test_pairs_are_often_of_one_artist_and_half_of_those_of_one_piece(task_of, share, artists, pieces):
    found = examples(task_of(pair_share=share, frames=1), range(200))
    pairs = list(zip(found[::2], found[1::2], strict=True))
    assert np.mean([one.artist == other.artist for one, other in pairs]) == pytest.approx(artists, abs=0.12)
    has_one_piece = [one.piece == other.piece for one, other in pairs]
    assert np.mean(has_one_piece) == pytest.approx(pieces, abs=0.12)
    assert not all(np.array_equal(one.told, other.told) for (one, other), same in zip(pairs, has_one_piece) if same)


def test_the_encoder_reads_what_is_corrupted_and_all_else_is_whole(task_of, monkeypatch):
    windows = []
    draw = StyleCorpus.draw_window
    monkeypatch.setattr(StyleCorpus, "draw_window", lambda *args: windows.append(draw(*args)) or windows[-1])
    for share in (0.0, 1.0, 0.5):
        windows.clear()
        found = examples(task_of(corrupted_share=share), range(40))
        for example, window in zip(found, windows, strict=True):
            assert np.array_equal(example.told, window.ids)
            assert np.array_equal(example.theory, np.concatenate(theory_frames(window.notes, window.frames), 1))
        is_whole = [np.array_equal(example.seen, example.told) for example in found]
        assert np.mean(is_whole) == pytest.approx(1 - share, abs=0.2 if share else 0.0)
        for example, whole in zip(found, is_whole, strict=True):
            assert not whole or np.array_equal(example.seen_ticks, ticks_of_ids(example.told))


def test_the_kinds_and_the_extent_of_corruptions_are_those_of_the_step(task_of):
    task = task_of(corrupted_share=1.0)
    for kind in CORRUPTIONS:
        only = replace(task._data, corruptions=(kind,), corruption=0.5)
        pairs = [(example.seen, example.told) for example in (task.example(index, only) for index in range(6))]
        assert all(len(seen) == len(told) for seen, told in pairs) or kind in CORRUPTIONS[3:]
        is_masked = [bool((seen == TINY.pad_id).any()) for seen, _ in pairs]
        assert any(is_masked) == kind.endswith("_mask")
    mild, harsh = (
        sum(
            int(
                (task.example(index, replace(task._data, corruptions=("note_mask",), corruption=share)).seen == 0).sum()
            )
            for index in range(6)
        )
        for share in (0.1, 0.8)
    )
    assert harsh > 3 * mild


@pytest.mark.parametrize("kind", ["onset_duration_mask", "note_mask"])
def test_what_hidden_times_lead_to_stands_in_its_own_frame_and_no_nearer(task_of, kind):
    found = examples(task_of(corrupted_share=1.0, corruptions=(kind,), corruption=0.5), range(20))
    is_hidden = []
    for example in found:
        ticks = ticks_of_ids(example.told)
        is_moved = example.seen_ticks != ticks
        assert np.array_equal(example.seen_ticks[is_moved], ticks[is_moved] // FRAME_TICKS * FRAME_TICKS)
        is_hidden.append(is_moved.mean())
    assert 0.1 < np.mean(is_hidden) < 0.9


def test_a_batch_is_filled_up_and_what_is_to_be_written_is_one_id_ahead_of_what_is_told(task_of):
    task = task_of(corrupted_share=0.5)
    found = examples(task, range(8))
    assert len({len(example.told) for example in found}) > 1
    batch = task.collate(found)
    lesson = lesson_of(batch)
    for row, example in enumerate(found):
        count, frames = len(example.told), len(example.theory)
        assert batch["told"][row, : count + 1].tolist() == [TINY.start_id, *example.told]
        assert batch["goal"][row, : count + 1].tolist() == [*example.told, TINY.end_id]
        assert (batch["goal"][row, count + 1 :] == -100).all()
        assert batch["told_ticks"][row, : count + 1].tolist() == [0, *ticks_of_ids(example.told)]
        assert lesson.seen.visible[row].sum() == len(example.seen)
        assert batch["seen"][row, : len(example.seen)].tolist() == example.seen.tolist()
        assert lesson.visible[row].tolist() == [frame < frames for frame in range(lesson.visible.shape[1])]
        assert np.array_equal(batch["theory"][row, :frames], example.theory)
        assert not batch["theory"][row, frames:].any()
        assert ticks_of_ids(example.told).max() <= frames * FRAME_TICKS
    assert task.amounts(batch) == {"tokens": float(sum(len(example.told) + 1 for example in found))}


# ---------------------------------------------------------------------------------------------------------- curriculum


def test_the_preset_grows_with_the_step_and_unlocks_corruptions_at_30_and_60_percent():
    recipe = build_recipe(load_preset_table("tatumflow"))
    steps = recipe.run.steps
    at = {share: recipe.at(round(share * steps)) for share in (0.0, 0.1, 0.29, 0.3, 0.59, 0.6, 1.0)}
    lengths = [now.data.tokens for now in at.values()]
    assert (lengths[0], lengths[-1]) == (256, TatumFlowConfig().tokens_max)
    assert all(before <= after for before, after in pairwise(lengths))
    shares = [now.loss.diffusion_share for now in at.values()]
    assert (shares[0], shares[-1]) == (0.2, 0.7)
    assert all(before <= after for before, after in pairwise(shares))
    assert [len(at[share].data.corruptions) for share in (0.0, 0.29, 0.3, 0.59, 0.6, 1.0)] == [3, 3, 4, 4, 6, 6]
    assert set(at[1.0].data.corruptions) == set(CORRUPTIONS)


def test_a_curriculum_reaches_examples_and_loss(task_of):
    curriculum = [
        {"value": "data.tokens", "kind": "linear", "points": [[0, 12], [10, 64]]},
        {"value": "data.corruptions", "points": [[0, ["fragmentation"]], [10, ["note_mask"]]]},
        {"value": "loss.diffusion_share", "kind": "linear", "points": [[0, 0.0], [10, 1.0]]},
    ]
    task = task_of(corrupted_share=1.0)
    table = {"task": "style-transfer", "curriculum": curriculum, "run": {"batch_size": 8}}
    recipe = build_recipe(table)
    made = Batches(task, replace(recipe, data=task._data))
    early, middle, late = (made[BatchPlace(step, 0)] for step in (0, 5, 10))
    longest = [int((batch["goal"] >= 0).sum(1).max()) - 1 for batch in (early, middle, late)]
    assert longest[0] <= 12 < longest[1] <= 38 < longest[2] <= 64
    assert [bool(((batch["seen"] == 0) & lesson_of(batch).seen.visible).any()) for batch in (early, late)] == [
        False,
        True,
    ]
    assert [recipe.at(step).loss.diffusion_share for step in (0, 5, 10)] == [0.0, 0.5, 1.0]


# ------------------------------------------------------------------------------------------------------------ the loss


@pytest.fixture(scope="module")
def batch(task_of) -> dict[str, Tensor]:
    return batches(task_of(corrupted_share=0.5, pair_share=1.0), 1)[0]


def judged(task: StyleTransfer, model: nn.Module, batch: dict[str, Tensor], loss: StyleTransferLoss, seed: int = 0):
    torch.manual_seed(seed)
    return task.loss(model, batch, loss)


def test_the_loss_is_the_weighted_sum_of_its_parts(task_of, batch):
    weights = dict(zip(PARTS[2:], (0.3, 0.5, 0.7, 1.1, 1.3, 1.7), strict=True))
    total, parts = judged(task_of(), random_tatumflow(TINY), batch, StyleTransferLoss(diffusion_share=0.25, **weights))
    assert tuple(parts) == PARTS
    assert not any(part.requires_grad for part in parts.values())
    assert all(float(part) > 0 for part in parts.values())
    counts = {"writing": 0.75, "diffusion": 0.25, **weights}
    assert total.item() == pytest.approx(sum(counts[name] * float(parts[name]) for name in PARTS), rel=1e-5)


def gradients(task: StyleTransfer, batch: dict[str, Tensor], loss: StyleTransferLoss) -> dict[str, Tensor]:
    model = random_tatumflow(TINY)
    judged(task, model, batch, loss)[0].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("part", "taught"),
    [
        ("writing", {"tokens", "encoder", "decoder"}),
        ("diffusion", {"denoiser", "style_encoder", "style_priors"}),
        ("genre", {"style_encoder", "style_priors"}),
        ("gaussian", {"style_encoder", "style_priors"}),
        ("contrast", {"style_encoder"}),
        ("reading", {"critics", "tokens", "encoder"}),
        ("exchange", {"denoiser"}),
        ("suspicion", {"critics", "denoiser"}),
    ],
)
def test_a_part_teaches_whom_it_concerns_and_at_weight_0_nobody(task_of, batch, part, taught):
    """Writing and diffusion share one weight, so that all of one is none of the other."""
    of_writing = gradients(task_of(), batch, NOTHING)
    without = {name: torch.zeros_like(each) for name, each in of_writing.items()} if part in PARTS[:2] else of_writing
    weights = {"writing": {}, "diffusion": {"diffusion_share": 1.0}}.get(part, {part: 1.0})
    with_it = gradients(task_of(), batch, replace(NOTHING, **weights))
    found = {
        "tokens" if "tokens" in name else name.partition(".")[0]
        for name, gradient in with_it.items()
        if not torch.equal(gradient, without[name])
    }
    assert found == taught


@torch.no_grad()
def test_padding_of_a_batch_changes_no_loss(task_of):
    task, model = task_of(tokens=20), random_tatumflow(replace(TINY, latent_noise=0.0))
    found = sorted(examples(task, range(30)), key=lambda example: len(example.theory))
    found = [found[0], found[-1]]
    assert len(found[0].theory) < len(found[1].theory)
    untouched = replace(NOTHING, odds=Odds(hides_token=0.0, drops_style=1.0))
    task._config = model.config
    parts = [judged(task, model, task.collate(each), untouched)[1] for each in (found, found[:1], found[1:])]
    counts = {"writing": [len(each.told) + 1 for each in found], "reading": [len(each.theory) for each in found]}
    for name, weights in counts.items():
        together, *alone = (float(each[name]) for each in parts)
        assert together == pytest.approx(np.average(alone, weights=weights), rel=1e-4)


def test_no_row_is_its_own_donor(batch):
    lesson = lesson_of(batch)
    shifts = set()
    for seed in range(40):
        torch.manual_seed(seed)
        donor = draw_for(lesson, TINY, StyleTransferLoss()).donor
        assert sorted(donor.tolist()) == list(range(8))
        assert (donor != torch.arange(8)).all()
        shifts.add(int(donor[0]))
    assert shifts == set(range(1, 8))


def test_kin_are_told_from_others_as_the_paper_says():
    """Supervised contrastive loss, written out pair by pair; who has no kin does not count."""
    torch.manual_seed(0)
    mean, kin, piece = torch.randn(7, 5), [3, 3, 3, -1, -1, 8, -1], [0, 1, 2, 3, 3, 4, 5]
    unit = nn.functional.normalize(mean, dim=-1)
    each = []
    for i in range(7):
        friends = [j for j in range(7) if j != i and ((kin[i] == kin[j] != -1) or piece[i] == piece[j])]
        others = torch.stack([unit[i] @ unit[j] / 0.2 for j in range(7) if j != i]).exp().sum().log()
        if friends:
            each.append(sum(others - unit[i] @ unit[j] / 0.2 for j in friends) / len(friends))
    assert len(each) == 5
    torch.testing.assert_close(_contrast(mean, torch.tensor(kin), torch.tensor(piece)), sum(each) / 5)


def test_a_batch_without_kin_and_one_of_a_single_window_have_nothing_to_tell_apart(task_of):
    mean = torch.randn(3, 5, requires_grad=True)
    for rows in (3, 1):
        numbers = torch.arange(rows)
        loss = _contrast(mean[:rows], torch.full((rows,), -1), numbers)
        loss.backward()
        assert (loss.item(), bool(mean.grad.any())) == (0.0, False)
    task = task_of()
    loss, parts = judged(task, random_tatumflow(TINY), task.collate(examples(task, [0])), StyleTransferLoss())
    assert loss.isfinite()
    assert all(part.isfinite() for part in parts.values())


def test_divergence_is_that_of_gaussians():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(4, 3, 5), torch.randn(4, 3, 5)
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0))
    torch.testing.assert_close(_divergence(mean, log_variance), each.sum(-1).mean())


def test_what_is_drawn_is_drawn_as_often_as_the_odds_say(batch):
    lesson, config = lesson_of(batch), TINY
    torch.manual_seed(0)
    all_of_it = Odds(hides_token=1.0, uses_prior=1.0, exchanges=1.0, drops_factor=1.0, drops_artist=1.0)
    draws = draw_for(lesson, config, StyleTransferLoss(repeats=3, odds=all_of_it))
    assert draws.hidden.all()
    assert draws.uses_prior.all()
    assert (draws.factor != NO_FACTOR).all()
    assert not draws.knows_theory.any()
    assert not draws.knows_style[:, 1].any()
    assert draws.knows_style[:, 0].any()
    assert draws.noise.shape == (24, *lesson.visible.shape[1:], TINY.latent_width)
    assert draws.latent_noise.abs().max() > 0
    none_of_it = Odds(**dict.fromkeys(vars(all_of_it), 0.0))
    draws = draw_for(lesson, config, StyleTransferLoss(odds=none_of_it))
    assert not draws.hidden.any()
    assert not draws.uses_prior.any()
    assert (draws.factor == NO_FACTOR).all()
    assert draws.knows_style.all()
    assert draws.knows_theory.all()
    nothing_told = draw_for(lesson, config, StyleTransferLoss(odds=replace(none_of_it, drops_all=1.0)))
    assert (bool(nothing_told.knows_style.any()), bool(nothing_told.knows_theory.any())) == (False, False)
    no_style = draw_for(lesson, config, StyleTransferLoss(odds=replace(none_of_it, drops_style=1.0)))
    assert (bool(no_style.knows_style.any()), bool(no_style.knows_theory.all())) == (False, True)
    many = draw_for(lesson, config, StyleTransferLoss(repeats=500, odds=Odds()))
    assert many.knows_theory.float().mean() == pytest.approx(0.95 * 0.65, abs=0.02)
    assert many.knows_style.float().mean(0).tolist() == pytest.approx([0.855, 0.342, 0.171], abs=0.03)
    assert (int(many.step.min()), int(many.step.max())) == (pytest.approx(1, abs=9), pytest.approx(1000, abs=9))


# -------------------------------------------------------------------------------- each part does what it is there for


def learn(model: TatumFlow, steps: int, loss: Callable[[TatumFlow, int], Tensor]) -> TatumFlow:
    """A copy that went so many steps down a loss, which each step has of its own."""
    model = deepcopy(model).train()
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(steps):
        loss(model, step).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def fresh_model(config: TatumFlowConfig = TINY) -> TatumFlow:
    torch.manual_seed(0)
    return TatumFlow(config)


@torch.no_grad()
def figures(task: StyleTransfer, model: TatumFlow, lessons: list[dict[str, Tensor]]) -> dict[str, float]:
    """Each part of the loss, the mean over batches, under the same draws for every model."""
    found = [judged(task, model, each, replace(NOTHING, repeats=4), seed)[1] for seed, each in enumerate(lessons)]
    return {name: float(torch.stack([parts[name] for parts in found]).mean()) for name in PARTS}


@dataclass(frozen=True)
class School:
    """Where models are taught for a short time, with some parts of the loss or with nothing but writing."""

    task: StyleTransfer
    lessons: list[dict[str, Tensor]]
    held_out: list[dict[str, Tensor]]

    def taught(self, **weights: float) -> TatumFlow:
        return learn(fresh_model(), 30, self.losses(self.lessons, **weights))

    def losses(self, lessons: list[dict[str, Tensor]], **weights: float) -> Callable[[TatumFlow, int], Tensor]:
        loss = replace(NOTHING, **weights)
        return lambda model, step: self.task.loss(model, lessons[step % len(lessons)], loss)[0]

    @cached_property
    def only_writing(self) -> TatumFlow:
        return self.taught()

    def figures(self, model: TatumFlow) -> dict[str, float]:
        return figures(self.task, model, self.held_out)


@pytest.fixture(scope="module")
def school(task_of, styles) -> School:
    task = task_of(pair_share=1.0, valid_windows=24)
    return School(task, batches(task, 12), batches(task_of(seed=9, train=folders(styles, "valid")), 4))


def test_writing_diffusion_and_reading_fall_where_they_count(school):
    without = school.figures(school.only_writing)
    trained = school.figures(school.taught(diffusion_share=1.0, reading=1.0))
    assert without["writing"] < 0.7 * trained["writing"]
    assert trained["diffusion"] < 0.9 * without["diffusion"]
    assert trained["reading"] < 0.6 * without["reading"]


def test_the_genre_part_teaches_genres(school):
    without, trained = (school.task.evaluate(model) for model in (school.only_writing, school.taught(genre=1.0)))
    assert trained["genre_accuracy"] == 1.0
    assert trained["genre"] < 0.1 * without["genre"]  # which may tell two styles apart by chance


def test_the_gaussian_part_brings_styles_to_their_priors(school):
    without, trained = (school.figures(model) for model in (school.only_writing, school.taught(gaussian=1.0)))
    assert trained["gaussian"] < 0.1 * without["gaussian"]


@torch.no_grad()
def nearness(model: TatumFlow, lessons: list[dict[str, Tensor]]) -> tuple[float, float]:
    """The mean cosine of styles of windows of one artist, and of others, at the artists' level."""
    same, others = [], []
    for each, batch in zip(map(lesson_of, lessons), lessons, strict=True):
        mean = model.style_encoder(model.encoder(each.seen, each.visible), each.theory, each.visible).mean[:, 1]
        cosine = nn.functional.cosine_similarity(mean[:, None], mean, dim=-1)
        is_kin = batch["artist"][:, None] == batch["artist"]
        same.append(cosine[is_kin & ~torch.eye(len(mean), dtype=torch.bool)])
        others.append(cosine[~is_kin])
    return float(torch.cat(same).mean()), float(torch.cat(others).mean())


def test_the_contrast_brings_windows_of_an_artist_together_and_others_apart(school):
    model = school.taught(contrast=1.0)
    assert school.figures(model)["contrast"] < 0.8 * school.figures(school.only_writing)["contrast"]
    same, others = nearness(model, school.held_out)
    same_without, others_without = nearness(school.only_writing, school.held_out)
    assert 1 - same < 0.5 * (1 - same_without)
    assert others < others_without - 0.3


def test_suspicion_teaches_the_critic_to_see_and_the_denoiser_to_hide(task_of, batch):
    task = task_of()
    only = replace(NOTHING, suspicion=1.0)
    for part, direction in (("critics", -1), ("denoiser", 1)):
        model = random_tatumflow(TINY)
        before = judged(task, model, batch, only)
        before[0].backward()
        with torch.no_grad():
            for parameter in getattr(model, part).parameters():
                parameter -= 0.01 * parameter.grad / parameter.grad.norm().clamp(min=1e-9)
        after = judged(task, model, batch, only)
        assert direction * float(after[1]["suspicion"] - before[1]["suspicion"]) > 1e-4


def readable(lessons: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
    """The same with a theory that latents of an untaught encoder tell, each factor by numbers of its own."""
    encoder = fresh_model().eval().encoder
    factors = [torch.randn(4, WIDTHS[name]) / 2 for name in FACTORS]
    found = []
    for each in lessons:
        lesson = lesson_of(each)
        with torch.no_grad():
            theory = encoder(lesson.seen, lesson.visible) @ torch.block_diag(*factors)
        found.append({**each, "theory": theory.tanh()})
    return found


@torch.no_grad()
def moved(model: TatumFlow, lessons: list[dict[str, Tensor]]) -> tuple[float, float]:
    """How far a factor moves towards the donor's when it is exchanged, and how far the others move by that.

    Both in shares of the way, as the critic reads them off latents that had next to nothing left.
    """
    own, others = [], []
    for seed, lesson in enumerate(map(lesson_of, lessons)):
        torch.manual_seed(seed)
        rows = len(lesson.genre)
        draws = draw_for(lesson, TINY, NOTHING)
        draws = draws._replace(donor=torch.arange(rows).roll(3), swap_step=torch.full((rows,), 700))
        as_it_was = model(lesson, draws._replace(factor=torch.full((rows,), NO_FACTOR)))
        for number in range(len(FACTORS)):
            outcome = model(lesson, draws._replace(factor=torch.full((rows,), number)))
            widths = [WIDTHS[name] for name in FACTORS]
            change = (outcome.swapped_read - as_it_was.swapped_read).split(widths, -1)
            asked = (outcome.swapped_theory - as_it_was.swapped_theory).split(widths, -1)[number]
            own.append((change[number] * asked).sum() / asked.square().sum())
            rest = torch.cat([part for place, part in enumerate(change) if place != number], -1)
            others.append((rest.square().mean() / asked.square().mean()).sqrt())
    return float(torch.stack(own).mean()), float(torch.stack(others).mean())


def test_the_exchange_part_makes_an_exchanged_factor_come_and_the_others_stay(school):
    lessons = readable(school.lessons)
    most = {"diffusion_share": 1.0, "reading": 3.0}
    begun = learn(fresh_model(), 80, school.losses(lessons, **most))
    without, with_it = (learn(begun, 40, school.losses(lessons, **most, exchange=each)) for each in (0.0, 20.0))
    left_without, left = (figures(school.task, model, lessons[:4])["exchange"] for model in (without, with_it))
    assert left < 0.9 * left_without
    (own_without, others_without), (own, others) = (moved(model, lessons[:4]) for model in (without, with_it))
    assert own > 1.3 * own_without
    assert own / others > 1.2 * own_without / others_without
    assert own > 2 * others


def test_who_learnt_from_corrupted_windows_writes_whole_ones_off_them_better(tmp_path):
    """Pieces of one note each; what a masked window says of it is all that the decoder, which has no memory, has."""
    for number, pitch in enumerate((45, 58, 69, 80)):
        onset = np.arange(0, 2, 0.25)
        write(tmp_path / f"{number}.mid", Notes.of(onset, onset + 0.1, np.full(len(onset), pitch), 80))

    def lessons(share: float, seed: int) -> list[dict[str, Tensor]]:
        data = StyleTransferData(
            train={"one": (tmp_path,)},
            frames=8,
            tokens=64,
            variations=UNVARIED,
            corrupted_share=share,
            corruption=0.5,
            corruptions=("pitch_velocity_mask",),
        )
        return batches(StyleTransfer(TINY, data, NOTHING, seed), 8)

    def writing(model: TatumFlow, batch: dict[str, Tensor]) -> Tensor:
        lesson = lesson_of(batch)
        rows = len(lesson.genre)
        style = Style(
            torch.zeros(rows, len(LEVELS), TINY.style_width), torch.zeros(rows, len(LEVELS), dtype=torch.bool)
        )
        read = model.decoder.read(model.encoder(lesson.seen, lesson.visible), lesson.visible, style)
        logits = model.decoder(lesson.told, keys_of(lesson.told, TINY), read)
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch["goal"].flatten())

    whole, damaged, broken = lessons(0.0, 0), lessons(1.0, 0), lessons(1.0, 9)
    model = fresh_model(replace(TINY, styles=("one",), decoder_layers=0))
    begun = learn(model, 200, lambda model, step: writing(model, whole[step % 8]))
    left = []
    for taught in (whole, damaged):
        model = learn(begun, 80, lambda model, step, taught=taught: writing(model, taught[step % 8]))
        with torch.no_grad():
            left.append(torch.stack([writing(model, each) for each in broken]).mean().item())
    assert left[1] < 0.3 * left[0]


# ---------------------------------------------------------------------------------------------------------- evaluation


def test_nothing_held_out_gives_no_figures(task_of):
    assert task_of(valid={}).evaluate(random_tatumflow(TINY)) == {}


def test_as_many_held_out_windows_as_asked_are_looked_at_always_the_same_and_as_they_are(task_of, monkeypatch):
    draw, seen = StyleCorpus.draw, []

    def noted(self, generator, frames, tokens_max, **options):
        window = draw(self, generator, frames, tokens_max, **options)
        seen.append((frames, tokens_max, options["variations"], window.ids.tobytes()))
        return window

    monkeypatch.setattr(StyleCorpus, "draw", noted)
    task = task_of(valid_windows=11, frames=4, tokens=32)
    model = random_tatumflow(TINY)
    first, second = task.evaluate(model), task.evaluate(model)
    assert first == second
    assert len(seen) == 22
    assert seen[:11] == seen[11:]
    assert all(each[:3] == (TINY.frames_max, TINY.tokens_max, UNVARIED) for each in seen)
    assert set(first) == {"loss", "accuracy", "genre_accuracy", *PARTS}
    assert first["loss"] == pytest.approx(first["writing"] + first["diffusion"])
    parts = [task_of(valid_windows=count).evaluate(model) for count in (8, 16)]
    assert parts[0] != parts[1]


def test_figures_tell_who_has_learnt(school):
    fresh, trained = (school.task.evaluate(model) for model in (random_tatumflow(TINY), school.only_writing))
    assert trained["writing"] < 0.8 * fresh["writing"]
    assert trained["accuracy"] > fresh["accuracy"] + 0.02


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("data", "config", "words", "hint"),
    [
        ({"train": {}}, TINY, "no data to learn from", "data.train.jazz="),
        (
            {},
            replace(TINY, styles=("low", "high")),
            "the styles of data.train are high, low, those of the model low",
            "set",
        ),
        ({}, replace(TINY, styles=()), "those of the model none", 'model.styles=["high", "low"]'),
        ({"tokens": 65}, TINY, "data.tokens is more than the model's 64", "data.tokens=64"),
        ({"frames": 9}, TINY, "data.frames is more than the model's 8", "model.frames_max"),
        ({}, replace(TINY, vocabulary=800), "the model has 800 ids", "model.vocabulary"),
        ({}, replace(TINY, frame_ticks=20), "frames of 20 ticks", "model.frame_ticks"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_wrong_usage(task_of, data, config, words, hint):
    with pytest.raises(UsageError, match=words) as caught:
        task_of(config, **data).check()
    assert hint in caught.value.hint


@pytest.mark.parametrize("side", ["train", "valid"])
def test_what_is_missing_or_has_no_pieces_is_named(task_of, styles, tmp_path, side):
    task_of().check()
    for folder, words in ((tmp_path / "nowhere", "no such file or folder"), (tmp_path, "has no piece")):
        with pytest.raises(InputError, match=words) as caught:
            task_of(**{side: {"high": (styles / "train/high",), "low": (folder,)}}).check()
        assert str(folder) in caught.value.context
        assert caught.value.hint


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (StyleTransferData, {"train": {"a": ["a"]}, "shares": [1, 1]}),
        (StyleTransferData, {"train": {"a": ["a"]}, "shares": [0]}),
        (StyleTransferData, {"frames": 0}),
        (StyleTransferData, {"corruption": 1.5}),
        (StyleTransferData, {"corrupted_share": -0.1}),
        (StyleTransferData, {"pair_share": 2}),
        (StyleTransferData, {"corruptions": ["noise"]}),
        (StyleTransferLoss, {"diffusion_share": 1.1}),
        (StyleTransferLoss, {"repeats": 0}),
        (StyleTransferLoss, {"contrast": -1}),
        (StyleTransferLoss, {"odds": {"drops_all": 1.5}}),
    ],
)
def test_values_that_make_no_sense_are_wrong_usage(section, values):
    with pytest.raises(UsageError):
        from_dict(section, values)


# ---------------------------------------------------------------------------------------------------------- whole runs


def mtk(*arguments: object) -> tuple[int, str, str]:
    """Status, output and messages of a command."""
    environment = Environment(io.BytesIO(), io.BytesIO(), io.StringIO())
    status = main([str(argument) for argument in arguments], environment)
    return status, environment.stdout.getvalue().decode(), environment.stderr.getvalue()


@pytest.fixture(scope="module")
def settings(styles: Path) -> list[str]:
    """What makes of the preset a recipe for a tiny model and a few steps."""
    values = {name: getattr(TINY, name) for name in ("width", "heads", "hidden", "diffusion_layers", "decoder_layers")}
    sides = [f'data.{side}.{style}=["{styles / side / style}"]' for side in ("train", "valid") for style in SCALES]
    run = [
        "run.batch_size=3",
        "run.steps=4",
        "run.save_every=2",
        "run.evaluate_every=2",
        "run.log_every=1",
        "run.precision=fp32",
    ]
    rest = [
        'model.styles=["high","low"]',
        "model.dropout=0.1",
        "data.valid_windows=4",
        "run.workers=0",
        "run.threads=1",
    ]
    return [*sides, *run, *rest, *(f"model.{name}={value}" for name, value in values.items())]


def test_a_run_resumed_is_bit_equal_to_an_uninterrupted_one(settings, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, _, messages = mtk("train", "--preset", "tatumflow", *settings, "-o", whole, "--device", "cpu")
    assert status == 0, messages
    records = read_metrics(whole / "metrics.jsonl")
    assert {f"loss/{name}" for name in PARTS} <= records[1].keys()
    assert {"valid/accuracy", "valid/genre_accuracy", "valid/loss"} <= records[-2].keys()
    shutil.copytree(whole, resumed)
    shutil.rmtree(resumed / "checkpoints/000000004")
    assert mtk("train", "--resume", "run.workers=1", "-o", resumed, "--device", "cpu")[0] == 0
    for name in ("model.safetensors", "training/model.safetensors"):
        one, other = (run / "checkpoints/000000004" / name for run in (whole, resumed))
        assert one.read_bytes() == other.read_bytes()
    assert mtk("models", "show", whole / "best")[0] == 0


def test_a_run_that_trains_some_parts_changes_nothing_else(settings, tmp_path):
    first = ["--preset", "tatumflow", *settings, "-o", tmp_path / "first"]
    assert mtk("train", *first, "--device", "cpu")[0] == 0
    table = f'task = "style-transfer"\n[model]\nfrom = "{tmp_path}/first/best"\n'
    (tmp_path / "parts.toml").write_text(table + '[run]\ntrains = ["denoiser.theory.dynamics", "style_priors"]\n')
    sections = [setting for setting in settings if not setting.startswith("model.")]
    run = ["train", tmp_path / "parts.toml", *sections, "-o", tmp_path / "second", "--device", "cpu"]
    status, _, messages = mtk(*run)
    assert status == 0, messages
    before, after = (load_file(tmp_path / name / "best/model.safetensors") for name in ("first", "second"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}  # not the encoder's norm, either
    layers = {f"denoiser.theory.dynamics.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")}
    assert changed == layers | {"style_priors"}
    assert "codes_sha256" not in read_facts(tmp_path / "second/best").source  # only codecs have codes to keep

    run[-3] = tmp_path / "third"
    for parts, words in {
        "denoiser.theory.dynamic": "did you mean 'denoiser.theory.dynamics'?",
        "": "no part ''",
    }.items():
        status, _, messages = mtk(*run, f'run.trains=["{parts}"]')
        assert (status, words in messages) == (2, True), messages
    status, _, messages = mtk(*run, "adapter.rank=2")
    assert (status, "run.trains is not for an adapter" in messages) == (2, True), messages
    assert not (tmp_path / "third").exists()


def test_a_dry_run_of_the_preset_tells_parts_and_memory(settings, tmp_path):
    status, out, messages = mtk("train", "--preset", "tatumflow", *settings, "--dry-run")
    assert (status, messages) == (0, "")
    parts = [line.split()[1] for line in out.splitlines() if line.startswith("#   ")]
    assert {"style_priors", "encoder", "decoder", "style_encoder", "denoiser", "critics", "activations,"} <= set(parts)
    (tmp_path / "recipe.toml").write_text(out)
    recipe = build_recipe(load_toml(tmp_path / "recipe.toml"))
    assert recipe == build_recipe(load_preset_table("tatumflow"), settings)


@pytest.mark.parametrize(("size", "millions"), [("small", 6), ("large", 350)])
def test_presets_are_shown_with_their_parameters(size, millions):
    status, out, _ = mtk("models", "show", f"tatumflow-{size}")
    assert status == 0
    count = int(out.split("total")[1].split()[0].replace(",", ""))
    assert count / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(
    ("change", "status", "words", "hint"),
    [
        (
            'model.styles=["high"]',
            2,
            "the styles of data.train are high, low, those of the model high",
            "set model.styles",
        ),
        ('data.train.low=["nowhere"]', 3, "no such file or folder (nowhere)", "folders of MIDI files"),
        ("data.tokens=4000", 2, "data.tokens is more than the model's 768", "set data.tokens=768"),
        ("data.corruption=7", 2, "corruption is from 0 to 1", ""),
        ("model.heads=2", 2, "2 heads are too few for 3 scales", ""),
    ],
)
def test_a_bad_recipe_is_one_line_and_makes_no_folder(settings, tmp_path, change, status, words, hint):
    found, out, messages = mtk("train", "--preset", "tatumflow", *settings, change, "-o", tmp_path / "run")
    first, *more = messages.splitlines()
    assert (found, out, words in first) == (status, "", True), messages
    assert [hint in line and line.startswith("hint: ") for line in more] == [True] * bool(hint)
    assert not (tmp_path / "run").exists()


def test_recipes_that_ship_are_whole_and_finetuning_is_gentler():
    fresh, gentle = build_recipe(load_preset_table("tatumflow")), build_recipe(load_finetuning_table("tatumflow"))
    assert gentle.optimiser.learning_rate < fresh.optimiser.learning_rate
    example = build_recipe(load_toml(EXAMPLE_RECIPE))
    changing = {"data.tokens", "loss.diffusion_share", "data.corruptions"}
    for recipe in (fresh, gentle, example):
        assert recipe.task == "style-transfer"
        assert {curve.value for curve in recipe.curriculum} >= changing
