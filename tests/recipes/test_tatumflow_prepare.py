"""TatumFlow's data: four corpora become music for one piano that two hands can play; the same seed gives the same."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from musictool.symbolic import comping
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Notes, Pedals, Score, Track

RECIPE = Path(__file__).parents[2] / "examples" / "recipes" / "tatumflow"
CREDITS = '--Phase 1--\n\nTitle: "A" by Ann\n\tE1M1: "By the Way" by Kim "K" Lee & Bo, remix of x.mid by Bo\n'


@pytest.fixture
def recipe(monkeypatch):
    """Imports a module of the recipe by name."""
    monkeypatch.syspath_prepend(str(RECIPE))
    return importlib.import_module


def a_line(count: int, pitch: int = 60, step: float = 0.25, **columns: object) -> Notes:
    onset = np.arange(count) * step
    return Notes.of(onset, onset + step, pitch + np.arange(count) % 5, **columns)


def write_corpora(root: Path) -> None:
    """One piece of each corpus, with what each has of its own."""
    for folder in ("pop909", "pianomidi/midis/Bach", "wjazz/mcsv_melody", "wjazz/mcsv_beat", "freedoom/musics"):
        (root / folder).mkdir(parents=True)
    unison = Notes.concatenate([a_line(60, velocity=100), a_line(60, velocity=60, track=1)])
    pop = Score(unison, (Track("MELODY"), Track("PIANO")), pedals=Pedals.of([1, 1.5], [2, 3], [0, 1]))
    (root / "pop909" / "001.mid").write_bytes(write_midi(pop))
    hands = Notes.concatenate([a_line(60, pitch=72), a_line(60, pitch=40, track=1)])
    (root / "pianomidi/midis/Bach/bach_1.mid").write_bytes(write_midi(Score(hands, (Track("R"), Track("L")))))
    (root / "pianomidi/midis/Bach/short.mid").write_bytes(write_midi(Score(a_line(49))))
    rows = ["composer,title,year,midi,duration", "Bach,A,1,midis/Bach/BACH_1.mid,15", "Bach,B,1,midis/Bach/short.mid,9"]
    (root / "pianomidi/metadata.csv").write_text("\n".join(rows))
    solo = ["onset,duration,pitch,loud_median", *(f"{2 + 0.25 * k},0.2,{50 + k % 9},67" for k in range(80))]
    beats = ["onset,bar,chord,bass", *(f"{2 + 0.5 * k},{k // 4},{'G7' if k % 4 == 0 else ''},{40}" for k in range(40))]
    (root / "wjazz/mcsv_melody/Me_Tune_FINAL.csv").write_text("\n".join(solo))
    (root / "wjazz/mcsv_beat/Me_Tune_FINAL_beattrack.csv").write_text("\n".join(beats))
    meta = "filename_sv,performer,title,rhythmfeel\nMe_Tune_FINAL.sv,Émile M.,My Tune,SWING\n"
    (root / "wjazz/wjd_meta.csv").write_text(meta, encoding="utf-8")
    band = Notes.concatenate(
        [
            a_line(60, pitch=64, program=30),
            a_line(60, pitch=76, program=48, track=1),
            a_line(60, pitch=20, program=33, track=2),
            a_line(60, pitch=40, is_drum=True, track=3),
        ]
    )
    (root / "freedoom/musics/d_e1m1.mid").write_bytes(write_midi(Score(band, tuple(Track() for _ in range(4)))))
    (root / "freedoom/CREDITS-MUSIC").write_text(CREDITS)


def prepare(corpora: Path, target: Path, seed: int) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(RECIPE / "prepare.py"), str(corpora), str(target), str(seed)], check=True)
    return {path.relative_to(target).as_posix(): path.read_bytes() for path in sorted(target.rglob("*.mid"))}


def test_corpora_become_one_piano_by_style_and_artist_and_the_same_seed_gives_the_same(tmp_path):
    write_corpora(tmp_path / "in")
    made = prepare(tmp_path / "in", tmp_path / "out", 0)
    names = ["classical/bach/bach_1.mid", "game/kim-k-lee/d_e1m1.mid", "jazz/emile-m/Me_Tune.mid", "pop/-/001.mid"]
    assert list(made) == names  # short.mid has 49 notes
    scores = {name.partition("/")[0]: read_midi(tmp_path / "out" / name) for name in names}
    for score in scores.values():
        notes = score.notes
        assert not notes.program.any()
        assert not notes.is_drum.any()
        assert notes.onset_seconds.min() == 0
        for pitch in np.unique(notes.pitch):
            held = notes.take(notes.pitch == pitch)
            assert (held.offset_seconds[:-1] <= held.onset_seconds[1:] + 1e-3).all()
    assert len(scores["pop"].notes) == 60
    assert set(scores["pop"].notes.velocity.tolist()) == {100}
    assert [(p, q) for p, q in zip(scores["pop"].pedals.onset_seconds, scores["pop"].pedals.offset_seconds)] == [(1, 3)]
    assert len(scores["classical"].notes) == 120
    entry = json.loads((tmp_path / "out/jazz/manifest.jsonl").read_text())
    assert entry == {"name": "emile-m/Me_Tune", "piece": "my-tune"}
    assert prepare(tmp_path / "in", tmp_path / "again", 0) == made
    other = prepare(tmp_path / "in", tmp_path / "other", 1)
    assert [name for name in names if other[name] != made[name]] == ["jazz/emile-m/Me_Tune.mid"]


def test_a_key_is_struck_once_at_a_time(recipe):
    struck = recipe("piano").struck_once(
        Notes.of([0, 0.02, 0.5, 0.1], [1, 2, 3, 4], [60, 60, 60, 61], [50, 70, 40, 30])
    )
    assert struck.onset_seconds.tolist() == [0, 0.1, 0.5]
    assert struck.offset_seconds.tolist() == [0.5, 4, 3]  # two strokes of a moment are one, the next one ends it
    assert struck.velocity.tolist() == [70, 30, 40]


def test_a_solo_gets_chords_of_the_symbols_and_the_measured_bass(recipe):
    jazz = recipe("jazz_piano")
    solo = a_line(120, pitch=50, step=0.2)
    symbols = ["D-7", "G7", "Cj7", "Cj7"]
    beats = [comping.Beat(0.4 * k, k // 4, symbols[k // 4 % 4], 36 + k % 4) for k in range(60)]
    notes = jazz.arrange(solo, beats, "swing", np.random.default_rng(0))
    chords = notes.take((notes.pitch >= comping.CHORD_LOWEST) & (notes.velocity < solo.velocity[0]))
    bass = notes.take(notes.pitch < comping.CHORD_LOWEST)
    right = notes.take(notes.velocity == solo.velocity[0])
    assert set((right.pitch - 24).tolist()) >= set(solo.pitch.tolist())  # two octaves up, above the chords
    assert set(bass.pitch.tolist()) == {36, 37, 38, 39}
    assert len(bass) == 60
    assert len(chords) > 20
    for time, pitch in zip(chords.onset_seconds, chords.pitch, strict=True):
        number = time / 0.4
        near = {int(np.floor(number - 0.1)), int(np.floor(number + 0.6))}  # an anticipation has the next beat's
        parsed = [comping.parse_chord(beats[min(k, 59)].chord) for k in near if k >= 0]
        assert any(pitch % 12 in chord.shell + chord.colours for chord in parsed)
        sounding = right.take((right.onset_seconds <= time) & (right.offset_seconds > time))
        assert not len(sounding) or pitch < sounding.pitch.min()
    assert np.any((chords.onset_seconds / 0.4 % 1 > 0.55) & (chords.onset_seconds / 0.4 % 1 < 0.75))  # swung


def test_chords_stay_below_a_solo_that_comes_down_to_them(recipe):
    jazz = recipe("jazz_piano")
    onset = np.arange(200) * 0.2
    solo = Notes.of(onset, onset + 0.2, np.tile([80, 74, 70, 66, 61, 57, 63, 68], 25), 80)
    beats = [comping.Beat(0.4 * k, k // 4, "G7", 36) for k in range(100)]
    notes = jazz.arrange(solo, beats, "ballad", np.random.default_rng(0))
    right, chords = notes.take(notes.velocity == 80), notes.take((notes.velocity < 80) & (notes.pitch > 40))
    np.testing.assert_array_equal(right.pitch, solo.pitch)
    assert len(chords) > 20
    for start, end, pitch in zip(chords.onset_seconds, chords.offset_seconds, chords.pitch, strict=True):
        heard = right.take((right.onset_seconds < end - 1e-9) & (right.offset_seconds > start + 1e-9))
        assert pitch <= heard.pitch.min() - comping.LEAST_SOLO_GAP


def test_a_band_is_reduced_to_what_two_hands_hold(recipe):
    game = recipe("game_piano")
    generator = np.random.default_rng(0)
    onset = np.sort(generator.uniform(0, 60, 3000))
    length, pitch = generator.uniform(0.05, 3, 3000), generator.integers(20, 100, 3000)
    program = generator.choice([0, 30, 33, 48, 81, 120], 3000)
    notes = game.reduce_to_piano(Notes.of(onset, onset + length, pitch, 100, program, program == 120))
    assert len(notes) > 300
    for time in np.linspace(1, 59, 500):
        held = np.sort(notes.pitch[(notes.onset_seconds <= time) & (notes.offset_seconds > time)])
        assert len(held) <= game.LEFT_KEYS + game.RIGHT_KEYS
        hands = [(held[:k], held[k:]) for k in range(len(held) + 1)]
        assert any(all(not len(hand) or np.ptp(hand) <= game.REACH_SEMITONES for hand in pair) for pair in hands)
