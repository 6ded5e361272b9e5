"""Token corpora give the ids that were written, in examples that hang on nothing but seed and number."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictool.errors import InputError
from musictool.stream.records import Head
from musictool.symbolic import corpus as corpus_files
from musictool.symbolic.corpus import CorpusWriter
from musictool.symbolic.schemes import find_scheme
from musictool.symbolic.tokenization import Item, Tokenization, tokenize_midi
from musictool.symbolic.vocabulary import EventRange, Vocabulary
from musictool.training.data import token_corpus
from musictool.training.data.token_corpus import open_token_corpus
from musictool.training.data.token_windows import PackedWindows, Windows

VOCABULARY = Vocabulary("toy", (EventRange("Pitch", 0, 99_999),))
WALTZ = Path(__file__).parents[3] / "examples" / "waltz.mid"
LENGTHS = (7, 1, 0, 30, 12, 5, 0, 18, 3, 24, 11, 2)


def write_corpus(path, lengths, first=0, vocabulary=VOCABULARY, kind="events"):
    """Pieces of so many tokens, no token twice in the corpus; few of them in a row group."""
    with open(path, "wb") as sink, pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_files, "IDS_A_GROUP", 40)
        writer = CorpusWriter(sink)
        for number, length in enumerate(lengths):
            head = Head(f"item{number}", kind, vocabulary.name, vocabulary.fingerprint)
            writer.write(Item(head, np.arange(first, first + length, dtype=np.int32)))
            first += length
        writer.close()
    return path


@pytest.fixture
def corpus(tmp_path):
    """Two files, several row groups each."""
    paths = [write_corpus(tmp_path / "a.parquet", LENGTHS), write_corpus(tmp_path / "b.parquet", (40, 9), first=113)]
    return open_token_corpus(paths, VOCABULARY)


def plain(example):
    return example.ids.tolist(), example.piece.tolist(), example.position.tolist()


# ------------------------------------------------------------------------------------------------------------- corpus


def test_pieces_are_what_was_written(corpus):
    lengths = [length for length in (*LENGTHS, 40, 9) if length]
    assert corpus.lengths.tolist() == lengths
    assert corpus.names[:4] == ["item0", "item1", "item3", "item4"]
    assert corpus.names[-1] == "item1"
    assert (len(corpus), corpus.token_count) == (12, 162)
    first = 0
    for piece, length in reversed(list(enumerate(lengths))):
        first = sum(lengths[:piece])
        assert corpus.ids(piece).tolist() == list(range(first, first + length))
        assert corpus.ids(piece, 2, 5).tolist() == list(range(first, first + length))[2:5]
        assert corpus.ids(piece, length).tolist() == []
    assert corpus.ids(3).dtype == np.int32


def count_reads(corpus):
    """Count how often each row group is read."""
    reads = Counter()
    read = corpus._read_group

    def counted(group):
        reads[group.path.name, group.number] += 1
        return read(group)

    corpus._read_group = counted
    return reads


def test_no_more_ids_are_kept_than_asked_for(corpus, tmp_path):
    small = open_token_corpus([tmp_path / "a.parquet", tmp_path / "b.parquet"], VOCABULARY, cached_ids=100)
    reads = count_reads(small)
    for piece in (0, 11, 0, 4, 0):  # the third takes the place of the one that was not asked for again
        assert small.ids(piece).tolist() == corpus.ids(piece).tolist()
        assert sum(map(len, small._cache.values())) <= 100
    assert list(reads.values()) == [1, 1, 1]
    small.ids(11)
    assert reads["b.parquet", 1] == 2


def test_the_row_group_in_use_is_kept_however_big(tmp_path, corpus):
    small = open_token_corpus([tmp_path / "a.parquet"], VOCABULARY, cached_ids=1)
    reads = count_reads(small)
    for _ in range(3):
        small.ids(0)
    assert list(reads.values()) == [1]


def test_a_copy_in_another_process_reads_the_same(corpus):
    corpus.ids(0)
    copy = pickle.loads(pickle.dumps(corpus))
    assert not copy._cache
    assert copy.ids(5).tolist() == corpus.ids(5).tolist()


def test_a_real_scheme_is_read_back(tmp_path):
    (item,) = tokenize_midi("waltz", WALTZ.read_bytes(), Tokenization("tatum"))
    with open(tmp_path / "c.parquet", "wb") as sink:
        writer = CorpusWriter(sink)
        writer.write(item)
        writer.close()
    corpus = open_token_corpus([str(tmp_path / "c.parquet")], find_scheme("tatum").vocabulary)
    assert corpus.ids(0).tolist() == item.ids.tolist()


@pytest.mark.parametrize(
    ("make", "words", "code"),
    [
        (lambda path: None, "no such token corpus", "no-such-file"),
        (lambda path: path.write_bytes(b"PAR1 but no more"), "broken Parquet file: ", "corrupt-corpus"),
        (lambda path: path.mkdir(), "broken Parquet file: ", "corrupt-corpus"),
        (lambda path: write_corpus(path, (0, 0)), "the corpus is empty", "empty-corpus"),
        (lambda path: write_corpus(path, ()), "the corpus is empty", "empty-corpus"),
        (
            lambda path: write_corpus(path, (3, 4), vocabulary=Vocabulary("toy", (EventRange("Pitch", 0, 9),))),
            f"the corpus is of vocabulary 'toy' \\(.{{8}}\\), not 'toy' \\({VOCABULARY.fingerprint[:8]}\\)",
            "wrong-vocabulary",
        ),
        (
            lambda path: write_corpus(path, (3,), kind="codes"),
            "the corpus is of vocabulary 'codes'",
            "wrong-vocabulary",
        ),
        (
            lambda path: pyarrow.parquet.write_table(pyarrow.table({"item": ["a"], "ids": [[1, 2]]}), path),
            "no token corpus: column 'kind': it is not there",
            "invalid-input",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(tmp_path, make, words, code):
    path = tmp_path / "c.parquet"
    make(path)
    with pytest.raises(InputError, match=words) as caught:
        open_token_corpus([path], VOCABULARY)
    assert str(path) in str(caught.value)
    assert caught.value.code == code
    assert caught.value.hint or code == "no-such-file"


def test_one_row_of_another_vocabulary_is_named(tmp_path):
    other = Vocabulary("toy2", VOCABULARY.ranges)
    path = tmp_path / "c.parquet"
    with open(path, "wb") as sink:
        writer = CorpusWriter(sink)
        for name, vocabulary in (("fine", VOCABULARY), ("odd", other), ("fine too", VOCABULARY)):
            writer.write(
                Item(Head(name, "events", vocabulary.name, vocabulary.fingerprint), np.arange(3, dtype=np.int32))
            )
        writer.close()
    with pytest.raises(InputError, match=r"of vocabulary 'toy2'.*item 'odd'"):
        open_token_corpus([path], VOCABULARY)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("ids", [[1], [1, 2], [3]], "a row has not as many tokens as it says"),
        ("n", [2, None, 2], "a row has not as many tokens as it says"),
        ("ids", [[1, 2], [1, 100_000], [1, 2]], "a token is not in vocabulary toy"),
        ("ids", [[1, 2], [1, -1], [1, 2]], "a token is not in vocabulary toy"),
        ("ids", [[1, 2], [1, None], [1, 2]], "broken Parquet file"),
    ],
)
def test_rows_that_make_no_sense_are_refused_when_they_are_read(tmp_path, column, values, words):
    path = write_corpus(tmp_path / "c.parquet", (2, 2, 2))
    table = pyarrow.parquet.read_table(path)
    index = table.schema.get_field_index(column)
    pyarrow.parquet.write_table(
        table.set_column(index, table.schema.field(index), pyarrow.array(values, table.schema.field(index).type)), path
    )
    with pytest.raises(InputError, match=words):
        open_token_corpus([path], VOCABULARY).ids(0)


# ------------------------------------------------------------------------------------------------------------ windows


@given(st.integers(1, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_an_epoch_of_windows_has_every_token_once(tmp_path_factory, length, seed):
    path = write_corpus(tmp_path_factory.mktemp("corpus") / "c.parquet", LENGTHS)
    corpus = open_token_corpus([path], VOCABULARY)
    windows = Windows(corpus, length, seed)
    for epoch in (0, 1):
        examples = [windows[epoch * windows.epoch_count + n] for n in range(windows.epoch_count)]
        assert sorted(i for example in examples for i in example.ids.tolist()) == list(range(113))
        for example in examples:
            assert 1 <= len(example) <= length
            (piece,) = set(example.piece.tolist())
            assert example.ids.tolist() == corpus.ids(piece)[example.position].tolist()
            assert np.diff(example.position).tolist() == [1] * (len(example) - 1)
        full = sum(len(example) == length for example in examples)
        assert full >= sum(max(0, -(-n // length) - 2) for n in LENGTHS)


@given(st.integers(1, 60), st.integers(0, 99), st.sampled_from([None, 99_999]))
@settings(max_examples=40, deadline=None)
def test_packed_windows_are_pieces_end_to_end(tmp_path_factory, length, seed, separator):
    path = write_corpus(tmp_path_factory.mktemp("corpus") / "c.parquet", LENGTHS)
    corpus = open_token_corpus([path], VOCABULARY)
    windows = PackedWindows(corpus, length, seed, separator)
    epoch_tokens = 113 + (10 if separator else 0)
    examples = [windows[n] for n in range(-(-2 * epoch_tokens // length))]
    assert {len(example) for example in examples} == {length}
    ids, pieces, positions = (np.concatenate([getattr(e, f) for e in examples]) for f in ("ids", "piece", "position"))
    starts = np.flatnonzero(positions == 0).tolist()
    rows = [slice(a, b) for a, b in zip(starts, [*starts[1:], len(ids)])]
    for number, row in enumerate(rows[:20]):
        (piece,) = set(pieces[row].tolist())
        expected = [*corpus.ids(piece).tolist(), *([separator] if separator else [])]
        assert ids[row].tolist() == expected
        assert positions[row].tolist() == list(range(len(expected)))
        if number in (0, 10):
            epoch = [pieces[row][0] for row in rows[number : number + 10]]
            assert sorted(epoch) == list(range(10)), "each piece is there once before one comes again"


@pytest.mark.parametrize("make", [Windows, PackedWindows])
def test_an_example_hangs_on_seed_and_number_alone(corpus, tmp_path, make):
    forward = make(corpus, 16, 3)
    expected = [plain(forward[n]) for n in range(40)]
    other = open_token_corpus([tmp_path / "a.parquet", tmp_path / "b.parquet"], VOCABULARY, cached_ids=1)
    backward = make(other, 16, 3)
    assert [plain(backward[n]) for n in reversed(range(40))] == expected[::-1]
    alone = [plain(make(corpus, 16, 3)[n]) for n in (39, 7, 21)]
    assert alone == [expected[n] for n in (39, 7, 21)]
    assert [plain(pickle.loads(pickle.dumps(forward))[n]) for n in range(40)] == expected
    assert [plain(make(corpus, 16, 4)[n]) for n in range(40)] != expected


def test_epochs_differ_in_order_and_in_cuts(corpus):
    windows = Windows(corpus, 16, 0)
    epochs = [
        [(int(e.piece[0]), int(e.position[0])) for e in map(windows.__getitem__, range(start, start + 17))]
        for start in (0, windows.epoch_count)
    ]
    pieces = [[piece for piece, _ in epoch] for epoch in epochs]
    assert sorted(pieces[0]) == sorted(pieces[1])
    assert pieces[0] != pieces[1]
    assert sorted(epochs[0]) != sorted(epochs[1])
    packed = PackedWindows(corpus, 162, 0)
    assert packed[0].piece.tolist() != packed[1].piece.tolist()


@pytest.mark.parametrize("make", [Windows, PackedWindows])
def test_a_big_corpus_is_read_a_row_group_at_a_time(corpus, monkeypatch, make):
    """Blocks of two row groups or three, and room for two blocks: no group is read twice in an epoch."""
    monkeypatch.setattr(token_corpus, "BLOCK_IDS", 60)
    corpus._cached_ids = 120
    reads = count_reads(corpus)
    windows = make(corpus, 6, 0)
    count = windows.epoch_count if make is Windows else 162 // 6
    order = [windows[n].piece[0] for n in range(count)]
    assert set(reads.values()) == {1}
    assert len(reads) == len(corpus._groups) >= 4
    assert order != sorted(order)
    firsts = {int(make(corpus, 6, seed)[0].piece[0]) for seed in range(30)}
    assert min(firsts) < 4, "an epoch may begin with the first row group"
    assert max(firsts) >= 10, "or with the last"


def test_what_a_window_holds_may_be_written_to(corpus):
    for windows in (Windows(corpus, 8, 0), PackedWindows(corpus, 8, 0)):
        before = plain(windows[0])
        windows[0].ids[:] = -1
        assert plain(windows[0]) == before
