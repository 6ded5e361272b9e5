"""The choice of a transcriber."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from typing import ClassVar

import pytest
import torch

from musictool.checkpoints.native import ModelFacts, write_native
from musictool.checkpoints.store import Store
from musictool.errors import InputError, MissingError, ResourceError, UsageError
from musictool.inference.mt3_transcription import MT3Transcriber
from musictool.inference.note_tagging import NoteTaggingTranscriber
from musictool.inference.transcription import Transcription, open_transcriber
from musictool.models.registry import FAMILIES, Family
from tests.small_models import install_small_mt3, install_small_note_tagger


@dataclass(frozen=True)
class DeafConfig:
    family: ClassVar[str] = "deaf"

    width: int = 2


class Deaf(torch.nn.Linear):
    """A model that makes something else than notes of something else than sound."""

    def __init__(self, config: DeafConfig) -> None:
        super().__init__(config.width, config.width)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    home = tmp_path_factory.mktemp("home")
    install_small_mt3(home)
    install_small_note_tagger(home)
    return Store(home)


@pytest.mark.parametrize(("model", "kind"), [("mt3", MT3Transcriber), ("note-tagger", NoteTaggingTranscriber)])
def test_each_family_has_its_transcriber(store, model, kind):
    transcriber = open_transcriber(Transcription(model), store)
    assert type(transcriber) is kind
    assert transcriber.model_name == model


def test_a_model_of_another_name_is_known_by_its_family(store, tmp_path):
    shutil.copytree(store.models / "note-tagger", tmp_path / "mine")
    transcriber = open_transcriber(Transcription(str(tmp_path / "mine")), store)
    assert type(transcriber) is NoteTaggingTranscriber
    assert transcriber.model_name == "mine"


def test_the_note_tagger_is_the_default(store):
    assert type(open_transcriber(Transcription(), store)) is NoteTaggingTranscriber


def test_a_model_that_does_not_transcribe_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "deaf", Family(__name__, "DeafConfig", "Deaf"))
    config = DeafConfig()
    folder = tmp_path / "models" / "deaf"
    folder.mkdir(parents=True)
    write_native(folder, Deaf(config).state_dict(), ModelFacts("deaf", "deaf", asdict(config)), "Deaf.\n")
    with pytest.raises(UsageError, match="deaf is no model that transcribes") as caught:
        open_transcriber(Transcription("deaf"), Store(tmp_path))
    assert "note-tagger" in caught.value.hint


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (Transcription("kazoo"), MissingError),
        (Transcription("./kazoo"), InputError),
        (Transcription("mt3", device="cuda:99"), ResourceError),
        (Transcription("note-tagger", device="cuda:99"), ResourceError),
        (Transcription("note-tagger", is_steady=True), UsageError),
        (Transcription("note-tagger", programs=frozenset({0, 40})), UsageError),
    ],
)
def test_what_is_not_there_or_cannot_be_done_is_one_line(store, options, kind):
    with pytest.raises(kind) as caught:
        open_transcriber(options, store)
    assert "\n" not in caught.value.message
