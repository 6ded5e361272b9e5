"""`mtk data pairs`: what is heard is what the notes say, and the backing is the database's."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.symbolic.midi import read_midi

BEATS = ["onset,bar,chord,bass", *(f"{10 + 0.5 * k},{k // 4},{'C-7' if k % 8 == 0 else ''},43" for k in range(24))]
RATE = 16_000


def solo(lowest: int) -> str:
    rows = (f"{11 + 0.25 * k},0.2,{lowest + k % 9},{60 + k % 12}" for k in range(30))
    return "\n".join(["onset,duration,pitch,loud_median", *rows])


@pytest.fixture
def wjazz(tmp_path: Path) -> Path:
    """Three solos: a tenor saxophone's, a trumpet's, and a piano's with neither chords nor bass."""
    folder = tmp_path / "wjazz"
    (folder / "mcsv_melody").mkdir(parents=True)
    (folder / "mcsv_beat").mkdir()
    for name, lowest, beats in (("Tea_A", 50, BEATS), ("Tom_B", 64, BEATS), ("Pia_C", 60, BEATS[:1])):
        (folder / "mcsv_melody" / f"{name}_FINAL.csv").write_text(solo(lowest))
        (folder / "mcsv_beat" / f"{name}_FINAL_beattrack.csv").write_text("\n".join(beats))
    meta = ["filename_sv,performer,title,instrument,style,rhythmfeel"]
    for name, instrument in (("Tea_A", "ts"), ("Tom_B", "tp"), ("Pia_C", "p")):
        meta.append(f"{name}_FINAL.sv,{name[:3]},A Tune,{instrument},BEBOP,SWING")
    (folder / "wjd_meta.csv").write_text("\n".join(meta))
    return folder


def manifest(folder: Path) -> dict[str, dict]:
    return {record["name"]: record for record in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())}


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def run_pairs(mtk, wjazz, folder, *options):
    return mtk("data", "pairs", wjazz, "-o", folder, "--rate", RATE, "--synthesizer", "builtin", *options)


def test_a_solo_is_played_beside_its_bass_and_chords(mtk, wjazz, tmp_path):
    done = run_pairs(mtk, wjazz, tmp_path / "pairs")
    assert done.status == 0, done.err
    assert "3 in, 2 out" in done.err
    found = manifest(tmp_path / "pairs")
    assert list(found) == ["Tea_A", "Tom_B"]
    record = found["Tea_A"]
    assert record["piece"] == "a tune"
    assert record["about"]["performer"] == "Tea"
    lead, backing = (
        read_midi(tmp_path / "pairs" / record["parts"][part]["notes"]).notes for part in ("lead", "backing")
    )
    assert len(lead) == 30
    assert lead.pitch.tolist() == [50 + k % 9 for k in range(30)]
    assert set(lead.program.tolist()) == {66}
    np.testing.assert_allclose(np.diff(lead.onset_seconds), 0.25, atol=2e-4)
    bass, piano = backing.take(backing.program == 32), backing.take(backing.program == 0)
    assert set(bass.pitch.tolist()) == {43}
    beats = (bass.onset_seconds - bass.onset_seconds[0]) / 0.5
    np.testing.assert_allclose(beats, np.rint(beats), atol=1e-3)
    assert set((piano.pitch % 12).tolist()) <= {3, 10, 2, 7}
    assert len(piano) > 3
    first = min(float(part.onset_seconds.min()) for part in (lead, bass))
    assert first == pytest.approx(0.1, abs=2e-4)


def test_both_parts_sound_where_their_notes_are_and_are_equally_long(mtk, wjazz, tmp_path):
    assert run_pairs(mtk, wjazz, tmp_path / "pairs").status == 0
    record = manifest(tmp_path / "pairs")["Tea_A"]
    lengths = set()
    for part in ("lead", "backing"):
        sound, rate = soundfile.read(tmp_path / "pairs" / record["parts"][part]["file"], dtype="float32")
        notes = read_midi(tmp_path / "pairs" / record["parts"][part]["notes"]).notes
        lengths.add(len(sound))
        assert (rate, sound.ndim) == (RATE, 1)
        power = np.square(sound)
        before = power[: max(0, round((float(notes.onset_seconds.min()) - 0.01) * rate))]
        during = power[round(float(notes.onset_seconds.min()) * rate) : round(notes.end_seconds * rate)]
        assert during.mean() > 1e-5
        assert before.sum() < 1e-6
    assert lengths == {round(record["seconds"] * RATE)}


