"""Lists of notes as text: every spelling of the same notes reads the same, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from musictool.errors import InputError
from musictool.symbolic.note_tables import read_note_table

PLAIN = [(0.5, 0.75, 60, 64), (1.25, 2.0, 72, 64)]
SPELLINGS = {
    "tsv": "onset\toffset\tpitch\tvelocity\n0.5\t0.75\t60\t64\n1.25\t2.0\t72\t64\n",
    "csv in another order": "Velocity,Pitch,Offset,Onset\n64,60,0.75,0.5\n64,72,2,1.25\n",
    "semicolons": "onset;offset;pitch\n0.5;0.75;60\n1.25;2.0;72\n",
    "no header": "0.5 0.75 60\n1.25 2.0 72\n",
    "no header, with velocity": "0.5\t0.75\t60\t64\n1.25\t2.0\t72\t64",
    "MAPS": "OnsetTime\tOffsetTime\tMidiPitch\r\n0.5\t0.75\t60\r\n1.25\t2.0\t72\r\n\r\n",
    "Onsets and Frames": "# onset,offset,note,velocity\n0.500000,0.750000,60.000000,64.000000\n1.25,2.0,72.0,64.0\n",
    "basic-pitch": "start_time_s,end_time_s,pitch_midi,velocity,pitch_bend\n0.5,0.75,60,64,0,1,-1\n1.25,2.0,72,64,0\n",
    "comments": "# by hand, in 2021\n# twice\n\n0.5\t0.75\t60\n# a rest\n1.25\t2.0\t72\n",
    "quoted and out of order": '"onset","offset","pitch","who"\n1.25,2,72,me\n".5",.75,60,me',
    "a byte order mark": "\ufeff0.5 0.75 60\n1.25 2.0 72\n",
}


def rows(notes):
    columns = (notes.onset_seconds, notes.offset_seconds, notes.pitch, notes.velocity)
    return list(zip(*(column.tolist() for column in columns)))


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_reads_the_same(text):
    assert rows(read_note_table(text.encode())) == PLAIN


def test_programs_and_drums_come_by_name():
    text = "onset,offset,pitch,program,is_drum\n0,1,60,40,0\n1,2,38,0,True\n"
    notes = read_note_table(text.encode())
    assert (notes.program.tolist(), notes.is_drum.tolist()) == ([40, 0], [False, True])


@pytest.mark.parametrize("text", ["onset\toffset\tpitch\n", "# onset offset pitch\n"])
def test_a_header_alone_is_a_list_of_no_notes(text):
    assert len(read_note_table(text.encode())) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0.5\t0.75", "the line has 2 columns, not 4"),
        ("zero\t0.75\t60\t64", "onset 'zero' is no number"),
        ("0.5\tnan\t60\t64", "offset 'nan' is no number"),
        ("-0.5\t0.75\t60\t64", "onset -0.5 s does not lie within a day"),
        ("90000\t90001\t60\t64", "onset 90000 s does not lie within a day"),
        ("0.5\t0.25\t60\t64", "the note ends at 0.25 s, before it begins at 0.5 s"),
        ("0.5\t0.75\t440\t64", "pitch 440 is no whole number from 0 to 127"),
        ("0.5\t0.75\t60.5\t64", "pitch 60.5 is no whole number from 0 to 127"),
        ("0.5\t0.75\t60\t0", "velocity 0 is no whole number from 1 to 127"),
        ("0.5\t0.75\t60\t", "velocity '' is no number"),
    ],
)
def test_a_bad_line_is_named_by_its_number(line, message):
    text = f"onset\toffset\tpitch\tvelocity\n\n0\t1\t60\t64\n{line}\n"
    with pytest.raises(InputError) as error:
        read_note_table(text.encode(), "take.tsv")
    assert error.value.message.startswith(message)
    assert error.value.context == "take.tsv, line 4"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"\xff\xfe\x00o", "no UTF-8 text"),
        (b"onset,pitch\n0,60\n", "no column for offset"),
        (b"start_time,end_time,instrument,note\n9182,90078,43,53\n", "no column for onset and offset"),  # samples
        (b"0,1\n", "2 columns without names"),
        (b"0,1,60,64,0\n", "5 columns without names"),
        (b"0,1,60\n0,1\n", "the line has 2 columns, not 3"),
        (b"onset,offset,pitch,is_drum\n0,1,60,perhaps\n", "is_drum 'perhaps' is neither 0 nor 1"),
    ],
)
def test_what_is_no_list_of_notes_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        read_note_table(text)


def test_notes_come_sorted():
    generator = np.random.default_rng(1)
    lines = [f"{onset:.3f}\t{onset + 1:.3f}\t60" for onset in generator.uniform(0, 100, 50)]
    onset = read_note_table("\n".join(lines).encode()).onset_seconds
    assert (np.diff(onset) >= 0).all()
