"""Figures of predicted and of made tokens, held against torch, scipy and what is known of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.nn import functional

from musictool.metrics.tokens import (
    FIGURES,
    PSEUDO_COUNT,
    Agreement,
    Tally,
    count_tokens,
    coverage,
    divergence_figures,
    entropy_bits,
    first_divergence,
    kl_bits,
    usage,
)

TEMPERATURES = (1.0, 0.4, 2.0)


def scored(seed=0, n=200, size=30):
    """Random logits [n, V], ids [n], and what a scorer makes of them: nats [A, n] and ranks [n]."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, size, generator=generator)
    ids = torch.randint(0, size, (n,), generator=generator)
    nats = torch.stack([functional.cross_entropy(logits / t, ids, reduction="none") for t in TEMPERATURES])
    order = logits.argsort(dim=1, descending=True)
    ranks = (order == ids[:, None]).int().argmax(1)
    return logits, ids, nats.numpy(), ranks.numpy().astype(np.int32)


@pytest.mark.parametrize("part", [None, 0, 1, 2])
def test_figures_are_those_of_torch(part):
    logits, ids, nats, ranks = scored()
    parts = np.arange(len(ids)) % 3
    tally = Tally(3, TEMPERATURES)
    for some in np.array_split(np.arange(len(ids)), 7):
        tally.add(nats[:, some], ranks[some], parts[some])
    chosen = torch.from_numpy(np.ones(len(ids), bool) if part is None else parts == part)
    logits, ids = logits[chosen], ids[chosen]
    for temperature in TEMPERATURES:
        figures = tally.figures(part, temperature)
        loss = float(functional.cross_entropy(logits / temperature, ids))
        assert figures["cross_entropy_nats"] == pytest.approx(loss, rel=1e-6)
        assert figures["cross_entropy_bits"] == pytest.approx(loss / math.log(2), rel=1e-6)
        assert figures["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
        for top in (1, 5):
            right = (logits.topk(top).indices == ids[:, None]).any(1).float().mean()
            assert figures[f"top_{top}"] == pytest.approx(float(right))


def test_tallies_add_up():
    _, _, nats, ranks = scored()
    whole, sum_of_two = (Tally(2, TEMPERATURES) for _ in range(2))
    parts = (np.arange(len(ranks)) > 50).astype(int)
    whole.add(nats, ranks, parts)
    for some in (slice(0, 80), slice(80, None)):
        one = Tally(2, TEMPERATURES)
        one.add(nats[:, some], ranks[some], parts[some])
        sum_of_two.include(one)
    for part in (None, 0, 1):
        assert sum_of_two.figures(part, 0.4) == pytest.approx(whole.figures(part, 0.4))


def test_no_tokens_have_no_figures_and_no_perplexity_is_beyond_a_number():
    assert Tally(2).figures() == dict.fromkeys(FIGURES)
    tally = Tally(1)
    tally.add(np.array([[2000.0]], np.float32), np.array([3]), np.array([0]))
    figures = tally.figures()
    assert figures["cross_entropy_nats"] == 2000
    assert figures["perplexity"] is None
    assert (figures["top_1"], figures["top_5"]) == (0, 1)


def test_entropy_and_divergence_are_those_of_scipy():
    generator = np.random.default_rng(1)
    made, real = generator.integers(0, 9, (2, 4, 50))
    made[:, :10] = 0
    real[:, 5:15] = 0
    counts = [scipy.stats.entropy(row, base=2) for row in made]
    assert entropy_bits(made[0]) == pytest.approx(counts[0])
    assert entropy_bits(made) == pytest.approx(np.mean(counts))
    expected = []
    for ours, theirs in zip(made, real, strict=True):
        occurs = ours + theirs > 0
        pair = (ours[occurs] + PSEUDO_COUNT, theirs[occurs] + PSEUDO_COUNT)
        expected.append(scipy.stats.entropy(*pair, base=2))
    assert kl_bits(made, real) == pytest.approx(np.mean(expected))
    assert kl_bits(made[0], real[0]) == pytest.approx(expected[0])
    assert kl_bits(real, real) == 0
    assert kl_bits(np.zeros(50, int), real[0]) is None


def test_divergence_of_tokens_drawn_alike_goes_to_the_true_one():
    generator = np.random.default_rng(0)
    p, q = generator.dirichlet(np.ones(20)), generator.dirichlet(np.ones(20))
    made, real = generator.multinomial(1_000_000, p), generator.multinomial(1_000_000, q)
    assert kl_bits(made, real) == pytest.approx(scipy.stats.entropy(p, q, base=2), rel=0.02)


def test_usage_and_coverage_are_shares_of_the_vocabulary_and_of_the_real_one():
    made = count_tokens(np.array([[0, 1, 1, 5]]), 8)
    real = count_tokens(np.array([[0, 0, 2, 5, 6]]), 8)
    assert made.tolist() == [[1, 2, 0, 0, 0, 1, 0, 0]]
    assert (usage(made), usage(real)) == (3 / 8, 4 / 8)
    assert coverage(made, real) == 2 / 4
    assert coverage(np.zeros_like(made), real) is None
    assert usage(np.zeros_like(made)) is None


def test_tokens_are_counted_in_their_own_codebook():
    tokens = np.random.default_rng(0).integers(0, 12, (3, 40))
    counts = count_tokens(tokens, 12)
    assert all((row == np.bincount(codes, minlength=12)).all() for row, codes in zip(counts, tokens, strict=True))


def test_first_divergence_counts_what_comes_before_it():
    same = np.array([[True, True, False, True], [False] * 4, [True] * 4])
    assert first_divergence(same).tolist() == [2, 0, 4]
    assert first_divergence(np.zeros((2, 0), bool)).tolist() == [0, 0]


def test_pieces_that_never_part_count_with_their_length():
    assert divergence_figures([2, 10, 6], [10, 10, 6]) == {"mean": 6, "median": 6, "never": pytest.approx(2 / 3)}
    assert set(divergence_figures([], []).values()) == {None}


def test_agreement_is_told_where_it_is():
    agreement = Agreement(10)
    agreement.add(np.array([[True] * 5 + [False] * 5] * 2))
    agreement.add(np.array([[True] * 4, [False] * 4]))
    assert agreement.share == (10 + 4) / (20 + 8)
    assert agreement.by_position(2) == [(10 + 4) / (10 + 8), 0]
    assert len(agreement.by_position(20)) == 10
    assert Agreement(4).share is None
