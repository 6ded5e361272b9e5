"""What codes are like, held against what is known of their distributions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from musictool.errors import InputError
from musictool.metrics.codes import CODE_METRICS, CodeCounts, CodeKind


def counted(codes, size=1024, frame_rate_hz=75.0):
    counts = CodeCounts(CodeKind("codec", "ab", len(codes), size, frame_rate_hz))
    counts.add(codes)
    return counts


@pytest.mark.parametrize("size", [2, 64, 1000, 1024])
def test_codes_that_use_every_entry_alike_hold_all_their_bits(size):
    codes = np.stack([np.tile(np.random.default_rng(row).permutation(size), 3) for row in range(4)]).astype(np.int32)
    counts = counted(codes, size)
    for figures in counts.of_codebooks():
        assert figures == {"usage": 1, "entropy_bits": pytest.approx(np.log2(size)), "perplexity": pytest.approx(size)}
    scores = counts.scores()
    assert scores["bit_rate_kbps"] == 4 * np.ceil(np.log2(size)) * 75 / 1000
    assert scores["entropy_kbps"] == pytest.approx(4 * np.log2(size) * 75 / 1000)
    assert scores["usage"] == scores["least_usage"] == 1


def test_a_codebook_that_says_one_thing_says_nothing():
    codes = np.full((2, 100), 7, np.int32)
    codes[0] = np.arange(100) % 50
    counts = counted(codes, 100)
    full, empty = counts.of_codebooks()
    assert empty == {"usage": 0.01, "entropy_bits": 0, "perplexity": 1}
    assert full["entropy_bits"] == pytest.approx(np.log2(50))
    scores = counts.scores()
    assert (scores["least_usage"], scores["usage"]) == (0.01, pytest.approx(0.255))
    assert scores["entropy_kbps"] == pytest.approx(np.log2(50) * 75 / 1000)


def test_entropy_is_that_of_the_shares():
    generator = np.random.default_rng(0)
    codes = generator.geometric(0.05, (8, 3000)).clip(max=1023).astype(np.int32)
    for figures, row in zip(counted(codes).of_codebooks(), codes):
        entropy = scipy.stats.entropy(np.bincount(row), base=2)
        assert figures["entropy_bits"] == pytest.approx(entropy)
        assert figures["perplexity"] == pytest.approx(2**entropy)
        assert figures["usage"] == len(set(row.tolist())) / 1024


def test_entropy_is_at_most_what_frames_and_entries_allow():
    for seed in range(20):
        generator = np.random.default_rng(seed)
        size, frames = generator.integers(1, 300, 2)
        counts = counted(generator.integers(0, size, (3, frames)).astype(np.int32), int(size))
        for figures in counts.of_codebooks():
            assert 0 <= figures["entropy_bits"] <= np.log2(min(size, frames)) + 1e-12
            assert figures["usage"] * size <= min(size, frames)
        scores = counts.scores()
        assert scores["entropy_kbps"] <= scores["bit_rate_kbps"] + 1e-12


def test_counts_of_pieces_add_up_to_those_of_the_whole():
    codes = np.random.default_rng(0).integers(0, 64, (4, 500)).astype(np.int32)
    whole, pieces, other = counted(codes, 64), counted(codes[:, :0], 64), counted(codes[:, 300:], 64)
    pieces.add(codes[:, :100])
    pieces.add(codes[:, 100:300])
    pieces.include(other)
    assert (pieces.frames, pieces.scores(), pieces.of_codebooks()) == (500, whole.scores(), whole.of_codebooks())


def test_no_codes_have_no_entropy():
    scores = counted(np.zeros((3, 0), np.int32)).scores()
    assert scores == {**dict.fromkeys(CODE_METRICS), "bit_rate_kbps": 3 * 10 * 0.075, "usage": 0, "least_usage": 0}


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((2, 3), 64), "code 64 is out of range: the codebooks have 64 entries"),
        (np.full((2, 3), -1), "code -1 is out of range"),
        (np.zeros((3, 3), int), "3 codebook rows where the head says 2"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes, message):
    counts = counted(np.zeros((2, 5), np.int32), 64)
    with pytest.raises(InputError, match=message):
        counts.add(codes)
    assert counts.frames == 5


@pytest.mark.parametrize("numbers", [(0, 9, 75), (8, 0, 75), (8, 1 << 24, 75), (8, 9, 0), (8, 9, -1)])
def test_numbers_of_a_head_that_no_codec_has_are_refused(numbers):
    with pytest.raises(InputError, match="no such"):
        CodeKind("codec", "ab", *numbers)
