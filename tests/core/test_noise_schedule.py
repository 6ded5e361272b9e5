"""Noise schedules, samplers and guidance on Gaussians and mixtures of them, of which all is known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from musictool.core.noise_schedule import NoiseSchedule, Sampler, guided, guided_by_each

MEAN = np.array([1.0, -0.5])
COVARIANCE = np.array([[1.2, 0.5], [0.5, 0.4]])
KINDS = ("linear", "cosine")
PREDICTIONS = ("v", "noise")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def expected_x0(alpha_bar: float) -> np.ndarray:
    """K of E[x_0 | x_t] = mean + K (x_t - sqrt(alpha_bar) mean) for the Gaussian above."""
    return math.sqrt(alpha_bar) * COVARIANCE @ np.linalg.inv(alpha_bar * COVARIANCE + (1 - alpha_bar) * np.eye(2))


def gaussian_denoiser(schedule: NoiseSchedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact prediction for data of the Gaussian above, at levels that all rows share."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = float(schedule.alpha_bar[t[0]])
        signal, spread = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
        mean = torch.from_numpy(MEAN)
        x0 = mean + (x - signal * mean) @ torch.from_numpy(expected_x0(alpha_bar)).T
        noise = (x - signal * x0) / spread
        return noise if schedule.prediction == "noise" else signal * noise - spread * x0

    return denoise


def chain_moments(schedule: NoiseSchedule, steps: int, eta: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance at the end of the linear chain of Song et al. (2021), equation 12, without sampling."""
    mean, covariance = np.zeros(2), np.eye(2)
    levels = [schedule.steps * k // steps for k in range(steps, -1, -1)]
    table = schedule.alpha_bar.numpy()
    for now, after in zip(table[levels[:-1]], table[levels[1:]]):
        sigma = eta * math.sqrt((1 - after) / (1 - now)) * math.sqrt(1 - now / after)
        to_x0 = expected_x0(now)
        to_noise = (np.eye(2) - math.sqrt(now) * to_x0) / math.sqrt(1 - now)
        turn = math.sqrt(after) * to_x0 + math.sqrt(max(0.0, 1 - after - sigma**2)) * to_noise
        mean = math.sqrt(after) * MEAN + turn @ (mean - math.sqrt(now) * MEAN)
        covariance = turn @ covariance @ turn.T + sigma**2 * np.eye(2)
    return mean, covariance


def error_of(covariance: np.ndarray) -> float:
    return float(np.linalg.norm(covariance - COVARIANCE) / np.linalg.norm(COVARIANCE))


# --- the schedule -----------------------------------------------------------------------------------------------------


def test_schedules_are_the_published_ones():
    linear, cosine = (NoiseSchedule(kind).alpha_bar.numpy() for kind in KINDS)
    np.testing.assert_allclose(linear[1:], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)), rtol=1e-12)
    time = np.arange(1001) / 1000
    squares = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine[:-1], squares[:-1] / squares[0], rtol=1e-9)
    assert cosine[-1] == pytest.approx(cosine[-2] * 0.001)  # where the paper clips beta at 0.999


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [10, 100, 1000, 4000])
def test_any_number_of_levels_leads_from_the_data_to_noise(kind, steps):
    alpha_bar = NoiseSchedule(kind, steps).alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert alpha_bar.shape == (steps + 1,)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert 0 < alpha_bar[-1] < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_exact_prediction_gives_back_data_and_noise(kind, prediction):
    schedule = NoiseSchedule(kind, prediction=prediction)
    x0, noise = normal(6, 3, 4, seed=1), normal(6, 3, 4, seed=2)
    t = torch.tensor([1, 2, 250, 500, 990, 1000])
    x = schedule.add_noise(x0, noise, t)
    alpha_bar = schedule.alpha_bar[t].view(-1, 1, 1)
    torch.testing.assert_close(x, alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise)
    estimate = schedule.estimate(x, schedule.target(x0, noise, t), t)
    torch.testing.assert_close(estimate.x0, x0, atol=1e-10, rtol=0)
    torch.testing.assert_close(estimate.noise, noise, atol=1e-10, rtol=0)


def test_v_is_the_noise_at_level_0_and_less_the_data_at_the_end():
    schedule = NoiseSchedule()
    x0, noise = normal(2, 5, seed=1), normal(2, 5, seed=2)
    v = schedule.target(x0, noise, torch.tensor([0, 1000]))
    torch.testing.assert_close(v[0], noise[0])
    torch.testing.assert_close(v[1], -x0[1], atol=1e-3, rtol=0)


