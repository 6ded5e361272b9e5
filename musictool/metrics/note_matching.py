"""Which estimated note stands for which reference note.

Two notes may be matched if pitch and onset, and where asked offset, agree within tolerances; a matching takes each note
once and is as large as can be. mir_eval's `transcription.match_notes` finds it, but compares every note with every
other: 20,000 notes against as many take gigabytes. Notes of other pitches, and notes further apart than the tolerance,
cannot affect each other, so here it is given the notes block by block; the matching is the same to the last pair.
Knows neither scores nor programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mir_eval
import numpy as np
from numpy.typing import NDArray

from musictool.errors import InputError, UsageError
from musictool.metrics.spans import intervals
from musictool.symbolic.notes import Notes

BLOCK_NOTES = 256
PAIRS_MAX = 1 << 24  # of one block: 4096 notes of one pitch, each close to the next, against as many

_ROUNDING_SECONDS = 10.0**-mir_eval.transcription.N_DECIMALS  # of distances, by mir_eval


@dataclass(frozen=True)
class Tolerances:
    """How far an estimated note may be from its reference.

    Attributes:
        onset_seconds: between the onsets.
        offset_ratio: between the offsets, as a share of the reference note's length.
        offset_seconds: between the offsets, where that share is less.
    """

    onset_seconds: float = 0.05
    offset_ratio: float = 0.2
    offset_seconds: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < np.inf:
                raise UsageError(f"no tolerance: {name.replace('_', ' ')} {value:g}", hint="0 or more")


def match_notes(reference: Notes, estimate: Notes, tolerances: Tolerances, *, with_offsets: bool) -> NDArray[np.intp]:
    """The largest matching of two tables of notes.

    Args:
        reference: what is true.
        estimate: what was found.
        tolerances: how far two notes may be apart.
        with_offsets: whether offsets must agree too.

    Returns:
        Rows of `reference` and of `estimate`, [k, 2], by rising row of `reference`.

    Raises:
        InputError: thousands of notes of one pitch are too close to be told apart.
    """
    reference_times, estimate_times = intervals(reference), intervals(estimate)
    pairs = [np.zeros((0, 2), np.intp)]
    try:
        for rows, others in _blocks(reference, estimate, tolerances.onset_seconds + _ROUNDING_SECONDS):
            matching = mir_eval.transcription.match_notes(
                reference_times[rows],
                frequencies_hz(reference.pitch[rows]),
                estimate_times[others],
                frequencies_hz(estimate.pitch[others]),
                onset_tolerance=tolerances.onset_seconds,
                offset_ratio=tolerances.offset_ratio if with_offsets else None,
                offset_min_tolerance=tolerances.offset_seconds,
            )
            if matching:
                of_block = np.array(matching)
                pairs.append(np.column_stack([rows[of_block[:, 0]], others[of_block[:, 1]]]))
    except RecursionError as error:  # mir_eval follows a chain of notes that push each other aside
        raise _too_dense() from error
    matched = np.concatenate(pairs)
    return matched[np.argsort(matched[:, 0])]


def frequencies_hz(pitch: NDArray[np.int16]) -> NDArray[np.float64]:
    """The frequencies of MIDI note numbers, as mir_eval takes them."""
    return mir_eval.util.midi_to_hz(pitch.astype(np.float64))


def _blocks(
    reference: Notes, estimate: Notes, reach_seconds: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows of both tables, rising, in blocks such that no note can be matched outside its own.

    A run is notes of one pitch, each with its onset within reach of the one before; a block is some runs.
    """
    onset = np.concatenate([reference.onset_seconds, estimate.onset_seconds])
    pitch = np.concatenate([reference.pitch, estimate.pitch])
    row = np.concatenate([np.arange(len(reference)), np.arange(len(estimate))])
    is_estimate = np.arange(len(row)) >= len(reference)
    order = np.lexsort((onset, pitch))
    begins_run = np.append(True, (np.diff(pitch[order]) != 0) | (np.diff(onset[order]) > reach_seconds))[: len(order)]
    run_start = np.maximum.accumulate(np.where(begins_run, np.arange(len(order)), 0))
    block = run_start // BLOCK_NOTES
    for members in np.split(order, np.flatnonzero(np.diff(block)) + 1):
        rows = np.sort(row[members[~is_estimate[members]]])
        others = np.sort(row[members[is_estimate[members]]])
        if len(rows) * len(others) > PAIRS_MAX:
            raise _too_dense()
        if len(rows) and len(others):
            yield rows, others


def _too_dense() -> InputError:
    return InputError(
        "too many notes of one pitch within the onset tolerance of each other",
        hint="is the tolerance in seconds, and are all these notes meant?",
        code="too-dense",
    )
