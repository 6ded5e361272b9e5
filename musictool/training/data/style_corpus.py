"""Pieces of several styles as training examples: stretches of one piano, varied anew each time they are drawn.

    corpus = open_style_corpus({"pop": [Path("pop")], "classical": [Path("classical.txt"), Path("more.parquet")]})
    window = corpus.draw(np.random.default_rng(0), frames=64, tokens_max=1024)

A style is what some folders of MIDI files, lists of them or token corpora hold. All of it is read at once and kept as
columns, ten bytes a note, each piece as one piano plays it (`symbolic.piano_ids`), without notes beyond a piano's keys.
Every draw comes from the generator that is passed in. Knows nothing of models, nor what is learned from a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.piano_ids import FRAME_TICKS, Piano, frames_of_ids
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.style_pieces import no_piece, read_pieces

LOWEST_PITCH, HIGHEST_PITCH = 21, 108
UNKNOWN_ARTIST = -1


@dataclass(frozen=True)
class Variations:
    """How far a window may differ from the piece, each as lowest and highest.

    Attributes:
        semitones: moved by; less where a note would leave the piano's keys.
        stretch: how many times as long, drawn evenly on a log scale.
        velocity_scale: velocities are multiplied by,
        velocity_shift: and then raised by.
    """

    semitones: tuple[int, int] = (-5, 6)
    stretch: tuple[float, float] = (0.9, 1.1)
    velocity_scale: tuple[float, float] = (0.85, 1.15)
    velocity_shift: tuple[int, int] = (-8, 8)

    def __post_init__(self) -> None:
        ranges = (self.semitones, self.stretch, self.velocity_scale, self.velocity_shift)
        if not all(lowest <= highest for lowest, highest in ranges):
            raise ValueError("the lowest value of a variation is above its highest")
        if self.stretch[0] < 0.1 or self.stretch[1] > 10 or self.velocity_scale[0] < 0:
            raise ValueError("stretch is from 0.1 to 10, velocity_scale 0 or more")

    def draw(self, generator: np.random.Generator) -> Change:
        """One change."""
        return Change(
            int(generator.integers(self.semitones[0], self.semitones[1] + 1)),
            float(np.exp(generator.uniform(*np.log(self.stretch)))),
            float(generator.uniform(*self.velocity_scale)),
            int(generator.integers(self.velocity_shift[0], self.velocity_shift[1] + 1)),
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a window: as `Variations`, drawn."""

    semitones: int = 0
    stretch: float = 1.0
    velocity_scale: float = 1.0
    velocity_shift: int = 0

    def of(self, piano: Piano) -> Piano:
        """Change what is played; times are rounded to ticks."""
        semitones = self.semitones
        if len(piano):
            lowest, highest = LOWEST_PITCH - int(piano.pitch.min()), HIGHEST_PITCH - int(piano.pitch.max())
            semitones = min(max(semitones, lowest), highest)
        velocity = np.rint(piano.velocity * self.velocity_scale) + self.velocity_shift
        return Piano.on_grid(
            np.rint(piano.onset * self.stretch),
            np.rint(piano.offset * self.stretch),
            piano.pitch + np.int16(semitones),
            np.clip(velocity, 1, 127),
            np.rint(piano.pedal_onset * self.stretch),
            np.rint(piano.pedal_offset * self.stretch),
        )


