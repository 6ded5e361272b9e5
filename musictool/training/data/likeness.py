"""Which pieces are versions of one another, told by their notes alone.

A piece is turned into lines: the highest note of every chord, once over all its tracks and once over each. Every
stretch of `GRAM` melodic steps (intervals in semitones) of a line is a gram, and the distinct ones are the piece's
fingerprint: it stays the same when the piece is transposed, played faster or louder, and mostly when it is cut, played
less evenly or scored for fewer instruments. Stretches that stay on one note most of the time are left out, since basses
and chords of unrelated pieces share them; a figure that goes on and on counts once. Two pieces are alike if they have a
good share of the smaller fingerprint in common.

Drums have no intervals: pieces with too few grams are alike only if they have the same notes. Grams are what Broder (On
the resemblance and containment of documents, 1997) calls shingles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.notes import Notes

Fingerprint: TypeAlias = "NDArray[np.uint64]"

GRAM = 8
LIKE_SHARE = 0.2  # of 1358 pop songs, piano pieces and game tunes unrelated ones share up to 0.1, arrangements 0.16
MIN_GRAMS = 32

_CHORD_SECONDS = 0.05
_TICK_SECONDS = 0.01
_NEIGHBOURS = 16
_CANDIDATE_SHARE = 0.05
_FIRST, _FACTOR, _SHIFT = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15), np.uint64(29)


def fingerprint(notes: Notes) -> Fingerprint:
    """What a piece is recognised by.

    Args:
        notes: of one piece, in any order.

    Returns:
        Distinct hashes in rising order, uint64 [h]: one for each gram, or for a piece with fewer than `MIN_GRAMS` a
        single one of all its notes; none for a piece without notes.
    """
    if not len(notes):
        return np.zeros(0, np.uint64)
    pitched = notes.take(~notes.is_drum).sorted()
    parts = [pitched, *(pitched.take(pitched.track == track) for track in np.unique(pitched.track))]
    grams = np.unique(np.concatenate([_grams(_top_line(part)) for part in parts]))
    return grams if len(grams) >= MIN_GRAMS else _digest(notes)


def alike_pairs(fingerprints: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Find the pieces that are alike.

    Pieces are compared only where a gram of theirs is rare or they are near each other in the list, and then exactly. A
    piece of which there are many versions is found with the next of them rather than with all, so the pairs are to be
    read as links of a chain. Takes some 60 bytes a gram and time in proportion.

    Args:
        fingerprints: of pieces, as `fingerprint` gives them.

    Returns:
        Pairs (i, j) with i < j, in rising order.
    """
    sizes = np.array([len(grams) for grams in fingerprints], np.int64)
    if not sizes.sum():
        return []
    pairs = []
    for first, second in _candidates(fingerprints, sizes):
        shared = len(np.intersect1d(fingerprints[first], fingerprints[second], assume_unique=True))
        if shared >= LIKE_SHARE * min(sizes[first], sizes[second]):
            pairs.append((first, second))
    return pairs


def _top_line(notes: Notes) -> NDArray[np.int64]:
    """The highest pitch of every chord, int64 [chords]; notes that begin within 50 ms of the last are in its chord."""
    if not len(notes):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(np.diff(notes.onset_seconds, prepend=-np.inf) > _CHORD_SECONDS)
    return np.maximum.reduceat(notes.pitch.astype(np.int64), starts)


def _grams(line: NDArray[np.int64]) -> Fingerprint:
    """Hashes of the stretches of `GRAM` steps in a line, uint64 [at most steps]; those that mostly stand still not."""
    steps = np.diff(line)
    if len(steps) < GRAM:
        return np.zeros(0, np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(steps, GRAM)
    is_melody = (windows == 0).sum(axis=1) <= GRAM // 2
    hashes = np.full(len(windows), _FIRST)
    for step in (steps + 128).astype(np.uint64)[np.arange(GRAM)[:, None] + np.arange(len(windows))]:
        hashes = (hashes ^ step) * _FACTOR
        hashes ^= hashes >> _SHIFT
    return hashes[is_melody]


def _digest(notes: Notes) -> Fingerprint:
    """One hash of all notes, the same wherever the piece starts and in whatever key it stands; uint64 [1]."""
    notes = notes.sorted()
    ticks = np.rint((notes.onset_seconds - notes.onset_seconds[0]) / _TICK_SECONDS).astype(np.int64)
    pitched = notes.pitch[~notes.is_drum]
    height = int(pitched.min()) if len(pitched) else 0
    pitch = notes.pitch.astype(np.int64) - np.where(notes.is_drum, 0, height)
    rows = np.stack([ticks, notes.is_drum, pitch], axis=1).astype("<i8")
    rows = rows[np.lexsort(rows.T[::-1])]
    return np.array([int.from_bytes(blake2b(rows.tobytes(), digest_size=8).digest(), "little")], np.uint64)


def _candidates(fingerprints: Sequence[Fingerprint], sizes: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs that share some grams, counting for each gram only the pieces that follow one another among its holders."""
    grams = np.concatenate(fingerprints)
    holders = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(grams, kind="stable")  # a gram's holders stay in their order
    grams, holders = grams[order], holders[order]
    codes = []
    for distance in range(1, _NEIGHBOURS + 1):
        same = grams[distance:] == grams[:-distance]
        codes.append(holders[:-distance][same] * len(sizes) + holders[distance:][same])
    pairs, counts = np.unique(np.concatenate(codes), return_counts=True)
    first, second = np.divmod(pairs, len(sizes))
    is_likely = counts >= _CANDIDATE_SHARE * np.minimum(sizes[first], sizes[second])
    yield from zip(first[is_likely].tolist(), second[is_likely].tolist())
