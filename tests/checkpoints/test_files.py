"""What is written appears whole or not at all, and replaces nothing that it should not."""

from __future__ import annotations

import hashlib
import os

import pytest

from musictool.checkpoints.files import refuse_existing, replacing, sha256_of
from musictool.errors import UsageError


def write(path, text="new", **options):
    with replacing(path, **options) as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text(text)


def test_a_folder_is_there_when_the_block_ends_and_not_before(tmp_path):
    with replacing(tmp_path / "a" / "x") as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text("new")
        assert not (tmp_path / "a" / "x").exists()
    assert (tmp_path / "a" / "x" / "model.safetensors").read_text() == "new"
    assert os.listdir(tmp_path / "a") == ["x"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_a_block_that_fails_leaves_no_trace_and_the_old_folder(tmp_path, error):
    write(tmp_path / "x", "old")
    with pytest.raises(error), replacing(tmp_path / "x", force=True) as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_text("new")
        raise error
    assert (tmp_path / "x" / "model.safetensors").read_text() == "old"
    assert os.listdir(tmp_path) == ["x"]


def test_what_exists_is_kept_unless_forced(tmp_path):
    write(tmp_path / "x", "old")
    with pytest.raises(UsageError, match="exists"):
        write(tmp_path / "x")
    write(tmp_path / "x", force=True)
    assert (tmp_path / "x" / "model.safetensors").read_text() == "new"
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_that_came_meanwhile_is_kept(tmp_path):
    with pytest.raises(UsageError, match="exists"), replacing(tmp_path / "x") as temporary:
        temporary.mkdir()
        write(tmp_path / "x", "other")
    assert (tmp_path / "x" / "model.safetensors").read_text() == "other"
    assert os.listdir(tmp_path) == ["x"]


def test_a_folder_with_other_things_in_it_is_never_replaced(tmp_path):
    write(tmp_path / "x", "old")
    (tmp_path / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="more than a model"):
        write(tmp_path / "x", force=True)
    with pytest.raises(UsageError, match="more than a model"):
        refuse_existing(tmp_path, force=True)
    assert (tmp_path / "x" / "thesis.tex").exists()


def test_a_link_is_written_through(tmp_path):
    write(tmp_path / "real", "old")
    (tmp_path / "x").symlink_to("real")
    write(tmp_path / "x", force=True)
    assert (tmp_path / "x").is_symlink()
    assert (tmp_path / "real" / "model.safetensors").read_text() == "new"


def test_an_error_of_the_disk_names_the_target(tmp_path):
    with pytest.raises(OSError) as caught, replacing(tmp_path / "x") as temporary:
        temporary.mkdir()
        (temporary / "no" / "such").write_text("x")
    assert caught.value.filename == str(tmp_path / "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as caught, replacing(tmp_path / "file" / "x"):
        pass
    assert caught.value.filename == str(tmp_path / "file" / "x")


def test_an_error_about_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "x"):
        (tmp_path / "source").read_text()
    assert caught.value.filename == str(tmp_path / "source")


def test_a_digest_is_that_of_the_bytes(tmp_path):
    data = os.urandom(3 << 20)
    (tmp_path / "x").write_bytes(data)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(data).hexdigest()
