"""What a codec's tensors are called elsewhere: in Meta's `encodec` package, and in Hugging Face's EncodecModel.

Audiocraft's compression models have the package's names. Both libraries keep weights in weight norm where the model
does not normalise over time, and beside each codebook what only its training needs. A codec whose first layer has a
stride is ours alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from musictool.checkpoints.names import NameMap, NameRule, Parts, PartsRule, Shape
from musictool.checkpoints.weight_norm import WEIGHT_NORM
from musictool.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from musictool.models.codec import CodecConfig

PARTS = {"encoder": ("encoder",), "quantizer": ("quantizer",), "decoder": ("decoder",)}
"""The model's three parts, which are modules of that name."""

_MODEL_TYPE = "encodec"
_UNITS = {"inner": "block.1", "outer": "block.3", "shortcut": "shortcut"}
_BESIDE = ("embed_avg", "cluster_size", "inited")
_NORMS = {"none": "weight_norm", "group": "time_group_norm"}
_KEYS = {
    "sampling_rate": "rate_hz",
    "audio_channels": "channels",
    "hidden_size": "width",
    "num_filters": "filters",
    "upsampling_ratios": "ratios",
    "kernel_size": "kernel",
    "last_kernel_size": "last_kernel",
    "residual_kernel_size": "residual_kernel",
    "num_residual_layers": "residual_layers",
    "dilation_growth_rate": "dilation_growth",
    "compress": "compress",
    "use_conv_shortcut": "has_shortcut",
    "num_lstm_layers": "lstm_layers",
    "use_causal_conv": "is_causal",
    "pad_mode": "pad_mode",
    "trim_right_ratio": "trim_right",
    "codebook_size": "codebook_size",
    "normalize": "normalises",
    "chunk_length_s": "segment_seconds",
}


def foreign_names(config: CodecConfig) -> dict[str, NameMap]:
    """The names by layout: `encodec` and `huggingface`; none for a codec that neither library has."""
    if config.stem_stride > 1:
        return {}
    ignored = rf"quantizer\..*\.({'|'.join(_BESIDE)})"
    return {
        "encodec": NameMap(tuple(_package_rules(config)), (ignored,)),
        "huggingface": NameMap(tuple(_huggingface_rules(config)), (ignored,), huggingface_config(config)),
    }


# --------------------------------------------------------------------------------------------------------------- names


def _package_rules(config: CodecConfig) -> Iterator[NameRule | PartsRule]:
    for side in ("encoder", "decoder"):
        ours, theirs = f"{side}.layers.{{i}}", f"{side}.model.{{i}}"
        for unit, place in _UNITS.items():
            yield from _layer_rules(config, f"{ours}.{unit}", f"{theirs}.{place}.conv", "conv")
        yield from _recurrence_rules(config, f"{ours}.lstm", f"{theirs}.lstm")
    yield from _layer_rules(config, "encoder.layers.{i}", "encoder.model.{i}.conv", "conv")
    for number in _convolutions_of_decoder(config):
        yield from _layer_rules(config, f"decoder.layers.{number}", f"decoder.model.{number}.conv", "conv")
    yield from _layer_rules(config, "decoder.layers.{i}", "decoder.model.{i}.convtr", "convtr")
    yield _codebook_rule("quantizer.vq.layers.{i}._codebook")


def _convolutions_of_decoder(config: CodecConfig) -> tuple[int, int]:
    """The decoder's layers that are no transposed convolutions: the first and the last."""
    last = 2 + bool(config.lstm_layers) + (2 + config.residual_layers) * len(config.ratios)
    return 0, last


def _huggingface_rules(config: CodecConfig) -> Iterator[NameRule | PartsRule]:
    for side in ("encoder", "decoder"):
        layer = f"{side}.layers.{{i}}"
        for unit, place in _UNITS.items():
            yield from _layer_rules(config, f"{layer}.{unit}", f"{layer}.{place}", "conv")
        yield from _recurrence_rules(config, f"{layer}.lstm", f"{layer}.lstm")
        yield from _layer_rules(config, layer, layer, "conv")
    yield _codebook_rule("quantizer.layers.{i}.codebook")


