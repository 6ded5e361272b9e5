"""Seeded damage to bytes, for fuzz tests of whatever reads them.

`mutants` makes the same sequence from the same seeds everywhere. The kinds of damage are general (flipped bits, cuts,
insertions, splices, swapped and repeated stretches, tampered lengths), so that it serves binary files and lines of JSON
alike; `tokens` adds pieces that mean something in the format at hand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

EDGE_BYTES = (0x00, 0x01, 0x7F, 0x80, 0xC0, 0xF0, 0xF7, 0xFE, 0xFF)
EDGE_LENGTHS = (0, 1, 0x7F, 0x80, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutants(seeds: Sequence[bytes], count: int, seed: int = 0, tokens: Sequence[bytes] = ()) -> Iterator[bytes]:
    """Yield `count` damaged copies of randomly chosen seeds, each damaged one to eight times."""
    random_source = random.Random(seed)
    for _ in range(count):
        data = random_source.choice(seeds)
        for _ in range(random_source.choice((1, 1, 1, 2, 3, 8))):
            data = mutate(data, random_source, seeds, tokens)
        yield data


def mutate(data: bytes, random_source: random.Random, seeds: Sequence[bytes], tokens: Sequence[bytes] = ()) -> bytes:
    """Damage `data` once."""
    damaged = bytearray(data or b"\0")
    place = random_source.randrange(len(damaged))
    span = min(random_source.choice((1, 4, 16, 64, 400)), len(damaged) - place)
    kind = random_source.randrange(10)
    if kind == 0:
        damaged[place] ^= 1 << random_source.randrange(8)
    elif kind == 1:
        damaged[place] = random_source.choice((*EDGE_BYTES, random_source.randrange(256)))
    elif kind == 2:
        del damaged[place:]
    elif kind == 3:
        del damaged[place : place + span]
    elif kind == 4:
        damaged[place:place] = random_source.randbytes(span)
    elif kind == 5:
        other = random_source.choice(seeds)
        start = random_source.randrange(len(other))
        damaged[place : place + span] = other[start : start + random_source.randrange(400)]
    elif kind == 6:
        length = random_source.choice((*EDGE_LENGTHS, len(damaged), random_source.getrandbits(32)))
        damaged[place : place + 4] = length.to_bytes(4, random_source.choice(("big", "little")))
    elif kind == 7:
        other_place = random_source.randrange(len(damaged))
        stretch, other = damaged[place : place + span], damaged[other_place : other_place + span]
        damaged[place : place + span], damaged[other_place : other_place + span] = other, stretch
    elif kind == 8:
        damaged[place:place] = damaged[place : place + span] * random_source.randrange(2, 20)
    else:
        damaged[place:place] = random_source.choice(tokens) if tokens else random_source.randbytes(1)
    return bytes(damaged)
