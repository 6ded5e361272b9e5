"""Damage done to a window of notes, for a model to see through: what it reads is broken, what it is to say is whole.

    seen = corrupt(window, ["note_mask", "permutation"], share=0.2, generator=generator)

Each kind takes a share of the window's notes, drawn anew:

    pitch_velocity_mask  their switches become `Pad`, and so does a velocity written right before one that begins
    onset_duration_mask  when they begin and end is hidden, as of all else that happens in those ticks: the Time that
                         leads there becomes `Pad`, and the next one grows by as much, so that all the rest stays put
    note_mask            both, but times only where nothing of other notes is left
    fragmentation        notes in a row are dropped
    modification         a note gets another pitch, another velocity, or begins and ends at another time
    permutation          notes in a row exchange their pitches

Masks put `Pad` in the place of ids and keep their number. A time that is hidden has to lead less far than the next Time
can say; where it does not, it stays. The other kinds change the notes themselves, before they become ids: what they
make is played on one piano (`symbolic.piano_ids`), which ends a note where the next of its key begins, and may take
a few ids more than the window has. Pedals stay. Every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.piano_ids import FRAME_TICKS, Piano
from musictool.symbolic.schemes.tatum import TIME_STEPS_MAX, VOCABULARY
from musictool.symbolic.vocabulary import Ids
from musictool.training.data.style_corpus import HIGHEST_PITCH, LOWEST_PITCH, StyleWindow

MASK_ID = VOCABULARY.id("Pad")

_TIME, _NOTE_ON, _NOTE_OFF, _VELOCITY = map(VOCABULARY.range_index, ("Time", "NoteOn", "NoteOff", "Velocity"))
_LONGEST_RUN = 8  # notes in a row; the shortest has 2
_PITCH_STEPS = (1, 12)
_VELOCITY_STEPS = (8, 40)  # two bins of the vocabulary and more
_TIME_STEPS = (3, 50)  # ticks

Rows = NDArray[np.int64]


def corrupt(window: StyleWindow, kinds: Sequence[str], share: float, generator: np.random.Generator) -> Ids:
    """The ids of a window after some kinds of damage, one after the other, int32 [T].

    Args:
        window: stays as it is.
        kinds: names of `CORRUPTIONS`; those that change notes come before masks, whatever their order here.
        share: of the notes that each kind takes, 0..1; at least one unless it is 0.
        generator: its state decides everything.

    Raises:
        ValueError: there is no such kind, or no such share.
    """
    for kind in kinds:
        if kind not in CORRUPTIONS:
            near = get_close_matches(kind, CORRUPTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CORRUPTIONS)}"
            raise ValueError(f"no such corruption: {kind[:40]!r}; {hint}")
    if not 0 <= share <= 1:
        raise ValueError("a share is from 0 to 1")
    ids = window.ids
    changes = [_CHANGES[kind] for kind in kinds if kind in _CHANGES]
    if changes:
        piano = Piano.of(window.notes, window.pedals)
        for change in changes:
            piano = change(piano, window.frames * FRAME_TICKS, share, generator)
        ids = piano.ids()
    for kind in kinds:
        if kind in _MASKS:
            ids = _MASKS[kind](ids, share, generator)
    return ids


# --------------------------------------------------------------------------------------------------------------- masks


def mask_pitch_velocity(ids: Ids, share: float, generator: np.random.Generator) -> Ids:
    """Hide which keys a share of the notes are, and how hard they are struck."""
    return _without_switches(ids, _drawn_switches(ids, share, generator))


def mask_onset_duration(ids: Ids, share: float, generator: np.random.Generator) -> Ids:
    """Hide when a share of the notes begin and end."""
    is_hidden = np.zeros(len(ids), np.bool_)
    is_hidden[_drawn_switches(ids, share, generator)] = True
    moment = _moments(ids)
    return _without_times(ids, moment, np.unique(moment[is_hidden]))


def mask_notes(ids: Ids, share: float, generator: np.random.Generator) -> Ids:
    """Hide all there is to know of a share of the notes but where in the order of things they stand."""
    masked = _without_switches(ids, _drawn_switches(ids, share, generator))
    moment = _moments(masked)
    says_something = (masked != MASK_ID) & (VOCABULARY.range_of_id[masked] != _TIME)
    emptied = np.setdiff1d(moment[masked == MASK_ID], moment[says_something])
    return _without_times(masked, moment, emptied)


def _drawn_switches(ids: Ids, share: float, generator: np.random.Generator) -> Rows:
    """Where the switches of a share of the notes stand, on and off."""
    pitch = VOCABULARY.value_of_id[ids]
    kind = VOCABULARY.range_of_id[ids]
    on, off = (np.flatnonzero(kind == wanted) for wanted in (_NOTE_ON, _NOTE_OFF))
    # A piano's notes of one key follow one another: the first on belongs to the first off, and so forth.
    on, off = on[np.argsort(pitch[on], kind="stable")], off[np.argsort(pitch[off], kind="stable")]
    taken = _some(len(on), share, generator)
    return np.concatenate([on[taken], off[taken]])


def _without_switches(ids: Ids, switches: Rows) -> Ids:
    before = switches[switches > 0] - 1
    velocities = before[VOCABULARY.range_of_id[ids[before]] == _VELOCITY]
    masked = ids.copy()
    masked[switches] = masked[velocities] = MASK_ID
    return masked


def _moments(ids: Ids) -> Rows:
    """Number what happens at one time alike, with the Times that lead there; int64 [T] from 0, rising."""
    is_time = VOCABULARY.range_of_id[ids] == _TIME
    return np.cumsum(is_time & ~np.append(False, is_time)[:-1])


def _without_times(ids: Ids, moment: Rows, hidden: Rows) -> Ids:
    """Hide the Times that lead to moments of some numbers, as far as the next moment's can say both gaps."""
    masked = ids.copy()
    at = np.flatnonzero(VOCABULARY.range_of_id[ids] == _TIME)
    runs = np.split(at, np.flatnonzero(np.diff(moment[at])) + 1)  # of the moments 1, 2, 3, …
    gaps = [int(VOCABULARY.value_of_id[ids[run]].sum()) for run in runs]
    room = [TIME_STEPS_MAX * len(run) for run in runs]
    is_hidden = np.isin(np.arange(1, len(runs) + 1), hidden).tolist()
    carried = 0
    for number, run in enumerate(runs):
        gap, following = carried + gaps[number], number + 1
        if is_hidden[number] and (following == len(runs) or gap + gaps[following] <= room[following]):
            masked[run] = MASK_ID
            carried = gap
        elif carried:
            masked[run] = VOCABULARY.id("Time", TIME_STEPS_MAX)
            masked[run[-1]] = VOCABULARY.id("Time", gap - room[number] + TIME_STEPS_MAX)
            carried = 0
    return masked


