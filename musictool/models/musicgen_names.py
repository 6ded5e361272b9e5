"""What MusicGen's tensors are called in Hugging Face's folders, with a melody or without.

Such a folder holds three models. Text encoder and decoder are one here; the codec beside them is a model of its own,
and `audio_encoder` takes it out of the folder for whoever reads codecs. That library keeps a table and a head for each
codebook; here all tables are one tensor, and all heads another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.checkpoint import Checkpoint
from musictool.checkpoints.names import NameMap, NameRule, Parts, PartsRule, Shape
from musictool.errors import InputError, UsageError
from musictool.models import codec_names
from musictool.models.registry import PRESETS, load_preset

if TYPE_CHECKING:
    from torch import Tensor

    from musictool.models.musicgen import MusicGenConfig
    from musictool.models.musicgen_parts import TextEncoderConfig

PARTS = {
    "text_encoder": ("text_encoder", "text_projection"),
    "decoder": ("chroma_projection", "embedding", "decoder", "heads"),
}
"""The two halves of the model, and the modules that each is counted with."""

_CODEC = "audio_encoder."
_TEXT = "text_encoder.encoder"
_DECODER = "decoder.model.decoder"
_PROJECTIONS = {"text_projection": "enc_to_dec_proj", "chroma_projection": "audio_enc_to_dec_proj"}
_NORMS = {"self_norm": "self_attn_layer_norm", "cross_norm": "encoder_attn_layer_norm", "feed_norm": "final_layer_norm"}
_ATTENTIONS = {"self_attention": "self_attn", "cross_attention": "encoder_attn"}
_LETTERS = {"query": "q", "key": "k", "value": "v", "output": "o"}
_FEED_FORWARD = {"up": "fc1", "down": "fc2"}


# --------------------------------------------------------------------------------------------------------------- names


def foreign_names(config: MusicGenConfig) -> dict[str, NameMap]:
    """The names by layout: `huggingface`."""
    rules = (*_text_rules(config.text), *_projection_rules(), *_decoder_rules(config))
    ignored = (r"audio_encoder\..*", r"decoder\.model\.decoder\.embed_positions\..*")
    return {"huggingface": NameMap(rules, ignored, huggingface_config(config))}


def _text_rules(config: TextEncoderConfig) -> Iterator[NameRule]:
    ours, theirs = "text_encoder.stack.blocks.{i}", f"{_TEXT}.block.{{i}}.layer"
    copy = f"{_TEXT}.embed_tokens.weight"
    yield NameRule("text_encoder.embedding.weight", "text_encoder.shared.weight", copies=(copy,))
    yield NameRule(f"{ours}.self_norm.weight", f"{theirs}.0.layer_norm.weight")
    for part, letter in _LETTERS.items():
        yield NameRule(f"{ours}.self_attention.{part}.weight", f"{theirs}.0.SelfAttention.{letter}.weight")
    yield NameRule(f"{ours}.feed_norm.weight", f"{theirs}.1.layer_norm.weight")
    ways = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if config.is_gated else {"up": "wi", "down": "wo"}
    for part, name in ways.items():
        yield NameRule(f"{ours}.feed_forward.{part}.weight", f"{theirs}.1.DenseReluDense.{name}.weight")
    bias = f"{_TEXT}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield NameRule("text_encoder.stack.position_bias.weight", bias)
    yield NameRule("text_encoder.stack.final_norm.weight", f"{_TEXT}.final_layer_norm.weight")


def _projection_rules() -> Iterator[NameRule]:
    for ours, theirs in _PROJECTIONS.items():
        for name in ("weight", "bias"):
            yield NameRule(f"{ours}.{name}", f"{theirs}.{name}")


def _decoder_rules(config: MusicGenConfig) -> Iterator[NameRule | PartsRule]:
    ours, theirs = "decoder.blocks.{i}", f"{_DECODER}.layers.{{i}}"
    for name in ("weight", "bias"):
        for norm, their_norm in _NORMS.items():
            yield NameRule(f"{ours}.{norm}.{name}", f"{theirs}.{their_norm}.{name}")
        yield NameRule(f"decoder.final_norm.{name}", f"{_DECODER}.layer_norm.{name}")
    for attention, their_attention in _ATTENTIONS.items():
        for part, letter in _LETTERS.items():
            projection = "out_proj" if part == "output" else f"{letter}_proj"
            yield NameRule(f"{ours}.{attention}.{part}.weight", f"{theirs}.{their_attention}.{projection}.weight")
    for part, name in _FEED_FORWARD.items():
        yield NameRule(f"{ours}.feed_forward.{part}.weight", f"{theirs}.{name}.weight")
    numbers = range(config.codebooks)
    rows = _rows(config.codebooks)
    yield PartsRule("embedding.table.weight", tuple(f"{_DECODER}.embed_tokens.{n}.weight" for n in numbers), rows)
    yield PartsRule("heads.linear.weight", tuple(f"decoder.lm_heads.{n}.weight" for n in numbers), rows)


def _rows(count: int) -> Parts:
    """A tensor that is stored as `count` of equal size, one below the other."""

    def shape(parts: Sequence[Shape]) -> Shape:
        if len(set(parts)) != 1 or not parts[0]:
            raise ValueError("codebooks differ in size")
        return (count * parts[0][0], *parts[0][1:])

    def join(parts: Sequence[Tensor]) -> Tensor:
        import torch

        return torch.cat(list(parts))

    return Parts(shape, join, lambda whole: whole.chunk(count))


def audio_encoder(checkpoint: Checkpoint) -> Checkpoint:
    """The codec in a folder of Hugging Face's that holds a MusicGen, as if it were alone in it."""

    def bare(table: Mapping[str, Any]) -> dict[str, Any]:
        return {name.removeprefix(_CODEC): value for name, value in table.items() if name.startswith(_CODEC)}

    return replace(
        checkpoint,
        tensors=bare(checkpoint.tensors),
        unreadable=bare(checkpoint.unreadable),
        config=checkpoint.config.get("audio_encoder") or {},
    )


