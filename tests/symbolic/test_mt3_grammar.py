"""The grammar of scheme `mt3`: what the scheme writes obeys it, and whatever obeys it is sound."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic.midi import read_midi
from musictool.symbolic.schemes import find_scheme, mt3
from musictool.symbolic.schemes.mt3 import END, TIE, VOCABULARY
from musictool.symbolic.schemes.mt3_grammar import tables

EXAMPLES = Path(__file__).parents[2] / "examples"
SHARED = os.environ.get("MTK_TEST_SHARED")


def obeys(ids: np.ndarray, allowed: np.ndarray, following: np.ndarray) -> bool:
    state = 0
    for id in ids:
        if not allowed[state, id]:
            return False
        state = following[state, id]
    return True


def test_what_the_scheme_writes_obeys():
    ids = mt3.encode(read_midi(EXAMPLES / "waltz.mid"))
    assert obeys(ids, *tables())


@pytest.mark.skipif(not SHARED, reason="needs the reference tokens")
def test_what_the_published_model_writes_obeys():
    pieces = json.loads((Path(SHARED or "") / "references/mt3/tokens_greedy_fp32.json").read_text())
    segments = [np.array(segment) for piece in pieces.values() for segment in piece]
    assert all(obeys(segment, *tables()) for segment in segments)


@pytest.mark.parametrize(
    "text",
    [
        "Pitch_60",
        "End",
        "Program_0 Tie",
        "Tie Pitch_60",
        "Tie Velocity_1 Pitch_60",
        "Tie Program_0 Pitch_60",
        "Pad",
        "Tie Shift_3 End",
        "Tie Shift_3 Shift_4",
        "Tie Tie",
        "Tie Velocity_0",
        "Unknown",
        "Tie Program_0 End",
    ],
)
def test_what_makes_no_sense_is_forbidden(text):
    assert not obeys(VOCABULARY.ids(text.split()), *tables())


@pytest.mark.parametrize("seed", range(20))
def test_a_random_walk_never_gets_stuck_and_decodes_without_loss(seed):
    generator = np.random.default_rng(seed)
    allowed, following = tables({0, 33} if seed % 2 else None, has_drums=seed % 3 > 0)
    state, ids = 0, []
    while len(ids) < 400:
        choices = np.flatnonzero(allowed[state])
        assert len(choices)
        ids.append(generator.choice(choices))
        state = following[state, ids[-1]]
    find_scheme("mt3").decode([np.array(ids, np.int32)])
    if seed % 2:
        used = set(VOCABULARY.names(np.array(ids, np.int32)))
        assert not any(name.startswith("Program_") and name not in ("Program_0", "Program_33") for name in used)
    if seed % 3 == 0:
        assert not any(name.startswith("Drum_") for name in VOCABULARY.names(np.array(ids, np.int32)))


def test_after_the_end_comes_the_next_segment():
    allowed, following = tables()
    assert (following[allowed[:, END], END] == 0).all()
    assert allowed[0, TIE]
