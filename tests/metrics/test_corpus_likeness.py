"""Distributions against distributions: densities equal scipy's, and the figures say what they should."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
import scipy.stats

from musictool.metrics import corpus_likeness
from musictool.metrics.corpus_likeness import FEATURES, Likeness, likeness, overlap_and_divergence
from musictool.metrics.symbolic import FIGURES, portrait_of
from tests.metrics.pieces import DRUMS, NOTHING, ONE_NOTE, random_piece


def pieces(seeds, **options):
    return [portrait_of(random_piece(seed, 40 + seed % 7 * 5, seconds=16, **options)) for seed in seeds]


@pytest.mark.parametrize(("count", "spread"), [(100, 1.0), (300, 4.0), (20, 0.3)])
def test_overlap_and_divergence_equal_scipys_densities(count, spread):
    generator = np.random.default_rng(count)
    within, across = generator.exponential(1, 150), np.abs(generator.normal(0.5, spread, count))
    p, q = scipy.stats.gaussian_kde(within), scipy.stats.gaussian_kde(across)
    step = max(within.max(), across.max()) / 2048
    grid = np.arange(-10, 30, step)
    densities = [np.maximum(density(grid) * step, 1e-13) for density in (p, q)]
    expected = np.minimum(*densities).sum(), scipy.stats.entropy(*densities, base=2)
    assert overlap_and_divergence(within, across) == pytest.approx(expected, rel=2e-3)


def test_distances_are_within_the_corpus_and_across_to_it(monkeypatch):
    corpus, results = pieces(range(5)), pieces(range(10, 13))
    given = []
    monkeypatch.setattr(corpus_likeness, "overlap_and_divergence", lambda *sets: given.append(sets) or (0.0, 0.0))
    likeness(results, corpus)
    ours, theirs = ([piece.figures["note_density"] for piece in some] for some in (results, corpus))
    within = [abs(a - b) for place, a in enumerate(theirs) for b in theirs[place + 1 :]]
    across = [abs(a - b) for a in theirs for b in ours]
    assert sorted(given[0][0]) == pytest.approx(sorted(within))
    assert sorted(given[0][1]) == pytest.approx(sorted(across))
    across = [np.linalg.norm(a.transitions - b.transitions) for a in corpus for b in results]
    assert sorted(given[-1][1]) == pytest.approx(sorted(across))


def test_more_of_the_same_is_more_alike_than_something_else():
    corpus, same = pieces(range(30)), pieces(range(100, 130))
    other = [portrait_of(random_piece(seed, 200, seconds=8)) for seed in range(30)]
    alike, unlike = likeness(same, corpus), likeness(other, corpus)
    assert tuple(alike) == FEATURES
    for feature in ("note_density", "polyphony", "harmonic_complexity"):
        assert alike[feature].overlap > 0.8 > 0.4 > unlike[feature].overlap
        assert alike[feature].kl < 0.3 < unlike[feature].kl
    assert alike["pitch_classes"].overlap > 0.75


def test_results_that_are_all_alike_are_not_like_a_corpus_that_varies():
    corpus = pieces(range(30))
    middle = sorted(corpus, key=lambda piece: piece.figures["note_density"])[15]
    assert likeness([middle] * 30, corpus)["note_density"].overlap < likeness(corpus, corpus)["note_density"].overlap


def test_moments_are_those_of_the_values():
    corpus, results = pieces(range(6)), pieces(range(10, 12))
    found = likeness(results, corpus)
    for name in FIGURES:
        ours, theirs = ([piece.figures[name] for piece in some] for some in (results, corpus))
        expected = (np.mean(ours), np.std(ours, ddof=1), np.mean(theirs), np.std(theirs, ddof=1))
        assert astuple(found[name])[:4] == pytest.approx(expected)
    assert astuple(found["transitions"])[:4] == (None,) * 4


def test_what_there_is_too_little_of_is_none():
    nothing, drums, one = (portrait_of(score) for score in (NOTHING, DRUMS, ONE_NOTE))
    assert set(likeness([], []).values()) == {Likeness(*[None] * 6)}
    assert all(like.overlap is None for like in likeness([one], [nothing, drums, one]).values())
    assert likeness([], pieces(range(4)))["note_density"].overlap is None
    assert likeness(pieces([0]), pieces(range(2)))["note_density"].overlap is None
    assert likeness(pieces([0]), pieces(range(3)))["note_density"].overlap is not None
    assert likeness([drums], pieces(range(3)))["polyphony"].overlap is None


def test_corpora_without_variety_have_densities_too():
    (same,) = pieces([1])
    (other,) = pieces([2])
    alike, apart = likeness([same], [same] * 4), likeness([other], [same] * 4)
    for feature in FEATURES:
        assert (alike[feature].overlap, alike[feature].kl) == (1, 0)
    assert apart["note_density"].overlap < 1e-3
    assert 10 < apart["note_density"].kl < 100
    assert overlap_and_divergence(np.array([1.0]), np.array([1.0])) == pytest.approx((1, 0))


def test_big_corpora_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(corpus_likeness, "PIECES_MAX", 10)
    sizes = []
    monkeypatch.setattr(
        corpus_likeness, "overlap_and_divergence", lambda *sets: sizes.append([len(s) for s in sets]) or (0.0, 0.0)
    )
    likeness(pieces(range(12)), pieces(range(25)))
    assert sizes[0] == [45, 100]
