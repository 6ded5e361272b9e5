"""Which chords each style plays, as `model.chords` of a recipe has it: those of 2 % of its time or more.

python style_chords.py STYLES
"""

from __future__ import annotations

import sys
from pathlib import Path

from musictool.symbolic.chords import chords_of, qualities_of
from musictool.symbolic.midi import read_midi
from musictool.symbolic.theory import CHORDS


def main() -> None:
    for style in ("pop", "classical", "jazz", "game"):
        files = sorted(Path(sys.argv[1], "train", style).rglob("*.mid"))
        played = qualities_of(chord for file in files for chord in chords_of(read_midi(file).notes))
        listed = ", ".join(f'"{quality}"' for quality in CHORDS if quality in played)
        print(f"{style} = [{listed}]", flush=True)


if __name__ == "__main__":
    main()
