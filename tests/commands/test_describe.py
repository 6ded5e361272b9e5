"""`mtk describe`: pages for people, JSON for machines, from files and streams."""

from __future__ import annotations

import json

import pytest

WALTZ = ["G", "G", "D7", "D7", "C", "D7", "G", "G", "Em", "Em", "A7", "D7", "C", "G", "D7", "G"]


def records(result):
    return [json.loads(line) for line in result.out.splitlines()]


def test_a_page_shows_what_the_waltz_is_made_of(mtk, waltz):
    result = mtk("describe", waltz)
    title, heading, *bars, gap, end = result.out.decode().split("\n")
    assert (result.status, result.err) == (0, "")
    assert title == "waltz: G major, 3/4, 146 quarters a minute, 149 notes, 19.6 s"
    assert heading.split()[:3] == ["bar", "time", "chords"]
    assert [line.split()[2] for line in bars] == WALTZ
    assert bars[3].split() == [
        "4",
        "0:03.60",
        "D7",
        "▁" * 12,
        "D5",
        "D5",
        "▂····▃·····▃····",
        "2.5",
        "0.00",
        "66",
        "mp",
    ]
    assert len({line.index("·") for line in bars}) == 1
    assert (gap, end) == ("", "")


@pytest.mark.parametrize("scheme", ["tatum", "remi", "mt3"])
def test_streams_of_any_scheme_say_what_the_file_says(mtk, waltz, scheme):
    (file,) = records(mtk("describe", waltz, "--json"))
    result = mtk("describe", "--json", stdin=mtk("tokenize", waltz, "--scheme", scheme).out)
    (item,) = records(result)
    assert (result.status, item["item"], item["key"]["name"]) == (0, "waltz", "G major")
    assert [bar["melody"] for bar in item["stretches"]] == [bar["melody"] for bar in file["stretches"]]
    symbols = [[chord["label"] for chord in bar["chords"]] for bar in item["stretches"]]
    assert symbols == [[chord["label"] for chord in bar["chords"]] for bar in file["stretches"]]


def test_a_list_of_notes_is_described_by_seconds(mtk, tmp_path):
    (tmp_path / "chord.tsv").write_text("onset,offset,pitch\n0,3,57\n0,3,60\n0,3,64\n")
    result = mtk("describe", tmp_path / "chord.tsv")
    title, heading, *parts = result.out.decode().splitlines()
    assert title == "chord: A minor, 3 notes, 3.0 s"
    assert heading.split()[0] == "part"
    assert [line.split()[2] for line in parts if line] == ["Am", "Am"]
    assert "Am" + " " * 24 + "▁" * 6 + " " * 8 + "E4" in parts[1]
    assert len(records(mtk("describe", tmp_path / "chord.tsv", "--every", "0.5", "--json"))[0]["stretches"]) == 6


def test_a_key_that_is_a_guess_is_marked(mtk, tmp_path):
    (tmp_path / "few.tsv").write_text("onset,offset,pitch\n0,1,60\n1,2,66\n")
    assert mtk("describe", tmp_path / "few.tsv").out.startswith(b"few: ")
    assert b" (?), 2 notes" in mtk("describe", tmp_path / "few.tsv").out
    (tmp_path / "none.tsv").write_text("onset,offset,pitch\n")
    assert mtk("describe", tmp_path / "none.tsv").out.startswith(b"none: no key, 0 notes")


def test_an_unreadable_file_among_others_is_named(mtk, folder):
    result = mtk("describe", folder, "--json")
    assert (result.status, [record["item"] for record in records(result)]) == (1, ["a", "inner/c"])
    assert result.err.count("mtk: failed: b: ") == 1
    alone = mtk("describe", folder / "b.mid")
    assert (alone.status, alone.out) == (3, b"")


def test_items_that_failed_before_are_named_and_broken_streams_end_with_3(mtk, folder):
    stream = mtk("tokenize", folder).out
    result = mtk("describe", "--json", stdin=stream)
    assert (result.status, [record["item"] for record in records(result)]) == (1, ["a", "inner/c"])
    torn = mtk("describe", "--json", stdin=stream[:-20])
    assert (torn.status, [record["item"] for record in records(torn)]) == (3, ["a"])


def test_sound_is_sent_to_transcribe(mtk, waltz):
    result = mtk("describe", waltz.with_suffix(".ogg"))
    assert (result.status, result.out) == (3, b"")
    assert "mtk transcribe" in result.err.splitlines()[1]


def test_jobs_change_nothing(mtk, folder):
    assert mtk("describe", folder, "--jobs", 2) == mtk("describe", folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [(("--every", "0"), "no length"), (("--every", "nan"), "no length"), (("--scheme", "x"), "no such scheme")],
)
def test_wrong_usage_ends_before_any_work(mtk, waltz, options, message):
    result = mtk("describe", waltz, *options)
    assert (result.status, result.out) == (2, b"")
    assert message in result.err.splitlines()[0]
