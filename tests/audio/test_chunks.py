"""Sound cut into stretches."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.audio.chunks import padded_to_hop, stretches


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
