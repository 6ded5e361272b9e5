"""What MT3's tensors are called elsewhere: in T5X checkpoints, and in PyTorch ports that stand on T5.

The ports keep Hugging Face's names for T5's blocks and add `proj` for the frames; those made from the published
checkpoint call the token embedding `decoder_embed_tokens`, and some of them hold tables of positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musictool.checkpoints.names import NameMap, NameRule

if TYPE_CHECKING:
    from musictool.models.mt3 import MT3Config

PARTS = {"encoder": ("frame_projection", "encoder"), "decoder": ("token_embedding", "decoder", "head")}
"""The two halves of the model, and the modules that each is counted with."""

_ATTENTION = {"query": ("query", "q"), "key": ("key", "k"), "value": ("value", "v"), "output": ("out", "o")}
_FEED_FORWARD = {"gate": "wi_0", "up": "wi_1", "down": "wo"}


def foreign_names(config: MT3Config) -> dict[str, NameMap]:
    """The names by layout: `t5x` and `huggingface`."""
    return {"t5x": NameMap(tuple(_t5x_rules(config))), "huggingface": _huggingface_map(config)}


def _t5x_rules(config: MT3Config) -> list[NameRule]:
    rules = [
        NameRule("frame_projection.weight", "target.encoder.continuous_inputs_projection.kernel", True),
        NameRule("token_embedding.weight", "target.decoder.token_embedder.embedding"),
    ]
    if not config.ties_output:
        rules.append(NameRule("head.weight", "target.decoder.logits_dense.kernel", True))
    for side, norm, attention in (("encoder", "", "attention"), ("decoder", "self_", "self_attention")):
        theirs, ours = f"target.{side}.layers_{{i}}", f"{side}.blocks.{{i}}"
        rules.append(NameRule(f"{ours}.self_norm.weight", f"{theirs}.pre_{norm}attention_layer_norm.scale"))
        rules += _t5x_attention(f"{ours}.self_attention", f"{theirs}.{attention}")
        if side == "decoder":
            rules.append(NameRule(f"{ours}.cross_norm.weight", f"{theirs}.pre_cross_attention_layer_norm.scale"))
            rules += _t5x_attention(f"{ours}.cross_attention", f"{theirs}.encoder_decoder_attention")
        rules.append(NameRule(f"{ours}.feed_norm.weight", f"{theirs}.pre_mlp_layer_norm.scale"))
        for part, name in _FEED_FORWARD.items():
            rules.append(NameRule(f"{ours}.feed_forward.{part}.weight", f"{theirs}.mlp.{name}.kernel", True))
        rules.append(NameRule(f"{side}.final_norm.weight", f"target.{side}.{side}_norm.scale"))
        if config.positions == "relative":
            bias = f"target.{side}.relpos_bias.rel_embedding"  # [heads, buckets]
            rules.append(NameRule(f"{side}.position_bias.weight", bias, True))
    return rules


def _t5x_attention(ours: str, theirs: str) -> list[NameRule]:
    return [NameRule(f"{ours}.{p}.weight", f"{theirs}.{name}.kernel", True) for p, (name, _) in _ATTENTION.items()]


def _huggingface_map(config: MT3Config) -> NameMap:
    ignored = [r"(encoder\.|decoder\.)?(pos_emb|position)(\..*)?"]
    copies = ["decoder.embed_tokens.weight", "decoder_embed_tokens.weight"]
    if config.ties_output:
        copies += ["encoder.embed_tokens.weight", "lm_head.weight"]
    else:
        ignored.append(r"encoder\.embed_tokens\.weight")  # a copy of whichever embedding the port gave the encoder
    rules = [
        NameRule("frame_projection.weight", "proj.weight"),
        NameRule("token_embedding.weight", "shared.weight", copies=tuple(copies)),
    ]
    if not config.ties_output:
        rules.append(NameRule("head.weight", "lm_head.weight"))
    for side in ("encoder", "decoder"):
        rules += _huggingface_blocks(side, f"{side}.blocks.{{i}}", f"{side}.block.{{i}}.layer")
        rules.append(NameRule(f"{side}.final_norm.weight", f"{side}.final_layer_norm.weight"))
        if config.positions == "relative":
            bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            rules.append(NameRule(f"{side}.position_bias.weight", bias))
    return NameMap(tuple(rules), tuple(ignored), huggingface_config(config))


def _huggingface_blocks(side: str, ours: str, theirs: str) -> list[NameRule]:
    """The parts of a block, which T5 numbers: attention to itself, in the decoder attention across, feed-forward."""
    parts = [("self_norm", "self_attention", "SelfAttention")]
    if side == "decoder":
        parts.append(("cross_norm", "cross_attention", "EncDecAttention"))
    rules = []
    for number, (norm, attention, name) in enumerate(parts):
        rules.append(NameRule(f"{ours}.{norm}.weight", f"{theirs}.{number}.layer_norm.weight"))
        for part, (_, letter) in _ATTENTION.items():
            rules.append(NameRule(f"{ours}.{attention}.{part}.weight", f"{theirs}.{number}.{name}.{letter}.weight"))
    last = f"{theirs}.{len(parts)}"
    rules.append(NameRule(f"{ours}.feed_norm.weight", f"{last}.layer_norm.weight"))
    for part, name in _FEED_FORWARD.items():
        rules.append(NameRule(f"{ours}.feed_forward.{part}.weight", f"{last}.DenseReluDense.{name}.weight"))
    return rules


def huggingface_config(config: MT3Config) -> dict[str, Any]:
    """The `config.json` that goes with Hugging Face's names: T5's own keys."""
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "d_model": config.width,
        "d_kv": config.head_width,
        "d_ff": config.hidden,
        "num_heads": config.heads,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "vocab_size": config.vocabulary,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance_max,
        "tie_word_embeddings": config.ties_output,
        "dropout_rate": config.dropout,
        "pad_token_id": config.start_id,
        "decoder_start_token_id": config.start_id,
        "eos_token_id": config.end_id,
    }
