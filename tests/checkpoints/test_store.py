"""Where a name leads, and where it does not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.published import PUBLISHED, find_published
from musictool.checkpoints.store import Store
from musictool.errors import InputError, MissingError, UsageError
from musictool.models.registry import PRESETS


def put(folder: Path, name: str = "x") -> Path:
    (folder / name).mkdir(parents=True)
    write_native(folder / name, {"a": torch.ones(2)}, ModelFacts("mt3", "tiny", {}), "")
    return folder / name


@pytest.fixture
def places(tmp_path: Path) -> Store:
    return Store(tmp_path / "home", (tmp_path / "first", tmp_path / "second"), tmp_path / "package")


def test_a_name_is_looked_up_in_order(places, tmp_path):
    for folder, place in (
        (places.packaged, "package"),
        (places.models, "store"),
        (tmp_path / "second", "model path"),
        (tmp_path / "first", "model path"),
    ):
        path = put(folder)
        assert places.find("x").path == path
        assert places.find("x").place == place


def test_a_path_comes_before_any_name(places, tmp_path, monkeypatch):
    put(places.models)
    here = put(tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for text in ("x", "./x", str(here)):
        found = places.find(text)
        assert (found.name, found.place) == ("x", "path")
        assert found.path.resolve() == here


def test_a_folder_of_another_kind_does_not_hide_a_name(places, tmp_path, monkeypatch):
    path = put(places.models)
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    assert places.find("x").path == path


def test_all_models_are_listed_once_where_they_are_found(places, tmp_path):
    put(places.packaged, "b")
    put(places.models, "b")
    put(places.models, "c")
    put(tmp_path / "second", "a")
    (places.models / "empty").mkdir()
    (places.models / ".mtk-1.part").mkdir()
    assert [(model.name, model.place) for model in places.installed()] == [
        ("a", "model path"),
        ("b", "store"),
        ("c", "store"),
    ]


@pytest.mark.parametrize(
    ("name", "hint"), [("mt3", "mtk models pull mt3"), ("other", "mtk models import PATH --as other")]
)
def test_a_model_that_is_not_here_comes_with_the_command_that_brings_it(places, name, hint):
    with pytest.raises(MissingError) as caught:
        places.find(name)
    assert caught.value.exit_status == 4
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["", "a b", "-x", "_", "é", "x" * 65, "a\n", "a\0b"])
def test_what_is_no_name_is_refused(places, name):
    with pytest.raises(UsageError, match="no name"):
        places.find(name)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "/a", "a.b", "../x", "", "a\\b", "x" * 65])
def test_no_name_leads_out_of_the_store(places, name):
    for place in (places.folder_for, places.downloads_for):
        with pytest.raises(UsageError, match="no name"):
            place(name)


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_a_path_without_a_model_is_an_error(places, tmp_path, make):
    make(tmp_path / "y")
    with pytest.raises(InputError) as caught:
        places.find(str(tmp_path / "y"))
    assert caught.value.context == str(tmp_path / "y")


def test_environment_variables_name_the_places(tmp_path, monkeypatch):
    variables = {"MTK_HOME": str(tmp_path / "h"), "MTK_MODEL_PATH": os.pathsep.join(["/a", "", "/b"])}
    store = Store.from_environ(variables)
    assert (store.models, store.searched) == (tmp_path / "h" / "models", (Path("/a"), Path("/b")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.platform", "linux")
    assert Store.from_environ({}).models.name == "models"
    assert Store.from_environ({}).home.name == "musictool"


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_a_whole_folder_of_safe_paths(name):
    published = find_published(name)
    assert published.preset in PRESETS
    assert published.url.startswith("https://")
    assert published.url.endswith("/")
    assert len(published.files) == len({file.path for file in published.files})
    for file in published.files:
        assert re.fullmatch("[0-9a-f]{0,64}", file.sha256)
        assert not {"", ".", ".."} & set(file.path.split("/"))


def test_only_of_files_that_are_not_pinned_is_not_all_known():
    unknown = [name for name in PUBLISHED if not all(file.is_known for file in find_published(name).files)]
    assert unknown == ["encodec-32khz", "musicgen-small"]
    assert all("/main/" in find_published(name).url for name in unknown)
    assert len(find_published("mt3").files) == 295


def test_what_nobody_has_published_is_a_usage_error():
    with pytest.raises(UsageError, match="no published model"):
        find_published("mt4")


@pytest.mark.skipif(not os.environ.get("MTK_TEST_SHARED"), reason="MTK_TEST_SHARED is not set")
def test_the_published_digests_are_those_of_the_checkpoint():
    import hashlib

    folder = Path(os.environ["MTK_TEST_SHARED"]) / "models" / "mt3-t5x"
    published = find_published("mt3")
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {file.path for file in published.files}
    for file in published.files:
        data = (folder / file.path).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)
