"""What may follow what in a segment of scheme `mt3`, as tables for a decoder that must not leave the vocabulary.

A segment is `(Program Pitch+)* Tie`, then events of `Shift? Program? Velocity?` and a note, then `End`. A pitch wants
a program, and after `Tie` a velocity, said before it in the segment; a drum is only struck. Times are not held to rise.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from musictool.symbolic.schemes.mt3 import END, TIE, VOCABULARY

_UNSAID, _RELEASED, _STRUCK = range(3)


class _State(NamedTuple):
    """What decides what may come next."""

    is_tied: bool  # still before Tie
    has_program: bool
    velocity: int
    last: str  # the type of the last token


_TIED = [
    _State(True, False, _UNSAID, ""),
    _State(True, True, _UNSAID, "Program"),
    _State(True, True, _UNSAID, "Pitch"),
]
_PLAYED = [
    _State(False, *rest) for rest in product((False, True), range(3), ("Tie", "Shift", "Program", "Velocity", "Note"))
]
_STATES = [*_TIED, *_PLAYED]
_NUMBERS = {state: number for number, state in enumerate(_STATES)}


def tables(
    programs: Collection[int] | None = None, has_drums: bool = True
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """The grammar as an automaton; a segment begins in state 0.

    Args:
        programs: the only ones that may be named; None for all.
        has_drums: whether drums may be struck.

    Returns:
        Which ids may come in each state, bool [G, V], and the state after each, int64 [G, V].
    """
    allowed = np.zeros((len(_STATES), len(VOCABULARY)), bool)
    following = np.zeros(allowed.shape, np.int64)
    ids = _ids(programs, has_drums)
    for number, state in enumerate(_STATES):
        for type, after in _moves(state).items():
            allowed[number, ids[type]] = True
            following[number, ids[type]] = _NUMBERS[after]
    while True:  # leave out what leads to where nothing may come, such as a release before any program
        leads_on = np.asarray(allowed.any(axis=1))[following]
        if not (allowed & ~leads_on).any():
            break
        allowed &= leads_on
    return allowed, following


def _moves(state: _State) -> dict[str, _State]:
    """The types that may come in a state, and the state after each."""
    if state.is_tied:
        moves = {"Program": _State(True, True, _UNSAID, "Program")}
        if state.has_program:
            moves["Pitch"] = state._replace(last="Pitch")
        if state.last != "Program":
            moves["Tie"] = _State(False, state.has_program, _UNSAID, "Tie")
        return moves
    moves = {}
    if state.last in ("Tie", "Note"):
        moves["Shift"] = state._replace(last="Shift")
        moves["End"] = _STATES[0]
    if state.last in ("Tie", "Note", "Shift"):
        moves["Program"] = state._replace(has_program=True, last="Program")
    if state.last != "Velocity":
        moves["Velocity_0"] = state._replace(velocity=_RELEASED, last="Velocity")
        moves["Velocity_1"] = state._replace(velocity=_STRUCK, last="Velocity")
    if state.has_program and state.velocity != _UNSAID:
        moves["Pitch"] = state._replace(last="Note")
    if state.velocity == _STRUCK and state.last != "Program":
        moves["Drum"] = state._replace(last="Note")
    return moves


def _ids(programs: Collection[int] | None, has_drums: bool) -> dict[str, NDArray[np.int64]]:
    """The ids that each type in `_moves` stands for."""

    def ids_of(type: str, values: Collection[int]) -> NDArray[np.int64]:
        return VOCABULARY.offset(type) + np.array(sorted(values), np.int64)

    return {
        "Shift": ids_of("Shift", range(1001)),
        "Pitch": ids_of("Pitch", range(128)),
        "Velocity_0": ids_of("Velocity", [0]),
        "Velocity_1": ids_of("Velocity", [1]),
        "Tie": np.array([TIE]),
        "End": np.array([END]),
        "Program": ids_of("Program", range(128) if programs is None else programs),
        "Drum": ids_of("Drum", range(128) if has_drums else []),
    }
