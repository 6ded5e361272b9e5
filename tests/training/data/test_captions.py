"""Captions: every sound with what is said of it, wherever that stands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from musictool.errors import InputError
from musictool.training.data.captions import open_captions


def write_sound(path: Path, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(8000 * seconds), np.float32), 8000)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("a.wav", "inner/b.flac", "c.wav", "d.wav"):
        write_sound(tmp_path / "clips" / name)
    (tmp_path / "clips/a.txt").write_text("slow blues\n\n  tenor saxophone \n")
    (tmp_path / "clips/inner/b.txt").write_text("bébop")
    (tmp_path / "clips/d.txt").write_text(" \n")
    return tmp_path


def told(paths: list[Path]) -> dict[str, tuple[str, ...]]:
    return {entry.file.path.name: entry.texts for entry in open_captions(paths)}


def test_captions_stand_beside_the_sound_and_what_has_none_is_left_out(folder):
    expected = {"a.wav": ("slow blues", "tenor saxophone"), "b.flac": ("bébop",)}
    assert told([folder / "clips"]) == expected
    assert told([folder / "clips/a.wav"]) == {"a.wav": expected["a.wav"]}
    assert open_captions([folder / "clips"])[0].file.seconds == 0.5


def test_a_list_names_sound_relative_to_itself(folder):
    lines = [{"audio": "clips/c.wav", "text": "one"}, {"audio": "clips/a.wav", "text": ["two", " ", "three"]}]
    listed = folder / "list.jsonl"
    listed.write_text("\n\n".join(map(json.dumps, lines)))
    assert told([listed]) == {"c.wav": ("one",), "a.wav": ("two", "three")}
    assert told([folder / "clips", listed])["a.wav"] == ("two", "three")  # what is named last is what holds


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no valid JSON"),
        ("[]", "no sound with a caption"),
        ('{"audio": "a.wav"}', "no sound with a caption"),
        ('{"audio": 3, "text": "x"}', "no sound with a caption"),
        ('{"audio": "a.wav", "text": ["x", 3]}', "no sound with a caption"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, line, message):
    (tmp_path / "list.jsonl").write_text("\n" + line)
    with pytest.raises(InputError, match=message) as caught:
        open_captions([tmp_path / "list.jsonl"])
    assert caught.value.context == f"{tmp_path / 'list.jsonl'}, line 2"


def test_what_is_not_there_or_says_nothing_is_an_error(folder):
    (folder / "list.jsonl").write_text('{"audio": "gone.wav", "text": "x"}')
    for paths in ([folder / "gone"], [folder / "gone.jsonl"], [folder / "list.jsonl"], [folder / "clips/c.wav"]):
        with pytest.raises(InputError):
            open_captions(paths)
    (folder / "clips/a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="cannot read the captions"):
        open_captions([folder / "clips"])
