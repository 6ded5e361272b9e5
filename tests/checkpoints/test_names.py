"""Names in both directions: every tensor of a model has one in each layout, and comes back by it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musictool.checkpoints.checkpoint import Checkpoint, stored_in_memory
from musictool.checkpoints.names import NameMap, NameRule, Parts, PartsRule
from musictool.checkpoints.t5x import open_t5x
from musictool.checkpoints.weight_norm import WEIGHT_NORM
from musictool.errors import InputError
from musictool.inference.model_files import expected_shapes
from musictool.models.registry import foreign_names, load_preset
from tests.checkpoints.tiny import in_layout, random_weights

SHARED = os.environ.get("MTK_TEST_SHARED")
MAP = NameMap(
    (
        NameRule("blocks.{i}.up.weight", "layers_{i}.kernel", True),
        NameRule("embedding.weight", "shared", copies=("copy", "head")),
    ),
    (r"positions\..*",),
)


def checkpoint(tensors: dict[str, torch.Tensor]) -> Checkpoint:
    return Checkpoint(Path("x"), "torch", stored_in_memory(tensors))


@pytest.mark.parametrize("layout", ["t5x", "huggingface"])
@pytest.mark.parametrize("preset", ["tiny", "tiny-relative"])
def test_weights_come_back_from_every_layout(presets, layout, preset):
    weights = random_weights(preset)
    theirs = in_layout(layout, weights, preset)
    assert theirs.keys().isdisjoint(weights)
    ours, copies = foreign_names(load_preset(preset))[layout].to_ours(checkpoint(theirs))
    assert set(ours.names) == set(weights)
    for name, tensor in weights.items():
        assert ours.shape(name) == tuple(tensor.shape)
        assert torch.equal(ours.tensor(name), tensor)
        assert all(torch.equal(copy.read(), tensor) for copy in copies.get(name, ()))
    assert len(theirs) == len(weights) + sum(map(len, copies.values()))


T5X = {
    "frame_projection": ("encoder.continuous_inputs_projection.kernel", "T"),
    "token_embedding": ("decoder.token_embedder.embedding", ""),
    "head": ("decoder.logits_dense.kernel", "T"),
    "encoder.blocks.7.self_norm": ("encoder.layers_7.pre_attention_layer_norm.scale", ""),
    "encoder.blocks.7.self_attention.query": ("encoder.layers_7.attention.query.kernel", "T"),
    "encoder.blocks.7.self_attention.output": ("encoder.layers_7.attention.out.kernel", "T"),
    "encoder.blocks.7.feed_norm": ("encoder.layers_7.pre_mlp_layer_norm.scale", ""),
    "encoder.blocks.7.feed_forward.gate": ("encoder.layers_7.mlp.wi_0.kernel", "T"),
    "encoder.blocks.7.feed_forward.up": ("encoder.layers_7.mlp.wi_1.kernel", "T"),
    "encoder.blocks.7.feed_forward.down": ("encoder.layers_7.mlp.wo.kernel", "T"),
    "encoder.final_norm": ("encoder.encoder_norm.scale", ""),
    "decoder.blocks.0.self_norm": ("decoder.layers_0.pre_self_attention_layer_norm.scale", ""),
    "decoder.blocks.0.self_attention.key": ("decoder.layers_0.self_attention.key.kernel", "T"),
    "decoder.blocks.0.cross_norm": ("decoder.layers_0.pre_cross_attention_layer_norm.scale", ""),
    "decoder.blocks.0.cross_attention.value": ("decoder.layers_0.encoder_decoder_attention.value.kernel", "T"),
    "decoder.blocks.0.feed_forward.gate": ("decoder.layers_0.mlp.wi_0.kernel", "T"),
    "decoder.final_norm": ("decoder.decoder_norm.scale", ""),
}
T5X_RELATIVE = {
    "encoder.position_bias": ("encoder.relpos_bias.rel_embedding", "T"),
    "decoder.position_bias": ("decoder.relpos_bias.rel_embedding", "T"),
}
HUGGING_FACE = {
    "frame_projection": "proj",
    "token_embedding": "shared",
    "head": "lm_head",
    "encoder.blocks.7.self_norm": "encoder.block.7.layer.0.layer_norm",
    "encoder.blocks.7.self_attention.query": "encoder.block.7.layer.0.SelfAttention.q",
    "encoder.blocks.7.self_attention.output": "encoder.block.7.layer.0.SelfAttention.o",
    "encoder.blocks.7.feed_norm": "encoder.block.7.layer.1.layer_norm",
    "encoder.blocks.7.feed_forward.gate": "encoder.block.7.layer.1.DenseReluDense.wi_0",
    "encoder.blocks.7.feed_forward.up": "encoder.block.7.layer.1.DenseReluDense.wi_1",
    "encoder.blocks.7.feed_forward.down": "encoder.block.7.layer.1.DenseReluDense.wo",
    "encoder.final_norm": "encoder.final_layer_norm",
    "decoder.blocks.0.self_attention.key": "decoder.block.0.layer.0.SelfAttention.k",
    "decoder.blocks.0.cross_norm": "decoder.block.0.layer.1.layer_norm",
    "decoder.blocks.0.cross_attention.value": "decoder.block.0.layer.1.EncDecAttention.v",
    "decoder.blocks.0.feed_norm": "decoder.block.0.layer.2.layer_norm",
    "decoder.blocks.0.feed_forward.gate": "decoder.block.0.layer.2.DenseReluDense.wi_0",
    "decoder.final_norm": "decoder.final_layer_norm",
}


@pytest.mark.parametrize(("preset", "table"), [("mt3", T5X), ("mt3-relative", T5X_RELATIVE)])
def test_t5x_has_these_names(preset, table):
    names = foreign_names(load_preset(preset))["t5x"]
    for ours, (theirs, turned) in table.items():
        found, rule = names.theirs(f"{ours}.weight")
        assert (found, rule.transposed) == ((f"target.{theirs}",), turned == "T")


def test_hugging_face_has_these_names_and_no_turned_tensor():
    names = foreign_names(load_preset("mt3"))["huggingface"]
    for ours, theirs in HUGGING_FACE.items():
        found, rule = names.theirs(f"{ours}.weight")
        assert (found[0], rule.transposed) == (f"{theirs}.weight", False)
    relative = foreign_names(load_preset("mt3-relative"))["huggingface"]
    for side in ("encoder", "decoder"):
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        assert relative.theirs(f"{side}.position_bias.weight")[0] == (bias,)
    assert "lm_head.weight" in relative.theirs("token_embedding.weight")[0]
    assert relative.theirs("head.weight") is None


def test_a_number_in_a_name_is_kept_and_nothing_else_fits():
    assert MAP.ours("layers_12.kernel")[0] == "blocks.12.up.weight"
    assert MAP.theirs("blocks.0.up.weight")[0] == ("layers_0.kernel",)
    for name in ("layers_01.kernel", "layers_.kernel", "layers_x.kernel", "layers_1.kernel.x", "x.layers_1.kernel"):
        assert MAP.ours(name) is None
    assert MAP.ours("layers_1xkernel") is None


def test_their_rows_are_our_columns_only_where_a_rule_says_so():
    theirs = {"layers_0.kernel": torch.arange(6.0).reshape(2, 3), "shared": torch.arange(6.0).reshape(2, 3)}
    ours, _ = MAP.to_ours(checkpoint(theirs))
    assert torch.equal(ours.tensor("blocks.0.up.weight"), theirs["layers_0.kernel"].T)
    assert torch.equal(ours.tensor("embedding.weight"), theirs["shared"])


@pytest.mark.parametrize("name", ["shared", "copy", "head"])
def test_any_copy_of_a_tied_weight_will_do(name):
    ours, copies = MAP.to_ours(checkpoint({name: torch.ones(2)}))
    assert (ours.names, copies) == (["embedding.weight"], {})
    assert ours.tensors["embedding.weight"].name == name


def test_every_copy_of_a_tied_weight_is_written_in_memory_of_its_own():
    theirs = MAP.to_theirs({"embedding.weight": torch.ones(2)})
    assert set(theirs) == {"shared", "copy", "head"}
    assert len({tensor.data_ptr() for tensor in theirs.values()}) == 3


def test_what_holds_nothing_is_ignored_and_what_is_not_known_is_kept():
    ours, _ = MAP.to_ours(checkpoint({"positions.table": torch.ones(2), "other": torch.ones(2)}))
    assert ours.names == ["other"]


def test_a_name_without_a_rule_cannot_be_written():
    with pytest.raises(KeyError, match="nowhere"):
        MAP.to_theirs({"nowhere": torch.ones(2)})


def test_names_of_ports_of_the_checkpoint_are_known(presets):
    weights = random_weights("tiny")
    theirs = in_layout("huggingface", weights, "tiny")
    port = {name: tensor for name, tensor in theirs.items() if name != "shared.weight"}
    port["encoder.embed_tokens.weight"] = port["proj.weight"].clone()
    port["pos_emb.inv_freq"] = port["encoder.pos_emb.emb"] = port["position"] = torch.ones(4)
    ours, copies = foreign_names(load_preset("tiny"))["huggingface"].to_ours(checkpoint(port))
    assert set(ours.names) == set(weights)
    assert [copy.name for copy in copies["token_embedding.weight"]] == ["decoder_embed_tokens.weight"]


@pytest.mark.skipif(not SHARED, reason="MTK_TEST_SHARED is not set")
def test_the_published_checkpoint_has_just_these_names_and_shapes():
    config = load_preset("mt3")
    ours, copies = foreign_names(config)["t5x"].to_ours(open_t5x(Path(SHARED or "") / "models" / "mt3-t5x"))
    assert {name: ours.shape(name) for name in ours.names} == expected_shapes(config)
    assert not copies


# --------------------------------------------------------------------------------------------- tensors in several parts

HALVES = Parts(
    lambda shapes: (shapes[0][0] + shapes[1][0],),
    torch.cat,
    lambda whole: (whole[:1], whole[1:], whole.new_zeros(3)),
)
PARTS = NameMap(
    (
        PartsRule(
            "{i}.whole", ("{i}.one", "{i}.two"), HALVES, others=(("{i}.first", "{i}.second"),), beside=("{i}.x",)
        ),
        NameRule("{i}.whole", "{i}.undivided"),
    ),
    (r"\d+\.x",),
)


def test_parts_are_joined_when_they_are_read_and_written_with_what_stands_beside_them():
    whole = torch.arange(4.0)
    theirs = PARTS.to_theirs({"7.whole": whole})
    assert {name: tensor.tolist() for name, tensor in theirs.items()} == {
        "7.one": [0],
        "7.two": [1, 2, 3],
        "7.x": [0, 0, 0],
    }
    ours, copies = PARTS.to_ours(checkpoint(theirs))
    assert (ours.names, copies) == (["7.whole"], {})
    assert (ours.shape("7.whole"), ours.tensors["7.whole"].dtype) == ((4,), "float32")
    assert torch.equal(ours.tensor("7.whole"), whole)


@pytest.mark.parametrize("names", [("one", "two"), ("first", "second"), ("second", "first")])
def test_any_version_of_the_names_of_parts_will_do(names):
    ours, _ = PARTS.to_ours(checkpoint({f"0.{name}": torch.ones(2) for name in names}))
    assert torch.equal(ours.tensor("0.whole"), torch.ones(4))


def test_what_the_other_side_has_undivided_is_read_as_it_is():
    ours, _ = PARTS.to_ours(checkpoint({"0.undivided": torch.ones(2)}))
    assert torch.equal(ours.tensor("0.whole"), torch.ones(2))


@pytest.mark.parametrize("parts", [{"one": 1}, {"second": 1}, {"one": 1, "second": 1}])
def test_a_missing_part_is_named(parts):
    ours, _ = PARTS.to_ours(checkpoint({f"0.{name}": torch.ones(size) for name, size in parts.items()}))
    assert not ours.names
    assert "is missing" in str(ours.unreadable["0.whole"])


def test_why_a_part_cannot_be_read_is_why_the_whole_cannot():
    why = InputError("its file is gone")
    told = replace(checkpoint({"0.two": torch.ones(2)}), unreadable={"0.one": why})
    ours, _ = PARTS.to_ours(told)
    assert (ours.names, dict(ours.unreadable)) == ([], {"0.whole": why})


def test_parts_that_are_no_numbers_of_the_right_kind_say_so():
    halves = {"0.one": torch.ones(1, dtype=torch.bfloat16), "0.two": torch.ones(1, dtype=torch.int64)}
    ours, _ = PARTS.to_ours(checkpoint(halves))
    assert ours.tensors["0.whole"].dtype == "int64"


# ---------------------------------------------------------------------------------------------------------- weight norm


@pytest.mark.parametrize("shape", [(4, 3), (6, 1, 7), (16, 8, 16)])
def test_a_weight_in_weight_norm_is_joined_to_the_bit_as_torch_does_it(shape):
    torch.manual_seed(0)
    layer = torch.nn.Conv1d(shape[1], shape[0], shape[2]) if len(shape) == 3 else torch.nn.Linear(shape[1], shape[0])
    layer = torch.nn.utils.parametrizations.weight_norm(layer)
    torch.nn.init.normal_(layer.parametrizations.weight.original0)
    gain, direction = (tensor.detach() for tensor in layer.parametrizations.weight.parameters())
    assert WEIGHT_NORM.shape([gain.shape, direction.shape]) == shape
    assert torch.equal(WEIGHT_NORM.join([gain, direction]), layer.weight)


def test_weight_norm_comes_back_and_a_row_of_zeros_with_it():
    weight = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    gain, direction = WEIGHT_NORM.split(weight)
    assert gain.shape == (5, 1, 1)
    torch.testing.assert_close(WEIGHT_NORM.join([gain, direction]), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gain", [(), (3,), (1, 1, 1), (3, 1), (3, 2, 1), (1 << 40, 1, 1)])
def test_a_gain_that_goes_with_another_weight_is_refused(gain):
    with pytest.raises(ValueError, match="no gain"):
        WEIGHT_NORM.shape([gain, (3, 4, 5)])
