"""Residual quantisation: the nearest entry at each level, there and back, gradients through, codebooks that learn."""

import pytest
import torch
from scipy.spatial.distance import cdist

from musictool.core.quantizer import Codebook, CodebookLearner, ResidualQuantizer


def blobs(count: int, centres: int = 8, seed: int = 0) -> torch.Tensor:
    """Latents, float [4, 3, count / 4], that lie in a few places."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(centres, 3, generator=torch.Generator().manual_seed(9)) * 4
    which = torch.randint(centres, (count,), generator=generator)
    points = middle[which] + 0.05 * torch.randn(count, 3, generator=generator)
    return points.T.reshape(3, 4, -1).transpose(0, 1)


def test_the_nearest_entry_is_the_nearest() -> None:
    torch.manual_seed(0)
    book, vectors = Codebook(64, 5), torch.randn(300, 5)
    assert book.nearest(vectors).tolist() == cdist(vectors, book.entries).argmin(1).tolist()


def test_each_level_quantises_what_those_before_leave_over() -> None:
    torch.manual_seed(0)
    quantizer, latents = ResidualQuantizer(3, 16, 4), torch.randn(2, 4, 7)
    codes = quantizer.encode(latents)
    assert codes.shape == (2, 3, 7)
    for levels in (1, 2, 3):
        assert torch.equal(quantizer.encode(latents, levels), codes[:, :levels])
    left = latents - quantizer.decode(codes[:, :2])
    book = quantizer.codebooks[2]
    assert isinstance(book, Codebook)
    assert torch.equal(book.nearest(left.transpose(1, 2).flatten(0, 1)).view(2, 7), codes[:, 2])


@pytest.mark.parametrize("levels", [0, 4])
def test_levels_that_are_not_there_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match="there are 3 codebooks"):
        ResidualQuantizer(3, 16, 4).encode(torch.zeros(1, 4, 2), levels)


def test_training_gives_the_codes_of_use_and_passes_gradients_through() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(3, 16, 4)
    latents = torch.randn(2, 4, 7, requires_grad=True)
    quantized = quantizer(latents)
    assert torch.equal(quantized.codes, quantizer.encode(latents))
    torch.testing.assert_close(quantized.latents, quantizer.decode(quantized.codes))
    weights = torch.randn(2, 4, 7)
    (quantized.latents * weights).sum().backward(retain_graph=True)
    torch.testing.assert_close(latents.grad, weights)
    latents.grad = None
    quantized.commitment.backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0


def test_each_of_a_batch_has_levels_of_its_own() -> None:
    torch.manual_seed(0)
    quantizer, latents = ResidualQuantizer(3, 16, 4), torch.randn(2, 4, 7)
    quantized = quantizer(latents, torch.tensor([1, 3]))
    for row, levels in enumerate((1, 3)):
        alone = quantizer.decode(quantizer.encode(latents[row : row + 1], levels))
        torch.testing.assert_close(quantized.latents[row : row + 1], alone)


def test_codebooks_come_to_lie_where_the_vectors_are() -> None:
    torch.manual_seed(0)
    quantizer, learner = ResidualQuantizer(1, 24, 3), CodebookLearner(1, 24, 3, decay=0.8)
    for seed in range(60):
        quantizer(blobs(400, seed=seed), None, learner)
    latents = blobs(400, seed=99)
    left = (latents - quantizer.decode(quantizer.encode(latents))).square().mean().sqrt()
    assert left < 0.06  # the blobs' own spread is .05
    assert len(quantizer.encode(latents).unique()) == 24


def test_the_first_batch_starts_codebooks_by_k_means() -> None:
    torch.manual_seed(0)
    fresh, learner = ResidualQuantizer(1, 32, 3), CodebookLearner(1, 32, 3)
    latents = blobs(400)
    before = (latents - fresh.decode(fresh.encode(latents))).square().mean()
    quantized = fresh(latents, None, learner)
    after = (latents - quantized.latents).square().mean()
    assert after < 0.02 < before
    assert learner.is_started.all()


def test_entries_that_nobody_chooses_get_new_life() -> None:
    torch.manual_seed(0)
    quantizer, learner = ResidualQuantizer(1, 8, 3), CodebookLearner(1, 8, 3, decay=0.8)
    quantizer(blobs(400), None, learner)
    book = quantizer.codebooks[0]
    assert isinstance(book, Codebook)
    book.entries[3:] = learner.sums[0, 3:] = 1000.0  # far from everything
    for seed in range(40):
        quantizer(blobs(400, seed=seed), None, learner)
    assert book.entries.abs().max() < 50
    assert len(quantizer.encode(blobs(400, seed=99)).unique()) >= 7


def test_averages_count_an_even_use_as_one_whatever_the_batch() -> None:
    torch.manual_seed(0)
    for count in (64, 4096):
        book, learner = Codebook(8, 3), CodebookLearner(1, 8, 3, decay=0.0, revival=0.0)
        codes = torch.arange(count) % 8
        vectors = book(codes)
        learner.follow(0, book, vectors, codes)
        torch.testing.assert_close(learner.counts[0], torch.ones(8))
        torch.testing.assert_close(book.entries, vectors[:8])


def test_without_a_learner_codebooks_stay_as_they_are() -> None:
    quantizer = ResidualQuantizer(2, 8, 3)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer(blobs(400))
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


def test_levels_in_no_use_do_not_move() -> None:
    torch.manual_seed(0)
    quantizer, learner = ResidualQuantizer(2, 8, 3), CodebookLearner(2, 8, 3)
    quantizer(blobs(400), None, learner)
    second = quantizer.codebooks[1]
    assert isinstance(second, Codebook)
    before, counts = second.entries.clone(), learner.counts[1].clone()
    quantizer(blobs(400, seed=1), torch.ones(4, dtype=torch.int64), learner)
    assert torch.equal(second.entries, before)
    assert torch.equal(learner.counts[1], counts)