# -------------------------------------------------------------------------------------------------------------- changes


def drop_fragments(piano: Piano, end: int, share: float, generator: np.random.Generator) -> Piano:
    """Drop a share of the notes, in runs."""
    is_kept = np.ones(len(piano), np.bool_)
    for run in _some_runs(len(piano), share, generator):
        is_kept[run] = False
    columns = (piano.onset, piano.offset, piano.pitch, piano.velocity)
    return _played(piano, *(column[is_kept] for column in columns))


def modify_notes(piano: Piano, end: int, share: float, generator: np.random.Generator) -> Piano:
    """Change pitch, velocity or time of each of a share of the notes; no note leaves the window, [0, end) in ticks."""
    columns = (piano.onset, piano.offset, piano.pitch, piano.velocity)
    onset, offset, pitch, velocity = (column.astype(np.int64) for column in columns)
    taken = _some(len(piano), share, generator)
    of_pitch, of_velocity, of_time = (taken[np.arange(len(taken)) % 3 == kind] for kind in generator.permutation(3))
    pitch[of_pitch] = _stepped(pitch[of_pitch], _PITCH_STEPS, (LOWEST_PITCH, HIGHEST_PITCH), generator)
    velocity[of_velocity] = _stepped(velocity[of_velocity], _VELOCITY_STEPS, (1, 127), generator)
    moved = _stepped(onset[of_time], _TIME_STEPS, (0, end - 1), generator)
    offset[of_time] = np.minimum(offset[of_time] + moved - onset[of_time], end)
    onset[of_time] = moved
    return _played(piano, onset, offset, pitch, velocity)


def permute_pitches(piano: Piano, end: int, share: float, generator: np.random.Generator) -> Piano:
    """Let a share of the notes exchange their pitches, within runs."""
    pitch = piano.pitch.copy()
    for run in _some_runs(len(piano), share, generator):
        pitch[run] = generator.permutation(pitch[run])
    return _played(piano, piano.onset, piano.offset, pitch, piano.velocity)


def _played(piano: Piano, onset: NDArray, offset: NDArray, pitch: NDArray, velocity: NDArray) -> Piano:
    """Other notes with a piano's pedals."""
    return Piano.on_grid(onset, offset, pitch, velocity, piano.pedal_onset, piano.pedal_offset)


def _stepped(values: Rows, steps: tuple[int, int], limits: tuple[int, int], generator: np.random.Generator) -> Rows:
    """Values moved up or down by one of so many steps, the other way where they would pass a limit."""
    step = generator.integers(steps[0], steps[1] + 1, len(values)) * generator.choice((-1, 1), len(values))
    passes = (values + step < limits[0]) | (values + step > limits[1])
    return np.clip(np.where(passes, values - step, values + step), *limits)


def _count(count: int, share: float) -> int:
    """How many of so many a share is, rounded up."""
    return int(np.ceil(share * count - 1e-9))


def _some(count: int, share: float, generator: np.random.Generator) -> Rows:
    """A share of the numbers below a count, in any order."""
    return generator.permutation(count)[: _count(count, share)]


def _some_runs(count: int, share: float, generator: np.random.Generator) -> Iterator[Rows]:
    """A share of the numbers below a count, in runs of neighbours, one of which may be cut short."""
    cuts = np.cumsum(generator.integers(2, _LONGEST_RUN + 1, count // 2 + 1))
    runs = np.split(np.arange(count), cuts[cuts < count])
    missing = _count(count, share)
    for index in generator.permutation(len(runs)):
        yield runs[index][:missing]
        missing -= len(runs[index][:missing])


_MASKS: dict[str, Callable[[Ids, float, np.random.Generator], Ids]] = {
    "pitch_velocity_mask": mask_pitch_velocity,
    "onset_duration_mask": mask_onset_duration,
    "note_mask": mask_notes,
}
_CHANGES: dict[str, Callable[[Piano, int, float, np.random.Generator], Piano]] = {
    "fragmentation": drop_fragments,
    "modification": modify_notes,
    "permutation": permute_pitches,
}
CORRUPTIONS = (*_MASKS, *_CHANGES)
