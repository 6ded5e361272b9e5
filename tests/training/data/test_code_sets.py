"""Pieces of codes, whatever they come in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.stream.records import Head
from musictool.stream.writer import StreamWriter
from musictool.training.data.code_sets import CodeForm, CodePiece, CodeSets, CodeWindows
from musictool.training.data.pipeline.items import Item, Part, digest_of
from tests.code_sets import CODEC, CODEC_SHA, SIZE, draw_pairs, write_corpus, write_pairs

PAIRS = draw_pairs(3, frames=20)
FORM = CodeForm(CODEC, CODEC_SHA, 2, SIZE)


def sets_of(form: CodeForm = FORM) -> CodeSets:
    """Sound becomes as many frames of code 7 as its file has bytes."""
    return CodeSets(form, lambda path: np.full((3, path.stat().st_size), 7, np.int32))


def write_stream(path: Path, *pieces: np.ndarray, vocab_sha: str = CODEC_SHA) -> Path:
    with open(path, "wb") as file:
        writer = StreamWriter(file)
        for number, codes in enumerate(pieces):
            meta = {"codebooks": len(codes), "text": "of the stream"}
            with writer.item(Head(f"item-{number}", "codes", CODEC, vocab_sha, meta=meta)) as item:
                item.write(codes)
    return path


def test_a_corpus_gives_its_rows_cut_to_the_codebooks_of_the_model(tmp_path):
    path = write_corpus(tmp_path / "corpus.parquet", [pair.lead for pair in PAIRS])
    pieces = sets_of().read([path, path])
    assert [piece.name for piece in pieces] == ["piece-0", "piece-1", "piece-2"] * 2
    assert [piece.text for piece in pieces[:2]] == ["words 0", "words 1"]
    for piece, pair in zip(pieces, PAIRS, strict=False):
        assert piece.backing is None
        assert np.array_equal(piece.codes, pair.lead[:2])


def test_a_corpus_of_leads_has_the_backings_beside_it(tmp_path):
    for piece, pair in zip(sets_of().read([write_pairs(tmp_path, "train", PAIRS)]), PAIRS, strict=True):
        assert np.array_equal(piece.codes, pair.lead[:2])
        assert np.array_equal(piece.backing, pair.backing[:2])
    write_corpus(tmp_path / "train.backing.parquet", [pair.backing for pair in PAIRS[:2]])
    with pytest.raises(InputError, match=r"not as many rows as train\.lead\.parquet"):
        sets_of().read([tmp_path / "train.lead.parquet"])


def test_streams_sound_and_captions_are_read(tmp_path):
    stream = write_stream(tmp_path / "a.mtk", PAIRS[0].lead, PAIRS[1].lead)
    (tmp_path / "b.wav").write_bytes(b"1234")
    (tmp_path / "b.txt").write_text("beside\n\n")
    lines = [
        {"audio": "b.wav", "text": "slow"},
        {"codes": "a.mtk", "backing": "b.wav"},
        {"codes": "a.mtk", "text": ["mine", " ", "yours"]},
    ]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(map(json.dumps, lines)) + "\n")
    found = sets_of().read([stream, tmp_path / "b.wav", captions])
    assert [piece.codes.shape[1] for piece in found] == [20, 20, 4, 4, 20, 20]
    assert [piece.texts for piece in found[2:]] == [("beside",), ("slow",), ("of the stream",), ("mine", "yours")]
    assert found[4].backing.tolist() == [[7] * 4] * 2
    assert len(sets_of().read([tmp_path])) == 3  # the folder: two pieces of a stream, and a sound


def test_what_the_pipeline_encoded_is_read_by_its_parts(tmp_path):
    files = {part: write_stream(tmp_path / f"{part}.mtk", getattr(PAIRS[0], part)) for part in ("lead", "backing")}
    item = Item("solo", {name: Part(path, digest_of(path)) for name, path in files.items()})
    (tmp_path / "manifest.jsonl").write_bytes(item.line(tmp_path))
    for path in (tmp_path, tmp_path / "manifest.jsonl"):
        (piece,) = sets_of().read([path])
        assert np.array_equal(piece.codes, PAIRS[0].lead[:2])
        assert np.array_equal(piece.backing, PAIRS[0].backing[:2])


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (CodeForm("another", None, 2, SIZE), "codes of some-codec .*, and the model writes those of another"),
        (CodeForm(CODEC, "cd" * 32, 2, SIZE), "codes of some-codec .*, and the model writes those of some-codec"),
        (CodeForm(CODEC, None, 4, SIZE), "3 codebooks, and the model writes 4"),
        (CodeForm(CODEC, None, 2, SIZE, can_be_cut=False), "3 codebooks, and the model writes 2"),
        (CodeForm(CODEC, None, 2, 5), "out of range: the model's codebooks have 5 entries"),
    ],
)
def test_codes_of_another_kind_are_refused(tmp_path, form, message):
    path = write_corpus(tmp_path / "corpus.parquet", [pair.lead for pair in PAIRS])
    with pytest.raises(InputError, match=message) as caught:
        sets_of(form).read([path])
    assert str(path) in caught.value.context


def test_what_is_no_set_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "broken.jsonl").write_text('{"audio": ')
    (tmp_path / "strange.jsonl").write_text('{"audio": 3}')
    write_corpus(tmp_path / "hollow.parquet", [np.zeros((3, 0), np.int32)])
    for name, message in (
        ("nowhere", "no such file or folder"),
        ("empty", "there are no codes in it"),
        ("hollow.parquet", "there are no codes in it"),
        ("notes.txt", "neither codes nor sound"),
        ("broken.jsonl", "the line is no JSON"),
        ("strange.jsonl", "the line is no caption"),
    ):
        with pytest.raises(InputError, match=message):
            sets_of().read([tmp_path / name])


def test_windows_cover_all_frames_and_none_reaches_beyond_a_piece():
    pieces = [
        CodePiece(str(frames), np.arange(frames, dtype=np.int16)[None], np.arange(frames - 2, dtype=np.int16)[None])
        for frames in (3, 10, 11, 25)
    ]
    windows = CodeWindows(pieces, window_frames=10, hop_frames=4)
    found = [windows[number] for number in range(len(windows))]
    assert [(piece.name, int(piece.codes[0, 0])) for piece in found] == [
        ("3", 0), ("10", 0), ("11", 0), ("11", 1), ("25", 0), ("25", 4), ("25", 8), ("25", 12), ("25", 15)
    ]  # fmt: skip
    assert all(piece.codes.shape[1] == min(10, int(piece.name)) for piece in found)
    assert found[-1].backing[0].tolist() == list(range(15, 23))  # which ends two frames before
