"""What is asked of a generator, and how it is written down."""

from __future__ import annotations

import pytest

from musictool.errors import InputError, MusicToolError, UsageError
from musictool.inference.generation_options import Drawing, Request, read_prompts

BASE = Request(style="jazz", bars=8)


def requests(*lines: str, base: Request = BASE) -> list[Request]:
    prompts = read_prompts((line.encode() for line in lines), "prompts.txt")
    return [prompt.request(base, "text") for prompt in prompts]


def test_lines_are_words_or_objects_and_empty_ones_nothing():
    got = requests("a slow waltz\n", "\n", '{"text": "fast", "bars": 4, "name": "x/y"}', "  {} ")
    assert got == [
        Request(text="a slow waltz", style="jazz", bars=8),
        Request(text="fast", style="jazz", bars=4, name="x/y"),
        BASE,
    ]


def test_a_byte_order_mark_is_no_word():
    assert requests("\ufeffwaltz")[0].text == "waltz"


def test_a_length_of_a_line_stands_for_that_of_the_command():
    assert requests('{"duration": 2.5}') == [Request(style="jazz", duration_seconds=2.5)]
    assert requests('{"style": null}') == [Request(bars=8)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"tempi": 3}', "an unknown key: 'tempi'"),
        ('{"bars": "three"}', "bars is no int: 'three'"),
        ('{"bars": true}', "bars is no int: True"),
        ('{"text": 3}', "text is no str: 3"),
        ('{"text": ', "no valid JSON"),
        ('{"name": ""}', "a name has 1 to 1024 characters"),
        ('{"bars": 0}', "bars is from 1 to 100000, not 0"),
        ('{"duration": NaN}', "no such duration: nan"),
        ('{"duration": 1, "bars": 2}', "contradict"),
        ('{"tempo": 1e999}', "tempo is from 1 to 1000, not inf"),
        ("x" * (1 << 20) + "x", "a line of more than 1 MiB"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(line, message):
    with pytest.raises(MusicToolError, match=message) as caught:
        requests("fine", line)
    assert caught.value.context == "prompts.txt, line 2"


def test_a_line_that_is_no_text_is_named():
    with pytest.raises(InputError, match="no text in UTF-8"):
        list(read_prompts([b"\xff\xfe"], "prompts.txt"))


@pytest.mark.parametrize(
    "numbers",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5}, {"guidance": -2}],
)
def test_numbers_out_of_range_are_refused(numbers):
    with pytest.raises(UsageError):
        Drawing().with_given(**numbers)


def test_what_is_not_given_stays():
    drawing = Drawing(0.5, top_k=7, seed=1)
    assert drawing.with_given(temperature=None, top_k=0, seed=3) == Drawing(0.5, seed=3)
