"""Make folders of piano music by style for TatumFlow from four public corpora.

    python prepare.py CORPORA OUT [SEED]

CORPORA holds pop909, pianomidi, wjazz and freedoom, unpacked. Written are `OUT/<style>/<artist>/<piece>.mid`, one piano
a file, and `OUT/<style>/manifest.jsonl`, which tells `mtk data split` what is one piece:

    pop        POP909: melody, bridge and piano together; the artist is not told and stands as `-`
    classical  piano-midi.de: both hands together; the composer
    jazz       Weimar Jazz Database: solos arranged for the piano (`jazz_piano`); the performer; solos on one tune are
               one piece
    game       Freedoom: reduced to two hands (`game_piano`); the first composer of its credits

A piece shorter than 10 s or with fewer than 50 notes is left out. Longer ones than 600 s are kept, since training cuts
windows. Pedals are kept where there are any. The same seed gives the same files.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "note-tagger"))

from game_piano import reduce_to_piano
from jazz_piano import arrange
from piano import piano_score
from wjazz_to_midi import convert

from musictool.errors import MusicToolError
from musictool.symbolic.midi import read_midi, write_midi
from musictool.symbolic.notes import Score
from musictool.symbolic.weimar import list_solos, read_beats, read_table

LEAST_SECONDS, LEAST_NOTES = 10.0, 50
UNKNOWN = "-"

_CREDIT = re.compile(r'\s*(\S.*?):\s+(?:"[^"]*"|\S+\.mid) by (.+)')
_FURTHER_NAME = re.compile(r",| & | and ")
_PHASES = {
    "--Phase 1--": {"Title": "d_intro", "Intermission": "d_inter", "Victory": "d_victor", "Bunny": "d_bunny"},
    "--Phase 2--": {"Title": "d_dm2ttl", "Intermission": "d_dm2int", "Story": "d_read_m"},
    "--FreeDM--": {"Title": "d_fdmttl", "Intermission": "d_fdmint", "Story": "d_fdmrdm"},
}


class Piece(NamedTuple):
    """A piece of a style; `work` is the same for versions of one thing, and empty where the name says it."""

    artist: str
    name: str
    score: Score
    work: str = ""


def pop(corpora: Path) -> Iterator[Piece]:
    """POP909."""
    for path in sorted((corpora / "pop909").rglob("*.mid")):
        if path.parent.name != "versions":
            score = read_midi(path)
            yield Piece(UNKNOWN, path.stem, piano_score(score.notes, score.pedals))


def classical(corpora: Path) -> Iterator[Piece]:
    """piano-midi.de."""
    folder = corpora / "pianomidi"
    files = {path.stem.lower(): path for path in folder.rglob("*.mid")}  # the table's capitals are not the files'
    for row in read_table(folder / "metadata.csv"):
        path = files[Path(row["midi"]).stem.lower()]
        score = read_midi(path)
        work = path.stem.removeprefix("god_")  # Godowsky's are versions of other pieces
        yield Piece(slug(row["composer"]), path.stem, piano_score(score.notes, score.pedals), work)


def jazz(corpora: Path, seed: int) -> Iterator[Piece]:
    """The Weimar Jazz Database."""
    for solo in list_solos(corpora / "wjazz"):
        notes = read_midi(convert(solo.melody, 0)).notes
        generator = np.random.default_rng([seed, zlib.crc32(solo.name.encode())])
        arranged = arrange(notes, read_beats(solo.beats), solo.feel, generator)
        name, row = solo.name.removesuffix("_FINAL"), solo.row
        yield Piece(slug(row["performer"]), name, piano_score(arranged), slug(row["title"]))


def game(corpora: Path) -> Iterator[Piece]:
    """Freedoom."""
    composers = freedoom_composers((corpora / "freedoom" / "CREDITS-MUSIC").read_text("utf-8"))
    for path in sorted((corpora / "freedoom" / "musics").glob("*.mid")):
        score = read_midi(path)
        yield Piece(composers.get(path.stem, UNKNOWN), path.stem, piano_score(reduce_to_piano(score.notes)))


def freedoom_composers(credits: str) -> dict[str, str]:
    """The first composer of each file by the credits; the first credit of a place counts, later ones are of old."""
    composers: dict[str, str] = {}
    places: dict[str, str] = {}
    for line in credits.splitlines():
        if line.startswith("--"):
            places = _PHASES.get(line.strip(), {})
        elif match := _CREDIT.match(line):
            stem = places.get(match[1]) or f"d_{match[1].lower()}"
            composers.setdefault(stem, slug(_FURTHER_NAME.split(match[2])[0]))
    return composers


def slug(name: str) -> str:
    """A name in small letters, digits and hyphens."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or UNKNOWN


def write_style(pieces: Iterator[Piece], folder: Path) -> str:
    """Write the pieces of a style that pass the check, and what there is to say of them."""
    written, seconds, notes, left_out = [], 0.0, 0, 0
    for piece in pieces:
        score = piece.score
        if score.duration_seconds < LEAST_SECONDS or len(score.notes) < LEAST_NOTES:
            left_out += 1
            continue
        path = folder / piece.artist / f"{piece.name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write_midi(score))
        written.append({"name": f"{piece.artist}/{piece.name}", "piece": piece.work})
        seconds, notes = seconds + score.duration_seconds, notes + len(score.notes)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in written), "utf-8")
    return (
        f"{folder.name}: {len(written)} pieces, {seconds / 3600:.1f} h, {notes} notes, "
        f"{notes / max(seconds, 1):.1f} a second; {left_out} left out"
    )


def main(corpora: Path, target: Path, seed: int) -> None:
    """Write all styles."""
    styles = {"pop": pop(corpora), "classical": classical(corpora), "jazz": jazz(corpora, seed), "game": game(corpora)}
    for style, pieces in styles.items():
        print(write_style(pieces, target / style), flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        raise SystemExit(__doc__)
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) == 4 else 0)
    except MusicToolError as error:
        raise SystemExit(f"prepare.py: {error}") from error
