"""What a composer has to be better than: n-grams and xz, over the same ids, in bits a note.

    python3 baselines.py composing/lists/ [--most 10] [--json]

LISTS is what `prepare.sh` writes. The n-gram model is interpolated and modified Kneser-Ney (Chen and Goodman, "An
empirical study of smoothing techniques for language modeling", 1998, section 3), learned from the training pieces of
all styles together; its order is the best on the validation pieces. xz packs ids of two bytes each with the settings
for numbers of two bytes: the test pieces by themselves, and what they add behind the training pieces. It sees what a
piece repeats of itself, which n-grams that were learned before do not.

Ids are those of the language that the model composes in, without the ones that it is told: so `bits_per_note` is what
`mtk eval tokens` calls by that name. `in one key` has every piece moved to C major or A minor, since the model is told
the key. Beside them stand the plain ids of scheme `remi`, which say neither chords nor the end of a piece.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.composing import ANY_KEY, IS_TOLD, LANGUAGE, compose, transposed
from musictool.symbolic.notes import Score
from musictool.symbolic.schemes import remi
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.style_pieces import read_pieces

SIDES = ("train", "valid", "test")
LANGUAGES = ("composing", "composing, in one key", "remi")
MOST = 10
_PACKING = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 1, "pb": 1, "dict_size": 1 << 28}


# ------------------------------------------------------------------------------------------------------------- n-grams


class _Level(NamedTuple):
    """The n-grams of one length, by their numbers, and where they are.

    Attributes:
        context: int64 [grams], the number of each without its last id, among those that are shorter by one.
        counts: int64 [grams], how often each occurs; 0 of those that only end in a start.
        places: int64 [t], the n-gram that ends at each place of the text to learn from.
        starts: bool [grams], which of them pieces begin with, starts counted.
        asked, asked_context: int64 [u], n-gram and context at each place of the other text; -1 where never seen.
    """

    context: NDArray[np.int64]
    counts: NDArray[np.int64]
    places: NDArray[np.int64]
    starts: NDArray[np.bool_]
    asked: NDArray[np.int64]
    asked_context: NDArray[np.int64]


def kneser_ney_bits(train: Sequence[Ids], others: Sequence[Ids], size: int, most: int) -> NDArray[np.float64]:
    """What each id of some pieces costs under n-gram models.

    Args:
        train: pieces to learn from.
        others: pieces to tell of.
        size: how many ids there are.
        most: the highest order.

    Returns:
        Bits of each id, one piece after the other, for orders 1 to `most`: float64 [most, ids].
    """
    text, is_real = _joined(train, size, most)
    other_text, is_asked = _joined(others, size, most)
    bits = np.zeros((most, int(is_asked.sum())))
    lower = np.full(len(other_text), 1 / size)
    before: _Level | None = None
    for order in range(1, most + 1):
        level = _level(text, is_real, other_text, size + 1, order, before)
        if before is not None:
            lower = _interpolated(before, _preceding(before, level), lower)
        probability = _interpolated(level, level.counts, lower)
        bits[order - 1] = -np.log2(probability[is_asked])
        before = level
    return bits


def _joined(pieces: Sequence[Ids], start: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pieces in a row, each behind as many starts as the longest context has ids, and which ids are their own."""
    lead = np.full(most - 1, start)
    parts = [part for piece in pieces for part in (lead, piece)]
    text = np.concatenate([np.zeros(0, np.int64), *parts])
    return text, text != start


