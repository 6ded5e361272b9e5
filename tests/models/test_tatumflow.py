"""TatumFlow: what each part sees and does not see, and where gradients end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from musictool.checkpoints.store import Store
from musictool.core.multiscale import TimeScales
from musictool.core.noise_schedule import Sampler
from musictool.errors import UsageError
from musictool.inference.model_files import load_model
from musictool.models.registry import build_model, config_from_dict, load_preset
from musictool.models.tatumflow import NO_FACTOR, Draws, Lesson, Outcome, TatumFlow, TatumFlowConfig, Way, swapped
from musictool.models.tatumflow_parts import LEVELS, THEORY_WIDTH, Steps, Style, Wish, _Reversal, keys_of
from musictool.symbolic.theory import FACTORS, WIDTHS
from tests.small_models import SMALL_TATUMFLOW, install_small_tatumflow, random_tatumflow

SMALL = SMALL_TATUMFLOW
FRAMES, LATENT, STYLE = 13, SMALL.latent_width, SMALL.style_width
TICKS = SMALL.frame_ticks


def logits_of(model: TatumFlow, steps: Steps, read: Tensor) -> Tensor:
    """What the decoder says of whole windows."""
    logits: Tensor = model.decoder(steps, keys_of(steps, model.config), read)
    return logits


@pytest.fixture(scope="module")
def model() -> TatumFlow:
    return random_tatumflow()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(1)


def visible_frames(*counts: int) -> Tensor:
    return torch.arange(max(counts)) < torch.tensor(counts)[:, None]


def random_steps(frames: Iterable[int], ids: Iterable[int]) -> Steps:
    """Rows of ids at rising times inside so many frames; behind a row's ids stands something else."""
    lengths = torch.tensor(list(ids))
    rows, steps = len(lengths), int(lengths.max())
    is_there = torch.arange(steps) < lengths[:, None]
    ends = torch.tensor(list(frames))[:, None] * TICKS
    ticks = (torch.rand(rows, steps) * ends).long()
    ticks = torch.where(is_there, ticks, 10**6).sort(1).values
    ticks = torch.where(is_there, ticks, torch.randint(ends.max(), (rows, steps)))
    return Steps(torch.randint(3, SMALL.vocabulary, (rows, steps)), ticks, is_there)


def random_wish(rows: int, frames: int = FRAMES) -> Wish:
    return Wish(
        torch.randn(rows, len(LEVELS), STYLE),
        torch.ones(rows, len(LEVELS), dtype=torch.bool),
        torch.rand(rows, frames, THEORY_WIDTH),
        torch.ones(rows, len(FACTORS), dtype=torch.bool),
    )


def random_style(rows: int) -> Style:
    return Style(torch.randn(rows, len(LEVELS), STYLE), torch.ones(rows, len(LEVELS), dtype=torch.bool))


def random_lesson(*frames: int, steps: int = 24) -> Lesson:
    rows = len(frames)
    seen = random_steps(frames, [steps] * rows)
    told = random_steps(frames, [steps] * rows)._replace(visible=None)
    theory = torch.rand(rows, max(frames), THEORY_WIDTH)
    return Lesson(seen, told, visible_frames(*frames), theory, torch.arange(rows) % len(SMALL.styles))


def random_draws(lesson: Lesson, repeats: int = 2) -> Draws:
    """Everything told, nothing hidden, and each row's first factor exchanged with the row before."""
    rows, frames = lesson.visible.shape
    many = rows * repeats
    return Draws(
        latent_noise=0.1 * torch.randn(rows, frames, LATENT),
        hidden=torch.zeros(lesson.told.ids.shape, dtype=torch.bool),
        style_noise=torch.randn(rows, len(LEVELS), STYLE),
        uses_prior=torch.zeros(rows, dtype=torch.bool),
        step=torch.randint(1, SMALL.diffusion_steps, (many,)),
        noise=torch.randn(many, frames, LATENT),
        knows_style=torch.ones(many, len(LEVELS), dtype=torch.bool),
        knows_theory=torch.ones(many, len(FACTORS), dtype=torch.bool),
        donor=torch.arange(rows).roll(1),
        factor=torch.zeros(rows, dtype=torch.int64),
        swap_step=torch.randint(1, SMALL.diffusion_steps, (rows,)),
        swap_noise=torch.randn(rows, frames, LATENT),
    )


