"""Notes as lines of text: onset, offset and pitch, and what else the columns say. TSV, CSV or columns of blanks.

Data sets of recordings come with such lists. A first line of words names the columns, a `#` before it or not; without
one they are onset, offset, pitch and, if there are four, velocity. Times are seconds, pitches MIDI note numbers. The
lists of MAPS, of Onsets and Frames and of basic-pitch, among others, are read as they stand. Columns of other names are
passed over, and so are later lines that begin with `#`. Nothing is guessed or repaired: a line that makes no sense is
an error with its number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from musictool.errors import InputError
from musictool.symbolic.notes import Notes
from musictool.symbolic.smf import MAX_NOTES
from musictool.symbolic.smf_score import MAX_SECONDS

TABLE_SUFFIXES = (".tsv", ".csv", ".txt")
DEFAULT_VELOCITY = 64

# As in OnsetTime (MAPS) and start_time_s (basic-pitch). A bare start_time is not among them: MusicNet's counts samples.
_SPELLINGS = {
    "onset": ("onset", "onsettime", "onsetseconds", "start", "starttimes", "startseconds"),
    "offset": ("offset", "offsettime", "offsetseconds", "end", "endtimes", "endseconds"),
    "pitch": ("pitch", "midipitch", "pitchmidi", "note", "midinote"),
    "velocity": ("velocity", "midivelocity"),
    "program": ("program", "midiprogram"),
    "is_drum": ("isdrum", "drum"),
}
_COLUMN_OF = {spelling: column for column, spellings in _SPELLINGS.items() for spelling in spellings}
_UNNAMED = ("onset", "offset", "pitch", "velocity")
_REQUIRED = _UNNAMED[:3]
_HEADER_HINT = "name the columns in the first line: onset, offset, pitch, and perhaps velocity, program, is_drum"
_TRUTH = {"0": False, "1": True, "false": False, "true": True}

_Columns = Sequence["str | None"]
_Row = tuple[float, float, int, int, int, bool]  # as the columns of `Notes`


def read_note_table(data: bytes, context: str = "") -> Notes:
    """Read a list of notes.

    Args:
        data: the text, UTF-8.
        context: what to call it in errors, a path say.

    Returns:
        The notes in the order of `Notes.sorted`; what no column says is velocity 64, program 0, no drum.

    Raises:
        InputError: the list is empty, a column is missing, or a line is no note; the context says which.
    """
    lines = _lines(data, context)
    delimiter = _delimiter(lines)
    columns: _Columns | None = None
    rows: list[_Row] = []
    for number, line in lines:
        is_comment = line.startswith("#")
        fields = [field.strip(' "') for field in line.lstrip("# ").split(delimiter)]
        try:
            if columns is None and (is_comment or not _is_number(fields[0])):
                columns = _named_columns(fields, is_required=not is_comment)
            elif not is_comment:
                columns = columns or _unnamed_columns(fields)
                rows.append(_row(fields, columns))
        except InputError as error:
            error.context = ", ".join(filter(None, (context, f"line {number}")))
            raise
    return Notes.of(*zip(*rows, strict=True)).sorted() if rows else Notes.empty()


def _lines(data: bytes, context: str) -> list[tuple[int, str]]:
    """The lines that hold something, and their numbers from 1."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("no list of notes: it is no UTF-8 text", context=context) from error
    lines = [(number, line.strip(" ")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError("no list of notes: it is empty", context=context)
    if len(lines) > MAX_NOTES:
        raise InputError(f"more than {MAX_NOTES:,} notes", context=context)
    return lines


def _delimiter(lines: Sequence[tuple[int, str]]) -> str | None:
    """What stands between the columns, as `str.split` takes it: None is any blanks."""
    first = next((line for _, line in lines if not line.startswith("#")), "")
    return next((delimiter for delimiter in "\t;," if delimiter in first), None)


def _named_columns(fields: Sequence[str], *, is_required: bool) -> _Columns | None:
    """What a line of names calls each column, None for a name that means nothing here; no line of names is None."""
    columns = [_COLUMN_OF.get(re.sub(r"[\W_]", "", name).lower()) for name in fields]
    missing = [column for column in _REQUIRED if column not in columns]
    if not missing:
        return columns
    if is_required:
        raise InputError(f"no column for {' and '.join(missing)}", hint=_HEADER_HINT)
    return None


def _unnamed_columns(fields: Sequence[str]) -> _Columns:
    if not len(_REQUIRED) <= len(fields) <= len(_UNNAMED):
        raise InputError(f"{len(fields)} columns without names", hint=_HEADER_HINT)
    return _UNNAMED[: len(fields)]


def _row(fields: Sequence[str], columns: _Columns) -> _Row:
    if len(fields) < len(columns):
        raise InputError(f"the line has {len(fields)} columns, not {len(columns)}")
    said = {column: text for column, text in zip(columns, fields) if column is not None}  # further fields have no name
    onset, offset = (_seconds(column, said[column]) for column in ("onset", "offset"))
    if offset < onset:
        raise InputError(f"the note ends at {offset:g} s, before it begins at {onset:g} s")
    return (
        onset,
        offset,
        _integer("pitch", said["pitch"], 0),
        _integer("velocity", said["velocity"], 1) if "velocity" in said else DEFAULT_VELOCITY,
        _integer("program", said["program"], 0) if "program" in said else 0,
        _truth("is_drum", said["is_drum"]) if "is_drum" in said else False,
    )


def _seconds(column: str, text: str) -> float:
    value = _number(column, text)
    if not 0 <= value <= MAX_SECONDS:
        raise InputError(f"{column} {value:g} s does not lie within a day", hint="times are seconds from the start")
    return value


def _integer(column: str, text: str, least: int) -> int:
    value = _number(column, text)
    if not (least <= value <= 127 and value.is_integer()):
        hint = "pitches are MIDI note numbers" if column == "pitch" else ""
        raise InputError(f"{column} {text[:20]} is no whole number from {least} to 127", hint=hint)
    return int(value)


def _truth(column: str, text: str) -> bool:
    if text.lower() not in _TRUTH:
        raise InputError(f"{column} {text[:20]!r} is neither 0 nor 1")
    return _TRUTH[text.lower()]


def _number(column: str, text: str) -> float:
    if not _is_number(text):
        raise InputError(f"{column} {text[:20]!r} is no number")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
