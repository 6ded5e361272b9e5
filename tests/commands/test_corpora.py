"""Every file of the real corpora through tokenize, stream, decode, MIDI and back, held against plain rounding.

Runs where `$MTK_TEST_DATA` names a folder with the unpacked corpora pop909, freedoom, pianomidi and groove. As a
program it prints the table of what each scheme keeps, and the files of which it can't keep every note, with the reason:

    python -m tests.commands.test_corpora FOLDER
"""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import MusicToolError
from musictool.stream.reader import StreamReader
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import SCHEMES, find_scheme, lookup_events
from musictool.symbolic.tokenization import Tokenization, decode_item, tokenize_midi

CORPORA = {"pop909": 909, "freedoom": 112, "pianomidi": 337, "groove": 1150}
DATA = os.environ.get("MTK_TEST_DATA", "")


def there_and_back(data: bytes, scheme: str) -> Score:
    """What is left of a MIDI file after the whole way."""
    (item,) = tokenize_midi("x", data, Tokenization(scheme))
    (read,) = (decode_item(i, find_scheme(scheme)) for i in StreamReader(io.BytesIO(item.lines()), lookup_events))
    return read_midi(write_midi(read))


def table(score: Score, scheme: str) -> Counter:
    """The notes on a scheme's grid: (pitch, source, onset, offset, velocity), by rounding and nothing else."""
    notes = score.notes
    if scheme == "remi":
        on, off = (np.rint(score.tempo_map.quarters(t) * 24) for t in (notes.onset_seconds, notes.offset_seconds))
    else:
        on, off = (np.rint(t * 100) for t in (notes.onset_seconds, notes.offset_seconds))
    off, source, velocity = np.maximum(off, on + 1), notes.program + 128 * notes.is_drum, notes.velocity // 4
    if scheme == "mt3":
        off, source = np.where(notes.is_drum, on + 1, off), np.where(notes.is_drum, 128, source)
        velocity = np.zeros_like(velocity)
    return Counter(zip(*(c.astype(int).tolist() for c in (notes.pitch, source, on, off, velocity))))


def explained(lost: Counter, source: Counter) -> bool:
    """Whether each lost note overlaps another of its program and pitch, or is struck together with one."""
    rivals: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for (pitch, program, on, off, _), count in source.items():
        rivals.setdefault((pitch, program), []).extend([(on, off)] * count)
    return all(
        sum(on < other_off and other_on < off for other_on, other_off in rivals[pitch, program]) > 1
        for pitch, program, on, off, _ in lost
    )


def check(path: Path) -> list[tuple[str, int, int, str]]:
    """For each scheme: its name, notes, notes not kept as they were, and what is wrong beyond its known limits."""
    data = path.read_bytes()
    rows = []
    for scheme in SCHEMES:
        try:
            score = read_midi(data)
            source, kept = table(score, scheme), table(there_and_back(data, scheme), scheme)
        except MusicToolError as error:
            rows.append((scheme, 0, 0, str(error)))
            continue
        lost = source - kept
        fault = ""
        if scheme == "mt3" and not explained(lost, source):
            fault = "a note is lost that overlaps no other of its program and pitch"
        if scheme != "mt3" and kept != source:
            fault = f"{lost.total()} of {source.total()} notes lost, {(kept - source).total()} made up"
        rows.append((scheme, source.total(), lost.total(), fault))
    return rows


@pytest.mark.skipif(not DATA, reason="$MTK_TEST_DATA does not name the corpora")
@pytest.mark.parametrize("corpus", CORPORA)
def test_every_note_of_every_file_is_kept_on_the_grid(corpus):
    paths = sorted((Path(DATA) / corpus).rglob("*.mid"))
    assert len(paths) == CORPORA[corpus]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(check, paths, chunksize=16))
    assert not [(path.name, row) for path, rows in zip(paths, results) for row in rows if row[3]]


def main(folder: str) -> None:
    """Print what each scheme keeps of each corpus, then the files that lose notes."""
    for corpus in CORPORA:
        paths = sorted((Path(folder) / corpus).rglob("*.mid"))
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(check, paths, chunksize=16))
        for index, scheme in enumerate(SCHEMES):
            rows = [(path, *rows[index][1:]) for path, rows in zip(paths, results)]
            losing = [(path, notes, lost, fault) for path, notes, lost, fault in rows if lost or fault]
            print(
                f"{corpus:10} {scheme:6} {len(rows):5} files, {sum(r[1] for r in rows):8} notes; all kept in "
                f"{len(rows) - len(losing)} files; {sum(r[2] for r in rows)} notes changed in {len(losing)}"
            )
            for path, notes, lost, fault in losing:
                print(f"    {path.name}: {lost} of {notes}: {fault or 'overlap of one program and pitch'}")


if __name__ == "__main__":
    main(sys.argv[1])