def reached(model: TatumFlow, value: Tensor) -> set[str]:
    """The parts that a value's gradient reaches; the embedding of ids, which two have in common, on its own."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(value, parameters, allow_unused=True, retain_graph=True)
    return {
        "tokens" if "tokens" in name else name.partition(".")[0]
        for name, gradient in zip(names, found, strict=True)
        if gradient is not None and gradient.any()
    }


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- a row and its batch


def row_of(steps: Steps, row: int, count: int) -> Steps:
    return Steps(steps.ids[row : row + 1, :count], steps.ticks[row : row + 1, :count])


def ending(steps: Steps, frames: Iterable[int]) -> Steps:
    """The same, but for the last ids of each row, which stand at the end of its last frame."""
    assert steps.visible is not None
    is_last = steps.visible & (steps.visible.flip(1).cumsum(1).flip(1) <= 3)
    return steps._replace(ticks=torch.where(is_last, torch.tensor(list(frames))[:, None] * TICKS, steps.ticks))


@torch.no_grad()
def test_a_row_is_encoded_in_a_padded_batch_as_it_is_alone(model):
    frames, ids = (16, 7, 1), (40, 12, 3)
    steps = ending(random_steps(frames, ids), frames)
    together = model.encoder(steps, visible_frames(*frames))
    for row, (count, length) in enumerate(zip(frames, ids, strict=True)):
        alone = model.encoder(row_of(steps, row, length), visible_frames(count))
        assert_same(together[row, :count], alone[0])


@torch.no_grad()
def test_the_style_of_a_row_in_a_padded_batch_is_its_style_alone(model):
    frames = (16, 7, 1)
    latents, theory = torch.randn(3, 16, LATENT), torch.rand(3, 16, THEORY_WIDTH)
    together = model.style_encoder(latents, theory, visible_frames(*frames))
    assert together.mean.shape == (3, len(LEVELS), STYLE)
    for row, count in enumerate(frames):
        here = slice(row, row + 1), slice(0, count)
        alone = model.style_encoder(latents[here], theory[here], visible_frames(count))
        assert_same(together.mean[row], alone.mean[0])
        assert_same(together.log_variance[row], alone.log_variance[0])


@torch.no_grad()
@pytest.mark.parametrize("frames", [(16, 7, 1), (13, 6, 3)])
def test_a_row_is_denoised_in_a_padded_batch_as_it_is_alone(model, frames):
    most = max(frames)
    noisy, step, wish = torch.randn(3, most, LATENT), torch.tensor([1, 400, 1000]), random_wish(3, most)
    together = model.denoiser(noisy, step, wish, visible_frames(*frames))
    assert together.std() > 0.1
    for row, count in enumerate(frames):
        own = Wish(*(part[row : row + 1] for part in wish))
        own = own._replace(theory=own.theory[:, :count])
        alone = model.denoiser(noisy[row : row + 1, :count], step[row : row + 1], own, visible_frames(count))
        assert_same(together[row, :count], alone[0])


@torch.no_grad()
def test_a_row_is_written_in_a_padded_batch_as_it_is_alone(model):
    frames, ids = (16, 7), (40, 12)
    steps = ending(random_steps(frames, ids), frames)._replace(visible=None)
    latents, style = torch.randn(2, 16, LATENT), random_style(2)
    together = logits_of(model, steps, model.decoder.read(latents, visible_frames(*frames), style))
    for row, (count, length) in enumerate(zip(frames, ids, strict=True)):
        own = Style(*(part[row : row + 1] for part in style))
        read = model.decoder.read(latents[row : row + 1, :count], visible_frames(count), own)
        assert_same(together[row, :length], logits_of(model, row_of(steps, row, length), read)[0])


@torch.no_grad()
def test_theory_is_read_off_a_row_in_a_padded_batch_as_off_the_row_alone(model):
    latents = torch.randn(2, 16, LATENT)
    together = model.critics.read(latents, visible_frames(16, 7), is_taught=True)
    assert_same(together[1, :7], model.critics.read(latents[1:, :7], visible_frames(7), is_taught=True)[0])


@torch.no_grad()
def test_a_window_of_which_nothing_is_left_to_see_is_encoded_beside_others(model):
    steps = random_steps((4, 4), (9, 0))
    latents = model.encoder(steps, visible_frames(4, 4))
    assert_same(latents[:1], model.encoder(row_of(steps, 0, 9), visible_frames(4)))
    assert_same(latents[1:], model.encoder(row_of(steps, 1, 0), visible_frames(4)))


# --------------------------------------------------------------------------------------------------- encoder and style


@torch.no_grad()
def test_each_number_of_latents_is_brought_to_mean_0_and_variance_1_over_frames_that_are_there():
    model = random_tatumflow()
    steps, visible = random_steps((16, 7), (40, 12)), visible_frames(16, 7)
    first = model.encoder(steps, visible)
    model.train()
    latents = model.encoder(steps, visible)
    assert not latents[~visible].any()
    torch.testing.assert_close(latents[visible].mean(0), torch.zeros(LATENT), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents[visible].var(0, correction=0), torch.ones(LATENT), atol=1e-2, rtol=0)
    for _ in range(100):
        model.encoder(steps, visible)
    settled = model.eval().encoder(steps, visible)
    torch.testing.assert_close(settled, latents, atol=0.05, rtol=0.05)  # what it has learnt holds for any batch
    assert not torch.allclose(first, settled, atol=0.1)


def test_without_layers_a_latent_is_of_the_ids_that_stand_in_its_frame():
    model = random_tatumflow(replace(SMALL, encoder_layers=0, frame_layers=0))
    steps = random_steps((8,), (20,))
    before = model.encoder(steps, visible_frames(8))
    place = 11
    after = model.encoder(steps._replace(ids=steps.ids.index_fill(1, torch.tensor(place), 5)), visible_frames(8))
    assert (before != after).any(-1)[0].nonzero().flatten().tolist() == [int(steps.ticks[0, place]) // TICKS]


@torch.no_grad()
def test_when_in_its_frame_an_id_stands_is_seen(model):
    steps = random_steps((8,), (20,))
    ticks = steps.ticks.clone()
    ticks[0, 3] = ticks[0, 3] // TICKS * TICKS + (ticks[0, 3] + 7) % TICKS
    before, after = (model.encoder(steps._replace(ticks=each), visible_frames(8)) for each in (steps.ticks, ticks))
    assert (before - after).abs().max() > 1e-3


@torch.no_grad()
def test_a_mix_of_named_styles_lies_between_their_priors_and_knows_the_genre_alone(model):
    style, is_known = model.style_named(torch.tensor([0.25, 0.0, 0.75, 0.0]))
    torch.testing.assert_close(style[0, 0], 0.25 * model.style_priors[0] + 0.75 * model.style_priors[2])
    assert is_known.tolist() == [[True, False, False]]
    assert (style.shape, not style[0, 1:].any()) == ((1, len(LEVELS), STYLE), True)


@torch.no_grad()
def test_the_likeliest_genre_is_the_one_whose_prior_is_nearest(model):
    lesson = random_lesson(9, 9, 9)
    outcome = model(lesson, random_draws(lesson))
    distance = torch.cdist(outcome.style.mean[:, 0], model.style_priors)
    torch.testing.assert_close(outcome.genre, -0.5 * distance.square())
    torch.testing.assert_close(outcome.off_prior[:, 0], outcome.style.mean[:, 0] - model.style_priors[lesson.genre])
    assert torch.equal(outcome.off_prior[:, 1:], outcome.style.mean[:, 1:])


# ------------------------------------------------------------------------------------------------------------- decoder


@torch.no_grad()
def test_decoder_is_causal(model):
    steps, read = random_steps((FRAMES,), (30,))._replace(visible=None), torch.randn(1, FRAMES, SMALL.width)
    other = random_steps((FRAMES,), (30,))
    for place in (0, 11, 29):
        changed = Steps(*(torch.cat([one[:, :place], two[:, place:]], 1) for one, two in zip(steps[:2], other[:2])))
        before, after = logits_of(model, steps, read), logits_of(model, changed, read)
        assert_same(before[:, :place], after[:, :place])
        assert (before[:, place] - after[:, place]).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 30, [7, 1, 22]])
def test_cached_decode_equals_full_forward(model, sizes):
    steps, read = random_steps((FRAMES, FRAMES), (30, 30))._replace(visible=None), torch.randn(2, FRAMES, SMALL.width)
    keys = keys_of(steps, model.config)
    cache = model.decoder.layers.new_cache(2)
    said, first = [], 0
    for size in sizes:
        positions = cache.begin(size)
        part = Steps(steps.ids[:, first : first + size], steps.ticks[:, first : first + size])
        said.append(model.decoder(part, keys[:, first : first + size], read, cache=cache, positions=positions))
        cache.commit(size)
        first += size
    assert_same(torch.cat(said, 1), logits_of(model, steps, read))


def test_keys_are_down_from_their_press_to_their_release():
    config = TatumFlowConfig()
    on, off, time = config.note_on_id, config.note_off_id, 2
    ids = [config.start_id, on + 60, time + 10, on + 64, off + 60, time + 30, on + 60, off + 64]
    ticks = [0, 0, 10, 10, 10, 40, 40, 40]
    keys = keys_of(Steps(torch.tensor([ids]), torch.tensor([ticks])), config)[0]
    down = [[], [60], [60], [60, 64], [64], [64], [60, 64], [60]]
    pressed = [[], [60], [60], [60, 64], [60, 64], [], [60], [60]]  # in this frame of 25 ticks
    assert [row.nonzero().flatten().tolist() for row in keys[:, :128]] == down
    assert [row.nonzero().flatten().tolist() for row in keys[:, 128:]] == pressed


def seen_frames(model: TatumFlow, steps: Steps, place: int) -> list[int]:
    """The frames whose latents the logits after an id depend on."""
    latents = torch.randn(1, FRAMES, LATENT, requires_grad=True)
    logits = logits_of(model, steps, model.decoder.read(latents, visible_frames(FRAMES), random_style(1)))
    (gradient,) = torch.autograd.grad(logits[0, place].square().sum(), latents)
    return gradient[0].any(-1).nonzero().flatten().tolist()


def test_a_decoder_without_frame_layers_sees_frames_it_has_come_to_and_the_one_after_each():
    model = random_tatumflow(replace(SMALL, frame_layers=0))
    frames = torch.tensor([[0, 0, 2, 2, 2, 7, 7, 12, 12]])
    steps = Steps(torch.randint(3, SMALL.vocabulary, frames.shape), frames * TICKS + 4)
    assert seen_frames(model, steps, 1) == [0, 1]
    assert seen_frames(model, steps, 4) == [0, 1, 2, 3]
    assert seen_frames(model, steps, 6) == [0, 1, 2, 3, 7, 8]
    assert seen_frames(model, steps, 8) == [0, 1, 2, 3, 7, 8, 12]


def test_frame_layers_show_the_decoder_all_frames_from_the_first_id_on(model):
    steps = random_steps((FRAMES,), (5,))._replace(visible=None)
    assert seen_frames(model, steps, 0) == list(range(FRAMES))


@torch.no_grad()
def test_what_happens_behind_the_last_frame_is_told_of_the_last(model):
    read = torch.randn(1, 4, SMALL.width)
    ids = torch.tensor([[5, 6]])
    inside, behind = (Steps(ids, torch.tensor([[10, tick]])) for tick in (75, 100))
    assert_same(logits_of(model, inside, read), logits_of(model, behind, read))


@torch.no_grad()
def test_a_level_of_style_that_is_not_told_says_nothing_to_the_decoder(model):
    steps, latents = random_steps((FRAMES,), (9,))._replace(visible=None), torch.randn(1, FRAMES, LATENT)
    for level in range(len(LEVELS)):
        is_known = torch.arange(len(LEVELS))[None] != level
        said = []
        for style in (random_style(1), random_style(1)):
            values = torch.where(is_known[..., None], torch.ones(()), style.values)  # they differ in that level alone
            for known in (is_known, torch.ones_like(is_known)):
                read = model.decoder.read(latents, visible_frames(FRAMES), Style(values, known))
                said.append(logits_of(model, steps, read))
        untold, told, other_untold, other_told = said
        assert torch.equal(untold, other_untold)
        assert (told - other_told).abs().max() > 0.01


@torch.no_grad()
def test_what_is_read_denoised_at_once_and_told_is_what_training_sees(model):
    lesson = random_lesson(9, 9)
    draws = random_draws(lesson, repeats=1)
    latents, wish = model.read(lesson, draws)
    outcome = model(lesson, draws)
    assert_same(latents, outcome.latents)
    still = draws._replace(step=torch.zeros(2, dtype=torch.int64))
    assert_same(model.denoise_at_once(latents, wish, still, lesson.visible), latents)
    assert_same(model.tell(lesson, latents + draws.latent_noise, wish, draws), outcome.logits)
    made = model.denoise_at_once(latents, wish, draws, lesson.visible)
    noisy = model.schedule.add_noise(latents, draws.noise, draws.step)
    assert_same(made, model.schedule.estimate(noisy, outcome.prediction, draws.step).x0)


# --------------------------------------------------------------------------------------------------------- carried over


WAY = Way(0.7, Sampler("ddim", 6), 2.0, 3.0)


@torch.no_grad()
def test_latents_are_carried_as_the_formula_of_guidance_says(model):
    source, wish, visible = torch.randn(2, 9, LATENT), random_wish(2, 9), visible_frames(9, 9)
    found = model.carry(source, visible, wish, WAY, torch.Generator().manual_seed(4))
    nothing = wish._replace(
        knows_style=torch.zeros_like(wish.knows_style), knows_theory=torch.zeros_like(wish.knows_theory)
    )
    theory = wish._replace(knows_style=nothing.knows_style)

    def denoise(noisy: Tensor, level: Tensor) -> Tensor:
        none, some, all_of_it = (model.denoiser(noisy, level, each, visible) for each in (nothing, theory, wish))
        return none + 2.0 * (some - none) + 3.0 * (all_of_it - some)

    generator = torch.Generator().manual_seed(4)
    strength = model.schedule.strength_keeping(0.3)
    expected = model.schedule.sample(denoise, source, generator, strength=strength, sampler=WAY.sampler)
    assert_same(found, expected)
    assert (found - source).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("untold", [("knows_style",), ("knows_theory",), ("knows_style", "knows_theory")])
def test_what_is_not_told_has_no_guidance(model, untold):
    source, visible = torch.randn(1, 9, LATENT), visible_frames(9)
    wish = random_wish(1, 9)
    wish = wish._replace(**{name: torch.zeros_like(getattr(wish, name)) for name in untold})
    strong = WAY._replace(
        style_guidance=9.0 if "knows_style" in untold else WAY.style_guidance,
        theory_guidance=9.0 if "knows_theory" in untold else WAY.theory_guidance,
    )
    one, other = (model.carry(source, visible, wish, way, torch.Generator().manual_seed(4)) for way in (WAY, strong))
    assert torch.equal(one, other)


@torch.no_grad()
def test_held_frames_stay_and_the_others_follow_them(model):
    source, wish, visible = torch.randn(1, 9, LATENT), random_wish(1, 9), visible_frames(9)
    made = [
        model.carry(source, visible, wish, WAY, torch.Generator().manual_seed(4), held)
        for held in (torch.zeros(1, 3, LATENT), torch.ones(1, 3, LATENT))
    ]
    assert not made[0][:, :3].any()
    assert (made[1][:, :3] == 1).all()
    assert (made[0][:, 3:] - made[1][:, 3:]).abs().max() > 1e-3


@torch.no_grad()
def test_a_hidden_id_says_nothing_to_the_decoder_but_by_the_keys(model):
    lesson = random_lesson(9, 9)
    hidden = torch.zeros(lesson.told.ids.shape, dtype=torch.bool)
    hidden[:, 5:8] = True
    lesson, other = (  # two ids that move no key
        lesson._replace(told=lesson.told._replace(ids=lesson.told.ids.masked_fill(hidden, id))) for id in (5, 77)
    )
    for is_hidden in (hidden, torch.zeros_like(hidden)):
        draws = random_draws(lesson)._replace(hidden=is_hidden, latent_noise=torch.zeros(2, 9, LATENT))
        before, after = model(lesson, draws).logits, model(other, draws).logits
        assert torch.equal(before, after) == bool(is_hidden.any())


# ------------------------------------------------------------------------------------------------------------ denoiser


@torch.no_grad()
def say(model: TatumFlow, wish: Wish) -> Tensor:
    noisy = torch.randn(2, FRAMES, LATENT, generator=torch.Generator().manual_seed(3))
    said: Tensor = model.denoiser(noisy, torch.tensor([300, 800]), wish, visible_frames(FRAMES, FRAMES))
    return said


@pytest.mark.parametrize("factor", range(len(FACTORS)))
def test_an_open_factor_of_theory_ignores_its_value_and_a_given_one_does_not(model, factor):
    wish = random_wish(2)
    other = wish._replace(theory=swapped(wish.theory, torch.tensor([1, 0]), torch.tensor([factor, factor])))
    is_open = wish.knows_theory.index_fill(1, torch.tensor(factor), False)
    assert torch.equal(*(say(model, each._replace(knows_theory=is_open)) for each in (wish, other)))
    assert (say(model, wish) - say(model, other)).abs().max() > 0.01
    assert (say(model, wish) - say(model, wish._replace(knows_theory=is_open))).abs().max() > 0.01


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_an_open_level_of_style_ignores_its_value_and_a_given_one_does_not(model, level):
    wish = random_wish(2)
    other = wish._replace(style=wish.style.index_fill(1, torch.tensor(level), 0.5))
    is_open = wish.knows_style.index_fill(1, torch.tensor(level), False)
    assert torch.equal(*(say(model, each._replace(knows_style=is_open)) for each in (wish, other)))
    assert (say(model, wish) - say(model, other)).abs().max() > 0.01
    assert (say(model, wish) - say(model, wish._replace(knows_style=is_open))).abs().max() > 0.01


def test_the_theory_of_a_frame_reaches_all_frames(model):
    wish = random_wish(2)
    theory = wish.theory.clone()
    theory[:, 0] += 1
    assert ((say(model, wish) - say(model, wish._replace(theory=theory))).abs().amax((0, 2)) > 1e-5).all()


def test_every_scale_of_time_has_a_say_and_learns():
    model = random_tatumflow()
    wish, attention = random_wish(2), model.denoiser.layers[0].attention
    assert len(attention.attentions) == len(SMALL.scales) == 3
    before = say(model, wish)
    model.denoiser(
        torch.randn(2, FRAMES, LATENT), torch.tensor([9, 9]), wish, visible_frames(FRAMES, 5)
    ).sum().backward()
    for each in attention.attentions:
        assert each.query.weight.grad.any()
        kept = each.output.weight.detach().clone()
        with torch.no_grad():
            each.output.weight.zero_()
        assert (say(model, wish) - before).abs().max() > 0.01
        with torch.no_grad():
            each.output.weight.copy_(kept)


def test_the_denoiser_attends_at_1x_2x_and_4x_time():
    model, wish = random_tatumflow(), random_wish(2)
    before = say(model, wish)
    for place in range(3):
        scales = [scale if number != place else 3 for number, scale in enumerate(SMALL.scales)]
        model.denoiser.scales = TimeScales(SMALL.width // SMALL.heads, scales)
        assert (say(model, wish) - before).abs().max() > 1e-3
    model.denoiser.scales = TimeScales(SMALL.width // SMALL.heads, (1, 2, 4))
    assert torch.equal(say(model, wish), before)


def test_an_untrained_denoiser_says_nothing():
    torch.manual_seed(0)
    assert not say(TatumFlow(SMALL), random_wish(2)).any()


def test_the_diffusion_sees_each_row_as_often_as_draws_ask_and_aims_at_what_the_schedule_says(model):
    lesson = random_lesson(9, 7)
    draws = random_draws(lesson, repeats=3)
    outcome = model(lesson, draws)
    assert outcome.prediction.shape == outcome.target.shape == (6, 9, LATENT)
    latents = outcome.latents.detach()
    for number in range(6):
        row = slice(number % 2, number % 2 + 1)
        one = slice(number, number + 1)
        noisy = model.schedule.add_noise(latents[row], draws.noise[one], draws.step[one])
        found = model.schedule.estimate(noisy, outcome.target[one], draws.step[one])
        assert_same(found.x0, latents[row])
        drawn = outcome.style.draw(draws.style_noise)[row]
        wish = Wish(drawn, draws.knows_style[one], lesson.theory[row], draws.knows_theory[one])
        assert_same(outcome.prediction[one], model.denoiser(noisy, draws.step[one], wish, lesson.visible[row]))


@torch.no_grad()
def test_a_genre_told_by_its_prior_is_not_the_one_that_is_heard(model):
    lesson = random_lesson(9, 9)
    draws = random_draws(lesson)
    draws = draws._replace(knows_style=draws.knows_style & torch.tensor([True, False, False]))
    noises = (draws.style_noise, torch.randn_like(draws.style_noise))
    for uses_prior in (True, False):
        drawn = [draws._replace(style_noise=each, uses_prior=torch.tensor([uses_prior] * 2)) for each in noises]
        assert torch.equal(*(model(lesson, each).prediction for each in drawn)) == uses_prior


# -------------------------------------------------------------------------------------------------------------- theory


@pytest.mark.parametrize("factor", [*range(len(FACTORS)), NO_FACTOR])
def test_swapped_exchanges_exactly_the_one_factor(factor):
    theory = torch.rand(3, FRAMES, THEORY_WIDTH)
    kept, donor = theory.clone(), torch.tensor([2, 0, 1])
    result = swapped(theory, donor, torch.tensor([factor, NO_FACTOR, factor]))
    assert torch.equal(theory, kept)
    assert torch.equal(result[1], theory[1])
    parts, own, donors = (
        each.split([WIDTHS[name] for name in FACTORS], -1) for each in (result, theory, theory[donor])
    )
    for number in range(len(FACTORS)):
        for row in (0, 2):
            assert torch.equal(parts[number][row], (donors if number == factor else own)[number][row])


def test_the_exchanged_theory_and_no_style_is_what_the_judged_latents_were_made_under(model):
    lesson = random_lesson(9, 9)
    draws = random_draws(lesson)
    outcome = model(lesson, draws)
    assert torch.equal(outcome.swapped_theory, swapped(lesson.theory, draws.donor, draws.factor))
    noisy = model.schedule.add_noise(outcome.latents, draws.swap_noise, draws.swap_step)
    wish = Wish(
        torch.randn(2, len(LEVELS), STYLE),
        torch.zeros(2, len(LEVELS), dtype=torch.bool),
        outcome.swapped_theory,
        torch.ones(2, len(FACTORS), dtype=torch.bool),
    )
    said = model.denoiser(noisy, draws.swap_step, wish, lesson.visible)
    made = model.schedule.estimate(noisy, said, draws.swap_step).x0
    assert_same(outcome.swapped_read, model.critics.read(made, lesson.visible, is_taught=False))


def test_a_reader_that_is_not_taught_keeps_its_weights_from_gradients(model):
    latents = torch.randn(2, FRAMES, LATENT, requires_grad=True)
    everywhere = visible_frames(FRAMES, FRAMES)
    weights = list(model.critics.reader.parameters())
    taught, asked = (model.critics.read(latents, everywhere, is_taught=each) for each in (True, False))
    assert torch.equal(taught, asked)
    of_taught, of_asked = (
        torch.autograd.grad(read.sum(), [latents, *weights], allow_unused=True) for read in (taught, asked)
    )
    assert torch.equal(of_taught[0], of_asked[0])
    assert of_asked[0].any()
    assert all(gradient.any() for gradient in of_taught[1:])
    assert of_asked[1:] == (None,) * len(weights)


def test_suspicion_teaches_the_critic_and_turns_round_for_the_denoiser(model, monkeypatch):
    lesson = random_lesson(9, 9)
    draws = random_draws(lesson)
    parts = {name: list(getattr(model, name).parameters()) for name in ("denoiser", "critics")}

    def gradients() -> dict[str, Tensor]:
        loss = nn.functional.cross_entropy(model(lesson, draws).suspicion, draws.factor)
        found = {
            name: torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True) for name, of in parts.items()
        }
        return {name: torch.cat([g.flatten() for g in of if g is not None]) for name, of in found.items()}

    turned = gradients()
    monkeypatch.setattr(_Reversal, "apply", lambda x: x)
    plain = gradients()
    assert plain["denoiser"].abs().max() > 1e-6
    torch.testing.assert_close(turned["denoiser"], -plain["denoiser"])
    assert plain["critics"].any()
    torch.testing.assert_close(turned["critics"], plain["critics"])


# ----------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (lambda outcome: outcome.logits.square().mean(), {"tokens", "encoder", "decoder"}),
        (lambda outcome: outcome.prediction.square().mean(), {"denoiser", "style_encoder"}),
        (lambda outcome: outcome.genre.square().mean(), {"style_encoder", "style_priors"}),
        (lambda outcome: outcome.off_prior.square().mean(), {"style_encoder", "style_priors"}),
        (lambda outcome: outcome.style.log_variance.square().mean(), {"style_encoder"}),
        (lambda outcome: outcome.theory_read.square().mean(), {"tokens", "encoder", "critics"}),
        (lambda outcome: outcome.swapped_read.square().mean(), {"denoiser"}),
        (lambda outcome: outcome.suspicion.square().mean(), {"denoiser", "critics"}),
    ],
)
def test_a_gradient_reaches_whom_it_concerns_and_the_encoder_from_decoder_and_reader_alone(
    model, value: Callable[[Outcome], Tensor], parts: set[str]
):
    lesson = random_lesson(9, 7)
    assert reached(model, value(model(lesson, random_draws(lesson)))) == parts


def test_layers_that_are_computed_again_give_the_same_gradients():
    lesson = random_lesson(9, 7)
    draws = random_draws(lesson)
    kept, gradients = [0, 0], []
    for checkpoints in (False, True):
        model = random_tatumflow().train()
        model.denoiser.checkpoints_gradients = checkpoints

        def keep(tensor: Tensor, number: int = int(checkpoints)) -> Tensor:
            kept[number] += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(lesson, draws).prediction.square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.denoiser.parameters()])
    assert kept[1] < kept[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


# ----------------------------------------------------------------------------------------------- numbers and what ships


@pytest.mark.parametrize(("size", "millions"), [("small", 6), ("base", 86), ("large", 350)])
def test_presets_have_the_size_they_are_named_for(size, millions):
    model = build_model(load_preset(f"tatumflow-{size}"), "meta")
    assert [name for name in model.state_dict() if "tokens" in name] == ["decoder.tokens.weight"]  # kept once
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


def test_the_small_preset_takes_at_most_12_megabytes_in_half_precision():
    model = build_model(replace(load_preset("tatumflow-small"), styles=tuple("abcdefgh")), "meta")
    assert 2 * sum(tensor.numel() for tensor in model.state_dict().values()) < 12e6


def test_encoder_and_decoder_read_ids_with_the_same_weights():
    model = random_tatumflow()
    lesson = random_lesson(9, 9)
    draws = random_draws(lesson)
    before = model(lesson, draws)
    with torch.no_grad():
        model.decoder.tokens.weight.add_(torch.randn_like(model.decoder.tokens.weight))
    assert (model(lesson, draws).latents - before.latents).abs().max() > 0.1


@torch.no_grad()
def test_a_stored_model_says_what_it_said(model, tmp_path):
    install_small_tatumflow(tmp_path)
    loaded = load_model("tatumflow", store=Store(tmp_path))
    assert loaded.config == SMALL
    lesson = random_lesson(9, 7)
    draws = random_draws(lesson)
    for name, one, other in zip(Outcome._fields, model(lesson, draws), loaded.model(lesson, draws), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"styles": ["a", "b", "a"]}, "two styles have one name"),
        ({"width": 30, "heads": 6}, "no even multiple"),
        ({"width": 32, "heads": 2}, "2 heads are too few for 3 scales"),
        ({"scales": []}, "one at least"),
        ({"scales": [1, 0]}, "from 1 upwards"),
        ({"schedule": "cosin"}, "'schedule' is 'cosin'"),
        ({"styles": ["a"], "chords": {"b": ["maj"]}}, "chords of what is no style"),
        ({"styles": ["a"], "chords": {"a": ["maj9"]}}, "no such chord: 'maj9'"),
    ],
)
def test_numbers_that_make_no_model_are_refused(values, words):
    with pytest.raises(UsageError, match=words):
        config_from_dict({"family": "tatumflow", **values})