def test_levels_to_train_at_are_all_but_0():
    levels = NoiseSchedule(steps=5).draw_levels(1000, seeded())
    assert levels.dtype == torch.int64
    assert torch.bincount(levels, minlength=6).tolist()[0] == 0
    assert (torch.bincount(levels)[1:] > 150).all()
    assert levels.max() == 5


# --- samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("steps", "rows"), [(10, 40_000), (50, 20_000), (1000, 4_000)])
def test_samples_have_the_moments_of_the_chain(kind, eta, steps, rows):
    schedule = NoiseSchedule(kind)
    drawn = schedule.sample(
        gaussian_denoiser(schedule),
        torch.zeros(rows, 2, dtype=torch.float64),
        seeded(steps),
        sampler=Sampler(steps=steps, eta=eta),
    ).numpy()
    mean, covariance = chain_moments(schedule, steps, eta)
    variances = np.diag(covariance)
    mean_error = np.sqrt(variances / rows)  # standard errors of a sample's moments
    covariance_error = np.sqrt((np.outer(variances, variances) + covariance**2) / rows)
    assert (np.abs(drawn.mean(0) - mean) < 4.5 * mean_error).all()
    assert (np.abs(np.cov(drawn.T) - covariance) < 4.5 * covariance_error).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_chains_come_to_the_moments_of_the_data(kind, eta):
    schedule = NoiseSchedule(kind)
    moments = [chain_moments(schedule, steps, eta) for steps in (10, 50, 250, 1000)]
    assert all(np.abs(mean - MEAN).max() < 0.006 for mean, _ in moments)
    errors = [error_of(covariance) for _, covariance in moments]
    assert errors[0] < 0.45
    assert errors[1] < 0.14
    assert errors[-1] < 0.009
    assert all(later < earlier / 3 for earlier, later in pairwise(errors))  # for four or five times the steps