def _layer_rules(config: CodecConfig, ours: str, theirs: str, conv: str) -> Iterator[NameRule | PartsRule]:
    """The names of a convolution and its norm.

    Args:
        config: the codec's.
        ours, theirs: the layer.
        conv: what they call the convolution in it.
    """
    weight = f"{theirs}.{conv}.weight"
    if config.norm == "none":
        old = (f"{weight}_g", f"{weight}_v")
        new = tuple(f"{theirs}.{conv}.parametrizations.weight.original{number}" for number in (0, 1))
        yield PartsRule(f"{ours}.conv.weight", old, WEIGHT_NORM, others=(new,))
    yield NameRule(f"{ours}.conv.weight", weight)
    yield NameRule(f"{ours}.conv.bias", f"{theirs}.{conv}.bias")
    if config.norm == "group":
        for name in ("weight", "bias"):
            yield NameRule(f"{ours}.norm.{name}", f"{theirs}.norm.{name}")


def _recurrence_rules(config: CodecConfig, ours: str, theirs: str) -> Iterator[NameRule]:
    for layer in range(config.lstm_layers):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            yield NameRule(f"{ours}.{name}_l{layer}", f"{theirs}.{name}_l{layer}")


def _codebook_rule(theirs: str) -> PartsRule:
    beside = tuple(f"{theirs}.{name}" for name in _BESIDE)
    return PartsRule("quantizer.codebooks.{i}.entries", (f"{theirs}.embed",), _CODEBOOK, beside=beside)


def _entries_shape(parts: Sequence[Shape]) -> Shape:
    return parts[0]


def _entries(parts: Sequence[Tensor]) -> Tensor:
    return parts[0]


def _with_averages(entries: Tensor) -> tuple[Tensor, ...]:
    """Entries, and what a training that has just begun with them holds: their sums, counts, and that there are some."""
    return entries, entries, entries.new_ones(len(entries)), entries.new_ones(1)


_CODEBOOK = Parts(_entries_shape, _entries, _with_averages)


# ------------------------------------------------------------------------------------------------------- configuration


def huggingface_config(config: CodecConfig) -> dict[str, Any]:
    """The `config.json` that goes with Hugging Face's names."""
    bandwidths = list(config.bandwidths_kbps)
    if not bandwidths or _codebooks_of(config, bandwidths[-1]) != config.codebooks:
        bandwidths.append(math.ceil(100 * config.codebooks * config.kbps_of_codebook) / 100)
    return {
        **{theirs: getattr(config, ours) for theirs, ours in _KEYS.items()},
        "architectures": ["EncodecModel"],
        "model_type": _MODEL_TYPE,
        "codebook_dim": config.width,
        "norm_type": _NORMS[config.norm],
        "target_bandwidths": bandwidths,
        "overlap": None if config.segment_seconds is None else config.overlap,
    }


def config_from_huggingface(data: Mapping[str, Any], where: str) -> CodecConfig | None:
    """The configuration that a `config.json` tells of.

    Args:
        data: it. What is not there is as that library has it by default, which is our default too.
        where: its path, for errors.

    Returns:
        The configuration; None where it tells of another kind of model.

    Raises:
        InputError: it makes no sense, or tells of a variant that is not built here.
    """
    from musictool.config import from_dict
    from musictool.models.codec import CodecConfig

    if data.get("model_type") != _MODEL_TYPE:
        return None
    optional = {"target_bandwidths": "bandwidths_kbps", "overlap": "overlap"}
    values = {ours: data[theirs] for theirs, ours in _KEYS.items() if theirs in data}
    values |= {ours: data[theirs] for theirs, ours in optional.items() if data.get(theirs) is not None}
    norms = {theirs: ours for ours, theirs in _NORMS.items()}
    try:
        values["norm"] = norms.get(data.get("norm_type", _NORMS["none"]), "")
        config = from_dict(CodecConfig, values)
        if data.get("codebook_dim") not in (None, config.width):
            raise ValueError("its codebooks are narrower than its latents")
        codebooks = _codebooks_of(config, config.bandwidths_kbps[-1])
        if codebooks < 1:
            raise ValueError("its bit rates leave no room for a codebook")
        return replace(config, codebooks=codebooks)
    except (UsageError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        raise InputError(f"no codec that is built here: {error}", context=where, code="bad-checkpoint") from error


def _codebooks_of(config: CodecConfig, kbps: float) -> int:
    """How many codebooks that library gives a codec whose highest bit rate is told."""
    return int(1000 * kbps // (math.ceil(config.frame_rate_hz) * math.ceil(math.log2(config.codebook_size))))
