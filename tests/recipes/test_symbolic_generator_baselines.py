"""What the composer is held against: n-grams are the distribution that the formulas say, and xz sees repetition."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic.composing import IS_TOLD
from musictool.symbolic.midi_writing import write_midi
from musictool.symbolic.notes import Notes, Score, TempoMap

PATH = Path(__file__).parents[2] / "examples" / "recipes" / "symbolic-generator" / "baselines.py"
SIZE = 5


@pytest.fixture(scope="module")
def baselines():
    specification = importlib.util.spec_from_file_location("composer_baselines", PATH)
    module = importlib.util.module_from_spec(specification)
    sys.modules["composer_baselines"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["composer_baselines"]


@pytest.fixture(scope="module")
def train():
    """Pieces in which some ids follow others more often than not."""
    generator = np.random.default_rng(0)
    table = generator.dirichlet(np.full(SIZE, 0.4), SIZE)
    pieces = []
    for length in (30, 50, 1, 20):
        piece = [0]
        while len(piece) < length:
            piece.append(int(generator.choice(SIZE, p=table[piece[-1]])))
        pieces.append(np.array(piece))
    return pieces


def by_hand(baselines, train, context, word, order):
    """p(word | context) as Chen and Goodman have it, with dictionaries: START stands as often as is needed."""
    start, pieces = -1, [[-1] * (order - 1) + piece.tolist() for piece in train]
    history = ([start] * order + list(context))[len(context) + order - (order - 1) :] if order > 1 else []

    def grams(length):
        lead = order - 1
        return [tuple(p[i - length + 1 : i + 1]) for p in pieces for i in range(lead, len(p)) if i - length + 1 >= 0]

    probability = 1 / SIZE
    for length in range(1, order + 1):
        counts = Counter(grams(length))
        if length < order:
            before = defaultdict(set)
            for gram in set(grams(length + 1)):
                before[gram[1:]].add(gram[0])
            counts = {gram: n if gram[0] == start else len(before[gram]) for gram, n in counts.items()}
        values = np.array(list(counts.values()))
        discounts = baselines._discounts(values)
        h = tuple(history[len(history) - length + 1 :]) if length > 1 else ()
        following = {gram: n for gram, n in counts.items() if gram[:-1] == h}
        total = sum(following.values())
        if total:
            spared = sum(discounts[min(n, 3)] for n in following.values())
            n = following.get((*h, word), 0)
            probability = (n - discounts[min(n, 3)] + spared * probability) / total
    return probability


@pytest.mark.parametrize("context", [[], [0], [3, 1, 2, 0], [4, 4, 4]])
def test_n_grams_give_a_distribution_and_the_one_that_the_formulas_say(baselines, train, context):
    most = 4
    others = [np.array([*context, word]) for word in range(SIZE)]
    for order in range(1, most + 1):
        bits = baselines.kneser_ney_bits(train, others, SIZE, order)[-1].reshape(SIZE, -1)[:, -1]
        assert (2**-bits).sum() == pytest.approx(1)
        expected = [by_hand(baselines, train, context, word, order) for word in range(SIZE)]
        np.testing.assert_allclose(2**-bits, expected, rtol=1e-9)


def test_every_order_is_told_at_once(baselines, train):
    others = [train[1], np.array([1, 2])]
    bits = baselines.kneser_ney_bits(train, others, SIZE, 5)
    assert bits.shape == (5, 52)
    for order in (1, 3):
        np.testing.assert_allclose(bits[order - 1], baselines.kneser_ney_bits(train, others, SIZE, order)[-1])
    assert bits[4, :50].mean() < bits[1, :50].mean() < bits[0, :50].mean()


def test_xz_sees_what_it_has_seen(baselines):
    generator = np.random.default_rng(0)
    pieces = [generator.integers(0, 3000, 3000) for _ in range(3)]
    alone = baselines.packed_bits(pieces[:1])
    assert alone > 3000 * 11
    assert baselines.packed_bits([pieces[0], pieces[0]]) < 1.1 * alone
    assert baselines.packed_bits(pieces[:1], pieces) < 0.1 * alone
    assert baselines.packed_bits(pieces[:1], pieces[1:]) > 0.9 * alone


def melody(seed, transposed=0):
    generator = np.random.default_rng(seed)
    onset = np.arange(48) * 0.5
    pitch = 60 + generator.choice([0, 2, 4, 5, 7, 9, 11, 12], 48) + transposed
    return Score(Notes.of(onset, onset + 0.5, pitch, 80), tempo_map=TempoMap.constant(), has_metre=True)


def test_ids_are_those_that_a_composer_is_asked_for(baselines):
    piece = baselines.written(melody(1), "pop")
    assert (piece.style, piece.notes) == ("pop", 48)
    assert not IS_TOLD[piece.ids["composing"]].any()
    moved = baselines.written(melody(1, 3), "pop")
    assert (moved.ids["composing"] != piece.ids["composing"]).any()
    np.testing.assert_array_equal(moved.ids["composing, in one key"], piece.ids["composing, in one key"])


def test_all_of_it_runs_on_lists_of_files(baselines, tmp_path, monkeypatch, capsys):
    for style in ("jazz", "pop"):
        folder = tmp_path / style
        folder.mkdir()
        for number, side in enumerate(baselines.SIDES):
            names = [f"{side}-{piece}" for piece in range(3)]
            for piece, name in enumerate(names):
                (folder / f"{name}.mid").write_bytes(write_midi(melody(10 * number + piece)))
            (folder / f"{side}.txt").write_text("\n".join(names) + "\n")
    monkeypatch.setattr(sys, "argv", ["baselines.py", str(tmp_path), "--most", "3", "--json"])
    baselines.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 3 * len(baselines.LANGUAGES)
    for row in rows:
        assert 0 < row["bits_per_token"] < row["bits_per_note"]
        assert min(row["bits_per_note_jazz"], row["bits_per_note_pop"]) > 0
