"""Subwords: any text has ids, and the same words give the same tokenizer."""

from __future__ import annotations

import sys

import pytest
import torch

from musictool.errors import InputError, MissingError
from musictool.inference.subwords import (
    LEAST_VOCABULARY,
    TOKENIZER_NAME,
    open_subwords,
    side_by_side,
    train_subwords,
)

WORDS = ["slow blues with tenor saxophone", "fast bebop with brushes", "slow ballad, tenor saxophone", "Slow BLUES"] * 3


def test_words_that_come_often_are_one_id():
    subwords = train_subwords(WORDS, 400)
    assert len(subwords.ids("slow tenor saxophone", 100)) == 3
    assert len(subwords.ids("xylophone", 100)) > 1
    assert subwords.ids("SLOW", 100) == subwords.ids(" slow\n", 100)
    assert subwords.ids("slow", 100) != subwords.ids("fast", 100)
    assert LEAST_VOCABULARY < subwords.vocabulary <= 400


@pytest.mark.parametrize("text", ["naïve ½ 日本語 🎷", "\x00\x01", "a" * 50_000, "<pad>"])
def test_any_text_has_ids(text):
    subwords = train_subwords(WORDS, LEAST_VOCABULARY)
    ids = subwords.ids(text, 40)
    assert 1 <= len(ids) <= 40
    assert all(0 <= id < LEAST_VOCABULARY for id in ids)


def test_of_no_text_there_is_no_id():
    subwords = train_subwords(WORDS, 300)
    assert subwords.ids("", 10) == subwords.ids(" \n ", 10) == []


def test_the_same_words_make_the_same_tokenizer_and_it_survives_being_written(tmp_path):
    subwords = train_subwords(WORDS, 400)
    assert subwords.to_json() == train_subwords(iter(WORDS), 400).to_json()
    (tmp_path / TOKENIZER_NAME).write_text(subwords.to_json(), "utf-8")
    read = open_subwords(tmp_path)
    assert read.vocabulary == subwords.vocabulary
    assert read.ids("slow xylophone, naïve", 100) == subwords.ids("slow xylophone, naïve", 100)


def test_texts_stand_side_by_side():
    ids, visible = side_by_side([[3, 4], [], [5]])
    assert ids.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert visible.tolist() == [[True, True], [False, False], [True, False]]
    assert side_by_side([[]])[1].shape == (1, 1)
    assert ids.dtype == torch.int64


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{"])
def test_a_damaged_tokenizer_is_an_input_error(tmp_path, text):
    (tmp_path / TOKENIZER_NAME).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        open_subwords(tmp_path)
    with pytest.raises(InputError, match="no tokenizer"):
        open_subwords(tmp_path / "elsewhere")


def test_without_the_library_there_is_a_hint(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingError) as caught:
        open_subwords(tmp_path)
    assert "musictool[text]" in caught.value.hint
