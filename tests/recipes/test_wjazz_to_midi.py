"""The converter of the Weimar Jazz Database: times to the tick, loudness as velocity, instruments as programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from musictool.symbolic.midi import read_midi

SCRIPT = Path(__file__).parents[2] / "examples" / "recipes" / "note-tagger" / "wjazz_to_midi.py"
SOLO = """onset,duration,pitch,loud_median
10.3434920635,0.138775510204,65,66.5260873692
10.6376417234,0.171247165533,63,75.0
10.8437188209,0.0812698412698,58,
"""


def test_a_solo_keeps_its_times_and_loudness(tmp_path):
    (tmp_path / "in" / "mcsv_melody").mkdir(parents=True)
    (tmp_path / "in" / "mcsv_melody" / "ArtPepper_Anthropology_FINAL.csv").write_text(SOLO)
    (tmp_path / "in" / "wjd_meta.csv").write_text("filename_sv,instrument\nArtPepper_Anthropology_FINAL.sv,cl\n")
    subprocess.run([sys.executable, str(SCRIPT), str(tmp_path / "in"), str(tmp_path / "out")], check=True)
    notes = read_midi(tmp_path / "out" / "ArtPepper_Anthropology_FINAL.mid").notes
    np.testing.assert_allclose(notes.onset_seconds, [10.34349, 10.63764, 10.84372], atol=6e-5)
    np.testing.assert_allclose(notes.offset_seconds, [10.48227, 10.80889, 10.92499], atol=6e-5)
    assert notes.pitch.tolist() == [65, 63, 58]
    assert set(notes.program.tolist()) == {71}
    soft, loud, unknown = notes.velocity.tolist()
    assert soft < unknown < loud
