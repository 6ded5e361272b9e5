"""Our own folders: what is written is read, and what is not ours is refused by name."""

from __future__ import annotations

import json

import pytest
import torch

from musictool.checkpoints.native import ModelFacts, is_native, open_native, read_card, read_facts, write_native
from musictool.errors import InputError

FACTS = ModelFacts("mt3", "tiny", {"width": 8, "inner": {"x": [1, 2]}}, source={"format": "t5x"})


def written(folder, facts=FACTS):
    folder.mkdir()
    return write_native(folder, {"a": torch.arange(6.0).reshape(2, 3)}, facts, "# tiny\n")


def test_what_is_written_is_read(tmp_path):
    facts = written(tmp_path / "x")
    assert read_facts(tmp_path / "x") == facts
    assert (facts.family, facts.preset, facts.config, facts.source) == ("mt3", "tiny", FACTS.config, FACTS.source)
    assert torch.equal(open_native(tmp_path / "x").tensor("a"), torch.arange(6.0).reshape(2, 3))
    assert read_card(tmp_path / "x") == "# tiny\n"


def test_the_same_model_makes_the_same_bytes(tmp_path):
    written(tmp_path / "x")
    written(tmp_path / "y")
    for name in ("model.safetensors", "config.json", "card.md"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()


def test_weights_can_be_read_by_whoever_can_read_the_rest(tmp_path):
    written(tmp_path / "x")
    weights, facts = (tmp_path / "x" / name for name in ("model.safetensors", "config.json"))
    assert weights.stat().st_mode == facts.stat().st_mode


def test_a_later_format_asks_for_a_later_version(tmp_path):
    written(tmp_path / "x")
    data = json.loads((tmp_path / "x" / "config.json").read_text())
    (tmp_path / "x" / "config.json").write_text(json.dumps(data | {"format": 2}))
    with pytest.raises(InputError, match="format 2") as caught:
        read_facts(tmp_path / "x")
    assert "newer" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, '{"model_type": "t5"}', '{"format": true}', '{"format": 1}',
     '{"format": 1, "family": "mt3", "preset": "x", "config": [], "weights_sha256": "", "source": {}}',
     '{"format": 1, "family": 3, "preset": "x", "config": {}, "weights_sha256": "", "source": {}}'],
)  # fmt: skip
def test_a_config_that_is_not_ours_is_an_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_facts(tmp_path)
    assert caught.value.context == str(tmp_path / "config.json")
    assert not is_native(tmp_path)


def test_a_model_without_a_card_has_an_empty_one(tmp_path):
    assert read_card(tmp_path) == ""
