"""The Fréchet distance of Gaussians, held against closed forms and against a matrix root by another way."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from musictool.metrics.frechet import Gaussian, Moments, frechet_distance


def moments_of(frames):
    moments = Moments(frames.shape[1])
    moments.add(frames)
    return moments


def gaussian(seed, width, rank=None):
    """A random Gaussian, its covariance of a rank."""
    generator = np.random.default_rng(seed)
    root = generator.normal(size=(width, rank or 2 * width))
    return Gaussian(generator.normal(size=width), root @ root.T / width, 1000)


@pytest.mark.parametrize("width", [1, 3, 64])
def test_independent_directions_have_a_closed_form(width):
    generator = np.random.default_rng(0)
    means, deviations = generator.normal(size=(2, width)), generator.uniform(0.1, 2, (2, width))
    one, other = (Gaussian(mean, np.diag(deviation**2), 9) for mean, deviation in zip(means, deviations))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("width", [2, 7, 40])
def test_the_distance_is_that_of_the_matrix_root(width):
    one, other = gaussian(1, width), gaussian(2, width)
    root = scipy.linalg.sqrtm(one.covariance @ other.covariance).real
    expected = ((one.mean - other.mean) ** 2).sum() + np.trace(one.covariance + other.covariance - 2 * root)
    assert frechet_distance(one, other) == pytest.approx(expected)


@pytest.mark.parametrize("rank", [None, 2])
def test_it_is_none_to_itself_and_the_same_both_ways(rank):
    one, other = gaussian(1, 10, rank), gaussian(2, 10, rank)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9 if rank is None else 1e-6)
    assert frechet_distance(one, other) == pytest.approx(frechet_distance(other, one))
    assert frechet_distance(one, other) > 0


def test_turning_and_moving_both_changes_nothing_and_a_scale_counts_squared():
    one, other = gaussian(1, 8), gaussian(2, 8)
    turn, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(8, 8)))
    turned = [Gaussian(3 * turn @ g.mean + 7, 9 * turn @ g.covariance @ turn.T, 9) for g in (one, other)]
    assert frechet_distance(*turned) == pytest.approx(9 * frechet_distance(one, other))


def test_moments_are_those_of_all_frames_however_they_come():
    frames = (np.random.default_rng(0).normal(size=(500, 6)) + 1000).astype(np.float32)
    moments = Moments(6)
    for piece in np.split(frames, [0, 1, 2, 77, 77, 400]):
        moments.add(piece)
    found = moments.gaussian()
    np.testing.assert_allclose(found.mean, frames.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(found.covariance, np.cov(frames.astype(np.float64).T), rtol=1e-6)
    assert (found.frames, found.is_singular) == (500, False)


def test_too_few_frames_have_no_gaussian_or_a_singular_one():
    frames = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    assert moments_of(frames[:0]).gaussian() is moments_of(frames[:1]).gaussian() is None
    assert moments_of(frames[:6]).gaussian().is_singular
    assert not moments_of(frames).gaussian().is_singular


def test_samples_of_one_distribution_come_near_and_of_others_do_not():
    generator = np.random.default_rng(0)
    sets = [moments_of(generator.normal(mean, 1, (20_000, 4))).gaussian() for mean in (0, 0, 0.5)]
    assert frechet_distance(sets[0], sets[1]) < 0.002
    assert frechet_distance(sets[0], sets[2]) == pytest.approx(4 * 0.25, rel=0.1)
