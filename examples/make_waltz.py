"""Write waltz.mid, the clip that the examples play: sixteen bars for flute, piano, bass and drums.

Composed for this project and given to the public domain (CC0 1.0). Run it as `python examples/make_waltz.py`.
"""

from __future__ import annotations

from pathlib import Path

from musictool.symbolic.midi import write_midi
from musictool.symbolic.notes import KeySignature, Lyric, Notes, Pedals, Score, TempoMap, TimeSignature, Track

FLUTE, PIANO, BASS, DRUMS = range(4)
TRACKS = (Track("Flute", 73), Track("Piano", 0), Track("Bass", 32), Track("Drums", 0, True))
CHORDS = ["G", "G", "D7", "D7", "C", "D7", "G", "G", "Em", "Em", "A7", "D7", "C", "G", "D7", "G"]
VOICINGS = {"G": (59, 62, 67), "D7": (60, 62, 66), "C": (60, 64, 67), "Em": (59, 64, 67), "A7": (61, 64, 67)}
ROOTS = {"G": 43, "D7": 38, "C": 36, "Em": 40, "A7": 45}
# Each bar as (beat, length in quarters, pitch).
MELODY = (
    ((0, 2, 79), (2, 1, 81)),
    ((0, 1, 83), (1, 1, 81), (2, 1, 79)),
    ((0, 2, 78), (2, 1, 76)),
    ((0, 3, 74),),
    ((0, 1, 72), (1, 1, 76), (2, 1, 79)),
    ((0, 1.5, 78), (1.5, 0.5, 76), (2, 1, 74)),
    ((0, 2, 79), (2, 0.5, 78), (2.5, 0.5, 79)),
    ((0, 3, 83),),
    ((0, 2, 76), (2, 1, 78)),
    ((0, 1, 79), (1, 1, 83), (2, 1, 88)),
    ((0, 2, 85), (2, 1, 81)),
    ((0, 1.5, 84), (1.5, 0.5, 83), (2, 1, 81)),
    ((0, 1, 76), (1, 1, 79), (2, 1, 84)),
    ((0, 2, 83), (2, 1, 79)),
    ((0, 1, 81), (1, 1, 78), (2, 1, 74)),
    ((0, 3, 79),),
)


def waltz() -> Score:
    """The whole piece: the tempo gives way a little in the last two bars."""
    tempo_map = TempoMap.of([0, 42, 45], [400_000, 440_000, 520_000])
    rows: list[tuple[float, float, int, int, int]] = []  # start and end in quarters, pitch, velocity, track
    for bar, (chord, phrase) in enumerate(zip(CHORDS, MELODY, strict=True)):
        start = 3.0 * bar
        rows += [(start + beat, start + beat + 0.96 * length, pitch, 88, FLUTE) for beat, length, pitch in phrase]
        rows.append((start, start + 2.5, ROOTS[chord], 76, BASS))
        rows += [(start + b, start + b + 0.7, p, 58 + 4 * (b == 1), PIANO) for b in (1, 2) for p in VOICINGS[chord]]
        rows.append((start, start + 0.1, 36, 80, DRUMS))
        rows += [(start + beat, start + beat + 0.1, 42, 54, DRUMS) for beat in (1, 2)]
    starts, ends, pitch, velocity, track = zip(*rows, strict=True)
    notes = Notes.of(
        tempo_map.seconds(starts),
        tempo_map.seconds(ends),
        pitch,
        velocity,
        [TRACKS[t].program for t in track],
        [TRACKS[t].is_drum for t in track],
        track,
    )
    bars = [3.0 * bar for bar in range(len(CHORDS))]
    pedals = Pedals.of(tempo_map.seconds(bars), tempo_map.seconds([b + 2.75 for b in bars]), [PIANO] * len(bars))
    words = ("One", "two", "three")
    lyrics = tuple(Lyric(float(tempo_map.seconds(beat)), word, FLUTE) for beat, word in enumerate(words))
    return Score(
        notes.sorted(),
        TRACKS,
        tempo_map,
        (TimeSignature(0.0, 3, 4),),
        (KeySignature(0.0, 1, False),),
        pedals,
        lyrics,
        has_metre=True,
    )


if __name__ == "__main__":
    Path(__file__).with_name("waltz.mid").write_bytes(write_midi(waltz()))