# ------------------------------------------------------------------------------------------------------- configuration

_MODEL_TYPES = {False: "musicgen", True: "musicgen_melody"}
_CLASSES = {False: "MusicgenForConditionalGeneration", True: "MusicgenMelodyForConditionalGeneration"}
_DECODER_KEYS = {
    "hidden_size": "width",
    "num_attention_heads": "heads",
    "ffn_dim": "hidden",
    "num_hidden_layers": "layers",
    "num_codebooks": "codebooks",
    "vocab_size": "codebook_size",
    "audio_channels": "channels",
    "dropout": "dropout",
}
_MELODY_KEYS = {"num_chroma": "chroma_bins", "chroma_length": "chroma_frames"}
_TEXT_KEYS = {
    "vocab_size": "vocabulary",
    "d_model": "width",
    "num_heads": "heads",
    "d_kv": "head_width",
    "d_ff": "hidden",
    "num_layers": "layers",
    "relative_attention_num_buckets": "relative_buckets",
    "relative_attention_max_distance": "relative_distance_max",
    "layer_norm_epsilon": "norm_epsilon",
}
_TEXT_DEFAULTS = {"vocab_size": 32_128, "d_model": 512, "num_heads": 8, "d_kv": 64, "d_ff": 2048, "num_layers": 6}
_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
_TEXT_ACTIVATIONS = {"relu": ("relu", False), "gated-gelu": ("gelu_tanh", True)}


def huggingface_config(config: MusicGenConfig) -> dict[str, Any]:
    """The `config.json` that goes with Hugging Face's names."""
    decoder = {theirs: getattr(config, ours) for theirs, ours in _DECODER_KEYS.items()}
    melody = {theirs: getattr(config, ours) for theirs, ours in _MELODY_KEYS.items()} if config.has_melody else {}
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    text_activations = {ours: theirs for theirs, ours in _TEXT_ACTIVATIONS.items()}
    model_type = _MODEL_TYPES[config.has_melody]
    return {
        "architectures": [_CLASSES[config.has_melody]],
        "model_type": model_type,
        "is_encoder_decoder": True,
        **melody,
        "decoder": {
            **decoder,
            "model_type": f"{model_type}_decoder",
            "activation_function": activations[config.activation],
            "pad_token_id": config.special_id,
            "bos_token_id": config.special_id,
            "tie_word_embeddings": False,
        },
        "text_encoder": {
            **{theirs: getattr(config.text, ours) for theirs, ours in _TEXT_KEYS.items()},
            "model_type": "t5",
            "feed_forward_proj": text_activations[config.text.activation, config.text.is_gated],
            "is_encoder_decoder": False,
            "use_cache": False,
        },
        "audio_encoder": codec_names.huggingface_config(load_preset(config.codec)) if config.codec else {},
    }


def config_from_huggingface(data: Mapping[str, Any], where: str) -> MusicGenConfig | None:
    """The configuration that a `config.json` tells of.

    Args:
        data: it. What is not there is as that library has it by default.
        where: its path, for errors.

    Returns:
        The configuration; None where it tells of another kind of model.

    Raises:
        InputError: it makes no sense, or tells of a variant that is not built here.
    """
    from musictool.config import from_dict
    from musictool.models.musicgen import MusicGenConfig

    if data.get("model_type") not in _MODEL_TYPES.values():
        return None
    try:
        decoder, text = data["decoder"], data["text_encoder"]
        values: dict[str, Any] = {"has_melody": data["model_type"] == _MODEL_TYPES[True]}
        values |= {ours: decoder[theirs] for theirs, ours in _DECODER_KEYS.items() if theirs in decoder}
        values |= {ours: data[theirs] for theirs, ours in _MELODY_KEYS.items() if theirs in data}
        values["activation"] = _ACTIVATIONS[decoder.get("activation_function", "gelu")]
        values["text"] = _text_values(text)
        values["codec"] = _codec_preset(data.get("audio_encoder") or {}, where)
        config = from_dict(MusicGenConfig, values)
        specials = {decoder.get(key, config.special_id) for key in ("pad_token_id", "bos_token_id")}
        if specials != {config.special_id}:
            raise ValueError("its special id is not the one after the codes")
        return config
    except (UsageError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"no MusicGen that is built here: {error}", context=where, code="bad-checkpoint") from error


def _text_values(data: Mapping[str, Any]) -> dict[str, Any]:
    if data.get("model_type") != "t5":
        raise ValueError(f"its text encoder is {data.get('model_type')}, not t5")
    stated = {**_TEXT_DEFAULTS, **data}
    values = {ours: stated[theirs] for theirs, ours in _TEXT_KEYS.items() if theirs in stated}
    activation, is_gated = _TEXT_ACTIVATIONS[data.get("feed_forward_proj", "relu")]
    return {**values, "activation": activation, "is_gated": is_gated}


def _codec_preset(data: Mapping[str, Any], where: str) -> str:
    """The preset of a codec; empty where none is like it."""
    stated = codec_names.config_from_huggingface(data, where)
    codecs = (name for name in PRESETS if name.startswith("encodec"))
    return next((name for name in codecs if load_preset(name) == stated), "")
