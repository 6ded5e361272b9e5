"""A piano's part of a score: taken out, cut into windows that overlap, joined again, put back.

Each window begins with frames that the window before holds too, if there is one at that place. Of what the two play
there, the earlier one's notes count up to a seam and the later one's from it on. The seam lies where both are quiet for
longest, so that a note which one of them plays a little sooner than the other is neither doubled nor lost. Where the
piano rests for longer than a window no window lies, so that silence stays silence. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError
from musictool.symbolic.notes import Notes, Pedals, Score
from musictool.symbolic.piano_ids import FRAME_TICKS, Piano

LOWEST_PITCH, HIGHEST_PITCH = 21, 108
PIANOS = frozenset(range(8))
"""The programs of General MIDI's pianos."""
SECONDS_MAX = 86_400

# -------------------------------------------------------------------------------------------------------- in a score


@dataclass(frozen=True, eq=False)
class PianoPart:
    """What a piano, or whoever is taken for one, plays in a score.

    Attributes:
        piano: its notes and presses.
        program, track: whose the notes are that take their place.
    """

    piano: Piano
    program: int
    track: int
    _is_note: NDArray[np.bool_]
    _is_press: NDArray[np.bool_]

    @classmethod
    def of(cls, score: Score, programs: Collection[int] = PIANOS) -> PianoPart | None:
        """Find the notes of some programs, drums aside; together they are one part.

        They are a piano's if one is among them, else those of the program that has most.

        Args:
            score: the piece.
            programs: whose notes are the part.

        Returns:
            The part; None if the score has no such note within a piano's keys.

        Raises:
            InputError: the piece is longer than a day.
        """
        notes, pedals = score.notes, score.pedals
        is_note = np.isin(notes.program, list(programs)) & ~notes.is_drum
        is_on_keys = is_note & (notes.pitch >= LOWEST_PITCH) & (notes.pitch <= HIGHEST_PITCH)
        if not is_on_keys.any():
            return None
        if notes.end_seconds > SECONDS_MAX:
            raise InputError("a piece of more than a day is too long", code="too-long")
        counts = np.bincount(notes.program[is_note], minlength=128)
        pianos = counts[: len(PIANOS)]
        program = int(np.argmax(pianos if pianos.any() else counts))
        track = int(np.bincount(notes.track[is_note & (notes.program == program)]).argmax())
        are_ours = np.array([track.program in programs and not track.is_drum for track in score.tracks])
        is_press = are_ours[pedals.track]
        piano = Piano.of(notes.take(is_on_keys), _presses(pedals, is_press))
        return cls(piano, program, track, is_note, is_press)

    def replaced(self, score: Score, piano: Piano) -> Score:
        """The score that the part was found in, with another piano in its place."""
        made = piano.notes()
        made = made.with_columns(
            program=np.full(len(made), self.program, np.int16), track=np.full(len(made), self.track, np.int16)
        )
        others, own = _presses(score.pedals, ~self._is_press), piano.pedals()
        onset = np.concatenate([others.onset_seconds, own.onset_seconds])
        offset = np.concatenate([others.offset_seconds, own.offset_seconds])
        track = np.concatenate([others.track, np.full(len(own), self.track)])
        order = np.argsort(onset, kind="stable")
        notes = Notes.concatenate([score.notes.take(~self._is_note), made]).sorted()
        return replace(score, notes=notes, pedals=Pedals.of(onset[order], offset[order], track[order]))


def _presses(pedals: Pedals, rows: NDArray[np.bool_]) -> Pedals:
    return Pedals(pedals.onset_seconds[rows], pedals.offset_seconds[rows], pedals.track[rows])


# ---------------------------------------------------------------------------------------------------------- windows


class Window(NamedTuple):
    """A stretch of a part, in frames.

    Attributes:
        start: its first frame.
        frames: how many it has.
        held: how many at its start are those of the window before.
    """

    start: int
    frames: int
    held: int

    @property
    def start_tick(self) -> int:
        return self.start * FRAME_TICKS

    @property
    def stop_tick(self) -> int:
        return (self.start + self.frames) * FRAME_TICKS

    def of(self, piano: Piano) -> Piano:
        """What begins in the window, with times from its start."""
        return piano.between(self.start_tick, self.stop_tick)


