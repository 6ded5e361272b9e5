"""The key of a note table."""

from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pytest

from musictool.symbolic.key import key_of
from musictool.symbolic.notes import Notes
from tests.symbolic.theory_table import key_verdict, piano_midi

MAJOR_TUNE = (60, 62, 64, 65, 67, 64, 60, 67, 65, 62, 59, 60)
MINOR_TUNE = (69, 71, 72, 74, 76, 72, 69, 76, 74, 71, 68, 69)


def tune(pitches: tuple[int, ...], up: int = 0) -> Notes:
    onset = np.arange(len(pitches)) * 0.5
    return Notes.of(onset, onset + 0.5, np.array(pitches) + up)


@pytest.mark.parametrize("up", range(12))
def test_a_tune_is_in_its_key_wherever_it_is_played(up: int) -> None:
    major, minor = key_of(tune(MAJOR_TUNE, up)), key_of(tune(MINOR_TUNE, up))
    assert major is not None
    assert minor is not None
    assert (major.tonic, major.is_minor) == (up, False)
    assert (minor.tonic, minor.is_minor) == ((9 + up) % 12, True)
    assert major.sharps == minor.sharps
    assert major.sharps * 7 % 12 == up
    assert 0 < major.margin < major.correlation <= 1


def test_names_and_signatures_are_those_of_the_circle_of_fifths() -> None:
    keys = [key_of(tune(MAJOR_TUNE, up)) for up in (0, 7, 5, 6)]
    assert [(key.name, key.sharps) for key in keys if key] == [
        ("C major", 0),
        ("G major", 1),
        ("F major", -1),
        ("F# major", 6),
    ]
    minor = key_of(tune(MINOR_TUNE))
    assert minor is not None
    assert (minor.name, minor.sharps) == ("A minor", 0)


def test_a_note_counts_a_second_at_most() -> None:
    pedal_point = Notes.of([0.0], [60.0], [54])
    key = key_of(Notes.concatenate([tune(MAJOR_TUNE), pedal_point]))
    assert key is not None
    assert key.name == "C major"


def test_nothing_speaks_for_a_key_where_there_is_nothing_or_everything() -> None:
    assert key_of(Notes.empty()) is None
    assert key_of(tune(tuple(range(60, 72)))) is None
    assert key_of(Notes.of([0, 1], [1, 2], [36, 38], is_drum=True)) is None


@pytest.mark.skipif(not os.environ.get("MTK_TEST_DATA"), reason="MTK_TEST_DATA is not set")
def test_the_keys_of_piano_pieces_are_found() -> None:
    """A slice of the pieces that nothing was chosen on; `theory_table` has all."""
    verdicts: Counter[str] = Counter()
    for score, tonic, is_minor in piano_midi(0, 8):
        key = key_of(score.notes)
        assert key is not None
        verdicts[key_verdict(key, tonic, is_minor)] += 1
    told = verdicts.total() - verdicts["signature"] - verdicts["other signature"]
    assert told >= 20
    assert verdicts["exact"] >= 0.85 * told
    assert verdicts["exact"] + verdicts["signature"] + verdicts["relative"] >= 0.9 * verdicts.total()
