"""Configuration: what fits is built, what does not is refused by its full name."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from musictool.config import apply_overrides, from_dict, load_toml
from musictool.errors import UsageError


class Clock(Enum):
    CONSTANT = "constant"
    COSINE = "cosine"


@dataclass(frozen=True)
class Layer:
    width: int = 8
    dropout: float = 0.1
    kind: Literal["plain", "gated"] = "plain"


@dataclass(frozen=True)
class Model:
    name: str
    layer: Layer = Layer(width=16)  # frozen
    head: Layer | None = None
    sizes: tuple[int, ...] = ()
    span: tuple[int, float] = (0, 1.0)
    voices: tuple[int | str, ...] = ()
    clock: Clock = Clock.CONSTANT
    folder: Path | None = None
    weights: dict[str, float] = field(default_factory=dict)
    is_causal: bool = True
    extra: Any = None
    doubled: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.name == "nobody":
            raise ValueError("nobody is no name")


def refusal(data: dict[str, Any], cls: type = Model) -> UsageError:
    with pytest.raises(UsageError) as caught:
        from_dict(cls, data, "model.toml")
    assert caught.value.context == "model.toml"
    assert "\n" not in caught.value.message
    return caught.value


def test_every_kind_of_field_is_built():
    built = from_dict(
        Model,
        {
            "name": "a",
            "layer": {"dropout": 1, "kind": "gated"},
            "head": {"width": 3},
            "sizes": [1, 2, 3],
            "span": [1, 2],
            "voices": [1, "piano"],
            "clock": "cosine",
            "folder": "x/y",
            "weights": {"a": 1, "b": 0.5},
            "is_causal": False,
            "extra": {"anything": [1]},
        },
    )
    assert built == Model(
        "a",
        Layer(16, 1.0, "gated"),
        Layer(3),
        (1, 2, 3),
        (1, 2.0),
        (1, "piano"),
        Clock.COSINE,
        Path("x/y"),
        {"a": 1.0, "b": 0.5},
        False,
        {"anything": [1]},
    )
    assert isinstance(built.layer.dropout, float)
    assert isinstance(built.span[1], float)


def test_what_is_not_named_keeps_its_default():
    assert from_dict(Model, {"name": "a"}) == Model("a")


def test_a_section_changes_only_what_it_names_of_the_fields_own_default():
    assert from_dict(Model, {"name": "a", "layer": {"dropout": 0.5}}).layer == Layer(width=16, dropout=0.5)
    assert from_dict(Model, {"name": "a", "head": {"dropout": 0.5}}).head == Layer(width=8, dropout=0.5)


def test_an_unknown_key_is_refused_by_its_dotted_name_with_the_nearest_one():
    error = refusal({"name": "a", "layer": {"widht": 3}})
    assert error.message == "unknown key 'layer.widht'"
    assert error.hint == "did you mean 'layer.width'?"
    assert "dropout" in refusal({"name": "a", "layer": {"zzz": 3}}).hint


def test_fields_that_are_not_set_by_hand_are_unknown():
    assert "'doubled'" in refusal({"name": "a", "doubled": 2}).message


def test_a_missing_key_is_named():
    assert refusal({}).message == "missing key 'name'"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"layer": {"width": "3"}}, "'layer.width' is '3', not a whole number"),
        ({"layer": {"width": 3.0}}, "'layer.width' is 3.0, not a whole number"),
        ({"layer": {"width": True}}, "'layer.width' is true, not a whole number"),
        ({"layer": {"dropout": True}}, "'layer.dropout' is true, not a number"),
        ({"layer": {"kind": "gatde"}}, "'layer.kind' is 'gatde', not 'plain' or 'gated'"),
        ({"layer": 3}, "'layer' is 3, not a section"),
        ({"head": {"width": []}}, "'head.width' is a list, not a whole number"),
        ({"head": "x"}, "'head' is 'x', not a section"),
        ({"is_causal": 1}, "'is_causal' is 1, not true or false"),
        ({"sizes": [1, "2"]}, "'sizes[1]' is '2', not a whole number"),
        ({"sizes": 1}, "'sizes' is 1, not a list"),
        ({"span": [1]}, "'span' has 1 entries, not 2"),
        ({"voices": [1.5]}, "'voices[0]' is 1.5, not a whole number or a text"),
        ({"clock": "sine"}, "'clock' is 'sine', not 'constant' or 'cosine'"),
        ({"weights": {"a": "b"}}, "'weights.a' is 'b', not a number"),
        ({"folder": 3}, "'folder' is 3, not a path"),
        ({"name": "nobody"}, "nobody is no name"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_one_line(data, message):
    assert refusal({"name": "a", **data}).message == message


def test_a_near_choice_is_hinted_at():
    assert refusal({"name": "a", "layer": {"kind": "gatde"}}).hint == "did you mean 'gated'?"


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("layer.width=3", 3),
        ("layer.width=-1.5", -1.5),
        ("layer.width = true", True),
        ("layer.width=[1, 2]", [1, 2]),
        ('layer.width="3"', "3"),
        ("layer.width=gated", "gated"),
        ("layer.width=miditok:FILE.json", "miditok:FILE.json"),
        ("layer.width=a=b", "a=b"),
        ("layer.width=", ""),
        ("layer.width=1\nother = 2", "1\nother = 2"),
    ],
)
def test_an_override_is_toml_or_a_text(override, value):
    assert apply_overrides({}, [override]) == {"layer": {"width": value}}


def test_the_last_override_wins_and_the_table_stays_as_it_is():
    table = {"layer": {"width": 1, "dropout": 2}}
    assert apply_overrides(table, ["layer.width=2", "layer.width=3"]) == {"layer": {"width": 3, "dropout": 2}}
    assert table == {"layer": {"width": 1, "dropout": 2}}


@pytest.mark.parametrize("override", ["layer", "=3", "a..b=3", "a b=3", ".=1"])
def test_what_is_no_override_is_refused(override):
    with pytest.raises(UsageError, match="no setting"):
        apply_overrides({}, [override])


def test_an_override_does_not_go_through_a_value():
    with pytest.raises(UsageError, match=r"'a.b' is a value"):
        apply_overrides({"a": {"b": 1}}, ["a.b.c=2"])


def test_a_file_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('[layer]\nwidth = 3\nname = "é"\n', encoding="utf-8")
    assert load_toml(path) == {"layer": {"width": 3, "name": "é"}}


@pytest.mark.parametrize("content", [b"a = ", b"\xff", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_wrong_usage(tmp_path, content):
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no valid TOML") as caught:
        load_toml(path)
    assert caught.value.context == str(path)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        load_toml(tmp_path / "a.toml")


def test_what_is_built_can_be_written_out_and_built_again():
    model = Model("a", Layer(3), head=Layer(4), sizes=(1,))
    data = {key: value for key, value in dataclasses.asdict(model).items() if value is not None and key != "doubled"}
    data["clock"] = model.clock.value
    assert from_dict(Model, data) == model


def test_it_imports_neither_numpy_nor_torch():
    code = "import sys, musictool.config; assert not {'numpy', 'torch'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
