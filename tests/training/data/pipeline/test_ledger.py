"""The record of a stage's folder: what stands in it is whole, what changed is noticed, and nobody else writes there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from musictool.errors import InputError, UsageError
from musictool.training.data.pipeline.items import Item, Part, digest_of, read_manifest
from musictool.training.data.pipeline.ledger import Ledger
from musictool.training.data.pipeline.settings import ClipsSettings, LoudnessSettings
from musictool.training.data.pipeline.stage import Stage

STAGE = Stage.of(ClipsSettings(seconds=5.0))


def given(name: str, sha: str = "0") -> Item:
    return Item(name, {"mix": Part(Path("elsewhere") / f"{name}.flac", sha * 64)}, name)


def put(ledger: Ledger, item: Item, *names: str, content: bytes = b"sound") -> tuple[Item, ...]:
    """Make files of so many names out of an item."""
    scratch = ledger.scratch()
    made = []
    for name in names:
        path = scratch / f"{name}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made.append(replace(item, name=name, parts={"mix": Part(path, digest_of(path))}))
    return ledger.add(item, made, scratch)


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_what_was_added_is_done_and_is_found_again(tmp_path):
    ledger = Ledger(tmp_path / "clips", STAGE)
    with ledger.at_work():
        placed = put(ledger, given("b"), "b-c002", "b-c001")
        put(ledger, given("a"), "in/a")
        put(ledger, given("silent"))
        ledger.finish()
    assert [item.parts["mix"].file for item in placed] == [tmp_path / "clips" / f"b-c00{n}.flac" for n in (2, 1)]
    files = [".journal.jsonl", "b-c001.flac", "b-c002.flac", "in/a.flac", "manifest.jsonl"]
    assert names_in(tmp_path / "clips") == files
    assert [item.name for item in read_manifest(tmp_path / "clips" / "manifest.jsonl")] == ["b-c001", "b-c002", "in/a"]
    again = Ledger(tmp_path / "clips", STAGE)
    assert again.is_begun
    assert all(again.is_done(given(name)) for name in ("a", "b", "silent"))
    assert not again.is_done(given("c"))
    assert again.items(given("b")) == placed
    (tmp_path / "clips" / "in" / "a.flac").unlink()
    assert not again.is_done(given("a"))
    assert again.is_done(given("a"), lambda item: item.name == "in/a")


def test_the_order_of_work_leaves_no_trace(tmp_path):
    for folder, order in (("1", "abc"), ("2", "cab")):
        ledger = Ledger(tmp_path / folder, STAGE)
        with ledger.at_work():
            for name in order:
                put(ledger, given(name), name)
            ledger.finish()
    for name in names_in(tmp_path / "1"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_a_line_that_breaks_off_and_half_written_files_count_for_nothing(tmp_path):
    ledger = Ledger(tmp_path, STAGE)
    with ledger.at_work():
        put(ledger, given("a"), "a")
        put(ledger, given("b"), "b")
    journal = tmp_path / ".journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    (tmp_path / ".scratch" / "1").mkdir(parents=True)
    (tmp_path / ".scratch" / "1" / "c.flac").write_bytes(b"so")
    again = Ledger(tmp_path, STAGE)
    assert again.is_done(given("a"))
    assert not again.is_done(given("b"))
    with again.at_work():
        put(again, given("b"), "b")
        again.finish()
    assert names_in(tmp_path) == [".journal.jsonl", "a.flac", "b.flac", "manifest.jsonl"]


def test_another_setting_is_refused_by_its_name(tmp_path):
    with Ledger(tmp_path, STAGE).at_work():
        pass
    for settings, reason in ((ClipsSettings(seconds=6.0), r"seconds 5\.0, not 6\.0"), (LoudnessSettings(), "belongs")):
        with pytest.raises(UsageError, match=reason):
            Ledger(tmp_path, Stage.of(settings))
    assert Ledger(tmp_path, Stage.of(ClipsSettings(seconds=6.0)), replaces=True).is_begun
    with pytest.raises(UsageError, match="belongs"):
        Ledger(tmp_path, Stage.of(LoudnessSettings()), replaces=True)


def test_what_was_made_of_something_else_is_refused_or_made_again(tmp_path):
    ledger = Ledger(tmp_path, STAGE)
    with ledger.at_work():
        put(ledger, given("a"), "a-c001", "a-c002")
        put(ledger, given("b"), "b")
        with pytest.raises(InputError, match="something else"):
            ledger.is_done(given("a", sha="1"))
        ledger.finish()
    ledger = Ledger(tmp_path, STAGE, replaces=True)
    assert ledger.is_done(given("b"))
    (tmp_path / "b.flac").write_bytes(b"damaged")
    assert not ledger.is_done(given("b"))
    assert not ledger.is_done(given("a", sha="1"))
    with ledger.at_work():
        put(ledger, given("a", sha="1"), "a-c001", content=b"other")
        ledger.finish()
    assert (tmp_path / "a-c001.flac").read_bytes() == b"other"
    assert not (tmp_path / "a-c002.flac").exists()


def test_two_makers_of_one_name_are_told_apart(tmp_path):
    ledger = Ledger(tmp_path, STAGE)
    with ledger.at_work():
        put(ledger, given("a"), "x", content=b"first")
        with pytest.raises(InputError, match="'x'"):
            put(ledger, given("b"), "x", content=b"second")
    assert (tmp_path / "x.flac").read_bytes() == b"first"


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="no stage has made"):
        Ledger(tmp_path, STAGE)


def test_shares_of_the_work_lie_in_one_folder(tmp_path):
    for share, name in (("1-of-2", "a"), ("2-of-2", "b")):
        ledger = Ledger(tmp_path, STAGE, share)
        with ledger.at_work():
            put(ledger, given(name), name)
            ledger.finish()
    assert [path for path in names_in(tmp_path) if path.startswith("m")] == [f"manifest.{n}-of-2.jsonl" for n in (1, 2)]
    assert not Ledger(tmp_path, STAGE, "2-of-2").is_done(given("a"))


def test_what_is_gone_from_the_input_stays_unless_it_may_go(tmp_path):
    ledger = Ledger(tmp_path, STAGE)
    with ledger.at_work():
        put(ledger, given("a"), "a")
        put(ledger, given("b"), "b")
        assert ledger.forget_others(["a"]) == 1
        ledger.finish()
    assert [item.name for item in read_manifest(ledger.manifest)] == ["a", "b"]
    ledger = Ledger(tmp_path, STAGE, replaces=True)
    with ledger.at_work():
        assert ledger.forget_others(["a"]) == 1
        ledger.finish()
    assert [item.name for item in read_manifest(ledger.manifest)] == ["a"]
    assert not (tmp_path / "b.flac").exists()


def test_files_of_other_folders_are_never_removed(tmp_path):
    (tmp_path / "loud.flac").write_bytes(b"sound")
    ledger = Ledger(tmp_path / "windows", STAGE, replaces=True)
    with ledger.at_work():
        window = replace(given("a"), parts={"mix": Part(tmp_path / "loud.flac", "0" * 64)}, name="a-w001")
        ledger.add(given("a"), [window], ledger.scratch())
        ledger.discard([])
        ledger.forget_others([])
    assert (tmp_path / "loud.flac").exists()


def test_discarded_files_are_gone_and_still_written_down(tmp_path):
    ledger = Ledger(tmp_path, STAGE)
    with ledger.at_work():
        put(ledger, given("a"), "a")
        put(ledger, given("b"), "b")
        ledger.finish()
    ledger.discard([tmp_path / "b.flac"])
    assert not (tmp_path / "a.flac").exists()
    assert (tmp_path / "b.flac").exists()
    assert Ledger(tmp_path, STAGE).is_done(given("a"), lambda item: True)


def test_a_second_process_is_kept_off_and_a_dead_one_is_not_in_the_way(tmp_path):
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from pathlib import Path
from musictool.errors import InputError
from musictool.training.data.pipeline.ledger import Ledger
from musictool.training.data.pipeline.settings import ClipsSettings
from musictool.training.data.pipeline.stage import Stage
try:
    with Ledger(Path({str(tmp_path)!r}), Stage.of(ClipsSettings(seconds=5.0))).at_work():
        print("at work")
        if "die" in sys.argv:
            import os
            os.kill(os.getpid(), 9)
except InputError as error:
    print(error.code)
"""

    def other(*arguments: str) -> str:
        command = [sys.executable, "-u", "-c", code, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()

    with Ledger(tmp_path, STAGE).at_work():
        assert other() == "busy"
    assert other("die") == "at work"
    with Ledger(tmp_path, STAGE).at_work():
        pass


def test_a_damaged_journal_is_named_by_line(tmp_path):
    with Ledger(tmp_path, STAGE).at_work():
        pass
    with open(tmp_path / ".journal.jsonl", "ab") as file:
        file.write(b"{}\n")
    with pytest.raises(InputError, match="damaged") as caught:
        Ledger(tmp_path, STAGE)
    assert "line 2" in caught.value.context