def windows_of(piano: Piano, frames_max: int, ids_max: int, overlap: int = 0, margin: int = 0) -> Iterator[Window]:
    """Cut a part into windows.

    Args:
        piano: the part.
        frames_max: of a window.
        ids_max: of a window, which is shortened where there are more; to half of `frames_max`, but no further.
        overlap: frames that are held of the window before; fewer where that one is shorter.
        margin: frames at the end of a window that the next one makes anew.

    Yields:
        Windows from the first onset on, in order. Each note begins in a frame that one window has and does not hold.
    """
    total = -(-piano.end // FRAME_TICKS)
    start = done = stop = 0
    while done < total:
        following = int(np.searchsorted(piano.onset, done * FRAME_TICKS))
        first = int(piano.onset[following]) // FRAME_TICKS if following < len(piano) else total
        has_own = first < start + frames_max - margin
        if done == 0 or not (has_own or _sounds_beyond(piano, start, done, stop)):
            start = done = first
            if first == total:
                return
        held = done - start
        least = max(held + margin + 1, frames_max // 2)
        frames = _fitting(piano, start, min(frames_max, total - start), least, ids_max)
        yield Window(start, frames, held)
        stop = start + frames
        if stop >= total:
            return
        done = stop - margin
        start = max(start, done - overlap)


def _sounds_beyond(piano: Piano, start: int, done: int, stop: int) -> bool:
    """Whether a note that begins in the frames [start, done) lasts beyond the frame `stop`."""
    rows = slice(*np.searchsorted(piano.onset, (start * FRAME_TICKS, done * FRAME_TICKS)))
    return bool((piano.offset[rows] > stop * FRAME_TICKS).any())


def _fitting(piano: Piano, start: int, frames: int, least: int, ids_max: int) -> int:
    """How many frames of so many have no more than `ids_max` ids, or `least`."""
    while frames > least and len(Window(start, frames, 0).of(piano).ids()) > ids_max:
        frames = max(least, frames - 4)
    return frames


def thinned(piano: Piano, ids_max: int) -> Piano:
    """A part without so many of its softest notes that it has no more than `ids_max` ids, if it has a note beside."""
    while (count := len(piano.ids())) > ids_max and len(piano) > 1:
        fewer = min(len(piano) - 1, len(piano) * ids_max // count)
        rows = np.sort(np.argsort(-piano.velocity.astype(int), kind="stable")[:fewer])
        names = ("onset", "offset", "pitch", "velocity")
        piano = replace(piano, **{name: getattr(piano, name)[rows] for name in names})
    return piano


def looped(piano: Piano, frames: int) -> Piano:
    """What begins in so many frames of a part played over and over from its first note's frame on; it has a note."""
    first = int(piano.onset[0]) // FRAME_TICKS
    period = -(-piano.end // FRAME_TICKS) - first
    once = piano.between(first * FRAME_TICKS, piano.end)
    rounds = [moved(once, index * period * FRAME_TICKS) for index in range(-(-frames // period))]
    return _on_grid(rounds).between(0, frames * FRAME_TICKS)


# ------------------------------------------------------------------------------------------------------------- seams


def joined(played: Iterable[tuple[Window, Piano]]) -> Piano:
    """One part of what windows play, each with times from its own start."""
    pieces: list[Piano] = []
    before: tuple[Window, Piano] | None = None
    begin = 0
    for window, piano in played:
        later = moved(piano, window.start_tick)
        if before is not None:
            seam = _seam(before[1], later, window, begin)
            pieces.append(_cut(_prolonged(before[1], before[0].stop_tick, later, seam), begin, seam))
            begin = seam
        before = window, later
    if before is not None:
        pieces.append(_cut(before[1], begin, before[0].stop_tick))
    return _on_grid(pieces)


def _seam(earlier: Piano, later: Piano, window: Window, begin: int) -> int:
    """The tick from which on the later one plays: in the longest rest from new notes in what it holds, after `begin`.

    The first quarter of that is left out, since a window knows least of its first moments.
    """
    first, last = max(begin, window.start_tick), window.start_tick + window.held * FRAME_TICKS
    first += (last - first) // 4
    onsets = np.concatenate([earlier.onset, later.onset])
    onsets = np.sort(onsets[(onsets >= first) & (onsets < last)])
    edges = np.concatenate([[first], onsets, [last]])
    longest = int(np.diff(edges).argmax())
    return int(edges[longest] + edges[longest + 1] + 1) // 2


def _prolonged(earlier: Piano, stop: int, later: Piano, seam: int) -> Piano:
    """The earlier one's notes, those that its window's end cut off as long as the later one has them."""
    offset_of_pitch = np.zeros(128, np.int32)
    before = later.onset < seam
    offset_of_pitch[later.pitch[before]] = later.offset[before]  # the last of a pitch stays
    is_cut = (earlier.offset == stop) & (earlier.onset < seam)
    longer = np.maximum(earlier.offset, offset_of_pitch[earlier.pitch])
    return replace(earlier, offset=np.where(is_cut, longer, earlier.offset))


def _cut(piano: Piano, begin: int, end: int) -> Piano:
    """The notes that begin in the ticks [begin, end), as long as they are, and presses as far as they lie in them."""
    rows = (piano.onset >= begin) & (piano.onset < end)
    presses = (piano.pedal_offset > begin) & (piano.pedal_onset < end)
    return Piano(
        piano.onset[rows],
        piano.offset[rows],
        piano.pitch[rows],
        piano.velocity[rows],
        np.maximum(piano.pedal_onset[presses], begin),
        np.minimum(piano.pedal_offset[presses], end),
    )


def moved(piano: Piano, ticks: int) -> Piano:
    """A part that begins later."""
    names = ("onset", "offset", "pedal_onset", "pedal_offset")
    return replace(piano, **{name: getattr(piano, name) + np.int32(ticks) for name in names})


def _on_grid(pieces: Iterable[Piano]) -> Piano:
    """Parts as one."""
    names = ("onset", "offset", "pitch", "velocity", "pedal_onset", "pedal_offset")
    pieces = list(pieces)
    return Piano.on_grid(*(np.concatenate([np.zeros(0), *(getattr(p, name) for p in pieces)]) for name in names))