@dataclass(frozen=True, eq=False, slots=True)
class StyleWindow:
    """A stretch of a piece.

    Attributes:
        ids: int32 [T] of scheme `tatum`: Time, NoteOn, NoteOff, Velocity and Pedal.
        notes: what they say, in seconds from the start of the window.
        pedals: presses of the sustain pedal, as well.
        frames: how long it is, 1 at least.
        genre: number of its style.
        artist: number of its artist, -1 where nobody knows.
        piece: number of its piece.
    """

    ids: Ids
    notes: Notes
    pedals: Pedals
    frames: int
    genre: int
    artist: int
    piece: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A piece as it is read."""

    name: str
    artist: str
    piano: Piano


class StyleCorpus:
    """Pieces by style, in memory. A copy in another process that was forked shares it.

    Attributes:
        styles: names; `StyleWindow.genre` counts in them.
        artists: names, each once; an artist may have pieces of several styles.
        pieces: names, those of one style together.
        genre_of: int64 [pieces].
        artist_of: int64 [pieces], -1 where nobody knows.
        lengths: int64 [pieces], in ticks.
    """

    def __init__(self, styles: Mapping[str, Sequence[_Piece]]) -> None:
        pieces = [piece for found in styles.values() for piece in found]
        self.styles = tuple(styles)
        self.artists = tuple(sorted({piece.artist for piece in pieces} - {""}))
        self.pieces = tuple(piece.name for piece in pieces)
        self.genre_of = np.repeat(np.arange(len(styles)), [len(found) for found in styles.values()])
        number_of = {"": UNKNOWN_ARTIST} | {artist: number for number, artist in enumerate(self.artists)}
        self.artist_of = np.array([number_of[piece.artist] for piece in pieces])
        self.lengths = np.array([piece.piano.end for piece in pieces])
        self._pianos = [piece.piano for piece in pieces]
        self._ends = np.cumsum(self.lengths)  # of the pieces, laid end to end
        self._style_ends = self._ends[np.cumsum([len(found) for found in styles.values()]) - 1]

    def __len__(self) -> int:
        return len(self.pieces)

    def piano(self, piece: int) -> Piano:
        """A whole piece."""
        return self._pianos[piece]

    def window(
        self, piece: int, start_tick: int, frames: int, tokens_max: int, change: Change = Change()
    ) -> StyleWindow:
        """A stretch of a piece.

        It holds the notes that begin in it; those that last beyond its end are cut there. It ends where the piece
        does, at the end of that frame, or at the end of an earlier frame where it would have too many ids.

        Args:
            piece: its number.
            start_tick: where in the piece it begins.
            frames: how long it is at most, after the change.
            tokens_max: how many ids it has at most.
            change: what becomes of it.
        """
        whole = self._pianos[piece]
        ticks = int(np.ceil(frames * FRAME_TICKS / change.stretch)) + 1
        changed = change.of(whole.between(start_tick, start_tick + ticks))
        left = int(np.ceil((int(self.lengths[piece]) - start_tick) * change.stretch / FRAME_TICKS))
        frames = max(1, min(frames, left))
        kept, ids, frames = _fitting(changed, frames, tokens_max)
        genre, artist = int(self.genre_of[piece]), int(self.artist_of[piece])
        return StyleWindow(ids, kept.notes(), kept.pedals(), frames, genre, artist, piece)

    def draw(
        self,
        generator: np.random.Generator,
        frames: int,
        tokens_max: int,
        *,
        shares: Sequence[float] | None = None,
        variations: Variations = Variations(),
    ) -> StyleWindow:
        """Draw a piece and a window of it; see `draw_piece` and `draw_window`."""
        return self.draw_window(generator, self.draw_piece(generator, shares), frames, tokens_max, variations)

    def draw_piece(self, generator: np.random.Generator, shares: Sequence[float] | None = None) -> int:
        """Draw a style, then a piece of it in proportion to its length.

        Args:
            generator: its state decides everything.
            shares: how often each style comes, by its number; all alike where nothing is said.
        """
        ends = np.cumsum(np.ones(len(self.styles)) if shares is None else shares)
        genre = int(np.searchsorted(ends, generator.random() * ends[-1], "right"))
        first = int(self._style_ends[genre - 1]) if genre else 0
        return int(np.searchsorted(self._ends, generator.integers(first, self._style_ends[genre]), "right"))

    def draw_companion(self, generator: np.random.Generator, piece: int) -> int:
        """Draw another piece of the same artist; the piece itself where there is none, or the artist is not known."""
        artist = int(self.artist_of[piece])
        others = np.flatnonzero(self.artist_of == artist)
        others = others[others != piece]
        return piece if artist == UNKNOWN_ARTIST or not len(others) else int(generator.choice(others))

    def draw_window(
        self,
        generator: np.random.Generator,
        piece: int,
        frames: int,
        tokens_max: int,
        variations: Variations = Variations(),
    ) -> StyleWindow:
        """Draw a moment of a piece and a change, and take the window that begins there.

        Where no note would begin in it, the window moves to the next note of the piece, or the last.

        Args:
            generator: its state decides everything.
            piece: its number.
            frames: how long the window is at most; it is shorter only where the piece is, or has too many ids.
            tokens_max: how many ids it has at most.
            variations: how far the window may differ from the piece.
        """
        change = variations.draw(generator)
        ticks = int(np.ceil(frames * FRAME_TICKS / change.stretch))
        start = int(generator.integers(max(0, int(self.lengths[piece]) - ticks) + 1))
        onset = self._pianos[piece].onset
        following = int(onset[min(int(np.searchsorted(onset, start)), len(onset) - 1)])
        if not start <= following < start + ticks - 1:  # one tick may be lost to rounding
            start = following
        return self.window(piece, start, frames, tokens_max, change)


def open_style_corpus(styles: Mapping[str, Sequence[Path]]) -> StyleCorpus:
    """Read the pieces of styles; those without a note that a piano can play are left out.

    Args:
        styles: where the pieces of each are, as `read_pieces` takes it.

    Raises:
        InputError: a file cannot be read, or a style has no piece.
        MissingError: a token corpus needs pyarrow.
    """
    found = {
        style: [piece for entry in read_pieces(paths) for piece in _piece(entry.name, entry.artist, entry.score)]
        for style, paths in styles.items()
    }
    for style, pieces in found.items():
        if not pieces:
            raise no_piece(style, styles[style])
    return StyleCorpus(found)


def _fitting(piano: Piano, frames: int, tokens_max: int) -> tuple[Piano, Ids, int]:
    """The first frames of a piano, its ids, and how many frames: all, or as many as have at most so many ids."""
    piano = piano.between(0, frames * FRAME_TICKS)
    ids = piano.ids()
    while len(ids) > tokens_max and frames > 1:
        crossing = int(frames_of_ids(ids)[tokens_max])  # with this frame there are too many
        frames = max(1, min(crossing, frames - 1))
        piano = piano.between(0, frames * FRAME_TICKS)
        ids = piano.ids()
    while len(ids) > tokens_max:  # of a single frame the last notes go, and the time they stand in
        piano = piano.between(0, int(piano.onset[-1]) if len(piano) else 0)
        ids = piano.ids()
    return piano, ids, frames


def _piece(name: str, artist: str, score: Score) -> Iterator[_Piece]:
    """The piece that a score is, or none if it has no note for a piano."""
    pitch = score.notes.pitch
    notes = score.notes.take((pitch >= LOWEST_PITCH) & (pitch <= HIGHEST_PITCH))
    piano = Piano.of(notes, score.pedals)
    if len(piano):
        yield _Piece(name, artist, piano)
