"""Items written down and read again: whole, with paths that follow their folder, and with names that are safe."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from musictool.errors import InputError
from musictool.training.data.pipeline.items import (
    END_LINE,
    Item,
    Part,
    item_of_file,
    manifests_of,
    read_lines,
    read_manifest,
)

LEAD = Part(Path("a/lead/x.flac"), "0" * 64, Path("a/lead/x.mid"), "1" * 64)
ITEM = Item(
    "in/x",
    {"lead": LEAD, "backing": Part(Path("a/backing/x.flac"), "2" * 64)},
    "x",
    "3" * 64,
    seconds=12.3456789,
    start_seconds=1.5,
    span=(0.25, 12.25),
    about={"performer": "Ann"},
    made=({"stage": "pairs", "seed": 0},),
)


def test_an_item_comes_back_from_a_manifest_as_it_went(tmp_path):
    here = replace(
        ITEM,
        parts={
            n: replace(p, file=tmp_path / p.file, notes=p.notes and tmp_path / p.notes) for n, p in ITEM.parts.items()
        },
    )
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.jsonl").write_bytes(here.line(tmp_path / "a"))
    assert json.loads(here.line(tmp_path / "a"))["parts"]["backing"]["file"] == "backing/x.flac"
    (again,) = read_manifest(tmp_path / "a" / "manifest.jsonl")
    assert again == here
    (tmp_path / "a").rename(tmp_path / "b")
    (moved,) = read_manifest(tmp_path / "b" / "manifest.jsonl")
    assert moved.parts["lead"].file == tmp_path / "b" / "lead" / "x.flac"
    assert moved.key == here.key


@pytest.mark.parametrize(
    "change",
    [
        {"name": "y"},
        {"span": None},
        {"start_seconds": 0.0},
        {"about": {}},
        {"made": ()},
        {"parts": {**ITEM.parts, "lead": replace(LEAD, sha256="4" * 64)}},
        {"parts": {**ITEM.parts, "lead": replace(LEAD, notes_sha256="4" * 64)}},
    ],
)
def test_whatever_an_item_is_counts_in_its_key(change):
    assert replace(ITEM, **change).key != ITEM.key


def test_lines_of_a_pipe_end_with_a_line_that_says_so():
    lines = [ITEM.line(None), b"\n", END_LINE]
    assert list(read_lines(lines, "pipe")) == [ITEM]
    for broken in (lines[:-1], [], [*lines, ITEM.line(None)]):
        with pytest.raises(InputError, match="breaks off"):
            list(read_lines(broken, "pipe"))


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a//b", "a\nb", "a\ud800"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    record = {**ITEM.record(None), "name": name}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record))
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "manifest.jsonl")
    assert "line 1" in caught.value.context


@pytest.mark.parametrize(
    "line", ["{", "[]", "{}", '{"name": "x"}', '{"name": 3, "parts": {}}', '{"name": "x", "parts": {"mix": {}}}']
)
def test_a_line_that_is_no_item_is_named(tmp_path, line):
    (tmp_path / "list.jsonl").write_bytes(ITEM.line(None) + line.encode())
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "list.jsonl")
    assert "line 2" in caught.value.context


def test_a_part_without_a_digest_is_read_for_it(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"sound")
    (tmp_path / "list.jsonl").write_text('{"name": "x", "parts": {"mix": {"file": "x.wav"}}}\n')
    (item,) = read_manifest(tmp_path / "list.jsonl")
    assert item.parts["mix"] == item_of_file(tmp_path / "x.wav", "x").parts["mix"]
    (tmp_path / "x.wav").unlink()
    with pytest.raises(InputError, match="no such file"):
        read_manifest(tmp_path / "list.jsonl")


def test_a_folder_whose_stage_was_cut_off_is_refused(tmp_path):
    assert manifests_of(tmp_path) == []
    (tmp_path / ".journal.jsonl").touch()
    with pytest.raises(InputError, match="not come to its end"):
        manifests_of(tmp_path)
    for name in ("manifest.1-of-2.jsonl", "manifest.2-of-2.jsonl", "other.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in manifests_of(tmp_path)] == ["manifest.1-of-2.jsonl", "manifest.2-of-2.jsonl"]
