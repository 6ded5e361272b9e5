"""Turn the solos of the Weimar Jazz Database (CSV) into MIDI files, one a solo, for `mtk data synth`.

    python wjazz_to_midi.py WJAZZ_FOLDER OUT_FOLDER

Reads `mcsv_melody/*.csv` (onset and duration in seconds, MIDI pitch, loudness in decibels) and `wjd_meta.csv` (the
instrument). Times stay as they were played, to half a tenth of a millisecond.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Notes, Score, Track

PROGRAMS = {  # of the database's instruments in General MIDI
    "ss": 64,
    "as": 65,
    "ts": 66,
    "ts-c": 66,
    "bs": 67,
    "cl": 71,
    "bcl": 71,
    "tp": 56,
    "cor": 56,
    "tb": 57,
    "vib": 11,
    "p": 0,
    "g": 26,
}
MIDDLE_DECIBELS, MIDDLE_VELOCITY, VELOCITY_STEPS_A_DECIBEL = 67.0, 80, 3.5
TICKS_PER_QUARTER = 5_000  # at 120 quarters a minute a tick lasts 0.1 ms


def velocity(loudness: str) -> int:
    """A velocity for a note's median loudness; the middle one where it was not measured."""
    try:
        decibels = float(loudness)
    except ValueError:
        decibels = MIDDLE_DECIBELS
    steps = (decibels - MIDDLE_DECIBELS) * VELOCITY_STEPS_A_DECIBEL
    return int(np.clip(round(MIDDLE_VELOCITY + steps), 25, 120))


def convert(table: Path, instrument: str) -> bytes:
    """One solo as a MIDI file."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    onset = np.array([float(row["onset"]) for row in rows])
    duration = np.array([float(row["duration"]) for row in rows])
    pitch = [round(float(row["pitch"])) for row in rows]
    program = PROGRAMS.get(instrument, 66)
    notes = Notes.of(onset, onset + duration, pitch, [velocity(row.get("loud_median") or "") for row in rows], program)
    track = Track("solo", program)
    return write_midi(Score(notes.sorted(), tracks=(track,), ticks_per_quarter=TICKS_PER_QUARTER))


def main(source: Path, target: Path) -> None:
    """Convert every solo of the database."""
    with (source / "wjd_meta.csv").open(newline="", encoding="utf-8") as file:
        instruments = {Path(row["filename_sv"]).stem: row["instrument"] for row in csv.DictReader(file)}
    target.mkdir(parents=True, exist_ok=True)
    for table in sorted((source / "mcsv_melody").glob("*.csv")):
        (target / f"{table.stem}.mid").write_bytes(convert(table, instruments.get(table.stem, "")))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
