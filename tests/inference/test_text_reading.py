"""Text to ids: those of the tokenizer beside the model, cut where the model's sight ends."""

from __future__ import annotations

import io
import sys

import pytest

from musictool.errors import InputError, MissingError
from musictool.inference.text_reading import open_text_reader
from tests.commands.generators import save_tokenizer

END = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tokenizer(folder)
    return folder


def test_ids_are_those_of_transformers(folder):
    import transformers

    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for text in ("jazzing around", "  a slow   waltz ", "Ünïcode, 7/8!", "x"):
        ids, is_cut = open_text_reader(folder, 100).read(text)
        assert ids == theirs(text)["input_ids"]
        assert ids[-1] == END
        assert not is_cut


def test_a_long_text_is_cut_as_transformers_cuts_it(folder):
    import transformers

    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    text = "a slow waltz " * 3000
    ids, is_cut = open_text_reader(folder, 64).read(text)
    assert is_cut
    assert ids == theirs(text, truncation=True, max_length=64)["input_ids"]


def test_a_tokenizer_that_cuts_and_pads_by_itself_does_neither(folder, tmp_path):
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ids = [open_text_reader(where, 100).read("jazzing around") for where in (folder, tmp_path)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("text", ["", "  \n "])
def test_blank_text_has_no_ids(folder, text):
    assert open_text_reader(folder, 100).read(text).ids == []


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
def test_a_model_of_sentencepiece_is_read_where_it_is_all_there_is(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    words = ["jazz", "waltz", "slow", "piano", "around", "the", "clock"]
    texts = [f"{one} {other}" for one in words for other in words]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=28,
        pad_id=0,
        eos_id=END,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (tmp_path / "spiece.model").write_bytes(model.getvalue())
    ids = open_text_reader(tmp_path, 100).read("slow jazz").ids
    assert ids[-1] == END
    assert min(ids[:-1]) > 2
    assert open_text_reader(tmp_path, 3).read("slow jazz around the clock") == ([*ids[:2], END], True)


def test_a_model_without_a_tokenizer_says_what_is_missing(tmp_path):
    with pytest.raises(MissingError, match="its tokenizer is not here") as caught:
        open_text_reader(tmp_path, 100)
    assert "tokenizer.json or spiece.model" in caught.value.hint


@pytest.mark.parametrize(("package", "file"), [("tokenizers", "tokenizer.json"), ("sentencepiece", "spiece.model")])
def test_a_missing_package_is_named_with_what_installs_it(tmp_path, monkeypatch, package, file):
    (tmp_path / file).write_bytes(b"{}")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingError, match=package) as caught:
        open_text_reader(tmp_path, 100)
    assert caught.value.hint == "pip install 'musictool[text]'"


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.parametrize("file", ["tokenizer.json", "spiece.model"])
def test_a_damaged_tokenizer_is_one_clear_error(tmp_path, file):
    pytest.importorskip("sentencepiece")
    (tmp_path / file).write_bytes(b"{ no such thing")
    with pytest.raises(InputError, match="no tokenizer"):
        open_text_reader(tmp_path, 100)
