"""Weights held in 4 bits by bitsandbytes (NF4, blocks of 64 with scales of 8 bits; Dettmers et al., 2023, section 3).

Those of all linear layers in attention and feed-forward, which is nearly all of a transformer; embeddings, norms and
what is behind the last layer stay as they are. The extra `finetune` brings bitsandbytes. Knows no particular model.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor, nn

from musictool.core.attention import Attention
from musictool.core.feed_forward import FeedForward, GatedFeedForward
from musictool.errors import MissingError

_KIND = "nf4"
_HOLDERS = (Attention, FeedForward, GatedFeedForward)


def load_bitsandbytes() -> ModuleType:
    """The module `bitsandbytes`.

    Raises:
        MissingError: it is not installed.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of what it could do without
    try:
        import bitsandbytes
    except ImportError as error:
        hint = "pip install 'musictool[finetune]', or train with --lora"
        raise MissingError("weights of 4 bits need bitsandbytes", hint=hint, code="missing-dependency") from error
    module: ModuleType = bitsandbytes
    return module


def hold_in_4_bits(model: nn.Module, compute: torch.dtype = torch.float32) -> None:
    """Replace linear layers by those of bitsandbytes.

    Args:
        model: on the CPU; layer by layer it takes up less memory.
        compute: what products are computed in.

    Raises:
        MissingError: bitsandbytes is not installed.
    """
    load_bitsandbytes()
    for parent, name, linear in _layers(model):
        setattr(parent, name, _in_4_bits(linear, compute))
    for parameter in model.parameters():
        if not hasattr(parameter, "quant_state"):
            parameter.data = parameter.data.clone()  # lets go of the file that weights are mapped from
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # by which peft knows it


@torch.no_grad()
def round_to_4_bits(model: nn.Module) -> None:
    """Round weights to those that 4 bits can tell apart; they are as many and as long as before.

    Args:
        model: on the CPU.

    Raises:
        MissingError: bitsandbytes is not installed.
    """
    functional = load_bitsandbytes().functional
    for _, _, linear in _layers(model):
        held, state = functional.quantize_4bit(linear.weight.data, quant_type=_KIND, compress_statistics=True)
        linear.weight.data = functional.dequantize_4bit(held, state).to(linear.weight.dtype)


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The layers that are meant, each with the module that it is in and its name there."""
    for holder in [module for module in model.modules() if isinstance(module, _HOLDERS)]:
        for name, child in list(holder.named_children()):
            if type(child) is nn.Linear:
                yield holder, name, child


def _in_4_bits(linear: nn.Linear, compute: torch.dtype) -> nn.Module:
    layers = load_bitsandbytes().nn
    has_bias = linear.bias is not None
    with torch.device("meta"):
        layer: nn.Module = layers.Linear4bit(
            linear.in_features, linear.out_features, has_bias, compute_dtype=compute, quant_type=_KIND
        )
    layer.weight = layers.Params4bit(linear.weight.detach(), quant_type=_KIND, module=layer)
    if has_bias:
        layer.bias = linear.bias
    # An evaluation would else put the weights into another order, in place, and training has no gradient for that.
    layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]  # a module's attributes are tensors to mypy
    layer.register_forward_pre_hook(_as_linear_layers_do)
    return layer.to("cpu")


def _as_linear_layers_do(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Take in numbers of autocast's format, as linear layers do, and so give them out."""
    (x,) = inputs
    kind = x.device.type
    return (x.to(torch.get_autocast_dtype(kind)),) if torch.is_autocast_enabled(kind) else inputs
