"""Turn the solos of the Weimar Jazz Database (CSV) into MIDI files, one a solo, for `mtk data synth`.

    python wjazz_to_midi.py WJAZZ_FOLDER OUT_FOLDER

The instrument is the solo's, loudness becomes velocity. Times stay as they were played, to half a tenth of a
millisecond.
"""

from __future__ import annotations

import sys
from pathlib import Path

from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import Score, Track
from musictool.symbolic.weimar import list_solos, read_solo

UNKNOWN_PROGRAM = 66
TICKS_PER_QUARTER = 5_000  # at 120 quarters a minute a tick lasts 0.1 ms


def convert(table: Path, program: int | None) -> bytes:
    """One solo as a MIDI file."""
    program = UNKNOWN_PROGRAM if program is None else program
    track = Track("solo", program)
    return write_midi(Score(read_solo(table, program), tracks=(track,), ticks_per_quarter=TICKS_PER_QUARTER))


def main(source: Path, target: Path) -> None:
    """Convert every solo of the database."""
    target.mkdir(parents=True, exist_ok=True)
    for solo in list_solos(source):
        (target / f"{solo.name}.mid").write_bytes(convert(solo.melody, solo.program))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