def test_a_saxophone_plays_what_another_instrument_did_or_leaves_it_out(mtk, wjazz, tmp_path):
    assert run_pairs(mtk, wjazz, tmp_path / "all").status == 0
    record = manifest(tmp_path / "all")["Tom_B"]
    assert record["made"][-1]["result"] == {"saxophone": "soprano saxophone", "octaves": 0, "semitones": 0}
    assert record["about"]["instrument"] == "tp"
    notes = read_midi(tmp_path / "all" / record["parts"]["lead"]["notes"]).notes
    assert set(notes.program.tolist()) == {64}
    assert run_pairs(mtk, wjazz, tmp_path / "some", "--saxophones-only").status == 0
    assert list(manifest(tmp_path / "some")) == ["Tea_A"]


def test_the_seed_decides_what_is_made_up_and_nothing_else_does(mtk, wjazz, tmp_path):
    for folder, options in (("1", ()), ("2", ("--jobs", 2)), ("3", ("--seed", 1))):
        assert run_pairs(mtk, wjazz, tmp_path / folder, *options).status == 0
    first, second, third = (files(tmp_path / folder) for folder in "123")
    assert first == second
    assert first["lead/Tea_A.mid"] == third["lead/Tea_A.mid"]
    assert first["backing/Tea_A.mid"] != third["backing/Tea_A.mid"]


def test_on_chords_the_line_has_their_tones_alone_and_the_rhythm_it_had(mtk, wjazz, tmp_path):
    assert run_pairs(mtk, wjazz, tmp_path / "played").status == 0
    assert run_pairs(mtk, wjazz, tmp_path / "moved", "--on-chords").status == 0
    for name in ("lead/Tea_A.mid", "lead/Tom_B.mid"):
        played, moved = (read_midi(tmp_path / folder / name).notes for folder in ("played", "moved"))
        assert set((played.pitch % 12).tolist()) - {0, 3, 7, 10}  # all of it is over C-7
        assert set((moved.pitch % 12).tolist()) <= {0, 3, 7, 10}
        np.testing.assert_array_equal(moved.onset_seconds, played.onset_seconds)
        np.testing.assert_array_equal(moved.velocity, played.velocity)
    assert files(tmp_path / "played")["backing/Tea_A.flac"] == files(tmp_path / "moved")["backing/Tea_A.flac"]


def test_another_key_is_that_of_both_parts_and_each_solo_has_its_own(mtk, wjazz, tmp_path):
    assert run_pairs(mtk, wjazz, tmp_path / "played").status == 0
    assert run_pairs(mtk, wjazz, tmp_path / "moved", "--transpose", 5, "--seed", 1).status == 0
    assert run_pairs(mtk, wjazz, tmp_path / "same", "--seed", 1).status == 0
    steps = {name: record["made"][-1]["result"]["semitones"] for name, record in manifest(tmp_path / "moved").items()}
    assert all(abs(step) <= 5 for step in steps.values())
    assert len(set(steps.values())) == 2
    for name, step in steps.items():
        for part in ("lead", "backing"):
            same, moved = (read_midi(tmp_path / f"{folder}/{part}/{name}.mid").notes for folder in ("same", "moved"))
            np.testing.assert_array_equal(moved.pitch, same.pitch + step)
            np.testing.assert_array_equal(moved.onset_seconds, same.onset_seconds)
    done = run_pairs(mtk, wjazz, tmp_path / "far", "--transpose", 13)
    assert done.status == 2
    assert "transpose is from 0 to 12" in done.err


def test_solos_on_one_tune_stay_on_one_side(mtk, wjazz, tmp_path):
    assert run_pairs(mtk, wjazz, tmp_path / "pairs").status == 0
    done = mtk("data", "split", tmp_path / "pairs", "--fractions", "a=.5,b=.5", "--group-by", "manifest")
    rows = [line.split("\t") for line in done.out.decode().splitlines()]
    assert sorted(stem for _, stem, _ in rows) == ["backing/Tea_A", "backing/Tom_B", "lead/Tea_A", "lead/Tom_B"]
    assert len({side for side, *_ in rows}) == 1


def test_a_folder_that_is_no_database_is_named(mtk, tmp_path):
    done = run_pairs(mtk, tmp_path / "nowhere", tmp_path / "pairs")
    assert done.status == 3
    assert "wjd_meta.csv" in done.err
    assert not (tmp_path / "pairs").exists()


@pytest.mark.skipif("MTK_TEST_DATA" not in os.environ, reason="needs the corpora")
def test_solos_of_the_database_become_pairs(mtk, tmp_path):
    folder = Path(os.environ["MTK_TEST_DATA"]) / "wjazz"
    done = run_pairs(mtk, folder, tmp_path / "pairs", "--shard", "100/150")
    assert done.status == 0
    records = [json.loads(line) for line in (tmp_path / "pairs" / "manifest.100-of-150.jsonl").read_text().splitlines()]
    assert len(records) == 3
    for record in records:
        for part in record["parts"].values():
            sound, _ = soundfile.read(tmp_path / "pairs" / part["file"], dtype="float32")
            assert np.sqrt(np.square(sound).mean()) > 0.005
            assert len(read_midi(tmp_path / "pairs" / part["notes"]).notes) > 40
