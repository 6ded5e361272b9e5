"""`mtk data split`: lists that other commands read, a piece on one side, errors in a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.training.data.pairs import open_collections

SHARED, DATA = (os.environ.get(name, "") for name in ("MTK_TEST_SHARED", "MTK_TEST_DATA"))


def midi(seed: int, transposed: int = 0, count: int = 80) -> bytes:
    """A tune of its own."""
    onset = np.arange(count) * 0.25
    pitch = 60 + np.random.default_rng(seed).integers(-9, 10, count) + transposed
    return write_midi(Score(Notes.of(onset, onset + 0.2, pitch)))


@pytest.fixture
def corpus(tmp_path):
    """Forty tunes, some of them there twice under other names and in other keys."""
    folder = tmp_path / "corpus"
    (folder / "more").mkdir(parents=True)
    for seed in range(40):
        (folder / f"tune{seed:02}.mid").write_bytes(midi(seed))
    for seed in range(0, 40, 8):
        (folder / "more" / f"other{seed:02}.mid").write_bytes(midi(seed, transposed=5))
    return folder


def sides(result):
    return {stem: side for side, stem, _ in (line.split("\t") for line in result.out.decode().splitlines())}


def listed(folder: Path, side: str) -> list[str]:
    return [line for line in (folder / f"{side}.txt").read_text().splitlines() if not line.startswith("#")]


SHARES = "--fractions=train=.6,valid=.2,test=.2"


def test_a_transposed_copy_is_on_the_side_of_its_original(mtk, corpus):
    for seed in range(4):
        found = sides(mtk("data", "split", corpus, SHARES, "--seed", seed))
        assert len(found) == 45
        assert all(found[f"more/other{n:02}"] == found[f"tune{n:02}"] for n in range(0, 40, 8))
    apart = sides(mtk("data", "split", corpus, SHARES, "--group-by", "name"))
    assert any(apart[f"more/other{n:02}"] != apart[f"tune{n:02}"] for n in range(0, 40, 8))


def test_a_seed_is_a_split(mtk, corpus):
    first, again, other = (mtk("data", "split", corpus, SHARES, "--seed", seed).out for seed in (0, 0, 1))
    assert first == again != other


def test_rows_name_the_group_by_its_first_item(mtk, corpus):
    rows = [line.split("\t") for line in mtk("data", "split", corpus).out.decode().splitlines()]
    groups = {stem: group for _, stem, group in rows}
    assert groups["more/other08"] == groups["tune08"] == "more/other08"
    assert groups["tune01"] == "tune01"


def test_lists_hold_the_rows_and_start_with_how_they_were_made(mtk, corpus, tmp_path):
    rows = sides(mtk("data", "split", corpus, SHARES, "--seed", 3))
    result = mtk("data", "split", corpus, SHARES, "--seed", 3, "-o", corpus)
    assert (result.status, result.out) == (0, b"")
    for side in ("train", "valid", "test"):
        assert listed(corpus, side) == sorted(stem for stem, on in rows.items() if on == side)
        head = (corpus / f"{side}.txt").read_text().splitlines()[0]
        assert head.startswith(f"# mtk data split: {side}, 0.")
        assert head.endswith("seed 3")
    notes = result.err.splitlines()
    assert [line.split()[2:4] for line in notes] == [
        [side, str(len(listed(corpus, side)))] for side in ("train", "valid", "test")
    ]


def test_lists_elsewhere_are_read_as_collections_of_pairs(mtk, tmp_path, waltz):
    pairs = tmp_path / "pairs"
    for name in ("one", "two"):
        (pairs / name).mkdir(parents=True)
        shutil.copy(waltz, pairs / name / "x.mid")
        shutil.copy(waltz.with_suffix(".ogg"), pairs / name / "x.ogg")
    (pairs / "one" / "lone.ogg").touch()
    result = mtk("data", "split", pairs, "--fractions", "all=1", "-o", tmp_path / "lists")
    assert result.status == 0
    assert "files without a partner are left out: 1" in result.err
    (found,) = (open_collections([tmp_path / "lists" / "all.txt"]),)
    assert [pair.audio.resolve().parent.name for pair in found.pairs] == ["one", "two"]


def test_jobs_change_nothing(mtk, corpus):
    assert mtk("data", "split", corpus, "--jobs", 3).out == mtk("data", "split", corpus).out


def test_a_bad_file_is_named_and_left_out(mtk, corpus):
    before = sides(mtk("data", "split", corpus, SHARES))
    (corpus / "bad.mid").write_bytes(b"MThd, but no more of it")
    result = mtk("data", "split", corpus, SHARES)
    assert result.status == 1
    assert result.err.startswith("mtk: failed: bad: ")
    assert sides(result) == before


def test_lists_that_exist_are_kept_unless_told_otherwise(mtk, corpus, tmp_path):
    lists = tmp_path / "lists"
    assert mtk("data", "split", corpus, "-o", lists).status == 0
    before = {path.name: path.read_bytes() for path in lists.iterdir()}
    result = mtk("data", "split", corpus, "-o", lists, "--seed", 1)
    assert result.status == 2
    assert "mtk: error: the list exists" in result.err
    assert {path.name: path.read_bytes() for path in lists.iterdir()} == before
    assert mtk("data", "split", corpus, "-o", lists, "--seed", 1, "--force").status == 0
    assert {path.name: path.read_bytes() for path in lists.iterdir()} != before


def test_extend_keeps_every_side_and_puts_new_versions_beside_old_ones(mtk, corpus, tmp_path):
    lists = tmp_path / "lists"
    mtk("data", "split", corpus, SHARES, "-o", lists)
    before = {side: listed(lists, side) for side in ("train", "valid", "test")}
    for seed in range(40):
        (corpus / f"a{seed:02}.mid").write_bytes(midi(seed, transposed=-3))
    (corpus / "tune01.mid").unlink()
    result = mtk("data", "split", corpus, SHARES, "-o", lists, "--extend", "--seed", 7)
    assert result.status == 0
    assert "items of the list are gone: 1 (../corpus/tune01)" in result.err
    for side, old in before.items():
        new = listed(lists, side)
        assert set(old) - set(new) <= {"../corpus/tune01"}
        stems = {line.rpartition("/")[2] for line in new}
        assert {f"a{stem[4:]}" for stem in stems if stem.startswith("tune")} <= stems


def test_a_piece_that_lists_have_on_two_sides_stays_so_and_is_named(mtk, corpus, tmp_path):
    lists = tmp_path / "lists"
    mtk("data", "split", corpus, SHARES, "-o", lists, "--group-by", "name")
    rows = {line: side for side in ("train", "valid", "test") for line in listed(lists, side)}
    result = mtk("data", "split", corpus, SHARES, "-o", lists, "--extend")
    assert "mtk: warning: a piece is on several sides, as the lists have it: 2 (../corpus/more/other" in result.err
    assert rows == {line: side for side in ("train", "valid", "test") for line in listed(lists, side)}


def test_an_item_in_two_lists_is_an_error(mtk, corpus, tmp_path):
    for side in ("train", "test"):
        (corpus / f"{side}.txt").write_text("tune03\n")
    result = mtk("data", "split", corpus, "-o", corpus, "--extend")
    assert result.status == 3
    assert result.err.startswith("mtk: error: an item is on two sides")
    assert (corpus / "test.txt").read_text() == "tune03\n"


def test_left_out_by_name_with_all_its_versions(mtk, corpus, tmp_path):
    names = tmp_path / "held-out.txt"
    names.write_text("# kept for later\ntune08\nnowhere\n")
    result = mtk("data", "split", corpus, "--leave-out", names)
    assert result.status == 0
    assert "names of the list fit no item: 1 (nowhere)" in result.err
    assert "mtk: note: left out: 2 items" in result.err
    before = sides(mtk("data", "split", corpus))
    assert sides(result) == {s: side for s, side in before.items() if s not in ("tune08", "more/other08")}


def test_left_out_by_the_notes_of_another_folder(mtk, corpus, tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "what.mid").write_bytes(midi(5, transposed=2, count=60))
    result = mtk("data", "split", corpus, "--leave-out", tmp_path / "held")
    assert set(sides(mtk("data", "split", corpus))) - set(sides(result)) == {"tune05"}
    assert "mtk: note: left out: 1 items" in result.err
    inside = mtk("data", "split", corpus, "--leave-out", corpus / "more", "--group-by", "manifest")
    assert "mtk: note: left out: 5 items" in inside.err


def test_an_empty_side_is_said(mtk, corpus):
    result = mtk("data", "split", corpus, "--fractions", "train=.9999,test=.0001")
    assert result.status == 0
    assert "mtk: note: nothing is on side test: " in result.err


def test_machines_get_numbers_and_quiet_gets_none(mtk, corpus):
    assert mtk("data", "split", corpus, "--quiet").err == ""
    lines = [json.loads(line) for line in mtk("data", "split", corpus, "--log", "json").err.splitlines()]
    events = [line for line in lines if line.get("event") == "side"]
    assert [(e["side"], e["asked"]) for e in events] == [("train", 0.9), ("valid", 0.05), ("test", 0.05)]
    assert sum(e["items"] for e in events) == 45
    assert sum(e["pieces"] for e in events) == 40


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("nowhere",), 3),
        ((".",), 3),
        (("corpus", "--fractions", "train=.9"), 2),
        (("corpus", "--group-by", "taste"), 2),
        (("corpus", "--leave-out", "nowhere.txt"), 3),
        (("corpus", "--leave-out", "corpus/tune00.mid"), 3),
        (("corpus", "--extend"), 2),
        (("corpus", "-o", "corpus/tune00.mid"), 3),
        (("bad",), 3),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(mtk, corpus, arguments, status, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.mid").write_bytes(b"no notes")
    before = sorted(tmp_path.rglob("*"))
    if arguments == (".",):
        shutil.rmtree(corpus)
        shutil.rmtree(tmp_path / "bad")
        before = []
    result = mtk("data", "split", *arguments)
    assert (result.status, result.out) == (status, b"")
    failed, error = result.err.split("mtk: error: ")
    assert failed.count("mtk: failed: ") == (arguments == ("bad",))
    assert error.count("\n") <= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_no_torch_is_imported(corpus):
    code = "import sys; from musictool.cli.main import main; main(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, "data", "split", corpus], check=True, capture_output=True)


@pytest.mark.skipif(not (SHARED and DATA), reason="$MTK_TEST_SHARED and $MTK_TEST_DATA do not name the data")
def test_played_pieces_keep_their_scores_off_every_side(mtk):
    """Recordings of five pieces, as lists of notes that a piano played; one theme comes again in another movement."""
    arguments = ("data", "split", Path(DATA) / "pianomidi", "--group-by", "content")
    left = sides(mtk(*arguments, "--leave-out", Path(SHARED) / "data" / "recordings" / "maps-dev"))
    gone = {stem.rpartition("/")[2] for stem in set(sides(mtk(*arguments))) - set(left)}
    assert {"chpn_op25_e3", "chpn_op7_1", "muss_1", "schumm-1", "ty_mai"} <= gone
    assert gone <= {"chpn_op25_e3", "chpn_op7_1", "muss_1", "schumm-1", "ty_mai", "muss_7", "muss_2"}
