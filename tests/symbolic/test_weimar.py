"""The Weimar Jazz Database: times and loudness of solos, chords and bass of beats, and tables that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.symbolic.weimar import list_solos, read_beats, read_solo

SOLO = """onset,duration,pitch,loud_median
10.6376417234,0.171247165533,63,75.0
10.3434920635,0.138775510204,65,66.5260873692
10.8437188209,0.0812698412698,58,
"""
BEATS = """onset,bar,chord,bass
9.5,-1,NC,42
9.8,-1,,
10.1,0,Bb6,50.0
10.4,0,,
"""
META = """filename_sv,performer,title,instrument,rhythmfeel
B_Tune_FINAL.sv,Bea,Tune,ts,SWING
A_Other_FINAL.sv,Al,Other,kazoo,LATIN/FUNK
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "mcsv_melody").mkdir()
    (tmp_path / "mcsv_beat").mkdir()
    (tmp_path / "mcsv_melody" / "B_Tune_FINAL.csv").write_text(SOLO)
    (tmp_path / "mcsv_beat" / "B_Tune_FINAL_beattrack.csv").write_text(BEATS)
    (tmp_path / "wjd_meta.csv").write_text("\ufeff" + META, encoding="utf-8")
    return tmp_path


def test_solos_are_listed_by_name_with_what_is_known_of_them(database):
    first, second = list_solos(database)
    assert (first.name, first.program, first.feel) == ("A_Other_FINAL", None, "latin")
    assert (second.name, second.program, second.feel) == ("B_Tune_FINAL", 66, "swing")
    assert second.row["performer"] == "Bea"
    assert second.melody.is_file()
    assert second.beats.is_file()


def test_a_solo_keeps_its_times_and_its_loudness_becomes_velocity(database):
    notes = read_solo(list_solos(database)[1].melody, 66)
    np.testing.assert_allclose(notes.onset_seconds, [10.3434920635, 10.6376417234, 10.8437188209])
    np.testing.assert_allclose(notes.offset_seconds - notes.onset_seconds, [0.1387755, 0.1712472, 0.0812698], atol=1e-6)
    assert notes.pitch.tolist() == [65, 63, 58]
    assert set(notes.program.tolist()) == {66}
    soft, loud, unknown = notes.velocity.tolist()
    assert soft < unknown < loud


def test_a_chord_holds_until_the_next_and_bass_is_there_where_it_was_measured(database):
    beats = read_beats(list_solos(database)[1].beats)
    assert [beat.chord for beat in beats] == ["NC", "NC", "Bb6", "Bb6"]
    assert [beat.bass for beat in beats] == [42, None, 50, None]
    assert [beat.bar for beat in beats] == [-1, -1, 0, 0]


def test_what_is_no_table_is_named(database):
    solo = list_solos(database)[1]
    with pytest.raises(InputError, match="no such file") as caught:
        list_solos(database / "elsewhere")
    assert "mcsv_melody" in caught.value.hint
    (database / "wjd_meta.csv").write_text("performer\nBea\n")
    with pytest.raises(InputError, match="no solo"):
        list_solos(database)
    for content, reason in (("onset,duration\n1,2\n", "pitch"), ("onset,duration,pitch\nx,2,3\n", "no number")):
        solo.melody.write_text(content)
        with pytest.raises(InputError, match=reason) as caught:
            read_solo(solo.melody)
        assert str(solo.melody) in str(caught.value)
    solo.beats.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a table"):
        read_beats(solo.beats)
