"""Sound cut into stretches."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.audio.chunks import padded_to_hop, stretches, stretches_in_context


@pytest.mark.parametrize("length", [1, 9, 10, 11, 30, 95])
@pytest.mark.parametrize("seed", range(5))
def test_any_blocks_give_the_same_stretches(length, seed):
    sound = np.arange(length, dtype=np.float32)
    cuts = np.sort(np.random.default_rng(seed).integers(0, length + 1, 6))
    got = list(stretches(np.split(sound, cuts), 10))
    expected = np.split(sound, np.arange(10, length, 10))
    assert [part.tolist() for part in got] == [part.tolist() for part in expected]


def test_nothing_gives_nothing():
    assert list(stretches([], 10)) == []


@pytest.mark.parametrize(("length", "padded"), [(0, 8), (1, 8), (7, 8), (8, 16), (9, 16)])
def test_sound_ends_with_zeros_up_to_the_next_hop_and_never_without(length, padded):
    whole = np.concatenate(list(padded_to_hop([np.ones(length, np.float32)], 8)))
    assert len(whole) == padded
    assert not whole[length:].any()


@pytest.mark.parametrize("around", [0, 3, 10, 25])
@pytest.mark.parametrize("length", [1, 9, 10, 11, 30, 95])
@pytest.mark.parametrize("seed", range(3))
def test_a_stretch_in_context_is_a_window_onto_sound_in_silence(length, around, seed):
    sound = np.arange(1, length + 1, dtype=np.float32)
    cuts = np.sort(np.random.default_rng(seed).integers(0, length + 1, 6))
    got = list(stretches_in_context(np.split(sound, cuts), 10, around))
    whole = np.pad(sound, around)
    expected = [whole[start : start + 10 + 2 * around] for start in range(0, length, 10)]
    assert [part.tolist() for part in got] == [part.tolist() for part in expected]
    assert all(part.dtype == np.float32 for part in got)


@pytest.mark.parametrize("blocks", [[], [np.zeros(0, np.float32)]])
def test_nothing_has_no_context(blocks):
    assert list(stretches_in_context(blocks, 10, 4)) == []


def test_a_stretch_is_given_as_soon_as_what_follows_it_is_known():
    blocks = iter([np.ones(1, np.float32)] * 100)
    first = next(stretches_in_context(blocks, 10, 10))
    assert len(first) == 30
    assert len(list(blocks)) == 80
