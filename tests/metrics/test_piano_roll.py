"""Pictures: what is right, missed or extra has its colour and place, and the same notes give the same bytes."""

from __future__ import annotations

import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import matplotlib.image
import numpy as np
import pytest

from musictool.errors import MissingError
from musictool.metrics import piano_roll
from musictool.metrics.piano_roll import EXTRA, FOUND, MISSED, TRUE, draw
from musictool.metrics.pictures import PICTURE_FORMATS, load_matplotlib
from musictool.symbolic.notes import Notes


def picture(reference, estimate, **options):
    file = io.BytesIO()
    draw(file, reference, estimate, **options)
    return file.getvalue()


def pixels(data):
    return (matplotlib.image.imread(io.BytesIO(data))[:, :, :3] * 255).round().astype(int)  # [rows, columns, 3]


def box(image, colour):
    """First and last row and column of the bars of a colour, below the legend; None where there are none."""
    is_colour = (image[110:] == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1)
    is_bar = is_colour[:-2, :-2] & is_colour[2:, 2:] & is_colour[1:-1, 1:-1]  # letters are thinner
    rows, columns = np.nonzero(is_bar)
    return (rows.min(), rows.max() + 2, columns.min(), columns.max() + 2) if len(rows) else None


def test_each_kind_of_note_has_its_colour_and_its_half_of_the_lane():
    reference = Notes.of([1, 6], [2, 9], [60, 64])  # found, missed
    estimate = Notes.of([1.02, 6], [3, 8], [60, 67])  # right, extra
    image = pixels(picture(reference, estimate))
    true, found, missed, extra = (box(image, colour) for colour in (TRUE, FOUND, MISSED, EXTRA))
    assert true[1] < found[0], "the reference is above"
    assert found[1] - true[0] < 30, "in the same lane"
    assert extra[1] < missed[0] < true[0], "higher notes are higher up"
    seconds = (image.shape[1] - (0.9 * 150)) / 9
    for (_, _, first, last), length in ((true, 1), (found, 1.98), (missed, 3), (extra, 2)):
        assert (last - first) / seconds == pytest.approx(length, abs=0.05)
    assert (missed[2] - true[2]) / seconds == pytest.approx(5, abs=0.05)


def test_perfect_work_has_no_black_and_no_red():
    notes = Notes.of([1, 1.5], [2, 3], [60, 38], is_drum=[False, True])
    image = pixels(picture(notes, notes))
    assert box(image, EXTRA) is None
    assert box(image, TRUE)[2:] == box(image, FOUND)[2:]


def test_a_drum_is_no_pitch():
    image = pixels(picture(Notes.of([1], [2], 38), Notes.of([1], [2], 38, is_drum=True)))
    assert box(image, TRUE) is None
    assert box(image, EXTRA)[0] - box(image, MISSED)[1] > 50, "drums lie below, in another lane"


def test_long_pieces_wrap_into_rows_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(piano_roll, "ROWS_MAX", 4)
    heights = []
    for seconds in (5, 20, 60, 80, 3600):
        notes = Notes.of([0, seconds - 1], [1, seconds], 60)
        heights.append(pixels(picture(notes, notes)).shape[0])
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]


@pytest.mark.parametrize("format", PICTURE_FORMATS)
def test_the_same_notes_give_the_same_bytes(format, monkeypatch):
    import matplotlib

    notes = Notes.of(np.arange(30), np.arange(30) + 0.7, 50 + np.arange(30))
    first = picture(notes, notes.take(slice(20)), title="take 日本 $\\frac$", format=format)
    monkeypatch.setitem(matplotlib.rcParams, "axes.facecolor", "red")  # a user's style stays out of it
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    assert picture(notes, notes.take(slice(20)), title="take 日本 $\\frac$", format=format) == first
    assert matplotlib.rcParams["axes.facecolor"] == "red", "and is left as it was"
    if format == "svg":
        ElementTree.fromstring(first)
    else:
        assert first.startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[format])


@pytest.mark.parametrize("is_drum", [False, True])
@pytest.mark.parametrize("counts", [(0, 0), (0, 1), (1, 0)])
def test_nothing_can_be_drawn(counts, is_drum):
    notes = Notes.of([1], [2], 60, is_drum=is_drum)
    assert picture(*(notes.take(slice(count)) for count in counts)).startswith(b"\x89PNG")


def test_no_window_library_is_touched():
    code = (
        "import io, sys; from musictool.metrics.piano_roll import draw; from musictool.symbolic.notes import Notes\n"
        "draw(io.BytesIO(), Notes.empty(), Notes.empty()); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError) as error:
        load_matplotlib()
    assert error.value.hint == "pip install 'musictool[plot]'"
