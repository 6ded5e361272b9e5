"""The Weimar Jazz Database (Pfleiderer et al., 2017) as CSV files: solos, beats with chords and bass, and who plays.

A folder of it has `wjd_meta.csv`, `mcsv_melody/` and `mcsv_beat/`. Times stay as they were measured.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from musictool.errors import InputError
from musictool.symbolic.comping import Beat
from musictool.symbolic.notes import Notes

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
_FEELS = (("BALLAD", "ballad"), ("LATIN", "latin"), ("FUNK", "funk"))  # anything else swings
_MIDDLE_DECIBELS, _MIDDLE_VELOCITY, _VELOCITY_STEPS_A_DECIBEL = 67.0, 80, 3.5
_LEAST_VELOCITY, _MOST_VELOCITY = 25, 120
_HINT = "name the database's folder: wjd_meta.csv lies in it, beside mcsv_melody and mcsv_beat"


class Solo(NamedTuple):
    """A solo's files, and what is known of it.

    Attributes:
        name: of its files.
        melody, beats: tables of its notes and of its beats.
        row: its line of `wjd_meta.csv`; `performer`, `title`, `instrument` and `style` are among the columns.
    """

    name: str
    melody: Path
    beats: Path
    row: dict[str, str]

    @property
    def program(self) -> int | None:
        """General MIDI's number of the instrument; None where it is not known."""
        return PROGRAMS.get(self.row.get("instrument", ""))

    @property
    def feel(self) -> str:
        """`swing`, `ballad`, `latin` or `funk`, as `comping` takes it."""
        return next((feel for mark, feel in _FEELS if mark in self.row.get("rhythmfeel", "")), "swing")


def list_solos(folder: Path) -> list[Solo]:
    """The solos of a database, by rising name.

    Raises:
        InputError: the folder is no such database.
    """
    solos = []
    for row in read_table(folder / "wjd_meta.csv", _HINT):
        name = Path(row.get("filename_sv", "")).stem
        if name:
            beats = folder / "mcsv_beat" / f"{name}_beattrack.csv"
            solos.append(Solo(name, folder / "mcsv_melody" / f"{name}.csv", beats, row))
    if not solos:
        raise InputError("the table lists no solo", context=str(folder / "wjd_meta.csv"), hint=_HINT)
    return sorted(solos, key=lambda solo: solo.name)


def read_solo(melody: Path, program: int = 0) -> Notes:
    """The notes of a solo, loudness as velocity.

    Args:
        melody: a table of `mcsv_melody`.
        program: of the notes.

    Raises:
        InputError: the table cannot be read.
    """
    rows = read_table(melody)
    with _as_numbers(melody):
        onset = np.array([float(row["onset"]) for row in rows])
        duration = np.array([float(row["duration"]) for row in rows])
        pitch = [round(float(row["pitch"])) for row in rows]
        velocities = [_velocity(row.get("loud_median") or "") for row in rows]
    return Notes.of(onset, onset + duration, pitch, velocities, program).sorted()


def read_beats(beats: Path) -> list[Beat]:
    """The beats of a solo; a chord holds until another one is written.

    Args:
        beats: a table of `mcsv_beat`.

    Raises:
        InputError: the table cannot be read.
    """
    chord, found = "", []
    rows = read_table(beats)
    with _as_numbers(beats):
        for row in rows:
            chord = row["chord"] or chord
            bass = row.get("bass") or ""
            found.append(Beat(float(row["onset"]), int(row["bar"]), chord, round(float(bass)) if bass else None))
    return found


def read_table(path: Path, hint: str = "") -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns.

    Args:
        path: the file.
        hint: what to do if it cannot be read.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [{key: value or "" for key, value in row.items() if key} for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "not a table"
        raise InputError(f"cannot read the table: {reason.lower()}", context=str(path), hint=hint) from error


def _velocity(loudness: str) -> int:
    """A velocity for a note's median loudness in decibels; the middle one where it was not measured."""
    try:
        decibels = float(loudness)
    except ValueError:
        decibels = _MIDDLE_DECIBELS
    steps = (decibels - _MIDDLE_DECIBELS) * _VELOCITY_STEPS_A_DECIBEL
    return int(np.clip(round(_MIDDLE_VELOCITY + steps), _LEAST_VELOCITY, _MOST_VELOCITY))


@contextmanager
def _as_numbers(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, OverflowError) as error:
        what = f"no column {error}" if isinstance(error, KeyError) else f"no number: {error}"
        raise InputError(f"cannot read the table: {what:.100}", context=str(path)) from error
