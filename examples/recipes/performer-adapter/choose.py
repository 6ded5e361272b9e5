"""List a performer's solos to learn from, and solos to judge by.

    python3 choose.py LISTS                           who has how many solos, learned by the composer and not
    python3 choose.py LISTS PERFORMER FOLD/FOLDS OUT

LISTS is what `../symbolic-generator/prepare.sh` writes for jazz: `train.txt`, which the composer learned from, and
`valid.txt` and `test.txt`, which it did not. The performer's solos among the latter are dealt into folds. Written are
`OUT/own.txt`, those of one fold; `OUT/train.txt`, all others of the performer's; and `OUT/others.txt`, what everybody
else plays in `test.txt`.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from musictool.errors import MusicToolError
from musictool.training.data.splitting import read_list


def solos(lists: Path, *sides: str) -> list[Path]:
    """The files of some sides; the folder of each is named for who plays."""
    lines = [line for side in sides for line in read_list(lists / f"{side}.txt")]
    return [(lists / f"{line.removesuffix('.mid')}.mid").resolve() for line in lines]


def main(arguments: list[str]) -> None:
    lists = Path(arguments[0])
    learned, unknown = solos(lists, "train"), solos(lists, "valid", "test")
    if len(arguments) < 4:
        known, new = (Counter(path.parent.name for path in side) for side in (learned, unknown))
        for name, count in sorted(new.items(), key=lambda item: -item[1]):
            print(f"{name:24} {known[name]:4} {count:4}")
        return
    performer, fold, out = arguments[1], arguments[2], Path(arguments[3])
    number, folds = map(int, fold.split("/"))
    own = [path for path in unknown if path.parent.name == performer]
    if len(own) < folds:
        raise SystemExit(f"{performer} has {len(own)} solos that the composer does not know, and {folds} are needed")
    judged = own[number - 1 :: folds]
    found = {
        "own": judged,
        "train": [path for path in (*learned, *own) if path.parent.name == performer and path not in judged],
        "others": [path for path in solos(lists, "test") if path.parent.name != performer],
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, paths in found.items():
        (out / f"{name}.txt").write_text("".join(f"{path}\n" for path in paths))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except MusicToolError as error:
        raise SystemExit(f"{error}\n{error.hint}".strip()) from None
