"""Whether a lead goes with its backing: how much of it is in the chords that are played, and beside those of others.

    python judge.py LEADS BACKINGS [--seconds 20]

LEADS     a folder of MIDI, a file a piece: what was heard in a lead
BACKINGS  a folder with the notes of each piece's backing, under the same name

Of each lead, the share of its time that is spent on pitch classes which the backing's chords and bass have at that
moment is told, over its own backing and, as the mean, over those of all other pieces; and what its notes are like.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes

HOP_SECONDS = 0.05
REACH_SECONDS = 0.5  # a chord that was struck so lately still counts


def beginning(path: Path, seconds: float) -> Notes:
    """The notes that begin in the first seconds of a file, drums aside."""
    notes = read_midi(path).notes
    return notes.take((notes.onset_seconds < seconds) & ~notes.is_drum)


def sounding(notes: Notes, seconds: float, held_seconds: float = 0.0) -> NDArray[np.bool_]:
    """Which pitch classes sound when, bool [frames, 12]."""
    frames = np.zeros((round(seconds / HOP_SECONDS), 12), bool)
    first = np.floor(notes.onset_seconds / HOP_SECONDS).astype(int)
    last = np.ceil((notes.offset_seconds + held_seconds) / HOP_SECONDS).astype(int)
    for begin, end, pitch in zip(first, last, notes.pitch, strict=True):
        frames[begin:end, pitch % 12] = True
    return frames


def share_within(lead: NDArray[np.bool_], backing: NDArray[np.bool_]) -> float:
    """The share of a lead's time that is on what a backing plays, where that plays anything."""
    counted = lead[backing.any(1)]
    return float((counted & backing[backing.any(1)]).sum() / max(counted.sum(), 1))


def main() -> None:
    """Read the command line, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("leads", type=Path)
    parser.add_argument("backings", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    given = parser.parse_args()
    names = sorted(path.stem for path in given.leads.glob("*.mid"))
    leads = {name: beginning(given.leads / f"{name}.mid", given.seconds) for name in names}
    beside = {
        name: sounding(beginning(given.backings / f"{name}.mid", given.seconds), given.seconds, REACH_SECONDS)
        for name in names
    }
    own, others = [], []
    for name, notes in leads.items():
        if not len(notes):
            continue
        lead = sounding(notes, given.seconds)
        own.append(share_within(lead, beside[name]))
        others.append(np.mean([share_within(lead, frames) for other, frames in beside.items() if other != name]))
    every = Notes.concatenate(list(leads.values()))
    lengths = every.offset_seconds - every.onset_seconds
    print(
        json.dumps(
            {
                "pieces": len(names),
                "with_notes": len(own),
                "in_own_chords": round(float(np.mean(own)), 3),
                "in_others_chords": round(float(np.mean(others)), 3),
                "better_than_others": round(float(np.mean(np.array(own) > np.array(others))), 3),
                "notes_a_second": round(len(every) / given.seconds / len(names), 2),
                "pitch_mean": round(float(every.pitch.mean()), 1),
                "pitch_spread": round(float(every.pitch.std()), 1),
                "note_seconds": round(float(np.median(lengths)), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
