"""`mtk data synth` as a whole command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from musictool.symbolic import fluidsynth_player
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Score
from musictool.training.data.pairs import open_collections
from tests.training.data.fonts import needs_fluidsynth, sine_font

SHARED, DATA = (os.environ.get(name, "") for name in ("MTK_TEST_SHARED", "MTK_TEST_DATA"))


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    """Four short files, one of them in a folder."""
    folder = tmp_path / "tunes"
    (folder / "inner").mkdir(parents=True)
    for number, name in enumerate(("a", "b", "c", "inner/d")):
        notes = Notes.of([0.1, 0.6, 1.1], [0.5, 1.0, 1.9], [60 + number, 64, 67], 90, 0)
        (folder / f"{name}.mid").write_bytes(write_midi(Score(notes)))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def manifest(folder: Path, name: str = "manifest.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@needs_fluidsynth
def test_each_item_is_a_pair_with_a_line_in_the_manifest(mtk, tunes, tmp_path):
    done = mtk("data", "synth", tunes, "-o", f"{tmp_path}/out/", "--per-piece", 2, "--lag", "0:20", "--seed", 5)
    assert done.status == 0, done.err
    stems = ["a-0", "a-1", "b-0", "b-1", "c-0", "c-1", "inner/d-0", "inner/d-1"]
    pairs = open_collections([tmp_path / "out"])
    assert [pair.stem for pair in pairs.pairs] == stems
    assert [len(pairs.notes(i)) for i in range(8)] == [3] * 8
    records = manifest(tmp_path / "out")
    assert [record["name"] for record in records] == stems
    assert [record["piece"] for record in records[-2:]] == ["inner/d", "inner/d"]
    for record, pair in zip(records, pairs.pairs):
        assert record["duration_seconds"] == pytest.approx(pair.duration_seconds, abs=1e-6)
        assert 0 <= record["lag_seconds"] <= 0.02
        assert record["seed"] == 5
        assert (record["soundfont"], record["programs"]) == (["general-midi-small.sf3"], [0])
    assert files(tmp_path / "out")["a-0.flac"] != files(tmp_path / "out")["a-1.flac"]
    voices = json.loads((tmp_path / "out" / "voices.json").read_text())
    assert [(voice["program"], voice["fault"]) for voice in voices] == [(0, "")]
    assert abs(voices[0]["cents"]) < 10
    assert "8 items" in done.err
    assert "times real time" in done.err


@needs_fluidsynth
def test_jobs_and_shards_make_the_same_files(mtk, tunes, tmp_path):
    options = ("--programs", "0,40,73", "--excerpt", 1, "--augment", "--per-piece", 2)
    for jobs in (1, 3):
        assert mtk("data", "synth", tunes, "-o", tmp_path / str(jobs), *options, "--jobs", jobs).status == 0
    assert files(tmp_path / "1") == files(tmp_path / "3")
    for share in ("1/2", "2/2"):
        assert mtk("data", "synth", tunes, "-o", tmp_path / "shares", *options, "--shard", share).status == 0
    whole, shares = files(tmp_path / "1"), files(tmp_path / "shares")
    lines = b"".join(shares.pop(f"manifest.{n}-of-2.jsonl") for n in (1, 2)).splitlines()
    assert sorted(lines) == sorted(whole.pop("manifest.jsonl").splitlines())
    assert shares == whole


@needs_fluidsynth
def test_a_run_that_was_killed_goes_on_to_the_same_files(mtk, tunes, tmp_path):
    run = ("data", "synth", tunes, "-o", tmp_path / "out", "--augment")
    assert mtk(*run).status == 0
    whole = files(tmp_path / "out")
    lines = whole["manifest.jsonl"].splitlines(keepends=True)
    (tmp_path / "out" / "manifest.jsonl").unlink()
    (tmp_path / "out" / ".manifest.jsonl.part").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    (tmp_path / "out" / "inner" / "d.flac").unlink()
    untouched = (tmp_path / "out" / "a.flac").stat().st_mtime_ns
    done = mtk(*run, "--skip-existing")
    assert done.status == 0
    assert "2 items" in done.err
    assert files(tmp_path / "out") == whole
    assert (tmp_path / "out" / "a.flac").stat().st_mtime_ns == untouched


@needs_fluidsynth
def test_nothing_is_replaced_unasked(mtk, tunes, tmp_path):
    run = ("data", "synth", tunes / "a.mid", "-o", tmp_path / "out")
    assert mtk(*run).status == 0
    before = files(tmp_path / "out")
    again = mtk(*run, "--seed", 1)
    assert (again.status, files(tmp_path / "out")) == (2, before)
    assert "--force" in again.err
    assert mtk(*run, "--seed", 1, "--force").status == 0
    assert files(tmp_path / "out")["a.flac"] != before["a.flac"]


@needs_fluidsynth
def test_listed_pieces_are_left_out_by_name(mtk, tunes, tmp_path):
    (tmp_path / "list.txt").write_text("# held out\nB\nd.mid\nnot-there\n")
    done = mtk("data", "synth", tunes, "-o", tmp_path / "out", "--leave-out", tmp_path / "list.txt")
    assert [record["name"] for record in manifest(tmp_path / "out")] == ["a", "c"]
    assert "2 of 4 files are left out" in done.err
    (tmp_path / "all.txt").write_text("a\nb\nc\nd\n")
    done = mtk("data", "synth", tunes, "-o", tmp_path / "none", "--leave-out", tmp_path / "all.txt")
    assert (done.status, (tmp_path / "none").exists()) == (3, False)
    assert mtk("data", "synth", tunes, "-o", tmp_path / "x", "--leave-out", tmp_path / "no.txt").status == 3


@needs_fluidsynth
def test_a_file_that_cannot_be_read_fails_alone(mtk, folder, tmp_path):
    done = mtk("data", "synth", folder, "-o", tmp_path / "out")
    assert done.status == 1
    assert next(line for line in done.err.splitlines() if "failed" in line).startswith("mtk: failed: b: ")
    assert [record["name"] for record in manifest(tmp_path / "out")] == ["a", "inner/c"]


@needs_fluidsynth
def test_a_voice_out_of_tune_is_left_out_and_the_others_play(mtk, tunes, tmp_path):
    wrong = sine_font(tmp_path / "wrong.sf2", cents=1200)
    right = sine_font(tmp_path / "right.sf2")
    run = ("data", "synth", tunes, "-o", tmp_path / "out", "--soundfont", wrong, "--soundfont", f"{right}:0.01")
    done = mtk(*run)
    assert done.status == 0
    assert [line for line in done.err.splitlines() if "warning" in line] == [
        "mtk: warning: a voice is left out: 'preset' is out of tune by +1204 cents (wrong.sf2, preset 0:0)"
    ]
    assert {tuple(record["soundfont"]) for record in manifest(tmp_path / "out")} == {("right.sf2",)}
    voices = json.loads((tmp_path / "out" / "voices.json").read_text())
    assert [bool(voice["fault"]) for voice in voices] == [True, False]
    alone = mtk("data", "synth", tunes, "-o", tmp_path / "none", "--soundfont", wrong)
    assert alone.status == 3
    assert "in tune" in alone.err


@needs_fluidsynth
def test_items_without_a_playable_note_are_passed_over(mtk, tunes, tmp_path):
    notes = Notes.of([0.1], [0.5], [38], is_drum=True)
    (tunes / "drums.mid").write_bytes(write_midi(Score(notes)))
    done = mtk("data", "synth", tunes, "-o", tmp_path / "out", "--no-drums")
    assert done.status == 0
    assert "1 items held nothing that the voices can play" in done.err
    assert len(manifest(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    "options",
    [
        ("--programs", "0-200"),
        ("--lag", "20"),
        ("--lag", "30:10"),
        ("--lag", "0:150"),
        ("--excerpt", "0"),
        ("--soundfont", "font.sf2:0"),
        ("--force", "--skip-existing"),
        ("--shard", "3/2"),
    ],
)
@needs_fluidsynth
def test_options_that_make_no_sense_are_wrong_usage(mtk, tunes, tmp_path, options):
    done = mtk("data", "synth", tunes, "-o", tmp_path / "out", *options)
    assert done.status == 2, done.err
    assert not (tmp_path / "out").exists()


@needs_fluidsynth
def test_inputs_that_are_none_are_named(mtk, tunes, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "font.sf2").write_bytes(b"RIFF")
    for arguments in ((tmp_path / "nowhere",), (tmp_path / "empty",), (tunes, "--soundfont", tmp_path / "font.sf2")):
        done = mtk("data", "synth", *arguments, "-o", tmp_path / "out")
        assert done.status == 3
        assert done.err.count("\n") <= 2


def test_without_libfluidsynth_nothing_is_begun(mtk, tunes, tmp_path, monkeypatch):
    monkeypatch.setattr(fluidsynth_player, "load_library", lambda: None)
    done = mtk("data", "synth", tunes, "-o", tmp_path / "out")
    assert done.status == 4
    assert "pip install pyfluidsynth" in done.err
    assert not (tmp_path / "out").exists()


@needs_fluidsynth
@pytest.mark.skipif(not (SHARED and DATA), reason="no corpora")
def test_held_out_pieces_are_in_no_set(mtk, tmp_path):
    held_out = Path(SHARED, "data", "recordings", "held-out-pieces.txt")
    source = Path(DATA, "pianomidi", "midis")
    run = ("data", "synth", source, "-o", tmp_path / "out", "--leave-out", held_out, "--shard", "3/90", "--excerpt", 5)
    assert mtk(*run).status == 0
    names = {line.strip() for line in held_out.read_text().splitlines()}
    records = manifest(tmp_path / "out", "manifest.3-of-90.jsonl")
    assert records
    assert not names & {record["piece"].rpartition("/")[2] for record in records}
    for record in records:
        assert len(read_midi(tmp_path / "out" / f"{record['name']}.mid").notes) == record["notes"]
