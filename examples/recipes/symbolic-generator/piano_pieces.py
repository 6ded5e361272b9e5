"""Make folders of piano music with bars and beats, by style, for the symbolic generator, from three public corpora.

    python piano_pieces.py CORPORA OUT [SEED]

CORPORA holds pop909, pianomidi and wjazz, unpacked. Written are `OUT/<style>/<artist>/<piece>.mid`, one piano a file,
with a tempo map and time signatures, and `OUT/<style>/manifest.jsonl`, which tells `mtk data split` what is one piece:

    pop        POP909: melody, bridge and piano together. Its files say nothing of beats; its chord annotation lies on
               them, and bars begin where most chords do
    classical  piano-midi.de: both hands together, with their own bars
    jazz       Weimar Jazz Database: solos arranged for the piano, with the beats as they were measured

What the sustain pedal holds is written as longer notes. Tempo is kept beat by beat, where it changes by 4 % or more.
A piece shorter than 10 s or with fewer than 50 notes is left out. The same seed gives the same files.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "tatumflow"))
sys.path.append(str(Path(__file__).parents[1] / "note-tagger"))

from jazz_piano import arrange
from piano import struck_once
from prepare import UNKNOWN, Piece, slug, write_style
from wjazz_to_midi import convert

from musictool.errors import MusicToolError
from musictool.symbolic.comping import Beat
from musictool.symbolic.midi import read_midi
from musictool.symbolic.notes import Notes, Score, TempoMap, TimeSignature, Track
from musictool.symbolic.synthesis import sounding_until
from musictool.symbolic.weimar import list_solos, read_beats, read_table

TEMPO_CHANGE = 0.04
TICKS_PER_QUARTER = 960


def pop(corpora: Path) -> Iterator[Piece]:
    """POP909."""
    for path in sorted((corpora / "pop909").rglob("*.mid")):
        if path.parent.name != "versions":
            score = read_midi(path)
            beats, numerator = beats_of_chords(path.with_suffix(".chords.txt"), score.tempo_map)
            yield Piece(UNKNOWN, path.stem, on_beats(score, beats, [TimeSignature(0.0, numerator, 4)]))


def classical(corpora: Path) -> Iterator[Piece]:
    """piano-midi.de."""
    folder = corpora / "pianomidi"
    files = {path.stem.lower(): path for path in folder.rglob("*.mid")}  # the table's capitals are not the files'
    for row in read_table(folder / "metadata.csv"):
        path = files[Path(row["midi"]).stem.lower()]
        score = read_midi(path)
        count = int(np.ceil(score.tempo_map.quarters(score.duration_seconds))) + 2
        beats = score.tempo_map.seconds(np.arange(count, dtype=float))
        work = path.stem.removeprefix("god_")  # Godowsky's are versions of other pieces
        yield Piece(slug(row["composer"]), path.stem, on_beats(score, beats, score.time_signatures), work)


def jazz(corpora: Path, seed: int) -> Iterator[Piece]:
    """The Weimar Jazz Database."""
    for solo in list_solos(corpora / "wjazz"):
        notes = read_midi(convert(solo.melody, 0)).notes
        generator = np.random.default_rng([seed, zlib.crc32(solo.name.encode())])
        beats = read_beats(solo.beats)
        arranged = arrange(notes, beats, solo.feel, generator)
        score = on_beats(Score(arranged), np.array([beat.seconds for beat in beats]), bars_of(beats))
        name, row = solo.name.removesuffix("_FINAL"), solo.row
        yield Piece(slug(row["performer"]), name, score, slug(row["title"]))


def beats_of_chords(path: Path, tempo_map: TempoMap) -> tuple[NDArray[np.float64], int]:
    """Beats from where chords are annotated, and how many there are in a bar.

    Args:
        path: lines of start, end and chord; each chord lasts whole beats, and some rate of the file's own.
        tempo_map: how long a beat lasts.

    Returns:
        Times in seconds, the first of which begins a bar, float64 [n], and 4 or 3.
    """
    rows = [line.split() for line in path.read_text().splitlines()]
    times = np.array([float(row[0]) for row in rows] + [float(rows[-1][1])])
    count = np.maximum(np.rint(np.diff(tempo_map.quarters(times))), 1)
    at = np.concatenate([[0], np.cumsum(count)])
    changed = at[:-1][[row[2] != "N" for row in rows]].astype(int)

    def share(numerator: int) -> tuple[float, int]:
        """How much more often than by chance chords begin with bars, and the beat that does first."""
        counts = np.bincount(changed % numerator, minlength=numerator) / max(len(changed), 1)
        return (counts.max() - 1 / numerator) / (1 - 1 / numerator), int(counts.argmax())

    numerator = 3 if share(3)[0] > share(4)[0] + 0.1 else 4
    first = share(numerator)[1]
    beats = np.arange(first - numerator, at[-1] + 1)  # a bar before what is annotated
    return extended(at, times)(beats), numerator


def bars_of(beats: Sequence[Beat]) -> list[TimeSignature]:
    """Time signatures by the number of beats in each bar."""
    signatures, place = [], 0
    for _, bar in groupby(beats, key=lambda beat: beat.bar):
        count = len(list(bar))
        if not signatures or signatures[-1].numerator != count:
            signatures.append(TimeSignature(float(place), count, 4))
        place += count
    return signatures


def on_beats(score: Score, beats: NDArray[np.float64], signatures: Sequence[TimeSignature]) -> Score:
    """One piano's score, whose quarters are the beats.

    Args:
        score: its notes and pedals, in seconds; no drums.
        beats: when each quarter begins, rising; the first begins a bar.
        signatures: in quarters from the first beat on.
    """
    notes = score.notes.with_columns(offset_seconds=sounding_until(score.notes, score.pedals))
    notes = struck_once(notes.with_columns(track=np.zeros_like(notes.track), program=np.zeros_like(notes.program)))
    quarters = extended(beats, np.arange(len(beats), dtype=float))
    on, off = quarters(notes.onset_seconds), quarters(notes.offset_seconds)
    bar = signatures[0].bar_quarters if signatures else 4.0
    shift = (
        np.floor(max(on.min(initial=0.0), -bar) / bar) * bar
    )  # a pickup has a bar of its own; what is before it goes
    skipped = np.floor(max(on.min(initial=0.0) - shift, 0.0) / bar) * bar if len(signatures) < 2 else 0.0
    kept = on - shift >= 0
    on, off, notes = on[kept] - shift - skipped, off[kept] - shift - skipped, notes.take(kept)
    lengths = np.diff(extended(np.arange(len(beats), dtype=float), beats)(np.arange(shift + skipped, len(beats) + 1)))
    tempo_map = thinned(lengths)
    seconds = tempo_map.seconds
    placed = Notes.of(seconds(on), seconds(np.maximum(off, on + 0.02)), notes.pitch, np.clip(notes.velocity, 1, 127))
    moved = tuple(TimeSignature(max(s.quarter - shift, 0.0), s.numerator, s.denominator) for s in signatures)
    return Score(
        placed.sorted(),
        tracks=(Track("Piano", 0),),
        tempo_map=tempo_map,
        time_signatures=moved,
        ticks_per_quarter=TICKS_PER_QUARTER,
        has_metre=True,
    )


def thinned(seconds: NDArray[np.float64]) -> TempoMap:
    """A tempo map of quarters that last so long, float64 [n], without changes of under 4 %."""
    starts, lengths = [0.0], [float(seconds[0])]
    for quarter, length in enumerate(seconds[1:].tolist(), 1):
        if abs(length / lengths[-1] - 1) >= TEMPO_CHANGE:
            starts.append(float(quarter))
            lengths.append(length)
    return TempoMap.of(starts, np.rint(np.clip(lengths, 0.15, 6.0) * 1e6))


def extended(x: NDArray[np.float64], y: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The line through points, going on as it begins and ends."""

    def line(at: NDArray[np.float64]) -> NDArray[np.float64]:
        inside = np.interp(at, x, y)
        before = y[0] + (at - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
        after = y[-1] + (at - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
        return np.where(at < x[0], before, np.where(at > x[-1], after, inside))

    return line


def main(corpora: Path, target: Path, seed: int) -> None:
    """Write all styles."""
    styles = {"pop": pop(corpora), "classical": classical(corpora), "jazz": jazz(corpora, seed)}
    for style, pieces in styles.items():
        print(write_style(pieces, target / style), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0)
    except MusicToolError as error:
        raise SystemExit(f"piano_pieces.py: {error}") from error