def _level(
    text: NDArray[np.int64],
    is_real: NDArray[np.bool_],
    other_text: NDArray[np.int64],
    size: int,
    order: int,
    before: _Level | None,
) -> _Level:
    """The n-grams of an order, of the level below."""
    if before is None:
        keys, other_keys = text, other_text
        asked_context = np.zeros(len(other_text), np.int64)
    else:
        keys = _shifted(before.places) * size + text
        asked_context = _shifted(before.asked)
        other_keys = np.where(asked_context < 0, -1, asked_context * size + other_text)
    grams, places = np.unique(keys, return_inverse=True)
    found = np.minimum(np.searchsorted(grams, other_keys), len(grams) - 1)
    counts = np.bincount(places[is_real], minlength=len(grams))
    starts = np.zeros(len(grams), bool)
    begins = np.zeros(len(text), bool)
    begins[order - 1 :] = ~is_real[: len(text) - order + 1]
    starts[places[is_real & begins]] = True
    return _Level(grams // size, counts, places, starts, np.where(grams[found] == other_keys, found, -1), asked_context)


def _shifted(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """What stands at the place before each."""
    return np.concatenate([places[:1], places[:-1]])


def _preceding(level: _Level, longer: _Level) -> NDArray[np.int64]:
    """How many different ids come before each n-gram; its count where a piece begins with it."""
    first = np.zeros(len(longer.counts), np.int64)
    first[longer.places] = np.arange(len(longer.places))
    suffixes = level.places[first[longer.counts > 0]]
    return np.where(level.starts, level.counts, np.bincount(suffixes, minlength=len(level.counts)))


def _interpolated(level: _Level, counts: NDArray[np.int64], lower: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities at each place of the other text, out of those of the order below."""
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    total = np.bincount(level.context, counts)
    spared = np.bincount(level.context, discounts)
    context = np.where(level.asked_context < len(total), level.asked_context, -1)
    is_known = (context >= 0) & (total[context] > 0)
    own = np.where(level.asked < 0, 0, (counts - discounts)[level.asked])
    mixed = (own + spared[context] * lower) / np.maximum(total[context], 1)
    return np.where(is_known, mixed, lower)


def _discounts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """What is taken from n-grams that occur 0, 1, 2, and 3 times or more."""
    ones, twos, threes, fours = (max(1, int((counts == times).sum())) for times in (1, 2, 3, 4))
    share = ones / (ones + 2 * twos)
    found = (0.0, 1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes)
    return np.array([min(max(discount, 0.05 * times), 0.95 * times) for times, discount in enumerate(found)])


# ------------------------------------------------------------------------------------------------------------------ xz


def packed_bits(pieces: Iterable[Ids], known: Iterable[Ids] = ()) -> int:
    """Bits of some pieces packed by xz: by themselves, or what they add behind others."""
    before, after = (b"".join(piece.astype("<i2").tobytes() for piece in some) for some in (known, pieces))
    return 8 * (_packed_bytes(before + after) - (_packed_bytes(before) if before else 0))


@cache
def _packed_bytes(data: bytes) -> int:
    return len(lzma.compress(data, lzma.FORMAT_XZ, check=lzma.CHECK_NONE, filters=[_PACKING]))


# -------------------------------------------------------------------------------------------------------------- report


@dataclass(frozen=True)
class Piece:
    """A piece in every language.

    Attributes:
        style: what it is of.
        notes: how many it has.
        ids: by language.
    """

    style: str
    notes: int
    ids: dict[str, Ids]


def written(score: Score, style: str) -> Piece:
    """A piece in every language."""
    composition = compose(score)
    ids = composition.passage(0, 1 << 40, None, composition.key)
    key = composition.key
    semitones = 0 if key == ANY_KEY else (-key if key < 12 else 9 - (key - 12))
    moved = transposed(ids, (semitones + 6) % 12 - 6)
    own = {name: some[~IS_TOLD[some]] for name, some in zip(LANGUAGES, (ids, moved))}
    return Piece(style, len(score.notes), {**own, "remi": remi.encode(score)})


def read_side(lists: Path, side: str) -> list[Piece]:
    """The pieces of all styles on one side of the split."""
    return [
        written(piece.score, folder.name)
        for folder in sorted(lists.iterdir())
        for piece in read_pieces([folder / f"{side}.txt"])
        if len(piece.score.notes)
    ]


def judged(sides: dict[str, list[Piece]], language: str, most: int) -> list[dict[str, object]]:
    """The baselines of a language: bits a note of all test pieces and of each style."""
    train, valid, test = ([piece.ids[language] for piece in sides[side]] for side in SIDES)
    size = len(remi.VOCABULARY if language == "remi" else LANGUAGE)
    bits = kneser_ney_bits(train, [*valid, *test], size, most)
    split = sum(map(len, valid))
    order = int(bits[:, :split].mean(1).argmin()) + 1
    ends = np.cumsum([len(ids) for ids in test])
    own = [float(cost.sum()) for cost in np.split(bits[order - 1, split:], ends[:-1])]  # of each piece
    rows: list[dict[str, object]] = [
        {"language": language, "model": f"n-gram of order {order}"},
        {"language": language, "model": "xz"},
        {"language": language, "model": "xz behind the training pieces"},
    ]
    for style in ("", *sorted({piece.style for piece in sides["test"]})):
        chosen = [number for number, piece in enumerate(sides["test"]) if style in ("", piece.style)]
        pieces = [test[number] for number in chosen]
        notes, tokens = sum(sides["test"][number].notes for number in chosen), sum(map(len, pieces))
        totals = (sum(own[number] for number in chosen), packed_bits(pieces), packed_bits(pieces, train))
        for row, total in zip(rows, totals, strict=True):
            if not style:
                row["bits_per_token"] = total / tokens
            row[f"bits_per_note_{style}".rstrip("_")] = total / notes
    rows[0]["bits_per_token_by_order"] = bits[:, split:].mean(1).tolist()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lists", type=Path)
    parser.add_argument("--most", type=int, default=MOST, help="the highest order of n-grams")
    parser.add_argument("--json", action="store_true", help="one JSON object a line, with figures of each style")
    options = parser.parse_args()
    sides = {side: read_side(options.lists, side) for side in SIDES}
    for language in LANGUAGES:
        for row in judged(sides, language, options.most):
            if options.json:
                print(json.dumps(row))
            else:
                print(
                    f"{row['bits_per_note']:8.3f} bits a note  {row['bits_per_token']:7.3f} a token  {language}: ",
                    end="",
                )
                print(row["model"])
        sys.stdout.flush()


if __name__ == "__main__":
    main()
