"""The engine against the plain loop that it replaces, and what it promises beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch

from musictool.core.kv_cache import Memory
from musictool.inference.engine import Decoded, Engine, Requests
from musictool.inference.grammar import Grammar
from musictool.inference.sampling import Sampling

END = 7
VOCABULARY = 40
LONGEST = 30


class Countdown(torch.nn.Module):
    """A decoder whose next id depends on all ids so far and on its memory; a sum over a one-layer cache."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(VOCABULARY, VOCABULARY, generator=generator)
        self.calls: list[int] = []

    def new_cache(self, rows, *, capacity=4, is_static=False):
        from musictool.core.kv_cache import KVCache

        return KVCache(1, rows, 1, VOCABULARY, capacity=capacity, is_static=is_static)

    def decode(self, ids, memory, *, cache, positions):
        self.calls.append(len(ids))
        rows = self.table[ids] * (1 + 0.1 * positions[..., None])  # [B, T, V]
        keys, _ = cache.append(0, rows[:, None], rows[:, None])
        seen = cache.visible()  # [B, 1, T, S]
        summed = keys.sum(2, keepdim=True) if seen is None else seen.to(rows.dtype) @ keys
        return summed[:, 0] + memory.layers[0].keys[:, 0, :1]

    def plain(self, prompt: Sequence[int], bias: torch.Tensor, allowed=None) -> list[int]:
        """The greedy loop written out, without cache or batch."""
        ids, out = list(prompt), []
        while len(out) < LONGEST and (not out or out[-1] != END):
            weight = 1 + 0.1 * torch.arange(len(ids))[:, None]
            logits = (self.table[ids] * weight).sum(0) + bias
            if allowed is not None:
                logits[~allowed] = -torch.inf
            out.append(int(logits.argmax()))
            ids.append(out[-1])
        return out


def requests(count: int, batch: int, prompts: Sequence[Sequence[int]]) -> Iterator[Requests[int]]:
    from musictool.core.kv_cache import KeyValues

    for start in range(0, count, batch):
        keys = range(start, min(start + batch, count))
        bias = torch.stack([bias_of(key) for key in keys])[:, None, None]  # [B, 1, 1, V]
        yield Requests(keys, Memory([KeyValues(bias, bias)]), [prompts[key] for key in keys])


def bias_of(key: int) -> torch.Tensor:
    return 3 * torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(key))


PROMPTS = [[0] if key % 3 else [3, 1, 4, 1][: 1 + key % 4] for key in range(23)]


def run(rows: int, batch: int, **options) -> dict[int, Decoded[int]]:
    engine = Engine(Countdown(), end_id=END, tokens_max=LONGEST, rows=rows, **options)
    return {done.key: done for done in engine.run(requests(23, batch, PROMPTS))}


@pytest.mark.parametrize(("rows", "batch"), [(1, 1), (4, 3), (5, 8), (23, 23), (64, 2)])
def test_any_batch_gives_what_the_plain_loop_gives(rows, batch):
    model, done = Countdown(), run(rows, batch)
    assert len(done) == 23
    for key, decoded in done.items():
        assert decoded.ids == model.plain(PROMPTS[key], bias_of(key))
        assert decoded.is_cut_off == (decoded.ids[-1] != END)
    assert len({len(decoded.ids) for decoded in done.values()}) > 3  # rows did end at different times
    assert {decoded.is_cut_off for decoded in done.values()} == {False, True}


def test_finished_rows_make_room_and_gaps_are_closed():
    model = Countdown()
    engine = Engine(model, end_id=END, tokens_max=LONGEST, rows=4)
    steps = sum(len(done.ids) for done in engine.run(requests(23, 4, [[0]] * 23)))
    assert sum(model.calls) == steps  # no row was ever decoded that nobody wanted
    assert model.calls.count(4) > len(model.calls) * 0.7


def test_the_next_batch_is_asked_for_when_a_row_waits_for_it_and_not_before():
    asked = []

    def watched() -> Iterator[Requests[int]]:
        for batch in requests(6, 2, [[0]] * 6):
            asked.append(batch.keys[0])
            yield batch

    engine = Engine(Countdown(), end_id=END, tokens_max=LONGEST, rows=2)
    decoding = engine.run(watched())
    next(decoding)
    assert asked == [0, 2]


def test_a_grammar_is_never_broken():
    # Two states: even ids lead to odd ones and back; END after an odd one alone.
    ids = np.arange(VOCABULARY)
    is_odd = ids % 2 == 1
    allowed = np.stack([~is_odd, is_odd])
    following = np.broadcast_to(np.where(is_odd, 0, 1), allowed.shape)
    for decoded in run(5, 3, grammar=Grammar(allowed, following)).values():
        prompt = PROMPTS[decoded.key]
        assert all((a + b) % 2 for a, b in zip([prompt[-1], *decoded.ids], decoded.ids, strict=False))


def test_a_grammar_begins_anew_in_a_row_that_was_used_before():
    # The second id must be END, whatever the first; a row that kept its state would begin with END.
    allowed = np.stack([np.arange(VOCABULARY) != END, np.arange(VOCABULARY) == END])
    grammar = Grammar(allowed, np.ones(allowed.shape, np.int64))
    engine = Engine(Countdown(), end_id=END, tokens_max=LONGEST, rows=2, grammar=grammar)
    prompts = [[END]] * 9  # state 0 does not allow it, and it leads to state 1 all the same
    assert all(done.ids == [END] for done in engine.run(requests(9, 3, prompts)))
    free = Grammar(
        np.stack([allowed[0] | True, *allowed]), np.stack([np.full(VOCABULARY, 1), *np.full((2, VOCABULARY), 2)])
    )
    engine = Engine(Countdown(), end_id=END, tokens_max=LONGEST, rows=2, grammar=free)
    lengths = {len(done.ids) for done in engine.run(requests(9, 3, [[0]] * 9))}
    assert lengths == {2}


def test_a_grammar_that_allows_all_changes_nothing():
    everything = Grammar(np.ones((1, VOCABULARY), bool), np.zeros((1, VOCABULARY), np.int64))
    assert {k: d.ids for k, d in run(5, 3, grammar=everything).items()} == {k: d.ids for k, d in run(5, 3).items()}


def test_tables_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        Grammar(np.ones((1, 3), bool), np.zeros((2, 3), np.int64))


def test_sampled_ids_depend_on_the_seed_and_not_on_the_batch():
    def ids(rows: int, seed: int) -> dict[int, list[int]]:
        return {key: done.ids for key, done in run(rows, 3, sampling=Sampling(2.0, seed=seed)).items()}

    assert ids(2, 0) == ids(9, 0)
    assert ids(2, 0) != ids(2, 1)


def test_no_two_requests_draw_alike():
    engine = Engine(Countdown(), end_id=END, tokens_max=LONGEST, rows=4, sampling=Sampling(5.0))
    from musictool.core.kv_cache import KeyValues

    same = torch.zeros(4, 1, 1, VOCABULARY)
    batch = Requests(range(4), Memory([KeyValues(same, same)]), [[0]] * 4)
    assert len({tuple(done.ids) for done in engine.run([batch])}) == 4
