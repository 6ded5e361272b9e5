"""Transcriptions held against reference notes, by the measures of mir_eval and of the MT3 paper.

Conventions
    Notes are tables of `symbolic.notes`, times in seconds from the same start. An estimated note is correct if it can
    be matched with a reference note, each note counting once (`note_matching`); precision is the share of estimated
    notes that are correct, recall the share of reference notes that are found, F1 their harmonic mean.

    onset                  same pitch, onset within 50 ms
    onset_offset           and offset within 20 % of the reference note's length or 50 ms, whichever is more
    onset_offset_velocity  and velocity within a tenth of the reference's range, after the line that fits best
    frame                  the pitches that sound at every 10 ms, whoever plays them
    multi_instrument       onset_offset and same program; a drum needs no offset (Gardner et al., 2022, section 4.2).
                           Programs are told apart as finely as the granularity says, by MT3's words for it: `full`,
                           `midi_class` (families of eight) or `flat` (drums and all else)

    `onset_offset_overlap` is the mean share of a correct note's span in which both notes sound;
    `median_onset_error_ms` says how late the notes are that `onset` takes for correct.

    Drums count for `multi_instrument` alone, all kits as one instrument, as in MT3's own evaluation: they have no pitch
    and no length. A note without length lasts a millisecond. Where all velocities of the reference are the same, every
    one agrees. Where reference or estimate is empty the scores are 0, as in mir_eval, also if both are; a median of no
    notes is None.

Raffel et al., "mir_eval: a transparent implementation of common MIR metrics", ISMIR 2014; Gardner et al., "MT3:
multi-task multitrack music transcription", ICLR 2022. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import mir_eval
import numpy as np
from numpy.typing import NDArray

from musictool.errors import UsageError
from musictool.metrics.averages import Scores, mean_of
from musictool.metrics.granularity import Granularity
from musictool.metrics.note_matching import Tolerances, match_notes
from musictool.metrics.spans import check_times, covered, frames_of, intervals
from musictool.symbolic.notes import Notes, Score
from musictool.symbolic.synthesis import sounding_until

VELOCITY_TOLERANCE = 0.1
METRICS = (
    "onset_precision",
    "onset_recall",
    "onset_f1",
    "onset_offset_precision",
    "onset_offset_recall",
    "onset_offset_f1",
    "onset_offset_overlap",
    "onset_offset_velocity_precision",
    "onset_offset_velocity_recall",
    "onset_offset_velocity_f1",
    "frame_precision",
    "frame_recall",
    "frame_f1",
    "multi_instrument_precision",
    "multi_instrument_recall",
    "multi_instrument_f1",
    "median_onset_error_ms",
)

_PITCH_STRIDE = 1 << 40  # frames, more than any piece has


@dataclass(frozen=True)
class Comparison:
    """What of two pieces is compared, and how strictly.

    Attributes:
        tolerances: how far two notes may be apart.
        duration_seconds: only the first part is compared: notes that begin in it, cut at its end. None is all.
        with_pedal: the reference's notes sound as long as the sustain pedal holds them, not the keys.
        granularity: how finely programs are told apart.
    """

    tolerances: Tolerances = field(default_factory=Tolerances)
    duration_seconds: float | None = None
    with_pedal: bool = False
    granularity: Granularity = Granularity.FULL

    def __post_init__(self) -> None:
        if self.duration_seconds is not None and not 0 < self.duration_seconds < np.inf:
            raise UsageError(f"no duration: {self.duration_seconds:g} s", hint="more than 0")

    def notes_of(self, reference: Score, estimate: Score) -> tuple[Notes, Notes]:
        """The notes of two pieces that are compared."""
        played = reference.notes
        if self.with_pedal:
            played = played.with_columns(offset_seconds=sounding_until(played, reference.pedals))
        return self._part(played), self._part(estimate.notes)

    def _part(self, notes: Notes) -> Notes:
        together = self.granularity.programs_together
        notes = notes.with_columns(program=notes.program // together * together)
        if self.duration_seconds is None:
            return notes
        part = notes.take(notes.onset_seconds < self.duration_seconds)
        return part.with_columns(offset_seconds=np.minimum(part.offset_seconds, self.duration_seconds))


def evaluate(reference: Notes, estimate: Notes, tolerances: Tolerances | None = None) -> Scores:
    """Hold an estimate against its reference.

    Args:
        reference: what is true.
        estimate: what was found.
        tolerances: how far two notes may be apart.

    Returns:
        A value for each of `METRICS`, by its name and in their order.

    Raises:
        InputError: a table holds times that make no sense, or too many notes in one place.
    """
    validate(reference, estimate)
    tolerances = tolerances or Tolerances()
    pitched, found = reference.take(~reference.is_drum), estimate.take(~estimate.is_drum)
    by_onset = match_notes(pitched, found, tolerances, with_offsets=False)
    by_offset = match_notes(pitched, found, tolerances, with_offsets=True)
    by_velocity = by_offset[velocities_agree(pitched.velocity, found.velocity, by_offset)]
    counts = {
        "onset": (len(by_onset), len(pitched), len(found)),
        "onset_offset": (len(by_offset), len(pitched), len(found)),
        "onset_offset_velocity": (len(by_velocity), len(pitched), len(found)),
        "frame": frame_counts(pitched, found),
        "multi_instrument": instrument_counts(reference, estimate, tolerances),
    }
    scores: Scores = {}
    for name, (correct, true, guessed) in counts.items():
        scores.update({f"{name}_{measure}": value for measure, value in rates(correct, true, guessed).items()})
    scores["onset_offset_overlap"] = overlap(pitched, found, by_offset)
    scores["median_onset_error_ms"] = median_onset_error_ms(pitched, found, by_onset)
    return {name: scores[name] for name in METRICS}


def validate(reference: Notes, estimate: Notes) -> None:
    """Refuse notes that cannot be compared.

    Raises:
        InputError: a time is no number or lies before the start, or a note ends before it begins.
    """
    check_times(reference, "reference")
    check_times(estimate, "estimate")


def rates(correct: float, true: float, guessed: float) -> dict[str, float]:
    """Precision, recall and F1.

    Args:
        correct: how many of the estimate are right.
        true: how many the reference has.
        guessed: how many the estimate has.
    """
    precision = correct / guessed if guessed else 0.0
    recall = correct / true if true else 0.0
    return {"precision": precision, "recall": recall, "f1": float(mir_eval.util.f_measure(precision, recall))}


def overlap(reference: Notes, estimate: Notes, matched: NDArray[np.intp]) -> float:
    """The mean share of the span of two matched notes in which both sound; 0 where none are.

    Args:
        reference: what is true.
        estimate: what was found.
        matched: rows of both, [k, 2].
    """
    return float(mir_eval.transcription.average_overlap_ratio(intervals(reference), intervals(estimate), matched))


def median_onset_error_ms(reference: Notes, estimate: Notes, matched: NDArray[np.intp]) -> float | None:
    """How late matched notes begin, in milliseconds, by the median; None where none are.

    Args:
        reference: what is true.
        estimate: what was found.
        matched: rows of both, [k, 2].
    """
    if not len(matched):
        return None
    return float(np.median(estimate.onset_seconds[matched[:, 1]] - reference.onset_seconds[matched[:, 0]]) * 1000)


def velocities_agree(
    reference: NDArray[np.int16], estimate: NDArray[np.int16], matched: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Which matched notes agree in velocity too, as `mir_eval.transcription_velocity` judges it, bool [k].

    Models differ in their scale, so the estimate's velocities are first moved to the line that fits the matched
    notes best.

    Args:
        reference: velocities [n].
        estimate: velocities [m].
        matched: rows of both, [k, 2].
    """
    if not len(matched):
        return np.zeros(0, np.bool_)
    lowest, highest = float(reference.min()), float(reference.max())
    true = (reference[matched[:, 0]] - lowest) / max(1.0, highest - lowest)
    guessed = estimate[matched[:, 1]].astype(np.float64)
    line = np.column_stack([guessed, np.ones_like(guessed)])
    fitted = line @ np.linalg.lstsq(line, true, rcond=None)[0]
    return np.abs(fitted - true) < VELOCITY_TOLERANCE


