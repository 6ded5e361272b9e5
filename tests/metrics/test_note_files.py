"""The reference of an item is found by its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from musictool.errors import InputError, UsageError
from musictool.metrics.note_files import References, kind_of, read_score, split_suffix
from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.tokenization import Tokenization, tokenize_path


def score(pitch):
    return Score(Notes.of([0.0], [1.0], pitch))


def put(path, pitch):
    """Write a reference of one note in the format that the path's suffix asks for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.lower().endswith((".tsv", ".csv", ".txt")):
        path.write_text(f"onset,offset,pitch\n0,1,{pitch}\n")
    elif path.name.endswith(".mtk"):
        midi = path.with_suffix(".tmp")
        midi.write_bytes(write_midi(score(pitch)))
        path.write_bytes(b"".join(item.lines() for item in tokenize_path(path.stem, midi, Tokenization())))
        midi.unlink()
    else:
        path.write_bytes(write_midi(score(pitch)))
    return path


def pitch_of(found):
    return (read_score(found) if isinstance(found, Path) else found).notes.pitch.tolist()


@pytest.mark.parametrize("suffix", [".mid", ".MID", ".midi", ".tsv", ".Csv", ".txt", ".mtk"])
def test_a_folder_holds_references_of_every_kind(tmp_path, suffix):
    put(tmp_path / f"take.1{suffix}", 61)
    (tmp_path / "take.1.flac").touch()
    assert pitch_of(References(tmp_path).find("take.1")) == [61]


def test_folders_in_names_come_first_and_then_the_last_part(tmp_path):
    put(tmp_path / "take.mid", 60)
    references = References(tmp_path)
    assert pitch_of(references.find("a/take")) == [60]
    put(tmp_path / "a" / "take.mid", 61)
    references = References(tmp_path)
    assert pitch_of(references.find("a/take")) == [61]
    assert pitch_of(references.find("b/take")) == [60]
    assert pitch_of(references.find("take")) == [60]


def test_midi_comes_before_lists_and_lists_before_streams(tmp_path):
    for pitch, suffix in enumerate((".mtk", ".txt", ".csv", ".tsv", ".midi", ".mid"), 60):
        put(tmp_path / f"take{suffix}", pitch)
        assert pitch_of(References(tmp_path).find("take")) == [pitch]


def test_the_best_name_counts(tmp_path):
    put(tmp_path / "take.mid", 60)
    put(tmp_path / "take-2.mid", 61)
    assert pitch_of(References(tmp_path).find("take-2", "take")) == [61]
    assert pitch_of(References(tmp_path).find("take-3", "take")) == [60]


@pytest.mark.parametrize("name", ["other", "../secret", "a/../../secret", "/secret", "take.mid"])
def test_an_item_without_reference_is_told_where_it_was_looked_for(tmp_path, name):
    put(tmp_path / "refs" / "take.mid", 60)
    put(tmp_path / "secret.mid", 61)
    with pytest.raises(InputError, match="there is no reference") as error:
        References(tmp_path / "refs").find(name)
    assert str(tmp_path / "refs") in error.value.hint


def test_one_file_is_the_reference_of_one_item(tmp_path):
    references = References(put(tmp_path / "whatever.tsv", 60))
    assert pitch_of(references.find("take")) == [60]
    with pytest.raises(UsageError, match="more than one item"):
        references.find("other")


def test_a_stream_holds_the_references_of_many_items(tmp_path):
    streams = [put(tmp_path / f"{name}.mtk", pitch) for name, pitch in (("a", 60), ("b", 61))]
    both = tmp_path / "both.mtk"
    both.write_bytes(b"".join(path.read_bytes() for path in streams))
    references = References(both)
    assert [pitch_of(references.find(name)) for name in ("b", "a", "b")] == [[61], [60], [61]]
    with pytest.raises(InputError, match="there is no reference"):
        references.find("c")
    alone = References(streams[0])
    assert pitch_of(alone.find("any name")) == [60]
    with pytest.raises(UsageError, match="more than one item"):
        alone.find("another")


def test_a_reference_that_is_not_there_or_damaged_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        References(tmp_path / "nowhere")
    cut = put(tmp_path / "cut.mtk", 60)
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(InputError, match="the stream ends"):
        References(cut)


def test_a_name_without_a_known_suffix_is_told_by_its_first_bytes():
    assert kind_of(Path("take"), b"MThd") == "midi"
    assert kind_of(Path("take"), b"RIFF1234RMID") == "midi"
    assert kind_of(Path("take"), b'{"mtk":1') == "stream"
    assert kind_of(Path("take"), b"RIFF1234WAVE") == "audio"
    assert kind_of(Path("take.FLAC"), b"MThd") == "audio"
    assert split_suffix("take.1.mtk.ZST") == ("take.1", ".mtk.zst")
    assert split_suffix("take.1") == ("take.1", "")
