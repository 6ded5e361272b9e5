"""Which programs are drawn, and from which fonts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from musictool.errors import InputError, UsageError
from musictool.training.data.voices import (
    Preset,
    Voice,
    VoiceTable,
    compass,
    parse_font,
    parse_programs,
    presets_to_try,
)

EVERY_PITCH = frozenset(range(128))


def voice(font: str, program: int, bank: int = 0, fault: str = "") -> Voice:
    return Voice(Preset(Path(font), bank, program), "a voice", 0.0, 0.0, EVERY_PITCH, fault)


def table(*voices: Voice, weights: tuple[float, ...] = (1, 1), is_drawn: bool = False) -> VoiceTable:
    fonts = [(Path(name), weight) for name, weight in zip("ab", weights)]
    return VoiceTable.of(fonts, {}, voices, is_drawn=is_drawn)


def test_ranges_share_their_weight():
    assert parse_programs("0-3:8,24") == {0: 2, 1: 2, 2: 2, 3: 2, 24: 1}
    assert parse_programs("40, 40-41:2") == {40: 2, 41: 1}
    assert parse_programs("original") is None


@pytest.mark.parametrize("text", ["", "5-3", "128", "-1", "a", "1:0", "1:x", "0-7;9", "1:-2"])
def test_programs_that_are_none_are_wrong_usage(text):
    with pytest.raises(UsageError, match="no such programs"):
        parse_programs(text)


def test_a_font_may_have_a_weight(tmp_path):
    assert parse_font("a.sf2") == (Path("a.sf2"), 1)
    assert parse_font("a.sf2:2.5") == parse_font("a.sf2=2.5") == (Path("a.sf2"), 2.5)
    odd = tmp_path / "a.sf2:3"
    odd.touch()
    assert parse_font(str(odd)) == (odd, 1)
    with pytest.raises(UsageError):
        parse_font("a.sf2:0")


def test_fonts_come_first_as_often_as_their_weight_says():
    voices = table(voice("a", 0), voice("b", 0), weights=(3, 1))
    generator = np.random.default_rng(0)
    first = Counter(voices.font_order(generator)[0].name for _ in range(4000))
    assert first["a"] / 4000 == pytest.approx(0.75, abs=0.03)


def test_a_voice_comes_from_the_first_font_that_has_it():
    voices = table(voice("a", 0), voice("b", 0), voice("b", 40), voice("b", 0, 128))
    order = [Path("a"), Path("b")]
    assert [voices.find(program, False, order).preset.font.name for program in (0, 40)] == ["a", "b"]
    assert voices.find(41, False, order) is None
    assert voices.find(25, True, order).preset == Preset(Path("b"), 128, 0)


def test_programs_are_drawn_by_weight_from_those_that_are_there():
    voices = table(voice("a", 0), voice("b", 40), voice("a", 41, fault="is silent"), voice("a", 7, 128))
    generator = np.random.default_rng(0)
    drawn = Counter(voices.draw_program({0: 1, 40: 3, 41: 100, 7: 100}, generator) for _ in range(4000))
    assert drawn.keys() == {0, 40}
    assert drawn[40] / 4000 == pytest.approx(0.75, abs=0.03)
    with pytest.raises(InputError):
        voices.draw_program({41: 1}, generator)


@pytest.mark.parametrize(
    ("voices", "is_drawn"),
    [
        ((), False),
        ((voice("a", 0, fault="is silent"),), False),
        ((voice("a", 0, fault="is silent"), voice("a", 0, 128)), False),
        ((voice("a", 0, 128),), True),
    ],
)
def test_without_a_good_voice_nothing_is_rendered(voices, is_drawn):
    with pytest.raises(InputError, match="in tune"):
        table(*voices, is_drawn=is_drawn)


def test_drums_alone_are_enough_for_pieces_of_drums():
    assert table(voice("a", 0, 128)).find(0, True, [Path("a")])


def test_only_what_may_be_played_is_listened_to():
    used = {(False, 0), (False, 40), (True, 8)}
    assert presets_to_try(used, None, has_drums=True) == [(0, 0), (0, 40), (128, 0), (128, 8)]
    assert presets_to_try(used, None, has_drums=False) == [(0, 0), (0, 40)]
    assert presets_to_try(used, {5: 1.0}, has_drums=True) == [(0, 5), (128, 0), (128, 8)]
    assert presets_to_try({(False, 0)}, None, has_drums=True) == [(0, 0)]


def test_every_program_has_a_compass_on_the_keyboard():
    for program in range(128):
        lowest, highest = compass(program)
        assert 21 <= lowest < highest - 12 <= 108