def frame_counts(reference: Notes, estimate: Notes) -> tuple[int, int, int]:
    """Pitches that sound in both tables at the same time, and in each, summed over the frames.

    A note sounds at the frames k/100 s for which onset <= k/100 < offset. The sums are those of `mir_eval.multipitch`,
    which takes frames one by one and pitches within its range only.
    """
    true, guessed = _sounding(reference), _sounding(estimate)
    either, in_reference, in_estimate = (
        int(covered(spans)) for spans in (np.concatenate([true, guessed]), true, guessed)
    )
    return in_reference + in_estimate - either, in_reference, in_estimate


def instrument_counts(reference: Notes, estimate: Notes, tolerances: Tolerances) -> tuple[int, int, int]:
    """Notes that agree in program too, and notes of each table, summed over the instruments."""
    parts = _instruments(reference), _instruments(estimate)
    correct = 0
    for instrument in np.intersect1d(*parts):
        of_reference, of_estimate = (
            notes.take(part == instrument) for notes, part in zip((reference, estimate), parts, strict=True)
        )
        correct += len(match_notes(of_reference, of_estimate, tolerances, with_offsets=instrument >= 0))
    return correct, len(reference), len(estimate)


def mean_scores(items: Iterable[Mapping[str, float | None]]) -> Scores:
    """The mean of every metric over some items; those without a value are left out of it.

    Args:
        items: scores of each.
    """
    return mean_of(items, METRICS)


def _instruments(notes: Notes) -> NDArray[np.int16]:
    """Programs, and -1 for drums, int16 [n]."""
    return np.where(notes.is_drum, np.int16(-1), notes.program)


def _sounding(notes: Notes) -> NDArray[np.int64]:
    """The first frame of each note and the one after its last, [n, 2], pitches set apart."""
    return frames_of(intervals(notes)) + notes.pitch.astype(np.int64)[:, None] * _PITCH_STRIDE