def test_a_chain_without_added_noise_is_the_exact_map_of_the_first_noise():
    schedule = NoiseSchedule()
    drawn = schedule.sample(
        gaussian_denoiser(schedule), torch.zeros(50, 2, dtype=torch.float64), seeded(3), sampler=Sampler(steps=20)
    ).numpy()
    first = np.column_stack([normal(50, 2, seed=3).numpy(), np.ones(50)])
    linear, _, _, _ = np.linalg.lstsq(first, drawn, rcond=None)
    mean, covariance = chain_moments(schedule, 20, 0.0)
    np.testing.assert_allclose(linear[:2].T @ linear[:2], covariance, rtol=1e-9)
    np.testing.assert_allclose(linear[2], mean, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_ddpm_is_the_posterior_of_ho_et_al(kind):
    schedule = NoiseSchedule(kind, 30, prediction="noise")

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        return (x + 0.1 * t[:, None]).sin()

    source = normal(4, 3, seed=5)
    drawn = schedule.sample(denoise, source, seeded(6), strength=0.7, sampler=Sampler("ddpm", 1000))
    generator, table = seeded(6), schedule.alpha_bar.numpy()
    first = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    x = math.sqrt(table[21]) * source + math.sqrt(1 - table[21]) * first
    for t in range(21, 0, -1):  # algorithm 2, and the variances of equation 7
        alpha = table[t] / table[t - 1]
        predicted = denoise(x, torch.full((4,), t))
        x = (x - (1 - alpha) / math.sqrt(1 - table[t]) * predicted) / math.sqrt(alpha)
        if t > 1:
            sigma = math.sqrt((1 - table[t - 1]) / (1 - table[t]) * (1 - alpha))
            x = x + sigma * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(drawn, x, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(("kind", "strength"), [("linear", 1.0), ("cosine", 0.9)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_predictions_of_v_and_of_noise_give_the_same_chain(kind, strength, eta):
    results = []
    for prediction in PREDICTIONS:
        schedule = NoiseSchedule(kind, prediction=prediction)
        source, sampler = normal(100, 2, seed=1), Sampler(steps=30, eta=eta)
        denoise = gaussian_denoiser(schedule)
        results.append(schedule.sample(denoise, source, seeded(), strength=strength, sampler=sampler))
    torch.testing.assert_close(*results, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_a_small_error_of_the_net_stays_small_from_pure_noise_on(kind, prediction, steps):
    schedule = NoiseSchedule(kind, prediction=prediction)
    exact = gaussian_denoiser(schedule)
    source = torch.zeros(100, 2, dtype=torch.float64)
    sampler = Sampler(steps=steps)
    right = schedule.sample(exact, source, seeded(), sampler=sampler)
    wrong = schedule.sample(lambda x, t: exact(x, t) + 0.01, source, seeded(), sampler=sampler)
    assert (wrong - right).abs().max() < 0.5


@pytest.mark.parametrize(
    ("steps", "strength", "levels"),
    [
        (4, 1.0, [1000, 750, 500, 250]),
        (1, 1.0, [1000]),
        (3, 0.5, [500, 333, 166]),
        (50, 0.003, [3, 2, 1]),
        (1000, 1.0, list(range(1000, 0, -1))),
        (5000, 1.0, list(range(1000, 0, -1))),
    ],
)
def test_steps_are_spread_evenly_below_the_start(steps, strength, levels):
    seen = []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        assert (t == t[0]).all()
        seen.append(int(t[0]))
        return x

    NoiseSchedule().sample(denoise, normal(2, 3), seeded(), strength=strength, sampler=Sampler(steps=steps))
    assert seen == levels


# --- from a source ----------------------------------------------------------------------------------------------------


def test_strength_0_gives_the_source_back_and_asks_no_net():
    source = normal(2, 3)
    result = NoiseSchedule().sample(lambda x, t: pytest.fail("asked"), source, seeded(), strength=0.0)
    assert torch.equal(result, source)
    assert result.data_ptr() != source.data_ptr()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_strength_1_forgets_the_source(prediction):
    schedule = NoiseSchedule(prediction=prediction)
    denoise, sampler = gaussian_denoiser(schedule), Sampler("ddpm", 10)
    one, other = (schedule.sample(denoise, normal(4, 2, seed=s), seeded(), sampler=sampler) for s in (1, 2))
    assert torch.equal(one, other)


def test_a_chain_starts_from_the_source_at_its_level():
    schedule, source, seen = NoiseSchedule(), normal(4, 3, seed=1), []

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x

    schedule.sample(denoise, source, seeded(9), strength=0.4)
    x, t = seen[0]
    assert t.tolist() == [400] * 4
    assert torch.equal(x, schedule.add_noise(source, normal(4, 3, seed=9), t))


def test_the_stronger_the_farther_from_the_source():
    schedule, source = NoiseSchedule(), torch.from_numpy(MEAN) + normal(2000, 2)
    denoise = gaussian_denoiser(schedule)
    distances = [
        float((schedule.sample(denoise, source, seeded(1), strength=strength) - source).square().mean())
        for strength in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[1] > 0.02


# --- randomness -------------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes_and_another_seed_others():
    schedule = NoiseSchedule()
    denoise, source = gaussian_denoiser(schedule), torch.zeros(8, 2, dtype=torch.float64)
    first, again, other = (
        schedule.sample(denoise, source, seeded(s), sampler=Sampler("ddpm", 20)).numpy().tobytes() for s in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_row_with_its_own_generator_comes_out_as_if_alone():
    schedule = NoiseSchedule()
    denoise, source, sampler = gaussian_denoiser(schedule), normal(3, 5, 2), Sampler("ddpm", 20)
    together = schedule.sample(denoise, source, [seeded(s) for s in range(3)], strength=0.7, sampler=sampler)
    for row in range(3):
        alone = schedule.sample(denoise, source[row : row + 1], [seeded(row)], strength=0.7, sampler=sampler)
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-12, rtol=0)
    with pytest.raises(ValueError, match="1 generators for 3 rows"):
        schedule.sample(denoise, source, [seeded()])


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_chains_keep_the_precision_of_the_source_and_no_gradients(prediction):
    schedule, net = NoiseSchedule(prediction=prediction), torch.nn.Linear(2, 2).bfloat16()
    drawn, of_wide_predictions = (
        schedule.sample(denoise, torch.zeros(3, 2), seeded())
        for denoise in (lambda x, t: net(x.bfloat16()), lambda x, t: net(x.bfloat16()).float())
    )
    assert drawn.dtype == torch.float32
    assert not drawn.requires_grad
    assert torch.equal(drawn, of_wide_predictions)


# --- guidance ---------------------------------------------------------------------------------------------------------

CENTRES = torch.tensor([-1.0, 1.0], dtype=torch.float64)
WIDTH = 0.3


def log_density(x: Tensor, alpha_bar: Tensor, weights: Tensor) -> Tensor:
    """Of noised draws [B, 1] from two Gaussians, up to a constant of the level, [B]."""
    variance = alpha_bar * WIDTH**2 + 1 - alpha_bar
    return torch.logsumexp(weights.log() - (x - alpha_bar.sqrt() * CENTRES) ** 2 / (2 * variance), dim=-1)


def score_denoiser(
    schedule: NoiseSchedule, log_density_of: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """The noise in data of a density: the score times less the spread, by automatic differentiation."""

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alpha_bar[t][:, None]
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            (score,) = torch.autograd.grad(log_density_of(at, alpha_bar).sum(), at)
        return -(1 - alpha_bar).sqrt() * score

    return denoise


EVEN = torch.tensor([0.5, 0.5], dtype=torch.float64)
ASKED = torch.tensor([0.2, 0.8], dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0, 7.5])
def test_guidance_is_the_score_of_the_sharpened_condition(scale):
    schedule = NoiseSchedule(prediction="noise")
    x, t = normal(50, 1), torch.arange(20, 1001, 20)[:50]
    conditional = score_denoiser(schedule, lambda x, a: log_density(x, a, ASKED))(x, t)
    unconditional = score_denoiser(schedule, lambda x, a: log_density(x, a, EVEN))(x, t)
    sharpened = score_denoiser(
        schedule, lambda x, a: scale * log_density(x, a, ASKED) + (1 - scale) * log_density(x, a, EVEN)
    )
    torch.testing.assert_close(guided(conditional, unconditional, scale), sharpened(x, t))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 4.0])
def test_guidance_shifts_the_mass_of_a_mixture_as_its_formula_says(scale):
    schedule = NoiseSchedule(prediction="noise")
    with_condition = score_denoiser(schedule, lambda x, a: log_density(x, a, ASKED))
    without = score_denoiser(schedule, lambda x, a: log_density(x, a, EVEN))
    drawn = schedule.sample(
        lambda x, t: guided(with_condition(x, t), without(x, t), scale),
        torch.zeros(4000, 1, dtype=torch.float64),
        seeded(1),
        sampler=Sampler(steps=100),
    )
    masses = ASKED**scale * EVEN ** (1 - scale)
    expected = float(masses[1] / masses.sum())  # 0.5, 0.8, 0.941, 0.996
    error = math.sqrt(expected * (1 - expected) / len(drawn))
    assert float((drawn > 0).double().mean()) == pytest.approx(expected, abs=4 * error + 0.005)


def test_guidance_at_0_and_1_gives_either_prediction_to_the_last_bit():
    conditional, unconditional = normal(100, seed=1), 1e6 * normal(100, seed=2)
    assert torch.equal(guided(conditional, unconditional, 0.0), unconditional)
    assert torch.equal(guided(conditional, unconditional, 1.0), conditional)


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_guidance_of_v_is_guidance_of_the_noise(scale):
    schedule = NoiseSchedule()
    x, first, second, t = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2), torch.tensor([1, 400, 999])
    got = schedule.estimate(x, guided(first, second, scale), t)
    parts = schedule.estimate(x, first, t), schedule.estimate(x, second, t)
    torch.testing.assert_close(got.noise, guided(parts[0].noise, parts[1].noise, scale))
    torch.testing.assert_close(got.x0, guided(parts[0].x0, parts[1].x0, scale))


def test_each_condition_is_weighed_by_its_own_scale():
    base, style, both = (normal(5, seed=s) for s in range(3))
    got = guided_by_each(base, [style, both], [2.0, 0.5])
    torch.testing.assert_close(got, base + 2.0 * (style - base) + 0.5 * (both - style))
    torch.testing.assert_close(guided_by_each(base, [style], [3.0]), guided(style, base, 3.0))
    torch.testing.assert_close(guided_by_each(base, [style, both], [1.0, 1.0]), both)
    with pytest.raises(ValueError, match="zip"):
        guided_by_each(base, [style, both], [1.0])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_strength_keeps_the_share_of_the_source_that_was_asked_for(kind):
    schedule = NoiseSchedule(kind)
    assert schedule.strength_keeping(1.0) == 0
    assert schedule.strength_keeping(0.0) == 1
    found = [schedule.strength_keeping(1 - share) for share in np.linspace(0.02, 0.98, 49)]
    assert found == sorted(set(found))
    for share, strength in zip(np.linspace(0.02, 0.98, 49), found, strict=True):
        level = round(strength * schedule.steps)
        assert schedule.alpha_bar[level].sqrt() <= 1 - share < schedule.alpha_bar[level - 1].sqrt()


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: NoiseSchedule("square"), "no noise schedule 'square'"),
        (lambda: NoiseSchedule(prediction="x0"), "no prediction 'x0'"),
        (lambda: Sampler("euler"), "no sampler 'euler'"),
        (lambda: Sampler(steps=0), "at least one step"),
        (lambda: Sampler(eta=1.5), "eta is 1.5"),
        (lambda: NoiseSchedule().sample(lambda x, t: x, torch.zeros(1, 1), seeded(), strength=1.1), "strength is 1.1"),
    ],
)
def test_what_makes_no_sense_is_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()
